"""Whether confidence is accuracy: the reliability diagram and the expected calibration error (Guo et al. 2017)."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from dsnn.evaluate.checks import checked_labels, checked_probs

__all__ = ["Reliability", "ece", "reliability"]

Binning = Literal["width", "mass"]


class Reliability(NamedTuple):
    """A reliability diagram: per bin the mean confidence, the accuracy and the number of examples (NaN where none)."""

    confidence: Float[np.ndarray, "bin"]
    accuracy: Float[np.ndarray, "bin"]
    counts: Int[np.ndarray, "bin"]


def reliability(
    probs: Shaped[np.ndarray, "batch class"],
    labels: Shaped[np.ndarray, "batch"],
    bins: int = 15,
    binning: Binning = "width",
) -> Reliability:
    """The reliability diagram of the most probable class.

    Args:
        probs: Predicted probabilities.
        labels: True classes.
        bins: Number of bins, at least 1.
        binning: "width" cuts [0, 1] into equal parts, each closed below and the last closed above too, so that a
            confidence of exactly 1 is counted; "mass" gives every bin the same number of examples (one more in the
            first ones when it does not divide).

    Raises:
        ValueError: `bins` below 1 or an unknown binning.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}; 15 is usual.")
    probs = checked_probs(probs)
    labels = checked_labels(labels, *probs.shape)
    confidence = probs.max(axis=-1)
    correct = (probs.argmax(axis=-1) == labels).astype(np.float64)
    if binning == "width":
        member = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    elif binning == "mass":
        member = np.empty(len(confidence), dtype=np.int64)
        for index, part in enumerate(np.array_split(np.argsort(confidence, kind="stable"), bins)):
            member[part] = index
    else:
        raise ValueError(f"binning must be width or mass, got {binning!r}; width is the usual one.")
    count = np.bincount(member, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = [np.bincount(member, weights=values, minlength=bins) / count for values in (confidence, correct)]
    return Reliability(mean[0], mean[1], count)


def ece(
    probs: Shaped[np.ndarray, "batch class"],
    labels: Shaped[np.ndarray, "batch"],
    bins: int = 15,
    binning: Binning = "width",
) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy, weighted by the bins' sizes.

    Args:
        probs: Predicted probabilities.
        labels: True classes.
        bins: Number of bins.
        binning: "width" or "mass", see `reliability`.
    """
    diagram = reliability(probs, labels, bins, binning)
    filled = diagram.counts > 0
    gap = np.abs(diagram.confidence - diagram.accuracy)[filled]
    return float(np.average(gap, weights=diagram.counts[filled]))
