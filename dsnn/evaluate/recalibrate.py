"""Recalibration on validation data only: temperature scaling and split-conformal prediction sets."""

import numpy as np
from jaxtyping import Bool, Float, Shaped

from dsnn.evaluate.checks import checked_labels, checked_probs, checked_reals, checked_share

__all__ = ["conformal_sets", "conformal_threshold", "fit_temperature", "with_temperature"]

COLDEST, HOTTEST = 1e-2, 1e2


def fit_temperature(logits: Shaped[np.ndarray, "batch class"], labels: Shaped[np.ndarray, "batch"]) -> float:
    """The temperature that minimises the negative log-likelihood on validation data (Guo et al. 2017), in [0.01, 100].

    The loss is convex in 1/T, so bisection on its derivative finds the only minimum; where every prediction is right
    (or the logits say nothing) the minimum lies at an end of the range.

    Args:
        logits: Logits, or log-probabilities of an averaged prediction, of the validation examples.
        labels: Their true classes.
    """
    logits = checked_reals("Logits", logits)
    labels = checked_labels(labels, *logits.shape)
    logits = logits - logits.max(axis=-1, keepdims=True)
    observed = float(np.mean(np.take_along_axis(logits, labels[:, None], axis=-1)))

    def slope(inverse: float) -> float:  # d NLL / d (1/T): the logits' expected value less the observed one
        weights = np.exp(inverse * logits)
        return float(np.mean(np.sum(weights * logits, axis=-1) / weights.sum(axis=-1))) - observed

    low, high = np.log(1 / HOTTEST), np.log(1 / COLDEST)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(np.exp(middle)) < 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def with_temperature(
    logits: Shaped[np.ndarray, "batch class"], temperature: float | int
) -> Float[np.ndarray, "batch class"]:
    """Class probabilities softmax(logits / temperature).

    Args:
        logits: Logits or log-probabilities.
        temperature: Positive; above 1 it softens.

    Raises:
        ValueError: A temperature that is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}; fit_temperature gives one.")
    scaled = checked_reals("Logits", logits) / temperature
    weights = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def conformal_threshold(
    probs: Shaped[np.ndarray, "batch class"], labels: Shaped[np.ndarray, "batch"], level: float = 0.9
) -> float:
    """The least probability a class needs to enter a prediction set that covers the label with probability >= level.

    Split conformal with the score 1 - p(label) (Sadinle, Lei & Wasserman 2019): the ceil((n + 1) level)-th smallest
    score of the calibration examples. With too few of them the set must hold every class, and the threshold is 0.

    Args:
        probs: Probabilities of calibration examples that were used for nothing else.
        labels: Their true classes.
        level: Wanted coverage in (0, 1).
    """
    level = checked_share("level", level)
    probs = checked_probs(probs)
    labels = checked_labels(labels, *probs.shape)
    scores = np.sort(1 - np.take_along_axis(probs, labels[:, None], axis=-1)[:, 0])
    rank = int(np.ceil((len(scores) + 1) * level - 1e-9))
    return 0.0 if rank > len(scores) else float(1 - scores[rank - 1])


def conformal_sets(probs: Shaped[np.ndarray, "batch class"], threshold: float) -> Bool[np.ndarray, "batch class"]:
    """Which classes enter each example's prediction set: those at least as probable as the threshold.

    Args:
        probs: Probabilities of the examples to predict.
        threshold: From `conformal_threshold`.
    """
    return checked_probs(probs) >= threshold - 1e-12
