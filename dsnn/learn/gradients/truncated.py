"""Truncated backpropagation through time: gradients stop at the border of a window, memory is one window's."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dsnn.learn.gradients.windows import over_windows
from dsnn.simulate.scan import scan
from dsnn.types import Array, Float, Key


def truncated_gradient(
    build: Callable[[Any], Any],
    params: Any,
    xs: Float[Array, "time batch ..."],
    loss: Callable[[Array, Array], Float[Array, " batch"]],
    window: int,
    key: Key[Array, ""] | None = None,
) -> tuple[Float[Array, ""], Any]:
    """Returns the loss summed over time, mean over the batch, and its truncated gradient (Williams and Peng 1990).

    Within a window gradients flow through time; the state that a window begins with counts as a constant. With a
    window of all steps this is full backpropagation through time. Memory grows with the window, not with time.

    Args:
        build: parameters -> network, such as `Template.build`.
        params: where the gradient is taken.
        xs: inputs.
        loss: (output of one step ``[batch, ...]``, index of the step) -> loss per example.
        window: number of steps.
        key: drives the firing and is consumed; None is the deterministic network.

    Raises:
        ValueError: the window is not positive.
    """

    def run(params: Any, state: Any, times: Array, piece: Array) -> tuple[Array, Any]:
        model = build(params)

        def body(state: Any, inputs: Any) -> tuple[Any, Array]:
            t, x = inputs
            state, out = model.step(state, x, None if key is None else jax.random.fold_in(key, t))
            return state, loss(out, t).mean()

        state, losses = scan(body, state, (times, piece), len(times))
        return losses.sum(), state

    def add(carry: Any, times: Array, piece: Array) -> tuple[Any, None]:
        state, value, grads = carry
        (extra, state), more = jax.value_and_grad(run, has_aux=True)(params, state, times, piece)
        return (state, value + extra, jax.tree.map(jnp.add, grads, more)), None

    model = build(params)
    start = model.init(xs.shape[1:2] if hasattr(model, "in_shape") else xs.shape[1:])
    (_, value, grads), _ = over_windows(add, (start, jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)), xs, window)
    return value, grads
