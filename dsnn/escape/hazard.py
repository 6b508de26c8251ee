"""Exponential hazard: the escape rate of spike response models."""

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

LOG_2 = math.log(2)
SATURATION = 80.0


class ExponentialHazard(nnx.Module):
    """Spikes at the rate rho0 exp(u / width): P(s = 1) = 1 - exp(-rho0 exp(u / width) dt).

    (Gerstner et al. 2014, chapter 9; Jolivet et al. 2006.) As s = H(u - xi), xi = width log(E / (rho0 dt)) with
    E exponential. Derivative as in `Logistic`. Without a key xi is its median, width log(log 2 / (rho0 dt)), the u at
    which a spike has probability 1/2: with rho0 dt = log 2 that is the threshold itself, and u = 0 is the usual
    threshold neuron.

    Args:
        rho0: rate at threshold in spikes per ms, positive; the default makes P(s = 1) one half at threshold.
        width: how far the membrane has to rise for e times the rate, in units of the membrane, positive.
        dt: length of a step in ms.
        learnable: names among rho0, width.
        shape: shape of the learnable parameters, () shared or (neurons,).

    Raises:
        ValueError: a value is not positive.
    """

    def __init__(
        self,
        rho0: Any = LOG_2,
        width: Any = 0.2,
        dt: float | int = 1.0,
        *,
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
    ):
        check_learnable(learnable, ("rho0", "width"))
        self.rho0 = parameter("rho0", rho0, "positive", learnable="rho0" in learnable, shape=shape)
        self.width = parameter("width", width, "positive", learnable="width" in learnable, shape=shape, hint=WIDTH_HINT)
        self.dt = parameter("dt", dt, "positive", hint="it is the length of a step in ms")

    def spike(
        self,
        u: Float[Array, "..."],
        key: Key[Array, ""] | None = None,
        surrogate: str | Surrogate | None = None,
        compare: str = ">",
    ) -> Float[Array, "..."]:
        """Returns spikes, with probability in steps of 2^-16; a key is consumed, None takes the noise at its median."""
        return fire(
            u,
            key,
            surrogate,
            compare,
            probability=self.probability,
            quantile=self.quantile,
            median=self.quantile(jnp.float32(0.5)),
            coarse=lambda u: 1 - jnp.exp(-jnp.exp(self._log_expected(u))),
        )

    def probability(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the probability of a spike."""
        return _at_least_one(self._log_expected(u))

    def log_prob(self, u: Float[Array, "..."], s: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns log P(s | u) for s in {0, 1}; -log P(0) saturates at e^80."""
        a = self._log_expected(u)
        expected = jnp.exp(a)
        return s * _log_at_least_one(a) - (1 - s) * expected

    def quantile(self, rank: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the noise xi below which lies the fraction ``rank`` of it."""
        return value(self.width) * (jnp.log(-jnp.log1p(-rank)) - jnp.log(value(self.rho0) * self.dt))

    def _log_expected(self, u: Array) -> Array:
        """Returns the log of the expected number of spikes in a step, held below what overflows."""
        return jnp.minimum(u / value(self.width) + jnp.log(value(self.rho0) * self.dt), SATURATION)


@jax.custom_jvp
def _at_least_one(log_expected: Array) -> Array:
    return -jnp.expm1(-jnp.exp(log_expected))


@_at_least_one.defjvp
def _at_least_one_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # written out for speed; the probability itself is then dead code where only its slope is used
    (a,), (a_dot,) = primals, tangents
    return _at_least_one(a), jnp.exp(a - jnp.exp(a)) * a_dot


def _log_at_least_one(a: Array) -> Array:
    """Returns log(1 - exp(-x)) for x = e^a, with the branch not taken held where its slope is finite."""
    x = jnp.exp(a)
    rare, sure = a < -6, a > 0
    small = jnp.where(rare, x, 0.0)
    few = a - small / 2 + small**2 / 24
    some = jnp.log(-jnp.expm1(-jnp.where(rare | sure, 1.0, x)))
    many = jnp.log1p(-jnp.exp(-jnp.where(sure, x, 1.0)))
    return jnp.where(rare, few, jnp.where(sure, many, some))
