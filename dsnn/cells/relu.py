"""The rectified linear unit: what a network of values has where a spiking one has neurons."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx

from dsnn.types import Array, Float, Key


class ReLUState(NamedTuple):
    """There is nothing to keep from one step to the next."""


class ReLU(nnx.Module):
    """Rectified linear unit, a = max(I, 0): no spikes, no state (Nair & Hinton 2010).

    A spiking network with these in place of its cells, run for one step, is its ANN twin by the same code. What it
    gives are values, so that each of them that is not zero costs a multiplication at every weight.
    """

    def init(self, shape: tuple[int, ...]) -> ReLUState:
        """Returns the state, which is empty."""
        del shape
        return ReLUState()

    def step(
        self, state: ReLUState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[ReLUState, Float[Array, "*batch neuron"]]:
        """Returns the state and the values; a key is accepted and not used."""
        del key
        return state, jnp.maximum(current, 0)
