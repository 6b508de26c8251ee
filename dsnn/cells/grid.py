"""Steps of grids that are learned powers of two: what weights and activations of few bits are multiples of."""

import math

import jax
import jax.numpy as jnp

from dsnn.types import Array, Float

__all__ = ["learned_step", "power_of_two", "straight_through"]


def power_of_two(log_step: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns 2^round(log_step), exactly; its gradient is that of 2^log_step, straight through the rounding."""
    whole = jnp.round(jax.lax.stop_gradient(log_step)).astype(jnp.int32)
    # the power is the exponent's bits: exp2 is off by an ulp on some machines, and steps must not be
    exact = jax.lax.bitcast_convert_type((jnp.clip(whole, -126, 127) + 127) << 23, jnp.float32)
    return exact * (1 + math.log(2.0) * (log_step - jax.lax.stop_gradient(log_step)))


def learned_step(log_step: Float[Array, "..."], values: int, most: int) -> Float[Array, "..."]:
    """Returns `power_of_two`, whose gradient is scaled by 1 / sqrt(values most) (Esser et al. 2020, section 2.2).

    Args:
        log_step: log2 of the step.
        values: numbers that share it.
        most: largest integer of the grid.
    """
    share = 1 / math.sqrt(max(values, 1) * most)
    return power_of_two(share * log_step + jax.lax.stop_gradient((1 - share) * log_step))


def straight_through(inside: Float[Array, "..."], rounded: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns ``rounded`` with the gradient of ``inside``."""
    return inside + jax.lax.stop_gradient(rounded - inside)
