"""Layer by layer calibration of a converted network at the number of steps that it will run (Li et al. 2021)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.convert.limits import activations
from dsnn.escape.parameters import parameter, value
from dsnn.networks.stack import Stack
from dsnn.simulate.simulator import keep_spikes
from dsnn.simulate.unroll import unroll
from dsnn.types import Array


def rates(stack: Stack, inputs: Array, steps: int | None, key: Any = None) -> dict[str, Array]:
    """Returns every layer's mean output over time, ``[batch, ...]``.

    Args:
        stack: the network.
        inputs: held ``[batch, ...]`` for ``steps``, or ``[time, batch, ...]`` with steps None.
        steps: of a held input.
        key: drives stochastic neurons; consumed.
    """
    spikes = unroll(stack, inputs, key, keep_spikes, steps=steps)[2]
    return {name: s.mean(0) for name, s in spikes.items()}


def calibrate(
    model: nnx.Sequential, stack: Stack, limits: dict[str, float], x: Any, steps: int, *, potential: bool = False
) -> Stack:
    """Returns the network with biases that make its mean rates over the examples those of the activations.

    A layer is corrected once those before it are: its bias grows by the mean of activation / λ - rate of its channel
    ("light" calibration), or with ``potential`` the first membrane of every neuron by steps times its mean error,
    within (-1, 1) thresholds ("advanced", without their weight correction).

    Args:
        model: the deep network.
        stack: its conversion.
        limits: λ by layer.
        x: calibration examples ``[n, ...]``, a few hundred.
        steps: T.
        potential: corrects first membranes and not biases.
    """
    targets = dict(zip(limits, activations(model, x), strict=True))
    graph, state = nnx.split(stack)
    stack = nnx.merge(graph, jax.tree.map(jnp.copy, state))
    inputs = jnp.asarray(x)
    for name, limit in limits.items():
        layer = getattr(stack, name)
        wanted = targets[name] / limit
        channels = wanted.shape[-1]  # those beyond are relayed
        error = wanted - np.asarray(_rate(stack, inputs, steps, name))[..., :channels]
        if potential:
            shift = steps * error.mean(0)
            beyond = np.zeros((*shift.shape[:-1], layer.out_shape[-1] - channels))
            start = np.clip(value(layer.cell.rest) + np.concatenate([shift, beyond], -1), -0.99, 0.99)
            layer.cell.rest = nnx.data(parameter("rest", start, "real"))
        else:
            shift = error.reshape(-1, channels).mean(0)
            layer.synapse.bias[...] = layer.synapse.bias[...].at[:channels].add(shift)
    return stack


def _rate(stack: Stack, inputs: Array, steps: int, name: str) -> Array:
    graph, state = nnx.split(stack)
    return jax.jit(lambda s, i: rates(nnx.merge(graph, s), i, steps)[name])(state, inputs)
