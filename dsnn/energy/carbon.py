"""What the computation itself used: kWh and grams of CO2e, measured where the machine allows, else an estimate.

The formula is Strubell, Ganesh & McCallum 2019 (eqs. 1 and 2): energy at the wall is the power of processors and
memory times the hours times the data centre's PUE; emissions are energy times the grid's intensity. PUE and intensity
are named values with sources, and a figure that was not measured says "estimated" wherever it appears.
"""

import functools
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from typing import NamedTuple

from dsnn.energy.records import Number

__all__ = [
    "INTENSITY_G_PER_KWH",
    "LB_G",
    "PETAFLOPS_DAY",
    "PUE",
    "Meter",
    "Sourced",
    "co2e_g",
    "codecarbon_intensity_g_per_kwh",
    "measured_parts",
    "meter",
    "named",
    "training_kwh",
]

LB_G = 453.59237
J_PER_KWH = 3.6e6
PETAFLOPS_DAY = 1e15 * 86_400


class Sourced(NamedTuple):
    """A number and where it comes from."""

    value: float
    source: str


PATTERSON = "Patterson et al. 2021, arXiv 2104.10350, table 1 and appendix D"
PUE = {
    "none": Sourced(1.0, "the machine alone, no data centre around it"),
    "world-2018": Sourced(1.58, "Ascierto 2018, Uptime Institute survey, as in Strubell et al. 2019"),
    "us-2020": Sourced(1.59, PATTERSON),
    "google-iowa-2020": Sourced(1.11, PATTERSON),
    "google-georgia": Sourced(1.10, PATTERSON),
}
INTENSITY_G_PER_KWH = {
    "us-2018": Sourced(0.954 * LB_G, "EPA 2018 eGRID, 0.954 lb CO2e per kWh, as in Strubell et al. 2019, eq. 2"),
    "us-2020": Sourced(429.0, PATTERSON),
    "google-iowa-2020": Sourced(478.0, PATTERSON + ", gross"),
    "google-iowa-2020-net": Sourced(80.0, PATTERSON + ", net of carbon-free purchases"),
    "google-georgia": Sourced(431.0, PATTERSON),
    "world-2018": Sourced(475.0, "IEA 2019, Global Energy and CO2 Status Report, world mean of 2018"),
}
# Green Algorithms (Lannelongue, Grealey & Inouye 2021, Advanced Science 8:2100707): its defaults for hardware that is
# not in its table, and the thermal design power per core of an unknown processor.
CORE_W = Sourced(12.0, "Green Algorithms 2021, processor of unknown make, W per core in use")
MEMORY_W_PER_GB = Sourced(0.3725, "Green Algorithms 2021, W per GB of memory")
GPU_W = Sourced(300.0, "NVIDIA V100 SXM2 data sheet, thermal design power, for a GPU of unknown make")


def named(table: dict[str, Sourced], value: str | Number) -> Sourced:
    """An entry of a table of sourced numbers by its name, or a number of the user's own.

    Args:
        table: `PUE` or `INTENSITY_G_PER_KWH`.
        value: A name in it, or a positive number, which may be written as text, as a configuration has it.

    Raises:
        ValueError: No such name, or not a positive finite number.
    """
    if isinstance(value, str) and value not in table and (number := _number(value)) is not None:
        value = number
    if isinstance(value, str):
        if value not in table:
            raise ValueError(f"The value must be a number or one of {', '.join(table)}, got {value!r}; name one.")
        return table[value]
    if not 0 < value < float("inf"):
        raise ValueError(f"The value must be positive and finite, got {value}; or name one of {', '.join(table)}.")
    if table is PUE and value < 1:
        raise ValueError(f"A power usage effectiveness must be at least 1, got {value}; 1 is the machine alone.")
    return Sourced(float(value), "given by the user")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def training_kwh(
    hours: Number,
    *,
    cpu_w: Number = 0.0,
    memory_w: Number = 0.0,
    gpu_w: Number = 0.0,
    gpus: int = 1,
    pue: str | Number = "world-2018",
) -> float:
    """Energy at the wall in kWh (Strubell et al. 2019, eq. 1): PUE t (p_c + p_r + g p_g) / 1000.

    Args:
        hours: Training time in hours.
        cpu_w: Mean power of all processor sockets, in W.
        memory_w: Mean power of main memory, in W.
        gpu_w: Mean power of one GPU, in W.
        gpus: Number of GPUs.
        pue: A name in `PUE`, or a number of at least 1.

    Raises:
        ValueError: A negative or non-finite number.
    """
    for name, value in {"hours": hours, "cpu_w": cpu_w, "memory_w": memory_w, "gpu_w": gpu_w, "gpus": gpus}.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be finite and not negative, got {value}; power is in W, time in hours.")
    return float(named(PUE, pue).value * hours * (cpu_w + memory_w + gpus * gpu_w) / 1000)


def co2e_g(kwh: Number, intensity: str | Number = "us-2018") -> float:
    """Emissions in grams of CO2 equivalent.

    Args:
        kwh: Energy at the wall.
        intensity: A name in `INTENSITY_G_PER_KWH`, or g per kWh.
    """
    return float(kwh * named(INTENSITY_G_PER_KWH, intensity).value)


def codecarbon_intensity_g_per_kwh(country: str) -> Sourced:
    """A country's grid intensity from CodeCarbon's tables, by its three-letter ISO code.

    Raises:
        ImportError: CodeCarbon is not installed.
        ValueError: CodeCarbon has no figure for the country.
    """
    try:
        from codecarbon.input import DataSource
    except ImportError:
        raise ImportError(
            "A country's intensity needs CodeCarbon, which is not installed; run pip install codecarbon, or name "
            f"one of {', '.join(INTENSITY_G_PER_KWH)}."
        ) from None
    mix = DataSource().get_global_energy_mix_data()
    entry = mix.get(country.upper(), {})
    if "carbon_intensity" not in entry:
        raise ValueError(f"country must be a three-letter code that CodeCarbon knows, got {country!r}; such as USA.")
    return Sourced(float(entry["carbon_intensity"]), f"CodeCarbon, energy mix of {country.upper()}")


@dataclass
class Meter:
    """Energy of this machine (or an estimate for this process) between entering and leaving a `with` block.

    Counters wrap around, so a daemon thread reads them every half minute.

    Args:
        pue: A name in `PUE`, or a number.
        intensity: A name in `INTENSITY_G_PER_KWH`, or g per kWh.
        gpus: GPUs in use, for the estimate where NVML is absent.
        powercap: Where Linux keeps RAPL's counters.
        interval_s: Seconds between readings.
    """

    pue: str | Number = "none"
    intensity: str | Number = "world-2018"
    gpus: int = 0
    powercap: Path = Path("/sys/class/powercap")
    interval_s: Number = 30.0
    seconds: float = field(default=0.0, init=False)
    cpu_seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        named(PUE, self.pue)
        named(INTENSITY_G_PER_KWH, self.intensity)

    def __enter__(self) -> "Meter":
        self._counters = [*_rapl(self.powercap), *_nvml()]
        self._last = [counter.read() for counter in self._counters]
        self._joules = [0.0] * len(self._counters)
        self._wall, self._cpu = time.monotonic(), time.process_time()
        self._stop, self._reading = Event(), Lock()
        self._thread = Thread(target=self._poll, daemon=True, name="dsnn-energy-meter")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._advance()
        self._stop.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._stop.wait(float(self.interval_s)):
            self._advance()

    def _advance(self) -> None:
        if self._stop.is_set():
            return
        with self._reading:
            self._read()

    def _read(self) -> None:
        for i, counter in enumerate(self._counters):
            now, last = counter.read(), self._last[i]
            if now is None or last is None:
                continue
            self._joules[i] += now - last if now >= last else now - last + counter.range_j
            self._last[i] = now
        self.seconds = time.monotonic() - self._wall
        self.cpu_seconds = time.process_time() - self._cpu

    def parts(self) -> dict[str, Sourced]:
        """Energy so far, in joules, by part (cpu, memory, gpu), with "measured: ..." or "estimated: ..." as source."""
        self._advance()
        parts = measured_parts(self._counters, self._joules)
        if "cpu" not in parts:
            parts["cpu"] = Sourced(
                self.cpu_seconds * CORE_W.value, f"estimated: CPU seconds x {CORE_W.value:g} W a core"
            )
        if "memory" not in parts:
            power = _peak_memory_gb() * MEMORY_W_PER_GB.value
            parts["memory"] = Sourced(self.seconds * power, f"estimated: {MEMORY_W_PER_GB.value:g} W per GB of memory")
        if self.gpus and "gpu" not in parts:
            power = self.gpus * GPU_W.value
            parts["gpu"] = Sourced(self.seconds * power, f"estimated: {self.gpus} x {GPU_W.value:g} W of GPU")
        return parts

    def metrics(self, operations: Number | None = None) -> dict[str, float | str]:
        """The run's entries for `metrics.json`: carbon/kwh, /co2e_g, /source, /device_hours and /petaflops_days.

        Args:
            operations: Of training (`training_operations`); without them carbon/petaflops_days is left out.
        """
        parts = self.parts()
        kwh = sum(part.value for part in parts.values()) / J_PER_KWH * named(PUE, self.pue).value
        used = {} if operations is None else {"carbon/petaflops_days": float(operations) / PETAFLOPS_DAY}
        return {
            "carbon/kwh": kwh,
            "carbon/co2e_g": co2e_g(kwh, self.intensity),
            "carbon/source": _label(parts),
            "carbon/device_hours": max(self.gpus, 1) * self.seconds / 3600,
            **used,
        }


def meter(pue: str | Number = "none", intensity: str | Number = "world-2018", gpus: int = 0) -> Meter:
    """A meter for a `with` block; call its `metrics()` in or after the block."""
    return Meter(pue, intensity, gpus)


def measured_parts(counters: Sequence["Counter"], joules: Sequence[float]) -> dict[str, Sourced]:
    """Sums the counters by part."""
    parts: dict[str, Sourced] = {}
    for counter, value in zip(counters, joules, strict=True):
        before = parts.get(counter.part, Sourced(0.0, ""))
        parts[counter.part] = Sourced(before.value + value, f"measured: {counter.by}")
    return parts


def _label(parts: dict[str, Sourced]) -> str:
    """One sentence: "measured" only where every part was; otherwise "estimated" leads and the measured are named."""
    if all(part.source.startswith("measured") for part in parts.values()):
        return "measured: " + ", ".join(
            dict.fromkeys(part.source.removeprefix("measured: ") for part in parts.values())
        )
    guesses = [part.source.removeprefix("estimated: ") for part in parts.values() if part.source.startswith("est")]
    known = [f"{name} {part.source}" for name, part in parts.items() if part.source.startswith("measured")]
    return "estimated: " + "; ".join([", ".join(guesses), *known])


class Counter(NamedTuple):
    """A running energy counter of the machine.

    Args:
        part: "cpu", "memory" or "gpu".
        by: What reads it: "RAPL" or "NVML".
        range_j: Where it wraps around, in J.
        read: Its value in J, or None when it cannot be read.
    """

    part: str
    by: str
    range_j: float
    read: Callable[[], float | None]


def _peak_memory_gb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)  # bytes on macOS, kilobytes on Linux


def _rapl(powercap: Path) -> list[Counter]:
    """RAPL counters: packages (processor) and their DRAM; core and uncore are inside the package and left out."""
    counters = []
    for zone in sorted(powercap.glob("intel-rapl:*")) if powercap.is_dir() else []:
        try:
            label = (zone / "name").read_text(encoding="utf-8").strip()
            range_j = int((zone / "max_energy_range_uj").read_text(encoding="utf-8")) * 1e-6
            int((zone / "energy_uj").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # absent, or readable by root only: the estimate stands in and says so
        part = "cpu" if label.startswith("package") else "memory" if label == "dram" else None
        if part:
            counters.append(Counter(part, "RAPL", range_j, functools.partial(_read_uj, zone / "energy_uj")))
    return counters


def _read_uj(path: Path) -> float | None:
    try:
        return int(path.read_text(encoding="utf-8")) * 1e-6
    except (OSError, ValueError):
        return None


def _nvml() -> list[Counter]:
    """NVML's total energy counter of each visible GPU (Volta and later)."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        for handle in handles:
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # no library, no driver, no permission, no counter: all mean an estimate
        return []

    def reader(handle: object) -> Callable[[], float]:
        return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1e-3

    return [Counter("gpu", "NVML", float("inf"), reader(handle)) for handle in handles]
