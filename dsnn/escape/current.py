"""Noise in the membrane that lasts: an Ornstein-Uhlenbeck current."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from flax import nnx

from dsnn.escape.draw import normal16
from dsnn.escape.parameters import check_learnable, parameter, value
from dsnn.types import Array, Float, Key


class OrnsteinUhlenbeck(nnx.Module):
    """Ornstein-Uhlenbeck noise, n = a n + sigma sqrt(1 - a^2) N(0, 1) with a = exp(-dt / tau).

    The update is exact for any dt and has the stationary standard deviation sigma (Uhlenbeck & Ornstein 1930); it
    starts at its mean, 0. ``tau=None`` is white noise, n = sigma N(0, 1), whose leaky integral is the
    Ornstein-Uhlenbeck membrane of Gerstner et al. 2014, section 8.1.

    Args:
        sigma: stationary standard deviation in units of the current, positive.
        tau: correlation time in ms, positive, or None.
        dt: length of a step in ms.
        learnable: names among sigma, tau.
        shape: shape of the learnable parameters, () shared or (neurons,).

    Raises:
        ValueError: a value is not positive.
    """

    def __init__(
        self,
        sigma: Any = 0.1,
        tau: Any = 5.0,
        dt: float | int = 1.0,
        *,
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
    ):
        check_learnable(learnable, ("sigma", "tau") if tau is not None else ("sigma",))
        hint = "leave the noise out for a neuron without it"
        self.sigma = parameter("sigma", sigma, "positive", learnable="sigma" in learnable, shape=shape, hint=hint)
        self.tau = (
            None
            if tau is None
            else parameter(
                "tau", tau, "positive", learnable="tau" in learnable, shape=shape, hint="None is white noise"
            )
        )
        self.dt = parameter("dt", dt, "positive", hint="it is the length of a step in ms")

    def init(self, batch_shape: tuple[int, ...]) -> Float[Array, "..."]:
        """Returns the noise before the first step, its mean."""
        return jnp.zeros(batch_shape)

    def step(self, noise: Float[Array, "..."], key: Key[Array, ""] | None = None) -> Float[Array, "..."]:
        """Returns the noise one step later; a key is consumed, None only lets it decay."""
        sigma = value(self.sigma)
        if self.tau is None:
            return jnp.zeros_like(noise) if key is None else sigma * normal16(key, noise.shape)
        tau = value(self.tau)
        decay, kick = jnp.exp(-self.dt / tau), jnp.sqrt(-jnp.expm1(-2 * self.dt / tau))
        return decay * noise if key is None else decay * noise + sigma * kick * normal16(key, noise.shape)
