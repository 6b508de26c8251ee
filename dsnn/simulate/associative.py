"""Cells that never reset, over all time steps at once: an associative scan in place of stepping (Blelloch 1990).

A membrane that no spike resets is a linear filter of its current, and x' = a x + b composes: two steps are one of
the same form. Depth is the logarithm of the number of steps and work twice that of stepping, so this is for
accelerators and long sequences. Sums are added in another order, so a membrane differs in its last digits.
"""

from typing import Any

import jax
import jax.numpy as jnp

from dsnn.cells.cubalif import CuBaLIF
from dsnn.cells.decay import per_step, scaled
from dsnn.cells.firing import fire
from dsnn.cells.li import LI
from dsnn.cells.lif import LIF
from dsnn.cells.resonate import RF
from dsnn.escape import ThresholdJitter
from dsnn.escape.parameters import value
from dsnn.types import Array, Float, Key, Shaped


def reset_free(cell: Any) -> bool:
    """Returns whether `run` takes the cell: an `LI`, or an `LIF`, `CuBaLIF` or `RF` that its spikes leave as it is."""
    if isinstance(cell, LI):
        return True
    if not isinstance(cell, (LIF, CuBaLIF, RF)):
        return False
    options: Any = cell
    stays = isinstance(cell, RF) or (options.reset == "none" and not options.refractory)
    return stays and not isinstance(options.noise, ThresholdJitter)


def run(
    cell: Any,
    state: Any,
    currents: Float[Array, "time *batch neuron"],
    keys: Key[Array, " time"] | None = None,
) -> tuple[Any, Float[Array, "time *batch neuron"]]:
    """Returns the states after every step, with time leading, and the outputs; equal to stepping up to rounding.

    Args:
        cell: `reset_free`.
        state: before the first step.
        currents: of all steps.
        keys: one of each step, consumed; None is the deterministic neuron.
    """
    leaks, turns, filters = (isinstance(cell, kind) for kind in (LI, RF, CuBaLIF))
    if leaks:
        membranes = linear(per_step(cell), state.membrane, scaled(cell, currents, per_step(cell)))
        return state._replace(membrane=membranes), membranes
    if turns:
        turn = 1 + cell.dt * (-value(cell.damping) + 1j * value(cell.omega))
        waves = linear(turn, state.membrane + 1j * state.imaginary, (cell.dt * currents).astype(jnp.complex64))
        spikes = _fire(cell, waves.real - value(cell.threshold), keys)
        return state._replace(membrane=waves.real, imaginary=waves.imag), spikes
    if filters:
        currents = linear(per_step(cell, "alpha", "tau_syn"), state.current, currents)
        state = state._replace(current=currents)
    return _integrate(cell, state, currents, keys)


def linear(
    decay: Any, start: Shaped[Array, "*batch neuron"], drive: Shaped[Array, "time *batch neuron"]
) -> Shaped[Array, "time *batch neuron"]:
    """Returns x_1, x_2, ... of x_t = decay x_(t-1) + drive_t with x_0 = ``start``."""
    drive = drive.at[0].add(decay * start)
    decays = jnp.broadcast_to(jnp.asarray(decay, drive.dtype), drive.shape)

    def then(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
        return first[0] * second[0], second[0] * first[1] + second[1]

    return jax.lax.associative_scan(then, (decays, drive))[1]


def _integrate(cell: Any, state: Any, currents: Array, keys: Array | None) -> tuple[Any, Array]:
    beta, rest = per_step(cell), value(cell.rest)
    membranes = rest + linear(beta, state.membrane - rest, scaled(cell, currents, beta))
    spikes = _fire(cell, membranes - value(cell.threshold), keys)
    return state._replace(membrane=membranes, spikes=None if state.spikes is None else spikes), spikes


def _fire(cell: Any, u: Array, keys: Array | None) -> Array:
    if keys is None:
        return fire(cell, None, u, None)[1]
    return jax.vmap(lambda u, key: fire(cell, None, u, key)[1])(u, keys)
