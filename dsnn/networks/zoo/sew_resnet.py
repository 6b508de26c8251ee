"""Residual networks whose blocks join spikes: SEW-ResNet (Fang, Yu, Chen, Huang, Masquelier & Tian 2021, NeurIPS)."""

from collections.abc import Callable, Sequence
from typing import Any

from dsnn.networks.graph import Chain, Residual
from dsnn.networks.zoo.pieces import Normed, counted, lif, readout_of, silenced
from dsnn.networks.zoo.residual import Made, Stage, stages, start
from dsnn.types import Array, Key

__all__ = ["sew_resnet18", "sew_resnet34"]

SURE = 2.0
"""Currents, in thresholds, at which the neurons of an "and" block fire at every step to begin with."""


def sew_resnet18(
    in_shape: tuple[int, ...],
    classes: int,
    *,
    key: Key[Array, ""],
    cell: Callable[[int], Any] | None = None,
    blocks: Sequence[int] = (2, 2, 2, 2),
    width: int = 64,
    connect: str = "add",
    stem: str = "cifar",
    norm: Any = "tdbn",
    identity: bool | None = None,
    readout: str = "mean",
    readout_beta: float = 0.9,
    dtype: str | None = None,
) -> Chain:
    """Returns SEW-ResNet18: a stem, four stages of two blocks of two 3 x 3 convolutions, and a readout of their mean.

    The first block of a later stage halves the places and doubles the channels, beside a 1 x 1 convolution with norm
    and neurons; every other block stands beside its input.

    Args:
        in_shape: (height, width, channel) of one input; 8 x 8 at least, with the stem "imagenet" 32 x 32.
        classes: number of outputs.
        key: initialises the kernels; consumed.
        cell: a function ``neurons -> cell``; None is ``LIF(beta=0.9)``.
        blocks: blocks of each stage; fewer stages halve less often.
        width: channels of the first stage.
        connect: "add", "and" or "iand", see `dsnn.networks.Residual`.
        stem: "cifar", a 3 x 3 convolution, or "imagenet", a 7 x 7 one of stride 2 and 3 x 3 max pooling of stride 2.
        norm: "tdbn", "batch", "bntt", "tebn", "rms", "layer" or "none"; with options a mapping, such as
            ``{name: tebn, steps: 4}``; or a factory ``(features, threshold=, alpha=)``.
        identity: whether blocks begin as their shortcut, by the last norm (theirs, section 3.3); None is yes for "and",
            through whose many conditions nothing would pass, and else no.
        readout: how outputs become logits, see `dsnn.networks.stack.running_logits`.
        readout_beta: decay of the readout's membranes per step.
        dtype: of the products; membranes are float32 in any case.

    Raises:
        ValueError: no image, or one that is too small; an option that is unknown or not positive.
    """
    made = Made(cell or lif, Normed(norm, cell or lif), counted(key), dtype)
    parts = start("sew_resnet", stem, in_shape, width, made.layer)
    shape = next(reversed(parts.values())).out_shape
    own = connect == "and" if identity is None else identity
    for stage in stages("sew_resnet", blocks, width):
        parts[stage.name] = _block(made, shape, stage, connect, identity=own)
        shape = parts[stage.name].out_shape
    parts["readout"] = readout_of(shape, classes, next(made.keys), readout_beta, dtype)
    return Chain(readout, **parts)


def sew_resnet34(
    in_shape: tuple[int, ...],
    classes: int,
    *,
    key: Key[Array, ""],
    cell: Callable[[int], Any] | None = None,
    blocks: Sequence[int] = (3, 4, 6, 3),
    width: int = 64,
    connect: str = "add",
    stem: str = "cifar",
    norm: Any = "tdbn",
    identity: bool | None = None,
    readout: str = "mean",
    readout_beta: float = 0.9,
    dtype: str | None = None,
) -> Chain:
    """Returns SEW-ResNet34: `sew_resnet18` with stages of three, four, six and three blocks; options as there."""
    return sew_resnet18(
        in_shape, classes, key=key, cell=cell, blocks=blocks, width=width, connect=connect, stem=stem, norm=norm,
        identity=identity, readout=readout, readout_beta=readout_beta, dtype=dtype,
    )  # fmt: skip


def _block(made: Made, shape: tuple[int, ...], stage: Stage, connect: str, *, identity: bool) -> Residual:
    """Returns two convolutions beside their input, or beside one of a single place that changes it alike."""
    first = made.layer(shape, stage.features, 3, stage.stride)
    second = made.layer(first.out_shape, stage.features)
    if identity:
        silenced(second.norm, SURE * made.norms.threshold if connect == "and" else 0.0)
    alike = tuple(shape) == tuple(second.out_shape)
    shortcut = None if alike else made.layer(shape, stage.features, 1, stage.stride)
    return Residual(Chain(first=first, second=second), shortcut, connect)
