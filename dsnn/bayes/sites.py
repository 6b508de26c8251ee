"""Compute sites of a network: where computation could be spared, and what each site costs when it runs.

A site is an input or a neuron (for convolutions a channel). Closing site i removes everything that reads it, so a gate
on i is the same as scaling the rows of the kernels that read i: a gated network is the same network with scaled
kernels, and needs no change of the time loop.
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp

from dsnn.cells import kind
from dsnn.layers import Conv, Dense
from dsnn.models import Stack
from dsnn.parameters import Params
from dsnn.types import Array, Float

INPUT = "input"


@dataclasses.dataclass(frozen=True)
class Wire:
    """One product of the network seen from its sites: events of ``pre`` sites, each reaching ``fan`` targets per post.

    Attributes:
        name: the layer whose kernel this is; recurrent wires end in ".recurrent".
        pre: group of sites that send (None: not gated).
        post: group of sites that receive (None: not gated).
        pre_sites: number of sending sites.
        post_sites: number of receiving sites.
        fan: mean number of targets per event and receiving site; 1 for dense, window over strides for convolutions.
        analog: events carry values, so each costs a multiplication.
        once: the product is computed once per inference and not at every step (a held input).
    """

    name: str
    pre: str | None
    post: str | None
    pre_sites: int
    post_sites: int
    fan: float = 1.0
    analog: bool = False
    once: bool = False

    @property
    def recurrent(self) -> bool:
        """Whether the wire leads back to its own layer."""
        return self.name.endswith(".recurrent")


@dataclasses.dataclass(frozen=True)
class Population:
    """The neurons of one layer: their group of sites (None: not gated), sites, neurons per site, and kind of cell."""

    name: str
    group: str | None
    sites: int
    neurons_per_site: int
    kind: str


@dataclasses.dataclass(frozen=True)
class Sites:
    """The compute sites of a stack.

    Attributes:
        groups: number of sites by group name; ``input`` for inputs, else the layer's name.
        wires: the products between them.
        populations: the neurons.
    """

    groups: dict[str, int]
    wires: tuple[Wire, ...]
    populations: tuple[Population, ...]

    @property
    def total(self) -> int:
        """Number of sites in all groups."""
        return sum(self.groups.values())

    def unflatten(self, flat: Float[Array, " site"]) -> dict[str, Array]:
        """Returns one array per group from a flat array over all sites."""
        out, start = {}, 0
        for name, size in self.groups.items():
            out[name] = flat[..., start : start + size]
            start += size
        return out


def sites(model: Stack, *, gate_input: bool = True, analog_input: bool = True, held_input: bool = True) -> Sites:
    """Returns the sites of a stack: its inputs and every layer but the last, which answers and cannot be spared.

    Args:
        model: the network.
        gate_input: whether inputs are sites.
        analog_input: inputs carry values and not spikes.
        held_input: one input is held for all steps, so that its product is computed once.
    """
    groups: dict[str, int] = {}
    wires: list[Wire] = []
    populations: list[Population] = []
    layers = list(model.layers())
    pre: str | None = None
    for index, (name, layer) in enumerate(layers):
        first, last = index == 0, index == len(layers) - 1
        pre_sites = math.prod(layer.in_shape) if isinstance(layer.synapse, Dense) and first else layer.in_shape[-1]
        if first and gate_input and pre_sites > 1:
            groups[INPUT], pre = pre_sites, INPUT
        elif not first:
            pre_sites = layers[index - 1][1].out_shape[-1]
        post = None if last else name
        post_sites = layer.out_shape[-1]
        analog = (first and analog_input) or any(m.kind == "mean" for m in layer.before)
        wires.append(Wire(name, pre, post, pre_sites, post_sites, _fan(layer), analog, first and held_input))
        if layer.recurrent is not None:
            wires.append(Wire(f"{name}.recurrent", post, post, post_sites, post_sites))
        neurons = math.prod(layer.out_shape) // post_sites
        populations.append(Population(name, post, post_sites, neurons, kind(layer.cell)))
        if not last:
            groups[name] = post_sites
        pre = post
    return Sites(groups, tuple(wires), tuple(populations))


def _fan(layer: Any) -> float:
    """Mean number of target positions per input event and output channel, borders counted."""
    synapse = layer.synapse
    if not isinstance(synapse, Conv):
        return 1.0
    counts = [
        _connections(n, out, w, s, synapse.padding) / n
        for n, out, w, s in zip(
            synapse.in_shape[:2], synapse.out_shape[:2], synapse.window, synapse.strides, strict=True
        )
    ]
    return math.prod(counts)


def _connections(n: int, out: int, window: int, stride: int, padding: str) -> int:
    """Number of (input, output) pairs of a one-dimensional convolution that are really connected."""
    low = max((out - 1) * stride + window - n, 0) // 2 if padding == "SAME" else 0
    return sum(min(o * stride - low + window, n) - max(o * stride - low, 0) for o in range(out))


def gate(sites: Sites, params: Params, z: dict[str, Array]) -> Params:
    """Returns the parameters of the network with gates ``z``: each reading kernel's rows scaled by its senders' gates.

    Args:
        sites: from `sites`.
        params: parameters by name.
        z: gate values by group, ``[site]`` in [0, 1].
    """
    gated = dict(params)
    for wire in sites.wires:
        if wire.pre is None:
            continue
        name = wire.name if wire.recurrent else f"{wire.name}.synapse.kernel"
        kernel = gated[name]
        # channels are last, so a flattened feature map repeats its channels along the rows
        rows = jnp.tile(z[wire.pre], kernel.shape[-2] // wire.pre_sites)
        gated[name] = kernel * rows[:, None]
    return gated


def measure(sites: Sites, model: Stack, inputs: Array, spikes: dict[str, Array], *, held: bool) -> dict[str, Array]:
    """Returns the events that each wire carried, ``[pre site]``: means over time and batch, summed over positions.

    Args:
        sites: from `sites`.
        model: the network that ran (its pooling is applied before counting).
        inputs: what it was given, ``[time, batch, ...]`` or held ``[batch, ...]``.
        spikes: output of each layer, ``[time, batch, ...]``.
        held: whether the input was held.
    """
    out: dict[str, Array] = {}
    before = inputs[None] if held else inputs
    for name, layer in model.layers():
        x = before
        for module in layer.before:
            x = module(x.reshape(-1, *x.shape[2:])).reshape(*x.shape[:2], *module.out_shape)
        active = (x != 0).astype(jnp.float32).mean((0, 1))
        wire = next(w for w in sites.wires if w.name == name)
        out[name] = active.reshape(-1, wire.pre_sites).sum(0)
        if layer.recurrent is not None:
            out[f"{name}.recurrent"] = (spikes[name] != 0).astype(jnp.float32).mean((0, 1))
        before = spikes[name]
    return out
