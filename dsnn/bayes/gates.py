"""Gate families: distributions over z in [0, 1] per compute site, with open probability and entropy in closed form.

One contract: a family is a NumPyro distribution with ``open_probability``, ``entropy_of_opening()`` and
``decision()``. Against `OpenOrClosed`, the uniform base measure of the Gibbs energy prior, their Kullback-Leibler
divergence is registered in closed form, so `TraceMeanField_ELBO` uses it; the energy itself is a factor of the model.
"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from multipledispatch import dispatch
from numpyro.distributions import constraints
from numpyro.distributions.kl import kl_divergence as _kl_divergence

from dsnn.types import Array, Float, Key

STRETCH = (-0.1, 1.1)
TEMPERATURE = 2 / 3


def bernoulli_entropy(logit: Float[Array, "*site"]) -> Float[Array, "*site"]:
    """Returns the entropy in nats of Bernoulli(sigmoid(logit)), stable at both ends."""
    p = jax.nn.sigmoid(logit)
    return p * jax.nn.softplus(-logit) + (1 - p) * jax.nn.softplus(logit)


class OpenOrClosed(dist.Distribution):
    """The uniform base measure over {closed, open} at every site, to which the Gibbs factor exp(-λ E(z)) is added."""

    support = constraints.unit_interval

    def __init__(self, sites: int, *, validate_args: bool | None = None):
        super().__init__(event_shape=(sites,), validate_args=validate_args)

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """Returns fair coin flips; the key is consumed."""
        return jax.random.bernoulli(key, 0.5, sample_shape + self.event_shape).astype(jnp.float32)

    def log_prob(self, value: Float[Array, "*sample site"]) -> Array:
        """Returns -log 2 per site."""
        return jnp.full(value.shape[:-1], -math.log(2.0) * self.event_shape[0])


class HardConcrete(dist.Distribution):
    """The hard concrete gate: a stretched binary concrete, clipped to [0, 1] (Louizos et al. 2018, eqs. 10 to 12).

    s = sigmoid((log u - log(1 - u) + log_alpha) / T),  z = clip(s (ζ - γ) + γ, 0, 1);
    P(z > 0) = sigmoid(log_alpha - T log(-γ / ζ)).

    Args:
        log_alpha: location per site.
        temperature: T, 2/3 as published.
    """

    arg_constraints: ClassVar = {"log_alpha": constraints.real_vector}
    support = constraints.unit_interval
    reparametrized_params: ClassVar = ["log_alpha"]

    def __init__(
        self,
        log_alpha: Float[Array, " site"],
        temperature: float = TEMPERATURE,
        *,
        validate_args: bool | None = None,
    ):
        self.log_alpha, self.temperature = log_alpha, temperature
        super().__init__(event_shape=jnp.shape(log_alpha)[-1:], validate_args=validate_args)

    @property
    def open_logit(self) -> Float[Array, " site"]:
        """Log odds that the gate is not exactly zero."""
        low, high = STRETCH
        return self.log_alpha - self.temperature * math.log(-low / high)

    @property
    def open_probability(self) -> Float[Array, " site"]:
        """Probability that the site runs."""
        return jax.nn.sigmoid(self.open_logit)

    def entropy_of_opening(self) -> Float[Array, " site"]:
        """Returns the entropy of "does the site run?" in nats."""
        return bernoulli_entropy(self.open_logit)

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """Returns relaxed gates with exact zeros and ones; the key is consumed."""
        noise = jax.random.logistic(key, sample_shape + self.event_shape)
        return self._stretch(jax.nn.sigmoid((noise + self.log_alpha) / self.temperature))

    def decision(self) -> Float[Array, " site"]:
        """Returns the gates of the deterministic network: zero unless the site more likely runs than not."""
        z = self._stretch(jax.nn.sigmoid(self.log_alpha))
        return jnp.where(self.open_logit > 0, z, 0.0)

    def log_prob(self, value: Float[Array, "*sample site"]) -> Array:
        """Returns the log probability of the opened and closed sites that ``value`` shows."""
        signed = jnp.where(value > 0, self.open_logit, -self.open_logit)
        return jax.nn.log_sigmoid(signed).sum(-1)

    def _stretch(self, s: Array) -> Array:
        low, high = STRETCH
        return jnp.clip(s * (high - low) + low, 0.0, 1.0)


def log_alpha_for(probability: float, temperature: float = TEMPERATURE) -> float:
    """Returns the location at which a hard concrete gate is open with this probability."""
    if not 0 < probability < 1:
        raise ValueError(f"an initial open probability must be in (0, 1), got {probability}.")
    low, high = STRETCH
    return math.log(probability / (1 - probability)) + temperature * math.log(-low / high)


@dispatch(HardConcrete, OpenOrClosed)
def kl_divergence(q, p):  # type: ignore[no-untyped-def]
    """KL(q || uniform over {closed, open}) = sites log 2 - H(q)."""
    return p.event_shape[0] * math.log(2.0) - q.entropy_of_opening().sum(-1)


# multipledispatch joins functions of one name; NumPyro's dispatcher must now know ours
assert kl_divergence is _kl_divergence
