"""Values of few bits in a network of values, whose steps begin at what it gives for some of the data."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from dsnn.cells import QuantisedReLU, ReLU
from dsnn.networks.stack import Stack
from dsnn.types import Array

__all__ = ["SEEN", "in_few_bits"]

SEEN = 128
"""Examples that are looked at."""


def in_few_bits(model: Any, inputs: Callable[[], Array], bits: int, *, held: bool) -> Any:
    """Returns a stack whose ReLU give values of few bits; what has none is returned as it is.

    Each layer's step begins at the least power of two with which its largest value of these inputs is not cut off, and
    is learned from there.

    Args:
        model: at its own initialisation, whose parameters may be traced.
        inputs: gives some, encoded, held ``[batch, ...]`` or ``[time, batch, ...]``; not called where nothing needs it.
        bits: of each value.
        held: whether the input was held.
    """
    if not isinstance(model, Stack) or not any(type(layer.cell) is ReLU for _, layer in model.layers()):
        return model
    new, signal = nnx.clone(model), inputs()
    signal = signal if held else signal.reshape(-1, *signal.shape[2:])
    for _, layer in new.layers():
        given = layer.integrate(layer.init(len(signal)), layer.drive(signal))[1]
        if type(layer.cell) is ReLU:
            largest = jnp.maximum(given.max(), 1e-30)
            layer.cell = QuantisedReLU(bits, jnp.ceil(jnp.log2(largest / (2**bits - 1)) - 1e-6))
        signal = layer.sent(signal, given)
    return new
