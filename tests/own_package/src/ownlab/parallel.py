"""Neurons that see all time steps at once, and a norm over time: networks that have no step, and one that has both."""

import jax
import jax.numpy as jnp
from flax import nnx

from dsnn.protocols import Output


class Together(nnx.Module):
    """Parallel spiking neurons (Fang et al. 2023, "PSN"): h = W x over time, s = H(h - b), under a mean readout."""

    def __init__(self, in_shape, classes, *, key, width=8, steps=4):
        first, over, last = jax.random.split(key, 3)
        self.in_shape, self.out_shape = tuple(in_shape), (classes,)
        self.first = nnx.Param(jax.random.normal(first, (in_shape[0], width)) / in_shape[0] ** 0.5)
        self.over = nnx.Param(jnp.eye(steps) + 0.1 * jax.random.normal(over, (steps, steps)))
        self.last = nnx.Param(jax.random.normal(last, (width, classes)) / width**0.5)

    def init(self, batch):
        return ()

    def sequence(self, state, xs, keys=None, *, running=None):
        membrane = jnp.einsum("ts,sbn->tbn", self.over[...], xs.reshape(*xs.shape[:2], -1) @ self.first[...])
        spikes = jax.nn.sigmoid(4 * (membrane - 1))
        spikes = spikes + jax.lax.stop_gradient((membrane > 1) - spikes)
        return state, Output(spikes @ self.last[...])


class Either(nnx.Module):
    """A noisy leaky integrator of products, by steps and all at once."""

    def __init__(self, in_shape, classes, *, key, beta=0.75):
        self.in_shape, self.out_shape, self.beta = tuple(in_shape), (classes,), beta
        self.kernel = nnx.Param(jax.random.normal(key, (in_shape[0], classes)))

    def init(self, batch):
        return jnp.zeros((batch, self.out_shape[0]))

    def step(self, state, x, key=None):
        noise = 0.0 if key is None else jax.random.normal(key, state.shape)
        state = self.beta * state + x @ self.kernel[...] + noise
        return state, Output(state, {"in": x})

    def sequence(self, state, xs, keys=None, *, running=None):
        currents = xs @ self.kernel[...]
        if keys is not None:
            currents = currents + jax.vmap(lambda key: jax.random.normal(key, currents.shape[1:]))(keys)
        share = jnp.ones(len(xs)) if running is None else running

        def body(state, given):
            current, share = given
            new = self.beta * state + current
            return share * new + (1 - share) * state, new

        state, outputs = jax.lax.scan(body, state, (currents, share))
        return state, Output(outputs, {"in": xs})
