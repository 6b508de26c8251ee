"""Whether predicted intervals hold what they promise: coverage and the interval score."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from dsnn.evaluate.checks import checked_reals, checked_share

__all__ = ["Interval", "conformal_margin", "credible_interval", "interval_coverage", "interval_score", "r2"]


class Interval(NamedTuple):
    """Lower and upper ends, per example."""

    lower: Float[np.ndarray, "*batch"]
    upper: Float[np.ndarray, "*batch"]


def credible_interval(samples: Shaped[np.ndarray, "sample *batch"], level: float = 0.9) -> Interval:
    """The central interval that holds a share `level` of the predictive samples.

    Args:
        samples: Draws from the predictive distribution (noise of the observation included).
        level: Nominal coverage in (0, 1).
    """
    tail = (1 - checked_share("level", level)) / 2
    lower, upper = np.quantile(checked_reals("Predictive samples", samples), [tail, 1 - tail], axis=0)
    return Interval(lower, upper)


def r2(predicted: Shaped[np.ndarray, "batch output"], targets: Shaped[np.ndarray, "batch output"]) -> float:
    """Share of the targets' variance that predictions explain, the mean over outputs; an output that is constant: NaN.

    1 less the squared error over that of the targets' own mean; below 0 the mean would have been better.
    """
    predicted, targets = checked_reals("Predictions", predicted), checked_reals("Targets", targets)
    about = ((targets - targets.mean(0)) ** 2).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = 1 - ((targets - predicted) ** 2).sum(0) / np.where(about > 0, about, np.nan)
    return float(shares.mean())


def interval_coverage(
    lower: Shaped[np.ndarray, "*batch"], upper: Shaped[np.ndarray, "*batch"], targets: Shaped[np.ndarray, "*batch"]
) -> float:
    """Share of targets that lie in their interval, ends included."""
    lower, upper, targets = _ordered(lower, upper, targets)
    return float(np.mean((lower <= targets) & (targets <= upper)))


def interval_score(
    lower: Shaped[np.ndarray, "*batch"],
    upper: Shaped[np.ndarray, "*batch"],
    targets: Shaped[np.ndarray, "*batch"],
    level: float = 0.9,
) -> float:
    """Mean interval score (Gneiting & Raftery 2007, eq. 43): width, plus 2/(1 - level) times the distance of a miss.

    Args:
        lower: Lower ends, in the targets' unit.
        upper: Upper ends.
        targets: Observed values.
        level: Nominal coverage of the intervals, in (0, 1).
    """
    lower, upper, targets = _ordered(lower, upper, targets)
    penalty = 2 / (1 - checked_share("level", level))
    miss = np.maximum(lower - targets, 0) + np.maximum(targets - upper, 0)
    return float(np.mean(upper - lower + penalty * miss))


def conformal_margin(
    lower: Shaped[np.ndarray, "batch"],
    upper: Shaped[np.ndarray, "batch"],
    targets: Shaped[np.ndarray, "batch"],
    level: float = 0.9,
) -> float:
    """What to add at both ends of intervals so that a new one holds its target with probability >= level.

    Split conformal with the score max(lower - y, y - upper) (Romano, Patterson & Candès 2019, eq. 6 to 8): the
    ceil((n + 1) level)-th smallest score of the calibration examples. It is negative where the intervals are too wide,
    and infinite with too few examples.

    Args:
        lower: Lower ends of calibration examples that were used for nothing else.
        upper: Upper ends.
        targets: Observed values.
        level: Wanted coverage in (0, 1).
    """
    level = checked_share("level", level)
    lower, upper, targets = _ordered(lower, upper, targets)
    scores = np.sort(np.maximum(lower - targets, targets - upper).ravel())
    rank = int(np.ceil((len(scores) + 1) * level - 1e-9))
    return float("inf") if rank > len(scores) else float(scores[rank - 1])


def _ordered(
    lower: Shaped[np.ndarray, "..."], upper: Shaped[np.ndarray, "..."], targets: Shaped[np.ndarray, "..."]
) -> tuple[Float[np.ndarray, "..."], Float[np.ndarray, "..."], Float[np.ndarray, "..."]]:
    lower, upper = checked_reals("Lower ends", lower), checked_reals("Upper ends", upper)
    targets = checked_reals("Targets", targets)
    if not lower.shape == upper.shape == targets.shape:
        raise ValueError(
            f"Ends and targets must have one shape, got {lower.shape}, {upper.shape} and {targets.shape}; "
            "give one interval per target."
        )
    if np.any(lower > upper):
        worst = int(np.argmax(np.ravel(lower - upper)))
        raise ValueError(
            f"Lower ends must not exceed upper ends, got [{np.ravel(lower)[worst]:g}, {np.ravel(upper)[worst]:g}]; "
            "swap them."
        )
    return lower, upper, targets
