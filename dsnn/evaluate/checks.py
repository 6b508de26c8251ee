"""Checks that the scores share: each stops with one sentence that gives the rule, the value received and the fix."""

import numpy as np
from jaxtyping import Float, Int, Shaped

__all__ = ["checked_labels", "checked_probs", "checked_reals", "checked_share"]


def checked_probs(probs: Shaped[np.ndarray, "*lead batch class"]) -> Float[np.ndarray, "*lead batch class"]:
    """The probabilities in double precision.

    Raises:
        ValueError: Empty, not finite, negative, or rows that do not sum to one within 1e-3.
    """
    probs = np.asarray(probs, dtype=np.float64)
    if probs.ndim < 2 or probs.size == 0:
        raise ValueError(f"Probabilities must be a non-empty [..., batch, class] array, got shape {probs.shape}.")
    if not np.all(np.isfinite(probs)) or np.any(probs < 0):
        worst = probs[~np.isfinite(probs) | (probs < 0)].flat[0]
        raise ValueError(
            f"Probabilities must be finite and not negative, got {worst}; apply a softmax to logits first."
        )
    sums = probs.sum(axis=-1)
    if np.any(np.abs(sums - 1) > 1e-3):
        worst = sums.flat[np.argmax(np.abs(sums - 1))]
        raise ValueError(f"Probabilities must sum to 1 over classes, got a sum of {worst:g}; apply a softmax first.")
    return probs


def checked_labels(labels: Shaped[np.ndarray, "batch"], batch: int, classes: int) -> Int[np.ndarray, "batch"]:
    """The labels as integers.

    Raises:
        ValueError: Another length than the predictions, not whole numbers, or outside the classes.
    """
    labels = np.asarray(labels)
    if labels.shape != (batch,):
        raise ValueError(f"There must be one label per prediction, got labels {labels.shape} for {batch} predictions.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"Labels must be integers, got {labels.dtype}; give class indices, not one-hot rows.")
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        worst = labels.min() if labels.min() < 0 else labels.max()
        raise ValueError(
            f"Labels must be in [0, {classes - 1}] for {classes} classes, got {worst}; check the encoding."
        )
    return labels.astype(np.int64)


def checked_reals(name: str, values: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """The values in double precision.

    Raises:
        ValueError: Empty or not finite.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.size == 0 or not np.all(np.isfinite(values)):
        raise ValueError(
            f"{name} must be non-empty and finite, got {values.size} values, some NaN or infinite or none."
        )
    return values


def checked_share(name: str, value: float) -> float:
    """The value, if it lies strictly between 0 and 1.

    Raises:
        ValueError: It does not.
    """
    if not 0 < value < 1:
        raise ValueError(f"{name} must be in (0, 1), got {value}; 0.1 means ten percent.")
    return float(value)
