"""snnTorch 1.0.0: Leaky and Synaptic. The reset is found from the previous membrane and is not differentiated."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from dsnn.cells.cubalif import CuBaLIF
from dsnn.cells.lif import LIF
from dsnn.cells.presets.unsupported import refuse
from dsnn.cells.rounding import rounded
from dsnn.escape.parameters import check_choice, parameter, value
from dsnn.surrogate import Surrogate, get, heaviside
from dsnn.types import Array, Float, Key

RESETS = ("subtract", "zero", "none")


def leaky(
    beta: Any,
    threshold: Any = 1.0,
    spike_grad: str | Surrogate = "atan",
    surrogate_disable: bool = False,
    init_hidden: bool = False,
    inhibition: bool = False,
    learn_beta: bool = False,
    learn_threshold: bool = False,
    reset_mechanism: str = "subtract",
    state_quant: bool = False,
    output: bool = False,
    graded_spikes_factor: float | int = 1.0,
    learn_graded_spikes_factor: bool = False,
    reset_delay: bool = True,
) -> Any:
    """Returns Leaky: r = H(v - theta), v = beta v + x - r theta, s = H(v - theta).

    With "zero" v = beta (1 - r) v + x: the input of the step in which the reset happens is kept, unlike what its
    docstring says. With ``reset_delay=False`` also v = v - (s - r) theta, or v - (s - r) v.
    """
    del init_hidden, output
    refuse(
        "snntorch.Leaky",
        surrogate_disable=(surrogate_disable, False),
        inhibition=(inhibition, False),
        state_quant=(state_quant, False),
        graded_spikes_factor=(graded_spikes_factor, 1.0),
        learn_graded_spikes_factor=(learn_graded_spikes_factor, False),
    )
    check_choice("reset_mechanism", reset_mechanism, RESETS)
    learnable = ("beta",) * learn_beta + ("threshold",) * learn_threshold
    if not reset_delay:
        return Prompt(beta, None, threshold, spike_grad, reset_mechanism, learnable)
    return LIF(
        beta,
        threshold=threshold,
        reset=reset_mechanism,
        reset_timing="next",
        surrogate=spike_grad,
        learnable=learnable,
        detach_reset=True,
    )


def synaptic(
    alpha: Any,
    beta: Any,
    threshold: Any = 1.0,
    spike_grad: str | Surrogate = "atan",
    surrogate_disable: bool = False,
    init_hidden: bool = False,
    inhibition: bool = False,
    learn_alpha: bool = False,
    learn_beta: bool = False,
    learn_threshold: bool = False,
    reset_mechanism: str = "subtract",
    state_quant: bool = False,
    output: bool = False,
    reset_delay: bool = True,
) -> Any:
    """Returns Synaptic: r = H(v - theta), i = alpha i + x, v = beta v + i - r theta, s = H(v - theta).

    With "zero" v = (1 - r) (beta v + i): here the input of that step is dropped from the membrane, though not from i.
    ``reset_delay`` as in Leaky.
    """
    del init_hidden, output
    refuse(
        "snntorch.Synaptic",
        surrogate_disable=(surrogate_disable, False),
        inhibition=(inhibition, False),
        state_quant=(state_quant, False),
    )
    check_choice("reset_mechanism", reset_mechanism, RESETS)
    learnable = ("alpha",) * learn_alpha + ("beta",) * learn_beta + ("threshold",) * learn_threshold
    if not reset_delay or reset_mechanism == "zero":
        return Prompt(beta, alpha, threshold, spike_grad, reset_mechanism, learnable, prompt=not reset_delay)
    return CuBaLIF(
        beta,
        alpha,
        threshold=threshold,
        reset=reset_mechanism,
        reset_timing="next",
        surrogate=spike_grad,
        learnable=learnable,
        detach_reset=True,
    )


class PromptState(NamedTuple):
    """Membrane, and the synaptic current of Synaptic (else None)."""

    membrane: Float[Array, "*batch neuron"]
    current: Float[Array, "*batch neuron"] | None = None


class Prompt(nnx.Module):
    """snnTorch's neurons with ``reset_delay=False``, and Synaptic with a reset to zero.

        r = H(v - theta),   v' = reset(beta v + i, r),   s = H(v' - theta),   v = reset(v', s - r)

    The last update only if ``prompt``. A membrane that is still above the threshold after its reset is reset again
    by r in the next step, and where that step does not spike, s - r = -1 gives the threshold back.
    """

    def __init__(
        self,
        beta: Any,
        alpha: Any,
        threshold: Any,
        surrogate: str | Surrogate,
        reset: str,
        learnable: Sequence[str],
        prompt: bool = True,
    ):
        self.beta = parameter("beta", beta, "unit_interval", learnable="beta" in learnable)
        self.alpha = (
            None if alpha is None else parameter("alpha", alpha, "unit_interval", learnable="alpha" in learnable)
        )
        self.threshold = parameter("threshold", threshold, "positive", learnable="threshold" in learnable)
        self.surrogate, self.noise = get(surrogate), None
        self.reset, self.prompt = reset, prompt

    def init(self, batch_shape: tuple[int, ...]) -> PromptState:
        """Returns the resting state for currents of shape ``batch_shape``."""
        return PromptState(jnp.zeros(batch_shape), None if self.alpha is None else jnp.zeros(batch_shape))

    def step(
        self, state: PromptState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[PromptState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the spikes; a key is accepted and not used."""
        del key
        beta, threshold = value(self.beta), value(self.threshold)
        before = jax.lax.stop_gradient(heaviside(state.membrane - threshold, self.surrogate))
        synaptic = None if self.alpha is None else rounded(value(self.alpha) * state.current) + current
        drive = current if synaptic is None else synaptic
        match self.reset:
            case "subtract":
                membrane = rounded(beta * state.membrane) + drive - before * threshold
            case "zero" if self.alpha is None:
                membrane = rounded(beta * ((1 - before) * state.membrane)) + drive
            case "zero":
                base = rounded(beta * state.membrane) + drive
                membrane = base - base * before
            case _:
                membrane = rounded(beta * state.membrane) + drive
        spikes = heaviside(membrane - threshold, self.surrogate)
        if self.prompt and self.reset == "subtract":
            membrane = membrane - (spikes - before) * threshold
        elif self.prompt and self.reset == "zero":
            membrane = membrane - (spikes - before) * membrane
        return PromptState(membrane, synaptic), spikes
