"""What ran: one record per synaptic layer and one per neuron layer, filled from measured activity.

A record holds no weights and knows no model; whoever ran the network (a simulator, a compacted network, a chip) writes
them, and `count` turns them into operations. Every number is a mean per inference, over the examples that were run.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Shaped

__all__ = ["NeuronRecord", "Number", "Record", "SamplingRecord", "SynapseRecord", "merge"]

Number = float | int | np.floating | np.integer
Source = Literal["spikes", "analog"]
Padding = str | Sequence[tuple[int, int]]

SYNAPSE_KINDS = ("dense", "conv", "recurrent", "pool", "wire")
SOURCES = ("spikes", "analog")


@dataclass(frozen=True, eq=False)
class SynapseRecord:
    """A synaptic layer, its geometry, and how often each of its inputs was non-zero.

    Args:
        name: The layer's name, unique among the synapses of a network.
        kind: "dense", "conv" (channels last), "recurrent" (a dense layer fed by the spikes of the step before) or
            "pool" (sums or means over windows: additions, no weights), or "wire" (a product of a network of one's own:
            inputs in places or not, each of which reaches every output so many times).
        in_shape: Shape of one input, without batch and time; images are [height, width, channel].
        out_shape: Shape of one output.
        events: Mean number of events (non-zero inputs) per inference at each input, summed over the executions.
        executions: Mean number of times per inference that the layer's product is evaluated: the steps that ran for
            spikes, 1 for an analog input that is constant and held.
        source: "spikes" (each event is an accumulate) or "analog" (each is a multiply-accumulate).
        kernel_shape: [in, out] for dense and recurrent layers (worked out when left out), [*window, channel / groups,
            channel_out] for conv, [*window] for pool.
        strides: Of conv and pool, one per window axis; all ones when left out.
        padding: "SAME", "VALID", or (low, high) per window axis.
        dilation: Of conv, places from one tap of the window to the next, per axis; all ones when left out.
        bias: Whether the layer has one value per output neuron or channel to add; it enters the footprint only.
        connected: Which entries of the kernel are non-zero, in the kernel's shape; all of them when left out.
        reach: Of a wire, how many targets an event has at each output, by place; 1 when left out.
        weighted: Whether the product has weights that are stored and fetched; two signals multiplied have none.
        bits: Width of its weights, one number or one for each output (of conv, channel), 0 for none; those of the
            profile when left out.
        input_bits: Width of its inputs where they are analog, given with `bits`.
        internal: Whether it is part of a neuron, such as the products behind liquid time constants, and not of the
            wiring; the dense twins of a network do without.
        addressed: Whether each event comes with the address of its input; None is what spikes do and values do not,
            which a dense machine takes in order. One that skips zeros has addresses.
        binary: Whether its inputs are a held input of zeros and ones: data and no neuron's spikes, which every network
            reads by additions, and without addresses where it takes them in order.

    Raises:
        ValueError: The shapes do not fit together, or a number is negative or not finite.
    """

    name: str
    kind: str
    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    events: Shaped[np.ndarray, "..."]
    executions: Number
    source: str = "spikes"
    kernel_shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    padding: Padding = "VALID"
    bias: bool = False
    connected: Shaped[np.ndarray, "..."] | None = None
    internal: bool = False
    reach: Shaped[np.ndarray, "..."] | None = None
    weighted: bool = True
    dilation: tuple[int, ...] = ()
    bits: int | Shaped[np.ndarray, " output"] | None = None
    input_bits: int = 8
    addressed: bool | None = None
    binary: bool = False

    def __post_init__(self) -> None:
        fill = functools.partial(object.__setattr__, self)
        where = f"Synapse record {self.name!r}"
        if self.kind not in SYNAPSE_KINDS:
            raise ValueError(f"{where}: kind must be one of {', '.join(SYNAPSE_KINDS)}, got {self.kind!r}.")
        if self.source not in SOURCES:
            raise ValueError(f"{where}: source must be one of {', '.join(SOURCES)}, got {self.source!r}.")
        fill("in_shape", tuple(int(n) for n in self.in_shape))
        fill("out_shape", tuple(int(n) for n in self.out_shape))
        if not self.kernel_shape:
            if self.kind in ("conv", "pool"):
                raise ValueError(f"{where}: a {self.kind} layer needs kernel_shape, got none; give its window.")
            senders = self.in_shape[-1] if self.kind == "wire" else math.prod(self.in_shape)
            fill("kernel_shape", (senders, math.prod(self.out_shape)))
        fill("kernel_shape", tuple(int(n) for n in self.kernel_shape))
        if self.binary and self.source != "spikes":
            raise ValueError(f"{where}: binary inputs are added and not multiplied, got source={self.source!r}.")
        sent = self.source == "spikes" and not self.binary
        fill("addressed", sent if self.addressed is None else self.addressed)
        fill("strides", tuple(self.strides or (1,) * len(self.window)))
        fill("dilation", tuple(self.dilation or (1,) * len(self.window)))
        fill("events", _checked(f"{where}: events", self.events, self.in_shape))
        fill("executions", float(_checked(f"{where}: executions", self.executions, ())))
        most = float(self.events.max(initial=0.0))
        if most > self.executions * (1 + 1e-6) + 1e-9:
            raise ValueError(
                f"{where}: no input can have more events than the layer has executions, got {most:g} events in "
                f"{self.executions:g} executions; events are non-zero inputs, not their values."
            )
        if self.connected is not None:
            mask = np.asarray(self.connected, dtype=bool)
            if mask.shape != self.kernel_shape:
                raise ValueError(
                    f"{where}: connected must have the kernel's shape {self.kernel_shape}, got {mask.shape}; "
                    "give one boolean per weight."
                )
            fill("connected", mask)
        if self.bits is not None and np.shape(self.bits) not in ((), self.kernel_shape[-1:]):
            raise ValueError(
                f"{where}: bits must be one number or one for each of {self.kernel_shape[-1]} outputs, got "
                f"{np.shape(self.bits)}."
            )
        _check_geometry(where, self)

    @property
    def window(self) -> tuple[int, ...]:
        """The spatial part of the kernel; empty for dense and recurrent layers."""
        return {"conv": self.kernel_shape[:-2], "pool": self.kernel_shape}.get(self.kind, ())

    @property
    def reaches(self) -> tuple[int, ...]:
        """The size of the window from its first to its last place."""
        return tuple((taps - 1) * far + 1 for taps, far in zip(self.window, self.dilation, strict=True))

    @property
    def groups(self) -> int:
        """Number of channel groups of a convolution (its channels for a depthwise one); 1 for the other kinds."""
        return self.in_shape[-1] // self.kernel_shape[-2] if self.kind == "conv" else 1


@dataclass(frozen=True, eq=False)
class NeuronRecord:
    """A layer of neurons: how often each was updated, and how often it fired.

    Args:
        name: The layer's name, unique among the neurons of a network.
        kind: A name in `NEURONS`: "IF", "LIF", "CuBaLIF", "ALIF", "LI", ...
        shape: Shape of the layer, without batch and time.
        updates: Mean updates of a neuron per inference (the steps that ran); an array of `shape` where neurons differ,
            zero for a neuron that is gated off.
        spikes: Mean spikes per inference: the layer's total as one number, or an array of `shape`, one per neuron.
        bits: Width of its states and their arithmetic; that of the profile when left out.
        norm: Of what normalises currents and is no neuron, `shape` being that of the currents: "token" if a dense twin
            has it too, "step" if the twin, which has no time steps, has it in its kernels; empty for neurons.

    Raises:
        ValueError: A shape does not fit, or a number is negative or not finite.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    updates: Number | Shaped[np.ndarray, "..."]
    spikes: Number | Shaped[np.ndarray, "..."] = 0.0
    norm: str = ""
    bits: int | None = None

    def __post_init__(self) -> None:
        where = f"Neuron record {self.name!r}"
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        for field in ("updates", "spikes"):
            value = getattr(self, field)
            shape = () if np.ndim(value) == 0 else self.shape
            value = _checked(f"{where}: {field}", value, shape)
            object.__setattr__(self, field, value if shape else float(value))

    @property
    def neurons(self) -> int:
        """Number of neurons in the layer, or of currents that are normalised."""
        return math.prod(self.shape)

    @property
    def total_updates(self) -> float:
        """Neuron updates of the whole layer per inference."""
        return float(np.sum(self.updates)) if np.ndim(self.updates) else float(self.updates) * self.neurons

    @property
    def total_spikes(self) -> float:
        """Spikes of the whole layer per inference."""
        return float(np.sum(self.spikes))


@dataclass(frozen=True, eq=False)
class SamplingRecord:
    """Draws of addresses from a layer's input: its values are summed up, and each draw is looked up in the sums.

    Args:
        name: The name of the layer that the addresses are for.
        inputs: Mean number of nonzero inputs per inference.
        draws: Mean number of draws per inference.
        randoms: Mean number of random numbers per inference; one by multiplication and addition each.

    Raises:
        ValueError: A number is negative or not finite.
    """

    name: str
    inputs: Number
    draws: Number
    randoms: Number

    def __post_init__(self) -> None:
        for field in ("inputs", "draws", "randoms"):
            value = _checked(f"Sampling record {self.name!r}: {field}", getattr(self, field), ())
            object.__setattr__(self, field, float(value))


Record = SynapseRecord | NeuronRecord | SamplingRecord


def merge(first: Sequence[Record], second: Sequence[Record], share: Number) -> list[Record]:
    """Mean of two sets of records of one network, so that batches are added up in constant memory.

    Args:
        first: Records of what was run so far.
        second: Records of the batch to add, in the same order.
        share: Share of all examples that `second` stands for, in [0, 1].

    Raises:
        ValueError: The two sets name different layers, or `share` is outside [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}; it is batch size over examples seen so far.")
    if [(type(r), r.name) for r in first] != [(type(r), r.name) for r in second]:
        raise ValueError(
            f"Only records of one network can be merged, got layers {[r.name for r in first]} and "
            f"{[r.name for r in second]}; record both batches with the same network."
        )
    fields: dict[type, tuple[str, ...]] = {SynapseRecord: ("events", "executions"), NeuronRecord: ("updates", "spikes")}
    fields |= {SamplingRecord: ("inputs", "draws", "randoms")}
    return [
        replace(a, **{name: (1 - share) * getattr(a, name) + share * getattr(b, name) for name in fields[type(a)]})
        for a, b in zip(first, second, strict=True)
    ]


def _checked(what: str, value: object, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{what} must have shape {shape}, got {array.shape}; give the mean over the batch.")
    if not np.all(np.isfinite(array)) or np.any(array < 0):
        worst = array[~np.isfinite(array) | (array < 0)].flat[0]
        raise ValueError(f"{what} must be finite and not negative, got {worst}; it is a mean number of occurrences.")
    return array


def _check_geometry(where: str, record: SynapseRecord) -> None:
    kernel = record.kernel_shape
    if record.kind in ("dense", "recurrent"):
        wanted = (math.prod(record.in_shape), math.prod(record.out_shape))
        if kernel != wanted:
            raise ValueError(f"{where}: kernel_shape must be (inputs, outputs) = {wanted}, got {kernel}.")
        return
    if record.kind == "wire":
        wanted = (record.in_shape[-1], math.prod(record.out_shape))
        if kernel[-2:] != wanted:
            raise ValueError(f"{where}: kernel_shape must end in (senders, receivers) = {wanted}, got {kernel}.")
        if record.reach is not None and np.shape(record.reach) != record.in_shape[:-1]:
            raise ValueError(
                f"{where}: reach must have one number for each place, {record.in_shape[:-1]}, got "
                f"{np.shape(record.reach)}."
            )
        return
    if len(record.in_shape) != len(record.window) + 1 or len(record.out_shape) != len(record.window) + 1:
        raise ValueError(
            f"{where}: shapes must be [*space, channel] with {len(record.window)} space axes, got "
            f"{record.in_shape} to {record.out_shape}; images are channels last."
        )
    if record.kind == "conv":
        channels = record.in_shape[-1]
        if kernel[-2] == 0 or channels % kernel[-2] or kernel[-1] % record.groups or kernel[-1] != record.out_shape[-1]:
            raise ValueError(
                f"{where}: the kernel {kernel} must be [*window, channels / groups, channels out] for "
                f"{channels} to {record.out_shape[-1]} channels; images are channels last."
            )
    elif record.in_shape[-1] != record.out_shape[-1]:
        raise ValueError(f"{where}: pooling keeps the channels, got {record.in_shape[-1]} to {record.out_shape[-1]}.")
    if len(record.dilation) != len(record.window):
        raise ValueError(f"{where}: dilation must have one entry per window axis, got {record.dilation}.")
    if len(record.strides) != len(record.window):
        raise ValueError(f"{where}: strides must have one entry per window axis, got {record.strides}.")
    if isinstance(record.padding, str) and record.padding not in ("SAME", "VALID"):
        raise ValueError(f"{where}: padding must be SAME, VALID or (low, high) per axis, got {record.padding!r}.")
    spatial = tuple(_out_size(record, axis) for axis in range(len(record.window)))
    if record.out_shape[:-1] != spatial:
        raise ValueError(
            f"{where}: a window {record.window} with strides {record.strides} and padding {record.padding} takes "
            f"{record.in_shape[:-1]} to {spatial}, got out_shape {record.out_shape}; images are channels last."
        )


def _out_size(record: SynapseRecord, axis: int) -> int:
    size, taps, stride = record.in_shape[axis], record.reaches[axis], record.strides[axis]
    if record.padding == "SAME":
        return -(-size // stride)
    padded = 0 if isinstance(record.padding, str) else sum(record.padding[axis])
    return (size + padded - taps) // stride + 1
