"""Gates with a logistic relaxation at a temperature of one's own, over the uniform measure of open and closed."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints

from dsnn.bayes.gates import OpenOrClosed, bernoulli_entropy


class Soft(dist.Distribution):
    support = constraints.unit_interval

    def __init__(self, logit, validate_args=None):
        self.logit = logit
        super().__init__(event_shape=logit.shape, validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        noise = jax.random.logistic(key, sample_shape + self.event_shape)
        return jax.nn.sigmoid((self.logit + noise) / 0.5)

    @property
    def open_probability(self):
        return jax.nn.sigmoid(self.logit)

    def entropy_of_opening(self):
        return bernoulli_entropy(self.logit)

    def decision(self):
        return (self.logit > 0).astype(jnp.float32)


class SoftGates:
    shut = 0.5

    def initial(self, sites, open_probability):
        return {"logit": jnp.full(sites, jnp.log(open_probability / (1 - open_probability)))}

    def posterior(self, params):
        return Soft(params["logit"])

    def base(self, sites):
        return OpenOrClosed(sites)

    def decided(self, opened):
        return {"logit": jnp.where(opened, 20.0, -20.0)}
