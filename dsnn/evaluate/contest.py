"""Networks held against each other at equal accuracy: levels, a paired ratio of energies, and its verdict.

Nothing here knows a network: accuracies are shares, energies nJ, and everything that is uncertain comes by seed and by
block of examples, the same blocks for both sides.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num

__all__ = [
    "BELOW",
    "Ratio",
    "cheapest",
    "corners",
    "expected_best",
    "free_verdict",
    "levels",
    "paired_gain",
    "paired_ratio",
    "spread_over",
    "verdict",
]

BELOW = (0, 1, 2, 4)
"""Tolerances below the best accuracy at which networks are compared."""


class Ratio(NamedTuple):
    """A ratio of mean energies, or a difference of accuracies, with the ends of its interval."""

    value: float
    low: float
    high: float


def spread_over(front: Sequence[int], most: int) -> list[int]:
    """Returns at most so many trials of a front, its ends among them, evenly spaced along it.

    Args:
        front: numbers of its trials, by rising energy.
        most: at least 1; a single one is the last, the most accurate.
    """
    if len(front) <= most:
        return list(front)
    if most == 1:
        return [front[-1]]
    return [front[k] for k in sorted({round(k * (len(front) - 1) / (most - 1)) for k in range(most)})]


def expected_best(values: Float[np.ndarray, " trial"]) -> Float[np.ndarray, " trial"]:
    """Returns the expected largest of k of the trials, drawn without putting back, for k = 1 .. all.

    The i-th smallest of n is the largest of k in C(i - 1, k - 1) of C(n, k) draws (Dodge et al. 2019 put back).
    """
    rising, count = np.sort(values), len(values)
    ways = [[math.comb(i, k) / math.comb(count, k + 1) for i in range(count)] for k in range(count)]
    return np.asarray(ways).reshape(count, count) @ rising


def levels(best: float, tolerance: float) -> list[float]:
    """Returns the accuracies at which networks are compared: the best, and `BELOW` tolerances less."""
    return [best - below * tolerance for below in BELOW]


def cheapest(
    accuracy: Float[np.ndarray, " trial"], energy: Float[np.ndarray, " trial"], level: float, tolerance: float
) -> int | None:
    """Returns the number of the cheapest trial that reaches a level, but for a tolerance; None where none does."""
    reach = np.flatnonzero(accuracy >= level - tolerance - 1e-12)
    return int(reach[np.argmin(energy[reach])]) if len(reach) else None


def paired_ratio(
    ours: Float[np.ndarray, "seed block"],
    theirs: Float[np.ndarray, "_ _"],
    sizes: Num[np.ndarray, " _"] | None = None,
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Ratio:
    """Returns the mean energy of ours over theirs, with a percentile interval by a paired bootstrap.

    Seeds are drawn with putting back, and blocks of examples, the same of both sides and in every seed.

    Args:
        ours: mean energy of the examples of each block under each seed.
        theirs: of the same blocks.
        sizes: examples of each block, by which it weighs; None is as many in each.
        draws: of the bootstrap.
        level: share of them inside.
        seed: of the draws.

    Raises:
        ValueError: the two are not paired, they are not of these blocks, or nothing was spent.
    """
    if ours.shape != theirs.shape or not ours.size:
        raise ValueError(
            f"energies must be of the same seeds and blocks, got {ours.shape} and {theirs.shape}; assess both alike."
        )
    if sizes is not None and len(sizes) != ours.shape[1]:
        raise ValueError(
            f"sizes must be one for each of {ours.shape[1]} blocks, got {len(sizes)}; None weighs all alike."
        )
    if theirs.mean() <= 0:
        raise ValueError("a ratio needs a rival that spends something, got a mean energy of 0; take free_verdict.")
    weights = np.ones(ours.shape[1]) if sizes is None else np.asarray(sizes, float)
    rng = np.random.default_rng(seed)
    seeds = rng.integers(len(ours), size=(draws, len(ours)))
    blocks = rng.integers(ours.shape[1], size=(draws, ours.shape[1]))

    def sums(values: np.ndarray) -> np.ndarray:
        return (np.take_along_axis(values[seeds].mean(1), blocks, 1) * weights[blocks]).sum(1)

    low, high = np.quantile(sums(ours) / np.maximum(sums(theirs), 1e-30), _ends(level))
    return Ratio(float((ours @ weights).sum() / (theirs @ weights).sum()), float(low), float(high))


def paired_gain(
    ours: Float[np.ndarray, "seed example"],
    theirs: Float[np.ndarray, "_ _"],
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Ratio:
    """Returns our accuracy less theirs, with an interval as of `paired_ratio`, over the same examples.

    Raises:
        ValueError: the two are not paired.
    """
    if ours.shape != theirs.shape or not ours.size:
        raise ValueError(
            f"answers must be of the same seeds and examples, got {ours.shape} and {theirs.shape}; assess both alike."
        )
    rng, gain = np.random.default_rng(seed), ours - theirs
    drawn = np.empty(draws)
    for k in range(draws):
        mean = gain[rng.integers(len(gain), size=len(gain))].mean(0)
        drawn[k] = mean[rng.integers(len(mean), size=len(mean))].mean()
    low, high = np.quantile(drawn, _ends(level))
    return Ratio(float(gain.mean()), float(low), float(high))


def _ends(level: float) -> list[float]:
    return [(1 - level) / 2, (1 + level) / 2]


def verdict(ratio: Ratio, gained: float, tolerance: float) -> str:
    """Returns "win", "loss" or "tie" of ours.

    Args:
        ratio: of energies, ours over theirs.
        gained: our accuracy less theirs.
        tolerance: how much less accurate the winner may be.
    """
    if ratio.high < 1 and gained >= -tolerance - 1e-12:
        return "win"
    if ratio.low > 1 and -gained >= -tolerance - 1e-12:
        return "loss"
    return "tie"


def free_verdict(ours: float, theirs: float, gained: float, tolerance: float) -> str:
    """Returns `verdict` where a side spends nothing, so that there is no ratio: accuracy alone decides.

    Args:
        ours: mean energy, nJ.
        theirs: the same; who spends nothing against something is the cheaper one.
        gained: our accuracy less theirs.
        tolerance: how much less accurate the winner may be.
    """
    sign = np.sign(ours - theirs)
    return verdict(Ratio(1.0 + sign, 1.0 + sign, 1.0 + sign), gained, tolerance)


def corners(ours: Mapping[str, float], theirs: Mapping[str, float], by: float = 0.2) -> tuple[float, float]:
    """Returns the least and the largest ratio where the price of each part is up to this share higher or lower.

    Each factor is the same for both sides. A ratio of sums with positive factors has its ends at corners.

    Args:
        ours: energy by part, such as "macs" and "weights".
        theirs: the same.
        by: share, below 1.
    """
    names = sorted({name for side in (ours, theirs) for name, spent in side.items() if spent > 0})
    first, second = (np.asarray([side.get(name, 0.0) for name in names]) for side in (ours, theirs))
    factors = np.asarray(list(itertools.product((1 - by, 1 + by), repeat=len(names))))
    ratios = (factors @ first) / np.maximum(factors @ second, 1e-30)
    return float(ratios.min()), float(ratios.max())
