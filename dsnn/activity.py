"""From a run of a network to the records that energy is counted on: what was sent, read and updated, per inference."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from dsnn.cells import kind as cell_kind
from dsnn.energy import NeuronRecord, Record, SynapseRecord, priced_as
from dsnn.layers import Conv, Layer
from dsnn.networks.shrink import INPUT
from dsnn.networks.whole import Runnable, Whole
from dsnn.networks.wiring import described_by, over, priced
from dsnn.parameters import split
from dsnn.protocols import Wire
from dsnn.types import Array, Int


def records(
    model: Runnable,
    inputs: Array,
    spikes: dict[str, Any],
    stop: Int[np.ndarray, " batch"] | None = None,
    *,
    held: bool,
    analog: bool,
) -> list[Record]:
    """Returns one record per synapse and per population, means per inference over the batch that ran.

    Args:
        model: the network that ran, best compacted, since closed sites cost nothing.
        inputs: what it was given, held ``[batch, ...]`` or ``[time, batch, ...]``.
        spikes: each layer's output at every step, ``[time, batch, ...]``.
        stop: step after which an example ran no more; None is all steps.
        held: the input was held, so its product was computed once.
        analog: inputs carry values and not spikes.
    """
    time = next(iter(spikes.values())).shape[0]
    batch = next(iter(spikes.values())).shape[1]
    taken = np.full(batch, time) if stop is None else np.asarray(stop)
    running = (np.arange(time)[:, None] < taken).astype(np.float32)
    mean_steps = float(taken.mean())
    if isinstance(model, Whole):
        return _own(model, spikes, running, held=held, analog=analog)
    out: list[Record] = []
    before, once, joined = jnp.asarray(inputs), held, False
    for name, layer in model.layers():
        x = before[None] if once else before
        for module in layer.before:
            flat = module(x.reshape(-1, *x.shape[2:]))
            x = flat.reshape(*x.shape[:2], *flat.shape[1:])
        signal = x.reshape(*x.shape[:2], *layer.synapse.in_shape)
        events = _mean(signal, np.ones((1, batch), np.float32) if once else running)
        source = "analog" if (analog and name == model.names[0]) or joined or _averaged(layer) else "spikes"
        out.append(_synapse(name, layer, events, 1.0 if once else mean_steps, source))
        fired = jnp.asarray(spikes[name])
        sent = _mean(fired, running)
        if layer.recurrent is not None:
            # the last step's spikes are not read again
            back = _mean(fired[:-1], running[1:]) if time > 1 else np.zeros_like(sent)
            shape = layer.out_shape
            out.append(SynapseRecord(f"{name}.recurrent", "recurrent", shape, shape, back, mean_steps))
        kind = priced_as(layer.cell, cell_kind(layer.cell))
        if kind == "LTC":
            out += _liquid(name, layer, mean_steps)
        spiking = 0.0 if kind == "LI" or layer.reads == "membrane" else sent
        out.append(NeuronRecord(name, kind, layer.out_shape, mean_steps, spiking))
        before, once, joined = model.sent(name, before, fired), False, layer.skip
    return out


def _own(model: Whole, sent: dict[str, Any], running: np.ndarray, *, held: bool, analog: bool) -> list[Record]:
    """Returns the records of a network that describes itself, from what it sent over its wires."""
    wiring, params = described_by(model), split(model)[1]
    mean_steps, batch = float(running.sum(0).mean()), running.shape[1]
    out: list[Record] = []
    for wire in wiring.wires:
        if not wire.senders or not wire.receivers:  # a branch that is thinned to nothing
            continue
        signal, weight, executions = np.asarray(over(wire, sent)), running, mean_steps
        if wire.once and held:
            signal, weight, executions = signal[:1], np.ones((1, batch), np.float32), 1.0
        elif wire.recurrent:  # the last step's spikes are not read again
            signal, weight = signal[:-1], running[1:]
        reads_input = wire.once or any(axis.group == INPUT for axis in wire.pre)
        values = wire.values == "analog" or bool(wire.joined) or (analog and reads_input)
        reach = np.asarray(wire.fan, float)
        if not reach.ndim and reach != 1.0:
            reach = reach[None]
        shape = (*reach.shape, wire.senders)
        events = _mean(signal.reshape(*signal.shape[:2], *shape), weight) if len(signal) else np.zeros(shape)
        kernel = None if wire.kernel is None else np.asarray(params[wire.kernel]) != 0
        out.append(_product(wire, shape, events, executions, "analog" if values else "spikes", reach, kernel))
    for group in wiring.neurons:
        if not group.count:
            continue
        name = priced_as(priced(group), cell_kind(priced(group)))
        fired = sent.get(group.name)
        spiking = 0.0 if fired is None else float(_mean(np.asarray(fired).reshape(*running.shape, -1), running).sum())
        out.append(NeuronRecord(group.name, name, (group.count,), mean_steps, spiking))
    return out


def _product(
    wire: Wire,
    shape: tuple[int, ...],
    events: np.ndarray,
    executions: float,
    source: str,
    reach: np.ndarray,
    kernel: np.ndarray | None,
) -> SynapseRecord:
    """Returns the record of one wire; a plain matrix is a dense or a recurrent layer to whoever compares networks."""
    ends = (wire.senders, wire.receivers)
    matrix = kernel is not None and kernel.shape[-2:] == ends
    plain = matrix and kernel is not None and kernel.ndim == 2 and not reach.ndim
    return SynapseRecord(
        wire.name,
        ("recurrent" if wire.recurrent else "dense") if plain else "wire",
        shape,
        (wire.receivers,),
        events,
        executions,
        source=source,
        kernel_shape=kernel.shape if kernel is not None and matrix else ends,
        connected=kernel if matrix else None,
        reach=reach if reach.ndim else None,
        weighted=kernel is not None,
    )


def _liquid(name: str, layer: Layer, mean_steps: float) -> list[Record]:
    """Returns the products behind an LTC layer's two decays, at each place of currents beside membranes or adaptations.

    All of these are taken as non-zero.
    """
    *places, features = layer.out_shape
    reads = (*places, 2 * features)
    geometry: dict[str, Any] = {"kind": "dense", "kernel_shape": (2 * features, features)}
    if places:
        geometry = {"kind": "conv", "kernel_shape": (*[1] * len(places), 2 * features, features)}
    return [
        SynapseRecord(
            f"{name}.{what}", in_shape=reads, out_shape=layer.out_shape, events=np.full(reads, mean_steps),
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


def _averaged(layer: Layer) -> bool:
    return any(module.kind == "mean" for module in layer.before)


def _synapse(name: str, layer: Layer, events: np.ndarray, executions: float, source: Any) -> SynapseRecord:
    synapse = layer.synapse
    connected = np.asarray(synapse.kernel[...]) != 0
    common: dict[str, Any] = {"source": source, "bias": synapse.bias is not None, "connected": connected}
    if isinstance(synapse, Conv):
        return SynapseRecord(
            name,
            "conv",
            synapse.in_shape,
            synapse.out_shape,
            events,
            executions,
            kernel_shape=connected.shape,
            strides=synapse.strides,
            padding=synapse.padding,
            **common,
        )
    size = (math.prod(synapse.in_shape),)
    return SynapseRecord(name, "dense", size, synapse.out_shape, events.reshape(size), executions, **common)
