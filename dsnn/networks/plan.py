"""How networks of layers say what of them could be spared: groups, wires and neurons, collected layer by layer."""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from dsnn.cells import kind
from dsnn.energy import neuron_cost, priced_as
from dsnn.networks.layers import Conv, Dense, Layer
from dsnn.networks.leaves import integrates, multiplies
from dsnn.networks.reach import reach
from dsnn.protocols import Axis, NeuronGroup, Wire, Wiring
from dsnn.types import Array

__all__ = ["NEURONS", "NORM", "NOWHERE", "Ends", "Plan", "Signal", "fires", "read", "thinned", "without"]

INPUT = "input"

NEURONS = ".neurons"
"""What the name of a layer's neurons has behind that of the layer."""


NORM = ".norm"
"""What the name of a layer's norm has, where it costs something."""


class Ends(NamedTuple):
    """The site of each channel; without a group nothing closes them."""

    group: str
    index: np.ndarray  # type: ignore[assignment]  # the field's name, of a tuple's method

    def by_channel(self, synapse: Conv) -> "Ends | None":
        """Returns the sites of what a depthwise convolution gives: those of the channels it reads; None of others."""
        channels = synapse.in_shape[-1]
        if not self.group or channels == 1 or synapse.groups != channels or len(self.index) != channels:
            return None
        return Ends(self.group, np.repeat(self.index, synapse.out_shape[-1] // channels))

    def along(self, axis: int, length: int) -> tuple[Axis, ...]:
        """Returns the sites of an axis; channels come last, so what is flattened repeats them."""
        if not self.group:
            return ()
        return (Axis(self.group, axis, np.tile(self.index, length // max(len(self.index), 1))),)

    def same(self, other: "Ends") -> bool:
        """Returns whether these are the same sites."""
        return self.group == other.group and np.array_equal(self.index, other.index)


NOWHERE = Ends("", np.arange(0))


class Signal(NamedTuple):
    """What goes from one part of a network to the next.

    Attributes:
        shape: of one example.
        ends: the sites of its channels, of an input that no convolution reads of all its values.
        values: "spikes" or "analog".
        once: it is the input, or currents that the input drives.
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
            layer: any, whose synapse has a kernel ``[..., in, out]`` or is none.
            given: what it reads.
            out: the sites of its neurons; None makes them a group of its own, but those of a depthwise convolution
                are the sites of the channels that it reads.

        Returns:
            What it gives, its shortcut aside.
        """
        if not multiplies(layer):
            return self._alone(path, layer, given, out)
        synapse, features = layer.synapse, layer.out_shape[-1]
        conv = isinstance(layer.synapse, Conv)
        own = given.ends.by_channel(synapse) if out is None and not given.once and conv else None
        ends = own or (self.group(path, features) if out is None else out)
        if getattr(layer.norm, "mixes", False):  # a channel that is closed would still be needed by the others
            self.parted |= {ends.group} - {""}
        analog = given.values == "analog" or any(module.kind == "mean" for module in layer.before)
        groups = synapse.groups if conv else 1
        receivers, senders = ends.along(-1, features), given.ends.along(-2, synapse.kernel.shape[-2] * groups)
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
                dilation=tuple(synapse.dilation) if conv else (),
                groups=groups,
            )
        )
        if layer.recurrent is not None:
            loop = ends.along(-2, features)
            back = Wire(f"{path}.recurrent", f"{path}.recurrent", loop, receivers, self.within, recurrent=True)
            self.wires.append(back)
        arrays = {} if getattr(synapse, "bias", None) is None else {f"{path}.synapse.bias": 0}
        site = ends.along(0, features)
        if layer.norm is not None:
            held = _by_channel(f"{path}.norm", layer.norm, features)
            if callable(getattr(layer.norm, "cost", None)):
                what, once = ("token", given.once) if layer.norm_steps is None else ("step", False)
                at, count = site[0] if site else None, math.prod(layer.out_shape)
                self.neurons.append(
                    NeuronGroup(f"{path}{NORM}", at, count, layer.norm, held, self.within, norm=what, once=once)
                )
            else:
                arrays |= held
        self._updated(path, layer, ends, arrays)
        # currents that a held input drives are held too, if a norm does not treat each step by itself
        held_on = given.once and not integrates(layer) and layer.norm_steps is None
        return Signal(tuple(layer.out_shape), ends, "spikes" if fires(layer) else "analog", once=held_on)

    def _alone(self, path: str, layer: Layer, given: Signal, out: Ends | None) -> Signal:
        """Adds neurons or pooling without a product, whose channels are those of what they read."""
        if layer.norm is not None:
            raise ValueError(f"a norm stands behind a product, got one in {path!r}, which has none; leave it out.")
        ends, fired = given.ends, integrates(layer)
        if ends.group == INPUT and fired:  # whoever closed an input would close its neuron: these are no sites
            self.parted.add(INPUT)
            ends = NOWHERE if out is None else out
        elif out is not None and not out.same(ends):
            raise ValueError(
                f"what neurons or pooling without a product give are the channels that they read, so {path!r} cannot "
                "be the whole of a network or of a branch that is added to others; put a product before it."
            )
        self._updated(path, layer, ends, {})
        if fired:
            return Signal(tuple(layer.out_shape), ends, "spikes" if fires(layer) else "analog")
        averages = any(module.kind == "mean" for module in layer.before)
        return given._replace(shape=tuple(layer.out_shape), values="analog" if averages else given.values)

    def _updated(self, path: str, layer: Layer, ends: Ends, arrays: dict[str, int]) -> None:
        """Adds a layer's neurons; of a product or pooling alone there are none, but there may be arrays to cut."""
        features, count = layer.out_shape[-1], math.prod(layer.out_shape) if integrates(layer) else 0
        if not getattr(layer.cell, "shared", False):
            arrays = arrays | _by_channel(f"{path}.cell", layer.cell, features)
        site = ends.along(0, features)
        self.neurons.append(
            NeuronGroup(f"{path}{NEURONS}", site[0] if site else None, count, layer.cell, arrays, self.within)
        )

    def done(self) -> Wiring:
        """Returns all of it, without groups whose channels cannot be closed one by one.

        Those are what is read in part, which has been thinned already, and what a norm over channels stands before.
        """
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


def _by_channel(path: str, module: Any, channels: int) -> dict[str, int]:
    """Returns the arrays of a module that have a number for each channel, and the axis, which is their last."""
    found = {}
    for name, variable in nnx.to_flat_state(nnx.state(module)) if isinstance(module, nnx.Module) else ():
        shape = variable.shape
        if shape and shape[-1] == channels:
            found[".".join((path, *map(str, name)))] = len(shape) - 1
    return found


def fires(layer: Layer) -> bool:
    """Returns whether a layer gives spikes, and not membranes or currents."""
    return layer.reads == "spikes" and neuron_cost(priced_as(layer.cell, kind(layer.cell))).fires


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
