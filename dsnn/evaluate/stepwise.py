"""Scores of a class at every time step: as published, on labelled steps, with a tolerance in time, and over time."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from dsnn.evaluate.calibration import ece

__all__ = ["BlockCalibration", "block_calibration", "tolerant_accuracy"]


def tolerant_accuracy(
    predicted: Int[np.ndarray, "batch time"],
    labels: Int[np.ndarray, "batch time"],
    tolerance: int,
    counted: Bool[np.ndarray, "batch time"] | None = None,
) -> float:
    """Share of steps whose predicted class is the label of some step at most ``tolerance`` steps away.

    Args:
        predicted: class at every step.
        labels: true class at every step.
        tolerance: in steps; 0 is the accuracy.
        counted: steps that count; all by default.

    Raises:
        ValueError: a negative tolerance.
    """
    if tolerance < 0:
        raise ValueError(f"the tolerance must not be negative, got {tolerance} steps.")
    right = predicted == labels
    for shift in range(1, tolerance + 1):
        right[:, shift:] |= predicted[:, shift:] == labels[:, :-shift]
        right[:, :-shift] |= predicted[:, :-shift] == labels[:, shift:]
    return float(right.mean() if counted is None else right[counted].mean())


class BlockCalibration(NamedTuple):
    """Calibration along time, one entry per block of steps: its first step, ECE, accuracy and mean confidence."""

    first: Int[np.ndarray, "block"]
    ece: Float[np.ndarray, "block"]
    accuracy: Float[np.ndarray, "block"]
    confidence: Float[np.ndarray, "block"]


def block_calibration(
    probs: Float[np.ndarray, "batch time class"],
    labels: Shaped[np.ndarray, "batch time"],
    counted: Bool[np.ndarray, "batch time"],
    block: int = 50,
) -> BlockCalibration:
    """The expected calibration error in blocks of ``block`` steps; blocks in which no step counts are left out.

    A single step has as many predictions as there are sequences, too few for fifteen bins: an ECE of so few is mostly
    noise, hence blocks.

    Raises:
        ValueError: a block of no step.
    """
    if block < 1:
        raise ValueError(f"a block must have at least 1 step, got {block}.")
    rows = []
    for first in range(0, probs.shape[1], block):
        here = counted[:, first : first + block]
        if not here.any():
            continue
        p, y = probs[:, first : first + block][here], labels[:, first : first + block][here]
        rows.append((first, ece(p, y), float((p.argmax(-1) == y).mean()), float(p.max(-1).mean())))
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return BlockCalibration(columns[0].astype(int), *columns[1:])
