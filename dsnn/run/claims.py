"""Published claims that follow from arithmetic, as functions: the table that reproductions name them in.

Each function is one step of a paper's own calculation, or of its correction. A claim in a configuration file gives a
name in `FUNCTIONS` and the arguments; nothing else can be called from there.
"""

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np

from dsnn.energy.carbon import INTENSITY_G_PER_KWH, LB_G, PETAFLOPS_DAY, co2e_g, named, training_kwh
from dsnn.energy.count import count
from dsnn.energy.price import price
from dsnn.energy.profiles import profile
from dsnn.energy.records import NeuronRecord, Number, Record, SynapseRecord
from dsnn.energy.rivals import compare
from dsnn.suggest import did_you_mean

__all__ = ["FUNCTIONS", "evaluate_claim"]

DAYS_PER_MONTH = 365.25 / 12


def evaluate_claim(compute: Mapping[str, Any]) -> float:
    """The value of a claim: calls the named function, after the arguments that are themselves such calls.

    Args:
        compute: `function`, a name in `FUNCTIONS`, and its arguments by name.

    Raises:
        ValueError: No function of that name, or other arguments than it takes.
    """
    arguments = {key: _resolved(value) for key, value in compute.items() if key != "function"}
    name = compute.get("function")
    if name not in FUNCTIONS:
        hint = did_you_mean(name, FUNCTIONS, f"they are {', '.join(sorted(FUNCTIONS))}.")
        raise ValueError(f"A claim's function must be one of the named ones, got {name!r}; {hint}")
    function = FUNCTIONS[str(name)]
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        takes = ", ".join(inspect.signature(function).parameters)
        raise ValueError(f"{name} takes {takes}, but {error}; correct the claim's arguments.") from None
    try:
        return float(function(**arguments))
    except (TypeError, ArithmeticError) as error:
        raise ValueError(f"{name} cannot be worked out from {arguments}: {error}; YAML reads 1e9 as text.") from None


def _resolved(value: Any) -> Any:
    if isinstance(value, Mapping):
        return evaluate_claim(value)
    return [_resolved(item) for item in value] if isinstance(value, list) else value


# Strubell, Ganesh & McCallum 2019.


def kwh(watts: Number, hours: Number, pue: str | Number = "world-2018") -> float:
    """Energy at the wall of a machine that draws `watts` in all (eq. 1)."""
    return training_kwh(hours, gpu_w=watts, pue=pue)


def co2e_lbs(
    watts: Number, hours: Number, pue: str | Number = "world-2018", intensity: str | Number = "us-2018"
) -> float:
    """Emissions in pounds (eq. 2)."""
    return co2e_g(kwh(watts, hours, pue), intensity) / LB_G


def cloud_usd(devices: Number, hours: Number, usd_per_hour: Number) -> float:
    """Price of renting devices."""
    return float(devices * hours * usd_per_hour)


def search_hours(steps: Number, run_hours: Number, run_steps: Number) -> float:
    """Hours that a search of so many training steps takes at the pace of one known run."""
    return float(steps * run_hours / run_steps)


def electricity_usd(lbs: Number, usd_per_kwh: Number, share: Number = 1.0) -> float:
    """Price of the electricity behind a share of some emissions, at the intensity of Strubell et al."""
    return float(share * lbs * LB_G / named(INTENSITY_G_PER_KWH, "us-2018").value * usd_per_kwh)


# Patterson et al. 2021.


def chip_hour_lbs(watts: Number, chips: Number) -> float:
    """Emissions of one chip of a machine in one hour, by the assumptions of Strubell et al. (appendix C)."""
    return co2e_lbs(watts, 1) / float(chips)


def search_lbs(chips: Number, steps: Number, step_hours: Number, chip_hour: Number) -> float:
    """Emissions of a search in pounds (appendix C)."""
    return float(chips * steps * step_hours * chip_hour)


def fleet_mwh(chips: Number, days: Number, watts: Number, pue: Number) -> float:
    """Energy of a fleet of chips at the wall (section 2.5)."""
    return training_kwh(24 * days, gpu_w=watts, gpus=int(chips), pue=pue) / 1000


def tonnes(mwh: Number, kg_per_kwh: Number) -> float:
    """Emissions in tonnes of CO2 equivalent (section 2.5)."""
    return float(mwh * kg_per_kwh)


def lbs_to_tonnes(lbs: Number) -> float:
    """Pounds as tonnes."""
    return float(lbs * LB_G / 1e6)


# Yan, Bai & Wong 2024.


def break_even_percent(steps: int, sizes: Sequence[int] = (256, 128, 10), hardware: str = "22nm") -> float:
    """Spike rate in percent below which a T-step network is cheaper than its ceil(log2(T + 1))-bit twin."""
    table = compare(uniform_network(0.1, steps, sizes), profile(hardware), steps=steps)
    return 100 * table[-1].break_even["pruned_quantised"].break_even


def proxy_shortfall(steps: int, rate: float, sizes: Sequence[int] = (256, 128, 10), hardware: str = "22nm") -> float:
    """How many times the energy with memory exceeds the usual proxy, accumulates at Horowitz's price."""
    counts, priced = count(uniform_network(rate, steps, sizes)), profile(hardware)
    proxy = price(counts, profile("45nm-fp32").at_bits(priced.bits), "arithmetic")
    return price(counts, priced, "memory").total_nj / proxy.total_nj


def uniform_network(rate: float, steps: int, sizes: Sequence[int]) -> list[Record]:
    """Records of dense layers in which every input and every hidden neuron fires at the same mean rate."""
    records: list[Record] = []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        last = i == len(sizes) - 2
        events = np.full(n_in, rate * steps, dtype=np.float64)
        records.append(SynapseRecord(f"layer{i}", "dense", (n_in,), (n_out,), events, steps))
        spikes = 0.0 if last else rate * steps * n_out
        records.append(NeuronRecord(f"layer{i}", "LI" if last else "LIF", (n_out,), updates=steps, spikes=spikes))
    return records


# Amodei & Hernandez 2018.


def doubling_months(points: Sequence[Sequence[Any]]) -> float:
    """Doubling time in months of the line of best fit through (date, amount, ...) on a logarithmic scale."""
    months = np.array([_day(point[0]) / DAYS_PER_MONTH for point in points])
    doublings = np.log2([float(point[1]) for point in points])
    return float(1 / np.polyfit(months - months.mean(), doublings, 1)[0])


def growth(doubling: Number, start: str | date, end: str | date) -> float:
    """Factor of growth between two dates at a doubling time in months."""
    return float(2 ** ((_day(end) - _day(start)) / DAYS_PER_MONTH / doubling))


def operations_pfs_days(macs: Number, passes: Number) -> float:
    """Petaflop/s-days by counting (method 1): two operations a MAC, three for forward and backward."""
    return float(2 * 3 * macs * passes / PETAFLOPS_DAY)


def hardware_pfs_days(devices: Number, days: Number, tflops: Number, utilisation: Number) -> float:
    """Petaflop/s-days from hardware and time (method 2)."""
    return float(devices * days * tflops * utilisation / 1000)


def _day(when: str | date) -> int:
    return (when if isinstance(when, date) else date.fromisoformat(when)).toordinal()


# Of any paper.


def ratio(of: Number, to: Number) -> float:
    """One number over another."""
    return float(of / to)


def mean(values: Sequence[Number]) -> float:
    """The mean."""
    return float(sum(values) / len(values))


FUNCTIONS: dict[str, Callable[..., float]] = {
    "break_even_percent": break_even_percent,
    "chip_hour_lbs": chip_hour_lbs,
    "cloud_usd": cloud_usd,
    "co2e_lbs": co2e_lbs,
    "doubling_months": doubling_months,
    "electricity_usd": electricity_usd,
    "fleet_mwh": fleet_mwh,
    "growth": growth,
    "hardware_pfs_days": hardware_pfs_days,
    "kwh": kwh,
    "lbs_to_tonnes": lbs_to_tonnes,
    "mean": mean,
    "operations_pfs_days": operations_pfs_days,
    "proxy_shortfall": proxy_shortfall,
    "ratio": ratio,
    "search_hours": search_hours,
    "search_lbs": search_lbs,
    "tonnes": tonnes,
}
