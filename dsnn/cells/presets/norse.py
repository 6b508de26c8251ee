"""Norse 1.1.0: the feed-forward LIF and LIFBox. Rates are per second and dt is in seconds."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.cells.firing import set_spike
from dsnn.cells.membrane import apply_reset
from dsnn.cells.presets.ordered import Ordered
from dsnn.cells.rounding import rounded
from dsnn.escape.parameters import check_choice, parameter
from dsnn.surrogate import Surrogate, get, heaviside
from dsnn.types import Array, Float, Key

METHODS = {"super": "superspike", "triangle": "triangle", "tanh": "tanh", "circ": "circ", "heavi_erfc": "erf"}
RESETS = ("value", "subtract")


def lif(
    tau_syn_inv: float | int = 200.0,
    tau_mem_inv: float | int = 100.0,
    v_leak: float | int = 0.0,
    v_th: float | int = 1.0,
    v_reset: float | int = 0.0,
    method: str | Surrogate = "super",
    alpha: float | int = 100.0,
    dt: float | int = 0.001,
) -> "CurrentLIF":
    """Returns LIF (LIFCell), `CurrentLIF`.

    Norse 1.1.0 ignores ``alpha``; it is honoured here, as in Norse since.
    """
    rates = _rate(dt, tau_mem_inv), _rate(dt, tau_syn_inv)
    return CurrentLIF(*rates, v_leak, v_th, v_reset, _surrogate(method, alpha))


def lif_box(
    tau_mem_inv: float | int = 100.0,
    v_leak: float | int = 0.0,
    v_th: float | int = 1.0,
    v_reset: float | int = 0.0,
    method: str | Surrogate = "super",
    alpha: float | int = 100.0,
    reset_method: str = "value",
    dt: float | int = 0.001,
) -> Ordered:
    """Returns LIFBox (LIFBoxCell): v = v + dt tau_mem_inv (v_leak - v + x), s = H(v - v_th), v = v_reset where s.

    ``reset_method`` is "value" or "subtract", for Norse's reset_value and reset_subtract.
    """
    check_choice("reset_method", reset_method, RESETS)
    return Ordered(
        _charge,
        {"rate": _rate(dt, tau_mem_inv), "v_leak": v_leak},
        rest=v_leak,
        threshold=v_th,
        reset=v_reset if reset_method == "value" else "subtract",
        compare=">",
        surrogate=_surrogate(method, alpha),
    )


class CurrentLIFState(NamedTuple):
    """Membrane and synaptic current."""

    membrane: Float[Array, "*batch neuron"]
    current: Float[Array, "*batch neuron"]


class CurrentLIF(nnx.Module):
    """Norse's current-based neuron, operation by operation.

        j = i + x,   h = v + dt tau_mem_inv ((v_leak - v) + j),   i = j - dt tau_syn_inv j
        s = H(h - v_th),   v = v_reset where s

    This is `dsnn.cells.CuBaLIF` with input_scale="decay", Euler decays and j for its current, up to the last bit.
    """

    surrogate: Surrogate
    compare: str
    noise: None

    def __init__(
        self,
        rate: float | int,
        rate_syn: float | int,
        v_leak: float | int,
        threshold: float | int,
        reset: float | int,
        surrogate: Surrogate,
    ):
        self.rate, self.rate_syn = rate, rate_syn
        self.rest = parameter("v_leak", v_leak, "real")
        self.threshold = parameter("v_th", threshold, "real")
        self.reset, self.detach_reset = parameter("v_reset", reset, "real"), False
        set_spike(self, ">", surrogate, None)

    def init(self, batch_shape: tuple[int, ...]) -> CurrentLIFState:
        """Returns the resting state for currents of shape ``batch_shape``."""
        return CurrentLIFState(jnp.full(batch_shape, self.rest), jnp.zeros(batch_shape))

    def step(
        self, state: CurrentLIFState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[CurrentLIFState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the spikes; a key is accepted and not used."""
        del key
        synaptic = state.current + current
        membrane = state.membrane + rounded(self.rate * ((self.rest - state.membrane) + synaptic))
        spikes = heaviside(membrane - self.threshold, self.surrogate, self.compare)
        membrane = apply_reset(self, membrane, spikes, self.threshold)
        return CurrentLIFState(membrane, synaptic - rounded(self.rate_syn * synaptic)), spikes


def _rate(dt: float | int, inverse: float) -> float:
    if not 0 < dt * inverse <= 1:
        raise ValueError(f"dt times an inverse time constant must be in (0, 1], got {dt} x {inverse}; shorten dt.")
    return float(np.float32(dt) * np.float32(inverse))


def _charge(v: Array, x: Array, rate: float | int, v_leak: float | int) -> Array:
    return v + rounded(rate * (x + v_leak - v))


def _surrogate(method: str | Surrogate, alpha: float | int) -> Surrogate:
    if isinstance(method, Surrogate):
        return method
    parameters: dict[str, Any] = {
        "super": {"alpha": alpha},
        "triangle": {"height": alpha},
        "tanh": {"k": alpha},
        "circ": {"alpha": alpha},
        "heavi_erfc": {"alpha": alpha},
    }
    return get(METHODS.get(method, method), **parameters.get(method, {}))
