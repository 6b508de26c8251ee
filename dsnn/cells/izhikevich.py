"""Izhikevich's simple model of spiking neurons."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from dsnn.cells.firing import fire, noise_state, set_spike
from dsnn.escape.parameters import check_learnable, parameter, value
from dsnn.surrogate import Surrogate
from dsnn.types import Array, Float, Key

POSITIVE = ("a", "scale")
REAL = ("b", "c", "d", "threshold")


class IzhikevichState(NamedTuple):
    """Membrane in mV and recovery variable; the shift of the threshold is None without jitter."""

    membrane: Float[Array, "*batch neuron"]
    recovery: Float[Array, "*batch neuron"]
    shift: Float[Array, "*batch neuron"] | None = None


class Izhikevich(nnx.Module):
    """Izhikevich neuron (Izhikevich 2003), stepped as in the paper's own program.

        v = v + dt/2 (0.04 v^2 + 5 v + 140 - r + I)      twice, for numerical stability
        r = r + dt a (b v - r)
        s = fire((v - threshold) / scale),   v = c where s,   r = r + d s

    Time is in ms, the membrane v in mV; currents of about 5 to 15 make it fire. The defaults are a regularly spiking
    cell; the paper's others are (a, b, c, d) = (0.1, 0.2, -65, 2) fast spiking, (0.02, 0.2, -50, 2) chattering,
    (0.02, 0.2, -55, 4) intrinsically bursting, (0.02, 0.25, -65, 2) low threshold, (0.1, 0.26, -65, 2) resonator.

    Args:
        a: rate of the recovery, per ms.
        b: sensitivity of the recovery to the membrane.
        c: membrane after a spike in mV.
        d: jump of the recovery after a spike.
        threshold: peak of a spike in mV.
        scale: millivolts per unit of the surrogate and of the noise (10 is ours).
        dt: length of a step in ms, at most 1.
        compare: ">" or ">=" (the paper's).
        surrogate: name or `dsnn.surrogate.Surrogate`; None is "atan", or the density of the noise.
        noise: None or one of `dsnn.escape`.
        learnable: names among a, b, c, d, scale, threshold.
        shape: shape of the learnable parameters, () shared or (neurons,).

    Raises:
        ValueError: a value out of range or an unknown option.
    """

    a: Any
    b: Any
    c: Any
    d: Any
    threshold: Any
    scale: Any

    def __init__(
        self,
        *,
        a: Any = 0.02,
        b: Any = 0.2,
        c: Any = -65.0,
        d: Any = 8.0,
        threshold: Any = 30.0,
        scale: Any = 10.0,
        dt: float | int = 1.0,
        compare: str = ">=",
        surrogate: str | Surrogate | None = None,
        noise: Any = None,
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
    ):
        check_learnable(learnable, POSITIVE + REAL)
        given = locals()
        for name in POSITIVE + REAL:
            support = "positive" if name in POSITIVE else "real"
            setattr(self, name, parameter(name, given[name], support, learnable=name in learnable, shape=shape))
        self.dt = parameter("dt", dt, "positive", hint="it is the length of a step in ms")
        if self.dt > 1:
            raise ValueError(f"dt must be at most 1 ms, got {dt}; the quadratic upswing is unstable beyond.")
        set_spike(self, compare, surrogate, noise)

    def init(self, batch_shape: tuple[int, ...]) -> IzhikevichState:
        """Returns the paper's first state, v = -65 and r = b v."""
        membrane = jnp.full(batch_shape, -65.0)
        return IzhikevichState(membrane, value(self.b) * membrane, **noise_state(self, batch_shape))

    def step(
        self, state: IzhikevichState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[IzhikevichState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the spikes; a key is consumed, None is the deterministic neuron."""
        membrane, recovery = state.membrane, state.recovery
        for _ in range(2):
            slope = 0.04 * membrane**2 + 5 * membrane + 140 - recovery + current
            membrane = membrane + 0.5 * self.dt * slope
        recovery = recovery + self.dt * value(self.a) * (value(self.b) * membrane - recovery)
        above = (membrane - value(self.threshold)) / value(self.scale)
        shift, spikes = fire(self, state.shift, above, key)
        membrane = membrane * (1 - spikes) + value(self.c) * spikes
        return IzhikevichState(membrane, recovery + value(self.d) * spikes, shift), spikes
