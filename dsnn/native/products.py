"""Products that do work only where spikes fall: x W as a sum of the rows of W that x selects, on CPUs.

Programs that are lowered for other devices multiply densely, from whatever process.

A dense product multiplies every zero. Where few inputs are nonzero it is faster to walk over these events: forward, and
for the gradient of W, whose rows are sums of the output gradients at the events. (The gradient of x is dense, since a
surrogate derivative is nowhere zero.) Products and sums are exact float32, added in another order than a dense product
adds them. `scripts/benchmark_events.py` measures where the break-even lies.

**What is not finite.** A NaN or infinite input is an event and reaches the output as in a dense product. But an input
of zero is none, and what it would be multiplied by is never read: where a dense product gives 0 times infinity = NaN,
for a weight that is not finite, or for an output gradient that is not in the gradient of W, events give 0. Which of the
two comes out of `product` depends on the density, so it tells no one whether all weights are finite.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from dsnn.native.derivatives import both_ways
from dsnn.native.library import call, foreign, problem
from dsnn.native.lowering import on_this_cpu
from dsnn.types import Array, Float, Int

__all__ = ["BREAK_EVEN", "FEWEST_ROWS", "NARROWEST", "SMALLEST", "drive", "gather", "problem", "product", "worthwhile"]

BREAK_EVEN = 0.15
"""Fraction of nonzero inputs below which events are faster than a dense product."""

NARROWEST = 64
"""Number of neurons below which finding the events costs more than a dense forward product."""

SMALLEST = 2**16
"""Number of weights below which that holds too."""

FEWEST_ROWS = 64
"""Number of rows below which a weight gradient costs more to gather than to multiply."""

SAMPLED_ROWS = 256
DRIVE, WEIGHT = "dsnn_events_drive", "dsnn_events_weight"


def worthwhile(weights: Float[Array, "input neuron"]) -> bool:
    """Returns whether products with ``weights`` can gain from events on a CPU: a compiler, and enough weights."""
    return weights.size >= SMALLEST // 8 and weights.dtype == jnp.float32 and problem() is None


def product(x: Float[Array, "row input"], weights: Float[Array, "input neuron"]) -> Float[Array, "row neuron"]:
    """Returns x W, computed from the events of x if they are fewer than `BREAK_EVEN`, else densely.

    The choice is made at run time, at each call, forward and for the gradient, from the density of (at most
    `SAMPLED_ROWS`) rows. Under `jax.vmap` the mapped products run one after another. Where events cannot be used (see
    `problem`) all is dense. Forward-mode derivatives are dense. A weight that is not finite, times an input of zero, is
    0 by events and NaN densely; an input that is not finite is an event.
    """
    return _product(x, weights)


def drive(x: Float[Array, "row input"], weights: Float[Array, "input neuron"]) -> Float[Array, "row neuron"]:
    """Returns x W, on CPUs computed from the events of x whatever their number; as `product` otherwise.

    An input of zero adds 0 even where its weight is not finite, which a dense product would show as NaN; an input that
    is not finite is an event.

    Raises:
        RuntimeError: event-driven products cannot be used here.
    """
    if (reason := problem()) is not None:
        raise RuntimeError(f'event-driven products are not available, since {reason}; use product="dense".')
    return _always(x, weights)


def gather(
    index: Int[Array, "row event"], value: Float[Array, "row event"], weights: Float[Array, "input neuron"]
) -> Float[Array, "row neuron"]:
    """Returns the weighted sum of the rows that the events name, sum_e value_e W[index_e]: E rows of work, not N.

    An event of value zero is none, and adds 0 even where its row is not finite. Without the compiled library, and on
    other devices than CPUs, the same rows are gathered by XLA, one event after another. Both ways fetch only these
    rows. Gradients reach the values and, row by row, the weights.

    Args:
        index: row numbers of W; one that is no row stops the compiled library with an error.
        value: what each row is multiplied by.
        weights: W.
    """
    return _gathered(index, value, weights)


def _gather(index: Array, value: Array, weights: Array) -> Array:
    if problem() is not None or weights.dtype != jnp.float32:
        return _gather_in_turn(index, value, weights)
    out = jax.ShapeDtypeStruct((index.shape[0], weights.shape[1]), jnp.float32)
    operands = index.astype(jnp.int32), value.astype(jnp.float32), weights
    return call("dsnn_events_gather", out, _gather_in_turn, *operands)


def _gather_in_turn(index: Array, value: Array, weights: Array) -> Array:
    def add(e: Array, total: Array) -> Array:
        return total + _sent(value[:, e, None], weights[index[:, e]])

    return jax.lax.fori_loop(0, index.shape[1], add, jnp.zeros((index.shape[0], weights.shape[1]), weights.dtype))


def _sent(value: Array, row: Array) -> Array:
    """What an event adds; of value zero it is none, whatever stands in the row."""
    return jnp.where(value == 0, 0.0, value * row)


def _gather_forward(index: Array, value: Array, weights: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    return _gather(index, value, weights), (index, value, weights)


def _gather_backward(kept: tuple[Array, Array, Array], grad: Array) -> tuple[None, Array, Array]:
    index, value, weights = kept

    def to_value(e: Array, total: Array) -> Array:
        return total.at[:, e].set((weights[index[:, e]] * grad).sum(1))

    def to_weights(e: Array, total: Array) -> Array:
        return total.at[index[:, e]].add(_sent(value[:, e, None], grad))

    events = index.shape[1]
    return (
        None,
        jax.lax.fori_loop(0, events, to_value, jnp.zeros_like(value)),
        jax.lax.fori_loop(0, events, to_weights, jnp.zeros_like(weights)),
    )


_gathered = both_ways(_gather_forward, _gather_backward, _gather_in_turn)


def _by_events(x: Array, weights: Array) -> Array:
    if weights.shape[1] < NARROWEST or weights.size < SMALLEST:
        return _dense(x, weights)
    return _by_density(x, DRIVE, _dense, weights, x.shape[0])


def _product_forward(x: Array, weights: Array) -> tuple[Array, tuple[Array, Array]]:
    return _by_events(x, weights), (x, weights)


def _product_backward(kept: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, weights = kept
    few = x.shape[0] < FEWEST_ROWS
    to_weights = _dense_weight(x, grad) if few else _by_density(x, WEIGHT, _dense_weight, grad, x.shape[1])
    return grad @ weights.T, to_weights


def _always_forward(x: Array, weights: Array) -> tuple[Array, tuple[Array, Array]]:
    return _drive(x, weights), (x, weights)


def _always_backward(kept: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, weights = kept
    return grad @ weights.T, _weight(x, grad)


def _by_density(x: Array, target: str, dense: Callable[[Array, Array], Array], other: Array, rows: int) -> Array:
    """Returns a product of x and another matrix: by its events if they are few enough, on CPUs, else densely."""
    if problem() is not None:
        return dense(x, other)
    out = jax.ShapeDtypeStruct((rows, other.shape[1]), jnp.float32)
    return on_this_cpu(_Counted(target, out, dense), dense, out, x, other)


@dataclass(frozen=True)
class _Counted:
    """A product by events if a count of them says so, else densely."""

    target: str
    out: jax.ShapeDtypeStruct
    dense: Callable[[Array, Array], Array]

    def __call__(self, x: Array, other: Array) -> Array:
        """Returns the product."""
        sampled = x[:: max(1, x.shape[0] // SAMPLED_ROWS)]
        found = foreign("dsnn_events_count", jax.ShapeDtypeStruct((), jnp.int32))(sampled)
        by_events = foreign(self.target, self.out)
        return jax.lax.cond(found < BREAK_EVEN * sampled.size, by_events, self.dense, x, other)


def _dense(x: Array, weights: Array) -> Array:
    return x @ weights


def _dense_weight(x: Array, grad: Array) -> Array:
    return x.T @ grad


_product = both_ways(_product_forward, _product_backward, _dense)


def _drive(x: Array, weights: Array) -> Array:
    out = jax.ShapeDtypeStruct((x.shape[0], weights.shape[1]), jnp.float32)
    return call(DRIVE, out, _dense, x, weights)


def _weight(x: Array, grad: Array) -> Array:
    out = jax.ShapeDtypeStruct((x.shape[1], grad.shape[1]), jnp.float32)
    return call(WEIGHT, out, _dense_weight, x, grad)


_always = both_ways(_always_forward, _always_backward, _dense)
