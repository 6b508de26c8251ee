"""The convolutional network of SpikingJelly's tutorial on Fashion-MNIST (Fang et al. 2023, Science Advances)."""

from collections.abc import Callable
from typing import Any

from dsnn.cells import LI
from dsnn.networks.layers import Conv, Dense, Layer, Pool
from dsnn.networks.stack import Stack, check_widths
from dsnn.networks.zoo.pieces import Normed, check, counted, lif
from dsnn.types import Array, Key

__all__ = ["csnn"]


def csnn(
    in_shape: tuple[int, ...],
    classes: int,
    *,
    key: Key[Array, ""],
    cell: Callable[[int], Any] | None = None,
    width: int = 128,
    norm: Any = "tdbn",
    readout: str = "mean",
    readout_beta: float = 0.9,
    dtype: str | None = None,
) -> Stack:
    """Returns conv0, conv1, hidden0, readout: two 3 x 3 convolutions with norm, each before 2 x 2 max pooling.

    The hidden layer has 16 times as many neurons as a convolution channels, and nothing has a bias. Where theirs ends
    in neurons whose spikes are counted, this ends in leaky integrators, as everywhere here.

    Args:
        in_shape: (height, width, channel) of one input, 4 x 4 at least; 28 x 28 in the tutorial.
        classes: number of outputs.
        key: initialises the kernels; consumed.
        cell: a function ``neurons -> cell``; None is ``LIF(beta=0.9)``.
        width: channels of each convolution.
        norm: "tdbn", "batch", "bntt", "tebn", "rms", "layer" or "none"; with options a mapping, such as
            ``{name: tebn, steps: 4}``; or a factory ``(features, threshold=, alpha=)``.
        readout: how outputs become logits, see `dsnn.networks.stack.running_logits`.
        readout_beta: decay of the readout's membranes per step.
        dtype: of the products; membranes are float32 in any case.

    Raises:
        ValueError: no image, or one that is too small; a width that is not positive; an unknown norm or readout.
    """
    shape = check("csnn", in_shape, 4, width=width)
    check_widths((width, 16 * width))
    cell = cell or lif
    norms, keys = Normed(norm, cell), counted(key)
    layers: dict[str, Layer] = {}
    pool: tuple[Pool, ...] = ()
    for number in range(2):
        conv = Conv(shape, width, key=next(keys), bias=False, gain=norms.gain, dtype=dtype)
        layers[f"conv{number}"] = Layer(conv, cell(width), before=pool, norm=norms(width))
        pool = (Pool(conv.out_shape),)
        shape = pool[0].out_shape
    hidden = Dense(shape, 16 * width, key=next(keys), bias=False, gain=2.0, dtype=dtype)
    layers["hidden0"] = Layer(hidden, cell(16 * width), before=pool)
    last = Dense(16 * width, classes, key=next(keys), bias=False, dtype=dtype)
    return Stack(readout, **layers, readout=Layer(last, LI(beta=readout_beta)))
