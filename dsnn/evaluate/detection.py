"""How soon a change of class is called, and at what risk, by a network that answers at every time step.

A step is called where the largest probability reaches a threshold; elsewhere the network says nothing. A lower
threshold calls sooner and errs more often: selective classification by the largest softmax output (El-Yaniv & Wiener
2010; Geifman & El-Yaniv 2017) with the delay of change detection beside its risk.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from dsnn.evaluate.checks import checked_share

__all__ = ["DetectionCurve", "Onsets", "detection_curve", "onsets", "threshold_within"]


class Onsets(NamedTuple):
    """Where a class begins that was not there before, one entry per onset.

    Attributes:
        sequence: its sequence.
        first: first step of the class.
        stop: step after its last one.
        label: the class.
    """

    sequence: Int[np.ndarray, " onset"]
    first: Int[np.ndarray, " onset"]
    stop: Int[np.ndarray, " onset"]
    label: Int[np.ndarray, " onset"]


class DetectionCurve(NamedTuple):
    """What each threshold gives, the highest first.

    Attributes:
        threshold: on the largest probability.
        risk: share of the called steps whose class is wrong; NaN where none is called.
        coverage: share of the steps that are called.
        miss_rate: share of the onsets whose class is never called while it lasts.
        median_delay: number of steps from an onset to the first right call, a missed one counting as endless; NaN
            without onsets.
    """

    threshold: Float[np.ndarray, " point"]
    risk: Float[np.ndarray, " point"]
    coverage: Float[np.ndarray, " point"]
    miss_rate: Float[np.ndarray, " point"]
    median_delay: Float[np.ndarray, " point"]


def onsets(labels: Int[np.ndarray, "batch time"], counted: Bool[np.ndarray, "batch time"]) -> Onsets:
    """Returns the onsets of classes: a step that counts, after one that counts and has another class.

    A class lasts until its label changes or a step does not count. What a sequence begins with has no onset.
    """
    same = (labels[:, 1:] == labels[:, :-1]) & counted[:, 1:] & counted[:, :-1]
    began = counted.copy()
    began[:, 1:] &= ~same
    ends = counted.copy()
    ends[:, :-1] &= ~same
    sequence, first = np.nonzero(began)
    stop = np.nonzero(ends)[1] + 1
    changed = (first > 0) & counted[sequence, np.maximum(first - 1, 0)]
    sequence, first, stop = sequence[changed], first[changed], stop[changed]
    return Onsets(sequence, first, stop, labels[sequence, first])


def detection_curve(
    probs: Float[np.ndarray, "batch time class"],
    labels: Shaped[np.ndarray, "batch time"],
    counted: Bool[np.ndarray, "batch time"],
    thresholds: Shaped[np.ndarray, " point"],
) -> DetectionCurve:
    """Returns risk, coverage and delay at every threshold.

    Args:
        probs: class probabilities after every step.
        labels: true class of every step.
        counted: steps that count.
        thresholds: on the largest probability, in [0, 1].

    Raises:
        ValueError: no step counts.
    """
    if not counted.any():
        raise ValueError("a detection curve needs steps that count, got none.")
    thresholds = np.sort(np.asarray(thresholds, float))[::-1]
    sure, right = probs.max(-1), probs.argmax(-1) == labels
    wrong_sure, every_sure = (np.sort(sure[steps]) for steps in (counted & ~right, counted))
    called, wrong = (len(s) - np.searchsorted(s, thresholds) for s in (every_sure, wrong_sure))
    found = onsets(np.asarray(labels), counted)
    # the first right call of an onset at a threshold: where the running maximum of its right steps reaches it
    delays = np.full((len(thresholds), len(found.first)), np.inf)
    for k, (row, first, stop) in enumerate(zip(found.sequence, found.first, found.stop, strict=True)):
        so_far = np.maximum.accumulate(np.where(right[row, first:stop], sure[row, first:stop], -1.0))
        place = np.searchsorted(so_far, thresholds)
        delays[:, k] = np.where(place < stop - first, place, np.inf)
    none = np.full(len(thresholds), np.nan)
    return DetectionCurve(
        thresholds,
        np.where(called > 0, wrong / np.maximum(called, 1), np.nan),
        called / counted.sum(),
        np.isinf(delays).mean(1) if len(found.first) else none,
        np.median(delays, axis=1) if len(found.first) else none,
    )


def threshold_within(curve: DetectionCurve, risk: float) -> float:
    """Returns the lowest threshold at which some steps are called and at most ``risk`` of them wrongly, else infinity.

    An estimate on the examples of the curve and no bound, since steps of one sequence are not independent.
    """
    allowed = curve.risk <= checked_share("risk", risk)
    return float(curve.threshold[allowed].min(initial=np.inf))
