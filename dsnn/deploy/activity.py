"""From a run of a network to the records that energy is counted on: what was sent, read and updated, per inference."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from dsnn.bayes.bit_posterior import BitPosterior
from dsnn.cells import kind as cell_kind
from dsnn.energy import NeuronRecord, Record, SynapseRecord, priced_as
from dsnn.networks.compact import kept
from dsnn.networks.plan import NEURONS
from dsnn.networks.whole import Runnable
from dsnn.networks.windows import places
from dsnn.networks.wiring import described_by, in_places, of_run, over, priced
from dsnn.parameters import Params, split
from dsnn.protocols import NeuronGroup, Wire
from dsnn.types import Array, Int

if TYPE_CHECKING:
    from dsnn.deploy.decided import Deployed


def records(
    model: Runnable,
    inputs: Array,
    spikes: dict[str, Any],
    stop: Int[np.ndarray, " batch"] | None = None,
    *,
    held: bool,
    analog: bool,
) -> list[Record]:
    """Returns one record per wire and per group of neurons, means per inference over the batch that ran.

    Args:
        model: the network that ran, best compacted, since closed sites cost nothing.
        inputs: what it was given, held ``[batch, ...]`` or ``[time, batch, ...]``.
        spikes: what was recorded of every step, ``[time, batch, ...]``: each layer's output of a stack, what else a
            network sent over its wires.
        stop: step after which an example ran no more; None is all steps.
        held: the input was held, so its product was computed once.
        analog: inputs carry values and not spikes.
    """
    time, batch = next(iter(spikes.values())).shape[:2]
    taken = np.full(batch, time) if stop is None else np.asarray(stop)
    running = (np.arange(time)[:, None] < taken).astype(np.float32)
    mean_steps = float(taken.mean())
    wiring = of_run(described_by(model), analog_input=analog, held_input=held)
    sent, params = model.carried(jnp.asarray(inputs), spikes, held=held), split(model)[1]

    def when(at: int | None) -> tuple[np.ndarray, float]:
        """Returns which of an example's steps compute what is computed at this one, and how many do."""
        own = running if at is None else running * _only(at, taken, time)
        return own, mean_steps if at is None else float(own.sum() / batch)

    waiting = {group.name: group for group in wiring.neurons}
    out: list[Record] = []
    for number, wire in enumerate(wiring.wires):
        if wire.senders and wire.receivers:  # else a branch that is thinned to nothing
            out.append(_product(wire, sent, params, *when(wire.at)))
        # the neurons of a layer stand behind its wires
        after = wiring.wires[number + 1].name if number + 1 < len(wiring.wires) else ""
        layer = wire.name.removesuffix(".recurrent")
        if after != f"{layer}.recurrent" and (group := waiting.pop(layer + NEURONS, None)):
            out += _neurons(group, sent, *when(group.at))
    for group in waiting.values():
        out += _neurons(group, sent, *when(group.at))
    return out


def with_widths(
    counted: list[Record], wires: tuple[Wire, ...], deployed: "Deployed", bits: BitPosterior
) -> list[Record]:
    """Returns records with the widths that were decided, of neurons with that of their membranes.

    What rounding made zero is stored and read like any other weight; a unit without bits is not there.

    Args:
        counted: of the decided network or of it with all sites.
        wires: of the whole network.
        deployed: says which sites and which widths there are.
        bits: says how wide membranes and values are.
    """
    by_name = {wire.name: wire for wire in wires}
    out: list[Record] = []
    for record in counted:
        if isinstance(record, NeuronRecord):
            out.append(replace(record, bits=bits.membrane))
            continue
        wire = by_name.get(record.name)
        kernel = None if wire is None else wire.kernel
        if not isinstance(record, SynapseRecord) or wire is None or kernel is None or kernel not in deployed.widths:
            out.append(record)
            continue
        own = np.asarray(deployed.widths[kernel])
        if len(own) > 1 and len(own) != record.kernel_shape[-1]:
            for axis in wire.post:
                own = own[np.isin(axis.index, kept(deployed.gates[axis.group]))]
        there = np.broadcast_to(own > 0, record.kernel_shape) if (own == 0).any() else None
        sent = (1 + len(wire.joined)).bit_length() if wire.joined else bits.input_bits(kernel)
        each = own if len(own) > 1 else int(own[0])
        out.append(replace(record, bits=each, connected=there, input_bits=sent))
    return out


def _only(at: int, taken: np.ndarray, time: int) -> np.ndarray:
    """Returns ones at a step, from 0, or at each example's last for -1, ``[time, batch]``."""
    step = taken - 1 if at == -1 else np.full(len(taken), at)
    return (np.arange(time)[:, None] == step).astype(np.float32)


def _product(wire: Wire, sent: dict[str, Any], params: Params, running: np.ndarray, mean_steps: float) -> SynapseRecord:
    """Returns the record of one wire; a plain matrix is a dense or a recurrent layer to whoever compares networks."""
    signal, weight, executions = np.asarray(in_places(wire, over(wire, sent), 2)), running, mean_steps
    if wire.once:
        signal, weight, executions = signal[:1], np.ones((1, running.shape[1]), np.float32), 1.0
    elif wire.recurrent:  # the last step's spikes are not read again
        signal, weight = signal[:-1], running[1:]
    reach = np.asarray(wire.fan, float)
    reach = reach[None] if not reach.ndim and reach != 1.0 else reach
    shape = (*reach.shape, wire.senders)
    events = _mean(signal.reshape(*signal.shape[:2], *shape), weight) if len(signal) else np.zeros(shape)
    kernel = None if wire.kernel is None else np.asarray(params[wire.kernel]) != 0
    ends = (wire.senders, wire.receivers)
    matrix = kernel is not None and (kernel.shape[-2] * wire.groups, kernel.shape[-1]) == ends
    geometry: dict[str, Any] = {"kind": "wire", "out_shape": (wire.receivers,), "reach": reach if reach.ndim else None}
    if kernel is not None and wire.strides:
        dilation = wire.dilation or (1,) * len(wire.strides)
        wide = tuple((window - 1) * far + 1 for window, far in zip(kernel.shape[:-2], dilation, strict=True))
        out_shape = (*places(reach.shape, wide, wire.strides, wire.padding), wire.receivers)
        geometry = {"kind": "conv", "out_shape": out_shape, "strides": wire.strides, "padding": wire.padding}
        geometry |= {"dilation": dilation}
    elif kernel is not None and matrix and kernel.ndim == 2 and not reach.ndim:
        geometry["kind"] = "recurrent" if wire.recurrent else "dense"
    return SynapseRecord(
        wire.name,
        in_shape=shape,
        events=events,
        executions=executions,
        source="analog" if wire.values == "analog" or wire.joined else "spikes",
        binary=wire.once and wire.values != "analog" and not wire.joined,
        kernel_shape=kernel.shape if kernel is not None and matrix else ends,
        bias=wire.kernel is not None and f"{wire.kernel.rpartition('.')[0]}.bias" in params,
        connected=kernel if matrix else None,
        weighted=kernel is not None,
        **geometry,
    )


def _neurons(group: NeuronGroup, sent: dict[str, Any], running: np.ndarray, mean_steps: float) -> list[Record]:
    """Returns the record of a group of neurons, under its layer's name where it is one's, and of products inside."""
    if not group.count:
        return []
    name, fired = group.name.removesuffix(NEURONS), sent.get(group.name)
    mean_steps = 1.0 if group.once else mean_steps
    shape = (group.count,) if fired is None else tuple(fired.shape[2:])
    what = priced_as(priced(group), cell_kind(priced(group)))
    spiking = 0.0 if fired is None else _mean(np.asarray(fired), running)
    inside = _liquid(name, shape, mean_steps) if what == "LTC" else []
    return [*inside, NeuronRecord(name, what, shape, mean_steps, spiking, group.norm)]


def _liquid(name: str, shape: tuple[int, ...], mean_steps: float) -> list[Record]:
    """Returns the products behind an LTC layer's two decays, at each place of currents beside membranes or adaptations.

    All of these are taken as non-zero.
    """
    *places, features = shape
    reads = (*places, 2 * features)
    geometry: dict[str, Any] = {"kind": "dense", "kernel_shape": (2 * features, features)}
    if places:
        geometry = {"kind": "conv", "kernel_shape": (*[1] * len(places), 2 * features, features)}
    return [
        SynapseRecord(
            f"{name}.{what}", in_shape=reads, out_shape=shape, events=np.full(reads, mean_steps),
            executions=mean_steps, source="analog", bias=True, internal=True, **geometry,
        )
        for what in ("membrane_kernel", "adaptation_kernel")
    ]  # fmt: skip


def _mean(signal: Any, weight: np.ndarray) -> np.ndarray:
    """Events (non-zero values) per inference at each unit: summed over the steps that ran, averaged over the batch.

    In NumPy, since every compacted network has shapes of its own, and a program is used once.
    """
    values = np.asarray(signal)
    every = np.broadcast_to(weight, values.shape[:2])
    return np.tensordot(every, (values != 0).astype(np.float32), 2) / np.float32(values.shape[1])
