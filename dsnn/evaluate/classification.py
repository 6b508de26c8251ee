"""Accuracy, negative log-likelihood and Brier score of predicted class probabilities."""

import numpy as np
from jaxtyping import Shaped

from dsnn.evaluate.checks import checked_labels, checked_probs

__all__ = ["accuracy", "balanced_accuracy", "brier", "nll"]


def accuracy(probs: Shaped[np.ndarray, "batch class"], labels: Shaped[np.ndarray, "batch"]) -> float:
    """Share of examples whose most probable class is the label (the first of equals)."""
    probs = checked_probs(probs)
    labels = checked_labels(labels, *probs.shape)
    return float(np.mean(probs.argmax(axis=-1) == labels))


def balanced_accuracy(probs: Shaped[np.ndarray, "batch class"], labels: Shaped[np.ndarray, "batch"]) -> float:
    """Mean over the classes that occur of the share of their examples that are answered right."""
    probs = checked_probs(probs)
    labels = checked_labels(labels, *probs.shape)
    right = probs.argmax(axis=-1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def nll(probs: Shaped[np.ndarray, "batch class"], labels: Shaped[np.ndarray, "batch"]) -> float:
    """Mean negative log-probability of the labels, in nats.

    A probability of zero counts as the smallest normal double (708 nats), so that the mean stays finite.
    """
    probs = checked_probs(probs)
    labels = checked_labels(labels, *probs.shape)
    chosen = np.take_along_axis(probs, labels[:, None], axis=-1)[:, 0]
    return float(-np.mean(np.log(np.maximum(chosen, np.finfo(np.float64).tiny))))


def brier(probs: Shaped[np.ndarray, "batch class"], labels: Shaped[np.ndarray, "batch"]) -> float:
    """Mean squared distance of the probabilities from the one-hot label, in [0, 2] (Brier 1950)."""
    probs = checked_probs(probs)
    labels = checked_labels(labels, *probs.shape)
    one_hot = np.eye(probs.shape[-1])[labels]
    return float(np.mean(np.sum((probs - one_hot) ** 2, axis=-1)))
