"""The rectified linear unit whose values are integers of few bits times a learned step."""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from dsnn.cells.grid import learned_step, straight_through
from dsnn.cells.relu import ReLUState
from dsnn.escape.parameters import parameter, value
from dsnn.types import Array, Float, Key

__all__ = ["STEP", "QuantisedReLU"]

STEP = ".log_step"
"""What the names of its learned steps end with among a network's parameters."""


class QuantisedReLU(nnx.Module):
    """Rectified linear unit of few bits, a = step clip(round(I / step), 0, 2^bits - 1), step = 2^round(log_step).

    Values have no sign. One step holds for a layer; with the bits it says where values are cut off, so that learning it
    is learning to clip (Choi et al. 2018, "PACT"). Its gradient, the rounding error within and the largest integer
    beyond, is that of Esser et al. 2020 ("LSQ", eq. 3) through a power of two (Jain et al. 2020, "TQT"), so that an
    integer network shifts where others multiply. The gradient of a current is 1 within the range and 0 beyond. Halves
    are rounded up, as a shift does.

    Args:
        bits: of a value, at least 1.
        log_step: log2 of the step at the start.

    Raises:
        ValueError: fewer bits than one.
    """

    def __init__(self, bits: int, log_step: Any):
        if bits < 1:
            raise ValueError(f"bits of values must be at least 1, got {bits}; 8 are a byte.")
        self.bits, self.kind = bits, "ReLU"
        self.log_step = parameter("log_step", log_step, "real", learnable=True)

    @property
    def top(self) -> int:
        """The largest integer of a value."""
        return 2**self.bits - 1

    def init(self, shape: tuple[int, ...]) -> ReLUState:
        """Returns the state, which is empty."""
        del shape
        return ReLUState()

    def step(
        self, state: ReLUState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[ReLUState, Float[Array, "*batch neuron"]]:
        """Returns the state and the values; a key is accepted and not used."""
        del key
        step = learned_step(value(self.log_step), current.shape[-1], self.top)
        inside = jnp.clip(current / step, 0, self.top)
        return state, step * straight_through(inside, jnp.floor(inside + 0.5))
