"""Compute sites of a network: where computation could be spared, and what each site costs when it runs.

A site is an input, a neuron (for convolutions a channel), a feature (one place of one channel, as the first dense layer
reads it), a residual block or a time step. Closing an input or neuron removes everything that reads it, so its gate is
the same as scaling the rows of the kernels that read it. A feature is read where its channel runs and its own gate is
open. A closed block passes its input on. A closed time step is skipped: no layer runs, and every state stays as it was.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dsnn import forward
from dsnn.cells import kind
from dsnn.energy import priced_as
from dsnn.layers import Conv, Dense
from dsnn.networks.reach import reach
from dsnn.networks.whole import Runnable, Whole
from dsnn.networks.wiring import described_by, over, priced, switched
from dsnn.parameters import Params
from dsnn.types import Array, Float, Shaped

INPUT, FEATURES, TIME, BLOCKS = "input", "features", "time", "blocks"


class Ends(NamedTuple):
    """Which site of a group each unit at one end of a wire is: ``index`` has one number for each, -1 for none."""

    group: str
    index: np.ndarray  # type: ignore[assignment]  # the field's name, of a tuple's method
    axis: int = -2

    def of(self, values: Float[Array, " site"]) -> Float[Array, " unit"]:
        """Returns the values of each unit's site; 1 where it has none."""
        return jnp.where(self.index < 0, 1.0, values[np.maximum(self.index, 0)])


@dataclasses.dataclass(frozen=True)
class Wire:
    """One product of the network seen from its sites: events of ``pre`` sites, each reaching ``fan`` targets per post.

    Attributes:
        name: the layer whose kernel this is; recurrent wires end in ".recurrent".
        pre: group of sites that send (None: not gated).
        post: group of sites that receive (None: not gated).
        pre_sites: number of sending sites.
        post_sites: number of receiving sites.
        fan: number of targets per event and receiving site, the mean over the places of the input; 1 for dense. What
            `measure` gives weighs each event by the fan of its own place, so that events times fan is exact.
        analog: events carry values, so each costs a multiplication.
        once: the product is computed once per inference and not at every step (a held input).
        block: number of the residual block that it leads into, which has to run too; None outside of blocks.
        joined: numbers of the residual blocks whose spikes are added to what it reads; where one of them runs, events
            are sums and carry values.
        within: group of channels whose places the sending sites are, the last axis of their order; each sends where its
            channel runs as well. None where sites send by themselves.
        senders: of a network that describes itself: the groups that must all be open for a unit to send, in place of
            ``pre``; ``pre_sites`` counts units then, and ``post_sites`` receiving ones.
        receivers: the same of the receiving units, in place of ``post``.
        inside: sites (group, number) that have to run too, such as a head.
        kernel: name of the parameter whose rows the senders' gates scale; None is the layer's own, "" is none.
        places: targets of an event by place over ``fan``, their mean, of what is sent in places; None is one.
        sums: as ``joined``, the sites (group, number).
        back: it leads back to its own layer.
    """

    name: str
    pre: str | None
    post: str | None
    pre_sites: int
    post_sites: int
    fan: float = 1.0
    analog: bool = False
    once: bool = False
    block: int | None = None
    joined: tuple[int, ...] = ()
    within: str | None = None
    senders: tuple[Ends, ...] = ()
    receivers: tuple[Ends, ...] = ()
    inside: tuple[tuple[str, int], ...] = ()
    kernel: str | None = None
    places: Float[np.ndarray, "..."] | None = None
    back: bool = False
    sums: tuple[tuple[str, int], ...] = ()

    @property
    def recurrent(self) -> bool:
        """Whether the wire leads back to its own layer."""
        return self.back or self.name.endswith(".recurrent")

    @property
    def weights(self) -> str:
        """Name of the parameter whose rows the senders' gates scale; empty where there is none."""
        if self.kernel is not None:
            return self.kernel
        return self.name if self.recurrent else f"{self.name}.synapse.kernel"

    def sending(self, values: dict[str, Array]) -> Float[Array, " site"]:
        """Returns gate values (or open probabilities) by group as those of the sending sites; 1 where none is gated."""
        if self.senders:
            return math.prod((ends.of(values[ends.group]) for ends in self.senders), start=jnp.ones(self.pre_sites))
        if self.pre is None:
            return jnp.ones(self.pre_sites)
        own = values[self.pre]
        return own if self.within is None else own * _places(values[self.within], self.pre_sites)

    def receiving(self, values: dict[str, Array]) -> Float[Array, " site"]:
        """Returns the same of the receiving sites."""
        if self.receivers:
            return math.prod((ends.of(values[ends.group]) for ends in self.receivers), start=jnp.ones(self.post_sites))
        return values[self.post] if self.post else jnp.ones(self.post_sites)

    def pairs(self, values: dict[str, Array], rate: Float[Array, " site"]) -> Float[Array, ""]:
        """Returns the expected number of events that reach a receiver that runs, of independent gates.

        A site at both ends is one gate, and counts once: so does one that everything here lies inside of.
        """
        for group, number in self.inside:
            if group in values:
                values = values | {group: values[group].at[number].set(1.0)}
        sending, receiving = self.sending(values), self.receiving(values)
        total = (sending * rate).sum() * receiving.sum()
        if not self.senders:
            if self.pre is not None and self.pre == self.post:  # a site wired to itself
                total = total + (sending * (1 - sending) * rate).sum()
            return total
        into = {ends.group: ends for ends in self.receivers}
        if not any(ends.group in into for ends in self.senders):
            return total
        together = rate[:, None] * jnp.ones(self.post_sites)
        for ends in self.senders:
            p, other = ends.of(values[ends.group])[:, None], into.pop(ends.group, None)
            if other is not None:  # one gate where both ends are one site
                same = (ends.index[:, None] == other.index) & (other.index >= 0)
                p = jnp.where(same, p, p * other.of(values[ends.group]))
            together = together * p
        for other in into.values():
            together = together * other.of(values[other.group])
        return together.sum()


@dataclasses.dataclass(frozen=True)
class Population:
    """The neurons of one layer: their group of sites (None: not gated), sites, neurons per site, and kind of cell.

    ``block`` is the number of the residual block that they are, None outside of blocks. In a network that describes
    itself ``ends`` says which site each of them is, and ``inside`` which others have to run too.
    """

    name: str
    group: str | None
    sites: int
    neurons_per_site: int
    kind: str
    block: int | None = None
    ends: Ends | None = None
    inside: tuple[tuple[str, int], ...] = ()

    def running(self, values: dict[str, Array]) -> Any:
        """Returns the expected number of neurons that are updated, but for their block."""
        if self.ends is None:
            return (values[self.group].sum() if self.group else float(self.sites)) * self.neurons_per_site
        for group, number in self.inside:
            if group in values:
                values = values | {group: values[group].at[number].set(1.0)}
        return self.ends.of(values[self.ends.group]).sum() * self.neurons_per_site


@dataclasses.dataclass(frozen=True)
class Sites:
    """The compute sites of a network.

    Attributes:
        groups: number of sites by group name; ``input`` for inputs, ``features`` for what the first dense layer reads
            of a feature map, ``time`` for time steps, ``blocks`` for residual blocks, else the layer's name.
        wires: the products between them.
        populations: the neurons.
        switches: groups whose sites run or do not, and that the network itself opens and closes: no kernel's rows do.
    """

    groups: dict[str, int]
    wires: tuple[Wire, ...]
    populations: tuple[Population, ...]
    switches: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Number of sites in all groups."""
        return sum(self.groups.values())

    def unflatten(self, flat: Shaped[Array, " site"]) -> dict[str, Array]:
        """Returns one array per group from a flat array over all sites."""
        out, start = {}, 0
        for name, size in self.groups.items():
            out[name] = flat[..., start : start + size]
            start += size
        return out

    def reachable(self, z: dict[str, Array]) -> dict[str, Array]:
        """Returns gates in which a feature whose channel is closed is closed too."""
        return self._times(z, {name: (value > 0).astype(value.dtype) for name, value in z.items()})

    def running(self, p: dict[str, Array]) -> dict[str, Array]:
        """Returns the probability that each site runs from that of its gate: a feature runs where its channel does."""
        return self._times(p, p)

    def _times(self, z: dict[str, Array], by: dict[str, Array]) -> dict[str, Array]:
        nested = {w.pre: w.within for w in self.wires if w.pre is not None and w.within is not None}
        return {n: v * _places(by[nested[n]], len(v)) if n in nested else v for n, v in z.items()}


def sites(
    model: Runnable,
    *,
    gate_input: bool = True,
    gate_features: bool = False,
    analog_input: bool = True,
    held_input: bool = True,
    time_steps: int = 0,
) -> Sites:
    """Returns the sites of a stack, its inputs and every layer but the last, or what another network says of itself.

    Args:
        model: the network.
        gate_input: whether inputs are sites.
        gate_features: whether each value that the first dense layer reads of a feature map is a site.
        analog_input: inputs carry values and not spikes.
        held_input: one input is held for all steps, so that its product is computed once.
        time_steps: how many time steps are sites, each of which may be skipped by the whole network; 0 is none.

    What a compacted network reads in part has no sites of its own left: the inputs and channels of which some places
    are read and others not.

    Raises:
        ValueError: features are to be sites, and no dense layer reads a feature map.
    """
    if isinstance(model, Whole):
        if gate_features:
            raise ValueError("features are sites of stacks, got a network of one's own; set gates.features=false.")
        return described(model, gate_input=gate_input, analog_input=analog_input, held=held_input, steps=time_steps)
    groups: dict[str, int] = {}
    wires: list[Wire] = []
    populations: list[Population] = []
    layers = list(model.layers())
    pre: str | None = None
    joined: tuple[int, ...] = ()
    for index, (name, layer) in enumerate(layers):
        first, last = index == 0, index == len(layers) - 1
        pre_sites = math.prod(layer.in_shape) if isinstance(layer.synapse, Dense) and first else layer.in_shape[-1]
        if _selects(layer):
            pre_sites = layer.synapse.kernel.shape[-2]
        elif first and gate_input and pre_sites > 1:
            groups[INPUT], pre = pre_sites, INPUT
        elif not first:
            pre_sites = layers[index - 1][1].out_shape[-1]
        # a residual block adds to its input: both are the same channels, and so the same sites
        post = None if last or _selects(layers[index + 1][1]) else pre if layer.skip else name
        block = model.blocks.index(name) if layer.skip else None
        post_sites = layer.out_shape[-1]
        analog = (first and analog_input) or any(m.kind == "mean" for m in layer.before)
        once = first and held_input
        within = None
        if gate_features and not first and isinstance(layer.synapse, Dense) and len(layer.in_shape) == 3:
            within, pre, pre_sites = pre, FEATURES, math.prod(layer.synapse.in_shape)
            groups[FEATURES] = pre_sites
        wires.append(Wire(name, pre, post, pre_sites, post_sites, _fan(layer), analog, once, block, joined, within))
        if layer.recurrent is not None:
            wires.append(Wire(f"{name}.recurrent", post, post, post_sites, post_sites, block=block))
        neurons = math.prod(layer.out_shape) // post_sites
        populations.append(Population(name, post, post_sites, neurons, priced_as(layer.cell, kind(layer.cell)), block))
        if post is not None and post == name:
            groups[name] = post_sites
        pre, joined = post, (*joined, block) if block is not None else ()
    if gate_features and FEATURES not in groups:
        raise ValueError(
            "features are what a dense layer reads of a convolution's feature map, and this network has none, got the "
            f"layers {', '.join(model.names)}; set gates.features=false."
        )
    if model.blocks:
        groups[BLOCKS] = len(model.blocks)
    if time_steps:
        groups[TIME] = time_steps
    return Sites(groups, tuple(wires), tuple(populations))


def _selects(layer: Any) -> bool:
    return any(module.kind == "select" for module in layer.before)


def _fan(layer: Any) -> float:
    """Mean number of target positions per input place and output channel, borders counted."""
    return float(reach(layer.synapse).mean()) if isinstance(layer.synapse, Conv) else 1.0


def gate(sites: Sites, params: Params, z: dict[str, Array]) -> Params:
    """Returns the parameters of the network with gates ``z``: each reading kernel's rows scaled by its senders' gates.

    Args:
        sites: from `sites`.
        params: parameters by name.
        z: gate values by group, ``[site]`` in [0, 1].
    """
    gated = dict(params)
    if TIME in sites.groups:
        gated[forward.RUNNING] = z[TIME]
    if BLOCKS in sites.groups:
        gated[forward.BLOCKS] = z[BLOCKS]
    gated |= {forward.SITES + group: z[group] for group in sites.switches}
    for wire in sites.wires:
        name = wire.weights
        if not name:
            continue
        for ends in wire.senders:
            kernel = gated[name]
            shape = [len(ends.index) if axis == ends.axis % kernel.ndim else 1 for axis in range(kernel.ndim)]
            gated[name] = kernel * ends.of(z[ends.group]).reshape(shape)
        if wire.pre is not None:
            kernel = gated[name]
            gated[name] = kernel * _places(wire.sending(z), kernel.shape[-2])[:, None]
    return gated


def _places(values: Shaped[Array, " site"], rows: int) -> Shaped[Array, " row"]:
    """Channels are last, so a flattened feature map repeats its channels along the rows."""
    return jnp.tile(values, rows // len(values))


def magnitudes(sites: Sites, params: Params, events: dict[str, Array]) -> dict[str, Float[Array, " site"]]:
    """Returns a score per site by group: the norm of the weights that read it, times the root of its rate.

    So a pixel that is always dark, whose weights never learned, counts nothing (Sun et al. 2024 weigh by activity too).

    Args:
        sites: from `sites`.
        params: parameters by name.
        events: by wire, from `measure`.
    """
    scores = {group: jnp.zeros(size) for group, size in sites.groups.items()}
    for wire in sites.wires:
        for ends in wire.senders if wire.weights else ():
            kernel = jnp.moveaxis(params[wire.weights] ** 2, ends.axis, -1)
            score = kernel.reshape(-1, len(ends.index)).sum(0) * events[wire.name]
            opened = np.flatnonzero(ends.index >= 0)
            scores[ends.group] = scores[ends.group].at[ends.index[opened]].add(score[opened])
        if wire.pre is None:
            continue
        kernel = params[wire.weights]
        by_row = (kernel**2).sum(-1)
        score = by_row.reshape(-1, wire.pre_sites).sum(0) * events[wire.name]
        scores[wire.pre] = scores[wire.pre] + score
        if wire.within is not None:
            scores[wire.within] = scores[wire.within] + score.reshape(-1, sites.groups[wire.within]).sum(0)
    return {group: jnp.sqrt(score) for group, score in scores.items()}


def measure(
    sites: Sites,
    model: Runnable,
    inputs: Array,
    spikes: dict[str, Array],
    *,
    held: bool,
    running: Float[Array, " time"] | None = None,
) -> dict[str, Array]:
    """Returns the events that each wire carried, ``[pre site]``: means over time and batch, summed over positions.

    Before a convolution each event counts as its own place's fan over the wire's (the mean of all places), so that
    ``wire.fan * events`` is the number of products whatever the places that are active. A recurrent wire carries the
    spikes that a later step reads: those of every step but the last, a mean over the steps that have a later one.

    Args:
        sites: from `sites`.
        model: the network that ran (its pooling is applied before counting).
        inputs: what it was given, ``[time, batch, ...]`` or held ``[batch, ...]``.
        spikes: output of each layer, ``[time, batch, ...]``.
        held: whether the input was held.
        running: how far each step ran, None: every step; events count where the network ran.
    """
    out: dict[str, Array] = {}
    if isinstance(model, Whole):
        return carried(sites, model, spikes, held=held, running=running)
    before = inputs[None] if held else inputs
    for name, layer in model.layers():
        x = before
        for module in layer.before:
            x = module(x.reshape(-1, *x.shape[2:])).reshape(*x.shape[:2], *module.out_shape)
        active = _rate(x, None if name == model.names[0] and held else running)
        wire = next(w for w in sites.wires if w.name == name)
        if isinstance(layer.synapse, Conv):
            active = active.reshape(layer.synapse.in_shape) * (reach(layer.synapse) / wire.fan)[..., None]
        out[name] = active.reshape(-1, wire.pre_sites).sum(0)
        if layer.recurrent is not None:
            everywhen = jnp.ones(len(spikes[name])) if running is None else running
            out[f"{name}.recurrent"] = _rate(spikes[name], followed(everywhen))
        before = model.sent(name, before, spikes[name])
    return out


def followed(running: Float[Array, " time"]) -> Float[Array, " time"]:
    """Returns how far each step runs and a later one does too, which then reads its spikes over recurrent wires.

    Steps run independently of each other; the sum is the expected number of times that spikes are fed back.
    """
    none_later = jnp.cumprod((1 - running)[::-1])[::-1]
    return running * (1 - jnp.append(none_later[1:], 1.0))


def _rate(x: Array, running: Float[Array, " time"] | None) -> Array:
    """Events per step that ran, of each unit; None: every step did."""
    active = (x != 0).astype(jnp.float32).mean(1)
    if running is None:
        return active.mean(0)
    return jnp.tensordot(running, active, 1) / jnp.maximum(running.sum(), 0.5)


def described(model: Whole, *, gate_input: bool, analog_input: bool, held: bool, steps: int) -> Sites:
    """Returns the sites of a network that describes itself; one that does not has none but time steps.

    Args:
        model: the network.
        gate_input: whether its inputs are sites, where it says which these are.
        analog_input: what wires that read the input carry values.
        held: one input is held for all steps.
        steps: how many time steps are sites.

    Raises:
        ValueError: it describes something that it has not.
    """
    wiring = described_by(model)
    gate_input = gate_input and model.kept_inputs is None  # what reads a part of its inputs has been thinned already
    groups = {name: size for name, size in wiring.groups.items() if gate_input or name != INPUT}

    def ends(axes: Any) -> tuple[Ends, ...]:
        return tuple(Ends(a.group, np.asarray(a.index), a.axis) for a in axes if a.group in groups)

    def inside(names: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        split = (name.rpartition(":") for name in names)
        return tuple((group, int(number)) for group, _, number in split if group in groups)

    wires = []
    for wire in wiring.wires:
        reads_input = wire.once or any(axis.group == INPUT for axis in wire.pre)
        places = np.asarray(wire.fan, float) if np.ndim(wire.fan) else None
        fan = float(np.mean(wire.fan))
        wires.append(
            Wire(
                wire.name,
                None,
                None,
                wire.senders,
                wire.receivers,
                fan,
                wire.values == "analog" or (analog_input and reads_input),
                wire.once and held,
                senders=ends(wire.pre),
                receivers=ends(wire.post),
                inside=inside(wire.within),
                kernel=wire.kernel or "",
                places=None if places is None or not fan else places / fan,
                sums=inside(wire.joined),
                back=wire.recurrent,
            )
        )
    populations = []
    for group in wiring.neurons:
        own = ends(() if group.site is None else (group.site,))
        units = max(len(own[0].index) if own else group.count, 1)
        kind_of = priced_as(priced(group), kind(priced(group)))
        populations.append(
            Population(
                group.name,
                None,
                units,
                group.count // units,
                kind_of,
                ends=own[0] if own else None,
                inside=inside(group.within),
            )
        )
    switches = tuple(name for name in switched(model) if name in groups)
    if steps:
        groups[TIME] = steps
    return Sites(groups, tuple(wires), tuple(populations), switches)


def carried(
    sites: Sites, model: Whole, sent: dict[str, Array], *, held: bool, running: Float[Array, " time"] | None
) -> dict[str, Array]:
    """Returns the events that each wire of a network that describes itself carried, as `measure` does, by unit.

    Args:
        sites: from `described`.
        model: the network that ran.
        sent: what it sent over each wire at every step, ``[time, batch, ...]``.
        held: whether the input was held, so that wires that are computed once are.
        running: how far each step ran.
    """
    out, said = {}, {wire.name: wire for wire in described_by(model).wires}
    for wire in sites.wires:
        everywhen = running
        if wire.recurrent:
            everywhen = followed(jnp.ones(len(over(said[wire.name], sent))) if running is None else running)
        rate = _rate(over(said[wire.name], sent), None if wire.once and held else everywhen)
        if wire.places is not None:
            rate = rate * wire.places[..., None]
        out[wire.name] = rate.reshape(-1, wire.pre_sites).sum(0)
    return out
