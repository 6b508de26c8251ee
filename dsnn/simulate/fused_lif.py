"""``schedule="fused"``: the whole time loop of LIF neurons, with their noise, as one kernel on an NVIDIA device.

`run` gives the spikes that the scan of `dsnn.simulate.by_layer` gives of the same key, and its gradients, by the
kernels of `dsnn.simulate.fused_kernel` (Pallas on Mosaic GPU, for Hopper and later). It is never chosen by itself:
nobody has measured where it is faster. What it does not take is refused with a sentence (`refusal`), and so is a
program for another device when it is lowered. Loading Pallas takes a moment, so this file is imported when asked for.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsnn.cells import LIF
from dsnn.cells.decay import per_step, scaled
from dsnn.cells.firing import intervening
from dsnn.cells.lif import LIFState
from dsnn.cells.membrane import apply_reset
from dsnn.cells.rounding import rounded
from dsnn.escape import Gaussian, Logistic
from dsnn.escape.draw import is_threefry, uniform16, with_gradient_of
from dsnn.escape.parameters import value
from dsnn.native.derivatives import both_ways
from dsnn.native.lowering import on_cuda
from dsnn.simulate import fused_kernel
from dsnn.simulate.fused_kernel import Kind, flat, laid_out
from dsnn.surrogate import heaviside
from dsnn.types import Array, Float, Key

__all__ = ["Ran", "interpreted", "refusal", "run"]

LAWS: dict[type, str] = {Logistic: "logistic", Gaussian: "gaussian"}
ELSEWHERE = (
    'schedule="fused" is a kernel for NVIDIA devices (Hopper or later), got a program for {platform}; leave the '
    "schedule out."
)
NOT_IN_KERNELS = ("circ", "periodic_exponential", "q_pseudo_spike", "tanh")
"""Surrogates of a function that Mosaic GPU has not: a power that is no whole number, floor, cosh."""

_interpreted: contextvars.ContextVar[bool] = contextvars.ContextVar("interpreted", default=False)


@contextlib.contextmanager
def interpreted() -> Iterator[None]:
    """Runs the kernels operation by operation, on any device: for tests, since it is slow."""
    token = _interpreted.set(True)
    try:
        yield
    finally:
        _interpreted.reset(token)


class Ran(NamedTuple):
    """What neurons did.

    Attributes:
        state: after the last step.
        spikes: at every step.
        membranes: after the reset of every step, where they were asked for.
    """

    state: LIFState
    spikes: Float[Array, "time *batch neuron"]
    membranes: Float[Array, "time *batch neuron"] | None


def refusal(cell: Any, currents: Any, key: Any = None, *, recurrent: bool = False) -> str | None:
    """Returns why neurons cannot run by ``schedule="fused"``, a sentence, or None.

    Args:
        cell: of the neurons.
        currents: that drive them.
        key: of the run, or keys of its steps.
        recurrent: whether they drive themselves.
    """
    if type(cell) is not LIF:
        return _sentence("LIF neurons", f"a {type(cell).__name__}")
    lif: Any = cell  # its options are set by a function, which mypy does not follow
    named = "" if lif.surrogate is None else lif.surrogate.name
    asked = (
        (recurrent, "neurons without a recurrent kernel", "one"),
        (lif.reset_timing != "same", 'reset_timing="same"', f'"{lif.reset_timing}"'),
        (not isinstance(lif.reset, str), 'reset="subtract", "zero" or "none"', "a value"),
        (lif.refractory != 0, "neurons without a refractory period", f"refractory={lif.refractory}"),
        (not (isinstance(lif.rest, int | float) and lif.rest == 0), "neurons at rest at 0", "another rest"),
        (
            not (lif.noise is None or type(lif.noise) in LAWS),
            "logistic or Gaussian noise, or none",
            f"a {type(lif.noise).__name__}",
        ),
        (
            type(lif.noise) is Gaussian and lif.surrogate is not None,
            "Gaussian noise with its density as the gradient",
            f"surrogate={named!r}",
        ),
        (named in NOT_IN_KERNELS, "surrogates of functions that its compiler has", f"surrogate={named!r}"),
        (currents.dtype != jnp.float32, "float32", str(currents.dtype)),
        (key is not None and not is_threefry(key), "keys of threefry2x32", f"{key.dtype}" if key is not None else ""),
        (intervening(), "spikes that nobody replaces", "an intervention"),
    )
    return next((_sentence(rule, got) for broken, rule, got in asked if broken), None)


def run(
    cell: Any,
    state: Any,
    currents: Float[Array, "time *batch neuron"],
    keys: Key[Array, " time"] | None = None,
    *,
    read: bool = False,
) -> Ran:
    """Returns what a cell does over all time steps.

    Args:
        cell: an `LIF` for which `refusal` is None.
        state: before the first step.
        currents: of all steps.
        keys: one of each step, consumed; None is the deterministic neuron.
        read: whether membranes are wanted.
    """
    beta, shape = per_step(cell), currents.shape[1:]
    width = 1.0 if cell.noise is None else value(cell.noise.width)
    parts = (beta, value(cell.threshold), width)
    kind = Kind(
        cell.reset,
        cell.detach_reset,
        cell.compare,
        "" if cell.noise is None else LAWS[type(cell.noise)],
        cell.noise is not None and keys is not None,
        cell.surrogate,
        not all(isinstance(part, int | float) for part in parts),
        read,
        _interpreted.get(),
    )
    words = jnp.zeros((len(currents), 2), jnp.uint32) if keys is None else jax.random.key_data(keys)
    constants = jnp.stack([jnp.broadcast_to(jnp.asarray(part, jnp.float32), shape).reshape(-1) for part in parts])
    drive = scaled(cell, currents, beta).reshape(len(currents), -1)
    spikes, last, membranes = _loop(kind)(words, constants, state.membrane.reshape(-1), drive)
    spikes = spikes.reshape(currents.shape)
    if membranes is None:
        return Ran(state._replace(membrane=last.reshape(shape)), spikes, None)
    membranes = apply_reset(cell, membranes.reshape(currents.shape), spikes, value(cell.threshold))
    return Ran(state._replace(membrane=membranes[-1]), spikes, membranes)


@functools.cache
def _loop(kind: Kind) -> Callable[..., Any]:
    """Returns (words of keys, constants, start, drive) to spikes, last membranes, and membranes before the reset."""

    def steps(words: Array, constants: Array, start: Array, drive: Array, keeps: bool) -> tuple[Any, list[Array], Any]:
        tiles, first = laid_out(drive), laid_out(start)
        fixed = (words, jnp.arange(tiles.shape[-1], dtype=jnp.uint32), laid_out(constants, 1.0))
        spikes, last, *kept = _called(kind, fused_kernel.Forward(kind, keeps), *fixed, first, tiles)
        neurons = drive.shape[-1]
        membranes = flat(kept[0], neurons) if kind.read else None
        return (flat(spikes, neurons), flat(last, neurons), membranes), [spikes, *kept], fixed

    def apart(words: Array, constants: Array, start: Array, drive: Array) -> Any:
        return steps(words, constants, start, drive, kind.read)[0]

    def forward(words: Array, constants: Array, start: Array, drive: Array) -> Any:
        out, saved, fixed = steps(words, constants, start, drive, True)
        return out, (saved, fixed, constants, start)

    def backward(kept: Any, change: Any) -> Any:
        (spikes, membranes), fixed, constants, start = kept
        by_spikes, by_last, by_membranes = change
        changes = [laid_out(by_spikes), *([laid_out(by_membranes)] if kind.read else [])]
        back = fused_kernel.Backward(kind)
        tiles, *parts = _called(kind, back, *fixed, laid_out(by_last), membranes, spikes, *changes)
        by_drive = flat(tiles, start.shape[-1])
        by_constants = jnp.zeros_like(constants)
        if kind.learns:
            by_constants = flat(parts[0], start.shape[-1]).at[0].add(by_drive[0] * start)
        return None, by_constants, constants[0] * by_drive[0], by_drive

    return both_ways(forward, backward, functools.partial(_scanned, kind), run=apart)


def _called(kind: Kind, kernel: Any, *operands: Array) -> list[Array]:
    return kernel(*operands) if kind.interpret else on_cuda(kernel, ELSEWHERE, kernel.shapes(*operands), *operands)


def _scanned(kind: Kind, words: Array, constants: Array, start: Array, drive: Array) -> Any:
    """Returns what the kernels give, as a scan that JAX differentiates in any mode."""
    beta, threshold, width = constants

    def step(membrane: Array, at: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        word, current = at
        u = rounded(beta * membrane) + current
        d = u - threshold
        rank = uniform16(jax.random.wrap_key_data(word), d.shape) if kind.drawn else None
        if kind.surrogate is None:
            hard = jax.lax.stop_gradient(fused_kernel.fired(kind, d, width, rank))
            z = d / width
            soft = jax.nn.sigmoid(z) if kind.noise == "logistic" else 0.5 + 0.5 * jax.lax.erf(z / math.sqrt(2))
            s = with_gradient_of(hard, soft)
        else:
            over = d if rank is None else d - fused_kernel.noise_at(width, rank)
            s = heaviside(over, kind.surrogate, kind.compare)
        sent = jax.lax.stop_gradient(s) if kind.detach else s
        return fused_kernel.after(kind, u, sent, threshold), (s, u)

    last, (spikes, membranes) = jax.lax.scan(step, start, (words, drive))
    return spikes, last, membranes if kind.read else None


def _sentence(rule: str, got: str) -> str:
    return f'schedule="fused" takes {rule}, got {got}; leave the schedule out.'
