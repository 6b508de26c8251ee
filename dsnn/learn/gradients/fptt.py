"""Forward propagation through time: an update every few steps, memory constant in the length of the sequence."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dsnn.learn.gradients.windows import over_windows
from dsnn.simulate.scan import scan
from dsnn.types import Array, Float, Int, Key


@dataclasses.dataclass(frozen=True)
class FPTT:
    """Settings of forward propagation through time.

    Attributes:
        window: time steps between updates, K; gradients flow within them only.
        alpha: strength of the pull to the running average of the parameters, positive.
        beta: share of the new parameters in that average, in (0, 1].
    """

    window: int = 1
    alpha: float = 0.1
    beta: float = 0.5

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"window must be at least 1 step, got {self.window}.")
        if self.alpha <= 0:
            raise ValueError(f"alpha must be positive, got {self.alpha}.")
        if not 0 < self.beta <= 1:
            raise ValueError(f"beta must be in (0, 1], got {self.beta}.")


class FPTTState(NamedTuple):
    """Parameters, their running average, the running estimate of the loss gradient, optimiser, and updates done."""

    params: Any
    average: Any
    slope: Any
    opt_state: Any
    step: Int[Array, ""]


def fptt(
    build: Callable[[Any], Any],
    loss: Callable[[Array, Array, Array], Float[Array, " batch"]],
    tx: optax.GradientTransformation,
    config: FPTT,
) -> tuple[Callable[[Any], FPTTState], Callable[..., tuple[FPTTState, Float[Array, ""]]]]:
    """Returns (init, step) of forward propagation through time (Kag and Saligrama 2021, algorithm 1; Yin et al. 2023).

    Over one sequence the parameters W are updated after every K steps on

        l(W) + alpha/2 |W - A|^2 - <W, S>

    by the optimiser, and then S <- S - alpha (W - A), A <- (1 - beta) A + beta (W - S / alpha). At the minimum of that
    objective S is the gradient of l, so the pull to A keeps what earlier parts of the sequence have learned. The state
    of the neurons goes on from window to window, and so do A and S from batch to batch.

    Args:
        build: parameters -> network, such as `Template.build`.
        loss: (output of one step ``[batch, ...]``, index of the step, labels) -> loss per example, such as
            (t+1)/T of the final loss and the rest of a guess (Yin et al. 2023, eq. 12).
        tx: Optax optimiser.
        config: window, alpha, beta.

    Returns:
        ``init(params) -> state`` and ``step(state, xs, labels, key=None) -> (state, loss)`` with the loss summed over
        time, mean over the batch; a key is consumed, None is the deterministic network.
    """
    alpha, beta = config.alpha, config.beta

    def init(params: Any) -> FPTTState:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return FPTTState(params, params, zeros, tx.init(params), jnp.zeros((), jnp.int32))

    def run(params: Any, state: Any, times: Array, piece: Array, labels: Array, key: Any) -> tuple[Array, Any]:
        model = build(params)

        def body(state: Any, inputs: Any) -> tuple[Any, Array]:
            t, x = inputs
            state, out = model.step(state, x, None if key is None else jax.random.fold_in(key, t))
            return state, loss(out, t, labels).mean()

        state, losses = scan(body, state, (times, piece), len(times))
        return losses.sum(), state

    def update(learned: FPTTState, neurons: Any, times: Array, piece: Array, labels: Array, key: Any) -> Any:
        (value, neurons), grads = jax.value_and_grad(run, has_aux=True)(
            learned.params, neurons, times, piece, labels, key
        )
        params, average, slope = learned.params, learned.average, learned.slope
        grads = jax.tree.map(lambda g, w, a, s: g + alpha * (w - a) - s, grads, params, average, slope)
        updates, opt_state = tx.update(grads, learned.opt_state, params)
        params = optax.apply_updates(params, updates)
        slope = jax.tree.map(lambda s, w, a: s - alpha * (w - a), slope, params, average)
        average = jax.tree.map(lambda a, w, s: (1 - beta) * a + beta * (w - s / alpha), average, params, slope)
        return FPTTState(params, average, slope, opt_state, learned.step + 1), neurons, value

    def step(
        learned: FPTTState, xs: Float[Array, "time batch ..."], labels: Array, key: Key[Array, ""] | None = None
    ) -> tuple[FPTTState, Float[Array, ""]]:
        def body(carry: Any, times: Array, piece: Array) -> tuple[Any, Array]:
            learned, neurons = carry
            learned, neurons, value = update(learned, neurons, times, piece, labels, key)
            return (learned, neurons), value

        neurons = build(learned.params).init(xs.shape[1:2])
        (learned, _), values = over_windows(body, (learned, neurons), xs, config.window)
        return learned, values.sum()

    return init, step
