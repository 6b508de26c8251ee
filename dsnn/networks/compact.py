"""A gated network made physically smaller: closed sites leave the kernels, and open gates are folded into them."""

import jax.numpy as jnp
import numpy as np

from dsnn.networks.groups import even
from dsnn.networks.indices import rows_scaled
from dsnn.networks.plan import thinned
from dsnn.networks.select import Select
from dsnn.networks.shrink import compacts, folded, shrunk
from dsnn.networks.stack import Stack
from dsnn.networks.whole import Runnable, Whole
from dsnn.networks.wiring import BLOCKS, FEATURES, INPUT, described_by, of_run, switched
from dsnn.parameters import split
from dsnn.protocols import Wiring
from dsnn.types import Array

__all__ = ["BLOCKS", "FEATURES", "INPUT", "Select", "compact", "kept"]


def compact(model: Runnable, gates: dict[str, Array], *, multiple: int = 1) -> Runnable:
    """Returns the smaller network with the same outputs as ``model`` under ``gates``.

    One that has no ``shrink`` stays as it is.

    Args:
        model: the network, its kernels gated or not where gates are open or closed, else ungated.
        gates: decided gate values by group of its wiring (of a stack: layer names, ``input``, ``features`` and
            ``blocks``), ``[site]`` in [0, 1]; zero is closed. A group that is left out stays whole. A group with no
            open site keeps one, with weight zero, so that every layer exists; but closed residual blocks go as a whole.
        multiple: widths are rounded up to a multiple of it by closed sites that stay, with weight zero. Outputs are the
            same, a vector register is filled anyway, and networks of nearly one size share compiled programs.

    Raises:
        ValueError: a group that the network has not, that is of another size, or that has been thinned already.
    """
    if isinstance(model, Whole) and (not gates or not compacts(model)):
        return model
    model = model.around(folded(model.network)) if isinstance(model, Whole) else folded(model)
    wiring = described_by(model)
    if FEATURES in gates and any(wire.features for wire in wiring.wires):
        wiring = of_run(wiring, gate_features=True)
    values = {name: np.asarray(gate) for name, gate in gates.items()}
    _check(model, wiring, values)
    switches = switched(wiring)
    keep = {
        name: np.flatnonzero(gate > 0) if name in switches else kept(gate, multiple)
        for name, gate in values.items()
        if name != FEATURES
    }
    keep = even(wiring, keep)
    if FEATURES in values:
        keep[FEATURES] = _kept_features(wiring, values[FEATURES], keep, multiple)
    return shrunk(_gated(model, wiring, values), keep)


def kept(gate: Array | np.ndarray, multiple: int = 1) -> np.ndarray:
    """Returns the indices of the open sites in order, with as many closed ones as fill a multiple, at least one."""
    closed = np.asarray(gate) <= 0
    wanted = -(-max(int((~closed).sum()), 1) // multiple) * multiple
    open_first = np.argsort(closed, kind="stable")
    return np.sort(open_first[:wanted])


def _kept_features(wiring: Wiring, gate: np.ndarray, keep: dict[str, np.ndarray], multiple: int) -> np.ndarray:
    """Returns the numbers of the features that stay, among those whose channels do."""
    wire = next(wire for wire in wiring.wires if wire.features)
    there = np.ones(len(gate), bool)
    for axis in wire.pre:
        if axis.group in keep:
            there &= np.isin(axis.index, keep[axis.group])
    channels = np.flatnonzero(there)
    return channels[kept(gate[channels], multiple)]


def _gated(model: Runnable, wiring: Wiring, gates: dict[str, np.ndarray]) -> Runnable:
    """Returns a network whose kernels' rows are scaled by their senders' gates; in NumPy, for nothing to compile."""
    template, params = split(model)
    for wire in wiring.wires:
        for axis in reversed(wire.pre):  # channels before their places
            if axis.group in gates and wire.kernel is not None:
                kernel, gate = np.asarray(params[wire.kernel]), gates[axis.group]
                rows = np.where(axis.index < 0, gate.dtype.type(1), gate[np.maximum(axis.index, 0)])
                scaled = rows_scaled(kernel, rows, axis.axis, wire.groups)
                params[wire.kernel] = jnp.asarray(scaled.astype(kernel.dtype))
    return template.build(params)


def _check(model: Runnable, wiring: Wiring, gates: dict[str, np.ndarray]) -> None:
    """Raises a ValueError for gates that do not fit the network."""
    if unknown := sorted(gates.keys() - wiring.groups.keys()):
        if reader := _thinned_reader(model, unknown[0]):
            raise ValueError(
                f"what {reader!r} reads has been thinned before; compact the whole network by all gates at once."
            )
        layered = "the input, features, blocks, or a hidden layer"
        where = layered if isinstance(model, Stack) else ", ".join(wiring.groups)
        raise ValueError(f"gates must name {where}, got {', '.join(unknown)}.")
    for name, gate in gates.items():
        if len(gate) != wiring.groups[name]:
            each = {INPUT: "input", FEATURES: "value that is read", BLOCKS: "block"}.get(name, "neuron")
            raise ValueError(f"gates of {name!r} must be one per {each}, {wiring.groups[name]}, got {len(gate)}.")
        if isinstance(model, Stack) and name == BLOCKS and set(gate.tolist()) - {0.0, 1.0}:
            raise ValueError(f"gates of blocks must be 0 or 1, got {gate.tolist()}; a block runs or goes.")


def _thinned_reader(model: Runnable, group: str) -> str:
    """Returns what reads a group in part, so that its sites are gone; empty where nothing does."""
    if isinstance(model, Whole):
        return type(model.network).__name__ if group == INPUT and model.kept_inputs is not None else ""
    layers, names = dict(model.layers()), [INPUT, *model.names]
    if group not in names[:-1]:
        return ""
    reader = names[names.index(group) + 1]
    return reader if thinned(layers[reader]) else ""
