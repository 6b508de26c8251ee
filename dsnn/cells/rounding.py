"""Products that are rounded before they are added, so that a neuron gives the same bits everywhere."""

import jax
import jax.numpy as jnp

from dsnn.types import Array, Float


@jax.custom_jvp
def rounded(product: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns ``product`` unchanged, kept from being fused with an addition; of minus infinity, the lowest number.

    A compiler may turn beta u + I into one instruction that rounds once. At the threshold the last bit decides about
    a spike, so the same neuron would then differ between two compiled programs, and from a framework that computes
    operation by operation.
    """
    return unfused(product)


@rounded.defjvp
def _rounded_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    return rounded(*primals), tangents[0]


def unfused(product: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns `rounded` without its derivative: the comparison breaks the pattern at no measurable cost."""
    return jnp.maximum(product, jnp.finfo(product.dtype).min)
