"""What is left of an input of which some values are read no more."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.types import Array, Float

__all__ = ["Select"]


class Select(nnx.Module):
    """Takes the inputs that are still read from each (flattened) example.

    Args:
        in_shape: shape of one full input, or of the feature map that a dense layer reads.
        keep: flat indices of the inputs to keep; channels when the input is an image that a convolution reads.
        channels: whether ``keep`` indexes the last axis instead of the flattened input.
    """

    def __init__(self, in_shape: tuple[int, ...], keep: np.ndarray, *, channels: bool = False):
        self.in_shape, self.channels = in_shape, channels
        self.keep = nnx.Variable(jnp.asarray(keep, jnp.int32))
        self.out_shape = (*in_shape[:-1], len(keep)) if channels else (len(keep),)
        self.kind = "select"

    def __call__(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Returns the kept inputs."""
        x = x if self.channels else x.reshape(x.shape[0], -1)
        return jnp.take(x, self.keep[...], axis=-1)
