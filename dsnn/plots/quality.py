"""How good the predictions are: calibration, learning curves, uncertainty."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dsnn.plots.style import ACCENT, INK, MUTED, SERIES, TINT, new_figure, styled

_PANELS = (
    ("loss", ("train/loss", "val/nll", "val/loss", "deep/loss")),
    ("accuracy", ("train/accuracy", "val/accuracy", "deep/val_accuracy")),
    ("share of sites that run", ("gates/kept_fraction",)),
    ("steps per example", ("compute/steps_mean",)),
)

_NAME = 52
"""Characters of a run's name that fit into a line of a legend."""


@styled
def reliability(
    confidence: Float[np.ndarray, "bin"],
    accuracy: Float[np.ndarray, "bin"],
    counts: Shaped[np.ndarray, "bin"],
    ece: float | int | None = None,
) -> Figure:
    """A reliability diagram: how often the network is right when it says it is sure; on the diagonal it is calibrated.

    Args:
        confidence: Mean confidence of each bin; NaN where the bin is empty.
        accuracy: Accuracy of each bin; NaN where the bin is empty.
        counts: Number of examples of each bin; shown below and as the size of the dots.
        ece: Expected calibration error, for the title.
    """
    counts = np.asarray(counts)
    filled = counts > 0
    confidence, accuracy, share = confidence[filled], accuracy[filled], counts[filled] / max(counts.sum(), 1)
    figure = new_figure(3.7)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    weight = np.sqrt(share / max(share.max(initial=0.0), 1e-9))
    axes.vlines(confidence, confidence, accuracy, color=SERIES[1], linewidth=2.2, alpha=0.2 + 0.8 * weight)
    axes.scatter(confidence, accuracy, s=10 + 90 * weight, color=ACCENT, alpha=0.35 + 0.65 * weight, zorder=3)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.04), ylabel="accuracy")
    axes.annotate("too cautious", (0.03, 0.93), color=MUTED, size=8.5)
    axes.annotate("too sure", (0.98, 0.05), color=MUTED, size=8.5, ha="right")
    if ece is not None:
        axes.set_title(f"expected calibration error {ece:.3f}")
    below.bar(confidence, 100 * share, width=0.8 / max(len(counts), 1), color=ACCENT)
    below.set(ylabel="% of\nexamples", xlabel="confidence")
    below.yaxis.set_major_locator(MaxNLocator(2))
    return figure


@styled
def learning_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """The course of training in up to four panels; what the history does not hold is left out.

    Args:
        history: Records with ``step`` (or ``epoch``) and metrics under their usual names; None and NaN are gaps.
    """
    panels = _panels(history)
    columns = min(2, max(len(panels), 1))
    rows = max(1, -(-len(panels) // columns))
    figure = new_figure(1.75 * rows + 0.15)
    at = "epoch" if all("epoch" in record for record in history) else "step"
    axes_grid = figure.subplots(rows, columns, squeeze=False)
    for axes in axes_grid.flat[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, names) in zip(axes_grid.flat, panels, strict=False):
        for colour, name in zip(SERIES, names, strict=False):
            x, y = zip(*[(record[at], record[name]) for record in history if _is_number(record.get(name))], strict=True)
            axes.plot(x, y, color=colour, label=name, marker="o" if len(x) < 3 else "", ms=3)
            if len(x) == 1:
                axes.set_xlim(x[0] - 1, x[0] + 1)
        axes.set_title(title)
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        if len(names) > 1:
            axes.legend()
        elif title == "accuracy":
            axes.set_title(names[0], loc="right", color=MUTED, weight="normal", size=8.5)
    for axes in axes_grid[-1]:
        axes.set_xlabel(at)
    return figure


@styled
def overlaid_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> Figure:
    """One metric of many runs over training, one line a run; more than eight runs share a colour and have no legend.

    Args:
        histories: Per run, its records.
        metric: A name in the records, such as ``val/accuracy``.
    """
    figure = new_figure(2.6)
    axes = figure.subplots()
    shown = {name: history for name, history in histories.items() if _values(history, metric)}
    named = len(shown) <= len(SERIES)
    at = "epoch" if all("epoch" in record for history in shown.values() for record in history) else "step"
    for index, (name, history) in enumerate(shown.items()):
        x, y = zip(*[(record[at], record[metric]) for record in history if _is_number(record.get(metric))], strict=True)
        style: dict[str, Any] = {"color": ACCENT, "alpha": 0.35}
        if named:
            style = {
                "color": SERIES[index],
                "label": _shortened(name),
                "linestyle": "-" if index < 4 else (0, (4, 1.5)),
            }
        axes.plot(x, y, linewidth=1.5, marker="o" if len(x) < 3 else "", ms=3, **style)
    places = {record[at] for history in shown.values() for record in history if _is_number(record.get(metric))}
    if len(places) == 1:  # a scale around a single epoch would be one of its fractions
        axes.set_xlim(min(places) - 1, min(places) + 1)
    axes.set(xlabel=at, title=metric)
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=9))
    if named and shown:
        figure.legend(loc="outside lower left", ncols=2 if max(map(len, shown)) <= _NAME // 2 else 1)
    return figure


def has_curves(history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there is anything in a history that `learning_curves` would draw."""
    return bool(_panels(history))


def _panels(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The panels that have values, and the names of these."""
    panels = [(title, [name for name in names if _values(history, name)]) for title, names in _PANELS]
    return [(title, names) for title, names in panels if names]


def _shortened(name: str) -> str:
    """The name with its middle left out where it would not fit beside its line."""
    return name if len(name) <= _NAME else f"{name[: _NAME // 2 - 1]}…{name[-_NAME // 2 :]}"


@styled
def uncertainty_histogram(
    inside: Float[np.ndarray, "inside"],
    outside: Mapping[str, Float[np.ndarray, "outside"]],
    quantity: str = "predictive entropy (nats)",
) -> Figure:
    """How uncertain the network is on its own data and on data it never saw; well apart is good.

    Args:
        inside: Score of each test example.
        outside: Per foreign data set, the score of each of its examples.
        quantity: Name of the score.
    """
    figure = new_figure(2.3)
    axes = figure.subplots()
    everything = np.concatenate([inside, *outside.values()])
    edges = np.linspace(min(0.0, everything.min()), max(everything.max(), 1e-9), 31)
    for colour, (name, scores) in zip(SERIES, {"test": inside, **outside}.items(), strict=False):
        share = 100 * np.histogram(scores, edges)[0] / max(len(scores), 1)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.28)
        axes.stairs(share, edges, color=colour, linewidth=1.6, label=name)
    axes.set(xlabel=quantity, ylabel="% of examples", xlim=(edges[0], edges[-1]))
    axes.legend(loc="upper right")
    return figure


@styled
def risk_coverage(coverage: Float[np.ndarray, "batch"], risk: Float[np.ndarray, "batch"]) -> Figure:
    """Error among the examples the network is surest of, as it is made to answer more of them."""
    shown = np.unique(np.linspace(0, len(coverage) - 1, 500).astype(int))  # more points than the eye or the page needs
    coverage, risk = coverage[shown], risk[shown]
    figure = new_figure(2.3)
    axes = figure.subplots()
    axes.fill_between(100 * coverage, 0, 100 * risk, color=TINT, linewidth=0)
    axes.plot(100 * coverage, 100 * risk, color=ACCENT)
    axes.axhline(100 * risk[-1], color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_title(f"dashed: all answered, {100 * risk[-1]:.1f} % wrong", loc="right", color=MUTED, weight="normal",
                   size=8.5)  # fmt: skip
    axes.set(xlabel="% of examples answered, surest first", ylabel="% wrong", xlim=(0, 100))
    axes.set_ylim(0, max(100 * risk.max() * 1.15, 1.0))
    return figure


def _values(history: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [record[name] for record in history if _is_number(record.get(name))]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))
