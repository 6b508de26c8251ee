"""How many outputs of a convolution each place of its input reaches."""

import numpy as np

from dsnn.networks.layers import Conv
from dsnn.types import Float

__all__ = ["reach"]


def reach(synapse: Conv) -> Float[np.ndarray, "height width"]:
    """Number of output positions that each place of the input reaches: fewer at borders and between strides."""
    rows, columns = (
        _reached(n, out, window, stride, synapse.padding)
        for n, out, window, stride in zip(
            synapse.in_shape[:2], synapse.out_shape[:2], synapse.window, synapse.strides, strict=True
        )
    )
    return np.outer(rows, columns)


def _reached(n: int, out: int, window: int, stride: int, padding: str) -> Float[np.ndarray, " place"]:
    """Number of outputs of a one-dimensional convolution that see each of its ``n`` inputs."""
    low = max((out - 1) * stride + window - n, 0) // 2 if padding == "SAME" else 0
    first = np.arange(out) * stride - low
    place = np.arange(n)[:, None]
    return ((first <= place) & (place < first + window)).sum(1).astype(float)
