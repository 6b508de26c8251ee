"""Scores of several labels per example, each 0 or 1: exact match, F1, and the view of each label as a class."""

import numpy as np
from jaxtyping import Shaped

__all__ = ["binary", "exact_match", "f1"]


def binary(
    probs: Shaped[np.ndarray, "batch label"], labels: Shaped[np.ndarray, "batch label"]
) -> tuple[Shaped[np.ndarray, "pair two"], Shaped[np.ndarray, "pair"]]:
    """Returns every label of every example as an example of two classes, for the scores of classes."""
    probs, labels = _checked(probs, labels)
    flat = probs.reshape(-1)
    return np.stack([1 - flat, flat], -1), labels.reshape(-1)


def exact_match(probs: Shaped[np.ndarray, "batch label"], labels: Shaped[np.ndarray, "batch label"]) -> float:
    """Share of examples all of whose labels are decided rightly at probability one half."""
    probs, labels = _checked(probs, labels)
    return float(np.mean(((probs > 0.5) == labels).all(-1)))


def f1(
    probs: Shaped[np.ndarray, "batch label"], labels: Shaped[np.ndarray, "batch label"], *, average: str = "micro"
) -> float:
    """Harmonic mean of precision and recall at probability one half, 2 TP / (2 TP + FP + FN).

    Args:
        probs: of each label.
        labels: 0 or 1.
        average: "micro" counts over all labels together; "macro" is the mean over labels, where one that is neither
            present nor predicted counts as 0.

    Raises:
        ValueError: Another average, or arrays that do not fit.
    """
    if average not in ("micro", "macro"):
        raise ValueError(f'average must be "micro" or "macro", got {average!r}.')
    probs, labels = _checked(probs, labels)
    said = probs > 0.5
    right, wrong = (said & (labels == 1)).sum(0), (said != labels).sum(0)
    if average == "micro":
        right, wrong = right.sum(keepdims=True), wrong.sum(keepdims=True)
    return float(np.mean(2 * right / np.maximum(2 * right + wrong, 1)))


def _checked(probs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probs, labels = np.asarray(probs, np.float64), np.asarray(labels)
    if probs.ndim != 2 or probs.shape != labels.shape or not probs.size:
        raise ValueError(f"Probabilities and labels must be [batch, label], got {probs.shape} and {labels.shape}.")
    if not ((probs >= 0) & (probs <= 1)).all():
        raise ValueError(f"Probabilities must be in [0, 1], got {probs.min():g} to {probs.max():g}; apply a sigmoid.")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"Labels must be 0 or 1, got {labels.min()} to {labels.max()}.")
    return probs, labels.astype(np.int64)
