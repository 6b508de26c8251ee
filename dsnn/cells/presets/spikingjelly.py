"""SpikingJelly 2.0.0: IFNode and LIFNode. A membrane at the threshold spikes; time is in steps."""

from typing import Any

from dsnn.cells.presets.ordered import Ordered, divided
from dsnn.surrogate import Surrogate
from dsnn.types import Array


def lif_node(
    tau: float | int = 2.0,
    decay_input: bool = True,
    v_threshold: float | int = 1.0,
    v_reset: float | int | None = 0.0,
    surrogate_function: str | Surrogate = "sigmoid",
    detach_reset: bool = False,
    step_mode: str = "s",
    backend: str = "torch",
    store_v_seq: bool = False,
) -> Ordered:
    """Returns LIFNode: h = v + (x - (v - v_reset)) / tau, s = H(h - theta), v = v_reset where s, else h.

    With ``decay_input=False`` x is not divided; with ``v_reset=None`` v = h - s theta, and v decays to 0.
    """
    del step_mode, backend, store_v_seq
    if tau <= 1:
        raise ValueError(f"tau must be above 1, got {tau}; SpikingJelly's time constants are in steps.")
    return Ordered(
        _charge if decay_input else _charge_undecayed,
        {"tau": tau, "v_reset": 0.0 if v_reset is None else v_reset},
        **_firing(v_threshold, v_reset, surrogate_function, detach_reset),
    )


def if_node(
    v_threshold: float | int = 1.0,
    v_reset: float | int | None = 0.0,
    surrogate_function: str | Surrogate = "sigmoid",
    detach_reset: bool = False,
    step_mode: str = "s",
    backend: str = "torch",
    store_v_seq: bool = False,
) -> Ordered:
    """Returns IFNode: h = v + x, s = H(h - theta), v = v_reset where s (h - s theta with None), else h."""
    del step_mode, backend, store_v_seq
    return Ordered(_integrate, {}, **_firing(v_threshold, v_reset, surrogate_function, detach_reset))


def _firing(
    v_threshold: float | int, v_reset: float | int | None, surrogate: str | Surrogate, detach_reset: bool
) -> dict[str, Any]:
    return {
        "threshold": v_threshold,
        "rest": 0.0 if v_reset is None else v_reset,
        "reset": "subtract" if v_reset is None else v_reset,
        "compare": ">=",
        "surrogate": surrogate,
        "detach_reset": detach_reset,
    }


def _charge(v: Array, x: Array, tau: float | int, v_reset: float | int) -> Array:
    return v + divided(x - (v - v_reset), tau)


def _charge_undecayed(v: Array, x: Array, tau: float | int, v_reset: float | int) -> Array:
    return v - divided(v - v_reset, tau) + x


def _integrate(v: Array, x: Array) -> Array:
    return v + x
