"""Neurons as published with a paper rather than a framework."""

from collections.abc import Sequence
from typing import Any

from dsnn.cells.alif import ALIF
from dsnn.surrogate import Surrogate


def yin_alif(
    tau_m: Any = 20.0,
    tau_adp: Any = 200.0,
    b_j0: float | int = 0.01,
    beta: float | int = 1.8,
    dt: float | int = 1.0,
    surrogate: str | Surrogate = "multi_gaussian",
    learnable: Sequence[str] = (),
    shape: Sequence[int] = (),
) -> ALIF:
    """Returns the adaptive neuron of Yin, Corradi & Bohte 2021 with R_m = 1.

        b = rho b + (1 - rho) s,   theta = b_j0 + beta b
        u = alpha u + (1 - alpha) x - theta s,   s = H(u - theta)

    where the s on the right is the spike before, alpha = exp(-dt/tau_m) and rho = exp(-dt/tau_adp). The recorded
    adaptation is the b of the next step.
    """
    return ALIF(
        tau=tau_m,
        tau_adp=tau_adp,
        threshold=b_j0,
        strength=beta,
        dt=dt,
        reset_timing="next",
        input_scale="decay",
        surrogate=surrogate,
        learnable=learnable,
        shape=shape,
    )
