"""Adaptive leaky integrate-and-fire: each spike raises the threshold for a while."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from dsnn.cells.decay import per_step, scaled, set_decay, set_time
from dsnn.cells.membrane import at_rest, integrate_and_fire, set_membrane
from dsnn.cells.rounding import rounded
from dsnn.escape.parameters import check_learnable, parameter, value
from dsnn.surrogate import Surrogate
from dsnn.types import Array, Float, Key


class ALIFState(NamedTuple):
    """Membrane and adaptation; the other fields are None unless an option of the cell needs them."""

    membrane: Float[Array, "*batch neuron"]
    adaptation: Float[Array, "*batch neuron"]
    spikes: Float[Array, "*batch neuron"] | None = None
    refractory: Float[Array, "*batch neuron"] | None = None
    shift: Float[Array, "*batch neuron"] | None = None


class ALIF(nnx.Module):
    """Adaptive leaky integrate-and-fire (Bellec et al. 2018; Yin et al. 2021).

        theta = threshold + strength a
        u' = beta u + k I,   s = fire(u' - theta),   u = reset(u', s),   a = rho a + (1 - rho) s

    with reset_timing="same"; a subtracting reset takes off theta. Yin et al. use reset_timing="next",
    input_scale="decay", threshold=0.01, strength=1.8 and surrogate="multi_gaussian"; the membrane then loses the theta
    of the step in which the reset happens.

    Args:
        beta: membrane decay per step in [0, 1]; 0.9 if neither beta nor tau is given.
        rho: adaptation decay per step in [0, 1]; 0.97 if neither rho nor tau_adp is given.
        tau: membrane time constant in ms, in place of beta.
        tau_adp: adaptation time constant in ms, in place of rho.
        strength: by how much the threshold rises per unit of adaptation, any real number (0 is an `LIF`).
        dt: length of a step in ms.
        method: decay = exp(-dt/tau) ("exp") or 1 - dt/tau ("euler").
        threshold: at rest, positive.
        reset: "subtract", "zero", "none" or a membrane value.
        reset_timing: "same" step or "next" step.
        refractory: time in ms after a spike during which the membrane holds and no spike is possible, a multiple of dt;
            infinite (``math.inf``) is a neuron that fires at most once, whose membrane goes on without a reset.
        rest: membrane without input; the first state is there.
        compare: ">" or ">=".
        input_scale: k = 1 ("one"), 1 - beta ("decay"), dt/tau ("dt_over_tau") or a number.
        surrogate: name or `dsnn.surrogate.Surrogate`; None is "atan", or the density of the noise.
        noise: None or one of `dsnn.escape`.
        learnable: names among beta, rho, strength, tau, tau_adp, threshold.
        shape: shape of the learnable parameters, () shared or (neurons,).
        detach_reset: whether gradients stop at the spike that resets.

    Raises:
        ValueError: a value out of range, an unknown option, or options that exclude each other.
    """

    beta: Any
    rho: Any
    tau: Any
    tau_adp: Any
    threshold: Any

    def __init__(
        self,
        beta: Any = None,
        rho: Any = None,
        *,
        tau: Any = None,
        tau_adp: Any = None,
        strength: Any = 1.8,
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
        check_learnable(learnable, ("beta", "rho", "strength", "tau", "tau_adp", "threshold"))
        set_time(self, dt, method, input_scale, tau)
        set_decay(self, ("beta", "tau"), (beta, tau), 0.9, learnable, shape)
        set_decay(self, ("rho", "tau_adp"), (rho, tau_adp), 0.97, learnable, shape)
        self.strength = parameter("strength", strength, "real", learnable="strength" in learnable, shape=shape)
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

    def init(self, batch_shape: tuple[int, ...]) -> ALIFState:
        """Returns the resting state for currents of shape ``batch_shape``."""
        return ALIFState(adaptation=jnp.zeros(batch_shape), **at_rest(self, batch_shape))

    def step(
        self, state: ALIFState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[ALIFState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the spikes; a key is consumed, None is the deterministic neuron."""
        beta, rho = per_step(self), per_step(self, "rho", "tau_adp")
        threshold = value(self.threshold) + rounded(value(self.strength) * state.adaptation)
        drive = scaled(self, current, beta)
        state, spikes = integrate_and_fire(self, state, drive, beta, threshold, key)
        return state._replace(adaptation=rounded(rho * state.adaptation) + (1 - rho) * spikes), spikes
