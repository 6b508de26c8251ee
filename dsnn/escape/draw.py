"""Cheap random numbers for firing, and the gradient that goes with them.

Random bits are what stochastic firing costs, so a neuron takes 16 of them: probabilities are realised in steps of
2^-16, and one below 2^-17 is never drawn. One call of the block cipher serves four neurons, where `jax.random.bits`
throws half of each block away and takes no less time for 16-bit words than for 32-bit ones.
"""

import math

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from dsnn.native.derivatives import elementwise
from dsnn.rng import typed
from dsnn.types import Array, Float, Key, Shaped

LEVELS = 2**16


def uniform16(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Returns draws from the midpoints (k + 1/2) 2^-16 of the unit interval; the key is consumed."""
    size = math.prod(shape)
    key = typed(key)
    words = threefry(jax.random.key_data(key), -(-size // 4)) if is_threefry(key) else _words(key, -(-size // 2))
    parts = jnp.concatenate([part for word in words for part in (word & (LEVELS - 1), word >> 16)])
    # drawing them again in the backward pass would cost more than keeping them
    return checkpoint_name((parts[:size].reshape(shape).astype(jnp.float32) + 0.5) * (1 / LEVELS), "noise")


def normal16(key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Returns standard normal draws, one of 2^16 equally likely values up to 4.2; the key is consumed."""
    return math.sqrt(2) * jax.lax.erf_inv(2 * uniform16(key, shape) - 1)


def threefry(seed: Shaped[Array, "2"], blocks: int) -> tuple[Shaped[Array, "block"], Shaped[Array, "block"]]:
    """Returns two 32-bit words for each of the counters (0, 0), (1, 0), ..., see `scrambled`."""
    return scrambled(seed[0], seed[1], jnp.arange(blocks, dtype=jnp.uint32))


def scrambled(
    first: Shaped[Array, ""], second: Shaped[Array, ""], counter: Shaped[Array, "block"]
) -> tuple[Shaped[Array, "block"], Shaped[Array, "block"]]:
    """Returns two 32-bit words for each of the counters (c, 0) by Threefry-2x32-20 (Salmon et al. 2011).

    These are the numbers of `jax.extend.random.threefry_2x32`; the rounds are written out here because the compiler
    then fuses them with the comparison that uses them, which halves their cost on a CPU, and a kernel can hold them.

    Args:
        first: word of the key.
        second: word of the key.
        counter: unsigned.
    """
    keys = (first, second, first ^ second ^ jnp.uint32(0x1BD11BDA))
    x, y = counter + keys[0], jnp.zeros_like(counter) + keys[1]
    for group in range(5):
        for turn in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x = x + y
            y = ((y << turn) | (y >> (32 - turn))) ^ x
        x = x + keys[(group + 1) % 3]
        y = y + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y


def with_gradient_of(value: Array, soft: Array) -> Array:
    """Returns ``value`` unchanged, to be differentiated as if it were ``soft``, of the same shape."""
    return _value(value, soft)


_value = elementwise("with_gradient_of", lambda value, soft: value, lambda operands, tangents: tangents[1])


def is_threefry(key: Key[Array, "..."]) -> bool:
    """Returns whether keys are of the generator that is written out here."""
    return str(jax.random.key_impl(key)) == "threefry2x32"


def _words(key: Array, count: int) -> tuple[Array]:
    return (jax.random.bits(key, (count,)),)
