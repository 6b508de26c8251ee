"""A hard- or soft-reset neuron whose membrane follows another framework's expression, operation by operation."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import nnx

from dsnn.cells.firing import set_spike
from dsnn.cells.lif import LIFState
from dsnn.cells.membrane import apply_reset
from dsnn.escape.parameters import parameter, value
from dsnn.surrogate import Surrogate, heaviside
from dsnn.types import Array, Float, Key

Charge = Callable[..., Array]


class Ordered(nnx.Module):
    """Charge, fire, reset: h = charge(v, x), s = H(h - threshold), v = h - s threshold or reset where s.

    `dsnn.cells.LIF` computes the same numbers up to the last bit, which decides when a membrane ends on the threshold.

    Args:
        charge: ``charge(membrane, current, **constants) -> membrane``.
        constants: numbers handed to ``charge``.
        rest: first membrane.
        threshold: of the comparison.
        reset: "subtract" or a membrane value.
        compare: ">" or ">=".
        surrogate: name or `dsnn.surrogate.Surrogate`.
        detach_reset: whether gradients stop at the spike that resets.
    """

    surrogate: Surrogate
    compare: str
    noise: None

    def __init__(
        self,
        charge: Charge,
        constants: dict[str, float],
        *,
        rest: float | int,
        threshold: float | int,
        reset: str | float | int,
        compare: str,
        surrogate: str | Surrogate,
        detach_reset: bool = False,
    ):
        self.charge = charge
        self.constants = tuple((name, parameter(name, constant, "real")) for name, constant in constants.items())
        self.rest = parameter("rest", rest, "real")
        self.threshold = parameter("threshold", threshold, "real")
        self.reset = reset if isinstance(reset, str) else parameter("reset", reset, "real")
        self.detach_reset = detach_reset
        set_spike(self, compare, surrogate, None)

    def init(self, batch_shape: tuple[int, ...]) -> LIFState:
        """Returns the resting state for currents of shape ``batch_shape``."""
        return LIFState(jnp.full(batch_shape, value(self.rest)))

    def step(
        self, state: LIFState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[LIFState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the spikes; a key is accepted and not used."""
        del key
        membrane = self.charge(state.membrane, current, **dict(self.constants))
        spikes = heaviside(membrane - self.threshold, self.surrogate, self.compare)
        return LIFState(apply_reset(self, membrane, spikes, self.threshold)), spikes


def divided(numerator: Array, denominator: Any) -> Array:
    """Returns the correctly rounded quotient, where a compiler would multiply by the rounded reciprocal."""
    return numerator / jnp.maximum(jnp.abs(numerator) * 0, denominator)
