"""The time loop of LIF neurons as two Pallas kernels for NVIDIA's devices (Mosaic GPU): forward, and backward.

A scan writes every step's membranes to memory and reads them back; here a thread keeps those of its neurons in
registers for all steps. Noise is made where it is compared: Threefry's counter is the neuron's number, as in
`dsnn.escape.draw`, so a key gives the noise that it gives in the scan. One block of that cipher serves four neurons; an
array of neurons, ``[..., M]``, is laid out as ``[..., 4, lane]`` with the four one above another, see `laid_out`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu

from dsnn.cells.rounding import unfused
from dsnn.escape.draw import LEVELS, scrambled
from dsnn.surrogate import Surrogate
from dsnn.types import Array, Float

__all__ = ["LANES", "Backward", "Forward", "Kind", "after", "chance", "fired", "flat", "laid_out", "noise_at"]

WORDS, LANES = 4, 128
"""Draws of 16 bits in a block of the cipher, which a thread takes side by side; threads of a block of the device."""


class Kind(NamedTuple):
    """What differs between compiled kernels.

    Attributes:
        reset: "subtract", "zero" or "none".
        detach: whether gradients stop at the spike that resets.
        compare: ">" or ">=", without draws or with a surrogate.
        noise: "", "logistic" or "gaussian".
        drawn: whether noise is drawn; its median otherwise.
        surrogate: None is the density of the noise.
        learns: whether decay, threshold and width have gradients.
        read: whether membranes are among the results.
        interpret: runs anywhere, for tests: operation by operation.
    """

    reset: str
    detach: bool
    compare: str
    noise: str
    drawn: bool
    surrogate: Surrogate | None
    learns: bool
    read: bool
    interpret: bool


def laid_out(values: Float[Array, "..."], fill: float = 0.0) -> Float[Array, "... 4 lane"]:
    """Returns ``[..., M]`` as ``[..., 4, lane]``, where the draws of a block stand in one column; filled up with zeros.

    Args:
        values: of M neurons.
        fill: what stands where there is no neuron.
    """
    lead, neurons = values.shape[:-1], values.shape[-1]
    blocks = -(-neurons // WORDS)
    widths = [(0, 0)] * len(lead)
    rows = jnp.pad(values, [*widths, (0, WORDS * blocks - neurons)], constant_values=fill)
    tiles = [*widths, (0, 0), (0, -blocks % LANES)]
    return jnp.pad(rows.reshape(*lead, WORDS, blocks), tiles, constant_values=fill)


def flat(tiles: Float[Array, "... 4 lane"], neurons: int) -> Float[Array, "... neuron"]:
    """Returns the inverse of `laid_out`."""
    blocks = -(-neurons // WORDS)
    return tiles[..., :blocks].reshape(*tiles.shape[:-2], WORDS * blocks)[..., :neurons]


@dataclass(frozen=True)
class Forward:
    """``(keys, counters, constants, start, currents)`` to spikes, last membranes and those before resets, if kept.

    Keys are ``[time, 2]``, counters ``[lane]``, constants decay, threshold and width of the noise ``[3, 4, lane]``,
    start ``[4, lane]`` and currents ``[time, 4, lane]``.
    """

    kind: Kind
    keeps: bool

    def shapes(self, *operands: Any) -> list[jax.ShapeDtypeStruct]:
        """Returns the shapes of the results."""
        start, currents = operands[3:]
        return [_like(currents), _like(start), *[_like(currents)] * self.keeps]

    def __call__(self, *operands: Array) -> list[Array]:
        """Returns what the kernel gives."""
        return _run(self.kind, self._body(len(operands[-1])), self.shapes(*operands), operands)

    def _body(self, steps: int) -> Callable[..., None]:
        kind = self.kind

        def body(at: Any, keys: Any, counters: Any, constants: Any, start: Any, currents: Any, *out: Any) -> None:
            spikes, last, *kept = out
            counter = counters[at]
            fixed = [[constants[c, q, at] for c in range(3)] for q in range(WORDS)]

            def step(t: Any, membranes: tuple[Array, ...]) -> tuple[Array, ...]:
                ranks, new = _ranks(kind, keys[t, 0], keys[t, 1], counter), []
                for q, (beta, threshold, width) in enumerate(fixed):
                    u = unfused(beta * membranes[q]) + currents[t, q, at]
                    s = fired(kind, u - threshold, width, ranks[q])
                    spikes[t, q, at] = s
                    for each in kept:
                        each[t, q, at] = u
                    new.append(after(kind, u, s, threshold))
                return tuple(new)

            membranes = jax.lax.fori_loop(0, steps, step, tuple(start[q, at] for q in range(WORDS)))
            for q in range(WORDS):
                last[q, at] = membranes[q]

        return body


@dataclass(frozen=True)
class Backward:
    """``(keys, counters, constants, by_last, membranes, spikes, by_spikes[, by_membranes])`` to gradients.

    They are those of the currents, ``[time, 4, lane]``, and, of a kind that learns, of the constants, ``[3, 4, lane]``,
    of which the decay's leaves out the start. Equations, with m the membrane after the reset and bars for cotangents,
    from the last step to the first:

        s̄ = what is given + m̄ ∂m/∂s,   x = s̄ ψ(u - θ - ξ),   ū = m̄ ∂m/∂u + x,   Ī = ū,   m̄ = β ū of the step after
    """

    kind: Kind

    def shapes(self, *operands: Any) -> list[jax.ShapeDtypeStruct]:
        """Returns the shapes of the results."""
        return [_like(operands[4]), *[_like(operands[2])] * self.kind.learns]

    def __call__(self, *operands: Array) -> list[Array]:
        """Returns what the kernel gives."""
        return _run(self.kind, self._body(len(operands[4])), self.shapes(*operands), operands)

    def _body(self, steps: int) -> Callable[..., None]:
        kind = self.kind

        def body(at: Any, keys: Any, counters: Any, constants: Any, by_last: Any, us: Any, ss: Any, *rest: Any) -> None:
            by_ss, *by_us = rest[: 1 + kind.read]
            by_currents, *by_constants = rest[1 + kind.read :]
            counter = counters[at]
            fixed = [[constants[c, q, at] for c in range(3)] for q in range(WORDS)]

            def step(turn: Any, carried: tuple[Any, ...]) -> tuple[Any, ...]:
                t = steps - 1 - turn
                ranks, new = _ranks(kind, keys[t, 0], keys[t, 1], counter), []
                for q, (beta, threshold, width) in enumerate(fixed):
                    by_m, *learned = carried[q]
                    u, s = us[t, q, at], ss[t, q, at]
                    by_s, by_u, by_threshold = _by_reset(kind, by_m, u, s, threshold)
                    slope, by_width = _slopes(kind, u - threshold, width, ranks[q])
                    by_s = by_s + by_ss[t, q, at]
                    x = by_s * slope
                    by_u = by_u + x
                    for each in by_us:
                        by_u = by_u + each[t, q, at]
                    by_currents[t, q, at] = by_u
                    if kind.learns:
                        later, *sums = learned  # the cotangent of the membrane a step later meets this step's
                        more = later * after(kind, u, s, threshold), by_threshold - x, by_s * by_width
                        learned = [by_u, *(total + each for total, each in zip(sums, more, strict=True))]
                    new.append((beta * by_u, *learned))
                return tuple(new)

            zero = jnp.zeros((LANES,), jnp.float32)
            start = tuple((by_last[q, at], *[zero] * (4 * kind.learns)) for q in range(WORDS))
            done = jax.lax.fori_loop(0, steps, step, start)
            for given in by_constants:
                for q, (_, _, *sums) in enumerate(done):
                    for c, total in enumerate(sums):
                        given[c, q, at] = total

        return body


def fired(kind: Kind, d: Array, width: Any, rank: Array | None) -> Array:
    """Returns the spikes, 0 or 1, of membranes minus threshold; the comparison of `dsnn.escape.firing.fire`."""
    if rank is not None and kind.surrogate is None:
        return (chance(kind, d, width) > rank).astype(d.dtype)
    over = d if rank is None else d - noise_at(width, rank)
    return (over > 0 if kind.compare == ">" else over >= 0).astype(d.dtype)


def chance(kind: Kind, d: Array, width: Any) -> Array:
    """Returns the probability of a spike: that of `Logistic`, or that of `Gaussian` to about 2e-7."""
    if kind.noise == "logistic":
        return jax.nn.sigmoid(d / width)
    return 0.5 + 0.5 * _erf(d / (math.sqrt(2) * width))


def _erf(z: Array) -> Array:
    """Returns the error function to 2e-7 (Abramowitz & Stegun 1964, 7.1.26): not every Mosaic GPU has it.

    The other programs' is as close to the truth; a draw, in steps of 2^-16, hardly ever falls between the two.
    """
    far = jnp.maximum(z, -z)
    t = 1 / (1 + 0.3275911 * far)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    rest = 1 - series * jnp.exp(-z * z)
    return jnp.where(z < 0, -rest, rest)


def noise_at(width: Any, rank: Array) -> Array:
    """Returns logistic noise of a rank; 1 - rank is exact, so this is `Logistic.quantile` up to its last bit."""
    return width * (jnp.log(rank) - jnp.log(1 - rank))


def after(kind: Kind, u: Array, s: Array, threshold: Any) -> Array:
    """Returns membranes after the reset."""
    match kind.reset:
        case "subtract":
            return u - s * threshold
        case "zero":
            return u * (1 - s)
    return u


def _by_reset(kind: Kind, by_m: Array, u: Array, s: Array, threshold: Array) -> tuple[Array, Array, Array]:
    """Returns what the reset hands back to spike, membrane and threshold."""
    zero = jnp.zeros_like(by_m)
    match kind.reset:
        case "subtract":
            return zero if kind.detach else -threshold * by_m, by_m, -s * by_m
        case "zero":
            return zero if kind.detach else -u * by_m, by_m * (1 - s), zero
    return zero, by_m, zero


def _slopes(kind: Kind, d: Array, width: Array, rank: Array | None) -> tuple[Array, Array]:
    """Returns the derivatives of a spike along the membrane and along the noise's width."""
    if kind.surrogate is not None:
        if rank is None:
            return kind.surrogate(d), jnp.zeros_like(d)
        noise = noise_at(width, rank)
        slope = kind.surrogate(d - noise)
        return slope, -slope * noise / width
    z = d / width
    if kind.noise == "logistic":
        p = jax.nn.sigmoid(z)
        density = p * (1 - p) / width
    else:
        density = jnp.exp(-0.5 * z * z) / (math.sqrt(2 * math.pi) * width)
    return density, -z * density


def _ranks(kind: Kind, first: Any, second: Any, counter: Array) -> list[Any]:
    """Returns the draws of a step for each of the four rows, the numbers of `dsnn.escape.draw.uniform16`."""
    if not kind.drawn:
        return [None] * WORDS
    x, y = scrambled(first, second, counter)
    low, wide = jnp.uint32(LEVELS - 1), jnp.uint32(16)
    words = (x & low, x >> wide, y & low, y >> wide)
    return [(word.astype(jnp.int32).astype(jnp.float32) + 0.5) * (1 / LEVELS) for word in words]


def _run(
    kind: Kind, body: Callable[..., None], shapes: list[jax.ShapeDtypeStruct], operands: tuple[Array, ...]
) -> list[Array]:
    """Returns what a body gives that works on the lanes of one block, ``body(lanes, *operands, *results)``."""
    grid = (operands[1].shape[0] // LANES,)

    def lanes(block: Any) -> Any:
        return pl.ds(block * LANES, LANES)

    if kind.interpret:
        on_host = pl.pallas_call(
            lambda *refs: body(lanes(pl.program_id(0)), *refs), out_shape=shapes, grid=grid, interpret=True
        )
        return list(on_host(*operands))
    on_device = mosaic_gpu.kernel(
        lambda *refs: body(lanes(jax.lax.axis_index("block")), *refs),
        out_type=shapes,
        grid=grid,
        grid_names=("block",),
    )
    return list(on_device(*operands))


def _like(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, jnp.float32)
