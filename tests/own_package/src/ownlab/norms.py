"""A norm by the mean size of the currents of each channel, with a learned scale, and a network that has it."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from dsnn.cells import LI
from dsnn.networks import Dense, Layer, Stack
from dsnn.protocols import Normalised


class SizeNorm(nnx.Module):
    """y = scale I / (mean |I| over time and batch, and a little)."""

    def __init__(self, features, momentum=0.8):
        self.momentum = momentum
        self.scale = nnx.Param(jnp.ones(features))
        self.size = nnx.BatchStat(jnp.ones(features))

    def __call__(self, currents, steps=None):
        return currents * (self.scale[...] / self.size[...])

    def trained(self, currents, weights=None, steps=None):
        size = jnp.abs(currents).mean(tuple(range(currents.ndim - 1))) + 1e-3
        kept = self.momentum * self.size[...] + (1 - self.momentum) * jax.lax.stop_gradient(size)
        return Normalised(currents * (self.scale[...] / size), {"size": kept})

    def folded(self, synapse: Any):
        new = nnx.clone(synapse)
        factor = self.scale[...] / self.size[...]
        new.kernel = nnx.Param(synapse.kernel[...] * factor)
        new.bias = nnx.Param(synapse.bias[...] * factor)
        return new, None


def normed(in_shape, classes, *, key, cell, width=8):
    first, last = jax.random.split(key)
    return Stack(
        hidden=Layer(Dense(in_shape, width, key=first), cell(width), norm=SizeNorm(width)),
        readout=Layer(Dense(width, classes, key=last), LI(0.9)),
    )
