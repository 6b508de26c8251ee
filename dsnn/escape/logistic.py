"""Logistic escape noise: the sigmoid neuron."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from dsnn.escape.firing import fire
from dsnn.escape.parameters import WIDTH_HINT, check_learnable, parameter, value
from dsnn.surrogate import Surrogate
from dsnn.types import Array, Float, Key


class Logistic(nnx.Module):
    """Logistic escape noise: s = H(u - xi), xi ~ Logistic(0, width), so P(s = 1) = 1 / (1 + exp(-u / width)).

    u is the membrane minus the threshold. Without a named surrogate the derivative of a spike is the density of xi at
    u, which is the derivative of its probability, in u and in the width; with one it is that surrogate at u - xi.
    Without a key xi is its median, 0, and this is the threshold neuron. (Gerstner et al. 2014, chapter 9.)

    Args:
        width: scale of the noise in units of the membrane, positive; its standard deviation is 1.81 times that.
        learnable: ("width",) trains the width.
        shape: shape of a learnable width, () shared or (neurons,).

    Raises:
        ValueError: the width is not positive.
    """

    def __init__(self, width: Any = 0.2, *, learnable: Sequence[str] = (), shape: Sequence[int] = ()):
        check_learnable(learnable, ("width",))
        self.width = parameter("width", width, "positive", learnable="width" in learnable, shape=shape, hint=WIDTH_HINT)

    def spike(
        self,
        u: Float[Array, "..."],
        key: Key[Array, ""] | None = None,
        surrogate: str | Surrogate | None = None,
        compare: str = ">",
    ) -> Float[Array, "..."]:
        """Returns spikes, with probability in steps of 2^-16; a key is consumed, None is the threshold neuron."""
        return fire(u, key, surrogate, compare, probability=self.probability, quantile=self.quantile, median=0.0)

    def probability(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the probability of a spike."""
        return jax.nn.sigmoid(u / value(self.width))

    def log_prob(self, u: Float[Array, "..."], s: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns log P(s | u) for s in {0, 1}."""
        z = u / value(self.width)
        return s * jax.nn.log_sigmoid(z) + (1 - s) * jax.nn.log_sigmoid(-z)

    def quantile(self, rank: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the noise xi below which lies the fraction ``rank`` of it."""
        return value(self.width) * (jnp.log(rank) - jnp.log1p(-rank))
