"""Compute sites of a network: where computation could be spared, and what each site costs when it runs.

A site is an input, a neuron (for convolutions a channel), a feature (one place of one channel, as the first dense layer
reads it), a residual block, a time step, or what else a network names in its wiring. Closing an input or neuron removes
everything that reads it, so its gate is the same as scaling the rows of the kernels that read it. A feature is read
where its channel runs and its own gate is open. A closed block passes its input on. A closed time step is skipped: no
layer runs, and every state stays as it was.
"""

import dataclasses
import math

import jax.numpy as jnp

from dsnn.bayes.events import counted, differentiable, followed, per_step, valued
from dsnn.networks.indices import of_groups, rows_scaled, spread, summed
from dsnn.networks.site_wires import Neurons, Wire, neurons_of, wire_of
from dsnn.networks.whole import Runnable
from dsnn.networks.wiring import BLOCKS, FEATURES, INPUT, TIME, described_by, in_places, of_run, over, switched
from dsnn.parameters import Params
from dsnn.protocols import Axis
from dsnn.simulate import simulator
from dsnn.types import Array, Float, Shaped

__all__ = [
    "BLOCKS",
    "FEATURES",
    "INPUT",
    "TIME",
    "Neurons",
    "Sites",
    "Wire",
    "followed",
    "gate",
    "magnitudes",
    "measure",
    "sites",
]


@dataclasses.dataclass(frozen=True)
class Sites:
    """The compute sites of a network.

    Attributes:
        groups: number of sites by group name; ``input`` for inputs, ``features`` for what the first dense layer reads
            of a feature map, ``time`` for time steps, ``blocks`` for residual blocks of a stack, else as the network
            names them, such as by its layers.
        wires: the products between them.
        neurons: the neurons.
        switches: groups whose sites run or do not, and that the network itself opens and closes: no kernel's rows do.
    """

    groups: dict[str, int]
    wires: tuple[Wire, ...]
    neurons: tuple[Neurons, ...]
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
        if FEATURES not in z:
            return z
        own = next(wire for wire in self.wires if any(ends.group == FEATURES for ends in wire.senders))
        channels = [ends.of(by[ends.group]) for ends in own.senders if ends.group != FEATURES]
        return z | {FEATURES: math.prod(channels, start=z[FEATURES])}


def sites(
    model: Runnable,
    *,
    gate_input: bool = True,
    gate_features: bool = False,
    analog_input: bool = True,
    held_input: bool = True,
    time_steps: int = 0,
) -> Sites:
    """Returns the sites of a network, as its wiring names them; one without a wiring has none but time steps.

    Args:
        model: the network.
        gate_input: whether inputs are sites, where the network says which these are.
        gate_features: whether each value that the first dense layer reads of a feature map is a site.
        analog_input: inputs carry values and not spikes.
        held_input: one input is held for all steps, so that its product is computed once.
        time_steps: how many time steps are sites, each of which may be skipped by the whole network; 0 is none.

    What a compacted network reads in part has no sites of its own left: the inputs and channels of which some places
    are read and others not.

    Raises:
        ValueError: the network describes something that it has not, or features are to be sites, and no dense layer
            reads a feature map.
    """
    wiring = of_run(
        described_by(model),
        gate_input=gate_input,
        gate_features=gate_features,
        analog_input=analog_input,
        held_input=held_input,
        time_steps=time_steps,
    )
    switches = tuple(group for group in switched(wiring) if group != TIME)
    return Sites(wiring.groups, tuple(map(wire_of, wiring.wires)), tuple(map(neurons_of, wiring.neurons)), switches)


def gate(sites: Sites, params: Params, z: dict[str, Array]) -> Params:
    """Returns the parameters of the network with gates ``z``: each reading kernel's rows scaled by its senders' gates.

    Args:
        sites: from `sites`.
        params: parameters by name.
        z: gate values by group, ``[site]`` in [0, 1].
    """
    gated = dict(params)
    if TIME in sites.groups:
        gated[simulator.RUNNING] = z[TIME]
    gated |= {simulator.SITES + group: z[group] for group in sites.switches}
    for wire in sites.wires:
        name = wire.kernel
        if name is None:
            continue
        rows: dict[int, Array] = {}  # one product with the kernel for each of its axes
        for axis in wire.said.pre:
            at, values = axis.axis % gated[name].ndim, spread(z[axis.group], axis.index)
            rows[at] = rows[at] * values if at in rows else values
        for at, values in rows.items():
            gated[name] = rows_scaled(gated[name], values, at, wire.said.groups)
    return gated


def magnitudes(sites: Sites, params: Params, events: dict[str, Array]) -> dict[str, Float[Array, " site"]]:
    """Returns a score per site by group: the norm of the weights that read it, times the root of its rate.

    What encloses weights, such as a block, is scored by all of them.

    So a pixel that is always dark, whose weights never learned, counts nothing (Sun et al. 2024 weigh by activity too).

    Args:
        sites: from `sites`.
        params: parameters by name.
        events: by wire, from `measure`.
    """
    scores = {group: jnp.zeros(size) for group, size in sites.groups.items()}
    for wire in sites.wires:
        if wire.kernel is None:
            continue
        whole = (params[wire.kernel] ** 2).sum() * events[wire.name].mean()
        for group, number in wire.inside:
            if group in scores:
                scores[group] = scores[group].at[number].add(whole)
        for axis, ends in zip(wire.said.pre, wire.senders, strict=True):
            by_row = _by_row(params[wire.kernel] ** 2, axis, wire.said.groups)
            score = summed(by_row, wire.units, wire.pre_sites) * events[wire.name]
            scores[ends.group] = scores[ends.group] + summed(score, ends.index, sites.groups[ends.group])
    return {group: jnp.sqrt(score) for group, score in scores.items()}


def _by_row(squares: Array, axis: Axis, groups: int = 1) -> Float[Array, " row"]:
    """Returns the sums over all axes of a kernel but the senders', of each of these in order."""
    if groups > 1:
        apart = of_groups(squares, groups).sum(-1)
        return apart.reshape(-1, *apart.shape[-2:]).sum(0).T.reshape(-1)
    at = axis.axis % squares.ndim
    squares = squares.sum(-1) if at == squares.ndim - 2 else jnp.moveaxis(squares, at, -1)
    return squares.reshape(-1, squares.shape[-1]).sum(0)


def measure(
    sites: Sites,
    model: Runnable,
    inputs: Array,
    spikes: dict[str, Array],
    *,
    held: bool,
    running: Float[Array, " time"] | None = None,
    reached: Float[Array, "time batch"] | None = None,
    differentiated: bool = False,
) -> dict[str, Array]:
    """Returns the events that each wire carried, ``[sender]``: means over time and batch, summed over positions.

    Before a convolution each event counts as its own place's fan over the wire's (the mean of all places), so that
    ``wire.fan * events`` is the number of products whatever the places that are active. A recurrent wire carries the
    spikes that a later step reads: those of every step but the last, a mean over the steps that have a later one.

    Args:
        sites: from `sites`.
        model: the network that ran (its pooling is applied before counting).
        inputs: what it was given, ``[time, batch, ...]`` or held ``[batch, ...]``.
        spikes: what was recorded of each step, ``[time, batch, ...]``: the output of each layer of a stack, what else a
            network sent over each wire.
        held: whether the input was held.
        running: how far each step ran, None: every step; events count where the network ran.
        reached: probability that each example reaches each step, None: it does.
        differentiated: whether events have the gradient of the spikes or values that they are (`dsnn.bayes.events`).
    """
    sent, out = model.carried(inputs, spikes, held=held), {}
    for wire in sites.wires:
        signal = over(wire.said, sent)
        count = counted if not differentiated else valued if wire.analog else differentiable
        fired = count(signal)
        weights = None if wire.once and held else _weights(len(signal), running, reached, recurrent=wire.recurrent)
        rate = in_places(wire.said, per_step(fired, weights))
        if wire.places is not None:
            rate = rate * wire.places[..., None]
        out[wire.name] = summed(rate.reshape(-1, wire.said.senders).sum(0), wire.units, wire.pre_sites)
    return out


def _weights(length: int, running: Array | None, reached: Array | None, *, recurrent: bool) -> Array | None:
    """Returns how far steps run whose spikes are read over a wire: a step later where it is recurrent."""
    if recurrent:
        running = followed(jnp.ones(length) if running is None else running)
        reached = None if reached is None else jnp.concatenate([reached[1:], jnp.zeros_like(reached[:1])])
    if reached is None:
        return running
    return reached if running is None else running[:, None] * reached
