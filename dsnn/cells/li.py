"""The leaky integrator: a readout that never fires."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from dsnn.cells.decay import per_step, scaled, set_decay, set_time
from dsnn.cells.rounding import rounded
from dsnn.escape.parameters import check_learnable
from dsnn.types import Array, Float, Key


class LIState(NamedTuple):
    """Membrane."""

    membrane: Float[Array, "*batch neuron"]


class LI(nnx.Module):
    """Leaky integrator, u = beta u + k I, whose output is its membrane; beta = 1 sums its input.

    Args:
        beta: decay per step in [0, 1]; 0.9 if neither beta nor tau is given.
        tau: time constant in ms, in place of beta.
        dt: length of a step in ms.
        method: beta = exp(-dt/tau) ("exp") or 1 - dt/tau ("euler").
        input_scale: k = 1 ("one"), 1 - beta ("decay"), dt/tau ("dt_over_tau") or a number.
        learnable: names among beta, tau.
        shape: shape of the learnable parameters, () shared or (neurons,).

    Raises:
        ValueError: a value out of range or an unknown option.
    """

    beta: Any
    tau: Any

    def __init__(
        self,
        beta: Any = None,
        *,
        tau: Any = None,
        dt: float | int = 1.0,
        method: str = "exp",
        input_scale: Any = "one",
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
    ):
        check_learnable(learnable, ("beta", "tau"))
        set_time(self, dt, method, input_scale, tau)
        set_decay(self, ("beta", "tau"), (beta, tau), 0.9, learnable, shape)

    def init(self, batch_shape: tuple[int, ...]) -> LIState:
        """Returns the resting state for currents of shape ``batch_shape``."""
        return LIState(jnp.zeros(batch_shape))

    def step(
        self, state: LIState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[LIState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the membrane; a key is accepted and not used."""
        del key
        beta = per_step(self)
        membrane = rounded(beta * state.membrane) + scaled(self, current, beta)
        return LIState(membrane), membrane
