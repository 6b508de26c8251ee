"""Weights on grids of few bits: one symmetric grid for each width, and the nested sum of what each width adds.

Steps are powers of two (Jain et al. 2020, "TQT"), so that a sum of quantised weights is exact in float32, an integer
network needs shifts where others multiply, and every finer grid holds the coarser ones. Each width has a step of its
own: what is best for three levels cuts off what is best for 65535.
"""

import jax.numpy as jnp

from dsnn.cells.grid import learned_step, power_of_two, straight_through
from dsnn.types import Array, Float

__all__ = ["best_log_step", "nested", "power_of_two", "quantised", "top"]

HALVINGS = 8
"""Steps that are tried: the one that reaches the largest weight, and halves of it."""

EMPTY = -8.0
"""Log step of a kernel of zeros."""


def top(bits: int) -> int:
    """Returns the largest integer of a symmetric grid: 1 of 2 bits, 7 of 4, 127 of 8."""
    return 2 ** (bits - 1) - 1


def quantised(
    weights: Float[Array, "*axes feature"], log_step: Float[Array, " unit"], bits: int
) -> Float[Array, "*axes feature"]:
    """Returns weights on the grid of a width: step clip(round(w / step), -top, top), ties to even.

    The gradient passes straight through the rounding: that of a weight is 1 within the range and 0 beyond, that of the
    step is the rounding error within and the end of the range beyond (Esser et al. 2020, "LSQ", eq. 3), scaled by
    1 / sqrt(weights top) (their section 2.2).

    Args:
        weights: a kernel, output channels last.
        log_step: log2 of the step, of each output channel or one for all.
        bits: width, at least 2.
    """
    most = top(bits)
    step = learned_step(log_step, weights.size // log_step.shape[0], most)
    inside = jnp.clip(weights / step, -most, most)
    return step * straight_through(inside, jnp.round(inside))


def nested(
    weights: Float[Array, "*axes feature"],
    log_steps: Float[Array, "width unit"],
    gates: Float[Array, "width unit"],
    widths: tuple[int, ...],
) -> Float[Array, "*axes feature"]:
    """Returns z_2 (x_2 + z_4 (e_4 + z_8 (e_8 + ...))) (van Baalen et al. 2020, eq. 6).

    x_2 is the kernel at its first width, and e_4, e_8, ... are what each further width adds to the one before, so that
    open gates up to a width give the kernel at that width, whatever its step.

    Args:
        weights: a kernel, output channels last.
        log_steps: of each width, see `quantised`.
        gates: in [0, 1], of each width; an axis of one holds for all channels.
        widths: in order.
    """
    summed, before, share = jnp.zeros_like(weights), jnp.zeros_like(weights), jnp.ones_like(gates[0])
    for bits, log_step, gate in zip(widths, log_steps, gates, strict=True):
        here, share = quantised(weights, log_step, bits), share * gate
        summed, before = summed + share * (here - before), here
    return summed


def best_log_step(weights: Float[Array, "*axes feature"], bits: int, units: int) -> Float[Array, " unit"]:
    """Returns log2 of the power of two with the least squared rounding error, by output channel or one for all.

    Args:
        weights: a kernel, output channels last.
        bits: width.
        units: 1, or the number of output channels.
    """
    rows = weights.reshape(-1, weights.shape[-1]).T if units > 1 else weights.reshape(1, -1)
    largest = jnp.abs(rows).max(1)
    reaches = jnp.ceil(jnp.log2(jnp.maximum(largest, 1e-30) / top(bits)) - 1e-6)
    tried = reaches - jnp.arange(HALVINGS + 1.0)[:, None]
    errors = [((quantised(rows.T, log_step, bits).T - rows) ** 2).sum(1) for log_step in tried]
    best = jnp.take_along_axis(tried, jnp.argmin(jnp.stack(errors), 0)[None], 0)[0]
    return jnp.where(largest > 0, best, EMPTY)
