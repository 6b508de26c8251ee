"""From a trained deep network to a spiking one: ``convert(model, data, method=...)``.

Thresholds from data ("max", "percentile"), from training ("qcfs") or calibrated layer by layer; the result is a
`dsnn.networks.stack.Stack` of integrate-and-fire neurons like any other, so gates, halting, energy, compaction and NIR
apply. `stochastic` runs its dense layers on address events, each a row of weights to fetch.
"""

from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from dsnn.convert.ann import ClipFloor, Flatten, Residual, deep_conv, deep_mlp, forward
from dsnn.convert.calibrate import calibrate
from dsnn.convert.cost import address_records, gathered_rows
from dsnn.convert.limits import activations, from_data, from_training, running_largest
from dsnn.convert.options import METHODS, ConvertConfig
from dsnn.convert.rate import RateCoded, rate_coded, rate_records, sparse_rows
from dsnn.convert.report import LayerMatch, inputs_of, match_layers
from dsnn.convert.stack import integrate_and_fire, to_stack
from dsnn.convert.stochastic import Stochastic, gathered, stochastic
from dsnn.convert.units import Unit, read
from dsnn.networks.stack import Stack

__all__ = [
    "METHODS",
    "ClipFloor",
    "ConvertConfig",
    "Converted",
    "Flatten",
    "LayerMatch",
    "RateCoded",
    "Residual",
    "Stochastic",
    "Unit",
    "activations",
    "address_records",
    "calibrate",
    "convert",
    "deep_conv",
    "deep_mlp",
    "forward",
    "from_data",
    "from_training",
    "gathered",
    "gathered_rows",
    "inputs_of",
    "integrate_and_fire",
    "match_layers",
    "rate_coded",
    "rate_records",
    "read",
    "running_largest",
    "sparse_rows",
    "stochastic",
    "to_stack",
]


class Converted(NamedTuple):
    """A spiking network and what it was made with.

    Attributes:
        stack: the network.
        limits: by hidden layer the activation λ that a spike at every step stands for.
    """

    stack: Stack
    limits: dict[str, float]


def convert(
    model: nnx.Sequential,
    data: Any,
    method: str = "percentile",
    *,
    percentile: float | int = 99.9,
    fraction: float | int = 1.0,
    steps: int = 32,
    potential: bool = False,
    calibrated: bool | None = None,
    start: float | int | None = None,
    signed_neurons: bool = False,
    max_pool: str = "exact",
    surrogate: Any = None,
    noise: Any = None,
) -> Converted:
    """Returns the spiking network of a trained deep one.

    Args:
        model: an `nnx.Sequential` as `dsnn.convert.ann` describes it.
        data: examples ``[n, ...]`` (for their shape alone with "qcfs"); dense, or sparse rows.
        method: "max" (largest activation; Diehl et al. 2015), "running_max" (SpikingJelly's running average of it),
            "percentile" (Rueckauer et al. 2017), "qcfs" (learned limits and first membrane θ/2; Bu et al. 2022) or
            "calibrated" (percentile, first membrane θ/2, then Li et al. 2021).
        percentile: of the activations, for "percentile" and "calibrated".
        fraction: of that value, or of the largest.
        steps: at which calibration makes rates and activations agree.
        potential: calibrates first membranes and not biases.
        calibrated: whether to calibrate; None is what the method says.
        start: first membrane in thresholds; None is the method's own. Half a threshold rounds rates to the nearest
            and not down, which counts while there are few steps (Bu et al. 2022).
        signed_neurons: neurons may take a spike back, see `dsnn.cells.SignedIF`.
        max_pool: "exact" (by two layers of neurons) or "or" (of spikes, which overestimates), see `to_stack`.
        surrogate: of the neurons, for training on.
        noise: escape noise of the neurons.

    Raises:
        ValueError: an unknown method, signed neurons with noise, or a network that has no spiking counterpart.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    units = read(model)
    if method == "qcfs":
        limits = from_training(units)
    elif method == "running_max":
        limits = running_largest(model, data, fraction=fraction)
    else:
        limits = from_data(model, data, percentile=100.0 if method == "max" else percentile, fraction=fraction)
    if signed_neurons and max_pool == "or" and any(pool.kind == "max" for unit in units for pool in unit.before):
        raise ValueError(
            'a logical or of spikes cannot take one back, got signed neurons with max_pool="or"; take exact.'
        )
    own = 0.5 if method in ("qcfs", "calibrated") else 0.0
    cell = integrate_and_fire(own if start is None else start, surrogate, noise, signed=signed_neurons)
    stack = to_stack(units, limits, tuple(data.shape[1:]), cell, max_pool)
    hidden = [name for name in stack.names[:-1] if not name.startswith("pool")]
    named = dict(zip(hidden, limits, strict=True))
    if method == "calibrated" if calibrated is None else calibrated:
        dense = data.toarray() if hasattr(data, "toarray") else np.asarray(data)
        stack = calibrate(model, stack, named, dense, steps, potential=potential)
    return Converted(stack, named)
