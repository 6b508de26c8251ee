"""A network of two layers, the second half as wide as the first."""

import jax

from dsnn.cells import LI
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack


def tapered(in_shape, classes, *, key, cell, width=8):
    first, second, last = jax.random.split(key, 3)
    return Stack(
        "mean",
        wide=Layer(Dense(in_shape, width, key=first), cell(width)),
        narrow=Layer(Dense(width, width // 2, key=second), cell(width // 2)),
        readout=Layer(Dense(width // 2, classes, key=last), LI(0.9)),
    )
