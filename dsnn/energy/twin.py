"""Twins without spikes of the same shape, and the spike rate at which a spiking network would cost as much.

A spiking network is cheaper than a dense one only if few enough spikes are sent; the rate at which it would break even
stands beside the measured one. A T-step rate-coded network carries T + 1 levels, so the rival with the same
information has ceil(log2(T + 1)) bits (Yan, Bai & Wong 2024, arXiv 2409.08290).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from dsnn.energy.count import count
from dsnn.energy.price import price
from dsnn.energy.profiles import Accounting, Profile
from dsnn.energy.records import NeuronRecord, Number, Record, SamplingRecord, SynapseRecord

__all__ = [
    "BreakEven",
    "ann_twin",
    "at_width",
    "break_even",
    "gated_twin",
    "quantised_bits",
    "scaled_spikes",
    "spike_rate",
]

GATES = {"LSTM": 4, "GRU": 3, "tanh": 1}


def quantised_bits(steps: Number) -> int:
    """Bits of the quantised network that carries as many levels as a spike count over `steps` steps.

    Raises:
        ValueError: Fewer than one step.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}; give the steps that the network was built for.")
    return math.ceil(math.log2(math.ceil(steps) + 1))


def ann_twin(records: Sequence[Record], *, sequence: bool = False) -> list[Record]:
    """Records of the dense network of the same shape: every weight connected, every input non-zero, one pass.

    A recurrent network's twin is a recurrent network (tanh units), so it runs as many steps as were recorded; and so
    does any network that is shown another input at every step, since in one pass its twin would see one of them.

    Args:
        records: Of the spiking network, gated or not; the twin ignores gates, masks and rates.
        sequence: Whether each step has an input of its own, and not one held, or coded into spikes, for all of them.
    """
    recurrent = any(r.kind == "recurrent" for r in records if isinstance(r, SynapseRecord))
    every = recurrent or sequence
    own = _wiring(records)
    return [_dense(r, every) if isinstance(r, SynapseRecord) else _unit(r, every, recurrent) for r in own]


def gated_twin(records: Sequence[Record], kind: str) -> list[Record]:
    """Records of an LSTM or a GRU of the same width in place of each recurrent layer, run for the same steps.

    Its gates multiply the recurrent weights, and those of the layer that feeds it, by 4 (LSTM) or 3 (GRU). The feeding
    layer and the neurons are the ones of the recurrent layer's shape that stand nearest to it in the records.

    Args:
        records: Of the recurrent spiking network.
        kind: "LSTM", "GRU", or "tanh" for a plain recurrent network.

    Raises:
        ValueError: Another kind, or nothing recurrent in the records.
    """
    if kind not in GATES:
        raise ValueError(f"The kind of a gated twin must be one of {', '.join(GATES)}, got {kind!r}.")
    records = _wiring(records)
    loops = [i for i, r in enumerate(records) if isinstance(r, SynapseRecord) and r.kind == "recurrent"]
    if not loops:
        raise ValueError(f"A twin with {kind} units needs a recurrent layer in the records, got none; use ann_twin.")
    gated, hidden = set(loops), set()
    for loop in loops:
        shape = records[loop].out_shape  # type: ignore[union-attr]
        feeds = [i for i in range(len(records)) if i not in loops and getattr(records[i], "out_shape", None) == shape]
        gated |= {min(feeds, key=lambda i: (abs(i - loop), i))} if feeds else set()
        units = [
            i
            for i, r in enumerate(records)
            if isinstance(r, NeuronRecord) and not r.norm and r.shape == shape and i not in hidden
        ]
        hidden |= {min(units, key=lambda i: (abs(i - loop), i))} if units else set()
    twin: list[Record] = []
    for i, record in enumerate(records):
        if isinstance(record, NeuronRecord):
            unit = _unit(record, True, True)
            twin.append(unit if record.norm else replace(unit, kind=kind if i in hidden else "Linear"))
            continue
        dense = _dense(record, True)
        if i in gated:
            width = (GATES[kind] * math.prod(dense.out_shape),)
            dense = replace(dense, out_shape=width, kernel_shape=())
        twin.append(dense)
    return twin


def _wiring(records: Sequence[Record]) -> list[NeuronRecord | SynapseRecord]:
    """Returns the records of what a dense network has too.

    It has no draws of addresses, no products inside neurons, and no norms that differ from step to step.
    """
    wired = [r for r in records if not isinstance(r, SamplingRecord)]
    return [r for r in wired if (r.norm != "step" if isinstance(r, NeuronRecord) else not r.internal)]


def _dense(record: SynapseRecord, every_step: bool) -> SynapseRecord:
    executions = record.executions if every_step else 1.0
    events = np.full(record.in_shape, executions, dtype=np.float64)
    source = "spikes" if record.binary else "analog"
    return replace(
        record, source=source, events=events, executions=executions, connected=None, bits=None, addressed=False
    )


def _unit(record: NeuronRecord, every_step: bool, recurrent: bool) -> NeuronRecord:
    kinds = {"LI": "Linear", "Linear": "Linear"}
    updates = float(np.max(record.updates, initial=0.0)) if every_step else 1.0
    if record.norm:
        return replace(record, updates=updates, bits=None)
    return replace(
        record, bits=None, kind=kinds.get(record.kind, "tanh" if recurrent else "ReLU"), updates=updates, spikes=0.0
    )


def spike_rate(records: Sequence[Record]) -> float:
    """Mean spikes per input and step over all synaptic inputs that are spikes; 0 where there are none."""
    spiking = [r for r in records if isinstance(r, SynapseRecord) and _sends(r) and r.kind != "pool"]
    chances = sum(r.executions * math.prod(r.in_shape) for r in spiking)
    return float(sum(r.events.sum() for r in spiking) / chances) if chances else 0.0


def _sends(record: SynapseRecord) -> bool:
    """Returns whether neurons send what a layer reads, as spikes, and not the data."""
    return record.source == "spikes" and not record.binary


def at_width(records: Sequence[Record], bits: int) -> list[Record]:
    """The records with weights, inputs and states of one width, priced like those of a network that says its own.

    Args:
        records: Of any network.
        bits: Of every weight, input and state.
    """
    wide: list[Record] = []
    for record in records:
        own = {"bits": bits} | ({"input_bits": bits} if isinstance(record, SynapseRecord) else {})
        wide.append(record if isinstance(record, SamplingRecord) else replace(record, **own))  # type: ignore[arg-type]
    return wide


class BreakEven(NamedTuple):
    """The spike rate as it was measured, and the rate at which the energy would equal the rival's.

    `break_even` is 0 where the cost that spikes do not cause is already above the rival's, and above 1 where even a
    spike at every input and step would be cheaper.
    """

    measured: float
    break_even: float


def break_even(
    records: Sequence[Record], rival_nj: Number, profile: Profile, accounting: Accounting = "memory"
) -> BreakEven:
    """The rate at which the network would cost as much as its rival, all its spike counts scaled alike.

    The energy is a constant (analog inputs, neuron updates) plus a part proportional to the spikes, so two prices
    determine it exactly. A network that sent no spike at all is taken to send them uniformly.

    Args:
        records: Of the spiking network.
        rival_nj: Energy of the rival's inference.
        profile: The spiking network's hardware.
        accounting: One of the three.
    """
    measured = spike_rate(records)
    unit = scaled_spikes(records, 1 / measured) if measured else _uniform_spikes(records)
    silent = price(count(scaled_spikes(records, 0.0)), profile, accounting).total_nj
    slope = price(count(unit), profile, accounting).total_nj - silent  # at a mean rate of one
    return BreakEven(measured, max(0.0, float(rival_nj - silent) / slope) if slope else math.inf)


def scaled_spikes(records: Sequence[Record], factor: float) -> list[Record]:
    """Records with every spike count multiplied; executions grow along, so that no rate passes one.

    Args:
        records: of a spiking network.
        factor: not negative.
    """
    scaled: list[Record] = []
    for record in records:
        if isinstance(record, NeuronRecord):
            scaled.append(replace(record, spikes=record.spikes * factor))
        elif isinstance(record, SynapseRecord) and _sends(record):
            grown = record.executions * max(1.0, factor)
            scaled.append(replace(record, events=record.events * factor, executions=grown))
        else:
            scaled.append(record)
    return scaled


def _uniform_spikes(records: Sequence[Record]) -> list[Record]:
    uniform: list[Record] = []
    for record in records:
        if isinstance(record, NeuronRecord) and not record.norm:
            uniform.append(replace(record, spikes=record.total_updates))
        elif isinstance(record, SynapseRecord) and _sends(record):
            uniform.append(replace(record, events=np.full(record.in_shape, record.executions)))
        else:
            uniform.append(record)
    return uniform
