"""Inputs as integers of few bits: what an integer network reads of values."""

import jax.numpy as jnp
from flax import nnx

from dsnn.types import Array, Float

__all__ = ["Rounded"]


class Rounded(nnx.Module):
    """Rounds values to multiples of a step, halves up; what lies beyond the integers' range saturates.

    Args:
        in_shape: shape of one input.
        step: a power of two.
        low: smallest integer.
        high: largest integer.
    """

    def __init__(self, in_shape: tuple[int, ...], step: float, low: int, high: int):
        self.in_shape = self.out_shape = tuple(in_shape)
        self.step, self.low, self.high, self.kind = step, low, high, "rounded"

    def __call__(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Returns the rounded values."""
        return jnp.clip(jnp.floor(x / self.step + 0.5), self.low, self.high) * self.step
