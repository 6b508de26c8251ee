"""Budgets by dual ascent: the price of energy, and of sites of a group, that a network which keeps a budget has to pay.

Minimising a loss under spent <= budget is the saddle point of loss + price (spent - budget); the price rises while
more is spent than allowed, and falls below it. Prices move on a logarithmic scale, so that they stay positive, and the
budget falls geometrically from what everything costs, so that gates close one after another and not all at once.

The price of energy is at once dearer or cheaper by what is spent beyond the budget now: the proportional part beside
the integral one of Stooke, Achiam and Abbeel (2020), which damps the swings of dual ascent. With the integral alone a
price that begins far too low is late, closes too much, and is late again.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsnn.types import Array, Bool, Float, Int


class Duals(NamedTuple):
    """The prices.

    Attributes:
        log_lam: log of the price of energy λ without its proportional part, nats per nJ.
        log_sites: log of the price of one site by group, nats per site (of the whole training part).
        over: log of spent over budget as last measured, see `beyond`; what the proportional part is of.
    """

    log_lam: Float[Array, ""]
    log_sites: dict[str, Float[Array, ""]]
    over: Float[Array, ""]


def beyond(spent: Array, budget: Array) -> Array:
    """Returns the log of spent over budget, within -1 and 1."""
    return jnp.clip(jnp.log(spent / budget), -1.0, 1.0)


def ascend(log_price: Array, spent: Array, budget: Array, rate: Array | float) -> Array:
    """Returns the log price after one step against the log of spent over budget, at most ``rate`` either way."""
    return log_price + rate * beyond(spent, budget)


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
