"""The ledger: what runs and sweeps used in energy, emissions, device hours and operations, and what that compares to.

A sweep's cost is the sum over its runs, the abandoned ones included; the share that went into tuning is the part that
the final run alone would hide (Strubell et al. 2019, section 4.2).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dsnn.energy.carbon import LB_G, PETAFLOPS_DAY, Sourced
from dsnn.energy.records import Number

__all__ = [
    "REFERENCES_G",
    "Entry",
    "Ledger",
    "as_references",
    "entry",
    "ledger",
    "petaflops_days",
    "training_operations",
]

STRUBELL = "Strubell et al. 2019, table 1"
PATTERSON = "Patterson et al. 2021, appendix A, from Google Flights"

REFERENCES_G = {
    "flight New York - San Francisco, one passenger": Sourced(1984 * LB_G, STRUBELL),
    "a human life, one year": Sourced(11_023 * LB_G, STRUBELL),
    "an American life, one year": Sourced(36_156 * LB_G, STRUBELL),
    "a car with its fuel, one lifetime": Sourced(126_000 * LB_G, STRUBELL),
    "flight San Francisco - New York and back, one passenger": Sourced(1.2e6, PATTERSON),
    "flight San Francisco - New York and back, whole plane": Sourced(180.4e6, PATTERSON),
}


@dataclass(frozen=True)
class Entry:
    """What one run used.

    Args:
        name: The run.
        kwh: Energy at the wall.
        co2e_g: Emissions in grams of CO2 equivalent.
        device_hours: Hours times devices.
        petaflops_days: Operations of training, in units of 8.64e19.
        source: "measured: ..." or "estimated: ...".
        tuning: Whether the run searched for settings, rather than giving a result that is reported.
    """

    name: str
    kwh: float
    co2e_g: float
    device_hours: float = 0.0
    petaflops_days: float = 0.0
    source: str = "estimated: unknown"
    tuning: bool = False


@dataclass(frozen=True)
class Ledger:
    """The sum over runs.

    Args:
        runs: Number of runs.
        kwh: Energy at the wall.
        co2e_g: Emissions in grams of CO2 equivalent.
        device_hours: Hours times devices.
        petaflops_days: Operations of training, in units of 8.64e19.
        tuning_share: Share of the energy that went into tuning; 0 where no energy was used.
        source: "measured: ..." if every run was measured, else "estimated: ..." with the number of runs.
    """

    runs: int
    kwh: float
    co2e_g: float
    device_hours: float
    petaflops_days: float
    tuning_share: float
    source: str


def entry(name: str, metrics: Mapping[str, float | int | str], tuning: bool = False) -> Entry:
    """A run's entry, from the metrics that it wrote.

    Args:
        name: The run.
        metrics: Its `metrics.json`, with carbon/kwh, carbon/co2e_g and carbon/source, and, where known,
            carbon/device_hours and carbon/petaflops_days.
        tuning: Whether it was part of a search.

    Raises:
        ValueError: An entry is missing, or it is no number that a run could have used.
    """
    numbers = {}
    for key in ("kwh", "co2e_g", "device_hours", "petaflops_days"):
        value = metrics.get(f"carbon/{key}", 0.0 if key in ("device_hours", "petaflops_days") else None)
        if isinstance(value, str | bool) or value is None or not 0 <= value < float("inf"):
            raise ValueError(
                f"Run {name}: carbon/{key} must be a finite number, not negative, got {value!r}; "
                "a run writes it when it ends."
            )
        numbers[key] = float(value)
    return Entry(name, **numbers, source=str(metrics.get("carbon/source", "estimated: unknown")), tuning=tuning)


def ledger(entries: Iterable[Entry]) -> Ledger:
    """Adds up runs.

    Raises:
        ValueError: No runs.
    """
    runs = list(entries)
    if not runs:
        raise ValueError("A ledger needs at least one run, got none; name the folder that holds the run directories.")
    kwh = sum(run.kwh for run in runs)
    guessed = sum(not run.source.startswith("measured") for run in runs)
    sources = ", ".join(sorted({run.source.partition(": ")[2] for run in runs}))
    return Ledger(
        runs=len(runs),
        kwh=kwh,
        co2e_g=sum(run.co2e_g for run in runs),
        device_hours=sum(run.device_hours for run in runs),
        petaflops_days=sum(run.petaflops_days for run in runs),
        tuning_share=sum(run.kwh for run in runs if run.tuning) / kwh if kwh else 0.0,
        source=f"estimated: {guessed} of {len(runs)} runs ({sources})" if guessed else f"measured: {sources}",
    )


def as_references(grams: Number) -> dict[str, float]:
    """Emissions as multiples of the reference lives and flights in `REFERENCES_G`."""
    return {name: float(grams) / reference.value for name, reference in REFERENCES_G.items()}


def petaflops_days(operations: Number) -> float:
    """Operations in petaflop/s-days, additions and multiplications counted apart (Amodei & Hernandez 2018)."""
    return float(operations) / PETAFLOPS_DAY


def training_operations(macs: Number, examples: Number, epochs: Number) -> float:
    """Operations of a training run (Amodei & Hernandez 2018, method 1): two a MAC, three for forward and backward.

    Args:
        macs: Multiply-accumulates of one forward pass of one example, all steps included.
        examples: Examples in an epoch.
        epochs: Passes over them.
    """
    return float(2 * 3 * macs * examples * epochs)
