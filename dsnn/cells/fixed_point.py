"""Neurons in fixed point: the membranes of an integer network, held in float32, where they are exact."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.cells.decay import per_step
from dsnn.cells.grid import power_of_two
from dsnn.cells.li import LI, LIState
from dsnn.cells.lif import LIF, LIFState, own_kind
from dsnn.cells.quantised_relu import QuantisedReLU
from dsnn.cells.relu import ReLU, ReLUState
from dsnn.escape.parameters import Fixed, value
from dsnn.types import Array, Float, Key

__all__ = ["FixedPoint", "Format", "kind"]


class Format(NamedTuple):
    """How a membrane is stored: as an integer times a unit.

    Attributes:
        unit: a power of two.
        bits: of the integer, in two's complement; what is larger or smaller than these hold saturates.
        leak: bits of the leak's multiplier m / 2^leak.
    """

    unit: float
    bits: int = 16
    leak: int = 8

    @property
    def low(self) -> float:
        """The smallest membrane."""
        return -(2.0 ** (self.bits - 1)) * self.unit

    @property
    def high(self) -> float:
        """The largest membrane."""
        return (2.0 ** (self.bits - 1) - 1) * self.unit

    def rounded(self, x: Any) -> Any:
        """Returns the nearest multiples of the unit, those in the middle rounded up."""
        return jnp.floor(x / self.unit + 0.5) * self.unit

    def saturated(self, x: Any) -> Any:
        """Returns membranes within what the integer holds."""
        return jnp.clip(x, self.low, self.high)

    def multiplier(self, beta: Any) -> np.ndarray:
        """Returns the integers m of the decays m / 2^leak."""
        return np.asarray(np.round(np.asarray(beta, np.float64) * 2**self.leak))


class FixedPoint(nnx.Module):
    """An `LIF`, `IF` or `LI` whose membrane, threshold and leak are integers, simulated without noise.

        u' = saturate(round(m u / 2^k) + round(I)),   s = u' > threshold,   u = reset(u', s)

    in the order of `LIF`; rounding is to multiples of the unit, halves up, which a shift does to integers. In float32
    all of it is exact as long as |m u| < 2^24 units, so that `dsnn.deploy.integer` gives the same bits.

    A `QuantisedReLU` keeps nothing, u' = saturate(round(I)), and gives a = step clip(round(u' / step), 0, top).

    Args:
        cell: whose options it takes; its noise is left out, as in every decided network.
        format: of the membrane.

    Raises:
        ValueError: a cell or an option that is not taken.
    """

    def __init__(self, cell: Any, format: Format):
        check(cell)
        self.format, self.kind, self.fires, self.value_step, self.top = (
            format,
            kind(cell),
            isinstance(cell, LIF),
            0.0,
            0,
        )
        if isinstance(cell, QuantisedReLU):
            self.value_step, self.top = value_step(cell), cell.top
            return
        self.multiplier = _stored(format.multiplier(per_step(cell)))
        if not self.fires:
            return
        self.reset = cell.reset if isinstance(cell.reset, str) else _stored(format.rounded(np.asarray(cell.reset)))
        self.reset_timing, self.compare = cell.reset_timing, cell.compare
        threshold = np.maximum(np.asarray(format.rounded(np.asarray(value(cell.threshold)))), format.unit)
        self.threshold = _stored(threshold)

    @property
    def rectifies(self) -> bool:
        """Whether it gives values, and keeps no membrane."""
        return self.top > 0

    @property
    def unit(self) -> float:
        """What one of what it gives stands for: a spike, a value's step, or an integrator's unit."""
        return 1.0 if self.fires else self.value_step or self.format.unit

    def init(self, batch_shape: tuple[int, ...]) -> LIFState | LIState | ReLUState:
        """Returns the resting state for currents of shape ``batch_shape``."""
        if self.rectifies:
            return ReLUState()
        zeros = jnp.zeros(batch_shape)
        if not self.fires:
            return LIState(zeros)
        return LIFState(zeros, zeros if self.reset_timing == "next" else None)

    def step(
        self, state: Any, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[Any, Float[Array, "*batch neuron"]]:
        """Returns the next state, and the spikes, values or, of an integrator, the membrane; a key is not used."""
        del key
        drive = self.format.rounded(current)
        if self.rectifies:
            whole = jnp.floor(self.format.saturated(drive) / self.value_step + 0.5)
            return state, jnp.clip(whole, 0, self.top) * self.value_step
        if not self.fires:
            membrane = self.format.saturated(self.leaked(state.membrane) + drive)
            return LIState(membrane), membrane
        threshold = value(self.threshold)
        if self.reset_timing == "same":
            membrane = self.format.saturated(self.leaked(state.membrane) + drive)
        elif self.reset == "subtract":
            membrane = self.format.saturated(self.leaked(state.membrane) + drive - state.spikes * threshold)
        else:
            membrane = self.format.saturated(self.leaked(self.after(state.membrane, state.spikes)) + drive)
        above = membrane > threshold if self.compare == ">" else membrane >= threshold
        spikes = above.astype(jnp.float32)
        if self.reset_timing == "next":
            return LIFState(membrane, spikes), spikes
        return LIFState(self.after(membrane, spikes)), spikes

    def leaked(self, membrane: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns what is left of a membrane after a step."""
        unit, one = self.format.unit, 2.0**self.format.leak
        return jnp.floor(membrane / unit * value(self.multiplier) / one + 0.5) * unit

    def after(self, membrane: Float[Array, "..."], spikes: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the membrane after the reset where it spiked."""
        match self.reset:
            case "subtract":
                return membrane - spikes * value(self.threshold)
            case "none":
                return membrane
            case "zero":
                return membrane * (1 - spikes)
        return membrane * (1 - spikes) + spikes * value(self.reset)


def kind(cell: Any) -> str:
    """Returns what a cell is called where its updates are counted: in fixed point, or of few bits, as it was before."""
    return str(cell.kind) if isinstance(cell, FixedPoint | QuantisedReLU) else own_kind(cell)


def value_step(cell: QuantisedReLU) -> float:
    """Returns the step of the values that a cell gives, a power of two."""
    return float(power_of_two(value(cell.log_step)))


def check(cell: Any) -> None:
    """Checks that a cell can run in fixed point.

    Raises:
        ValueError: it cannot.
    """
    if type(cell) not in (LIF, LI, ReLU, QuantisedReLU):
        raise ValueError(
            f"integer networks have neurons of LIF, IF or LI, or ReLU, got {own_kind(cell)}; take one of these, or set "
            "bits.enabled=false."
        )
    if isinstance(cell, ReLU | QuantisedReLU):
        return
    if cell.input_scale != "one":
        raise ValueError(
            "an integer network adds currents to membranes as they are, got input_scale="
            f"{cell.input_scale!r}; set it to 'one', or bits.enabled=false."
        )
    lif: Any = cell  # its options are set by a function, which mypy does not follow
    if type(cell) is LIF and (lif.refractory or np.any(np.asarray(value(lif.rest)))):
        raise ValueError(
            "an integer network has neurons that rest at zero without a refractory time, got a cell with one of them; "
            "leave them out, or set bits.enabled=false."
        )


def _stored(values: Any) -> Any:
    """Returns one number as it is, and one for each neuron as what compaction finds and cuts."""
    values = np.asarray(values, np.float32)
    return float(values) if not values.ndim else Fixed(jnp.asarray(values))
