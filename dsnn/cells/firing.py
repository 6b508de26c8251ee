"""Integrate, fire, reset, stay silent: what every neuron of the LIF family does after its current is known."""

from typing import Any

import jax
import jax.numpy as jnp

from dsnn.escape import ThresholdJitter
from dsnn.escape.parameters import check_choice, parameter
from dsnn.surrogate import COMPARISONS, get, heaviside
from dsnn.types import Array, Float, Key

RESETS = ("subtract", "zero", "none")
TIMINGS = ("same", "next")


def integrate_and_fire(
    cell: Any, state: Any, drive: Float[Array, "..."], beta: Any, threshold: Any, key: Key[Array, ""] | None
) -> tuple[Any, Float[Array, "..."]]:
    """Returns the state with its membrane part one step later, and the spikes; a key is consumed.

    Args:
        cell: a cell on which `set_firing` was called.
        state: with the fields membrane, spikes, refractory, shift.
        drive: what is added to the decayed membrane.
        beta: decay of the membrane.
        threshold: of this step.
        key: None is the deterministic neuron.
    """
    if cell.reset_timing == "same":
        membrane = _decayed(cell, state.membrane, beta) + drive
    elif cell.reset == "subtract":
        membrane = apply_reset(cell, _decayed(cell, state.membrane, beta) + drive, state.spikes, threshold)
    else:
        membrane = _decayed(cell, apply_reset(cell, state.membrane, state.spikes, threshold), beta) + drive
    if cell.refractory:
        awake = (state.refractory <= 0).astype(membrane.dtype)
        membrane = jnp.where(awake > 0, membrane, state.membrane)
    shift, spikes = fire(cell, state.shift, membrane - threshold, key)
    if cell.refractory:
        spikes = spikes * awake
        refractory = jnp.where(spikes > 0, float(cell.refractory), jnp.maximum(state.refractory - 1, 0))
        state = state._replace(refractory=refractory)
    if cell.reset_timing == "next":
        return state._replace(membrane=membrane, spikes=spikes, shift=shift), spikes
    return state._replace(membrane=apply_reset(cell, membrane, spikes, threshold), shift=shift), spikes


def fire(
    cell: Any, shift: Float[Array, "..."] | None, u: Float[Array, "..."], key: Key[Array, ""] | None
) -> tuple[Float[Array, "..."] | None, Float[Array, "..."]]:
    """Returns the threshold's next shift and the spikes of a cell whose membrane is ``u`` above its threshold."""
    if cell.noise is None:
        return shift, heaviside(u, cell.surrogate, cell.compare)
    if isinstance(cell.noise, ThresholdJitter):
        return cell.noise.step(shift, u, key, cell.surrogate, cell.compare)
    return shift, cell.noise.spike(u, key, cell.surrogate, cell.compare)


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
        case "zero" | 0.0:
            return membrane * (1 - spikes)
        case _:
            return membrane * (1 - spikes) + spikes * cell.reset


def set_firing(
    cell: Any,
    *,
    threshold: Any,
    rest: float,
    reset: str | float,
    reset_timing: str,
    refractory: float,
    compare: str,
    surrogate: Any,
    noise: Any,
    detach_reset: bool,
    learnable: tuple[str, ...],
    shape: tuple[int, ...],
) -> None:
    """Checks the options of threshold, noise and reset, and puts them on a cell under construction with its dt."""
    if isinstance(reset, bool) or not isinstance(reset, (int, float)):
        check_choice("reset", reset, RESETS)
    check_choice("reset_timing", reset_timing, TIMINGS)
    check_choice("compare", compare, COMPARISONS)
    hint = "1 is usual"
    cell.threshold = parameter(
        "threshold",
        threshold,
        "positive" if rest == 0 else "real",
        learnable="threshold" in learnable,
        shape=shape,
        hint=hint,
    )
    cell.rest = parameter("rest", rest, "real")
    cell.reset = reset if isinstance(reset, str) else parameter("reset", reset, "real")
    cell.reset_timing, cell.compare, cell.detach_reset = reset_timing, compare, detach_reset
    cell.refractory = _steps(refractory, cell.dt, reset_timing)
    cell.noise = noise
    # the density of its own noise serves a neuron whose surrogate is not named
    has_density = noise is not None and not isinstance(noise, ThresholdJitter)
    cell.surrogate = None if surrogate is None and has_density else get("atan" if surrogate is None else surrogate)


def at_rest(cell: Any, batch_shape: tuple[int, ...]) -> dict[str, Array]:
    """Returns the membrane part of a cell's first state, with the fields that its options need."""
    zeros = jnp.zeros(batch_shape)
    fields = {"membrane": zeros if cell.rest == 0 else jnp.full(batch_shape, cell.rest)}
    if cell.reset_timing == "next":
        fields["spikes"] = zeros
    if cell.refractory:
        fields["refractory"] = zeros
    if isinstance(cell.noise, ThresholdJitter):
        fields["shift"] = zeros
    return fields


def _decayed(cell: Any, membrane: Array, beta: Any) -> Array:
    return beta * membrane if cell.rest == 0 else cell.rest + beta * (membrane - cell.rest)


def _steps(refractory: float, dt: float, reset_timing: str) -> int:
    steps = round(refractory / dt)
    if refractory < 0 or abs(steps * dt - refractory) > 1e-6 * dt:
        raise ValueError(f"refractory must be a multiple of dt = {dt} ms, at least 0, got {refractory}; round it.")
    if steps and reset_timing == "next":
        raise ValueError(
            f'a refractory period needs reset_timing="same", got "next" with refractory={refractory}; with "next" the '
            "reset would fall into the silent time."
        )
    return steps
