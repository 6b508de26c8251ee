"""What the network does: spikes, membranes, the running decision, and where computation runs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from dsnn.plots.style import ACCENT, INK, MUTED, PAPER, SERIES, TINT, WIDTH_IN, bare, new_figure, opaque, styled

RUNS_ABOVE = 0.5
"""A site is counted as running when its probability exceeds this."""

TITLE_SIZE, CHARACTER_IN = 9.5, 0.08
"""Points of a panel's title, and the inches that each of its characters takes."""


@styled
def raster(spikes: Mapping[str, Shaped[np.ndarray, "..."]], stop_step: int | None = None) -> Figure:
    """Spikes of one example, a panel per layer: time runs right, every row is a neuron.

    Args:
        spikes: Per layer [time, neuron], or [time, ...] with several neuron axes, which are laid in one row.
        stop_step: The number of steps after which the network answered.
    """
    layers = {name: np.asarray(s).reshape(len(s), -1) != 0 for name, s in spikes.items()}
    heights = [np.clip(np.sqrt(s.shape[1]) / 9, 0.55, 1.7) for s in layers.values()]
    figure = new_figure(sum(heights) + 0.34 * len(heights) + 0.45)
    panels = figure.subplots(len(layers), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    for axes, (name, spiked) in zip(panels, layers.items(), strict=True):
        steps, neurons = spiked.shape
        mark_stop(axes, stop_step, steps)
        extent = (0.5, steps + 0.5, neurons + 0.5, 0.5)
        axes.imshow(opaque(_ticks(spiked)), aspect="auto", extent=extent, zorder=2)
        axes.set(xlim=(0.5, steps + 0.5), yticks=[1, neurons] if neurons > 1 else [1])
        axes.set_title(name)
        axes.set_title(
            f"{100 * spiked.mean():.1f} % of steps spike", loc="right", color=MUTED, weight="normal", size=8.5
        )
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9))
    panels[-1].set_xlabel(_time_label(stop_step))
    return figure


@styled
def membrane_traces(
    traces: Mapping[str, Shaped[np.ndarray, "..."]],
    threshold: Mapping[str, float | int] | float | int | None = None,
    stop_step: int | None = None,
) -> Figure:
    """Membrane of a few neurons of each layer over time, with the firing threshold.

    Args:
        traces: Per layer [time, k]; the first four are drawn.
        threshold: One for all layers, or per layer; a layer without one has no line.
        stop_step: The number of steps after which the network answered.
    """
    figure = new_figure(1.15 * len(traces) + 0.5)
    panels = figure.subplots(len(traces), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, membrane) in zip(panels, traces.items(), strict=True):
        membrane = np.asarray(membrane, float).reshape(len(membrane), -1)
        steps = np.arange(1, len(membrane) + 1)
        mark_stop(axes, stop_step, len(steps))
        for index, trace in enumerate(membrane.T[:4]):
            axes.plot(steps, trace, color=SERIES[index], linewidth=1.5, marker="o" if len(steps) <= 40 else "", ms=2.4)
        level = threshold.get(name) if isinstance(threshold, Mapping) else threshold
        if level is not None and np.isfinite(level):
            axes.axhline(level, color=INK, linewidth=1, linestyle=(0, (4, 3)))
            axes.set_title("dashed: threshold", loc="right", color=MUTED, weight="normal", size=8.5)
        axes.set_title(name)
        axes.set_xlim(0.5, len(steps) + 0.5)
        axes.yaxis.set_major_locator(MaxNLocator(4))
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9))
    panels[-1].set_xlabel(_time_label(stop_step))
    figure.supylabel("membrane", color=MUTED, size=9)
    return figure


@styled
def gate_map(
    gates: Mapping[str, Shaped[np.ndarray, "..."]],
    input_shape: tuple[int, ...] | None = None,
    kept: Mapping[str, int | float] | None = None,
) -> Figure:
    """Where computation runs: every compute site is a square, filled as far as it is likely to run.

    The input keeps its picture when it is one; neurons have no place, so they are sorted and fill their grid from
    the top.

    Args:
        gates: Per group of sites, in the order of the network, the probabilities that each site runs.
        input_shape: Shape of one input, (height, width) or (height, width, channel) for pictures.
        kept: Per group, how many sites the deployed network runs (time steps: on average); by default those more
            likely to run than not.
    """
    columns = min(len(gates), 4 if len(gates) % 3 and len(gates) > 3 else 3)
    rows = -(-len(gates) // columns)
    panel = WIDTH_IN / max(columns, 3)
    figure = new_figure(rows * (panel + 0.62) + 0.3, WIDTH_IN)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        bare(axes)
    for index, (name, values) in enumerate(gates.items()):
        probability = np.asarray(values, float)
        grid = _as_picture(probability, input_shape) if name == "input" else None
        _waffle(panels.flat[index], _sorted_grid(probability) if grid is None else grid)
        total = probability.size
        runs = (kept or {}).get(name, int((probability > RUNS_ABOVE).sum()))
        fits = panel / CHARACTER_IN  # a name of blocks within blocks is written smaller
        panels.flat[index].set_title(name, pad=6, size=TITLE_SIZE * min(1.0, fits / len(name)))
        run = str(runs) if isinstance(runs, int) else f"{runs:.1f}"
        panels.flat[index].set_xlabel(
            f"{run} of {total} run", color=INK, size=9.5, weight="bold", loc="left", labelpad=12
        )
        _share_bar(panels.flat[index], runs / max(total, 1))
    key = [Patch(color=ACCENT, label="runs"), Patch(color=ACCENT, alpha=0.4, label="undecided"),
           Patch(color=TINT, label="switched off")]  # fmt: skip
    figure.legend(handles=key, loc="outside lower left", ncols=3, handlelength=0.8, columnspacing=1.2)
    return figure


ODDS_BELOW, ODDS_ABOVE = 15.0, 5.0
"""How far log odds are shown below and above those at which an example stops."""


@styled
def running_decision(
    logits: Float[np.ndarray, "time class"],
    stop_step: int | None = None,
    label: int | None = None,
    class_names: tuple[str, ...] | None = None,
    picture: Shaped[np.ndarray, "..."] | None = None,
    stopped: Float[np.ndarray, "time"] | None = None,
    quantile: float | int = 0.5,
) -> Figure:
    """The class probabilities of one example as the steps pass, when the network answers, and why then.

    Args:
        logits: Running readout, [time, class].
        stop_step: The number of steps after which the network answered; the last one if None.
        label: The true class.
        class_names: Names for the classes; their numbers if None.
        picture: The example itself, (height, width) or (height, width, channel); not shown where it is no picture.
        stopped: The probability of having stopped by each step, drawn below; None leaves it out.
        quantile: The probability at which the network stops.
    """
    logits = np.asarray(logits, float)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probs = weights / weights.sum(axis=-1, keepdims=True)
    steps = np.arange(1, len(probs) + 1)
    stop = min(stop_step or len(probs), len(probs))
    answer = int(probs[stop - 1].argmax())
    names = class_names or tuple(str(index) for index in range(probs.shape[1]))
    figure = new_figure(2.5 if stopped is None else 3.3)
    rows = 1 if stopped is None else 2
    grid = figure.add_gridspec(rows, 4, height_ratios=(2.4, 1)[:rows])
    whole = picture is None or not is_picture(picture.shape)
    if picture is not None and not whole:
        _show_picture(figure.add_subplot(grid[0, 0]), picture)
    column = slice(0 if whole else 1, 4)
    axes = figure.add_subplot(grid[0, column])
    if stopped is not None:
        below = figure.add_subplot(grid[1, column], sharex=axes)
        _stopping(below, np.asarray(stopped, float), stop, quantile)
        axes.tick_params(labelbottom=False)
    mark_stop(axes, stop_step, len(steps))
    named = [answer] + ([label] if label is not None and label != answer else [])
    rivals = [index for index in np.argsort(probs[:stop].max(axis=0))[::-1] if index not in named][:2]
    for index in range(probs.shape[1]):
        if index not in named and index not in rivals:
            axes.plot(steps, probs[:, index], color=MUTED, linewidth=0.8, alpha=0.35)
    for colour, index in zip(SERIES, [*named, *rivals], strict=False):
        axes.plot(steps, probs[:, index], color=colour, linewidth=2.4 if index in named else 1.4, label=names[index])
    verdict = "" if label is None else (" (right)" if answer == label else f" (wrong: it is {names[label]})")
    figure.suptitle(f"answers {names[answer]} after {stop} of {len(steps)} steps{verdict}", x=0.01, ha="left",
                    size=9.5, weight="bold")  # fmt: skip
    axes.set(xlim=(0.5, len(steps) + 0.5), ylim=(-0.02, 1.03), ylabel="probability")
    (axes if stopped is None else below).set_xlabel(_time_label(stop_step))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9))
    axes.legend(title="class", title_fontsize=8.5, loc="center left", bbox_to_anchor=(1, 0.5), borderaxespad=0.2)
    return figure


def _stopping(axes: Axes, stopped: Float[np.ndarray, "time"], stop: int, quantile: float | int) -> None:
    """How probable it is that the network has stopped, up to the quantile at which it does.

    A quantile that nobody could see on a scale of probabilities is shown on one of log odds.
    """
    steps = np.arange(1, len(stopped) + 1)
    mark_stop(axes, stop, len(steps))
    last = stop == len(steps) and stopped[-1] < quantile
    if 0.01 <= quantile <= 0.99:
        what, values, level, bottom, top = "probability", stopped, float(quantile), 0.0, 1.05
        axes.set_yticks([0, 1])
    else:
        with np.errstate(divide="ignore"):
            every = np.log(np.append(stopped, quantile)) - np.log1p(-np.append(stopped, quantile))
        every = np.clip(every, -99, 99)
        what, values, level = "log odds", every[:-1], float(every[-1])
        bottom, top = level - ODDS_BELOW, level + ODDS_ABOVE
        axes.set_yticks([round(level)])
    axes.bar(steps[:stop], np.clip(values[:stop], bottom, top) - bottom, bottom=bottom, width=0.7, color=ACCENT)
    axes.axhline(level, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    form = ".2f" if what == "probability" else ".2g"
    why = "time is over" if last else f"{values[stop - 1]:{form}} reaches {level:.2g}"
    axes.set_title(f"{what} of having stopped: {why}", weight="normal", size=8.5)
    axes.set_ylim(bottom, top)


@styled
def steps_histogram(steps: Shaped[np.ndarray, "batch"], total: int) -> Figure:
    """How many time steps the examples took before the network answered; expected numbers of steps are rounded."""
    steps = np.asarray(steps, float)
    whole = np.clip(np.rint(steps), 1, total).astype(int)
    counts = np.bincount(whole, minlength=total + 1)[1 : total + 1]
    figure = new_figure(2.1)
    axes = figure.subplots()
    axes.bar(np.arange(1, total + 1), 100 * counts / max(len(steps), 1), width=0.82, color=ACCENT)
    axes.axvline(steps.mean(), color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_title(f"dashed: mean {steps.mean():.1f} of {total}", loc="right", color=MUTED, weight="normal", size=8.5)
    axes.set(xlim=(0.4, total + 0.6), xlabel="steps until the answer", ylabel="% of examples")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9))
    return figure


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape is (height, width) or (height, width, channel) with one, two or three channels."""
    return (len(shape) == 2 or (len(shape) == 3 and shape[2] <= 3)) and min(shape[:2]) >= 4


def _show_picture(axes: Axes, picture: Shaped[np.ndarray, "..."]) -> None:
    values = np.asarray(picture, float).reshape(*picture.shape[:2], -1)
    low, high = values.min(), values.max()
    values = (values - low) / (high - low if high > low else 1.0)
    if values.shape[2] == 3:
        axes.imshow(values)
    else:
        axes.imshow(opaque(values.mean(axis=2), MUTED))
    bare(axes)


def mark_stop(axes: Axes, stop_step: int | None, steps: int) -> None:
    """Shades the time steps that an early answer saves."""
    if stop_step is not None and stop_step < steps:
        axes.axvspan(stop_step + 0.5, steps + 0.5, facecolor=TINT, edgecolor="none", zorder=0)
        axes.axvline(stop_step + 0.5, color=INK, linewidth=1.2, zorder=1)


def _ticks(spiked: Bool[np.ndarray, "time neuron"]) -> Float[np.ndarray, "neuron column"]:
    """The spikes as an image, a few pixels a step with a gap between steps where there are few enough to see it."""
    image = spiked.T.astype(float)
    if image.shape[1] > 64:
        return image
    image = np.repeat(image, 8, axis=1)
    image[:, 0::8] = image[:, 7::8] = 0.0
    return image


def _time_label(stop_step: int | None) -> str:
    return "time step" if stop_step is None else "time step (shaded: after the answer, not computed)"


def _as_picture(
    probability: Float[np.ndarray, "..."], input_shape: tuple[int, ...] | None
) -> Float[np.ndarray, "row column"] | None:
    """The input's gates as its picture, averaged over colours; None when the input is no picture."""
    shape = tuple(input_shape or ())
    if not is_picture(shape) or probability.size != np.prod(shape):
        return None
    return probability.reshape(*shape[:2], -1).mean(axis=-1)


def _sorted_grid(probability: Float[np.ndarray, "..."]) -> Float[np.ndarray, "row column"]:
    """Sites from most to least likely, row by row in a near-square grid; NaN where there is no site."""
    ordered = np.sort(probability.ravel())[::-1]
    columns = int(np.ceil(np.sqrt(max(ordered.size, 1))))
    rows = max(1, -(-ordered.size // columns))
    return np.pad(ordered, (0, rows * columns - ordered.size), constant_values=np.nan).reshape(rows, columns)


def _waffle(axes: Axes, grid: Float[np.ndarray, "row column"]) -> None:
    rows, columns = grid.shape
    whole, rest = divmod(int((~np.isnan(grid)).sum()), columns)
    for corner, width, height in (((0, 0), columns, whole), ((0, whole), rest, 1)):
        axes.add_patch(Rectangle(corner, width, height, facecolor=TINT, edgecolor="none", zorder=1))
    axes.imshow(opaque(grid), extent=(0, columns, rows, 0), zorder=2)
    side = max(rows, columns)
    if side <= 64:
        gap = 16 / side
        axes.hlines(np.arange(rows + 1), 0, columns, color=PAPER, linewidth=gap, zorder=3)
        axes.vlines(np.arange(columns + 1), 0, rows, color=PAPER, linewidth=gap, zorder=3)
    axes.set(xlim=(0, side), ylim=(side, 0), aspect="equal", anchor="W")


def _share_bar(axes: Axes, share: float) -> None:
    """A thin bar below the panel: the share of its sites that run."""
    bar: Any = {"transform": axes.transAxes, "clip_on": False, "linewidth": 4, "solid_capstyle": "butt"}
    axes.plot([0, 1], [-0.06, -0.06], color=TINT, **bar)
    axes.plot([0, share], [-0.06, -0.06], color=ACCENT, **bar)
