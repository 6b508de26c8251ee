"""`jax.lax.scan` over time steps, and what its backward pass keeps.

For the backward pass a step keeps what is dear (`KEPT`: currents or membranes, and draws) and computes spikes and
surrogate derivatives again, which costs less than to store them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

KEPT = ("current", "membrane", "noise")
"""Names (see `jax.ad_checkpoint.checkpoint_name`) of what a step keeps for its backward pass, besides products."""


def scan(body: Callable, carry: Any, xs: Any, length: int, memory: str | int = "full") -> tuple[Any, Any]:
    """`jax.lax.scan` that keeps only every k-th carry for the backward pass and recomputes between them.

    Args:
        body: ``(carry, x) -> (carry, y)``.
        carry: initial carry.
        xs: inputs with leading time, or None.
        length: number of steps.
        memory: "full", "sqrt" or k.
    """
    match memory:
        case "full":
            return jax.lax.scan(_light(body), carry, xs, length)
        case "sqrt":
            chunk = max(1, round(length**0.5))
        case int() if memory >= 1:
            chunk = min(memory, length)
        case _:
            raise ValueError(f'memory must be "full", "sqrt" or a number of steps >= 1, got {memory!r}.')
    whole = length - length % chunk

    @jax.checkpoint
    def inner(carry: Any, piece: Any) -> tuple[Any, Any]:
        return jax.lax.scan(_light(body), carry, piece, chunk)

    pieces = jax.tree.map(lambda a: a[:whole].reshape(whole // chunk, chunk, *a.shape[1:]), xs)
    carry, ys = jax.lax.scan(inner, carry, pieces, whole // chunk)
    ys = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), ys)
    if whole == length:
        return carry, ys
    rest = jax.tree.map(lambda a: a[whole:], xs)
    carry, last = jax.checkpoint(lambda c, r: jax.lax.scan(_light(body), c, r, length - whole))(carry, rest)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, last)


def _light(body: Callable) -> Callable:
    """Returns ``body`` with its backward pass keeping products and `KEPT` and computing the rest again."""
    policies = jax.checkpoint_policies
    policy = policies.save_from_both_policies(policies.dots_saveable, policies.save_only_these_names(*KEPT))
    return jax.checkpoint(body, policy=policy, prevent_cse=False)


def advanced(old: Any, new: Any, share: Any) -> Any:
    """Returns the state after a step of which only a share ran; None is all of it.

    What is counted in whole numbers, such as steps, goes on where any of it ran.
    """

    def between(new: Any, old: Any) -> Any:
        if jnp.issubdtype(new.dtype, jnp.integer):
            return jnp.where(share > 0, new, old)
        return (share * new + (1 - share) * old).astype(new.dtype)

    return new if share is None else jax.tree.map(between, new, old)
