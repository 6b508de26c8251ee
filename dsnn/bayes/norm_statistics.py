"""Normalisation statistics of the decided network, and of the whole one, measured anew once learning is over.

Those that the learner keeps are averages over draws of weights and gates, most of which are not the network that is
deployed: posterior means, decided gates, no noise. Its own are measured over examples that it learned from, and are
folded into its kernels (`dsnn.deploy`). So are those of the network whose every site runs, which it is held to: by
the decided one's, whose channels have less to read, it would fire more than it ever does. The predictive goes on with
the learner's.
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

__all__ = ["BATCHES", "DECIDED", "WHOLE", "decided", "measured_anew", "whole"]

DECIDED = "decided."
"""What the names of the decided network's statistics have in front, among the parameters of a guide."""

WHOLE = "whole."
"""The same of the network whose every site runs."""

BATCHES, ROWS = 32, 256
"""Batches that are looked at, at most, and examples in each."""


def decided(params: Params) -> Params:
    """Returns the decided network's statistics among a guide's parameters, by the network's names."""
    return _under(DECIDED, params)


def whole(params: Params) -> Params:
    """Returns those of the network whose every site runs; none where no site could be spared."""
    return _under(WHOLE, params)


def _under(start: str, params: Params) -> Params:
    return {name.removeprefix(start): value for name, value in params.items() if name.startswith(start + STATISTICS)}


def measured_anew(simulator: Simulator, networks: dict[str, Params], x: Features, key: Key[Array, ""]) -> Params:
    """Returns the statistics of networks over the same examples, by their names among a guide's parameters.

    Means and variances are those of all examples that are looked at, `BATCHES` of `ROWS` of them at most, drawn without
    replacement; every norm sees what the norms before it give of the same batch.

    Args:
        simulator: how examples run; its neurons have no noise here.
        networks: parameters of each, by what its statistics' names have in front.
        x: examples.
        key: chooses among them, and drives encodings that draw; consumed.
    """
    rows = min(ROWS, len(x))
    order = np.asarray(jax.random.permutation(stream(key, "data"), len(x)))[: rows * min(BATCHES, len(x) // rows)]

    @jax.jit
    def of_batch(network: Params, batch: Array, key: Key[Array, ""]) -> Params:
        return _still(simulator).trained(network, batch, key, measuring)[1]

    found: dict[str, list[Any]] = {start: [] for start in networks}
    for number, chosen in enumerate(order.reshape(-1, rows)):
        batch, own = jnp.asarray(x[np.sort(chosen)]), stream(key, "noise", number)
        for start, network in networks.items():
            found[start].append(jax.device_get(of_batch(network, batch, own)))
    begun = simulator.template.statistics
    return {
        start + name: jnp.asarray(value, begun[name].dtype)
        for start, batches in found.items()
        for name, value in _together(batches).items()
    }


def _together(found: list[Any]) -> dict[str, np.ndarray]:
    """Returns the statistics of all batches: their means, and of variances the variance of the means on top."""
    every = {name: np.stack([one[name] for one in found]).astype(np.float64) for name in found[0]}
    means = {name: values.mean(0) for name, values in every.items()}
    for name in means:
        beside = name.removesuffix("variance") + "mean"
        if name.endswith(".variance") and beside in every:
            means[name] = means[name] + every[beside].var(0)
    return means


def _still(simulator: Simulator) -> Simulator:
    """Returns a simulator whose neurons have no noise, in the form that trains."""
    return dataclasses.replace(simulator, stochastic=False, schedule="auto", memory="full")
