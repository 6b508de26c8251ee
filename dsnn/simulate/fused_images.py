"""Neurons of images over all time steps as one call into C, on CPUs, with the pooling that reads their spikes.

A scan reads and writes the membranes and spikes of all neurons at every step, and max pooling reads the spikes once
more; of images these are the largest arrays of a network. In C (`membranes.c`) a neuron's membrane stays in a register
from the first step to the last. Spikes are those of the scan bit for bit; gradients round otherwise in their last bits.
Where a program is lowered for another device this is a scan as well.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import surrogate
from dsnn.cells import LIF
from dsnn.cells.decay import per_step, scaled
from dsnn.cells.firing import intervening
from dsnn.cells.rounding import rounded
from dsnn.native.derivatives import both_ways
from dsnn.native.library import call, problem
from dsnn.networks.layers import Layer, LayerState, Pool
from dsnn.surrogate import Surrogate, heaviside
from dsnn.types import Array, Float

__all__ = ["pools", "run", "supports"]

RESETS = ("subtract", "zero", "none")
SURROGATES: dict[Any, tuple[int, tuple[str, ...]]] = {
    surrogate.atan: (0, ("alpha",)),
    surrogate.arctan: (1, ("k",)),
    surrogate.fast_sigmoid: (2, ("slope", "height")),
    surrogate.superspike: (2, ("alpha",)),
    surrogate.triangle: (3, ("width", "height")),
    surrogate.boxcar: (4, ("width", "height")),
    surrogate.straight_through: (5, ()),
}
"""Number and parameters, as `membranes.c` knows them; a height that is not named is 1."""
MOST_MEMBERS = 16
"""Neurons of a window, as `membranes.c` holds them in registers."""


class _Kind(NamedTuple):
    """What differs between compiled programs."""

    steps: int
    reset: str
    compare: str
    detached: bool
    surrogate: Surrogate
    window: tuple[int, ...]


def supports(layer: Layer) -> bool:
    """Returns whether `run` takes the layer, of float32 currents, and this machine has the C program."""
    cell: Any = layer.cell
    if type(cell) is not LIF or len(layer.out_shape) != 3 or layer.recurrent is not None or layer.reads != "spikes":
        return False
    lif: Any = cell  # its options are set by a function, which mypy does not follow
    fixed = all(isinstance(each, int | float) for each in (lif.beta, lif.tau, lif.threshold) if each is not None)
    plain = lif.noise is None and not lif.refractory and isinstance(lif.rest, int | float) and lif.rest == 0
    simple = lif.reset_timing == "same" and isinstance(lif.reset, str) and isinstance(lif.input_scale, str | float)
    known = lif.surrogate is not None and lif.surrogate.function in SURROGATES
    return fixed and plain and simple and known and not intervening() and problem() is None


def pools(module: Any) -> bool:
    """Returns whether `run` can do this pooling with the neurons whose spikes it reads."""
    if not isinstance(module, Pool) or module.kind != "max" or module.window[0] * module.window[1] > MOST_MEMBERS:
        return False
    return module.strides == module.window and module.padding == "VALID"


def run(
    layer: Layer, currents: Float[Array, "step batch row column channel"], steps: int, pool: Pool | None = None
) -> tuple[LayerState, Float[Array, "time batch out_row out_column channel"]]:
    """Returns the final state and the spikes at every step, of what is left of them by ``pool``.

    Args:
        layer: one that `supports` holds for.
        currents: that its input drives, of one step where they are held.
        steps: number of time steps.
        pool: one that `pools` holds for, which reads the spikes; None gives them as they are.
    """
    cell: Any = layer.cell
    window = (1, 1) if pool is None else pool.window
    kind = _Kind(steps, cell.reset, cell.compare, bool(cell.detach_reset), cell.surrogate, window)
    beta = per_step(cell)
    scale = scaled(cell, jnp.ones(()), beta)
    constants = jnp.stack([jnp.asarray(c, jnp.float32) for c in (beta, cell.threshold, scale)])
    # nothing is run for a state that nobody reads
    last = _last(kind._replace(window=(1, 1)))(constants, currents)
    return LayerState(cell.init(currents.shape[1:])._replace(membrane=last), None), _spikes(kind)(constants, currents)


@functools.cache
def _spikes(kind: _Kind) -> Callable[[Array, Array], Array]:
    """Returns (constants, currents) to spikes: the constants are beta, threshold and scale."""
    in_jax = _Spikes(kind)

    def forward(constants: Array, currents: Array) -> tuple[Array, tuple[Array, Array]]:
        out = jax.eval_shape(in_jax, *_operands(kind, constants, currents))
        return call("dsnn_membranes", out, in_jax, *_operands(kind, constants, currents)), (constants, currents)

    def backward(kept: tuple[Array, Array], grad: Array) -> tuple[None, Array]:
        constants, currents = kept
        out = jax.ShapeDtypeStruct(currents.shape, currents.dtype)
        return None, call("dsnn_membranes_back", out, _Back(kind), *_operands(kind, constants, currents), grad)

    return both_ways(forward, backward, functools.partial(_scanned_spikes, kind))


@functools.cache
def _last(kind: _Kind) -> Callable[[Array, Array], Array]:
    """Returns (constants, currents) to the membranes after the last step."""

    def plain(constants: Array, currents: Array) -> Array:
        return _scan(kind, constants, currents)[0]

    def forward(constants: Array, currents: Array) -> tuple[Array, tuple[Array, Array]]:
        out = jax.ShapeDtypeStruct(currents.shape[1:], currents.dtype)
        operands = _operands(kind, constants, currents)
        return call("dsnn_membranes_last", out, _Last(kind), *operands), (constants, currents)

    def backward(kept: tuple[Array, Array], grad: Array) -> tuple[None, Array]:
        constants, currents = kept
        return None, jax.vjp(lambda currents: plain(constants, currents), currents)[1](grad)[0]

    return both_ways(forward, backward, plain)


def _operands(kind: _Kind, constants: Array, currents: Array) -> tuple[Array, Array, Array]:
    """Returns what the C programs take: currents, settings, and constants with the surrogate's."""
    number, names = SURROGATES[kind.surrogate.function]
    parameters = dict(kind.surrogate.parameters)
    own = [*(parameters[name] for name in names), 1.0, 1.0][:2]
    settings = [kind.steps, RESETS.index(kind.reset), kind.compare == ">=", kind.detached, number, *kind.window]
    more = jnp.asarray(np.asarray(own, np.float32))
    return currents, jnp.asarray(np.asarray(settings, np.int32)), jnp.concatenate([constants, more])


def _scan(kind: _Kind, constants: Array, currents: Array) -> tuple[Array, Array]:
    """Returns the last membranes, and the spikes at every step."""
    beta, threshold, scale = constants[0], constants[1], constants[2]
    held = currents.shape[0] != kind.steps

    def step(membrane: Array, current: Array | None) -> tuple[Array, Array]:
        u = rounded(beta * membrane) + rounded(scale * (currents[0] if current is None else current))
        spikes = heaviside(u - threshold, kind.surrogate, kind.compare)
        through = jax.lax.stop_gradient(spikes) if kind.detached else spikes
        left = {"subtract": u - through * threshold, "zero": u * (1 - through), "none": u}
        return left[kind.reset], spikes

    start = jnp.zeros(currents.shape[1:], currents.dtype)
    return jax.lax.scan(step, start, None if held else currents, kind.steps)


def _scanned_spikes(kind: _Kind, constants: Array, currents: Array) -> Array:
    spikes = _scan(kind, constants, currents)[1]
    if kind.window == (1, 1):
        return spikes
    height, width, channels = spikes.shape[2:]
    pool = Pool((height, width, channels), (kind.window[0], kind.window[1]))
    return pool(spikes.reshape(-1, *spikes.shape[2:])).reshape(*spikes.shape[:2], *pool.out_shape)


@dataclass(frozen=True)
class _Spikes:
    """What the C program gives, in JAX; equal where the kinds are, and so are the classes below."""

    kind: _Kind

    def __call__(self, currents: Array, _: Array, constants: Array) -> Array:
        """Returns the spikes."""
        return _scanned_spikes(self.kind, constants, currents)


@dataclass(frozen=True)
class _Last:
    """The membranes after the last step in JAX."""

    kind: _Kind

    def __call__(self, currents: Array, _: Array, constants: Array) -> Array:
        """Returns the membranes."""
        return _scan(self.kind, constants, currents)[0]


@dataclass(frozen=True)
class _Back:
    """The gradient of the currents in JAX."""

    kind: _Kind

    def __call__(self, currents: Array, _: Array, constants: Array, grad: Array) -> Array:
        """Returns the gradient."""
        return jax.vjp(lambda currents: _scanned_spikes(self.kind, constants, currents), currents)[1](grad)[0]
