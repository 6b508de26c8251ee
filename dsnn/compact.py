"""A gated network made physically smaller: closed sites leave the kernels, and open gates are folded into them."""

import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.layers import Conv, Dense, Layer
from dsnn.models import Stack
from dsnn.networks.shrink import shrunk
from dsnn.networks.whole import Runnable, Whole
from dsnn.types import Array, Float

INPUT, FEATURES, BLOCKS = "input", "features", "blocks"


class Select(nnx.Module):
    """Takes the inputs that are still read from each (flattened) example.

    Args:
        in_shape: shape of one full input, or of the feature map that a dense layer reads.
        keep: flat indices of the inputs to keep; channels when the input is an image that a convolution reads.
        channels: whether ``keep`` indexes the last axis instead of the flattened input.
    """

    def __init__(self, in_shape: tuple[int, ...], keep: np.ndarray, *, channels: bool = False):
        self.in_shape, self.channels = in_shape, channels
        self.keep = nnx.Variable(jnp.asarray(keep, jnp.int32))
        self.out_shape = (*in_shape[:-1], len(keep)) if channels else (len(keep),)
        self.kind = "select"

    def __call__(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Returns the kept inputs."""
        x = x if self.channels else x.reshape(x.shape[0], -1)
        return jnp.take(x, self.keep[...], axis=-1)


def compact(model: Runnable, gates: dict[str, Array], *, multiple: int = 1) -> Runnable:
    """Returns the smaller network with the same outputs as ``model`` under ``gates``.

    Args:
        model: the ungated network.
        gates: decided gate values by group (layer names, ``input``, ``features`` and ``blocks``), ``[site]`` in [0, 1];
            zero is closed. A group that is left out stays whole. A group with no open site keeps one, with weight
            zero, so that every layer exists; but closed residual blocks go as a whole.
        multiple: widths are rounded up to a multiple of it by closed sites that stay, with weight zero. Outputs are the
            same, a vector register is filled anyway, and networks of nearly one size share compiled programs.

    Raises:
        ValueError: a group that the network has not, that is of another size, or that has been thinned already.
    """
    if isinstance(model, Whole):
        return shrunk(model, gates, functools.partial(kept, multiple=multiple))
    names = [name for name, _ in model.layers()]
    maps = [n for n, layer in model.layers() if isinstance(layer.synapse, Dense) and len(layer.in_shape) == 3]
    reads = maps[0] if maps and maps[0] != names[0] else ""  # what the first layer reads are inputs
    known = {INPUT, BLOCKS, *names[:-1]}.difference(model.blocks) | ({FEATURES} if reads else set())
    unknown = sorted(gates.keys() - known)
    if unknown:
        raise ValueError(f"gates must name the input, features, blocks, or a hidden layer, got {', '.join(unknown)}.")
    layers: dict[str, Layer] = {}
    sender = gates.get(INPUT)
    share = np.asarray(gates[BLOCKS]) if BLOCKS in gates else np.ones(len(model.blocks))
    if set(share.tolist()) - {0.0, 1.0}:
        raise ValueError(f"gates of blocks must be 0 or 1, got {share.tolist()}; a block runs or goes.")
    for index, (name, layer) in enumerate(model.layers()):
        if layer.skip and not share[model.blocks.index(name)]:
            continue
        receiver = sender if layer.skip else gates.get(name)
        if sender is not None and any(module.kind == "select" for module in layer.before):
            raise ValueError(
                f"what {name!r} reads has been thinned before; compact the whole network by all gates at once."
            )
        new = _compact_layer(layer, sender, receiver, name, multiple, first=index == 0)
        if name == reads and FEATURES in gates:
            _thin(new, gates[FEATURES], math.prod(layer.synapse.in_shape), sender, multiple)
        layers[name], sender = new, receiver
    return Stack(model.readout_kind, **layers)


def kept(gate: Array, multiple: int = 1) -> np.ndarray:
    """Returns the indices of the open sites in order, with as many closed ones as fill a multiple, at least one."""
    closed = np.asarray(gate) <= 0
    wanted = -(-max(int((~closed).sum()), 1) // multiple) * multiple
    open_first = np.argsort(closed, kind="stable")
    return np.sort(open_first[:wanted])


def _compact_layer(
    layer: Layer, sender: Array | None, receiver: Array | None, name: str, multiple: int, *, first: bool
) -> Layer:
    synapse = nnx.clone(layer.synapse)
    recurrent = layer.recurrent
    kernel = np.asarray(synapse.kernel[...])
    before: list[Any] = [nnx.clone(module) for module in layer.before]
    if sender is not None:
        sites = len(sender)
        if kernel.shape[-2] % sites:
            raise ValueError(f"gates before {name!r} must divide its {kernel.shape[-2]} inputs, got {sites} gates.")
        keep = kept(sender, multiple)
        kernel = _keep_rows(kernel * _rows(sender, kernel.shape[-2])[:, None], keep, sites)
        if first:
            channels = isinstance(synapse, Conv)
            before.insert(0, Select(layer.in_shape, keep, channels=channels))
        for module in before[1:] if first else before:
            module.in_shape = (*module.in_shape[:-1], len(keep))
            module.out_shape = (*module.out_shape[:-1], len(keep))
        flat = isinstance(synapse, Dense)
        synapse.in_shape = _fewer(synapse.in_shape, sites, len(keep), flat and first)
    if receiver is not None:
        keep = kept(receiver, multiple)
        if len(receiver) != kernel.shape[-1]:
            raise ValueError(f"gates of {name!r} must be one per neuron, {kernel.shape[-1]}, got {len(receiver)}.")
        kernel = kernel[..., keep]
        if synapse.bias is not None:
            synapse.bias = nnx.Param(jnp.asarray(np.asarray(synapse.bias[...])[keep]))
        synapse.out_shape = (*synapse.out_shape[:-1], len(keep))
    synapse.kernel = nnx.Param(jnp.asarray(kernel))
    cell = _compact_cell(layer.cell, receiver, multiple)
    new = Layer(synapse, cell, before=tuple(before), reads=layer.reads, skip=layer.skip)
    if recurrent is not None:
        back = np.asarray(recurrent[...])
        if receiver is not None:
            keep = kept(receiver, multiple)
            back = (back * np.asarray(receiver)[:, None])[np.ix_(keep, keep)]
        new.recurrent = nnx.data(nnx.Param(jnp.asarray(back)))
    return new


def _thin(layer: Layer, gate: Array, size: int, channels: Array | None, multiple: int) -> None:
    """Leaves a dense layer only the open places of the feature map that it reads, whose closed channels are gone."""
    if len(gate) != size:
        raise ValueError(f"gates of features must be one per value that is read, {size}, got {len(gate)}.")
    synapse = layer.synapse
    if channels is not None:
        gate = gate.reshape(-1, len(channels))[:, kept(channels, multiple)].ravel()
    keep = kept(gate, multiple)
    kernel = np.asarray(synapse.kernel[...]) * np.asarray(gate)[:, None]
    synapse.kernel = nnx.Param(jnp.asarray(kernel[keep]))
    layer.before.append(Select(tuple(synapse.in_shape), keep))
    synapse.in_shape = (len(keep),)


def _rows(gate: Array, rows: int) -> np.ndarray:
    return np.tile(np.asarray(gate), rows // len(gate))


def _keep_rows(kernel: np.ndarray, keep: np.ndarray, sites: int) -> np.ndarray:
    """Keeps the rows of the kept sites; a flattened feature map repeats its channels along the rows."""
    *lead, rows, out = kernel.shape
    return kernel.reshape(*lead, rows // sites, sites, out)[..., keep, :].reshape(*lead, -1, out)


def _fewer(shape: tuple[int, ...], sites: int, keep: int, flat: bool) -> tuple[int, ...]:
    return (keep,) if flat else (*shape[:-1], shape[-1] // sites * keep)


def _compact_cell(cell: Any, receiver: Array | None, multiple: int) -> Any:
    """Returns the cell with its per-neuron arrays cut to the kept sites; one of a user's may know how, by ``cut``."""
    keep = None if receiver is None else kept(receiver, multiple)
    if keep is not None and callable(own := getattr(cell, "cut", None)):
        return own(keep)
    if not isinstance(cell, nnx.Module):
        return cell
    new = nnx.clone(cell)
    if receiver is None or keep is None:
        return new

    def cut(variable: Any) -> Any:
        array = variable[...]
        whole = array.ndim and array.shape[-1] == len(receiver)
        return variable.replace(jnp.asarray(np.take(np.asarray(array), keep, axis=-1))) if whole else variable

    graphdef, state = nnx.split(new)
    flat = [(path, cut(variable)) for path, variable in nnx.to_flat_state(state)]
    return nnx.merge(graphdef, nnx.from_flat_state(flat))
