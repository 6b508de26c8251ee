"""How fast a trace forgets: a decay per step, or a time constant in ms with its discretisation."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from dsnn.cells.rounding import rounded
from dsnn.escape.parameters import check_choice, parameter, value
from dsnn.types import Array

METHODS = ("exp", "euler")
INPUT_SCALES = ("one", "decay", "dt_over_tau")


def set_decay(
    cell: Any,
    names: tuple[str, str],
    given: tuple[Any, Any],
    default: float,
    learnable: Sequence[str],
    shape: Sequence[int],
) -> None:
    """Checks a decay and puts it on a cell under construction, whose ``dt`` and ``method`` are set.

    The cell gets both names as attributes. With a fixed time constant the decay is computed here, once; with a
    learnable one it is None and `per_step` computes it.

    Args:
        cell: the cell.
        names: of the decay per step and of the time constant, such as ("beta", "tau").
        given: their values, at most one not None.
        default: decay per step if both are None.
        learnable: names of the cell's learnable parameters.
        shape: shape of a learnable parameter.

    Raises:
        ValueError: both are given, or a value is out of range.
    """
    (name, tau_name), (decay, tau) = names, given
    if decay is not None and tau is not None:
        raise ValueError(f"only one of {name} and {tau_name} may be given, got {decay} and {tau}; leave out one.")
    for one, other, is_given in ((name, tau_name, tau is None), (tau_name, name, tau is not None)):
        if one in learnable and not is_given:
            raise ValueError(f"learnable {one} needs {one}, got {other}; give {one} or make {other} learnable.")
    if tau is None:
        hint = f"a time constant in ms goes in {tau_name}"
        decay = default if decay is None else decay
        fixed = parameter(name, decay, "unit_interval", learnable=name in learnable, shape=shape, hint=hint)
        setattr(cell, name, fixed)
        setattr(cell, tau_name, None)
        return
    hint = f"a decay per step goes in {name}"
    constant = parameter(tau_name, tau, "positive", learnable=tau_name in learnable, shape=shape, hint=hint)
    if cell.method == "euler" and bool((jnp.asarray(value(constant)) < cell.dt).any()):
        raise ValueError(
            f'{tau_name} must be at least dt = {cell.dt} with method="euler", got {tau}; use method="exp".'
        )
    setattr(cell, tau_name, constant)
    fixed = None if tau_name in learnable else _from_tau(value(constant), cell.dt, cell.method)
    setattr(cell, name, fixed if fixed is None else parameter(name, fixed, "unit_interval"))


def per_step(cell: Any, name: str = "beta", tau_name: str = "tau") -> float | Array:
    """Returns the factor by which a trace of the cell shrinks in one step."""
    decay = getattr(cell, name)
    return _from_tau(value(getattr(cell, tau_name)), cell.dt, cell.method) if decay is None else value(decay)


def scaled(cell: Any, current: Array, decay: float | Array) -> Array:
    """Returns the current as it enters the membrane: times 1, 1 - decay, dt / tau, or a number."""
    if not isinstance(cell.input_scale, str):
        return rounded(value(cell.input_scale) * current)
    match cell.input_scale:
        case "decay":
            return rounded((1 - decay) * current)
        case "dt_over_tau":
            return rounded(cell.dt / value(cell.tau) * current)
    return current


def set_time(cell: Any, dt: float | int, method: str, input_scale: Any, tau: Any) -> None:
    """Checks the discretisation and puts it on a cell under construction."""
    check_choice("method", method, METHODS)
    if isinstance(input_scale, str):
        check_choice("input_scale", input_scale, INPUT_SCALES)
    else:
        input_scale = parameter("input_scale", input_scale, "real")
    if isinstance(input_scale, str) and input_scale == "dt_over_tau" and tau is None:
        raise ValueError('input_scale="dt_over_tau" needs tau, got beta; use input_scale="decay" or give tau in ms.')
    cell.dt = parameter("dt", dt, "positive", hint="it is the length of a step in ms")
    cell.method, cell.input_scale = method, input_scale


def _from_tau(tau: Any, dt: float | int, method: str) -> Any:
    if method == "euler":
        return 1.0 - dt / tau
    return math.exp(-dt / tau) if isinstance(tau, float) else jnp.exp(-dt / tau)
