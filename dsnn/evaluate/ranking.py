"""Whether uncertainty ranks well: telling sets apart (AUROC, FPR95), abstaining where it errs (risk-coverage)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from dsnn.evaluate.checks import checked_reals

__all__ = ["RiskCoverage", "aurc", "auroc", "fpr95", "risk_coverage"]


def auroc(inside: Shaped[np.ndarray, "inside"], outside: Shaped[np.ndarray, "outside"]) -> float:
    """Probability that an outside example scores higher than an inside one, ties counting half.

    Args:
        inside: Scores (higher is more uncertain) of in-distribution examples.
        outside: Scores of out-of-distribution examples.
    """
    inside, outside = checked_reals("Inside scores", inside), checked_reals("Outside scores", outside)
    inside = np.sort(inside)
    below = np.searchsorted(inside, outside, side="left")
    not_above = np.searchsorted(inside, outside, side="right")
    return float(np.mean((below + not_above) / 2) / len(inside))


def fpr95(inside: Shaped[np.ndarray, "inside"], outside: Shaped[np.ndarray, "outside"]) -> float:
    """Share of outside examples that are let in by the lowest threshold that lets in 95 % of the inside ones.

    Args:
        inside: Scores (higher is more uncertain) of in-distribution examples.
        outside: Scores of out-of-distribution examples.
    """
    inside, outside = checked_reals("Inside scores", inside), checked_reals("Outside scores", outside)
    threshold = np.sort(inside)[int(np.ceil(0.95 * len(inside) - 1e-9)) - 1]
    return float(np.mean(outside <= threshold))


class RiskCoverage(NamedTuple):
    """The error rate among the most certain examples, as a function of the share of examples that are answered."""

    coverage: Float[np.ndarray, "batch"]
    risk: Float[np.ndarray, "batch"]


def risk_coverage(uncertainty: Shaped[np.ndarray, "batch"], wrong: Shaped[np.ndarray, "batch"]) -> RiskCoverage:
    """The risk-coverage curve (Geifman & El-Yaniv 2017); equally uncertain examples share their errors evenly.

    Args:
        uncertainty: Score of each example, higher is more uncertain.
        wrong: Whether (or how much, in [0, 1]) each prediction is in error.

    Raises:
        ValueError: The lengths differ.
    """
    uncertainty, wrong = checked_reals("Uncertainty", uncertainty), checked_reals("Errors", wrong)
    if uncertainty.shape != wrong.shape:
        raise ValueError(f"There must be one error per score, got {wrong.shape} for {uncertainty.shape}.")
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    share = np.bincount(group, weights=wrong) / size  # errors of a group of ties, spread over its members
    answered = np.arange(1, len(wrong) + 1)
    return RiskCoverage(answered / len(wrong), np.cumsum(np.repeat(share, size)) / answered)


def aurc(uncertainty: Shaped[np.ndarray, "batch"], wrong: Shaped[np.ndarray, "batch"]) -> float:
    """Area under the risk-coverage curve: the mean risk over all coverages 1/n, 2/n, ..., 1."""
    return float(np.mean(risk_coverage(uncertainty, wrong).risk))
