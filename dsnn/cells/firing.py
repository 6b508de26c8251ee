"""From a membrane to spikes: threshold comparison, noise and surrogate, the same for every spiking cell."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp

from dsnn.escape import ThresholdJitter
from dsnn.escape.parameters import check_choice
from dsnn.surrogate import COMPARISONS, Surrogate, get, heaviside
from dsnn.types import Array, Float, Key

Intervention = Callable[[Any, Array, Array], Array]
_intervention: contextvars.ContextVar[Intervention | None] = contextvars.ContextVar("intervention", default=None)


@contextlib.contextmanager
def intervene(function: Intervention) -> Iterator[None]:
    """Lets ``function(noise, u, spikes) -> spikes`` see and replace the spikes of every cell that steps inside.

    It runs while a step is traced, in the order of the layers: what it keeps must be taken out within the same step.
    """
    token = _intervention.set(function)
    try:
        yield
    finally:
        _intervention.reset(token)


def intervening() -> bool:
    """Returns whether `intervene` holds at this moment."""
    return _intervention.get() is not None


def fire(
    cell: Any, shift: Float[Array, "..."] | None, u: Float[Array, "..."], key: Key[Array, ""] | None
) -> tuple[Float[Array, "..."] | None, Float[Array, "..."]]:
    """Returns the threshold's next shift (None without jitter) and the spikes; a key is consumed.

    Args:
        cell: a cell on which `set_spike` was called.
        shift: of the threshold, None without jitter.
        u: membrane minus threshold.
        key: None is the deterministic neuron.
    """
    shift, spikes = _fire(cell, shift, u, key)
    function = _intervention.get()
    return shift, spikes if function is None else function(cell.noise, u, spikes)


def _fire(cell: Any, shift: Array | None, u: Array, key: Array | None) -> tuple[Array | None, Array]:
    if cell.noise is None:
        return shift, heaviside(u, cell.surrogate, cell.compare)
    if isinstance(cell.noise, ThresholdJitter) and shift is not None:
        return cell.noise.step(shift, u, key, cell.surrogate, cell.compare)
    return shift, cell.noise.spike(u, key, cell.surrogate, cell.compare)


def set_spike(
    cell: Any, compare: str, surrogate: str | Surrogate | None, noise: Any, default: str | Surrogate = "atan"
) -> None:
    """Checks how a cell under construction fires, and puts it there.

    The density of its own noise serves a neuron whose surrogate is not named, and ``default`` one without such noise.
    """
    check_choice("compare", compare, COMPARISONS)
    cell.compare, cell.noise = compare, noise
    has_density = noise is not None and not isinstance(noise, ThresholdJitter)
    cell.surrogate = None if surrogate is None and has_density else get(default if surrogate is None else surrogate)


def noise_state(cell: Any, batch_shape: tuple[int, ...]) -> dict[str, Array]:
    """Returns the field that the noise of a cell adds to its first state, if it adds any."""
    return {"shift": jnp.zeros(batch_shape)} if isinstance(cell.noise, ThresholdJitter) else {}
