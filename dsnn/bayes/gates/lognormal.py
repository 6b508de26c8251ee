"""Log-normal multiplicative noise, the published baseline of structured Bayesian pruning (Neklyudov et al. 2017).

Each site's output is multiplied by θ. The posterior is a log-normal and the prior log-uniform, both truncated to
log θ in [-20, 0]. The divergence alone presses sites shut; a site is kept while its signal is larger than its noise.
"""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from multipledispatch import dispatch
from numpyro.distributions import constraints
from numpyro.distributions.kl import kl_divergence as _kl_divergence

from dsnn.bayes.gates.contract import Family, bernoulli_entropy, unscored
from dsnn.bayes.gates.truncated import Truncated, exponential_moments, from_uniform, log_mass, quantile, truncated
from dsnn.types import Array, Float, Key

LOW, HIGH = -20.0, 0.0
START_LOG_SIGMA = -5.0
SHARPEST = 1e6
"""Signal over noise of a site that is surely kept; more makes no difference to a decision."""


class TruncatedLogUniform(dist.Distribution):
    """The prior, log θ ~ Uniform(-20, 0) at every site."""

    support = constraints.unit_interval

    def __init__(self, sites: int, *, validate_args: bool | None = None):
        super().__init__(event_shape=(sites,), validate_args=validate_args)

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """Returns draws; the key is consumed."""
        return jnp.exp(jax.random.uniform(key, sample_shape + self.event_shape, minval=LOW, maxval=HIGH))

    def log_prob(self, value: Float[Array, "*sample site"]) -> Array:
        """Raises ValueError: only the divergence from it is used, see `unscored`."""
        return unscored(value)


class LogNormalNoise(dist.Distribution):
    """θ with log θ ~ Normal(mu, sigma²) truncated to [-20, 0] (Neklyudov et al. 2017, eqs. 9 to 13).

    A site has no probability of being open: it is kept where E[θ] > sd[θ]. `open_probability` is the score
    r / (1 + r) of that signal-to-noise ratio r, which crosses one half where the decision does.

    Args:
        mu: location of log θ per site.
        sigma: its scale, positive.
    """

    arg_constraints: ClassVar = {"mu": constraints.real_vector, "sigma": constraints.positive}
    support = constraints.unit_interval
    reparametrized_params: ClassVar = ["mu", "sigma"]

    def __init__(self, mu: Float[Array, " site"], sigma: Float[Array, " site"], *, validate_args: bool | None = None):
        self.mu, self.sigma = mu, sigma
        super().__init__(event_shape=jnp.shape(mu)[-1:], validate_args=validate_args)

    @property
    def log(self) -> Truncated:
        """The distribution of log θ."""
        return truncated(self.mu, self.sigma, LOW, HIGH)

    @property
    def signal_to_noise(self) -> Float[Array, " site"]:
        """E[θ] / sd[θ], at most `SHARPEST`."""
        _, noise = exponential_moments(self.log)
        return jnp.maximum(noise, SHARPEST**-2) ** -0.5

    @property
    def open_probability(self) -> Float[Array, " site"]:
        """The score of the decision, see the class; not a probability."""
        ratio = self.signal_to_noise
        return ratio / (1 + ratio)

    def entropy_of_opening(self) -> Float[Array, " site"]:
        """Returns the entropy of a Bernoulli variable with the score in place of a probability, in nats."""
        return bernoulli_entropy(jnp.log(self.signal_to_noise))

    def decision(self) -> Float[Array, " site"]:
        """Returns E[θ] where the signal exceeds the noise, else zero."""
        return jnp.where(self.signal_to_noise > 1, jnp.exp(exponential_moments(self.log)[0]), 0.0)

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """Returns draws of θ; the key is consumed."""
        tiny = jnp.finfo(jnp.float32).eps
        u = jax.random.uniform(key, sample_shape + self.event_shape, minval=tiny, maxval=1 - tiny)
        return jnp.exp(jnp.clip(quantile(self.log, u), LOW, HIGH))

    def log_prob(self, value: Float[Array, "*sample site"]) -> Array:
        """Returns the log density."""
        log, q = jnp.log(value), self.log
        kernel = q.log_kernel((log - q.mode) / q.sigma)
        return (kernel - log_mass(q) - jnp.log(q.sigma) - log).sum(-1)

    def divergence(self) -> Float[Array, " site"]:
        """Returns KL(q || log-uniform) per site in nats (eq. 12)."""
        return from_uniform(self.log)


LOG_NORMAL = Family(
    "lognormal",
    lambda sites, p: {"mu": jnp.zeros(sites), "log_sigma": jnp.full(sites, START_LOG_SIGMA)},
    lambda own: LogNormalNoise(own["mu"], jnp.exp(own["log_sigma"])),
    TruncatedLogUniform,
    # open: θ = 1; closed: pressed against the lower end, where the mean is 1e-8 and the noise larger
    lambda opened: {
        "mu": jnp.where(opened, 0.0, -30.0),
        "log_sigma": jnp.where(opened, -6.0, math.log(3.0)),
    },
)


@dispatch(LogNormalNoise, TruncatedLogUniform)
def kl_divergence(q, p):  # type: ignore[no-untyped-def]
    """KL(q || p), summed over sites."""
    return q.divergence().sum(-1)


assert kl_divergence is _kl_divergence
