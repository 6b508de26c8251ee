"""A converted network run on address events: at every layer, draws from what came in say which rows to fetch.

The layers answer one after another. A layer's input (pixels, words, or the rates of the layer before) is one
distribution; K draws from it are K rows of weights, added to the membranes; the integrate-and-fire neurons turn them
into spikes, whose counts are the next layer's distribution. Nothing else of a weight matrix is read: per example a
layer of N inputs costs K rows and not N.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsnn.native import products as products
from dsnn.networks.layers import Dense
from dsnn.networks.stack import Stack
from dsnn.simulate.row_sampling import AddressEvents, Rows, address_events
from dsnn.simulate.unroll import unroll
from dsnn.types import Array, Float, Key

ORDERS = ("interleaved", "first")


class Stochastic(NamedTuple):
    """What a run on address events gives.

    Attributes:
        logits: ``[batch, class]``.
        rates: spikes per step of each hidden layer, ``[batch, neuron]``.
        events: by layer the mean number of draws of each address per example, ``[input]``.
        inputs: by layer the mean number of addresses that could be drawn (nonzero inputs), which drawing has to sum.
    """

    logits: Float[Array, "batch class"]
    rates: dict[str, Float[Array, "batch neuron"]]
    events: dict[str, Float[Array, " input"]]
    inputs: dict[str, Float[Array, ""]]


def gathered(synapse: Dense, events: AddressEvents) -> Float[Array, "batch neuron"]:
    """Returns a dense synapse's currents from address events: the weighted rows that they name, plus the bias."""
    current = products.gather(events.address, events.value, synapse.kernel[...])
    return current if synapse.bias is None else current + synapse.bias[...]


def stochastic(
    stack: Stack,
    x: Float[Array, "batch *feature"] | Rows,
    draws: Mapping[str, int],
    key: Key[Array, ""],
    *,
    steps: int,
    sampling: str = "spread",
    order: str = "first",
    signed: bool = False,
    proposals: Mapping[str, Float[Array, " input"]] | None = None,
) -> Stochastic:
    """Runs a stack of dense integrate-and-fire layers on address events.

    Args:
        stack: for example of `convert`, dense layers only.
        x: inputs ``[batch, ...]``, or sparse rows.
        draws: K by layer name.
        key: consumed.
        steps: T; a hidden neuron sends at most one spike at each.
        sampling: see `address_events`.
        order: "first": all events are integrated before the neurons fire for T steps, so that a spike is never sent too
            early; "interleaved": the events arrive during the T steps, as in a rate-coded network.
        signed: whether inputs have two signs; each then has its own train of K draws.
        proposals: by layer name, see `address_events`.

    Raises:
        ValueError: a layer that is not dense, layers without draws, or an unknown order.
    """
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}.")
    names = stack.names
    if missing := [name for name in names if name not in draws]:
        raise ValueError(f"every layer needs its number of draws, {', '.join(missing)} got none.")
    signal: Any = x
    rates: dict[str, Array] = {}
    drawn: dict[str, Array] = {}
    there: dict[str, Array] = {}
    for index, (name, layer) in enumerate(stack.layers()):
        if not isinstance(layer.synapse, Dense) or layer.recurrent is not None or len(layer.before):
            raise ValueError(f"address events need feed-forward dense layers without pooling, got {name}.")
        rows = isinstance(signal, Rows)
        values = signal.value if rows else signal.reshape(signal.shape[0], -1)
        first, last = index == 0, index == len(names) - 1
        events = address_events(
            signal if rows else values,
            draws[name],
            jax.random.fold_in(key, index),
            signed=signed and first,
            proposal=(proposals or {}).get(name),
            sampling=sampling,
        )
        count = layer.synapse.kernel.shape[0]
        real = (events.value != 0).astype(jnp.float32)
        drawn[name] = jnp.zeros(count).at[events.address].add(real) / len(values)
        there[name] = (values != 0).sum(1).mean()
        if last:
            return Stochastic(gathered(layer.synapse, events), rates, drawn, there)
        currents = _over_time(layer.synapse, events, steps, order)
        spikes, _, _ = unroll(layer.cell, currents)
        rates[name] = signal = spikes.mean(0)
    raise AssertionError("a stack has a last layer")


def _over_time(synapse: Dense, events: AddressEvents, steps: int, order: str) -> Float[Array, "time batch neuron"]:
    """Returns the currents of T steps, whose sum is T times the estimate of the deep network's preactivation."""
    batch, number = events.address.shape
    if order == "first":
        total = steps * gathered(synapse, events)
        return jnp.concatenate([total[None], jnp.zeros((steps - 1, *total.shape))])
    each = -(-number // steps)
    pad = ((0, 0), (0, steps * each - number))
    # an event of value zero is none, so what fills up the last step costs nothing
    index, value = jnp.pad(events.address, pad), jnp.pad(steps * events.value, pad)

    def by_step(a: Array) -> Array:
        return a.reshape(batch, steps, each).swapaxes(0, 1).reshape(steps * batch, each)

    currents = gathered(synapse, AddressEvents(by_step(index), by_step(value)))
    return currents.reshape(steps, batch, -1)
