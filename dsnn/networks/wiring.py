"""What a network says of itself, checked against what it is."""

import math
from typing import Any, NamedTuple

import numpy as np

from dsnn.energy import NeuronCost
from dsnn.networks.plan import INPUT, without
from dsnn.networks.stack import BLOCKS
from dsnn.networks.whole import INSIDE, Runnable, Whole
from dsnn.parameters import split
from dsnn.protocols import Axis, NeuronGroup, Wire, Wiring

FEATURES, TIME = "features", "time"
"""Groups of sites that an option of a run adds: places of a feature map, and time steps."""

__all__ = ["BLOCKS", "FEATURES", "INPUT", "TIME", "described_by", "named", "nothing", "of_run", "switched"]


def nothing() -> Wiring:
    """Returns the wiring of a network that says nothing of itself."""
    return Wiring({}, (), ())


def described_by(model: Runnable) -> Wiring:
    """Returns a network's wiring, kernels by the names that parameters have, with all numbers filled in.

    Of a network that reads a part of its inputs these are no sites: it has been thinned already.

    Args:
        model: the network.

    Raises:
        ValueError: a group, kernel, axis, site or number that does not fit the network.
    """
    own = model.wiring()
    if own is None:
        return nothing()
    whole = isinstance(model, Whole)
    inside, reserved = (INSIDE, (BLOCKS, FEATURES, TIME)) if whole else ("", (FEATURES, TIME))
    shapes = {name.removeprefix(inside): value.shape for name, value in split(model)[1].items()}
    for group, size in own.groups.items():
        if group in reserved:
            raise ValueError(f"a group of sites must not be called {' or '.join(reserved)}, got {group!r}; rename it.")
        if size < 1:
            raise ValueError(f"a group of sites must have at least one, got {size} in {group!r}.")
    kernels = [wire.kernel for wire in own.wires if wire.kernel is not None]
    if shared := sorted({kernel for kernel in kernels if kernels.count(kernel) > 1}):
        raise ValueError(f"a kernel must belong to one wire, got {shared[0]!r} in two; its rows have one gate each.")
    for group, size in own.groups.items():
        found = {int(site) for axis in _axes(own, group) for site in np.unique(axis.index)}
        found |= {int(name.rpartition(":")[2]) for name in _inside(own) if name.rpartition(":")[0] == group}
        if lacking := sorted(set(range(size)) - found):
            raise ValueError(f"every site must be somewhere in the wiring, got {group}:{lacking[0]} nowhere.")
    names = [wire.name for wire in own.wires] + [group.name for group in own.neurons]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"wires and neurons must have names of their own, got {twice[0]!r} twice.")
    opens = model.network if isinstance(model, Whole) else model
    if (switches := switched(own)) and not callable(getattr(opens, "with_gates", None)):
        raise ValueError(
            "a group of sites must be among the senders of a wire with a kernel, or the network have with_gates(), "
            f"got {switches[0]!r} without."
        )
    wires = tuple(_wire(wire, own.groups, shapes, inside) for wire in own.wires)
    neurons = []
    for group in own.neurons:
        what = f"neurons {group.name!r}"
        if group.site is not None:
            _check_axis(what, group.site, own.groups)
            if group.count % max(len(group.site.index), 1):
                raise ValueError(
                    f"{what} must be so many for each position of their axis, got {group.count} for "
                    f"{len(group.site.index)} positions."
                )
        _check_inside(what, group.within, own.groups)
        site = None if group.site is None else _filled(group.site)
        arrays = {inside + name: axis for name, axis in group.arrays.items()}
        neurons.append(group._replace(site=site, arrays=arrays))
    filled = Wiring(dict(own.groups), wires, tuple(neurons))
    return without(filled, INPUT) if isinstance(model, Whole) and model.kept_inputs is not None else filled


def switched(wiring: Wiring) -> tuple[str, ...]:
    """Returns the groups that no kernel's rows open and close, but the network itself, by ``with_gates``."""
    by_rows = {axis.group for wire in wiring.wires if wire.kernel is not None for axis in wire.pre}
    return tuple(group for group in wiring.groups if group not in by_rows)


def of_run(
    wiring: Wiring,
    *,
    gate_input: bool = True,
    gate_features: bool = False,
    analog_input: bool = False,
    held_input: bool = True,
    time_steps: int = 0,
) -> Wiring:
    """Returns a wiring under the options of a run.

    Args:
        wiring: of `described_by`.
        gate_input: whether inputs are sites, where the network says which these are.
        gate_features: whether each value that the first dense layer reads of a feature map is a site.
        analog_input: inputs carry values and not spikes.
        held_input: one input is held for all steps, so that its product is computed once.
        time_steps: how many time steps are sites.

    Raises:
        ValueError: features are to be sites, and nothing reads a feature map.
    """
    wires = tuple(
        wire._replace(
            values="analog" if analog_input and (wire.once or wire.input) else wire.values,
            once=wire.once and held_input,
        )
        for wire in wiring.wires
    )
    neurons = tuple(group._replace(once=group.once and held_input) for group in wiring.neurons)
    wiring = wiring._replace(wires=wires, neurons=neurons)
    wiring = wiring if gate_input else without(wiring, INPUT)
    wiring = _with_features(wiring) if gate_features else wiring
    return wiring._replace(groups={**wiring.groups, TIME: time_steps}) if time_steps else wiring


def _with_features(wiring: Wiring) -> Wiring:
    """Returns a wiring in which each place of the first feature map that is read as a whole is a site too."""
    number = next((number for number, wire in enumerate(wiring.wires) if wire.features), None)
    if number is None:
        names = ", ".join(wire.name for wire in wiring.wires if not wire.recurrent) or "none that it names"
        raise ValueError(
            "features are what a dense layer reads of a convolution's feature map, and this network has none, got the "
            f"layers {names}; set gates.features=false."
        )
    wire = wiring.wires[number]
    own = Axis(FEATURES, -2, np.arange(wire.senders))
    wires = (*wiring.wires[:number], wire._replace(pre=(own, *wire.pre)), *wiring.wires[number + 1 :])
    # sites stand in the order of their layers: before those that read them, and before what is no layer
    groups = list(wiring.groups)
    later = [groups.index(group) for group in (*(axis.group for axis in wire.post), *switched(wiring))]
    at = min(later, default=len(groups))
    sizes = {group: wiring.groups[group] for group in groups[:at]} | {FEATURES: wire.senders}
    return wiring._replace(groups=sizes | {group: wiring.groups[group] for group in groups[at:]}, wires=wires)


def _axes(wiring: Wiring, group: str) -> list[Axis]:
    """Returns every axis of a group."""
    ends = [axis for wire in wiring.wires for axis in (*wire.pre, *wire.post)]
    return [
        axis for axis in (*ends, *(one.site for one in wiring.neurons if one.site is not None)) if axis.group == group
    ]


def _inside(wiring: Wiring) -> list[str]:
    """Returns every ``group:number`` that something lies within or is joined by, if it is one."""
    names = [name for wire in wiring.wires for name in (*wire.within, *wire.joined)]
    names += [name for group in wiring.neurons for name in group.within]
    return [name for name in names if name.rpartition(":")[2].isdigit()]


def _wire(wire: Wire, groups: dict[str, int], shapes: dict[str, tuple[int, ...]], inside: str) -> Wire:
    what = f"wire {wire.name!r}"
    for axis in (*wire.pre, *wire.post):
        _check_axis(what, axis, groups)
    _check_inside(what, (*wire.within, *wire.joined), groups)
    senders, receivers = wire.senders, wire.receivers
    if wire.kernel is not None:
        shape = shapes.get(wire.kernel)
        if shape is None:
            known = ", ".join(shapes)
            raise ValueError(f"{what} must have a kernel that is a parameter, {known}, got {wire.kernel!r}.")
        split = {id(axis) for axis in wire.pre} if wire.groups > 1 else set()
        for axis in (*wire.pre, *wire.post):
            each = wire.groups if id(axis) in split else 1
            if not -len(shape) <= axis.axis < len(shape) or shape[axis.axis] * each != len(axis.index):
                raise ValueError(
                    f"{what} must say a site for each position along an axis of its kernel, {shape}, got "
                    f"{len(axis.index)} along axis {axis.axis}."
                )
        senders = senders or (shape[-2] * wire.groups if len(shape) > 1 else math.prod(shape))
        receivers = receivers or (shape[-1] if len(shape) > 1 else 1)
    senders = senders or max((len(axis.index) for axis in wire.pre), default=0)
    receivers = receivers or max((len(axis.index) for axis in wire.post), default=0)
    if wire.kernel is None and not (senders and receivers):
        raise ValueError(f"{what} without a kernel must say how many senders and receivers it has, got none.")
    for ends, count in ((wire.pre, senders), (wire.post, receivers)):
        for axis in ends:
            if len(axis.index) != count:
                raise ValueError(f"{what} must say a site for each of {count} units, got {len(axis.index)}.")
        if len({axis.group for axis in ends}) < len(ends):
            raise ValueError(f"{what} must name a group once at each end, got {', '.join(a.group for a in ends)}.")
    if wire.values not in ("spikes", "analog"):
        raise ValueError(f'{what} must carry "spikes" or "analog" values, got {wire.values!r}.')
    pre, post = (tuple(map(_filled, axes)) for axes in (wire.pre, wire.post))
    kernel = None if wire.kernel is None else inside + wire.kernel
    reads = wire.input or any(axis.group == INPUT for axis in pre)
    return wire._replace(kernel=kernel, pre=pre, post=post, senders=int(senders), receivers=int(receivers), input=reads)


def _filled(axis: Axis) -> Axis:
    return axis._replace(index=np.asarray(axis.index))


def _check_axis(what: str, axis: Axis, groups: dict[str, int]) -> None:
    if axis.group not in groups:
        raise ValueError(f"{what} must name groups of the wiring, {', '.join(groups)}, got {axis.group!r}.")
    index = np.asarray(axis.index)
    if index.ndim != 1 or not np.issubdtype(index.dtype, np.integer):
        raise ValueError(f"{what} must have one whole number for each position, got {index.dtype} {index.shape}.")
    if len(index) and not -1 <= index.min() <= index.max() < groups[axis.group]:
        raise ValueError(
            f"{what} must name sites 0 to {groups[axis.group] - 1} of {axis.group!r}, or -1 for none, got "
            f"{index.min()} to {index.max()}."
        )


def _check_inside(what: str, names: tuple[str, ...], groups: dict[str, int]) -> None:
    for name in names:
        group, _, number = name.rpartition(":")
        if group not in groups or not number.isdigit() or int(number) >= groups[group]:
            raise ValueError(f'{what} must lie within sites "group:number" of the wiring, got {name!r}.')


def named(wiring: Wiring) -> dict[str, Any]:
    """Returns every parameter that a wiring knows, and along which axes it is cut: lists of `Axis` by name."""
    known: dict[str, list[Axis]] = {}
    for wire in wiring.wires:
        if wire.kernel is not None:
            known.setdefault(wire.kernel, []).extend((*wire.pre, *wire.post))
    for group in wiring.neurons:
        for name, axis in group.arrays.items():
            known.setdefault(name, []).extend([] if group.site is None else [group.site._replace(axis=axis)])
    return known


def over(wire: Wire, sent: dict[str, Any]) -> Any:
    """Returns what was sent over a wire, as the network gave it.

    Args:
        wire: of `described_by`.
        sent: by wire.

    Raises:
        ValueError: nothing was sent under this name.
    """
    if wire.name not in sent:
        known = ", ".join(sent) or "nothing"
        raise ValueError(f"what goes over every wire must be in Output.sent, got {known} without {wire.name!r}.")
    return sent[wire.name]


def in_places(wire: Wire, values: Any, lead: int = 0) -> Any:
    """Returns numbers of what is sent over a wire with the senders last: in places where its fan is by place.

    Args:
        wire: of `described_by`.
        values: one for each.
        lead: leading axes that are not the network's.

    Raises:
        ValueError: they are more or fewer.
    """
    shape = (*np.shape(wire.fan), wire.senders)
    size, each = math.prod(values.shape[lead:]), math.prod(shape)
    if size != each:
        raise ValueError(
            f"over wire {wire.name!r} must go {shape} values an example, got {tuple(values.shape[lead:])}."
        )
    return values.reshape(*values.shape[:lead], *shape)


class Stated(NamedTuple):
    """Neurons of which only the cost of an update is known."""

    said: NeuronCost

    def cost(self) -> NeuronCost:
        """Returns it."""
        return self.said


def priced(group: NeuronGroup) -> Any:
    """Returns what says what an update of these neurons costs: their cell, or what was stated."""
    return Stated(group.cost) if isinstance(group.cost, NeuronCost) else group.cost
