"""Resonate-and-fire neurons: damped oscillators that spike at the crest."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.cells.firing import fire, noise_state, set_spike
from dsnn.escape.parameters import check_learnable, parameter, value
from dsnn.surrogate import Surrogate
from dsnn.types import Array, Float, Key


class RFState(NamedTuple):
    """Real part (the membrane) and imaginary part; the shift of the threshold is None without jitter."""

    membrane: Float[Array, "*batch neuron"]
    imaginary: Float[Array, "*batch neuron"]
    shift: Float[Array, "*batch neuron"] | None = None


class RF(nnx.Module):
    """Resonate-and-fire neuron without reset (Izhikevich 2001; the vanilla RF of Higuchi et al. 2024), by Euler.

        u' = u + dt (-damping u - omega v + I),   v' = v + dt (omega u - damping v),   s = fire(u' - threshold)

    Both updates use the old u and v. Only dt omega and dt damping matter, so the unit of time is free; Higuchi et al.
    take dt = 0.01 with omega drawn from 5 to 10. The Euler step adds energy when dt (omega^2 + damping^2) exceeds
    2 damping: the neuron then diverges, which `BRF` prevents.

    Args:
        omega: angular frequency, positive.
        damping: attraction to rest, positive.
        dt: length of a step.
        threshold: positive.
        compare: ">" or ">=".
        surrogate: name or `dsnn.surrogate.Surrogate`; None is "double_gaussian", or the density of the noise.
        noise: None or one of `dsnn.escape`.
        learnable: names among damping, omega, threshold.
        shape: shape of the learnable parameters, () shared or (neurons,).

    Raises:
        ValueError: a value out of range or an unknown option.
    """

    omega: Any
    damping: Any
    threshold: Any

    def __init__(
        self,
        omega: Any = 10.0,
        damping: Any = 1.0,
        *,
        dt: float | int = 0.01,
        threshold: Any = 1.0,
        compare: str = ">",
        surrogate: str | Surrogate | None = None,
        noise: Any = None,
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
    ):
        _set_resonator(self, omega, damping, dt, threshold, learnable, shape)
        set_spike(self, compare, surrogate, noise, default="double_gaussian")

    def init(self, batch_shape: tuple[int, ...]) -> RFState:
        """Returns the resting state for currents of shape ``batch_shape``."""
        return RFState(jnp.zeros(batch_shape), jnp.zeros(batch_shape), **noise_state(self, batch_shape))

    def step(
        self, state: RFState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[RFState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the spikes; a key is consumed, None is the deterministic neuron."""
        u, v = _rotate(self, state.membrane, state.imaginary, -value(self.damping), current)
        shift, spikes = fire(self, state.shift, u - value(self.threshold), key)
        return RFState(u, v, shift), spikes


class BRFState(NamedTuple):
    """Real part (the membrane), imaginary part and refractory trace; the shift is None without jitter."""

    membrane: Float[Array, "*batch neuron"]
    imaginary: Float[Array, "*batch neuron"]
    refractory: Float[Array, "*batch neuron"]
    shift: Float[Array, "*batch neuron"] | None = None


class BRF(nnx.Module):
    """Balanced resonate-and-fire neuron (Higuchi et al. 2024).

        b = p(omega) - damping - q,   p(omega) = (sqrt(1 - (dt omega)^2) - 1) / dt
        u' = u + dt (b u - omega v + I),   v' = v + dt (omega u + b v)
        s = fire(u' - threshold - q),   q = gamma q + s

    Both updates use the old u and v, and q is the trace of the spikes before this one. p(omega) is the damping at
    which the Euler step neither gains nor loses energy.

    Args:
        omega: angular frequency, positive, with dt omega < 1; 10 (Higuchi et al. draw from 5 to 10 for SHD, 3 to 5 for
            ECG).
        damping: distance from that boundary, positive; 1 (they draw from 2 to 3, and from 0.1 to 1).
        dt: length of a step; 0.01.
        threshold: positive; 1.
        gamma: decay of the refractory trace per step, in [0, 1]; 0.9.
        compare: ">" or ">=".
        surrogate: name or `dsnn.surrogate.Surrogate`; None is "double_gaussian", or the density of the noise.
        noise: None or one of `dsnn.escape`.
        learnable: names among damping, gamma, omega, threshold.
        shape: shape of the learnable parameters, () shared or (neurons,).

    Raises:
        ValueError: a value out of range or an unknown option.
    """

    omega: Any
    damping: Any
    threshold: Any
    dt: Any

    def __init__(
        self,
        omega: Any = 10.0,
        damping: Any = 1.0,
        *,
        dt: float | int = 0.01,
        threshold: Any = 1.0,
        gamma: Any = 0.9,
        compare: str = ">",
        surrogate: str | Surrogate | None = None,
        noise: Any = None,
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
    ):
        _set_resonator(self, omega, damping, dt, threshold, learnable, shape, more=("gamma",))
        if not isinstance(omega, jax.core.Tracer) and np.any(np.asarray(omega) * dt >= 1):
            raise ValueError(f"dt omega must be below 1, got dt={dt} and omega={omega}; take shorter steps.")
        self.gamma = parameter("gamma", gamma, "unit_interval", learnable="gamma" in learnable, shape=shape)
        set_spike(self, compare, surrogate, noise, default="double_gaussian")

    def bound(self) -> Any:
        """Returns p(omega) - damping, the attraction to rest without spikes."""
        # a learner may carry omega over the boundary, where the root would be no number
        boundary = (jnp.sqrt(jnp.maximum(1 - (self.dt * value(self.omega)) ** 2, 1e-6)) - 1) / self.dt
        return boundary - value(self.damping)

    def init(self, batch_shape: tuple[int, ...]) -> BRFState:
        """Returns the resting state for currents of shape ``batch_shape``."""
        zeros = jnp.zeros(batch_shape)
        return BRFState(zeros, zeros, zeros, **noise_state(self, batch_shape))

    def step(
        self, state: BRFState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[BRFState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the spikes; a key is consumed, None is the deterministic neuron."""
        q = state.refractory
        u, v = _rotate(self, state.membrane, state.imaginary, self.bound() - q, current)
        shift, spikes = fire(self, state.shift, u - value(self.threshold) - q, key)
        return BRFState(u, v, value(self.gamma) * q + spikes, shift), spikes


def _rotate(cell: Any, u: Array, v: Array, b: Any, current: Array) -> tuple[Array, Array]:
    omega = value(cell.omega)
    return u + cell.dt * (b * u - omega * v + current), v + cell.dt * (omega * u + b * v)


def _set_resonator(
    cell: Any,
    omega: Any,
    damping: Any,
    dt: float | int,
    threshold: Any,
    learnable: Sequence[str],
    shape: Sequence[int],
    more: tuple[str, ...] = (),
) -> None:
    check_learnable(learnable, ("damping", *more, "omega", "threshold"))
    cell.dt = parameter("dt", dt, "positive", hint="it is the length of a step")
    for name, given in (("omega", omega), ("damping", damping), ("threshold", threshold)):
        setattr(cell, name, parameter(name, given, "positive", learnable=name in learnable, shape=shape))
