"""VGG networks of spiking neurons (Simonyan & Zisserman 2015, table 1)."""

from collections.abc import Callable
from typing import Any

from dsnn.cells import LI
from dsnn.networks.layers import Conv, Dense, Layer, Pool
from dsnn.networks.stack import Stack, check_widths
from dsnn.networks.zoo.pieces import Normed, check, counted, lif
from dsnn.types import Array, Key

__all__ = ["vgg11"]

STAGES = ((1,), (2,), (4, 4), (8, 8), (8, 8))
"""Channels of each convolution of VGG11 over those of the first, by stage; 2 x 2 max pooling stands behind a stage."""


def vgg11(
    in_shape: tuple[int, ...],
    classes: int,
    *,
    key: Key[Array, ""],
    cell: Callable[[int], Any] | None = None,
    width: int = 64,
    hidden: int = 0,
    norm: Any = "tdbn",
    bias: bool = True,
    readout: str = "mean",
    readout_beta: float = 0.9,
    dtype: str | None = None,
) -> Stack:
    """Returns conv0 to conv7, hidden0, hidden1, readout: 3 x 3 convolutions with norm, and dense layers without.

    Args:
        in_shape: (height, width, channel) of one input, 32 x 32 at least.
        classes: number of outputs.
        key: initialises the kernels; consumed.
        cell: a function ``neurons -> cell``; None is ``LIF(beta=0.9)``.
        width: channels of the first convolution; the last ones have 8 times as many.
        hidden: neurons of the two dense layers; 0 is 64 times the width, 4096 in the paper.
        norm: "tdbn", "batch", "bntt", "tebn", "rms", "layer" or "none"; with options a mapping, such as
            ``{name: tebn, steps: 4}``; or a factory ``(features, threshold=, alpha=)``.
        bias: whether products have a bias; those before a norm only count in the published numbers of parameters.
        readout: how outputs become logits, see `dsnn.networks.stack.running_logits`.
        readout_beta: decay of the readout's membranes per step.
        dtype: of the products; membranes are float32 in any case.

    Raises:
        ValueError: no image, or one that is too small; a width that is not positive; an unknown norm or readout.
    """
    hidden = hidden or 64 * width
    shape = check("vgg11", in_shape, 2 ** len(STAGES), width=width, hidden=hidden)
    check_widths((shape[2], *(width * times for stage in STAGES for times in stage), hidden))
    cell = cell or lif
    norms, keys = Normed(norm, cell), counted(key)
    layers: dict[str, Layer] = {}
    pool: tuple[Pool, ...] = ()
    for stage in STAGES:
        for times in stage:
            conv = Conv(shape, width * times, key=next(keys), bias=bias, gain=norms.gain, dtype=dtype)
            own = cell(width * times)
            layers[f"conv{len(layers)}"] = Layer(conv, own, before=pool, norm=norms(width * times))
            pool, shape = (), conv.out_shape
        pool = (Pool(shape),)
        shape = pool[0].out_shape
    reads: tuple[int, ...] = shape
    for number in range(2):
        dense = Dense(reads, hidden, key=next(keys), bias=bias, gain=2.0, dtype=dtype)
        layers[f"hidden{number}"] = Layer(dense, cell(hidden), before=pool)
        pool, reads = (), dense.out_shape
    last = Dense(reads, classes, key=next(keys), bias=bias, dtype=dtype)
    return Stack(readout, **layers, readout=Layer(last, LI(beta=readout_beta)))
