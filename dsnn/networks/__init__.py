"""Networks: synapses, layers, stacks of them, and networks of one's own (`dsnn.protocols.Network`)."""

from dsnn.networks import spikingjelly, zoo
from dsnn.networks.attention import SelfAttention, SpikeDrivenAttention
from dsnn.networks.branches import Concatenate, Parallel
from dsnn.networks.graph import Chain, Residual
from dsnn.networks.layers import AdaptivePool, Conv, Dense, Layer, Pool
from dsnn.networks.leaves import Current, Fire, Pooled
from dsnn.networks.norms import BatchNorm, TdBN
from dsnn.networks.shrink import cut
from dsnn.networks.stack import Stack, convnet, mlp
from dsnn.networks.step_norms import BNTT, TEBN, StepAffine
from dsnn.networks.token_norms import LayerNorm, RMSNorm
from dsnn.networks.tokens import TokenExit, tokens_left
from dsnn.networks.whole import Whole, as_network

__all__ = [
    "BNTT",
    "TEBN",
    "AdaptivePool",
    "BatchNorm",
    "Chain",
    "Concatenate",
    "Conv",
    "Current",
    "Dense",
    "Fire",
    "Layer",
    "LayerNorm",
    "Parallel",
    "Pool",
    "Pooled",
    "RMSNorm",
    "Residual",
    "SelfAttention",
    "SpikeDrivenAttention",
    "Stack",
    "StepAffine",
    "TdBN",
    "TokenExit",
    "Whole",
    "as_network",
    "convnet",
    "cut",
    "mlp",
    "spikingjelly",
    "tokens_left",
    "zoo",
]
