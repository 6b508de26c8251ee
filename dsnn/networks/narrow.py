"""A network made smaller while it learns: norms stay norms, and every parameter says which of its entries have stayed.

`dsnn.networks.compact` makes the network that is put to use; this one goes on learning, and what it learns goes back
into the whole network.
"""

from typing import Any

import numpy as np

from dsnn.networks import graph, layered
from dsnn.networks.graph import RESIDUAL, Part
from dsnn.networks.groups import stays
from dsnn.networks.shrink import compressed
from dsnn.networks.stack import BLOCKS, Stack
from dsnn.networks.whole import Runnable
from dsnn.networks.wiring import INPUT, described_by, named

__all__ = ["Entries", "entries", "narrowed", "narrows", "outermost"]

Entries = dict[str, tuple[np.ndarray, ...]]
"""By parameter, the numbers of the positions that stay along each of its axes."""


def narrows(model: Runnable, group: str) -> bool:
    """Returns whether sites of a group can leave a network that goes on learning.

    Inputs can where the network reads its shape from its layers; switches of a network of one's own cannot, whose
    meaning only that network knows, and channels of grouped convolutions cannot, whose groups would be of many sizes.
    """
    inner = model if isinstance(model, Stack) else model.network
    wires = described_by(model).wires
    if any(group == axis.group for wire in wires if wire.groups > 1 for axis in (*wire.pre, *wire.post)):
        return False
    if group in (INPUT, BLOCKS, RESIDUAL):
        return isinstance(inner, Stack | Part)
    return any(group == axis.group for wire in wires if wire.kernel is not None for axis in wire.pre)


def outermost(model: Runnable, group: str, stays: np.ndarray) -> np.ndarray:
    """Returns which switches of a group stay, without those that lie within one that leaves.

    Args:
        model: whose wiring names the group.
        group: of residual blocks.
        stays: whether each site stays.
    """
    stays = stays.copy()
    wiring = described_by(model)
    inside = {wire.within for wire in wiring.wires} | {neurons.within for neurons in wiring.neurons}
    for names in inside:
        # outer sites stand first
        numbers = [int(name.rpartition(":")[2]) for name in names if name.rpartition(":")[0] == group]
        gone = next((place for place, number in enumerate(numbers) if not stays[number]), len(numbers))
        stays[numbers[gone:]] = False
    return stays


def narrowed(model: Runnable, keep: dict[str, np.ndarray]) -> Runnable:
    """Returns the network of the sites that are kept, as it goes on learning; closed residual blocks go as a whole.

    Its inputs are those that are kept, of the shape that it says.

    Args:
        model: whose wiring names the groups.
        keep: numbers of the sites that stay, by group, of groups for which `narrows` holds.
    """
    along = {group: sites for group, sites in keep.items() if group not in (BLOCKS, RESIDUAL)}
    if isinstance(model, Stack):
        return layered.with_blocks(compressed(model, along), keep.get(BLOCKS))
    small = compressed(model.network, along)
    return model.around(graph.with_blocks(small, keep.get(RESIDUAL)) if isinstance(small, Part) else small)


def entries(model: Runnable, shapes: dict[str, tuple[int, ...]], keep: dict[str, np.ndarray]) -> Entries:
    """Returns which entries of each parameter, and of each statistic of a norm, stay in `narrowed`.

    Args:
        model: the whole network.
        shapes: of its parameters and statistics by name.
        keep: as of `narrowed`.
    """
    known: dict[str, Any] = named(described_by(model))
    found = {}
    for name, shape in shapes.items():
        axes = [(axis, axis.axis % len(shape)) for axis in known.get(name, ())] if shape else []
        found[name] = tuple(
            np.flatnonzero(stays([axis for axis, at in axes if at == along], length, keep))
            for along, length in enumerate(shape)
        )
    return found
