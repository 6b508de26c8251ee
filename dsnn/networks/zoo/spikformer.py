"""The first spiking transformer (Zhou, Zhu, He, Wang, Yan, Tian & Yuan 2023, ICLR, "Spikformer")."""

from collections.abc import Callable, Sequence
from typing import Any

from dsnn.networks.attention import SelfAttention
from dsnn.networks.graph import Chain, Residual
from dsnn.networks.stack import check_widths
from dsnn.networks.zoo.encoder import encoded
from dsnn.networks.zoo.patches import embedded
from dsnn.networks.zoo.pieces import Normed, check, counted, lif, readout_of
from dsnn.networks.zoo.residual import Made
from dsnn.types import Array, Key

__all__ = ["spikformer_4_256"]

SCALE = 0.25
"""Of attention, in thresholds: the published 0.125 for neurons whose threshold is half of the others'."""


def spikformer_4_256(
    in_shape: tuple[int, ...],
    classes: int,
    *,
    key: Key[Array, ""],
    cell: Callable[[int], Any] | None = None,
    depth: int = 4,
    width: int = 256,
    heads: int = 8,
    mlp_ratio: int = 4,
    stem: str | Sequence[int] = "cifar",
    pool: str = "overlapping",
    token_share: Any = 1.0,
    token_score: str = "learned",
    token_rejoin: bool = False,
    norm: Any = "tdbn",
    readout: str = "mean",
    readout_beta: float = 0.9,
    dtype: str | None = None,
) -> Chain:
    """Returns Spikformer-4-256: tokens, blocks of spiking self-attention and a perceptron, and the mean of all tokens.

    Both halves of a block are added to what they read, spikes to spikes; the last is read by leaky integrators. Nothing
    has a bias but the readout, as in SpikingJelly's program, whose numbers of parameters these are: 9 310 906 at depth
    4 and width 384 for CIFAR-10, 4 400 392 here for ImageNet and with its stem.

    Args:
        in_shape: (height, width, channel) of one image.
        classes: number of outputs.
        key: initialises the kernels; consumed.
        cell: a function ``neurons -> cell``; None is ``LIF(beta=0.9)``.
        depth: number of blocks.
        width: channels of a token, a multiple of 8 and of ``heads``.
        heads: of each block.
        mlp_ratio: hidden neurons of a perceptron for each of its outputs.
        stem: what makes tokens of an image, "cifar" (four convolutions, pooled after the third and the fourth),
            "imagenet" (pooled after each), or the numbers of the convolutions after which is pooled, such as [1, 2].
        pool: how it is pooled: "overlapping", 3 x 3 at steps of 2, as in the authors' program; "cells" of 2 x 2, which
            share nothing; or "currents", which are pooled so before neurons read them, as in SpikingJelly's program.
        token_share: share of an image's tokens that blocks are computed for, in (0, 1], or one for each of them that
            does not grow: the others leave before (`dsnn.networks.TokenExit`).
        token_score: by what tokens go on, "learned" or "random", which is the control.
        token_rejoin: whether tokens that left count in the readout's mean all the same, as they were when they left.
        norm: "tdbn", "batch", "bntt", "tebn", "rms", "layer" or "none"; with options a mapping, such as
            ``{name: tebn, steps: 4}``; or a factory ``(features, threshold=, alpha=)``.
        readout: how outputs become logits, see `dsnn.networks.stack.running_logits`.
        readout_beta: decay of the readout's membranes per step; 0 is the published readout.
        dtype: of the products; membranes are float32 in any case.

    Raises:
        ValueError: no image, one that is too small, or an option that is unknown or out of its range.
    """
    check("spikformer", in_shape, 1, depth=depth, width=width, heads=heads, mlp_ratio=mlp_ratio)
    check_widths((width, width * mlp_ratio), depth)
    cell = cell or lif
    made = Made(cell, Normed(norm, cell), counted(key), dtype)
    parts = embedded("spikformer", made, in_shape, width, stem, pool=pool)

    def block(shape: tuple[int, ...]) -> Chain:
        attention = SelfAttention(
            shape, heads, key=next(made.keys), cell=cell, norm=made.norms, scale=SCALE * made.norms.threshold,
            gain=made.norms.gain, dtype=dtype,
        )  # fmt: skip
        expand = made.layer(shape, width * mlp_ratio, 1)
        contract = made.layer(expand.out_shape, width, 1)
        return Chain(attention=Residual(attention), mlp=Residual(Chain(expand=expand, contract=contract)))

    shape = tuple(parts["position"].out_shape)
    choosing = {"key": next(made.keys), "score": token_score, "rejoin": token_rejoin}
    parts |= encoded("spikformer", shape, depth, block, token_share, **choosing)
    shape = tuple(list(parts.values())[-1].out_shape)
    return Chain(readout, **parts, readout=readout_of(shape, classes, next(made.keys), readout_beta, dtype))
