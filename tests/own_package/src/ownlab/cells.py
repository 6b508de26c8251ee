"""A quadratic integrate-and-fire neuron (Ermentrout & Kopell 1986) without a cost, a threshold, or a field membrane."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dsnn.energy import NeuronCost


class QIFState(NamedTuple):
    v: jax.Array


@jax.custom_jvp
def fire(v):
    return (v > 0).astype(v.dtype)


@fire.defjvp
def _fire_jvp(primals, tangents):
    (v,), (dv,) = primals, tangents
    return fire(v), dv / (1 + (3 * v) ** 2)


class QIF:
    """v' = v + dt (a v^2 - leak v) + I, a spike where v > peak, and v = 0 after it."""

    def __init__(self, a=0.1, leak=0.3, dt=0.5, peak=1.0):
        self.a, self.leak, self.dt, self.peak = a, leak, dt, peak

    def init(self, shape):
        return QIFState(jnp.zeros(shape))

    def step(self, state, current, key=None):
        v = state.v + self.dt * (self.a * state.v**2 - self.leak * state.v) + current
        v = jnp.clip(v, -3, 3)
        spikes = fire(v - self.peak)
        return QIFState(v * (1 - jax.lax.stop_gradient(spikes))), spikes


class PricedQIF(QIF):
    """The same, which says what an update costs."""

    def cost(self):
        return NeuronCost(macs=3, acs=1, compares=1, states=1)
