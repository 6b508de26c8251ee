"""How uncertain a posterior predictive is, and why: entropy split into noise in the data and doubt about the model."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from dsnn.evaluate.checks import checked_probs

__all__ = ["Uncertainty", "entropy", "epistemic_by_source", "uncertainty"]


class Uncertainty(NamedTuple):
    """Per example, in nats: total = aleatoric + epistemic."""

    total: Float[np.ndarray, "batch"]
    aleatoric: Float[np.ndarray, "batch"]
    epistemic: Float[np.ndarray, "batch"]


def entropy(probs: Shaped[np.ndarray, "*lead class"]) -> Float[np.ndarray, "*lead"]:
    """Entropy over the classes in nats; 0 log 0 is 0."""
    probs = np.asarray(probs, dtype=np.float64)
    return -np.sum(probs * np.log(np.where(probs > 0, probs, 1.0)), axis=-1)


def uncertainty(probs: Shaped[np.ndarray, "sample batch class"]) -> Uncertainty:
    """Entropy of the mean prediction, mean entropy of the predictions, and their difference, the mutual information.

    Args:
        probs: Class probabilities of each posterior sample.
    """
    probs = checked_probs(probs)
    total, aleatoric = entropy(probs.mean(axis=0)), entropy(probs).mean(axis=0)
    return Uncertainty(total, aleatoric, np.maximum(total - aleatoric, 0.0))


def epistemic_by_source(
    probs: Shaped[np.ndarray, "*source batch class"],
    sources: Sequence[str] = ("weights", "gates", "spikes"),
) -> dict[str, Float[np.ndarray, "batch"]]:
    """The mutual information of the label with each source of randomness, given the sources before it.

    By the chain rule I(y; w, g, s) = I(y; w) + I(y; g | w) + I(y; s | w, g), so the parts add up to the epistemic part
    of `uncertainty` over all samples at once. With few samples of a source its part is underestimated.

    Args:
        probs: Class probabilities, one leading axis per source: entry [i, j, k] uses draw i of the weights, the j-th
            draw of the gates under it, and the k-th draw of the firing noise under both.
        sources: Name of each leading axis, in order.

    Raises:
        ValueError: Another number of names than of leading axes.
    """
    probs = checked_probs(probs)
    if len(sources) != probs.ndim - 2:
        raise ValueError(
            f"There must be one name per leading axis, got {len(sources)} names ({', '.join(sources)}) for shape "
            f"{probs.shape}; the shape is [{', '.join(sources)}, batch, class]."
        )
    parts = {}
    means = [probs.mean(axis=tuple(range(depth, len(sources)))) for depth in range(len(sources) + 1)]
    expected = [entropy(mean).mean(axis=tuple(range(mean.ndim - 2))) for mean in means]
    for name, before, after in zip(sources, expected, expected[1:], strict=False):
        parts[name] = np.maximum(before - after, 0.0)
    return parts
