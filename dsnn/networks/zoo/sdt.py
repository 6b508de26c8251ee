"""The spike-driven transformer (Yao, Hu, Zhou, Yuan, Tian, Xu & Li 2023, NeurIPS, "Spike-driven Transformer")."""

from collections.abc import Callable, Sequence
from typing import Any

from dsnn.cells import LI
from dsnn.networks.attention import SpikeDrivenAttention
from dsnn.networks.graph import Chain, Residual
from dsnn.networks.layers import Conv, Dense, Layer, Pool
from dsnn.networks.leaves import Current, Fire, Pooled
from dsnn.networks.stack import check_widths
from dsnn.networks.zoo.encoder import encoded
from dsnn.networks.zoo.patches import embedded
from dsnn.networks.zoo.pieces import Normed, check, counted, lif
from dsnn.networks.zoo.residual import Made
from dsnn.types import Array, Key

__all__ = ["sdt_2_256"]

SCALE = 2.0
"""Of attention's sums: the published neurons that read them have half of the others' threshold."""


def sdt_2_256(
    in_shape: tuple[int, ...],
    classes: int,
    *,
    key: Key[Array, ""],
    cell: Callable[[int], Any] | None = None,
    depth: int = 2,
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
    """Returns the spike-driven transformer 2-256: currents go from the tokens on, and what reads them are neurons.

    The last projections have biases, as in the authors' program. Its 64 weights of "talking heads" a block, which it
    never uses, are not here; so for DVS128 (two channels, eleven classes) these are 2 566 923 parameters of the
    published 2.57 M, and at depth 2, width 512 for CIFAR-100 10 279 588 of 10.28 M. The last neurons read the mean of
    the currents over tokens.

    Args:
        in_shape: (height, width, channel) of one image.
        classes: number of outputs.
        key: initialises the kernels; consumed.
        cell: a function ``neurons -> cell``; None is ``LIF(beta=0.9)``.
        depth: number of blocks.
        width: channels of a token, a multiple of 8 and of ``heads``.
        heads: of each block, which are sites and share nothing else.
        mlp_ratio: hidden neurons of a perceptron for each of its outputs.
        stem: what makes tokens of an image, "cifar" (four convolutions, pooled after the third and the fourth),
            "imagenet" (pooled after each), or the numbers of the convolutions after which is pooled, such as [1, 2].
        pool: how it is pooled: "overlapping", 3 x 3 at steps of 2, as in the authors' program; "cells" of 2 x 2, which
            share nothing; or "currents", which are pooled so before neurons read them.
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
    check("sdt", in_shape, 1, depth=depth, width=width, heads=heads, mlp_ratio=mlp_ratio)
    check_widths((width, width * mlp_ratio), depth)
    cell = cell or lif
    made = Made(cell, Normed(norm, cell), counted(key), dtype)
    parts = embedded("sdt", made, in_shape, width, stem, pool=pool, currents=True)

    def product(shape: tuple[int, ...], features: int) -> tuple[Conv, Any]:
        height, across, channels = shape
        where, key = (height, across, channels), next(made.keys)
        conv = Conv(where, features, key=key, window=(1, 1), gain=made.norms.gain, dtype=dtype)
        return conv, made.norms(features)

    def block(shape: tuple[int, ...]) -> Chain:
        attention = SpikeDrivenAttention(
            shape, heads, key=next(made.keys), cell=cell, norm=made.norms, scale=SCALE * made.norms.threshold,
            bias=(False, True), neurons=False, gain=made.norms.gain, dtype=dtype,
        )  # fmt: skip
        synapse, normed = product(shape, width * mlp_ratio)
        expand = Layer(synapse, cell(width * mlp_ratio), norm=normed)
        contract = Current(*product(expand.out_shape, width))
        return Chain(
            attention=Residual(Chain(fire=Fire(shape, cell(width)), inner=attention)),
            mlp=Residual(Chain(fire=Fire(shape, cell(width)), expand=expand, contract=contract)),
        )

    shape = tuple(parts["position"].out_shape)
    choosing = {"key": next(made.keys), "score": token_score, "rejoin": token_rejoin}
    parts |= encoded("sdt", shape, depth, block, token_share, **choosing)
    shape = tuple(list(parts.values())[-1].out_shape)
    mean = Pool(shape, shape[:2], "mean")
    last = Dense(mean.out_shape, classes, key=next(made.keys), dtype=dtype)
    parts |= {"tokens": Pooled(mean), "fire": Fire(mean.out_shape, cell(width))}
    return Chain(readout, **parts, readout=Layer(last, LI(beta=readout_beta)))
