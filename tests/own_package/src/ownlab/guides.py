"""A guide of one's own: normal weights that share one width a parameter, written against the protocol alone."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints


class Shared:
    def __init__(self, width=0.02):
        self.width = width

    def prior(self, weights, kl_weight):
        drawn = {}
        for name, value in weights.initial.items():
            prior = weights.of(name)
            if prior is None:
                drawn[name] = numpyro.param(name, value)
                continue
            with numpyro.handlers.scale(scale=kl_weight):
                drawn[name] = numpyro.sample(name, prior)
        return drawn

    def posterior(self, weights, kl_weight, key):
        drawn = {}
        for index, (name, value) in enumerate(weights.initial.items()):
            if weights.of(name) is None:
                continue
            loc = numpyro.param(f"{name}.loc", value)
            width = numpyro.param(f"{name}.width", jnp.asarray(self.width), constraint=constraints.positive)
            with numpyro.handlers.scale(scale=kl_weight):
                drawn[name] = numpyro.sample(
                    name, dist.Normal(loc, width).to_event(value.ndim), rng_key=jax.random.fold_in(key, index)
                )
        return drawn

    def centre(self, weights, params):
        return {name: params.get(f"{name}.loc", params.get(name)) for name in weights.initial}

    def constraints(self, weights):
        return {f"{name}.width": constraints.positive for name in weights.initial}
