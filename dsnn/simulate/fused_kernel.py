"""The time loop of LIF neurons as two Pallas kernels for NVIDIA's devices (Mosaic GPU): forward, and backward.

A scan writes every step's membranes to memory and reads them back. Here membranes stay in registers for `CHUNK` steps
and in the memory of their multiprocessor between them, and noise is made where it is compared: Threefry's counter is
the neuron's number, as in `dsnn.escape.draw`, so a key gives the noise that it gives in the scan. One block of that
cipher serves four neurons; an array of neurons, ``[..., M]``, is laid out as ``[..., 4, lane]`` with the four side by
side, see `laid_out`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu

from dsnn.cells.rounding import rounded
from dsnn.escape.draw import LEVELS, scrambled
from dsnn.surrogate import Surrogate
from dsnn.types import Array, Float

__all__ = ["CHUNK", "LANES", "Backward", "Forward", "Kind", "chunk_of", "flat", "laid_out"]

WORDS, LANES, CHUNK = 4, 128, 8
"""Draws of 16 bits in a block of the cipher; columns of a tile, one a thread; most steps between visits to memory."""


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


def chunk_of(steps: int) -> int:
    """Returns how many steps are taken between two visits to memory: a divisor, so that nothing is filled up."""
    return max(n for n in range(1, CHUNK + 1) if steps % n == 0)


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
    """``(keys, counters, constants, start, currents)`` to spikes, membranes before the reset (if kept), and ends.

    Keys are ``[time, 2]``, counters ``[lane]``, constants decay, threshold and width of the noise ``[3, 4, lane]``,
    start ``[4, lane]`` and currents ``[time, 4, lane]``; ends are membranes after each chunk, ``[chunk, 4, lane]``.
    """

    kind: Kind
    keeps: bool

    def shapes(self, steps: int, lanes: int) -> list[jax.ShapeDtypeStruct]:
        """Returns the shapes of the results."""
        whole = jax.ShapeDtypeStruct((steps, WORDS, lanes), jnp.float32)
        return [whole, *[whole] * self.keeps, _like(whole, steps // chunk_of(steps))]

    def __call__(self, *operands: Array) -> list[Array]:
        """Returns what the kernel gives."""
        steps, _, lanes = operands[-1].shape
        chunk = chunk_of(steps)
        tile = _tile(chunk, lambda t: t)
        outs = [tile, *[tile] * self.keeps, _tile(1, lambda t: t)]
        run = _kernel(self.kind, self._body(chunk), (lanes, steps // chunk), [*_fixed(), tile], outs, 1)
        return list(run(out_shape=self.shapes(steps, lanes))(*operands))

    def _body(self, chunk: int) -> Callable[..., None]:
        kind = self.kind

        def body(keys: Any, counters: Any, constants: Any, start: Any, currents: Any, *rest: Any) -> None:
            spikes, *kept, ends, carried = rest
            first = pl.program_id(1) == 0

            @pl.when(first)
            def _() -> None:
                for q in range(WORDS):
                    carried[0, q] = start[q]

            membrane = [carried[0, q] for q in range(WORDS)]
            for i in range(chunk):
                ranks = _ranks(kind, keys, counters, pl.program_id(1) * chunk + i)
                for q in range(WORDS):
                    beta, threshold, width = (constants[c, q] for c in range(3))
                    u = rounded(beta * membrane[q]) + currents[i, q]
                    s = fired(kind, u - threshold, width, ranks[q])
                    spikes[i, q] = s
                    for each in kept:
                        each[i, q] = u
                    membrane[q] = after(kind, u, s, threshold)
            for q in range(WORDS):
                carried[0, q] = membrane[q]
                ends[0, q] = membrane[q]

        return body


@dataclass(frozen=True)
class Backward:
    """``(keys, counters, constants, by_last, membranes, spikes, by_spikes[, by_membranes])`` to gradients.

    They are those of the currents, ``[time, 4, lane]``, and, of a kind that learns, of the constants by chunk,
    ``[chunk, 3, 4, lane]``, of which the decay's leaves out the start. Equations, with m the membrane after the reset
    and bars for cotangents, from the last step to the first:

        s̄ = what is given + m̄ ∂m/∂s,   x = s̄ ψ(u - θ - ξ),   ū = m̄ ∂m/∂u + x,   Ī = ū,   m̄ = β ū of the step after
    """

    kind: Kind

    def shapes(self, steps: int, lanes: int) -> list[jax.ShapeDtypeStruct]:
        """Returns the shapes of the results."""
        whole = jax.ShapeDtypeStruct((steps, WORDS, lanes), jnp.float32)
        parts = jax.ShapeDtypeStruct((steps // chunk_of(steps), 3, WORDS, lanes), jnp.float32)
        return [whole, *[parts] * self.kind.learns]

    def __call__(self, *operands: Array) -> list[Array]:
        """Returns what the kernel gives."""
        steps, _, lanes = operands[4].shape
        chunk = chunk_of(steps)
        chunks = steps // chunk

        def at(t: Any) -> Any:
            return chunks - 1 - t

        tile = _tile(chunk, at)
        parts = pl.BlockSpec((1, 3, WORDS, LANES), lambda b, t: (at(t), 0, 0, b))
        ins = [*_fixed(), *[tile] * (len(operands) - 4)]
        outs = [tile, *[parts] * self.kind.learns]
        run = _kernel(self.kind, self._body(chunk, chunks), (lanes, chunks), ins, outs, 2)
        return list(run(out_shape=self.shapes(steps, lanes))(*operands))

    def _body(self, chunk: int, chunks: int) -> Callable[..., None]:
        kind = self.kind

        def body(
            keys: Any, counters: Any, constants: Any, by_last: Any, us: Any, ss: Any, by_ss: Any, *rest: Any
        ) -> None:
            by_us = rest[: int(kind.read)]
            by_currents, *parts, carried = rest[int(kind.read) :]
            turn = pl.program_id(1)

            @pl.when(turn == 0)
            def _() -> None:
                for q in range(WORDS):
                    carried[0, q] = by_last[q]
                    carried[1, q] = jnp.zeros((LANES,), jnp.float32)

            by_m = [carried[0, q] for q in range(WORDS)]
            later = [carried[1, q] for q in range(WORDS)]  # the cotangent of the membrane a step later
            sums = [[jnp.zeros((LANES,), jnp.float32)] * WORDS for _ in range(3)]
            for i in reversed(range(chunk)):
                ranks = _ranks(kind, keys, counters, (chunks - 1 - turn) * chunk + i)
                for q in range(WORDS):
                    beta, threshold, width = (constants[c, q] for c in range(3))
                    u, s = us[i, q], ss[i, q]
                    by_s, by_u, by_threshold = _by_reset(kind, by_m[q], u, s, threshold)
                    slope, by_width = _slopes(kind, u - threshold, width, ranks[q])
                    by_s = by_s + by_ss[i, q]
                    x = by_s * slope
                    by_u = by_u + x
                    for each in by_us:
                        by_u = by_u + each[i, q]
                    if kind.learns:
                        sums[0][q] = sums[0][q] + later[q] * after(kind, u, s, threshold)
                        sums[1][q] = sums[1][q] + by_threshold - x
                        sums[2][q] = sums[2][q] + by_s * by_width
                    by_currents[i, q] = by_u
                    by_m[q], later[q] = beta * by_u, by_u
            for q in range(WORDS):
                carried[0, q], carried[1, q] = by_m[q], later[q]
                for c in range(3):
                    for part in parts:
                        part[0, c, q] = sums[c][q]

        return body


def fired(kind: Kind, d: Array, width: Any, rank: Array | None) -> Array:
    """Returns the spikes, 0 or 1, of membranes minus threshold; the comparison of `dsnn.escape.firing.fire`."""
    if rank is not None and kind.surrogate is None:
        return (chance(kind, d, width) > rank).astype(d.dtype)
    over = d if rank is None else d - noise_at(width, rank)
    return (over > 0 if kind.compare == ">" else over >= 0).astype(d.dtype)


def chance(kind: Kind, d: Array, width: Any) -> Array:
    """Returns the probability of a spike, as `Logistic` and `Gaussian` compute what they compare with a draw."""
    if kind.noise == "logistic":
        return jax.nn.sigmoid(d / width)
    return 0.5 + 0.5 * jax.lax.erf(d / (math.sqrt(2) * width))


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


def _ranks(kind: Kind, keys: Any, counters: Any, t: Any) -> list[Any]:
    """Returns the draws of a step for each of the four rows, the numbers of `dsnn.escape.draw.uniform16`."""
    if not kind.drawn:
        return [None] * WORDS
    x, y = scrambled(keys[t, 0], keys[t, 1], counters[...])
    low, wide = jnp.uint32(LEVELS - 1), jnp.uint32(16)
    words = (x & low, x >> wide, y & low, y >> wide)
    return [(word.astype(jnp.int32).astype(jnp.float32) + 0.5) * (1 / LEVELS) for word in words]


def _kernel(
    kind: Kind, body: Callable[..., None], grid: tuple[int, int], ins: list[Any], outs: list[Any], carried: int
) -> Callable[..., Any]:
    """Returns the kernel of a body over tiles of lanes, which run at once, and chunks of time, one after another."""

    def run(out_shape: list[jax.ShapeDtypeStruct]) -> Callable[..., Any]:
        return pl.pallas_call(
            body,
            grid=(grid[0] // LANES, grid[1]),
            in_specs=ins,
            out_specs=outs,
            out_shape=out_shape,
            scratch_shapes=[mosaic_gpu.SMEM((carried, WORDS, LANES), jnp.float32)],
            compiler_params=mosaic_gpu.CompilerParams(dimension_semantics=("parallel", "sequential")),
            interpret=kind.interpret,
        )

    return run


def _fixed() -> list[Any]:
    """Returns where a kernel finds keys, counters, constants, and membranes at one end."""
    return [
        pl.BlockSpec(memory_space=mosaic_gpu.GMEM),
        pl.BlockSpec((LANES,), lambda b, t: (b,)),
        pl.BlockSpec((3, WORDS, LANES), lambda b, t: (0, 0, b)),
        pl.BlockSpec((WORDS, LANES), lambda b, t: (0, b)),
    ]


def _tile(steps: int, at: Callable[[Any], Any]) -> Any:
    return pl.BlockSpec((steps, WORDS, LANES), lambda b, t: (at(t), 0, b))


def _like(shape: jax.ShapeDtypeStruct, steps: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((steps, *shape.shape[1:]), shape.dtype)
