"""The hard concrete gate: relaxed, with a pathwise gradient, and yet exactly zero and exactly one with probability."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from multipledispatch import dispatch
from numpyro.distributions import constraints
from numpyro.distributions.kl import kl_divergence as _kl_divergence

from dsnn.bayes.gates.contract import SURE, Family, OpenOrClosed, bernoulli_entropy, divergence, log_odds
from dsnn.types import Array, Float, Key

STRETCH = (-0.1, 1.1)
TEMPERATURE = 2 / 3


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
    low, high = STRETCH
    return log_odds(probability) + temperature * math.log(-low / high)


HARD_CONCRETE = Family(
    "hard_concrete",
    lambda sites, p: {"log_alpha": jnp.full(sites, log_alpha_for(p))},
    lambda own: HardConcrete(own["log_alpha"]),
    OpenOrClosed,
    lambda opened: {"log_alpha": jnp.where(opened, SURE, -SURE)},
)

MAGNITUDE = HARD_CONCRETE._replace(
    name="magnitude",
    initial=lambda sites, p: {"log_alpha": jnp.full(sites, SURE)},
    posterior=lambda own: HardConcrete(jax.lax.stop_gradient(own["log_alpha"])),
    by_magnitude=True,
)
"""Magnitude pruning, a control without inference: every site runs until some are decided by their weights."""

RANDOM = MAGNITUDE._replace(name="random", by_magnitude=False, at_random=True)
"""Random pruning, the control that any choice of sites has to beat: as many of them are decided by chance."""


@dispatch(HardConcrete, OpenOrClosed)
def kl_divergence(q, p):  # type: ignore[no-untyped-def]
    """KL(q || uniform over {closed, open})."""
    return divergence(q, p)


# multipledispatch joins functions of one name; NumPyro's dispatcher must now know ours
assert kl_divergence is _kl_divergence
