"""A sequence in windows: what is learned in one goes on to the next, and gradients stay within."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dsnn.types import Array, Float, Int


def over_windows(
    update: Callable[[Any, Int[Array, " window"], Array], tuple[Any, Any]],
    carry: Any,
    xs: Float[Array, "time batch ..."],
    window: int,
) -> tuple[Any, Any]:
    """Returns what ``update(carry, steps, inputs) -> (carry, value)`` leaves after all windows, and their values.

    Args:
        update: takes a window's numbers of steps and its inputs ``[window, batch, ...]``.
        carry: before the first window.
        xs: inputs; the last window is shorter where the length is no multiple.
        window: number of steps.

    Raises:
        ValueError: the window is not positive.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1 step, got {window}.")
    length = xs.shape[0]
    window = min(window, length)
    whole = length - length % window
    times = jnp.arange(length)
    pieces = jax.tree.map(lambda a: a[:whole].reshape(-1, window, *a.shape[1:]), (times, xs))
    carry, values = jax.lax.scan(lambda carry, piece: update(carry, *piece), carry, pieces)
    if whole < length:
        carry, last = update(carry, times[whole:], xs[whole:])
        values = jax.tree.map(lambda a, b: jnp.concatenate([a, b[None]]), values, last)
    return carry, values
