"""How networks of layers say what of them could be spared: groups, wires and neurons, collected layer by layer."""

import functools
import math
from typing import NamedTuple

import numpy as np
from flax import nnx

from dsnn.cells import kind
from dsnn.networks.layers import Conv, Dense, Layer
from dsnn.networks.reach import reach
from dsnn.protocols import Axis, NeuronGroup, Wire, Wiring
from dsnn.types import Array

__all__ = ["NEURONS", "NOWHERE", "Ends", "Plan", "Signal", "fires", "read", "thinned", "without"]

INPUT = "input"

NEURONS = ".neurons"
"""What the name of a layer's neurons has behind that of the layer."""


class Ends(NamedTuple):
    """The site of each channel; without a group nothing closes them."""

    group: str
    index: np.ndarray  # type: ignore[assignment]  # the field's name, of a tuple's method

    def along(self, axis: int, length: int) -> tuple[Axis, ...]:
        """Returns the sites of an axis; channels come last, so what is flattened repeats them."""
        if not self.group:
            return ()
        return (Axis(self.group, axis, np.tile(self.index, length // max(len(self.index), 1))),)


NOWHERE = Ends("", np.arange(0))


class Signal(NamedTuple):
    """What goes from one part of a network to the next.

    Attributes:
        shape: of one example.
        ends: the sites of its channels, of an input that no convolution reads of all its values.
        values: "spikes" or "analog".
        once: it is the input.
        joined: sites ``group:i`` whose spikes have been added to it.
    """

    shape: tuple[int, ...]
    ends: Ends
    values: str = "spikes"
    once: bool = False
    joined: tuple[str, ...] = ()


class Plan:
    """Collects groups, wires and neurons while the parts of a network are walked.

    Args:
        blocks: name of the group of residual blocks.
    """

    def __init__(self, blocks: str) -> None:
        self.groups: dict[str, int] = {}
        self.wires: list[Wire] = []
        self.neurons: list[NeuronGroup] = []
        self.within: tuple[str, ...] = ()
        self.named, self.blocks = blocks, 0
        self.parted: set[str] = set()

    def group(self, name: str, size: int) -> Ends:
        """Returns the ends of a new group."""
        if name in self.groups or name == self.named:
            raise ValueError(f"a part must have a name of its own, got {name!r}, which is a group of sites; rename it.")
        self.groups[name] = size
        return Ends(name, np.arange(size))

    def input(self, shape: tuple[int, ...], *, channels: bool) -> Signal:
        """Returns what comes in.

        Args:
            shape: of one example.
            channels: whether a convolution reads it, so that its sites are channels.
        """
        size = shape[-1] if channels else math.prod(shape)
        return Signal(shape, self.group(INPUT, size) if size > 1 else NOWHERE, once=True)

    def block(self) -> str:
        """Returns the site ``group:i`` of one more residual block."""
        self.blocks += 1
        return f"{self.named}:{self.blocks - 1}"

    def layer(self, path: str, layer: Layer, given: Signal, out: Ends | None) -> Signal:
        """Adds a layer.

        Args:
            path: its name, with dots.
            layer: any, whose synapse has a kernel ``[..., in, out]``.
            given: what it reads.
            out: the sites of its neurons; None makes them a group of its own.

        Returns:
            What it gives, its shortcut aside.
        """
        synapse, features = layer.synapse, layer.out_shape[-1]
        ends, conv = self.group(path, features) if out is None else out, isinstance(layer.synapse, Conv)
        analog = given.values == "analog" or any(module.kind == "mean" for module in layer.before)
        receivers, senders = ends.along(-1, features), given.ends.along(-2, synapse.kernel.shape[-2])
        if thinned(layer):
            self.parted |= {given.ends.group} - {""}
            senders = ()
        mapped = not given.once and isinstance(synapse, Dense) and len(layer.in_shape) == 3 and not thinned(layer)
        self.wires.append(
            Wire(
                path,
                f"{path}.synapse.kernel",
                senders,
                receivers,
                within=self.within,
                fan=reach(synapse) if conv else 1.0,
                values="analog" if analog else "spikes",
                once=given.once,
                joined=given.joined,
                features=mapped,
                strides=tuple(synapse.strides) if conv else (),
                padding=synapse.padding if conv else "VALID",
            )
        )
        if layer.recurrent is not None:
            own = ends.along(-2, features)
            back = Wire(f"{path}.recurrent", f"{path}.recurrent", own, receivers, self.within, recurrent=True)
            self.wires.append(back)
        arrays = {} if getattr(synapse, "bias", None) is None else {f"{path}.synapse.bias": 0}
        if layer.norm is not None:
            arrays |= {f"{path}.norm.{name}": 0 for name in ("scale", "shift", "mean", "variance")}
        for name, variable in nnx.to_flat_state(nnx.state(layer.cell)) if isinstance(layer.cell, nnx.Module) else ():
            shape = variable[...].shape
            if shape and shape[-1] == features:
                arrays[".".join((path, "cell", *map(str, name)))] = len(shape) - 1
        site, count = ends.along(0, features), math.prod(layer.out_shape)
        self.neurons.append(
            NeuronGroup(f"{path}{NEURONS}", site[0] if site else None, count, layer.cell, arrays, self.within)
        )
        return Signal(tuple(layer.out_shape), ends, "spikes" if fires(layer) else "analog")

    def done(self) -> Wiring:
        """Returns all of it, without what is read in part: that has been thinned already, and has no sites left."""
        groups = self.groups | ({self.named: self.blocks} if self.blocks else {})
        wiring = Wiring(groups, tuple(self.wires), tuple(self.neurons))
        return functools.reduce(without, self.parted, wiring)


def without(wiring: Wiring, group: str) -> Wiring:
    """Returns a wiring in which nothing closes what is of a group."""

    def outside(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if name.rpartition(":")[0] != group)

    def other(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        return tuple(axis for axis in axes if axis.group != group)

    return Wiring(
        {name: size for name, size in wiring.groups.items() if name != group},
        tuple(
            wire._replace(
                pre=other(wire.pre), post=other(wire.post), within=outside(wire.within), joined=outside(wire.joined)
            )
            for wire in wiring.wires
        ),
        tuple(
            one._replace(
                site=None if one.site is None or one.site.group == group else one.site, within=outside(one.within)
            )
            for one in wiring.neurons
        ),
    )


def fires(layer: Layer) -> bool:
    """Returns whether a layer gives spikes, and not membranes."""
    return layer.reads == "spikes" and kind(layer.cell) != "LI"


def thinned(layer: Layer) -> bool:
    """Returns whether a layer reads some of what it is given, and no more the rest."""
    return any(module.kind == "select" for module in layer.before)


def read(layer: Layer, x: Array, lead: int = 1) -> Array:
    """Returns what a layer's synapse reads of what the layer is given, ``[*lead, *synapse.in_shape]``.

    Args:
        layer: any.
        x: with ``lead`` leading axes.
        lead: axes that are not the network's.
    """
    for module in layer.before:
        flat = module(x.reshape(math.prod(x.shape[:lead]), *x.shape[lead:]))
        x = flat.reshape(*x.shape[:lead], *flat.shape[1:])
    return x
