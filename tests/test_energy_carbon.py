"""Strubell's formula against the published table, and meters on made-up counters."""

import math
import sys

import pytest

from dsnn.energy import carbon, co2e_g, meter, training_kwh


@pytest.mark.parametrize(
    ("watts", "hours", "kwh", "pounds"),
    [
        (1415.78, 12, 27, 26),
        (1515.43, 84, 201, 192),
        (517.66, 336, 275, 262),
        (12041.51, 79.2, 1507, 1438),  # printed as 79 h; the text says 3.3 days
        (1515.43, 274_120, 656_347, 626_155),
    ],
)
def test_strubell_table_3(watts, hours, kwh, pounds):
    energy = training_kwh(hours, gpu_w=watts)
    assert round(energy) == kwh
    assert round(co2e_g(energy) / carbon.LB_G) == pounds


def test_formula_adds_processor_memory_and_each_gpu():
    assert training_kwh(10, cpu_w=100, memory_w=20, gpu_w=50, gpus=4, pue="none") == pytest.approx(3.2)
    assert training_kwh(10, cpu_w=100, memory_w=20, gpu_w=50, gpus=4, pue=1.5) == pytest.approx(4.8)


def test_every_named_value_has_a_source():
    for table in (carbon.PUE, carbon.INTENSITY_G_PER_KWH):
        assert all(entry.value > 0 and len(entry.source) > 10 for entry in table.values())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: training_kwh(-1, gpu_w=1), "hours must be finite and not negative, got -1"),
        (lambda: training_kwh(1, gpu_w=math.nan), "gpu_w must be finite"),
        (lambda: training_kwh(1, gpu_w=1, pue="mars"), "one of none, world-2018.*got 'mars'"),
        (lambda: co2e_g(1, -3), "must be positive and finite, got -3"),
        (lambda: meter(pue="mars"), "got 'mars'"),
        (lambda: meter(intensity="mars"), "got 'mars'"),
    ],
)
def test_bad_values_stop_with_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def zone(root, name, label, joules, range_j=1000.0):
    folder = root / name
    folder.mkdir(exist_ok=True)
    (folder / "name").write_text(label + "\n")
    (folder / "energy_uj").write_text(str(int(joules * 1e6)))
    (folder / "max_energy_range_uj").write_text(str(int(range_j * 1e6)))


def test_rapl_counters_are_added_up_over_packages_and_wrap_around(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    zone(tmp_path, "intel-rapl:0", "package-0", 990.0)
    zone(tmp_path, "intel-rapl:1", "package-1", 100.0)
    zone(tmp_path, "intel-rapl:0:0", "core", 5.0)
    zone(tmp_path, "intel-rapl:0:1", "dram", 50.0)
    with carbon.Meter(pue=2.0, intensity=500.0, powercap=tmp_path) as running:
        zone(tmp_path, "intel-rapl:0", "package-0", 30.0)  # wrapped at 1000: 40 J
        zone(tmp_path, "intel-rapl:1", "package-1", 160.0)  # 60 J
        zone(tmp_path, "intel-rapl:0:0", "core", 900.0)  # inside the package: not added
        zone(tmp_path, "intel-rapl:0:1", "dram", 75.0)  # 25 J
    metrics = running.metrics()
    assert metrics["carbon/kwh"] == pytest.approx(2.0 * 125 / 3.6e6)
    assert metrics["carbon/co2e_g"] == pytest.approx(500 * 2.0 * 125 / 3.6e6)
    assert metrics["carbon/source"] == "measured: RAPL"


def test_a_counter_that_wraps_twice_is_caught_by_reading_in_between(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    zone(tmp_path, "intel-rapl:0", "package-0", 0.0)
    with carbon.Meter(powercap=tmp_path, interval_s=0.002) as running:
        for joules in (600.0, 200.0, 800.0, 400.0):  # 600 + 600 + 600 + 600 J with a range of 1000 J
            zone(tmp_path, "intel-rapl:0", "package-0", joules)
            before = running.seconds
            while running.seconds == before:
                pass
            while (seen := running.seconds) == before or running._last[0] != joules:
                before = seen
    assert running.parts()["cpu"].value == pytest.approx(2400.0)


def test_half_a_measurement_is_called_an_estimate(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    zone(tmp_path, "intel-rapl:0", "package-0", 0.0)
    with carbon.Meter(powercap=tmp_path) as running:
        zone(tmp_path, "intel-rapl:0", "package-0", 36.0)
    source = running.metrics()["carbon/source"]
    assert source.startswith("estimated: ")
    assert "W per GB of memory" in source
    assert source.endswith("cpu measured: RAPL")


def test_without_counters_the_figure_is_labelled_and_grows_with_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with carbon.Meter(powercap=tmp_path / "absent", pue="none", gpus=2) as running:
        sum(i * i for i in range(300_000))
    metrics = running.metrics()
    assert metrics["carbon/source"].startswith("estimated: ")
    assert "measured" not in metrics["carbon/source"]
    parts = running.parts()
    assert parts["cpu"].value == pytest.approx(running.cpu_seconds * 12.0)
    assert parts["cpu"].value > 0
    assert parts["gpu"].value == pytest.approx(running.seconds * 600.0)
    assert metrics["carbon/kwh"] * 3.6e6 == pytest.approx(sum(part.value for part in parts.values()))


def test_nvml_counter_is_read_in_joules(tmp_path, monkeypatch):
    class Nvml:
        millijoules = 1_000_000

        def nvmlInit(self): ...

        def nvmlDeviceGetCount(self):
            return 1

        def nvmlDeviceGetHandleByIndex(self, index):
            return index

        def nvmlDeviceGetTotalEnergyConsumption(self, handle):
            return self.millijoules

    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with carbon.Meter(powercap=tmp_path) as running:
        nvml.millijoules += 7_000
    assert running.parts()["gpu"] == (7.0, "measured: NVML")


def test_missing_codecarbon_stops_with_the_fix(monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    monkeypatch.setitem(sys.modules, "codecarbon.input", None)
    with pytest.raises(ImportError, match=r"pip install codecarbon"):
        carbon.codecarbon_intensity_g_per_kwh("FRA")


@pytest.mark.parametrize(("intensity", "pue"), [("50", "1.2"), (50, 1.2), ("5e1", "+1.2"), (50.0, "1.2")])
def test_f10_intensity_and_effectiveness_as_numbers(intensity, pue, tmp_path):
    with carbon.Meter(pue=pue, intensity=intensity, powercap=tmp_path) as running:
        pass
    found = running.metrics()
    assert found["carbon/co2e_g"] == pytest.approx(50 * found["carbon/kwh"])
    assert carbon.named(carbon.PUE, pue).value == 1.2


def test_f10_numbers_on_the_command_line_reach_the_meter():
    from dsnn.run import schema

    energy = schema.compose(["energy.intensity=50", "energy.pue=1.2"]).energy
    made = meter(energy.pue, energy.intensity)
    assert carbon.named(carbon.PUE, made.pue).value == 1.2
    assert carbon.named(carbon.INTENSITY_G_PER_KWH, made.intensity).value == 50
    for value in ("0.5", "-1", "nan", "inf", "0", "one"):
        with pytest.raises(ValueError, match=rf"got '?{value}"):
            meter(pue=value)
