"""Counts: the outputs are log rates, and a mixture of Poisson distributions is predicted."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import tasks


class Poisson:
    def log_prob(self, own, outputs, y):
        return jax.scipy.stats.poisson.logpmf(y, jnp.exp(outputs)).sum(-1)


class Rates(NamedTuple):
    rate: jax.Array
    """Mean of the predictive, ``[n, count]``."""

    draws: jax.Array
    """Rates under each draw, ``[n, sample, count]``."""


class Counts:
    best = {"deviance": False}  # noqa: RUF012 - never changed

    def __init__(self, most=1e6):
        self.most = most

    def likelihood(self):
        return Poisson()

    def predict(self, bayesian, params, x, key, samples):
        rates = jnp.exp(tasks.outputs(bayesian, params, x, key, samples))
        return Rates(rates.mean(0), jnp.moveaxis(rates, 0, 1))

    def scores(self, prediction, y):
        rates = np.asarray(prediction.draws, float)
        each = jax.scipy.stats.poisson.logpmf(y[:, None], rates).sum(-1)
        log_prob = jax.nn.logsumexp(each, 1) - np.log(rates.shape[1])
        return {"nll": -float(log_prob.mean()), "deviance": deviance(prediction.rate, y)}

    def check(self, y):
        if (y < 0).any() or (y > self.most).any() or (y % 1 != 0).any():
            odd = y[(y < 0) | (y > self.most) | (y % 1 != 0)].flat[0]
            raise ValueError(f"counts must be whole numbers from 0 to {self.most:g}, got {odd}; count again.")

    def deployed(self, outputs, y):
        return {"deviance": deviance(np.exp(outputs), y)}

    def draw(self, own, outputs, key):
        return jax.random.poisson(key, jnp.exp(outputs))


class Bare:
    """The same with nothing but what a task must have."""

    def likelihood(self):
        return Poisson()

    def predict(self, bayesian, params, x, key, samples):
        return {"rate": jnp.exp(tasks.outputs(bayesian, params, x, key, samples)).mean(0)}

    def scores(self, prediction, y):
        return {"deviance": deviance(prediction["rate"], y)}


def deviance(rate, y):
    rate, y = np.asarray(rate, float), np.asarray(y, float)
    logs = np.where(y > 0, y * np.log(np.maximum(y, 1) / rate), 0.0)
    return float(2 * (logs - (y - rate)).mean())
