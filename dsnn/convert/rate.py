"""The conventional way to run a converted network: every input a spike train whose rate is its value."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.energy import NeuronRecord, Record, SynapseRecord
from dsnn.native import products as products
from dsnn.networks.layers import Dense
from dsnn.networks.stack import Stack
from dsnn.simulate import encode
from dsnn.simulate.row_sampling import Rows
from dsnn.simulate.unroll import unroll
from dsnn.types import Array, Float, Key


class RateCoded(NamedTuple):
    """What a rate-coded run gives.

    Attributes:
        logits: running ones, ``[time, batch, class]``.
        events: by layer the mean number of spikes of each input per example and step, ``[time, input]``.
    """

    logits: Float[Array, "time batch class"]
    events: dict[str, Float[Array, "time input"]]


def rate_coded(stack: Stack, x: Float[Array, "batch *feature"] | Rows, steps: int, key: Key[Array, ""]) -> RateCoded:
    """Runs a stack of dense layers on Bernoulli spikes with the inputs as probabilities.

    Sparse rows stay sparse: their spikes select the rows of weights that are added.

    Args:
        stack: for example of `convert`, dense layers only.
        x: inputs in [0, 1] ``[batch, ...]``, or sparse rows.
        steps: T.
        key: consumed.

    Raises:
        ValueError: a layer that is not dense.
    """
    events: dict[str, Array] = {}
    signal: Any = None
    for name, layer in stack.layers():
        if not isinstance(layer.synapse, Dense) or len(layer.before):
            raise ValueError(f"this run needs dense layers without pooling, got {name}; use dsnn.unroll.")
        if signal is None:
            rows = x if isinstance(x, Rows) else None
            values = x.value if isinstance(x, Rows) else x.reshape(x.shape[0], -1)
            signal = encode.rate(values, steps, key)
            if rows is None:
                events[name] = signal.mean(1)
                currents = _fold(layer.synapse, signal)
            else:
                count = layer.synapse.kernel.shape[0]
                events[name] = jnp.zeros((steps, count)).at[:, rows.address].add(signal) / len(values)
                index = jnp.broadcast_to(rows.address, signal.shape).reshape(-1, values.shape[1])
                drive = products.gather(index, signal.reshape(-1, values.shape[1]), layer.synapse.kernel[...])
                bias = 0.0 if layer.synapse.bias is None else layer.synapse.bias[...]
                currents = (drive + bias).reshape(steps, len(values), -1)
        else:
            events[name] = signal.mean(1)
            currents = _fold(layer.synapse, signal)
        signal, _, _ = unroll(layer.cell, currents)
    return RateCoded(stack.logits(signal), events)


def rate_records(stack: Stack, events: Mapping[str, Any], steps: int) -> list[Record]:
    """Returns the records of the first T steps of a run of `rate_coded`.

    A spike is an accumulate at each neuron that it reaches, and every neuron is updated at every step.
    """
    records: list[Record] = []
    names = list(stack.names)
    for index, (name, layer) in enumerate(stack.layers()):
        kernel = np.asarray(layer.synapse.kernel[...])
        sent = np.asarray(events[name], np.float64)[:steps].sum(0)
        records.append(
            SynapseRecord(name, "dense", (kernel.shape[0],), layer.out_shape, sent, steps, connected=kernel != 0)
        )
        last = index == len(names) - 1
        spikes = 0.0 if last else float(np.asarray(events[names[index + 1]])[:steps].sum())
        records.append(NeuronRecord(name, "LI" if last else "IF", layer.out_shape, float(steps), spikes))
    return records


def _fold(synapse: Dense, signal: Float[Array, "time batch input"]) -> Float[Array, "time batch neuron"]:
    time, batch = signal.shape[:2]
    return synapse(signal.reshape(time * batch, -1)).reshape(time, batch, -1)


def sparse_rows(x: Any, width: int | None = None) -> Rows:
    """Returns CSR rows filled up to a common width, ``[n, width]``, and never more of them than were given.

    Args:
        x: scipy CSR array; a batch of a data set.
        width: at least the longest row; None takes the next power of two, so that few shapes are compiled.

    Raises:
        ValueError: a row longer than the width.
    """
    lengths = np.diff(x.indptr)
    longest = int(lengths.max(initial=1))
    width = 1 << max(longest - 1, 0).bit_length() if width is None else width
    if longest > width:
        raise ValueError(f"width must be at least the longest row, {longest} nonzero values, got {width}.")
    slots = np.arange(width)[None] < lengths[:, None]
    index, value = np.zeros(slots.shape, np.int32), np.zeros(slots.shape, np.float32)
    index[slots], value[slots] = x.indices, x.data
    return Rows(jax.numpy.asarray(index), jax.numpy.asarray(value))
