"""Cutting the kernels of grouped convolutions, whose groups have one size.

A group goes where no channel on either side of it runs. Where an uneven number would be left in the groups that stay,
closed channels stay too, whose weights are zero, so that the smaller network gives the same numbers.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from dsnn.networks.indices import of_groups
from dsnn.protocols import Axis, Wire, Wiring

__all__ = ["cut_groups", "even", "stays"]

Keep = dict[str, np.ndarray]


def stays(axes: tuple[Axis, ...] | list[Axis], length: int, keep: Keep) -> np.ndarray:
    """Returns which positions of an axis stay: those of which every site does.

    Args:
        axes: the sites of the positions, by group.
        length: number of positions.
        keep: numbers of the sites that stay, by group; a group that is left out stays whole.
    """
    stay = np.ones(length, bool)
    for axis in axes:
        if axis.group in keep:
            stay &= (axis.index < 0) | np.isin(axis.index, keep[axis.group])
    return stay


def even(wiring: Wiring, keep: Keep) -> Keep:
    """Returns what has to stay for every grouped convolution to have groups of one size.

    Args:
        wiring: of the network.
        keep: numbers of the sites that are wanted, by group.
    """
    keep = dict(keep)
    grouped = [wire for wire in wiring.wires if wire.groups > 1]
    changed = bool(grouped)
    while changed:
        changed = False
        for wire in grouped:
            for axis, number in _lacking(wire, keep):
                keep[axis.group] = np.union1d(keep[axis.group], axis.index[number])
                changed = True
    return keep


def cut_groups(wire: Wire, kernel: np.ndarray, keep: Keep) -> tuple[np.ndarray, int]:
    """Returns the kernel of what stays, and how many groups that are.

    Args:
        wire: a grouped convolution.
        kernel: its kernel.
        keep: of `even`.
    """
    senders, receivers = _ends(wire, keep)
    left = np.flatnonzero(senders.any(1) | receivers.any(1))
    apart = of_groups(kernel, wire.groups)
    parts = [apart[..., senders[g], g, :][..., receivers[g]] for g in left]
    return np.concatenate(parts, -1), len(left)


def _ends(wire: Wire, keep: Keep) -> tuple[Any, Any]:
    """Returns which senders and receivers stay, ``[group, one of it]``."""
    ends = ((wire.pre, wire.senders), (wire.post, wire.receivers))
    before, behind = (stays(axes, count, keep).reshape(wire.groups, -1) for axes, count in ends)
    return before, behind


def _lacking(wire: Wire, keep: Keep) -> Iterator[tuple[Axis, np.ndarray]]:
    """Yields what else has to stay: axes, and positions along them."""
    senders, receivers = _ends(wire, keep)
    left = senders.any(1) | receivers.any(1)
    for axes, there in ((wire.pre, senders), (wire.post, receivers)):
        most = max(int(there[left].sum(1).max(initial=0)), 1)
        for group in np.flatnonzero(left & (there.sum(1) < most)):
            closed = np.flatnonzero(~there[group])[: most - int(there[group].sum())]
            positions = group * there.shape[1] + closed
            for axis in axes:
                if axis.group in keep:
                    yield axis, positions[axis.index[positions] >= 0]
