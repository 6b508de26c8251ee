"""A layer's whole time loop at once, one call into C on CPUs: small layers learn faster than by a compiled scan.

`run` takes layers of `LIF`, `ALIF` and `BRF` neurons without noise, recurrent or not, and gives their spikes, their
final state and, backward, exact gradients of kernel, currents and the neurons' constants. What it does not take
(`supports`) is left to `dsnn.unroll`'s scans, which give the same numbers; a recurrent sum is added in another order.
Where the program is lowered for another device the loops are scans as well (`dsnn.simulate.fused_scans`).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from dsnn.cells import ALIF, BRF, LIF
from dsnn.cells.decay import per_step, scaled
from dsnn.cells.firing import intervening
from dsnn.escape.parameters import value
from dsnn.native.derivatives import both_ways
from dsnn.native.library import call, problem
from dsnn.networks.layers import Layer, LayerState
from dsnn.simulate import fused_scans
from dsnn.simulate.fused_scans import Kind
from dsnn.surrogate import heaviside
from dsnn.types import Array

__all__ = ["WIDEST", "run", "supports"]

WIDEST = 256
"""Number of neurons above which products of whole batches on all cores are faster."""


def supports(layer: Any, currents: Array) -> bool:
    """Returns whether `run` takes the layer and these currents, and this machine has the C program."""
    cell = layer.cell
    arrays = (leaf for leaf in (currents, *jax.tree.leaves(nnx.state(layer))) if hasattr(leaf, "dtype"))
    if any(leaf.dtype != jnp.float32 for leaf in arrays):
        return False  # the loop computes in float32
    if type(cell) not in (LIF, ALIF, BRF) or len(layer.out_shape) != 1 or layer.out_shape[0] > WIDEST:
        return False
    if layer.recurrent is not None and getattr(layer.synapse, "dtype", None) not in (None, "float32"):
        return False  # the loop multiplies in float32
    plain = cell.noise is None and cell.compare == ">" and not intervening()
    if not isinstance(cell, BRF):
        subtracts = isinstance(cell.reset, str) and cell.reset == "subtract" and not cell.refractory
        at_zero = isinstance(cell.rest, float) and cell.rest == 0 and not cell.detach_reset
        plain = plain and subtracts and at_zero and (layer.reads == "spikes" or cell.reset_timing == "next")
    return plain and problem() is None


def run(layer: Layer, currents: Array) -> tuple[LayerState, Array]:
    """Returns the final state and what the layer gives at every step, ``[time, batch, neuron]``.

    Args:
        layer: one that `supports` holds for.
        currents: that its input drives.
    """
    cell, neurons = layer.cell, currents.shape[-1]
    recurrent, read = layer.recurrent is not None, layer.reads == "membrane"
    kernel = jnp.zeros((1, 1), jnp.float32) if layer.recurrent is None else layer.recurrent[...]
    resonates = isinstance(cell, BRF)
    later = not resonates and cell.reset_timing == "next"
    kind = Kind(recurrent, later, isinstance(cell, ALIF), read, cell.surrogate)
    constants = jnp.stack([jnp.broadcast_to(jnp.asarray(c, jnp.float32), (neurons,)) for c in _constants(cell)])
    if resonates:
        over, membranes, last = _resonating(kind)(kernel, constants, currents)
    else:
        over, membranes, last = _adaptive(kind)(kernel, constants, currents)
    spikes = heaviside(over, cell.surrogate)
    state = cell.init(currents.shape[1:])
    if resonates:
        state = state._replace(membrane=last[0], imaginary=last[1], refractory=last[2])
    else:
        state = state._replace(membrane=last[0])
        state = state._replace(adaptation=last[1]) if kind.adapts else state
        state = state._replace(spikes=spikes[-1]) if later else state
    return LayerState(state, spikes[-1] if recurrent else None), membranes if read else spikes


def _constants(cell: Any) -> tuple[Any, ...]:
    """Returns five numbers or arrays over neurons, in the order that `loops.c` names them."""
    if isinstance(cell, BRF):
        return cell.bound(), value(cell.omega), value(cell.threshold), value(cell.gamma), cell.dt
    beta = per_step(cell)
    scale = scaled(cell, jnp.ones(()), beta)
    if not isinstance(cell, ALIF):
        return beta, 0.0, value(cell.threshold), 0.0, scale
    return beta, per_step(cell, "rho", "tau_adp"), value(cell.threshold), value(cell.strength), scale


def _call(target: str, kind: Kind, shapes: tuple[tuple[int, ...], ...], *operands: Array) -> Any:
    out = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return call(f"dsnn_loops_{target}", out, _Scan(target, kind), *operands)


@dataclass(frozen=True)
class _Scan:
    """A loop as a scan of `dsnn.simulate.fused_scans`; equal where its name and kind are."""

    target: str
    kind: Kind

    def __call__(self, *operands: Array) -> list[Array]:
        """Returns what the C program of this name gives."""
        return getattr(fused_scans, self.target)(self.kind, *operands)


def _numbers(kind: Kind) -> Array:
    return jnp.asarray([kind.recurrent, kind.next, kind.adapts], jnp.float32)


def _by_kernel(kind: Kind, kernel: Array, over: Array, by_currents: Array) -> Array:
    """Returns the recurrent kernel's gradient: one product of all spikes with what they met a step later."""
    if not kind.recurrent:
        return jnp.zeros_like(kernel)
    neurons = over.shape[-1]
    sent = (over[:-1] > 0).astype(jnp.float32).reshape(-1, neurons)
    return jax.lax.dot_general(sent, by_currents[1:].reshape(-1, neurons), (((0,), (0,)), ((), ())))


def _by_membranes(kind: Kind, change: Any) -> Array:
    return change if kind.read else jnp.zeros(1, jnp.float32)


@functools.cache
def _adaptive(kind: Kind) -> Callable[..., Any]:
    """Returns the loop of LIF or ALIF neurons: (kernel, constants, currents) to d, u and the final state."""

    def forward(kernel: Array, constants: Array, currents: Array) -> Any:
        shape = currents.shape
        adaptations = shape if kind.adapts else (1,)
        over, membranes, adapted = _call(
            "adaptive", kind, (shape, shape, adaptations), currents, _numbers(kind), kernel, constants
        )
        last = membranes[-1]
        if not kind.next:  # the state is what is left after the reset
            last = jnp.where(over[-1] > 0, over[-1], last)
        adaptation = adapted[-1] if kind.adapts else jnp.zeros(shape[1:], jnp.float32)
        out = over, membranes if kind.read else None, (last, adaptation)
        return out, (kernel, constants, over, membranes, adapted)

    def backward(kept: Any, change: Any) -> Any:
        kernel, constants, over, membranes, adapted = kept
        by_over, by_membranes, (by_last, by_adaptation) = change
        by_currents, by_constants = _call(
            "adaptive_back",
            kind,
            (over.shape, constants.shape),
            *(kind.surrogate(over), _numbers(kind), kernel, constants, over, membranes, adapted),
            *(by_over, _by_membranes(kind, by_membranes), by_last, by_adaptation),
        )
        return _by_kernel(kind, kernel, over, by_currents), by_constants, by_currents

    def plain(kernel: Array, constants: Array, currents: Array) -> Any:
        (last, adaptation), (over, membranes, _) = fused_scans.adapting(kind, currents, kernel, constants)
        return over, membranes if kind.read else None, (last, adaptation)

    return both_ways(forward, backward, plain)


@functools.cache
def _resonating(kind: Kind) -> Callable[..., Any]:
    """Returns the loop of BRF neurons: (kernel, constants, currents) to d, u and the final state."""

    def forward(kernel: Array, constants: Array, currents: Array) -> Any:
        over, real, imaginary, trace = _call(
            "resonating", kind, (currents.shape,) * 4, currents, _numbers(kind), kernel, constants
        )
        out = over, real if kind.read else None, (real[-1], imaginary[-1], trace[-1])
        return out, (kernel, constants, over, real, imaginary, trace)

    def backward(kept: Any, change: Any) -> Any:
        kernel, constants, over, real, imaginary, trace = kept
        by_over, by_membranes, by_last = change
        by_currents, by_constants = _call(
            "resonating_back",
            kind,
            (over.shape, constants.shape),
            *(kind.surrogate(over), _numbers(kind), kernel, constants, over, real, imaginary, trace),
            *(by_over, _by_membranes(kind, by_membranes), *by_last),
        )
        return _by_kernel(kind, kernel, over, by_currents), by_constants, by_currents

    def plain(kernel: Array, constants: Array, currents: Array) -> Any:
        over, real, imaginary, trace = fused_scans.resonating(kind, currents, _numbers(kind), kernel, constants)
        return over, real if kind.read else None, (real[-1], imaginary[-1], trace[-1])

    return both_ways(forward, backward, plain)
