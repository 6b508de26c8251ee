"""What a run's network costs beside its rivals, and where its layers should run, as rows of the report."""

from collections.abc import Mapping
from typing import NamedTuple

from dsnn.plots import wording
from dsnn.report import figures
from dsnn.report.page import energy, number, percent


class Cost(NamedTuple):
    """An energy, beside it what it is of this network's, and whether a rival is cheaper."""

    text: str
    share: str = ""
    cheaper: bool = False


class CostTable(NamedTuple):
    """One profile's energies: a row per network, a column per accounting; what is known of the network; remarks."""

    profile: str
    accountings: list[str]
    rows: list[tuple[str, list[Cost], str]]
    remarks: list[str]


def cost_tables(metrics: figures.Metrics, degenerate: str) -> list[CostTable]:
    """Returns a table for each hardware profile and accounting that the run was priced in."""
    tables = []
    for profile, by_accounting in figures.energies(metrics).items():
        own = by_accounting.get("")
        named = {name: costs for name, costs in by_accounting.items() if name} or by_accounting
        # the run's own accounting first; arithmetic alone, the field's usual proxy, last
        named = dict(sorted(named.items(), key=lambda item: (item[1] != own, item[0] == "arithmetic", item[0])))
        rows = [
            (label, [_cost(costs, key) for costs in named.values()], _known_of(key, metrics))
            for key, label in figures.networks(metrics).items()
            if any(key in costs for costs in named.values())
        ]
        cheaper = [_cheaper(metrics, costs, name) for name, costs in named.items()]
        untrained = any(known == wording.UNTRAINED for *_, known in rows)
        told = (
            "Rivals without an accuracy are priced, not trained: theirs may be another than ours." if untrained else ""
        )
        remarks = [
            degenerate,
            told,
            *cheaper,
            *[wording.even(metrics, profile, name) for name in named],
            wording.assumption(metrics),
            wording.unpriced(metrics),
        ]
        tables.append(CostTable(profile, list(named), rows, [remark for remark in remarks if remark]))
    return tables


def _cost(costs: Mapping[str, float], key: str) -> Cost:
    if key not in costs:
        return Cost("–")
    ours = costs.get("snn_nj", 0.0)
    if not key.startswith("rival/") or not ours:
        return Cost(energy(costs[key]))
    return Cost(energy(costs[key]), f"{costs[key] / ours:.3g}\u202f×", costs[key] < ours)


def _known_of(key: str, metrics: figures.Metrics) -> str:
    """The accuracy of a network; of a rival that nobody trained, that."""
    if not key.startswith("rival/"):
        own = metrics.get("deployed/accuracy") if key == "snn_nj" else None
        return "" if own is None else percent(float(own))
    name = key.removeprefix("rival/").removesuffix("_nj")
    if not wording.is_trained(name, metrics):
        return wording.UNTRAINED
    accuracy = metrics.get(f"rival/{name}/accuracy")
    return "trained" if accuracy is None else percent(float(accuracy))


def _cheaper(metrics: figures.Metrics, costs: Mapping[str, float], accounting: str) -> str:
    labels, ours = figures.networks(metrics), costs.get("snn_nj", 0.0)
    names = [labels[key] for key, value in costs.items() if key.startswith("rival/") and value < ours]
    return f"Cheaper than this network in {accounting or 'this accounting'}: {'; '.join(names)}." if names else ""


class PlacementRow(NamedTuple):
    """Where one layer should run, and what speaks for it."""

    layer: str
    where: str
    probability: str
    rate: str
    break_even: str
    events: str
    dense: str


def placement_rows(metrics: figures.Metrics) -> list[PlacementRow]:
    """Returns a row for each layer: how often it is reached, and its energy where it spikes and where it is dense."""
    rows = []
    for name, value in metrics.items():
        if not (name.startswith("placement/") and name.endswith("/p_events")):
            continue
        layer, p = name.split("/")[1], float(value)
        of_layer = {key: f"placement/{layer}/{key}" for key in (
            "rate", "rate_low", "rate_high", "break_even_rate", "events_nj", "dense_nj")}  # fmt: skip
        if not metrics.keys() >= {*of_layer.values()}:
            continue
        at = {key: float(metrics[full]) for key, full in of_layer.items()}
        where = "event-driven core" if p >= 0.5 else "dense engine"
        rate = f"{number(at['rate'])} ({number(at['rate_low'])} to {number(at['rate_high'])})"
        costs = (energy(at["events_nj"]), energy(at["dense_nj"]))
        rows.append(PlacementRow(layer, where, percent(p), rate, number(at["break_even_rate"]), *costs))
    return rows
