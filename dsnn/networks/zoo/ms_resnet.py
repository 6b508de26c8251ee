"""Residual networks whose blocks add currents: MS-ResNet (Hu, Deng, Wu, Yao & Li 2021, arXiv 2112.08954)."""

from collections.abc import Callable, Sequence
from typing import Any

from dsnn.networks.graph import Chain, Residual
from dsnn.networks.layers import Layer
from dsnn.networks.leaves import Fire
from dsnn.networks.zoo.pieces import Normed, counted, lif, readout_of, silenced
from dsnn.networks.zoo.residual import BRANCH, Made, Stage, stages, start
from dsnn.types import Array, Key

__all__ = ["ms_resnet18"]

SHORTCUTS = ("currents", "spikes")


def ms_resnet18(
    in_shape: tuple[int, ...],
    classes: int,
    *,
    key: Key[Array, ""],
    cell: Callable[[int], Any] | None = None,
    blocks: Sequence[int] = (2, 2, 2, 2),
    width: int = 64,
    stem: str = "cifar",
    shortcut: str = "currents",
    norm: Any = "tdbn",
    identity: bool = True,
    readout: str = "mean",
    readout_beta: float = 0.9,
    dtype: str | None = None,
) -> Chain:
    """Returns MS-ResNet18: blocks of neurons, convolution and norm, twice, whose currents are added to their input's.

    No neuron stands behind a sum, so that currents go from the stem to the last neurons, whose mean is read.

    Args:
        in_shape: (height, width, channel) of one input; 8 x 8 at least, with the stem "imagenet" 32 x 32.
        classes: number of outputs.
        key: initialises the kernels; consumed.
        cell: a function ``neurons -> cell``; None is ``LIF(beta=0.9)``.
        blocks: blocks of each stage; fewer stages halve less often.
        width: channels of the first stage.
        stem: "cifar", a 3 x 3 convolution; or "imagenet", a 7 x 7 one of stride 2, and a first stage of stride 2, as in
            the authors' program, where nothing is pooled.
        shortcut: what the 1 x 1 convolutions read that widen a shortcut: "currents", as in the authors' program, which
            costs multiplications, and whose sums a compacted network rounds in another order; or "spikes" of neurons
            of their own, with which it is the masked one bit for bit.
        norm: "tdbn", "batch", "bntt", "tebn", "rms", "layer" or "none"; with options a mapping, such as
            ``{name: tebn, steps: 4}``; or a factory ``(features, threshold=, alpha=)``.
        identity: whether blocks begin as their shortcut, by a last norm of scale zero, as in the authors' program.
        readout: how outputs become logits, see `dsnn.networks.stack.running_logits`.
        readout_beta: decay of the readout's membranes per step.
        dtype: of the products; membranes are float32 in any case.

    Raises:
        ValueError: no image, or one that is too small; an option that is unknown or not positive.
    """
    if shortcut not in SHORTCUTS:
        raise ValueError(f"shortcut of ms_resnet must be one of {', '.join(SHORTCUTS)}, got {shortcut!r}.")
    made = Made(cell or lif, Normed(norm, cell or lif), counted(key), dtype)
    parts = start("ms_resnet", stem, in_shape, width, made.current, pooled=False)
    shape = parts["stem"].out_shape
    for stage in stages("ms_resnet", blocks, width, first=2 if stem == "imagenet" else 1):
        parts[stage.name] = _block(made, shape, stage, fires=shortcut == "spikes", identity=identity)
        shape = parts[stage.name].out_shape
    parts["fire"] = Fire(shape, made.cell(shape[-1]))
    parts["readout"] = readout_of(shape, classes, next(made.keys), readout_beta, dtype)
    return Chain(readout, **parts)


def _block(made: Made, shape: tuple[int, ...], stage: Stage, *, fires: bool, identity: bool) -> Residual:
    """Returns the currents of two convolutions beside their input's, or beside those of one of a single place."""
    features = stage.features
    first = made.layer(shape, features, 3, stage.stride)
    second = made.current(first.out_shape, features, alpha=BRANCH)
    if identity:
        silenced(second.norm)
    body = Chain(fire=Fire(shape, made.cell(shape[-1])), first=first, second=second)
    if tuple(shape) == tuple(second.out_shape):
        return Residual(body)
    beside: Layer | Chain = made.current(shape, features, 1, stage.stride, BRANCH)
    if fires:
        beside = Chain(fire=Fire(shape, made.cell(shape[-1])), only=beside)
    return Residual(body, beside)
