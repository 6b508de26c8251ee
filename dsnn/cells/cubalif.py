"""Current-based leaky integrate-and-fire: a synapse with memory before the membrane."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from dsnn.cells.decay import per_step, scaled, set_decay, set_time
from dsnn.cells.membrane import at_rest, integrate_and_fire, set_membrane
from dsnn.cells.rounding import rounded
from dsnn.escape.parameters import check_learnable, value
from dsnn.surrogate import Surrogate
from dsnn.types import Array, Float, Key


class CuBaLIFState(NamedTuple):
    """Membrane and synaptic current; the other fields are None unless an option of the cell needs them."""

    membrane: Float[Array, "*batch neuron"]
    current: Float[Array, "*batch neuron"]
    spikes: Float[Array, "*batch neuron"] | None = None
    refractory: Float[Array, "*batch neuron"] | None = None
    shift: Float[Array, "*batch neuron"] | None = None


class CuBaLIF(nnx.Module):
    """Current-based leaky integrate-and-fire (snnTorch Synaptic, Norse LIF, NIR CubaLIF).

        i = alpha i + I,   u' = beta u + k i,   s = fire(u' - threshold),   u = reset(u', s)

    with reset_timing="same"; "next" as in `LIF`.

    Args:
        beta: membrane decay per step in [0, 1]; 0.9 if neither beta nor tau is given.
        alpha: synaptic decay per step in [0, 1]; 0.8 if neither alpha nor tau_syn is given.
        tau: membrane time constant in ms, in place of beta.
        tau_syn: synaptic time constant in ms, in place of alpha.
        dt: length of a step in ms.
        method: decay = exp(-dt/tau) ("exp") or 1 - dt/tau ("euler").
        threshold: positive.
        reset: "subtract", "zero", "none" or a membrane value.
        reset_timing: "same" step or "next" step.
        refractory: time in ms after a spike during which the membrane holds and no spike is possible, a multiple of dt;
            infinite (``math.inf``) is a neuron that fires at most once, whose membrane goes on without a reset.
        rest: membrane without input; the first state is there.
        compare: ">" or ">=".
        input_scale: k = 1 ("one"), 1 - beta ("decay"), dt/tau ("dt_over_tau") or a number.
        surrogate: name or `dsnn.surrogate.Surrogate`; None is "atan", or the density of the noise.
        noise: None or one of `dsnn.escape`.
        learnable: names among alpha, beta, tau, tau_syn, threshold.
        shape: shape of the learnable parameters, () shared or (neurons,).
        detach_reset: whether gradients stop at the spike that resets.

    Raises:
        ValueError: a value out of range, an unknown option, or options that exclude each other.
    """

    alpha: Any
    beta: Any
    tau: Any
    tau_syn: Any
    threshold: Any

    def __init__(
        self,
        beta: Any = None,
        alpha: Any = None,
        *,
        tau: Any = None,
        tau_syn: Any = None,
        dt: float | int = 1.0,
        method: str = "exp",
        threshold: Any = 1.0,
        reset: Any = "subtract",
        reset_timing: str = "same",
        refractory: float | int = 0.0,
        rest: Any = 0.0,
        compare: str = ">",
        input_scale: Any = "one",
        surrogate: str | Surrogate | None = None,
        noise: Any = None,
        learnable: Sequence[str] = (),
        shape: Sequence[int] = (),
        detach_reset: bool = False,
    ):
        check_learnable(learnable, ("alpha", "beta", "tau", "tau_syn", "threshold"))
        set_time(self, dt, method, input_scale, tau)
        set_decay(self, ("beta", "tau"), (beta, tau), 0.9, learnable, shape)
        set_decay(self, ("alpha", "tau_syn"), (alpha, tau_syn), 0.8, learnable, shape)
        set_membrane(
            self,
            threshold=threshold,
            rest=rest,
            reset=reset,
            reset_timing=reset_timing,
            refractory=refractory,
            compare=compare,
            surrogate=surrogate,
            noise=noise,
            detach_reset=detach_reset,
            learnable=learnable,
            shape=shape,
        )

    def init(self, batch_shape: tuple[int, ...]) -> CuBaLIFState:
        """Returns the resting state for currents of shape ``batch_shape``."""
        return CuBaLIFState(current=jnp.zeros(batch_shape), **at_rest(self, batch_shape))

    def step(
        self, state: CuBaLIFState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[CuBaLIFState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the spikes; a key is consumed, None is the deterministic neuron."""
        beta = per_step(self)
        synaptic = rounded(per_step(self, "alpha", "tau_syn") * state.current) + current
        drive = scaled(self, synaptic, beta)
        state, spikes = integrate_and_fire(self, state, drive, beta, value(self.threshold), key)
        return state._replace(current=synaptic), spikes
