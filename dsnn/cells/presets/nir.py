"""NIR 1.0: LIF, a continuous-time neuron that needs a time step here."""

from typing import Any

import numpy as np

from dsnn.cells.decay import METHODS
from dsnn.cells.lif import LIF
from dsnn.escape.parameters import check_choice
from dsnn.surrogate import Surrogate


def lif(
    tau: Any,
    r: Any = 1.0,
    v_leak: Any = 0.0,
    v_threshold: Any = 1.0,
    v_reset: Any = 0.0,
    dt: float | int = 1e-4,
    method: str = "exp",
    surrogate: str | Surrogate = "atan",
) -> LIF:
    """Returns LIF: tau dv/dt = (v_leak - v) + r x, a spike and v = v_reset where v exceeds v_threshold.

    tau and dt are in seconds, and arrays hold one value per neuron. One step is v = v_leak + beta (v - v_leak) +
    (1 - beta) r x with beta = exp(-dt/tau) ("exp", exact for a constant x) or 1 - dt/tau ("euler"). ``dt``, ``method``
    and ``surrogate`` are ours. The first membrane is v_leak.
    """
    check_choice("method", method, METHODS)
    tau, r = (np.asarray(a, np.float64) if np.ndim(a) else float(a) for a in (tau, r))
    beta = np.exp(-dt / tau) if method == "exp" else 1 - dt / tau
    scale = (1 - beta) * r
    return LIF(
        beta if np.ndim(beta) else float(beta),
        input_scale=scale if np.ndim(scale) else float(scale),
        rest=v_leak,
        threshold=v_threshold,
        reset=v_reset,
        surrogate=surrogate,
    )
