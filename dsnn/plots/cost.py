"""What the network costs, and what that buys."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure

from dsnn.plots.style import ACCENT, INK, MUTED, SERIES, TINT, new_figure, styled

NETWORKS = {
    "snn_nj": "this network",
    "ungated_nj": "all sites, all steps",
    "ann_nj": "dense ANN twin",
    "ann_compact_nj": "ANN of the kept sites",
    "quantised_nj": "quantised ANN twin",
    "lstm_nj": "LSTM of the same width",
    "gru_nj": "GRU of the same width",
}
"""What the quantities of ``energy/<profile>/`` stand for, in the order in which they are shown."""

_COLOURS = dict(
    zip(NETWORKS, (SERIES[0], SERIES[5], SERIES[1], SERIES[4], SERIES[2], SERIES[6], SERIES[7]), strict=True)
)


@styled
def energy_bars(costs: Mapping[str, Mapping[str, float | int]]) -> Figure:
    """Modelled energy per inference, a panel per hardware profile: this network beside its ungated self and its twins.

    Args:
        costs: Per profile the energies in nJ under the names of `NETWORKS`, as far as they are known.
    """
    shown = {profile: [key for key in NETWORKS if key in cost] for profile, cost in costs.items()}
    heights = [max(len(entries), 1) for entries in shown.values()]
    figure = new_figure(0.27 * sum(heights) + 0.42 * len(heights) + 0.1)
    panels = figure.subplots(len(costs), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (profile, entries) in zip(panels, shown.items(), strict=True):
        values = [costs[profile][key] for key in entries]
        axes.barh([NETWORKS[key] for key in entries], values, color=[_COLOURS[key] for key in entries], height=0.72)
        for row, value in enumerate(values):
            axes.annotate(format_nj(value), (value, row), (4, 0), textcoords="offset points", va="center", size=8.5)
        axes.set(xlim=(0, 1.28 * max([*values, 1e-12])), xticks=[], ylim=(len(entries) - 0.4, -0.6))
        axes.set_title(f"{profile}: energy per inference")
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
    return figure


def format_nj(nanojoules: float | int) -> str:
    """Energy in the unit that keeps it between 1 and 1000."""
    for unit, scale in (("mJ", 1e6), ("µJ", 1e3), ("nJ", 1.0)):
        if abs(nanojoules) >= scale:
            return f"{nanojoules / scale:.3g} {unit}"
    return f"{nanojoules * 1e3:.3g} pJ"


def pareto_front(energy: Float[np.ndarray, "run"], accuracy: Float[np.ndarray, "run"]) -> list[int]:
    """Indices of the runs that no other run beats in both energy and accuracy, by increasing energy."""
    front: list[int] = []
    for index in np.lexsort((-accuracy, energy)):
        if not front or accuracy[index] > accuracy[front[-1]]:
            front.append(int(index))
    return front


@styled
def accuracy_energy(
    energy_nj: Float[np.ndarray, "run"],
    accuracy: Float[np.ndarray, "run"],
    names: Sequence[str] = (),
    profile: str = "",
) -> Figure:
    """Accuracy against energy of many runs; the line joins those that no other run beats in both.

    Args:
        energy_nj: Energy per inference of each run.
        accuracy: Accuracy of each run, in [0, 1].
        names: Names of the runs; those on the front are written beside it, as far as there is room.
        profile: Hardware profile the energies were computed with.
    """
    front = pareto_front(energy_nj, accuracy)
    figure = new_figure(2.8)
    axes = figure.subplots()
    axes.scatter(energy_nj, 100 * accuracy, s=26, color=MUTED, alpha=0.55, linewidths=0, label="run")
    axes.plot(energy_nj[front], 100 * accuracy[front], color=ACCENT, marker="o", ms=5, drawstyle="steps-post",
              linewidth=1.5, label="front: no run is better in both")  # fmt: skip
    written: list[np.ndarray] = []
    for index in front if names else ():
        place = np.array([_share(energy_nj, index), _share(accuracy, index)])
        if any((np.abs(place - other) < (0.45, 0.09)).all() for other in written):
            continue
        written.append(place)
        late = place[0] > 0.5
        axes.annotate(names[index], (energy_nj[index], 100 * accuracy[index]), (-6 if late else 6, -11), size=8,
                      textcoords="offset points", color=INK, ha="right" if late else "left")  # fmt: skip
    if energy_nj.min() > 0 and energy_nj.max() / energy_nj.min() > 20:
        axes.set_xscale("log")
    axes.set(xlabel=f"energy per inference, nJ{f' ({profile})' if profile else ''}", ylabel="test accuracy, %")
    axes.margins(x=0.12, y=0.12)
    axes.grid()
    axes.legend(loc="upper left", bbox_to_anchor=(-0.12, 1.16), ncols=2, borderaxespad=0, columnspacing=1.2)
    return figure


def _share(values: Float[np.ndarray, "run"], index: int) -> float:
    """Where a value stands between the smallest, 0, and the largest, 1."""
    span = float(np.ptp(values))
    return float(values[index] - values.min()) / span if span else 0.0


@styled
def price_trace(history: Sequence[Mapping[str, Any]]) -> Figure:
    """How the price of energy and the modelled energy moved over training, and the budget if there is one.

    Args:
        history: Records with ``epoch``, ``svi/lam``, ``svi/energy_nj`` and perhaps ``svi/budget_nj``.
    """
    records = [record for record in history if "svi/lam" in record and "svi/energy_nj" in record]
    at = [record["epoch"] for record in records]
    figure = new_figure(3.2)
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(at, [record["svi/energy_nj"] for record in records], color=ACCENT, marker="o", ms=3, label="modelled")
    budget = [record.get("svi/budget_nj", 0.0) for record in records]
    if any(budget):
        above.plot(at, budget, color=MUTED, linestyle=(0, (4, 3)), label="budget")
        above.legend()
    above.set(ylabel="energy, nJ", ylim=(0, None))
    below.plot(at, [record["svi/lam"] for record in records], color=SERIES[1], marker="o", ms=3)
    below.set(ylabel="price λ, nats per nJ", xlabel="epoch")
    if any(record["svi/lam"] > 0 for record in records):
        below.set_yscale("log", nonpositive="mask")
    for axes in (above, below):
        axes.grid(axis="y")
    return figure


@styled
def front(
    across: Float[np.ndarray, "trial"],
    up: Float[np.ndarray, "trial"],
    best: Bool[np.ndarray, "trial"],
    names: tuple[str, str],
) -> Figure:
    """Two objectives of a search; the marked trials are those that no other beats in all objectives.

    Args:
        across: Values of the one objective.
        up: Values of the other.
        best: Whether a trial is on the front.
        names: What they are called.
    """
    figure = new_figure(2.8)
    axes = figure.subplots()
    order = np.flatnonzero(best)[np.argsort(across[best])]
    axes.scatter(across, up, s=26, color=MUTED, alpha=0.55, linewidths=0, label="trial")
    axes.plot(across[order], up[order], color=ACCENT, marker="o", ms=5, linewidth=1.5, label="front")
    axes.set(xlabel=names[0], ylabel=names[1])
    axes.margins(x=0.12, y=0.12)
    axes.grid()
    axes.legend(loc="upper left", bbox_to_anchor=(-0.12, 1.16), ncols=2, borderaxespad=0, columnspacing=1.2)
    return figure


@styled
def parallel_coordinates(columns: Mapping[str, Sequence[float | int | str]], colour_by: str) -> Figure:
    """Runs as lines across their settings and results; the better a run is in `colour_by`, the stronger its line.

    Args:
        columns: Per axis the runs' values; texts stand in the order of their first appearance.
        colour_by: The axis whose order gives the colours.
    """
    figure = new_figure(3.0, max(4.6, 1.05 * len(columns)))
    axes = figure.subplots()
    heights, ticks = {}, {}
    for name, values in columns.items():
        heights[name], ticks[name] = _scaled(values)
    order = np.asarray(heights[colour_by])
    for run in np.argsort(order):
        strength = float(order[run])
        axes.plot(range(len(columns)), [heights[name][run] for name in columns], linewidth=0.9 + 1.1 * strength,
                  color=ACCENT if strength > 0.5 else MUTED, alpha=0.25 + 0.65 * abs(2 * strength - 1))  # fmt: skip
    for place, name in enumerate(columns):
        axes.axvline(place, color=TINT, linewidth=3, zorder=0)
        for height, text in ticks[name]:
            axes.annotate(text, (place, height), (0, 0), textcoords="offset points", ha="center", va="center", size=8,
                          bbox={"boxstyle": "round,pad=0.15", "facecolor": TINT, "edgecolor": "none"})  # fmt: skip
    axes.set(xlim=(-0.35, len(columns) - 0.65), ylim=(-0.08, 1.08), yticks=[])
    short = [name.rsplit(".", 1)[-1] if "/" not in name else name.replace("/", "\n", 1) for name in columns]
    axes.set_xticks(range(len(columns)), short, size=8.5, color=INK)
    axes.tick_params(axis="x", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure


def _scaled(values: Sequence[float | int | str]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights in [0, 1] and the labels of an axis: its ends for numbers, every value for texts."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = np.asarray(values, float)
        low, high = float(numbers.min()), float(numbers.max())
        if low == high:
            return [0.5] * len(numbers), [(0.5, f"{low:.4g}")]
        logarithmic = low > 0 and high / low >= 30
        scale = np.log if logarithmic else np.asarray
        heights = (scale(numbers) - scale(low)) / (scale(high) - scale(low))
        return heights.tolist(), [(0.0, f"{low:.4g}"), (1.0, f"{high:.4g}")]
    texts = [str(value) for value in values]
    distinct = list(dict.fromkeys(texts))
    places = {
        text: index / max(len(distinct) - 1, 1) if len(distinct) > 1 else 0.5 for index, text in enumerate(distinct)
    }
    return [places[text] for text in texts], [(place, text[:14]) for text, place in places.items()]
