"""From weighted units to a `Stack` of integrate-and-fire neurons, one time step of which is one pass of spikes.

With the limit λ_l of layer l's activations, its neurons have threshold 1 and the weights W λ_{l-1} / λ_l and b / λ_l
(Diehl et al. 2015, Rueckauer et al. 2017, eq. 6): a rate of one spike per step stands for the activation λ_l.

A residual path needs no other network than a chain: neurons with one weight of 1 and threshold 1 relay their input's
spikes within the same step past the layers of the body, and the path's own weights stand beside the last layer's.

The largest of rates is one too: max(a, b) = relu(a - b) + b, so two layers of neurons with weights of 1 and -1 pool
2 x 2 rates by their maximum. The alternative, a logical or of spikes, costs no neuron and overestimates.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.cells import IF, LI, SignedIF
from dsnn.convert.units import Unit
from dsnn.networks.layers import Conv, Dense, Layer, Pool
from dsnn.networks.stack import Stack

MAX_POOLS = ("exact", "or")
Cell = Callable[[int], Any]


def integrate_and_fire(
    start: float | int = 0.0, surrogate: Any = None, noise: Any = None, *, signed: bool = False
) -> Cell:
    """Returns what makes the neurons of a converted layer: perfect integrators, reset by subtraction.

    Args:
        start: membrane before the first step, in units of the threshold.
        surrogate: for training on, see `dsnn.cells.LIF`.
        noise: escape noise, see `dsnn.escape`.
        signed: whether they may take a spike back, see `dsnn.cells.SignedIF`.

    Raises:
        ValueError: noise for signed neurons.
    """
    if signed:
        if noise is not None:
            raise ValueError("signed neurons are deterministic, got escape noise; leave one of the two out.")
        return lambda neurons: SignedIF(rest=start, surrogate=surrogate)
    return lambda neurons: IF(threshold=1.0, compare=">=", rest=start, surrogate=surrogate, noise=noise)


def to_stack(
    units: Sequence[Unit], limits: Sequence[float | int], in_shape: tuple[int, ...], cell: Cell, max_pool: str = "exact"
) -> Stack:
    """Returns the spiking network of the units; its logits are the mean current of the outputs over time.

    Args:
        units: from `read`.
        limits: λ of every unit but the last.
        in_shape: shape of one input.
        cell: makes the neurons of a layer from their number (channels of a convolution).
        max_pool: "exact" pools by layers of neurons (named "pool..."), "or" by the logical or of spikes.

    Raises:
        ValueError: shapes that do not fit, or max pooling that is not 2 x 2.
    """
    if max_pool not in MAX_POOLS:
        raise ValueError(f"max_pool must be one of {', '.join(MAX_POOLS)}, got {max_pool!r}.")
    layers: dict[str, Layer] = {}
    shape, scale, relay = in_shape, np.ones(in_shape[-1]), np.zeros(0)
    for index, unit in enumerate(units):
        last = index == len(units) - 1
        before: list[Pool] = []
        for pool in unit.before:
            if pool.kind == "max" and max_pool == "exact" and layers:
                if unit.opens:
                    raise ValueError('max pooling right before a residual path is not exact; take max_pool="or".')
                layers |= _max_pool(f"pool{index}", pool, before, cell)
                unit, before, scale = _doubled(unit), [], np.concatenate([scale, scale])
                shape = (*pool.out_shape[:2], 2 * pool.out_shape[2])
            else:
                before.append(pool)
                shape = pool.out_shape
        inside = unit.opens or len(relay) > 0
        if unit.opens:
            relay = scale
        ends = unit.shortcut is not None
        full, bias = _kernel(unit, len(relay) if inside else 0, shape)
        limit = np.full(unit.kernel.shape[-1], 1.0 if last else limits[index])
        out = np.concatenate([limit, relay]) if inside and not ends else limit
        kernel = full * np.tile(scale, full.shape[-2] // len(scale))[:, None] / out
        name = "readout" if last else f"hidden{index}" if unit.dense else f"conv{index}"
        synapse: Any
        if unit.dense:
            synapse = Dense(shape, len(out), key=jax.random.key(0))
        else:
            synapse = Conv(
                _image(shape, name),
                len(out),
                key=jax.random.key(0),
                window=tuple(full.shape[:2]),
                strides=unit.strides,
                padding=unit.padding,
            )
        if kernel.shape != synapse.kernel.shape:
            raise ValueError(f"layer {name} must take {kernel.shape[-2]} inputs, got {shape}; check in_shape.")
        synapse.kernel[...] = jnp.asarray(kernel, jnp.float32)
        synapse.bias[...] = jnp.asarray(np.concatenate([bias, np.zeros(len(out) - len(bias))]) / out, jnp.float32)
        layers[name] = Layer(synapse, LI(0.0) if last else cell(len(out)), before=tuple(before))
        shape, scale = synapse.out_shape, out
        relay = relay if inside and not ends else np.zeros(0)
    return Stack("mean", **layers)


def _max_pool(name: str, pool: Pool, before: list[Pool], cell: Cell) -> dict[str, Layer]:
    """Returns the two layers whose last 2 C channels add up to the maximum of each window, channel c and C + c."""
    if tuple(pool.window) != (2, 2):
        raise ValueError(f'exact max pooling is 2 x 2, got {pool.window}; take max_pool="or".')
    channels, one = pool.in_shape[2], np.eye(pool.in_shape[2])
    pairs = np.zeros((2, 2, channels, 4 * channels))
    for column in range(2):  # relu(upper - lower) and lower, for the left and the right column
        start = 2 * column * channels
        pairs[0, column, :, start : start + channels] = one
        pairs[1, column, :, start : start + channels] = -one
        pairs[1, column, :, start + channels : start + 2 * channels] = one
    none = np.zeros_like(one)
    both = np.block([[one, none], [one, none], [-one, one], [-one, one]])[None, None]
    key = jax.random.key(0)
    image = _image(pool.in_shape, name)
    first = Conv(image, 4 * channels, key=key, window=(2, 2), strides=(2, 2), padding="VALID", bias=False)
    second = Conv(first.out_shape, 2 * channels, key=key, window=(1, 1), bias=False)
    first.kernel[...], second.kernel[...] = jnp.asarray(pairs, jnp.float32), jnp.asarray(both, jnp.float32)
    return {
        f"{name}_pairs": Layer(first, cell(4 * channels), before=tuple(before)),
        f"{name}_max": Layer(second, cell(2 * channels)),
    }


def _doubled(unit: Unit) -> Unit:
    """Returns the unit that reads 2 C channels, of which channel c and C + c are to be added."""
    *lead, rows, neurons = unit.kernel.shape
    channels = unit.before[-1].out_shape[2]
    split = unit.kernel.reshape(*lead, rows // channels, channels, neurons)
    kernel = np.concatenate([split, split], -2).reshape(*lead, 2 * rows, neurons)
    return dataclasses.replace(unit, kernel=kernel)


def _image(shape: tuple[int, ...], name: str) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"{name} is a convolution and takes [height, width, channel], got {shape}.")
    return shape


def _kernel(unit: Unit, relayed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel and bias with the channels that are relayed, or that end here, beside the unit's own."""
    if not relayed:
        return unit.kernel, unit.bias
    ends = unit.shortcut is not None
    *window, inputs, neurons = unit.kernel.shape
    first = 0 if unit.opens else inputs  # the body's input is at once what is relayed
    full = np.zeros((*window, inputs if unit.opens else inputs + relayed, neurons if ends else neurons + relayed))
    full[..., :inputs, :neurons] = unit.kernel
    # where a SAME window with strides meets the input that a 1 x 1 window with these strides would read
    tap = tuple(
        max((-(-n // s) - 1) * s + w - n, 0) // 2 for n, w, s in zip(shape[:2], window, unit.strides, strict=False)
    )
    path = np.eye(relayed) if not ends or isinstance(unit.shortcut, str) else unit.shortcut
    target = slice(0, neurons) if ends else slice(neurons, neurons + relayed)
    full[(*tap, slice(first, first + relayed), target)] += path
    return full, unit.bias + (unit.shortcut_bias if ends else 0.0)
