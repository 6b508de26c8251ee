"""Gaussian escape noise: the probit neuron."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from dsnn.escape.firing import fire
from dsnn.escape.parameters import WIDTH_HINT, check_learnable, parameter, value
from dsnn.surrogate import Surrogate
from dsnn.types import Array, Float, Key

SQRT_2 = math.sqrt(2)


class Gaussian(nnx.Module):
    """Gaussian escape noise: s = H(u - xi), xi ~ Normal(0, width), so P(s = 1) = Phi(u / width).

    Membrane, derivative and median as in `Logistic`. White noise of standard deviation ``width`` that is drawn anew at
    each step and added to the threshold, or to what is compared with it, is this very neuron: it is counted once here.

    Args:
        width: standard deviation of the noise in units of the membrane, positive.
        learnable: ("width",) trains the width.
        shape: shape of a learnable width, () shared or (neurons,).

    Raises:
        ValueError: the width is not positive.
    """

    def __init__(self, width: Any = 0.3, *, learnable: Sequence[str] = (), shape: Sequence[int] = ()):
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
        return fire(
            u,
            key,
            surrogate,
            compare,
            probability=self.probability,
            quantile=self.quantile,
            median=0.0,
            coarse=lambda u: 0.5 + 0.5 * jax.lax.erf(u / (SQRT_2 * value(self.width))),
        )

    def probability(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the probability of a spike."""
        return _cdf(u / value(self.width))

    def log_prob(self, u: Float[Array, "..."], s: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns log P(s | u) for s in {0, 1}."""
        z = jnp.clip(u / value(self.width), -1e18, 1e18)  # beyond, z^2 overflows
        return s * _log_cdf(z) + (1 - s) * _log_cdf(-z)

    def quantile(self, rank: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the noise xi below which lies the fraction ``rank`` of it."""
        return value(self.width) * SQRT_2 * jax.lax.erf_inv(2 * rank - 1)


def _wide(z: Array) -> Array:
    """Returns numbers of 16 bits in 32, the fewest that `jax.scipy.special` takes."""
    return z.astype(jnp.promote_types(z.dtype, jnp.float32))


@jax.custom_jvp
def _cdf(z: Array) -> Array:
    return jax.scipy.special.ndtr(_wide(z)).astype(z.dtype)


@_cdf.defjvp
def _cdf_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # written out because differentiating the branches of ndtr costs ten times as much
    (z,), (z_dot,) = primals, tangents
    return _cdf(z), jnp.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) * z_dot


@jax.custom_jvp
def _log_cdf(z: Array) -> Array:
    return jax.scipy.special.log_ndtr(_wide(z)).astype(z.dtype)


@_log_cdf.defjvp
def _log_cdf_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # phi / Phi; far below the mean both vanish and their ratio is -z / (1 - 1/z^2 + 3/z^4)
    (z,), (z_dot,) = primals, tangents
    log_cdf = _log_cdf(z)
    far = z < -12
    near_z, far_z = jnp.where(far, 0.0, z), jnp.where(far, z, -12.0)
    near = jnp.exp(-0.5 * near_z**2 - 0.5 * math.log(2 * math.pi) - _log_cdf(near_z))
    inverse = 1 / far_z**2
    return log_cdf, jnp.where(far, -far_z / (1 - inverse + 3 * inverse**2), near) * z_dot
