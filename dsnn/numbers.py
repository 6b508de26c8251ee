"""Predicted numbers in the unit that a user's targets came in, and intervals that hold what they promise."""

import numpy as np

from dsnn import data, evaluate
from dsnn.bayes.regress import Regression
from dsnn.types import Float


def in_units(prediction: Regression, split: data.Split) -> Regression:
    """Returns a prediction of standardised targets in the unit that the targets came in."""
    unit = data.target_scaling(split)
    if unit is None:
        return prediction
    placed = {name: getattr(prediction, name) * unit.scale + unit.shift for name in ("mean", "lower", "upper")}
    spread = {name: getattr(prediction, name) * unit.scale for name in ("aleatoric", "epistemic")}
    outputs = prediction.mean.shape[-1]
    log_prob = prediction.log_prob - np.log(np.broadcast_to(unit.scale, outputs)).sum()
    return prediction._replace(**placed, **spread, log_prob=log_prob)


def targets_of(split: data.Split, part: str) -> Float[np.ndarray, "n output"]:
    """Returns the targets of a part in the unit that they came in."""
    y, unit = np.asarray(getattr(split, part).y), data.target_scaling(split)
    return y if unit is None else y * unit.scale + unit.shift


def margins(prediction: Regression, targets: Float[np.ndarray, "n output"], level: float) -> np.ndarray:
    """Returns what both ends of each output's interval give way by, so that the share ``level`` is held, ``[output]``.

    Split conformal prediction with the distance from the interval as the score (Romano et al. 2019); infinite where
    there are too few examples for the level.

    Args:
        prediction: of examples that chose nothing.
        targets: of these examples, in the same unit.
        level: in (0, 1).
    """
    ends = zip(prediction.lower.T, prediction.upper.T, targets.T, strict=True)
    return np.asarray([evaluate.conformal_margin(*one, level) for one in ends])


def widened(prediction: Regression, margin: np.ndarray) -> Regression:
    """Returns the prediction with intervals that a margin was added to; one below zero takes no more than there is."""
    wide = np.maximum(margin, -(prediction.upper - prediction.lower) / 2)
    return prediction._replace(lower=prediction.lower - wide, upper=prediction.upper + wide)
