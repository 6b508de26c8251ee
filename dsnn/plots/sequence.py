"""A class at every time step: what is believed along a sequence, how sure it may be then, and how soon it is called."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from dsnn.plots.style import ACCENT, INK, SERIES, TINT, from_zero, new_figure, styled


@styled
def step_calibration(
    first: Shaped[np.ndarray, " block"],
    accuracy: Float[np.ndarray, " block"],
    confidence: Float[np.ndarray, " block"],
    total: int,
) -> Figure:
    """Accuracy and mean confidence along time; what lies between them is over- or underconfidence.

    Args:
        first: First step of each block of steps, from 0.
        accuracy: Share of right answers of a block.
        confidence: Its mean largest probability.
        total: Steps of a sequence.
    """
    figure = new_figure(2.4)
    axes = figure.subplots()
    edges = np.append(first, total).astype(float)
    for values, colour, label in ((accuracy, ACCENT, "accuracy"), (confidence, SERIES[1], "mean confidence")):
        axes.stairs(100 * values, edges, baseline=None, color=colour, linewidth=1.8, label=label)
    axes.stairs(100 * confidence, edges, baseline=100 * accuracy, fill=True, color=TINT, zorder=0)
    low = 100 * min(accuracy.min(), confidence.min())
    axes.set(xlabel="time step", ylabel="%", xlim=(edges[0], total), ylim=(max(low - 5, 0), 101))
    axes.legend(loc="best")
    return figure


@styled
def detection(
    threshold: Float[np.ndarray, " point"],
    risk: Float[np.ndarray, " point"],
    miss_rate: Float[np.ndarray, " point"],
    median_delay: Float[np.ndarray, " point"],
    chosen: Sequence[float] = (),
) -> Figure:
    """How soon a class is called after it began, and at what risk, against how sure the network has to be.

    Args:
        threshold: Probability from which on a step is called, inside (0, 1), on a scale of log odds.
        risk: Share of wrong calls; NaN where nothing is called.
        miss_rate: Share of onsets that are never called.
        median_delay: Steps from the onset to the first right call; endless where half of them or more are missed.
        chosen: Thresholds that validation chose.
    """
    figure = new_figure(2.5)
    left, right = figure.subplots(1, 2)
    left.plot(threshold, 100 * risk, color=SERIES[1], label="% of calls wrong")
    left.plot(threshold, 100 * miss_rate, color=ACCENT, linestyle=(0, (4, 1.5)), label="% of onsets never called")
    left.set_ylim(0, 102)
    left.legend(loc="lower left", bbox_to_anchor=(-0.05, 1.0), borderaxespad=0.1)
    right.plot(threshold, np.where(np.isfinite(median_delay), median_delay, np.nan), color=ACCENT)
    right.set_title("median delay (steps)")
    from_zero(right, median_delay)
    ticks = [t for t in (0.2, 0.5, 0.9, 0.99, 0.999) if threshold.min() <= t <= threshold.max()]
    for axes in (left, right):
        for at in chosen:
            axes.axvline(at, color=INK, linewidth=0.8, linestyle=(0, (2, 2)), zorder=0)
        axes.set_xscale("logit")
        axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="probability to call", xlim=(threshold.min(), threshold.max()))
        axes.grid(axis="y")
    return figure


@styled
def believed_sequence(
    probs: Float[np.ndarray, "time class"], labels: Shaped[np.ndarray, " time"], names: Sequence[str] = ()
) -> Figure:
    """Class probabilities after every step, stacked, under a strip of the true classes.

    Args:
        probs: of one sequence.
        labels: its true classes; negative ones are unknown and left blank.
        names: of the classes.
    """
    steps, classes = probs.shape
    figure = new_figure(2.6)
    strip, axes = figure.subplots(2, 1, sharex=True, height_ratios=[1, 9])
    pale = [tuple(0.5 + 0.5 * part for part in to_rgb(colour)) for colour in SERIES]
    colours: list[Any] = [(*SERIES, *pale)[k % (2 * len(SERIES))] for k in range(classes)]
    tops = np.concatenate([np.zeros((1, steps)), np.cumsum(probs.T, 0)])
    for k, colour in enumerate(colours):
        name = names[k] if len(names) == classes else str(k)
        edges = np.arange(steps + 1)
        axes.stairs(tops[k + 1], edges, baseline=tops[k], fill=True, color=colour, label=name)
        strip.stairs((labels == k).astype(float), edges, fill=True, color=colour)
    strip.set(yticks=[], ylim=(0, 1))
    strip.set_ylabel("true", rotation=0, ha="right", va="center")
    for spine in strip.spines.values():
        spine.set_visible(False)
    strip.tick_params(bottom=False)
    axes.set(xlabel="time step", ylabel="belief", xlim=(0, steps), ylim=(0, 1))
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
    return figure
