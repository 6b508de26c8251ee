"""Sign descent: every weight moves by one rate along the sign of its gradient."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dsnn import rng


class State(NamedTuple):
    params: dict
    step: jax.Array


class SignDescent:
    def __init__(self, problem, rate=0.01):
        self.problem, self.rate = problem, rate

    def init(self):
        return State(dict(self.problem.params), jnp.zeros((), jnp.int32))

    def step(self, state, batch):
        def loss(params):
            key = rng.stream(self.problem.root, "noise", state.step)
            logits = self.problem.simulator.logits(params, batch.x, key)
            return -self.problem.likelihood.of_sequence({}, logits, batch.y).mean()

        value, slope = jax.value_and_grad(loss)(state.params)
        new = {name: state.params[name] - self.rate * jnp.sign(slope[name]) for name in state.params}
        return State(new, state.step + 1), {"loss": value}

    def params(self, state):
        return state.params


def momentum(learning_rate, decay=0.9):
    import optax

    return optax.sgd(learning_rate, momentum=decay)
