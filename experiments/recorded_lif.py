"""A NumPyro model of one recorded neuron: a leaky integrate-and-fire cell whose every parameter is unknown."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from dsnn import escape
from dsnn.bayes.spike_train import SpikeTrain
from dsnn.cells import LIF
from dsnn.parameters import split
from dsnn.rng import root
from dsnn.types import Array, Float

PRIORS = {"tau": (10.0, 0.4), "threshold": (1.0, 0.3), "width": (0.2, 0.4), "weight": (0.3, 0.4)}


def fluctuating(steps: int = 400, memory: float = 0.8) -> Float[Array, " time"]:
    """Returns a fixed frozen-noise stimulus of 1 ms steps with mean 0.5, positive, correlated over a few steps."""
    noise = jax.random.normal(root(0), (steps,))
    _, slow = jax.lax.scan(lambda u, x: ((memory * u + (1 - memory**2) ** 0.5 * x),) * 2, jnp.zeros(()), noise)
    return jax.nn.softplus(0.5 + slow) * 0.5


def model(stimulus: Float[Array, " time"] | None = None) -> Callable[..., None]:
    """Returns ``model(data=None)``: time constant (ms), threshold, noise width and weight of the stimulus, LogNormal.

    Args:
        stimulus: input over time in 1 ms steps; None is `fluctuating`.
    """
    drive = fluctuating() if stimulus is None else stimulus
    noise = escape.Logistic(0.2, learnable=("width",))
    template, _ = split(LIF(tau=10.0, learnable=("tau", "threshold"), noise=noise))

    def spikes(data: Array | None = None) -> None:
        drawn = {n: numpyro.sample(n, dist.LogNormal(jnp.log(m), s)) for n, (m, s) in PRIORS.items()}
        params = {"tau": drawn["tau"], "threshold": drawn["threshold"], "noise.width": drawn["width"]}
        numpyro.sample("spikes", SpikeTrain(template, params, drawn["weight"] * drive), obs=data)

    return spikes
