"""Early exits: what a stopping rule costs in accuracy for the steps it saves, and a bound on that cost that holds.

A rule gives every example a score at every step, and the example stops at the first step whose score reaches a
threshold. One network's running decisions so give a whole curve for each rule, by sweeping its threshold.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy import special

from dsnn.evaluate.checks import checked_share

__all__ = [
    "ExitCurve",
    "accuracy_at",
    "certified_count",
    "certified_threshold",
    "clearly_worse",
    "exit_curve",
    "exit_steps",
    "extra_errors",
]


class ExitCurve(NamedTuple):
    """Accuracy against mean steps as the threshold falls from where nothing stops early; steps count from 1."""

    threshold: Float[np.ndarray, " point"]
    steps: Float[np.ndarray, " point"]
    accuracy: Float[np.ndarray, " point"]


def exit_steps(score: Shaped[np.ndarray, "time batch"], threshold: float) -> Int[np.ndarray, " batch"]:
    """The step, 1..T, at which each example stops: the first whose score reaches the threshold, else T."""
    reached = np.asarray(score) >= threshold
    reached[-1] = True
    return reached.argmax(0) + 1


def exit_curve(
    score: Shaped[np.ndarray, "time batch"], right: Shaped[np.ndarray, "..."], points: int = 200
) -> ExitCurve:
    """The curve of a rule.

    Args:
        score: The rule's score of every example after every step; larger stops.
        right: Whether the decision after that step is right, [time, batch].
        points: Thresholds, at evenly spaced quantiles of the scores that examples reach before the last step.

    Raises:
        ValueError: Decisions of another shape than the scores.
    """
    score = np.asarray(score, float)
    if score.shape != np.shape(right):
        raise ValueError(f"scores and decisions must have one shape, got {score.shape} and {np.shape(right)}.")
    best = np.maximum.accumulate(score[:-1] if len(score) > 1 else score, axis=0)
    thresholds = np.unique(np.quantile(best, np.linspace(0, 1, points), method="nearest"))[::-1]
    thresholds = np.concatenate([[np.inf], thresholds])
    stops = [exit_steps(score, threshold) for threshold in thresholds]
    accuracy = [np.take_along_axis(np.asarray(right), stop[None] - 1, 0).mean() for stop in stops]
    return ExitCurve(thresholds, np.array([stop.mean() for stop in stops]), np.array(accuracy, float))


def accuracy_at(curve: ExitCurve, steps: Shaped[np.ndarray, " budget"]) -> Float[np.ndarray, " budget"]:
    """The accuracy of a curve at these mean steps, between two thresholds that of tossing a coin between them."""
    order = np.argsort(curve.steps, kind="stable")
    return np.interp(steps, curve.steps[order], curve.accuracy[order])


def extra_errors(
    score: Shaped[np.ndarray, "time batch"], right: Bool[np.ndarray, "time batch"], threshold: float
) -> Bool[np.ndarray, " batch"]:
    """Which examples stop at a wrong answer that running all steps would have made right.

    Their share bounds the errors that stopping early adds from above, since examples that it mends are not set off.
    """
    stop = exit_steps(score, threshold)
    return np.asarray(right)[-1] & ~np.take_along_axis(np.asarray(right), stop[None] - 1, 0)[0]


def clearly_worse(early: Bool[np.ndarray, " batch"], late: Bool[np.ndarray, " batch"], level: float = 0.01) -> bool:
    """Whether early answers are wrong more often than those of all steps: the exact sign test on pairs that differ.

    Args:
        early: Whether each early answer is right.
        late: Whether the answer of all steps is.
        level: Of the one-sided test.
    """
    lost, won = int((late & ~early).sum()), int((early & ~late).sum())
    return lost > won and bool(special.bdtrc(lost - 1, lost + won, 0.5) < level)


def certified_threshold(
    score: Shaped[np.ndarray, "time batch"],
    right: Bool[np.ndarray, "time batch"],
    thresholds: Shaped[np.ndarray, " point"],
    risk: float,
    delta: float = 0.1,
) -> float:
    """The threshold that stops earliest of those certified: at most ``risk`` more errors than all steps make.

    With probability 1 - delta over the calibration examples, the rule with this threshold adds at most ``risk`` to the
    error of new examples of the same distribution. Learn then test (Angelopoulos et al. 2021) in fixed sequence: from
    the highest threshold downwards, each is tested at level delta with the exact binomial p-value of its
    `extra_errors`, P(Bin(n, risk) <= k), and the first that fails ends the search. The risk need not be monotone.

    Args:
        score: Of calibration examples that chose nothing: neither weights, nor an epoch, nor the rule.
        right: Whether their decision after each step is right.
        thresholds: Candidates, chosen without looking at these examples.
        risk: Allowed share of extra errors, in (0, 1); fewer than log(delta) / log(1 - risk) examples certify nothing.
        delta: Probability that the bound may fail, in (0, 1).

    Returns:
        The threshold, or infinity where nothing is certified: every example then runs all steps.
    """
    falling = np.sort(np.asarray(thresholds, float))[::-1]
    passed = certified_count(np.stack([extra_errors(score, right, threshold) for threshold in falling]), risk, delta)
    return float(falling[passed - 1]) if passed else np.inf


def certified_count(extra: Bool[np.ndarray, "point batch"], risk: float, delta: float = 0.1) -> int:
    """How many candidates in a row, from the first, are certified to add at most ``risk`` errors.

    Each is tested at level delta with the exact binomial p-value P(Bin(n, risk) <= k); the first that fails ends the
    sequence, so that the chance that any of those returned breaks the bound is at most delta.

    Args:
        extra: Which calibration examples each candidate makes wrong, the most cautious candidate first.
        risk: Allowed share of extra errors, in (0, 1).
        delta: Probability that the bound may fail, in (0, 1).
    """
    risk, delta = checked_share("risk", risk), checked_share("delta", delta)
    failed = special.bdtr(extra.sum(1), extra.shape[1], risk) > delta
    return int(failed.argmax()) if failed.any() else len(extra)
