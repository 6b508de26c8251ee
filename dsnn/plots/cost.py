"""What the network costs, and what that buys."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dsnn.plots.style import ACCENT, INK, MUTED, SERIES, TINT, from_zero, new_figure, styled


@styled
def energy_bars(costs: Mapping[str, Mapping[str, float | int]], labels: Mapping[str, str]) -> Figure:
    """Modelled energy per inference, a panel per hardware profile: this network beside its ungated self and its rivals.

    A rival that is cheaper than this network is orange.

    Args:
        costs: Per profile the energies in nJ by name, this network's as "snn_nj", as far as they are known.
        labels: What each name stands for, in the order in which they are shown; others are left out.
    """
    shown = {profile: [key for key in labels if key in cost] for profile, cost in costs.items()}
    heights = [max(len(entries), 1) for entries in shown.values()]
    figure = new_figure(0.27 * sum(heights) + 0.42 * len(heights) + 0.1)
    panels = figure.subplots(len(costs), 1, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (profile, entries) in zip(panels, shown.items(), strict=True):
        values = [costs[profile][key] for key in entries]
        ours = costs[profile].get("snn_nj", 0.0)
        colours = [_bar_colour(key, value, ours) for key, value in zip(entries, values, strict=True)]
        axes.barh([labels[key] for key in entries], values, color=colours, height=0.72)
        for row, value in enumerate(values):
            axes.annotate(format_nj(value), (value, row), (4, 0), textcoords="offset points", va="center", size=8.5)
        axes.set(xlim=(0, 1.28 * max([*values, 1e-12])), xticks=[], ylim=(len(entries) - 0.4, -0.6))
        axes.set_title(f"{profile}: energy per inference")
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
    return figure


def _bar_colour(key: str, value: float | int, ours: float | int) -> str:
    if not key.startswith("rival/"):
        return ACCENT if key == "snn_nj" else SERIES[5]
    return SERIES[1] if value < ours else MUTED


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
    configurations: Sequence[str] = (),
    profile: str = "",
) -> Figure:
    """Accuracy against energy of many runs; the line joins the configurations that no other beats in both.

    Runs that differ in nothing but their seed are one configuration, which stands at their mean.

    Args:
        energy_nj: Energy per inference of each run.
        accuracy: Accuracy of each run, in [0, 1].
        configurations: The name of each run's configuration; those on the front are written beside it, as far as there
            is room. Without names every run is a configuration.
        profile: Hardware profile the energies were computed with.
    """
    names = list(dict.fromkeys(configurations)) or [str(run) for run in range(len(energy_nj))]
    own = np.asarray(configurations or names)
    middle, height = (np.array([values[own == name].mean() for name in names]) for values in (energy_nj, accuracy))
    front, several = pareto_front(middle, height), len(names) < len(energy_nj)
    figure = new_figure(3.0)
    axes = figure.subplots()
    axes.scatter(energy_nj, 100 * accuracy, s=26, color=MUTED, alpha=0.55, linewidths=0, label="run")
    if several:
        axes.scatter(middle, 100 * height, s=30, facecolors="none", edgecolors=ACCENT, label="mean over seeds")
    axes.plot(middle[front], 100 * height[front], color=ACCENT, marker="o", ms=5, drawstyle="steps-post",
              linewidth=1.5, label="front: none is better in both")  # fmt: skip
    written: list[np.ndarray] = []
    for index in front if configurations else ():
        place = np.array([_share(middle, index), _share(height, index)])
        if any((np.abs(place - other) < (0.45, 0.09)).all() for other in written):
            continue
        written.append(place)
        late = place[0] > 0.5
        axes.annotate(names[index], (middle[index], 100 * height[index]), (-6 if late else 6, -11), size=8,
                      textcoords="offset points", color=INK, ha="right" if late else "left")  # fmt: skip
    if energy_nj.min() > 0 and energy_nj.max() / energy_nj.min() > 20:
        axes.set_xscale("log")
    axes.set(xlabel=f"energy per inference, nJ{f' ({profile})' if profile else ''}", ylabel="accuracy, %")
    axes.margins(x=0.12, y=0.12)
    axes.grid()
    figure.legend(loc="outside upper left", ncols=3 if several else 2, columnspacing=1.2)
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
    spent = np.array([record["svi/energy_nj"] for record in records], float)
    above.plot(at, spent, color=ACCENT, marker="o", ms=3, label="modelled")
    budget = [record.get("svi/budget_nj", 0.0) for record in records]
    if any(budget):
        above.plot(at, budget, color=MUTED, linestyle=(0, (4, 3)), label="budget")
        above.legend()
    above.set_ylabel("energy, nJ")
    from_zero(above, spent, np.array(budget, float))
    below.plot(at, [record["svi/lam"] for record in records], color=SERIES[1], marker="o", ms=3)
    below.set(ylabel="price λ, nats per nJ", xlabel="epoch")
    if any(record["svi/lam"] > 0 for record in records):
        below.set_yscale("log", nonpositive="mask")
    for axes in (above, below):
        axes.grid(axis="y")
    below.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
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
    figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)
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
