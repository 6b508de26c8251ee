"""The exact gradient of an expected loss, by summing over every spike train: the oracle for tiny networks."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.cells.firing import intervene
from dsnn.types import Array, Float

MOST_SPIKES = 16


def exact_gradient(
    build: Callable[[Any], Any],
    params: Any,
    xs: Float[Array, "time batch ..."],
    loss: Callable[[Array], Float[Array, " batch"]],
) -> tuple[Float[Array, ""], Any]:
    """Returns E[loss] over all spike trains and its gradient, mean over the batch.

    Args:
        build: parameters -> `Stack`, such as `Template.build`; cells that fire have an escape noise.
        params: where the gradient is taken.
        xs: inputs.
        loss: outputs ``[time, batch, ...]`` -> loss per example.

    Raises:
        ValueError: more than `MOST_SPIKES` possible spikes (time steps times neurons).
    """
    steps, batch = xs.shape[:2]
    shapes: list[tuple[int, ...]] = []

    def note(noise: Any, u: Array, spikes: Array) -> Array:
        shapes.append(u.shape[1:])
        return spikes

    with intervene(note):
        model = build(params)
        jax.eval_shape(lambda x: model.step(model.init((batch,)), x)[1], xs[0])
    per_step = sum(math.prod(shape) for shape in shapes)
    total = steps * per_step
    if total > MOST_SPIKES:
        raise ValueError(
            f"enumeration takes at most {MOST_SPIKES} possible spikes, got {total} ({steps} steps x {per_step} "
            "neurons); take a smaller network."
        )
    trains = (np.arange(2**total)[:, None] >> np.arange(total)) & 1

    def expected(params: Any) -> Array:
        model = build(params)

        def weighed(train: Array) -> Array:
            """Returns P(train) and the loss under it, in one number per example."""
            position, log_prob = 0, jnp.zeros(batch)

            def force(noise: Any, u: Array, spikes: Array) -> Array:
                nonlocal position, log_prob
                size = math.prod(u.shape[1:])
                forced = jnp.broadcast_to(train[position : position + size].reshape(u.shape[1:]), u.shape)
                position += size
                log_prob = log_prob + noise.log_prob(u, forced).reshape(batch, -1).sum(1)
                return forced

            state, outputs = model.init((batch,)), []
            with intervene(force):
                for x in xs:
                    state, out = model.step(state, x)
                    outputs.append(out)
            return jnp.exp(log_prob) * loss(jnp.stack(outputs))

        return jax.vmap(weighed)(jnp.asarray(trains, xs.dtype)).sum(0).mean()

    return jax.value_and_grad(expected)(params)
