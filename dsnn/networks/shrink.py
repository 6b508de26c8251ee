"""A network that describes itself, made smaller: what is closed leaves its parameters."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.networks.groups import cut_groups, even, stays
from dsnn.networks.layers import Conv, Dense, Layer
from dsnn.networks.leaves import multiplies
from dsnn.networks.plan import NEURONS
from dsnn.networks.select import Select
from dsnn.networks.stack import Stack
from dsnn.networks.whole import INSIDE, Runnable, Whole
from dsnn.networks.wiring import FEATURES, INPUT, described_by, named
from dsnn.parameters import folded
from dsnn.protocols import Axis, Wire, Wiring

__all__ = ["INPUT", "compacts", "compressed", "cut", "folded", "shrunk"]

KERNEL = ".synapse.kernel"


def cut(network: Any, keep: dict[str, np.ndarray]) -> Any:
    """Returns a network whose parameters hold only the sites that are kept, as its wiring says.

    It is what ``shrink`` of most networks returns. The network has to read its widths from its kernels; those of
    `dsnn.networks.layers.Dense` and `Conv` inside it are set, and cells that have ``cut`` are asked. Layers are folded
    first (`dsnn.networks.layers.Layer.fold`). Numbers are left as they are: kernels hold their gates already.

    Args:
        network: a `dsnn.protocols.Gateable`.
        keep: by group, the numbers of the sites that stay, in order, or a mask of them; a group that is left out stays
            whole. ``features`` are the places of the feature map that a layer reads, see `dsnn.protocols.Wire`.

    Raises:
        ValueError: a group that the network has not, or a parameter that its wiring does not know.
    """
    return compressed(folded(network), keep)


def compressed(network: Any, keep: dict[str, np.ndarray]) -> Any:
    """Returns what `cut` does of a network whose norms are not folded first: those of channels that stay, stay.

    Arguments and errors are those of `cut`.
    """
    keep = {name: np.flatnonzero(s) if np.asarray(s).dtype == bool else np.asarray(s) for name, s in keep.items()}
    wiring = _plain(network)
    features = keep.pop(FEATURES, None)
    if unknown := sorted(keep.keys() - wiring.groups.keys()):
        raise ValueError(f"keep must name groups of the wiring, {', '.join(wiring.groups)}, got {unknown[0]!r}.")
    known, keep = named(wiring), even(wiring, keep)
    grouped = {wire.kernel: wire for wire in wiring.wires if wire.groups > 1}
    left: dict[str, int] = {}
    graph, state = nnx.split(network)
    flat = []
    for path, variable in nnx.to_flat_state(state):
        if not isinstance(variable, nnx.Variable):  # a gate that the network holds itself
            flat.append((path, variable))
            continue
        name, array = ".".join(map(str, path)), np.asarray(variable[...])
        own = name not in known and array.ndim and isinstance(variable, nnx.Param)
        # what a cell shares among its neurons, or a norm among its channels, stays as it is
        if own and ".cell." not in name and ".norm." not in name:
            raise ValueError(
                "the wiring must name every parameter, as the kernel of a wire or among the arrays of neurons, so that "
                f"it can be cut, got {name!r} of shape {array.shape} that it does not name."
            )
        if name in grouped:
            array, left[name] = cut_groups(grouped[name], array, keep)
            flat.append((path, variable.replace(jnp.asarray(array))))
            continue
        for at in {axis.axis % array.ndim for axis in known.get(name, ())}:
            along = [axis for axis in known[name] if axis.axis % array.ndim == at]
            array = np.compress(stays(along, array.shape[at], keep), array, axis=at)
        flat.append((path, variable.replace(jnp.asarray(array))))
    small = nnx.merge(graph, nnx.from_flat_state(flat))
    for name, groups in left.items():
        _at(small, name.split(".")[:-1]).groups = groups
    for _, module in nnx.iter_modules(small):
        _resize(module)
    _cut_neurons(network, small, wiring, keep)
    if features is not None:
        _thin(small, wiring, keep, features)
    return small


def compacts(model: Any) -> bool:
    """Returns whether a network can be made smaller: a stack, or one of the user's own that says how."""
    return callable(getattr(model.network if isinstance(model, Whole) else model, "shrink", None))


def shrunk(model: Runnable, keep: dict[str, np.ndarray]) -> Runnable:
    """Returns the smaller network of the sites that are kept.

    Args:
        model: a network for which `compacts` holds, whose kernels hold their gates.
        keep: numbers of the sites that stay, by group.
    """
    if isinstance(model, Stack):
        return model.shrink(keep)
    small, sizes = model.network.shrink(dict(keep)), described_by(model).groups
    if INPUT not in keep:
        return model.around(small)
    # sites of the input are its channels, or all of its values
    flat = len(model.in_shape) > 1 and sizes[INPUT] != model.in_shape[-1]
    new = Whole(small, keep[INPUT], model.in_shape, flat=flat)
    return new if model.scaling is None else new.scaled(*(part[...] for part in model.scaling))


def _plain(network: Any) -> Wiring:
    """Returns a network's wiring by the names that its own parameters have."""
    if isinstance(network, Stack):
        return described_by(network)
    found = described_by(Whole(network))
    wires = (
        wire._replace(kernel=None if wire.kernel is None else wire.kernel.removeprefix(INSIDE)) for wire in found.wires
    )
    neurons = (
        group._replace(arrays={name.removeprefix(INSIDE): axis for name, axis in group.arrays.items()})
        for group in found.neurons
    )
    return Wiring(found.groups, tuple(wires), tuple(neurons))


def _at(network: Any, path: Any) -> Any:
    """Returns the module at a path."""
    for name in path:
        network = network[name] if isinstance(name, int) else getattr(network, name)
    return network


def _resize(module: Any) -> None:
    """Sets what a synapse knows of its own size to that of its kernel."""
    if isinstance(module, Dense):
        rows, columns = module.kernel.shape
        places = math.prod(module.in_shape[:-1])
        module.out_shape = (columns,)
        if math.prod(module.in_shape) != rows:
            module.in_shape = (*module.in_shape[:-1], rows // places) if rows % places == 0 else (rows,)
    elif isinstance(module, Conv):
        *_, channels, features = module.kernel.shape
        module.in_shape = (*module.in_shape[:-1], channels * module.groups)
        module.out_shape = (*module.out_shape[:-1], features)
    elif isinstance(module, Layer):
        if not multiplies(module):
            return  # it has no kernel to go by, see `_cut_neurons`
        pools = [before for before in module.before if not isinstance(before, Select)]
        if len(pools) < len(module.before) and isinstance(module.synapse, Dense):
            return  # what has been thinned before is not cut again
        rows = module.synapse.kernel.shape[-2]
        for pool in pools:
            conv = isinstance(module.synapse, Conv)
            kept = rows * module.synapse.groups if conv else rows // math.prod(pool.out_shape[:-1])
            _set_channels(pool, kept)


def _set_channels(module: Any, channels: int) -> None:
    """Sets the channels of what keeps them, such as pooling."""
    module.in_shape, module.out_shape = (*module.in_shape[:-1], channels), (*module.out_shape[:-1], channels)


def _cut_neurons(network: Any, small: Any, wiring: Wiring, keep: dict[str, np.ndarray]) -> None:
    """Asks cells that know how for those of the neurons that stay, and tells what has no kernel how many these are."""
    receivers: dict[str, tuple[Axis, ...]] = {wire.kernel: wire.post for wire in wiring.wires if wire.kernel}
    read = {group.name: (group.site,) for group in wiring.neurons if group.site is not None}
    for path, layer in nnx.iter_modules(small):
        if not isinstance(layer, Layer):
            continue
        name, alone = ".".join(map(str, path)), not multiplies(layer)
        axes = read.get(name + NEURONS, ()) if alone else receivers.get(name + KERNEL, ())
        if not any(axis.group in keep for axis in axes):
            continue
        stay = np.flatnonzero(stays(axes, len(axes[0].index), keep))
        if alone:
            for module in (*layer.before, layer.synapse):
                _set_channels(module, len(stay))
        if callable(getattr(layer.cell, "cut", None)):
            layer.cell = _at(network, path).cell.cut(stay)


def _thin(small: Any, wiring: Wiring, keep: dict[str, np.ndarray], features: np.ndarray) -> None:
    """Leaves a layer only some places of the feature map that it reads, whose closed channels are gone."""
    wire: Wire | None = next((wire for wire in wiring.wires if wire.features), None)
    layer = None if wire is None or wire.kernel is None else _at(small, wire.kernel.removesuffix(KERNEL).split("."))
    if wire is None or not isinstance(layer, Layer):
        raise ValueError("features can be cut where a dsnn.networks.Layer reads them, got a network without such.")
    channels = np.flatnonzero(stays(wire.pre, wire.senders, keep))
    rows = np.searchsorted(channels, features[np.isin(features, channels)])
    synapse = layer.synapse
    synapse.kernel = nnx.Param(jnp.asarray(np.asarray(synapse.kernel[...])[rows]))
    layer.before = nnx.List([*layer.before, Select(tuple(synapse.in_shape), rows)])
    synapse.in_shape = (len(rows),)
