"""A class at every time step: what is believed along a sequence, how sure it may be then, and how soon it is called."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped
from matplotlib.figure import Figure

from dsnn.plots.style import ACCENT, INK, SERIES, TINT, new_figure, styled


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
    axes.legend(loc="lower right")
    return figure


@styled
def detection(
    risk: Float[np.ndarray, " point"],
    delay: Float[np.ndarray, " point"],
    missed: Float[np.ndarray, " point"],
    chosen: Sequence[tuple[float, float]] = (),
) -> Figure:
    """How soon a class is called after it began, against the share of calls that are wrong.

    Args:
        risk: Share of wrong calls at each threshold.
        delay: Median steps from the onset to the first right call; endless where half of them are missed.
        missed: Share of onsets that are never called.
        chosen: Risk and delay of thresholds that validation chose.
    """
    figure = new_figure(2.6)
    left, right = figure.subplots(1, 2)
    shown = np.isfinite(delay)
    left.plot(100 * risk[shown], delay[shown], color=ACCENT)
    if chosen:
        wrong, late = np.array(chosen).T
        left.plot(100 * wrong, late, "o", color=INK, markersize=5, zorder=4, label="chosen on validation")
        left.legend(loc="upper right")
    left.set_title("median delay (steps)")
    left.set_ylim(0, None)
    right.plot(100 * risk, 100 * missed, color=SERIES[1])
    right.set_title("% of onsets never called")
    right.set_ylim(0, None)
    for axes in (left, right):
        axes.set(xlabel="% of calls wrong", xlim=(0, 100 * max(risk.max(), 0.01)))
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
    colours = [SERIES[k % len(SERIES)] for k in range(classes)]
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
