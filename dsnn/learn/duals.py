"""Budgets by dual ascent: the price of energy, and of sites of a group, that a network which keeps a budget has to pay.

Minimising a loss under spent <= budget is the saddle point of loss + price (spent - budget); the price rises while
more is spent than allowed, and falls below it. Prices move on a logarithmic scale, so that they stay positive, and the
budget falls geometrically from what everything costs, so that gates close one after another and not all at once.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsnn.types import Array, Bool, Float, Int


class Duals(NamedTuple):
    """The prices.

    Attributes:
        log_lam: log of the price of energy λ, nats per nJ.
        log_sites: log of the price of one site by group, nats per site (of the whole training part).
    """

    log_lam: Float[Array, ""]
    log_sites: dict[str, Float[Array, ""]]


def ascend(log_price: Array, spent: Array, budget: Array, rate: Array | float) -> Array:
    """Returns the log price after one step against the log of spent over budget, at most ``rate`` either way."""
    return log_price + rate * jnp.clip(jnp.log(spent / budget), -1.0, 1.0)


def falling(whole: Array | float | int, budget: Array | float | int, done: Array) -> Array:
    """Returns the budget after a share ``done`` in [0, 1] of its fall, geometric from ``whole`` to ``budget``."""
    return jnp.exp((1 - done) * jnp.log(whole) + done * jnp.log(budget))


def most_within(spent: Callable[[Array], Array], budget: Array, most: int) -> Int[Array, ""]:
    """Returns the largest count in [1, most] with ``spent(count) <= budget``, by bisection; spent never falls."""

    def halve(_: Any, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = (low + high) // 2
        fits = spent(middle) <= budget
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

    start = jnp.ones((), jnp.int32), jnp.asarray(most + 1, jnp.int32)
    return jax.lax.fori_loop(0, most.bit_length() + 1, halve, start)[0]


def largest(score: Float[Array, " site"], count: int) -> Bool[Array, " site"]:
    """Returns which sites are among the ``count`` with the largest scores."""
    chosen = jax.lax.top_k(score, min(count, score.shape[-1]))[1]
    return jnp.zeros(score.shape, bool).at[chosen].set(True)
