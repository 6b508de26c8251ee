"""What a stack of layers says of itself: its wiring, what its wires carried, and the smaller stack of what is kept."""

import numpy as np
from flax import nnx

from dsnn.networks.groups import even
from dsnn.networks.layers import Conv, Dense
from dsnn.networks.plan import INPUT, NEURONS, NOWHERE, Plan, fires, read
from dsnn.networks.select import Select
from dsnn.networks.shrink import cut
from dsnn.networks.stack import BLOCKS, Stack
from dsnn.networks.wiring import described_by
from dsnn.protocols import Wiring
from dsnn.types import Array

__all__ = ["carried", "shrunk", "wiring", "with_blocks"]


def wiring(stack: Stack) -> Wiring:
    """Returns its sites, wires and neurons: those of the last layer answer, and cannot be spared.

    What a compacted stack reads in part has no sites of its own left: the inputs and channels of which some places are
    read and others not.
    """
    plan, layers = Plan(BLOCKS), list(stack.layers())
    given = plan.input(stack.in_shape, channels=not isinstance(layers[0][1].synapse, Dense))
    for name, layer in layers:
        # what reads a residual block reads the channels that it is added to
        out = NOWHERE if name == stack.names[-1] else given.ends if layer.skip else None
        if layer.skip:
            block = plan.block()
            plan.within = (block,)
            gives = plan.layer(name, layer, given, out)
            plan.within = ()
            given = given._replace(ends=gives.ends, joined=(*given.joined, block))
        else:
            given = plan.layer(name, layer, given, out)
    return plan.done()


def carried(stack: Stack, inputs: Array, spikes: dict[str, Array], *, held: bool) -> dict[str, Array]:
    """Returns what went over each wire, and what each group of neurons fired, ``[time, batch, ...]``.

    Args:
        stack: that ran.
        inputs: that it was given, ``[time, batch, ...]`` or held ``[batch, ...]``; what reads these has one step.
        spikes: what each layer gave, ``[time, batch, ...]``.
        held: whether the input was held.
    """
    out, x = {}, inputs[None] if held else inputs
    for name, layer in stack.layers():
        out[name] = read(layer, x, 2)
        if layer.recurrent is not None:
            out[f"{name}.recurrent"] = spikes[name]
        if fires(layer):
            out[f"{name}{NEURONS}"] = spikes[name]
        x = stack.sent(name, x, spikes[name])
    return out


def shrunk(stack: Stack, keep: dict[str, np.ndarray]) -> Stack:
    """Returns the stack of the sites that are kept, by group; closed residual blocks go as a whole.

    Args:
        stack: whose kernels hold their gates.
        keep: numbers of the sites that stay, by group.
    """
    keep = even(described_by(stack), keep)
    small = cut(stack, {group: sites for group, sites in keep.items() if group != BLOCKS})
    layers = dict(small.layers())
    first = layers[stack.names[0]]
    if INPUT in keep:
        select = Select(stack.in_shape, keep[INPUT], channels=isinstance(first.synapse, Conv))
        first.before = nnx.List([select, *first.before])
        if isinstance(first.synapse, Dense):
            first.synapse.in_shape = select.out_shape
    return with_blocks(Stack(stack.readout_kind, **layers), keep.get(BLOCKS))


def with_blocks(stack: Stack, numbers: np.ndarray | None) -> Stack:
    """Returns the stack with those of its residual blocks that have these numbers; None is all of them."""
    if numbers is None:
        return stack
    gone = set(stack.blocks) - {stack.blocks[int(number)] for number in numbers}
    return Stack(stack.readout_kind, **{name: layer for name, layer in stack.layers() if name not in gone})
