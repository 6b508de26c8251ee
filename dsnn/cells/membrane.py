"""Integrate, fire, reset, stay silent: what every neuron of the LIF family does once its current is known."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from dsnn.cells.firing import fire, noise_state, set_spike
from dsnn.cells.rounding import rounded
from dsnn.escape.draw import with_gradient_of
from dsnn.escape.parameters import check_choice, parameter, value
from dsnn.types import Array, Float, Key

RESETS = ("subtract", "zero", "none")
TIMINGS = ("same", "next")


def integrate_and_fire(
    cell: Any, state: Any, drive: Float[Array, "..."], beta: Any, threshold: Any, key: Key[Array, ""] | None
) -> tuple[Any, Float[Array, "..."]]:
    """Returns the state with its membrane part one step later, and the spikes; a key is consumed.

    Args:
        cell: a cell on which `set_membrane` was called.
        state: with the fields membrane, spikes, refractory, shift.
        drive: what is added to the decayed membrane.
        beta: decay of the membrane.
        threshold: of this step.
        key: None is the deterministic neuron.
    """
    membrane = _integrated(cell, state, drive, beta, threshold)
    membrane = checkpoint_name(membrane, "membrane")  # the rest of a step is cheaper to compute again than to keep
    shift, spikes = fire(cell, state.shift, membrane - threshold, key)
    if cell.refractory:
        shift = None if shift is None else jnp.where(state.refractory <= 0, shift, state.shift)
        spikes, refractory = _silenced(cell, spikes, state.refractory)
        state = state._replace(refractory=refractory)
    if cell.reset_timing == "next":
        return state._replace(membrane=membrane, spikes=spikes, shift=shift), spikes
    if not fires_once(cell):
        membrane = apply_reset(cell, membrane, spikes, threshold)
    return state._replace(membrane=membrane, shift=shift), spikes


def _integrated(cell: Any, state: Any, drive: Array, beta: Any, threshold: Any) -> Array:
    """Returns the membrane of this step before its spike: the last one, decayed and driven, and reset if that is due.

    The membrane of a neuron that fires once goes on as if it had not, so that later spikes stay what one forestalls.
    """
    if cell.reset_timing == "same" or fires_once(cell):
        membrane = _decayed(cell, state.membrane, beta) + drive
    elif cell.reset == "subtract":
        membrane = apply_reset(cell, _decayed(cell, state.membrane, beta) + drive, state.spikes, threshold)
    else:
        membrane = _decayed(cell, apply_reset(cell, state.membrane, state.spikes, threshold), beta) + drive
    if cell.refractory and not fires_once(cell):
        membrane = jnp.where(state.refractory <= 0, membrane, state.membrane)
    return membrane


def fires_once(cell: Any) -> bool:
    """Returns whether a cell stays silent for good after a spike: its refractory time is infinite."""
    return bool(cell.refractory == math.inf)


def _silenced(cell: Any, spikes: Array, refractory: Array) -> tuple[Array, Array]:
    """Returns the spikes that the refractory time lets through, and the steps of it that are left.

    Of a neuron that fires once they are one once it has fired, and s becomes s (1 - refractory): so the gradient knows
    of the later spikes that one forestalls.
    """
    awake = refractory <= 0
    if not fires_once(cell):
        spikes = jnp.where(awake, spikes, 0.0)
        return spikes, jnp.where(spikes > 0, float(cell.refractory), jnp.maximum(refractory - 1, 0))
    spikes = with_gradient_of(jnp.where(awake, spikes, 0.0), spikes * (1 - refractory))
    return spikes, refractory + (jax.lax.stop_gradient(spikes) if cell.detach_reset else spikes)


def apply_reset(
    cell: Any, membrane: Float[Array, "..."], spikes: Float[Array, "..."], threshold: Any
) -> Float[Array, "..."]:
    """Returns the membrane after the cell's reset where it spiked."""
    if cell.detach_reset:
        spikes = jax.lax.stop_gradient(spikes)
    match cell.reset:
        case "subtract":
            return membrane - spikes * threshold
        case "none":
            return membrane
        case "zero":
            return membrane * (1 - spikes)
    return membrane * (1 - spikes) + spikes * value(cell.reset)


def set_membrane(
    cell: Any,
    *,
    threshold: Any,
    rest: Any,
    reset: Any,
    reset_timing: str,
    refractory: float | int,
    compare: str,
    surrogate: Any,
    noise: Any,
    detach_reset: bool,
    learnable: Sequence[str],
    shape: Sequence[int],
) -> None:
    """Checks the options of threshold, noise and reset, and puts them on a cell under construction with its dt."""
    if reset is None or isinstance(reset, (str, bool)):
        check_choice("reset", reset, RESETS)
    check_choice("reset_timing", reset_timing, TIMINGS)
    hint = "1 is usual"
    cell.threshold = parameter(
        "threshold",
        threshold,
        "positive" if _is_zero(rest) else "real",
        learnable="threshold" in learnable,
        shape=shape,
        hint=hint,
    )
    cell.rest = parameter("rest", rest, "real")
    cell.reset = reset if isinstance(reset, str) else parameter("reset", reset, "real")
    cell.reset_timing, cell.detach_reset = reset_timing, detach_reset
    cell.refractory = _steps(refractory, cell.dt, reset_timing)
    set_spike(cell, compare, surrogate, noise)


def at_rest(cell: Any, batch_shape: tuple[int, ...]) -> dict[str, Array]:
    """Returns the membrane part of a cell's first state, with the fields that its options need."""
    zeros = jnp.zeros(batch_shape)
    fields = {"membrane": jnp.broadcast_to(value(cell.rest), batch_shape) + zeros}
    if cell.reset_timing == "next":
        fields["spikes"] = zeros
    if cell.refractory:
        fields["refractory"] = zeros
    return fields | noise_state(cell, batch_shape)


def _decayed(cell: Any, membrane: Array, beta: Any) -> Array:
    rest = value(cell.rest)
    if _is_zero(rest):
        return rounded(beta * membrane)
    return rest + rounded(beta * (membrane - rest))


def _is_zero(rest: Any) -> bool:
    return isinstance(rest, (int, float)) and rest == 0


def _steps(refractory: float | int, dt: float | int, reset_timing: str) -> int | float:
    if refractory == math.inf:
        return math.inf
    steps = round(refractory / dt) if math.isfinite(refractory) else -1
    if steps < 0 or abs(steps * dt - refractory) > 1e-6 * dt:
        raise ValueError(
            f"refractory must be a multiple of dt = {dt} ms, at least 0, or infinite, got {refractory}; round it."
        )
    if steps and reset_timing == "next":
        raise ValueError(
            f'a refractory period needs reset_timing="same", got "next" with refractory={refractory}; with "next" the '
            "reset would fall into the silent time."
        )
    return steps
