"""Normalisation statistics of the decided network, measured anew once learning is over.

Those that the learner keeps are averages over draws of weights and gates, most of which are not the network that is
deployed: posterior means, decided gates, no noise. Its own are measured over examples that it learned from, and are
folded into its kernels (`dsnn.deploy`). The predictive goes on with the learner's.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.data.split import Features
from dsnn.networks.norms import measuring
from dsnn.parameters import STATISTICS, Params
from dsnn.rng import stream
from dsnn.simulate.simulator import Simulator
from dsnn.types import Array, Key

__all__ = ["BATCHES", "DECIDED", "decided", "measured_anew"]

DECIDED = "decided."
"""What the names of the decided network's statistics have in front, among the parameters of a guide."""

BATCHES, ROWS = 32, 256
"""Batches that are looked at, at most, and examples in each."""


def decided(params: Params) -> Params:
    """Returns the decided network's statistics among a guide's parameters, by the network's names."""
    start = DECIDED + STATISTICS
    return {name.removeprefix(DECIDED): value for name, value in params.items() if name.startswith(start)}


def measured_anew(simulator: Simulator, network: Params, x: Features, key: Key[Array, ""]) -> Params:
    """Returns the statistics of a network over examples, by their names among a guide's parameters.

    Means and variances are those of all examples that are looked at, `BATCHES` of `ROWS` of them at most, drawn without
    replacement; every norm sees what the norms before it give of the same batch.

    Args:
        simulator: how examples run; its neurons have no noise here.
        network: its parameters.
        x: examples.
        key: chooses among them, and drives encodings that draw; consumed.
    """
    rows = min(ROWS, len(x))
    order = np.asarray(jax.random.permutation(stream(key, "data"), len(x)))[: rows * min(BATCHES, len(x) // rows)]

    @jax.jit
    def of_batch(network: Params, batch: Array, key: Key[Array, ""]) -> Params:
        return _still(simulator).trained(network, batch, key, measuring)[1]

    found: list[Any] = [
        jax.device_get(of_batch(network, jnp.asarray(x[np.sort(chosen)]), stream(key, "noise", number)))
        for number, chosen in enumerate(order.reshape(-1, rows))
    ]
    every = {name: np.stack([one[name] for one in found]).astype(np.float64) for name in found[0]}
    means = {name: values.mean(0) for name, values in every.items()}
    for name in means:  # the variance of all is the mean of the batches' and the variance of their means
        beside = name.removesuffix("variance") + "mean"
        if name.endswith(".variance") and beside in every:
            means[name] = means[name] + every[beside].var(0)
    begun = simulator.template.statistics
    return {DECIDED + name: jnp.asarray(value, begun[name].dtype) for name, value in means.items()}


def _still(simulator: Simulator) -> Simulator:
    """Returns a simulator whose neurons have no noise, in the form that trains."""
    return dataclasses.replace(simulator, stochastic=False, schedule="auto", memory="full")
