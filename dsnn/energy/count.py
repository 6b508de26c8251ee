"""Operations and memory accesses per inference, counted from records of what ran.

Definitions under the names of NeuroBench (Yik et al. 2025, Nature Communications 16:1545) are NeuroBench's: a synaptic
operation is one non-zero input at one non-zero weight, an accumulate (AC) when the input is spikes and a
multiply-accumulate (MAC) otherwise; biases and pooling are left out; dense counts every weight at every execution.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
from jaxtyping import Float

from dsnn.energy.neurons import neuron_cost
from dsnn.energy.records import NeuronRecord, Record, SamplingRecord, SynapseRecord

__all__ = ["Counts", "LayerCounts", "count", "fan_out"]


@dataclass(frozen=True)
class LayerCounts:
    """What one layer did in one inference (means over the examples).

    Args:
        name: The layer's name; a synapse and a neuron layer may share it.
        dense_macs: Every weight at every execution, borders exact.
        effective_macs: Non-zero analog inputs at connected weights.
        effective_acs: Spikes at connected weights.
        pool_adds: Additions of pooling layers.
        neuron_updates: Neuron updates by kind.
        update_macs: Multiply-accumulates in those updates.
        update_acs: Additions in those updates.
        update_compares: Comparisons in those updates.
        spikes: Spikes sent.
        activations: Values that firing neurons could have sent (neurons times updates).
        neurons: Number of neurons.
        weights: Entries of the kernel, zeros included.
        zero_weights: Entries that are zero.
        biases: Number of biases.
        weight_reads: Weights fetched, one per synaptic operation (no reuse between operations).
        state_accesses: State variables read, and as many written back.
        spike_reads: Spikes that arrive at synaptic layers (one bit each).
        analog_reads: Analog values that arrive at synaptic layers.
        states: State variables held.
        by_width: Synaptic operations by the width of their weights, where the layer says it; else empty.
        fan_in: Inputs of one neuron, which are summed.
        input_bits: Width of its analog inputs; 0 is that of the profile.
        state_bits: Width of its states and their arithmetic; 0 is that of the profile.
        addresses: Events that come with the address of their input.
        address_bits: Bits of these addresses.
    """

    name: str
    dense_macs: float = 0.0
    effective_macs: float = 0.0
    effective_acs: float = 0.0
    pool_adds: float = 0.0
    neuron_updates: dict[str, float] = field(default_factory=dict)
    update_macs: float = 0.0
    update_acs: float = 0.0
    update_compares: float = 0.0
    spikes: float = 0.0
    activations: float = 0.0
    neurons: int = 0
    weights: int = 0
    zero_weights: int = 0
    biases: int = 0
    weight_reads: float = 0.0
    state_accesses: float = 0.0
    spike_reads: float = 0.0
    analog_reads: float = 0.0
    states: int = 0
    by_width: dict[int, float] = field(default_factory=dict)
    fan_in: int = 0
    input_bits: int = 0
    state_bits: int = 0
    addresses: float = 0.0
    address_bits: float = 0.0


@dataclass(frozen=True)
class Counts:
    """Counts per layer and their sum; the properties bear NeuroBench's names, except where bytes say otherwise.

    Args:
        layers: One entry per record, in order.
        total: Their sum.
        bits: Width of a weight and of a state variable in memory, for everything measured in bytes.
    """

    layers: tuple[LayerCounts, ...]
    total: LayerCounts
    bits: int = 32

    @property
    def footprint(self) -> float:
        """Bytes of weights (zeros included), biases and state variables."""
        return (self.total.weights + self.total.biases + self.total.states) * self.bits / 8

    @property
    def connection_sparsity(self) -> float:
        """Share of weights that are zero; 0 for a network without weights."""
        return self.total.zero_weights / self.total.weights if self.total.weights else 0.0

    @property
    def activation_sparsity(self) -> float:
        """Share of zeros among all outputs of firing neurons, steps and examples; 0 without such neurons."""
        return 1 - self.total.spikes / self.total.activations if self.total.activations else 0.0

    @property
    def synaptic_operations(self) -> dict[str, float]:
        """NeuroBench's three numbers per model execution: Effective_MACs, Effective_ACs and Dense."""
        total = self.total
        return {
            "Effective_MACs": total.effective_macs,
            "Effective_ACs": total.effective_acs,
            "Dense": total.dense_macs,
        }

    @property
    def spike_rate(self) -> float:
        """Spikes per neuron and update, over the neurons that fire."""
        return 1 - self.activation_sparsity if self.total.activations else 0.0

    @property
    def weight_bytes_read(self) -> float:
        """Bytes of weights fetched per inference."""
        return self.total.weight_reads * self.bits / 8

    @property
    def state_bytes_read(self) -> float:
        """Bytes of neuron state read per inference."""
        return self.total.state_accesses * self.bits / 8

    @property
    def state_bytes_written(self) -> float:
        """Bytes of neuron state written per inference."""
        return self.total.state_accesses * self.bits / 8


def count(records: Sequence[Record], bits: int = 32) -> Counts:
    """Counts what the recorded network did in one inference.

    Args:
        records: One record per synaptic layer and neuron layer.
        bits: Width of a weight and of a state variable in memory.

    Raises:
        ValueError: Nothing to count, or a neuron kind that is not known.
    """
    if not records:
        raise ValueError("There must be at least one record, got none; record the network while it is evaluated.")
    layers = tuple(_layer(record) for record in records)
    return Counts(layers, _total(layers), bits)


def fan_out(record: SynapseRecord, *, dense: bool = False) -> Float[np.ndarray, "..."]:
    """Number of outputs that each input really reaches, in the input's shape; borders and strides are exact.

    Args:
        record: A synaptic layer.
        dense: Count zero weights too.
    """
    kernel = record.kernel_shape
    mask = np.ones(kernel) if dense or record.connected is None else record.connected.astype(np.float64)
    if record.kind in ("dense", "recurrent"):
        return mask.sum(axis=-1).reshape(record.in_shape)
    if record.kind == "wire":
        targets = mask.mean(axis=tuple(range(mask.ndim - 2))).sum(axis=-1)
        return np.broadcast_to(targets * (1.0 if record.reach is None else record.reach[..., None]), record.in_shape)
    if record.kind == "pool":
        mask = np.broadcast_to(mask[..., None], (*mask.shape, record.in_shape[-1]))
    else:
        per_group = mask.reshape(*kernel[:-1], record.groups, -1).sum(axis=-1)  # [*window, channel / groups, group]
        mask = np.moveaxis(per_group, -1, -2).reshape(*record.window, record.in_shape[-1])
    reach = mask
    for axis, used in enumerate(_taps(record)):
        reach = np.moveaxis(np.tensordot(used, reach, axes=(0, axis)), 0, axis)
    return reach


def _taps(record: SynapseRecord) -> list[Float[np.ndarray, "tap position"]]:
    """Per space axis, whether a tap of the window meets an input position for some output: [tap, position]."""
    if isinstance(record.padding, str):
        lows = [
            max((n_out - 1) * stride + taps - n_in, 0) // 2 if record.padding == "SAME" else 0
            for n_in, n_out, taps, stride in zip(
                record.in_shape, record.out_shape, record.reaches, record.strides, strict=False
            )
        ]
    else:
        lows = [low for low, _ in record.padding]
    tables = []
    for axis, (taps, stride, far) in enumerate(zip(record.window, record.strides, record.dilation, strict=True)):
        used = np.zeros((taps, record.in_shape[axis]))
        for tap in range(taps):
            position = np.arange(record.out_shape[axis]) * stride + tap * far - lows[axis]
            used[tap, position[(position >= 0) & (position < record.in_shape[axis])]] = 1
        tables.append(used)
    return tables


def _layer(record: Record) -> LayerCounts:
    match record:
        case SynapseRecord():
            return _synapses(record)
        case NeuronRecord():
            return _neurons(record)
    return _sampling(record)


def _sampling(record: SamplingRecord) -> LayerCounts:
    """Sums of the nonzero inputs, a binary search in them for every draw, and the random numbers."""
    search = float(record.draws) * math.ceil(math.log2(max(float(record.inputs), 1.0)))
    return LayerCounts(
        record.name,
        effective_macs=float(record.randoms),
        effective_acs=float(record.inputs),
        update_compares=search,
        neuron_updates={"compare": search},
        analog_reads=float(record.inputs) + search,
    )


def _synapses(record: SynapseRecord) -> LayerCounts:
    operations = float(np.sum(record.events * fan_out(record)))
    events, spiking = float(record.events.sum()), record.source == "spikes"
    reads = LayerCounts(record.name, spike_reads=events * spiking, analog_reads=events * (not spiking))
    if record.kind == "pool":
        return replace(reads, pool_adds=operations)
    weights = math.prod(record.kernel_shape) if record.weighted else 0
    if record.bits is not None:
        reads = replace(reads, by_width=_by_width(record), fan_in=_fan_in(record), input_bits=record.input_bits)
    addresses = events if record.addressed else 0.0
    return replace(
        reads,
        effective_macs=operations * (not spiking),
        effective_acs=operations * spiking,
        dense_macs=float(fan_out(record, dense=True).sum() * record.executions),
        weights=weights,
        zero_weights=0 if record.connected is None or not record.weighted else weights - int(record.connected.sum()),
        biases=0 if not record.bias else record.kernel_shape[-1],
        weight_reads=operations * record.weighted,
        addresses=addresses,
        address_bits=addresses * math.ceil(math.log2(max(math.prod(record.in_shape), 2))),
    )


def _by_width(record: SynapseRecord) -> dict[int, float]:
    """Returns the operations at the weights of each width."""
    widths = np.broadcast_to(np.asarray(record.bits), record.kernel_shape[-1:])
    there = np.ones(record.kernel_shape, bool) if record.connected is None else record.connected
    apart = {int(bits): replace(record, connected=there & (widths == bits)) for bits in np.unique(widths)}
    return {bits: float(np.sum(part.events * fan_out(part))) for bits, part in apart.items()}


def _fan_in(record: SynapseRecord) -> int:
    return math.prod(record.kernel_shape[:-1])


def _neurons(record: NeuronRecord) -> LayerCounts:
    cost, updates = neuron_cost(record.kind), record.total_updates
    return LayerCounts(
        record.name,
        neuron_updates={record.kind: updates},
        update_macs=updates * cost.macs,
        update_acs=updates * cost.acs,
        update_compares=updates * cost.compares,
        spikes=record.total_spikes,
        activations=updates if cost.fires else 0.0,
        neurons=0 if record.norm else record.neurons,
        state_accesses=updates * cost.states,
        states=record.neurons * cost.states,
        state_bits=record.bits or 0,
    )


def _total(layers: Sequence[LayerCounts]) -> LayerCounts:
    total = LayerCounts("total")
    for layer in layers:
        updates = dict(total.neuron_updates)
        for kind, number in layer.neuron_updates.items():
            updates[kind] = updates.get(kind, 0.0) + number
        # what a layer's widths are has no sum
        apart = ("name", "neuron_updates", "by_width", "fan_in", "input_bits", "state_bits")
        names = [f.name for f in fields(LayerCounts) if f.name not in apart]
        sums = {name: getattr(total, name) + getattr(layer, name) for name in names}
        total = replace(total, neuron_updates=updates, **sums)
    return total
