"""Gates that are Bernoulli variables: exactly discrete, or relaxed to the concrete distribution while learning."""

import itertools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from multipledispatch import dispatch
from numpyro.distributions import constraints
from numpyro.distributions.kl import kl_divergence as _kl_divergence

from dsnn.bayes.gates.contract import SURE, Family, OpenOrClosed, bernoulli_entropy, divergence, log_odds
from dsnn.types import Array, Float, Key

TEMPERATURE = 2 / 3
ENUMERATED = 8
"""Most sites whose settings are all summed: 2^8 passes of the network."""


class Bernoulli(dist.Distribution):
    """Discrete gates, z ~ Bernoulli(sigmoid(logit)): what the relaxed families approximate.

    There is no pathwise gradient. `dsnn.bayes.gate_posterior` sums over all settings of at most `ENUMERATED` sites, and
    takes the ARM estimator (`antithetic`) for more; both are unbiased.

    Args:
        logit: log odds that the site runs.
    """

    arg_constraints: ClassVar = {"logit": constraints.real_vector}
    support = constraints.unit_interval

    def __init__(self, logit: Float[Array, " site"], *, validate_args: bool | None = None):
        self.logit = logit
        super().__init__(event_shape=jnp.shape(logit)[-1:], validate_args=validate_args)

    @property
    def open_probability(self) -> Float[Array, " site"]:
        """Probability that the site runs."""
        return jax.nn.sigmoid(self.logit)

    def entropy_of_opening(self) -> Float[Array, " site"]:
        """Returns the entropy of "does the site run?" in nats."""
        return bernoulli_entropy(self.logit)

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """Returns zeros and ones; the key is consumed."""
        return jax.random.bernoulli(key, self.open_probability, sample_shape + self.event_shape).astype(jnp.float32)

    def decision(self) -> Float[Array, " site"]:
        """Returns one where the site more likely runs than not, else zero."""
        return (self.logit > 0).astype(jnp.float32)

    def log_prob(self, value: Float[Array, "*sample site"]) -> Array:
        """Returns the log probability of the opened and closed sites that ``value`` shows."""
        return jax.nn.log_sigmoid(jnp.where(value > 0, self.logit, -self.logit)).sum(-1)


class Concrete(dist.Distribution):
    """Relaxed Bernoulli gates, z = sigmoid((log u - log(1 - u) + logit) / T) (Maddison et al. 2017, eq. 1).

    While learning a gate is never exactly zero; the network that is decided has exact zeros and ones.

    Args:
        logit: log odds that the site runs; P(z > 1/2) = sigmoid(logit) at every temperature.
        temperature: T, 2/3 as published.
    """

    arg_constraints: ClassVar = {"logit": constraints.real_vector}
    support = constraints.unit_interval
    reparametrized_params: ClassVar = ["logit"]

    def __init__(
        self, logit: Float[Array, " site"], temperature: float = TEMPERATURE, *, validate_args: bool | None = None
    ):
        self.logit, self.temperature = logit, temperature
        super().__init__(event_shape=jnp.shape(logit)[-1:], validate_args=validate_args)

    @property
    def open_probability(self) -> Float[Array, " site"]:
        """Probability that the site runs, of the Bernoulli variable that is relaxed."""
        return jax.nn.sigmoid(self.logit)

    def entropy_of_opening(self) -> Float[Array, " site"]:
        """Returns the entropy of "does the site run?" in nats."""
        return bernoulli_entropy(self.logit)

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """Returns relaxed gates in (0, 1); the key is consumed."""
        noise = jax.random.logistic(key, sample_shape + self.event_shape)
        return jax.nn.sigmoid((noise + self.logit) / self.temperature)

    def decision(self) -> Float[Array, " site"]:
        """Returns one where the site more likely runs than not, else zero."""
        return (self.logit > 0).astype(jnp.float32)

    def log_prob(self, value: Float[Array, "*sample site"]) -> Array:
        """Returns the log probability of the opened and closed sites, of the Bernoulli variable that is relaxed."""
        return jax.nn.log_sigmoid(jnp.where(value > 0.5, self.logit, -self.logit)).sum(-1)


def every_setting(sites: int) -> Float[Array, "setting site"]:
    """Returns all 2^sites settings of discrete gates."""
    return jnp.asarray(np.array(list(itertools.product((0.0, 1.0), repeat=sites)), np.float32))


def antithetic(
    logit: Float[Array, " site"], z: Float[Array, " site"], key: Key[Array, ""]
) -> tuple[Float[Array, " site"], Float[Array, " site"]]:
    """Returns the other setting of a draw z ~ Bernoulli, and the weights of the ARM gradient (Yin & Zhou 2019, eq. 4).

    With u ~ Uniform(0, 1) given z = 1[u > sigmoid(-logit)], the other setting is 1[u < sigmoid(logit)], and the
    gradient of E[f(z)] in the log odds is E[(f(z) - f(other)) (u - 1/2)]. The key is consumed.
    """
    logit, closed = jax.lax.stop_gradient(logit), jax.lax.stop_gradient(jax.nn.sigmoid(-logit))
    share = jax.random.uniform(key, jnp.shape(logit))
    u = jnp.where(z > 0, closed + (1 - closed) * share, closed * share)
    return (u < jax.nn.sigmoid(logit)).astype(jnp.float32), u - 0.5


def _initial(sites: int, probability: float) -> dict[str, Array]:
    return {"logit": jnp.full(sites, log_odds(probability))}


def _decided(opened: Array) -> dict[str, Array]:
    return {"logit": jnp.where(opened, SURE, -SURE)}


BERNOULLI = Family("bernoulli", _initial, lambda own: Bernoulli(own["logit"]), OpenOrClosed, _decided, discrete=True)
CONCRETE = Family("concrete", _initial, lambda own: Concrete(own["logit"]), OpenOrClosed, _decided, shut=0.5)


@dispatch((Bernoulli, Concrete), OpenOrClosed)
def kl_divergence(q, p):  # type: ignore[no-untyped-def]
    """KL(q || uniform over {closed, open})."""
    return divergence(q, p)


assert kl_divergence is _kl_divergence
