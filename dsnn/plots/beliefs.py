"""What a posterior believes: single parameters beside their prior, doubt over the plane, intervals of numbers."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dsnn.plots.style import ACCENT, INK, MUTED, SERIES, new_figure, styled

BINS = 30
COLUMNS = 3
_LOW, _HIGH = "#f2f5f9", "#12385f"  # light where the network is sure; both stand on white and on near-black


@styled
def posterior(
    draws: Mapping[str, Float[np.ndarray, "sample"]],
    prior: Mapping[str, Float[np.ndarray, "before"]] | None = None,
    truth: Mapping[str, float | int] | None = None,
    noun: str = "posterior",
) -> Figure:
    """Posterior of single parameters as histograms, a panel each, with the outline of the prior's.

    Args:
        draws: Posterior draws by name.
        prior: Prior draws by the same names; a panel shows the middle 98 % of them and all posterior draws.
        truth: The value that made the data, where it is known.
        noun: What the posterior is called, such as "tempered posterior".
    """
    prior, truth = prior or {}, truth or {}
    columns = max(1, min(COLUMNS, len(draws)))
    rows = max(1, -(-len(draws) // columns))
    figure = new_figure(1.35 * rows + 0.3)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(draws) :]:
        axes.set_axis_off()
    for axes, (name, values) in zip(panels.flat, draws.items(), strict=False):
        known = [values, [truth[name]] if name in truth else values]
        if name in prior:
            known.append(np.quantile(prior[name], [0.01, 0.99]))
        ends = np.concatenate([np.ravel(part) for part in known])
        low, high = float(ends.min()), float(ends.max())
        edges = np.linspace(low, high if high > low else low + 1e-6, BINS + 1)
        axes.stairs(_density(values, edges), edges, fill=True, color=ACCENT, alpha=0.75)
        if name in prior:
            axes.stairs(_density(prior[name], edges), edges, color=MUTED, linewidth=1.2)
        if name in truth:
            axes.axvline(truth[name], color=SERIES[1], linewidth=1.6)
        axes.set_title(name, size=8.5)
        axes.set(yticks=[], ylim=(0, None))
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(3))
    words = [f"blue: {noun}"] + ["grey: prior"] * bool(prior) + ["orange: what made the data"] * bool(truth)
    figure.supxlabel(", ".join(words), color=MUTED, size=8.5)
    return figure


@styled
def uncertainty_map(
    x: Float[np.ndarray, "row column 2"],
    maps: Mapping[str, Float[np.ndarray, "row column"]],
    points: Float[np.ndarray, "example 2"] | None = None,
    labels: Shaped[np.ndarray, "example"] | None = None,
) -> Figure:
    """Doubt over the plane, a panel per kind, with examples on top: dark where the network does not know.

    Args:
        x: Coordinates of a regular grid, rows from below.
        maps: Per kind of uncertainty, its value in nats at every grid point.
        points: Examples.
        labels: Their classes, a colour each.
    """
    figure = new_figure(2.5, 3.1 * len(maps))
    shade = LinearSegmentedColormap.from_list("doubt", [_LOW, _HIGH])
    extent = (float(x[0, 0, 0]), float(x[0, -1, 0]), float(x[0, 0, 1]), float(x[-1, 0, 1]))
    for axes, (name, values) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        top = max(float(np.max(values)), 1e-3)
        drawn = axes.imshow(
            values, origin="lower", extent=extent, cmap=shade, vmin=0, vmax=top, interpolation="bilinear"
        )
        if points is not None:
            classes = np.zeros(len(points), int) if labels is None else np.asarray(labels)
            for kind in np.unique(classes):
                chosen = points[classes == kind]
                colour = SERIES[(1 + int(kind)) % len(SERIES)]
                axes.scatter(*chosen.T, s=5, color=colour, linewidths=0.3, edgecolors="white")
        axes.set(xlim=extent[:2], ylim=extent[2:], title=name)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        bar = figure.colorbar(drawn, ax=axes, shrink=0.8, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label("nats", color=MUTED)
        bar.locator = MaxNLocator(4)
        bar.update_ticks()
    return figure


@styled
def intervals(
    mean: Float[np.ndarray, "example"],
    lower: Float[np.ndarray, "example"],
    upper: Float[np.ndarray, "example"],
    targets: Float[np.ndarray, "example"],
    level: float = 0.9,
) -> Figure:
    """Predicted intervals of numbers in the order of their means, and what came true; a miss is orange.

    Args:
        mean: Predictive mean of each example.
        lower: Lower end of its interval.
        upper: Upper end.
        targets: Observed values.
        level: Nominal coverage of the intervals.
    """
    order = np.argsort(mean, kind="stable")
    mean, lower, upper, targets = mean[order], lower[order], upper[order], targets[order]
    held = (lower <= targets) & (targets <= upper)
    at = np.arange(1, len(mean) + 1)
    figure = new_figure(2.6)
    axes = figure.subplots()
    axes.vlines(at, lower, upper, color=ACCENT, linewidth=max(0.6, min(3.0, 220 / len(at))), alpha=0.3)
    axes.plot(at, mean, color=ACCENT, linewidth=1.4)
    axes.scatter(at[held], targets[held], s=9, color=INK, zorder=3, linewidths=0)
    axes.scatter(at[~held], targets[~held], s=16, color=SERIES[1], zorder=3, linewidths=0)
    axes.set_title(f"{100 * held.mean():.1f} % of {len(at)} inside, {100 * level:.0f} % promised")
    axes.set(xlabel="examples, by predicted mean", ylabel="target (standard deviations)", xlim=(0, len(at) + 1))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    return figure


def _density(values: Float[np.ndarray, "draw"], edges: Float[np.ndarray, "edge"]) -> Float[np.ndarray, "bin"]:
    """Share of all values per unit, in the bins."""
    return np.histogram(values, edges)[0] / (max(len(values), 1) * np.diff(edges))
