"""A network that describes itself, made smaller: what is closed leaves its parameters."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.layers import Conv, Dense, Layer
from dsnn.networks.whole import INSIDE, Whole
from dsnn.networks.wiring import described_by, named, switched
from dsnn.types import Array

__all__ = ["cut", "shrunk"]

INPUT = "input"


def cut(network: Any, keep: dict[str, np.ndarray]) -> Any:
    """Returns a network whose parameters hold only the sites that are kept, as its wiring says.

    It is what ``shrink`` of most networks returns. The network has to read its widths from its kernels; those of
    `dsnn.layers.Dense` and `Conv` inside it are set. Numbers are left as they are: kernels hold their gates already.

    Args:
        network: a `dsnn.protocols.Gateable`.
        keep: by group, the numbers of the sites that stay, in order, or a mask of them; a group that is left out stays
            whole.

    Raises:
        ValueError: a group that the network has not, or a parameter that its wiring does not know.
    """
    keep = {name: np.flatnonzero(s) if np.asarray(s).dtype == bool else np.asarray(s) for name, s in keep.items()}
    wiring = described_by(Whole(network))
    if unknown := sorted(keep.keys() - wiring.groups.keys()):
        raise ValueError(f"keep must name groups of the wiring, {', '.join(wiring.groups)}, got {unknown[0]!r}.")
    known = {name.removeprefix(INSIDE): axes for name, axes in named(wiring).items()}
    graph, state = nnx.split(network)
    flat = []
    for path, variable in nnx.to_flat_state(state):
        if not isinstance(variable, nnx.Variable):  # a gate that the network holds itself
            flat.append((path, variable))
            continue
        name, array = ".".join(map(str, path)), np.asarray(variable[...])
        own = name not in known and array.ndim and isinstance(variable, nnx.Param)
        if own and ".cell." not in name:  # what a cell shares among its neurons stays as it is
            raise ValueError(
                "the wiring must name every parameter, as the kernel of a wire or among the arrays of neurons, so that "
                f"it can be cut, got {name!r} of shape {array.shape} that it does not name."
            )
        stay: dict[int, np.ndarray] = {}
        for axis in known.get(name, ()):
            if axis.group in keep:
                at = axis.axis % array.ndim
                stay[at] = stay.get(at, True) & _stays(np.asarray(axis.index), keep[axis.group])
        for at, chosen in stay.items():
            array = np.compress(chosen, array, axis=at)
        flat.append((path, variable.replace(jnp.asarray(array))))
    small = nnx.merge(graph, nnx.from_flat_state(flat))
    for _, module in nnx.iter_modules(small):
        _resize(module)
    return small


def _stays(index: np.ndarray, keep: np.ndarray) -> np.ndarray:
    return (index < 0) | np.isin(index, keep)


def _resize(module: Any) -> None:
    """Sets what a synapse knows of its own size to that of its kernel."""
    if isinstance(module, Dense):
        rows, columns = module.kernel.shape
        module.out_shape = (columns,)
        module.in_shape = module.in_shape if math.prod(module.in_shape) == rows else (rows,)
    elif isinstance(module, Conv):
        *_, channels, features = module.kernel.shape
        module.in_shape, module.out_shape = (*module.in_shape[:-1], channels), (*module.out_shape[:-1], features)
    elif isinstance(module, Layer):
        rows = module.synapse.kernel.shape[-2]
        for pool in module.before:
            kept = rows if isinstance(module.synapse, Conv) else rows // math.prod(pool.out_shape[:-1])
            pool.in_shape, pool.out_shape = (*pool.in_shape[:-1], kept), (*pool.out_shape[:-1], kept)


def compacts(model: Any) -> bool:
    """Returns whether a network can be made smaller: a stack, or one of the user's own that says how."""
    return not isinstance(model, Whole) or callable(getattr(model.network, "shrink", None))


def shrunk(model: Whole, gates: dict[str, Array], kept: Any) -> Whole:
    """Returns the smaller network of decided gates; one that has no ``shrink`` as it is.

    Args:
        model: the network, whose kernels hold their gates.
        gates: by group, ``[site]``; zero is closed.
        kept: ``gate -> numbers of the sites that stay``, see `dsnn.compact.kept`.
    """
    wiring = described_by(model)
    if not compacts(model) or not gates:
        return model
    switches = switched(model)
    keep = {
        name: np.flatnonzero(np.asarray(gate) > 0) if name in switches else kept(gate)
        for name, gate in gates.items()
        if name in wiring.groups
    }
    small = model.network.shrink(dict(keep))
    if INPUT not in keep:
        return model.around(small)
    # sites of the input are its channels, or all of its values
    flat = len(model.in_shape) > 1 and wiring.groups[INPUT] != model.in_shape[-1]
    new = Whole(small, keep[INPUT], model.in_shape, flat=flat)
    return new if model.scaling is None else new.scaled(*(part[...] for part in model.scaling))
