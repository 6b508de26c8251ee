"""Strided convolutions over time: a sequence read as one image whose height is time (as Bai et al. 2018, strided)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax

from dsnn.cells import LI, ReLU
from dsnn.networks.layers import Conv, Dense, Layer
from dsnn.networks.stack import Stack, check_widths
from dsnn.types import Array, Key

__all__ = ["tconv"]


def tconv(
    in_shape: tuple[int, ...],
    classes: int,
    *,
    key: Key[Array, ""],
    cell: Callable[[int], Any] | None = None,
    channels: Sequence[int] = (16, 32),
    window: int = 5,
    stride: int = 2,
) -> Stack:
    """Returns convolutions over time, each with a stride, and a dense readout of all places that are left.

    Args:
        in_shape: (time, 1, feature) of a sequence as one input, what ``data.view=whole`` gives.
        classes: number of outputs.
        key: initialises the kernels; consumed.
        cell: a function ``neurons -> cell``; None is `dsnn.cells.ReLU`.
        channels: of each convolution.
        window: steps that a convolution sees.
        stride: steps that it moves by.

    Raises:
        ValueError: no sequence in one piece, or a number that is not positive.
    """
    if len(in_shape) != 3 or in_shape[1] != 1:
        raise ValueError(f"tconv reads (time, 1, feature), got {tuple(in_shape)}; set data.view=whole.")
    if window < 1 or stride < 1 or not channels:
        raise ValueError(f"tconv needs channels, and window and stride of 1 or more, got {channels, window, stride}.")
    check_widths(tuple(channels))
    keys = jax.random.split(key, len(channels) + 1)
    layers, shape = {}, tuple(in_shape)
    for number, count in enumerate(channels):
        conv = Conv(shape, count, key=keys[number], window=(window, 1), strides=(stride, 1), gain=math.sqrt(2.0))  # type: ignore[arg-type]
        layers[f"conv{number}"] = Layer(conv, ReLU() if cell is None else cell(count))
        shape = conv.out_shape
    last = Dense(shape, classes, key=keys[-1])
    return Stack("last", **layers, readout=Layer(last, LI(beta=0.0)))
