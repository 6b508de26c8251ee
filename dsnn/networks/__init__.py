"""Networks: synapses, layers, stacks of them, and networks of one's own (`dsnn.protocols.Network`)."""

from dsnn.networks.branches import Concatenate, Parallel
from dsnn.networks.graph import Chain, Residual
from dsnn.networks.layers import Conv, Dense, Layer, Pool
from dsnn.networks.norms import TdBN
from dsnn.networks.shrink import cut
from dsnn.networks.stack import Stack, convnet, mlp
from dsnn.networks.whole import Whole, as_network

__all__ = [
    "Chain",
    "Concatenate",
    "Conv",
    "Dense",
    "Layer",
    "Parallel",
    "Pool",
    "Residual",
    "Stack",
    "TdBN",
    "Whole",
    "as_network",
    "convnet",
    "cut",
    "mlp",
]
