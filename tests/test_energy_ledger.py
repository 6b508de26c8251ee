"""The ledger adds up what runs used, and says what was only estimated."""

import json

import pytest

from dsnn.energy import as_references, entry, ledger, petaflops_days, training_operations

MEASURED = {"carbon/kwh": 2.0, "carbon/co2e_g": 800.0, "carbon/source": "measured: RAPL", "carbon/device_hours": 5.0}
ESTIMATED = {"carbon/kwh": 0.5, "carbon/co2e_g": 200.0, "carbon/source": "estimated: 12 W a core"}


def test_a_sweep_adds_up_with_the_share_spent_on_tuning():
    entries = [entry("final", MEASURED), *(entry(f"trial {i}", ESTIMATED, tuning=True) for i in range(4))]
    total = ledger(entries)
    assert (total.runs, total.kwh, total.co2e_g, total.device_hours) == (5, 4.0, 1600.0, 5.0)
    assert total.tuning_share == 0.5
    assert total.source == "estimated: 4 of 5 runs (12 W a core, RAPL)"


def test_only_measured_runs_make_a_measured_ledger():
    assert ledger([entry("a", MEASURED), entry("b", MEASURED)]).source == "measured: RAPL"
    assert ledger([entry("a", MEASURED | {"carbon/source": "someone said so"})]).source.startswith("estimated: 1 of 1")


def test_entries_come_from_a_runs_metrics_file(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(MEASURED | {"test/accuracy": 0.97, "carbon/petaflops_days": 0.25}))
    run = entry("a", json.loads(path.read_text()))
    assert (run.kwh, run.petaflops_days, run.tuning) == (2.0, 0.25, False)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "2", None, True])
def test_an_entry_without_a_usable_number_stops_with_a_sentence(value):
    with pytest.raises(ValueError, match="Run a: carbon/kwh must be a finite number"):
        entry("a", {key: v for key, v in (MEASURED | {"carbon/kwh": value}).items() if v is not None})


def test_an_empty_ledger_stops_with_a_sentence():
    with pytest.raises(ValueError, match="at least one run, got none"):
        ledger([])


def test_reference_lives_and_flights():
    # 1438 lbs of BERT against one passenger's flight of 1984 lbs; 626,155 lbs are 4.97 cars for life.
    assert as_references(1438 * 453.59237)["flight New York - San Francisco, one passenger"] == pytest.approx(
        0.7248, 1e-3
    )
    assert as_references(626_155 * 453.59237)["a car with its fuel, one lifetime"] == pytest.approx(4.969, 1e-3)


def test_petaflops_days_of_alexnet():
    # Amodei & Hernandez 2018, appendix: 1.2M images, 90 epochs, 0.75 G MACs: 470 to 486 PF, 0.0054 to 0.0056 pfs-days.
    operations = training_operations(0.75e9, 1.2e6, 90)
    assert operations == pytest.approx(486e15)
    assert petaflops_days(operations) == pytest.approx(486 / 86_400)
