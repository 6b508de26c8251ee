"""Leaky and perfect integrate-and-fire neurons."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from flax import nnx

from dsnn.cells.decay import per_step, scaled, set_decay, set_time
from dsnn.cells.membrane import at_rest, integrate_and_fire, set_membrane
from dsnn.escape.parameters import check_learnable, value
from dsnn.surrogate import Surrogate
from dsnn.types import Array, Float, Key


class LIFState(NamedTuple):
    """Membrane; the other fields are None unless an option of the cell needs them."""

    membrane: Float[Array, "*batch neuron"]
    spikes: Float[Array, "*batch neuron"] | None = None
    refractory: Float[Array, "*batch neuron"] | None = None
    shift: Float[Array, "*batch neuron"] | None = None


class LIF(nnx.Module):
    """Leaky integrate-and-fire neuron (Gerstner et al. 2014, eq. 1.5 and 5.6).

    In step order, with reset_timing="same":

        u' = beta u + k I,   s = fire(u' - threshold),   u = reset(u', s)

    and with reset_timing="next" (the membrane seen outside is the one that spiked):

        u = reset(beta u, s) + k I,   s = fire(u - threshold)

    where reset is u - threshold s ("subtract"), 0 where s ("zero"), u ("none") or a value where s; under "next" the
    subtraction follows the decay, and "zero" or a value replaces the membrane before it decays, as in snnTorch.

    Args:
        beta: decay per step in [0, 1]; 0.9 if neither beta nor tau is given.
        tau: membrane time constant in ms, in place of beta.
        dt: length of a step in ms.
        method: beta = exp(-dt/tau) ("exp", exact between inputs) or 1 - dt/tau ("euler").
        threshold: positive.
        reset: "subtract", "zero", "none" or a membrane value.
        reset_timing: "same" step or "next" step.
        refractory: time in ms after a spike during which the membrane holds and no spike is possible, a multiple of dt;
            infinite (``math.inf``) is a neuron that fires at most once, whose membrane goes on without a reset.
        rest: membrane without input; the first state is there.
        compare: ">" or ">=", whether a membrane at the threshold spikes.
        input_scale: k = 1 ("one"), 1 - beta ("decay"), dt/tau ("dt_over_tau") or a number.
        surrogate: name or `dsnn.surrogate.Surrogate`; None is "atan", or the density of the noise.
        noise: None or one of `dsnn.escape`.
        learnable: names among beta, tau, threshold.
        shape: shape of the learnable parameters, () shared or (neurons,).
        detach_reset: whether gradients stop at the spike that resets.

    Raises:
        ValueError: a value out of range, an unknown option, or options that exclude each other.
    """

    beta: Any
    tau: Any
    threshold: Any

    def __init__(
        self,
        beta: Any = None,
        *,
        tau: Any = None,
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
        check_learnable(learnable, ("beta", "tau", "threshold"))
        set_time(self, dt, method, input_scale, tau)
        set_decay(self, ("beta", "tau"), (beta, tau), 0.9, learnable, shape)
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

    def init(self, batch_shape: tuple[int, ...]) -> LIFState:
        """Returns the resting state for currents of shape ``batch_shape``."""
        return LIFState(**at_rest(self, batch_shape))

    def step(
        self, state: LIFState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[LIFState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the spikes; a key is consumed, None is the deterministic neuron."""
        beta = per_step(self)
        drive = scaled(self, current, beta)
        return integrate_and_fire(self, state, drive, beta, value(self.threshold), key)


def IF(**options: Any) -> LIF:
    """Returns the perfect integrator, an `LIF` with beta = 1: u' = u + k I (Lapicque 1907); options as there."""
    return LIF(1.0, **options)


def own_kind(cell: Any) -> str:
    """Returns what a cell is called where its updates are counted: its class, or "IF" for an `LIF` that never leaks."""
    name = type(cell).__name__
    perfect = name == "LIF" and isinstance(cell.beta, int | float) and cell.beta == 1
    return "IF" if perfect else name


def PLIF(beta: Any = 0.5, **options: Any) -> LIF:
    """Returns an `LIF` with a learnable decay, the parametric LIF of Fang et al. 2021.

        u' = beta u + (1 - beta) I,   s = fire(u' - 1),   u = 0 where s

    Their 1/tau = sigmoid(w) is 1 - beta; beta is an `nnx.Param` on the unit interval, which a learner moves through
    the same sigmoid. Their defaults are tau = 2 steps (beta = 1/2), a decaying input, ">=" and a reset to zero; any
    option of `LIF` may be given instead.

    Args:
        beta: first decay per step, in (0, 1).
        **options: of `LIF`.
    """
    fang = {"learnable": ("beta",), "input_scale": "decay", "reset": "zero", "compare": ">="}
    return LIF(beta, **(fang | options))
