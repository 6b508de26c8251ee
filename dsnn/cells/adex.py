"""Adaptive exponential integrate-and-fire."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from dsnn.cells.firing import fire, noise_state, set_spike
from dsnn.escape.parameters import check_learnable, parameter, value
from dsnn.surrogate import Surrogate
from dsnn.types import Array, Float, Key

POSITIVE = ("resistance", "sharpness", "tau", "tau_w")
REAL = ("coupling", "jump", "reset", "rest", "rheobase", "threshold")


class AdExState(NamedTuple):
    """Membrane in mV and adaptation current in nA; the shift of the threshold is None without jitter."""

    membrane: Float[Array, "*batch neuron"]
    adaptation: Float[Array, "*batch neuron"]
    shift: Float[Array, "*batch neuron"] | None = None


class AdEx(nnx.Module):
    """Adaptive exponential integrate-and-fire (Brette & Gerstner 2005), by Euler.

        u' = u + dt/tau (rest - u + sharpness exp((u - rheobase) / sharpness) + resistance (I - w))
        w' = w + dt/tau_w (coupling (u - rest) - w)
        s = fire((u' - threshold) / sharpness),   u = reset where s else u',   w = w' + jump s

    Both updates use the old u and w. The membrane is in mV, currents in nA, and noise and surrogate see it in units of
    ``sharpness``. The upswing is bounded by its value at the threshold. Defaults are those of Brette & Gerstner 2005
    (281 pF, 30 nS), but for the threshold, which lies where the upswing is certain.

    Args:
        tau: membrane time constant in ms.
        tau_w: adaptation time constant in ms.
        resistance: of the membrane in megaohm.
        rest: resting membrane in mV; the first state is there.
        rheobase: effective threshold in mV.
        sharpness: slope factor in mV.
        threshold: membrane in mV that counts as a spike.
        reset: membrane in mV after a spike.
        coupling: subthreshold adaptation in microsiemens.
        jump: adaptation current per spike in nA.
        dt: length of a step in ms; above about 0.5 the upswing is crude.
        compare: ">" or ">=".
        surrogate: name or `dsnn.surrogate.Surrogate`; None is "atan", or the density of the noise.
        noise: None or one of `dsnn.escape`.
        learnable: names among the parameters above tau .. jump.
        shape: shape of the learnable parameters, () shared or (neurons,).

    Raises:
        ValueError: a value out of range or an unknown option.
    """

    tau: Any
    tau_w: Any
    resistance: Any
    rest: Any
    rheobase: Any
    sharpness: Any
    threshold: Any
    reset: Any
    coupling: Any
    jump: Any

    def __init__(
        self,
        *,
        tau: Any = 281 / 30,
        tau_w: Any = 144.0,
        resistance: Any = 1000 / 30,
        rest: Any = -70.6,
        rheobase: Any = -50.4,
        sharpness: Any = 2.0,
        threshold: Any = -40.0,
        reset: Any = -70.6,
        coupling: Any = 0.004,
        jump: Any = 0.0805,
        dt: float | int = 0.1,
        compare: str = ">",
        surrogate: str | Surrogate | None = None,
        noise: Any = None,
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
    ):
        check_learnable(learnable, POSITIVE + REAL)
        given = locals()
        for name in POSITIVE + REAL:
            support = "positive" if name in POSITIVE else "real"
            constant = parameter(name, given[name], support, learnable=name in learnable, shape=shape)
            setattr(self, name, constant)
        self.dt = parameter("dt", dt, "positive", hint="it is the length of a step in ms")
        set_spike(self, compare, surrogate, noise)

    def init(self, batch_shape: tuple[int, ...]) -> AdExState:
        """Returns the resting state for currents of shape ``batch_shape``."""
        rest = jnp.broadcast_to(jnp.asarray(value(self.rest), jnp.float32), batch_shape)
        return AdExState(rest, jnp.zeros(batch_shape), **noise_state(self, batch_shape))

    def step(
        self, state: AdExState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[AdExState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the spikes; a key is consumed, None is the deterministic neuron."""
        u, w = state.membrane, state.adaptation
        sharpness, threshold = value(self.sharpness), value(self.threshold)
        above = (jnp.minimum(u, threshold) - value(self.rheobase)) / sharpness
        pull = value(self.rest) - u + sharpness * jnp.exp(above) + value(self.resistance) * (current - w)
        membrane = u + self.dt / value(self.tau) * pull
        w = w + self.dt / value(self.tau_w) * (value(self.coupling) * (u - value(self.rest)) - w)
        shift, spikes = fire(self, state.shift, (membrane - threshold) / sharpness, key)
        membrane = membrane * (1 - spikes) + value(self.reset) * spikes
        return AdExState(membrane, w + value(self.jump) * spikes, shift), spikes
