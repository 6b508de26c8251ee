"""How many outputs of a convolution each place of its input reaches."""

import numpy as np

from dsnn.networks.layers import Conv
from dsnn.networks.windows import around, reached
from dsnn.types import Float

__all__ = ["reach"]


def reach(synapse: Conv) -> Float[np.ndarray, "height width"]:
    """Number of output positions that each place of the input reaches: fewer at borders and between strides."""
    wide = tuple((w - 1) * d + 1 for w, d in zip(synapse.window, synapse.dilation, strict=True))
    ends = around(synapse.in_shape[:2], wide, synapse.strides, synapse.padding)
    before = [low for low, _ in ends]
    axes = (synapse.in_shape[:2], synapse.out_shape[:2], synapse.window, synapse.strides, before, synapse.dilation)
    rows, columns = (reached(*axis) for axis in zip(*axes, strict=True))
    return np.outer(rows, columns)
