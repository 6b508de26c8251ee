"""Parallel spiking neurons: no reset, and a membrane that is a learned sum of the currents of all steps or of the last.

Without a reset nothing of one step waits for the spikes of the one before, so that all membranes are one product
(``sequence``). `MaskedPSN` and `SlidingPSN` see the past alone and run step by step too, with the last currents in
their state; `PSN` sees the whole sequence and does not.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from dsnn.cells.firing import fire, set_spike
from dsnn.energy import NeuronCost
from dsnn.escape import ThresholdJitter
from dsnn.escape.parameters import value
from dsnn.surrogate import Surrogate
from dsnn.types import Array, Float, Int, Key

__all__ = ["PSN", "MaskedPSN", "PSNState", "SlidingPSN"]


class PSNState(NamedTuple):
    """Membrane; the last currents, oldest first, and the number of the next step, of neurons that step."""

    membrane: Float[Array, "..."]
    past: tuple[Float[Array, "..."], ...] = ()
    step: Int[Array, "..."] | None = None


class PSN(nnx.Module):
    """Parallel spiking neuron (PSN; Fang et al. 2023, NeurIPS, eq. 8 and 9).

        H = W X,   S = fire(H - threshold)

    with the currents X and the membranes H of all T steps. W ``[T, T]`` and the threshold ``[T]`` are learned, and
    shared by the neurons of a layer; W begins uniform in +-1 / sqrt(T), the threshold at 1, as in their program. A step
    sees later currents, so that it runs whole sequences of exactly T steps, by layers, and no example stops early.

    Priced as T multiply-accumulates and a comparison for each neuron and step, with T currents held.

    Args:
        steps: T.
        key: draws W; consumed.
        threshold: first threshold of every step.
        compare: ">=" (theirs) or ">".
        surrogate: name or `dsnn.surrogate.Surrogate`; None is "atan", or the density of the noise.
        noise: None or one of `dsnn.escape`, but no threshold jitter.

    Raises:
        ValueError: a value out of range or an unknown option.
    """

    at_once = True
    shared = True

    def __init__(
        self,
        steps: int,
        *,
        key: Key[Array, ""],
        threshold: float | int = 1.0,
        compare: str = ">=",
        surrogate: str | Surrogate | None = None,
        noise: Any = None,
    ):
        _begin(self, compare, surrogate, noise, steps=steps)
        bound = 1 / math.sqrt(steps)
        self.weight = nnx.Param(jax.random.uniform(key, (steps, steps), minval=-bound, maxval=bound))
        self.threshold = nnx.Param(jnp.full((steps, 1), float(threshold)))

    @property
    def steps(self) -> int:
        """Number of time steps."""
        return int(self.weight.shape[0])

    def init(self, batch_shape: tuple[int, ...]) -> PSNState:
        """Returns the state before the first step, which it takes no notice of."""
        return PSNState(jnp.zeros(batch_shape))

    def step(
        self, state: PSNState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[PSNState, Float[Array, "*batch neuron"]]:
        """Raises a ValueError: a step needs the currents of all others."""
        raise ValueError(
            'a PSN needs the currents of all its steps at once, which schedule="layer" with memory="full" has, without '
            "recurrent wiring or steps that are skipped, got a single step; take MaskedPSN or SlidingPSN, which step."
        )

    def sequence(
        self, state: PSNState, currents: Float[Array, "time *batch neuron"], keys: Key[Array, " time"] | None = None
    ) -> tuple[PSNState, Float[Array, "time *batch neuron"]]:
        """Returns the states after every step and the spikes; keys are consumed, None is the deterministic neuron.

        Raises:
            ValueError: another number of steps.
        """
        if len(currents) != self.steps:
            raise ValueError(f"a PSN must run as many steps as it has weights for, {self.steps}, got {len(currents)}.")
        membranes = jnp.tensordot(self.weight[...], currents, 1)
        return PSNState(membranes), _fired(self, membranes, self.threshold[...], keys)

    def cost(self) -> NeuronCost:
        """Returns the operations of one update."""
        return NeuronCost(macs=self.steps, acs=0, compares=1, states=self.steps)


class MaskedPSN(nnx.Module):
    """Masked parallel spiking neuron (Fang et al. 2023, eq. 10 and 11): a `PSN` that sees the last k currents alone.

        H_t = sum over i < k of W_(t, i) X_(t - k + 1 + i),   s_t = fire(H_t - threshold_t)

    W ``[T, k]`` holds the k entries of each row that their mask leaves, oldest first; currents from before the first
    step are zero. The mask holds from the start: their gradual masking is not here. W begins uniform in +-1 / sqrt(T),
    the threshold ``[T]`` at 1.

    Priced as k multiply-accumulates and a comparison for each neuron and step, with k - 1 currents held.

    Args:
        steps: T; a network runs no more of them.
        order: k, from 1 to T; None is T.
        key: draws W; consumed.
        threshold: first threshold of every step.
        compare: ">=" (theirs) or ">".
        surrogate: name or `dsnn.surrogate.Surrogate`; None is "atan", or the density of the noise.
        noise: None or one of `dsnn.escape`, but no threshold jitter.

    Raises:
        ValueError: a value out of range or an unknown option.
    """

    shared = True

    def __init__(
        self,
        steps: int,
        order: int | None = None,
        *,
        key: Key[Array, ""],
        threshold: float | int = 1.0,
        compare: str = ">=",
        surrogate: str | Surrogate | None = None,
        noise: Any = None,
    ):
        order = steps if order is None else order
        _begin(self, compare, surrogate, noise, steps=steps, order=order)
        if order > steps:
            raise ValueError(f"order must be at most the number of steps, {steps}, got {order}.")
        bound = 1 / math.sqrt(steps)
        self.weight = nnx.Param(jax.random.uniform(key, (steps, order), minval=-bound, maxval=bound))
        self.threshold = nnx.Param(jnp.full((steps, 1), float(threshold)))

    @property
    def steps(self) -> int:
        """Number of time steps."""
        return int(self.weight.shape[0])

    def init(self, batch_shape: tuple[int, ...]) -> PSNState:
        """Returns the state before the first step, without any current."""
        return _empty(batch_shape, self.weight.shape[1])._replace(step=jnp.zeros((), jnp.int32))

    def step(
        self, state: PSNState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[PSNState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the spikes; a key is consumed, None is the deterministic neuron."""
        assert state.step is not None
        row = jnp.minimum(state.step, self.steps - 1)
        after, spikes = _stepped(self, state, current, self.weight[...][row], self.threshold[...][row], key)
        return after._replace(step=state.step + 1), spikes

    def sequence(
        self, state: PSNState, currents: Float[Array, "time *batch neuron"], keys: Key[Array, " time"] | None = None
    ) -> tuple[PSNState, Float[Array, "time *batch neuron"]]:
        """Returns the states after every step and the spikes; keys are consumed, None is the deterministic neuron."""
        assert state.step is not None
        numbers = state.step + jnp.arange(len(currents))
        rows = jnp.minimum(numbers, self.steps - 1)
        after, spikes = _banded(self, state, currents, self.weight[...][rows], self.threshold[...][rows], keys)
        return after._replace(step=numbers + 1), spikes

    def cost(self) -> NeuronCost:
        """Returns the operations of one update."""
        order = int(self.weight.shape[1])
        return NeuronCost(macs=order, acs=0, compares=1, states=order - 1)


class SlidingPSN(nnx.Module):
    """Sliding parallel spiking neuron (Fang et al. 2023, eq. 12 and 13): one sum of the last k currents at every step.

        H_t = sum over i < k of w_i X_(t - k + 1 + i),   s_t = fire(H_t - threshold)

    for any number of steps. w ``[k]`` begins at 2^(i - k + 1), so that the newest current counts one, and the threshold
    at 1, as in their program; both are learned.

    Priced as k multiply-accumulates and a comparison for each neuron and step, with k - 1 currents held.

    Args:
        order: k.
        threshold: first threshold.
        compare: ">=" (theirs) or ">".
        surrogate: name or `dsnn.surrogate.Surrogate`; None is "atan", or the density of the noise.
        noise: None or one of `dsnn.escape`, but no threshold jitter.

    Raises:
        ValueError: a value out of range or an unknown option.
    """

    shared = True

    def __init__(
        self,
        order: int = 2,
        *,
        threshold: float | int = 1.0,
        compare: str = ">=",
        surrogate: str | Surrogate | None = None,
        noise: Any = None,
    ):
        _begin(self, compare, surrogate, noise, order=order)
        self.weight = nnx.Param(2.0 ** jnp.arange(1.0 - order, 1.0))
        self.threshold = nnx.Param(jnp.full((1,), float(threshold)))

    def init(self, batch_shape: tuple[int, ...]) -> PSNState:
        """Returns the state before the first step, without any current."""
        return _empty(batch_shape, self.weight.shape[0])

    def step(
        self, state: PSNState, current: Float[Array, "*batch neuron"], key: Key[Array, ""] | None = None
    ) -> tuple[PSNState, Float[Array, "*batch neuron"]]:
        """Returns the next state and the spikes; a key is consumed, None is the deterministic neuron."""
        return _stepped(self, state, current, self.weight[...], self.threshold[...], key)

    def sequence(
        self, state: PSNState, currents: Float[Array, "time *batch neuron"], keys: Key[Array, " time"] | None = None
    ) -> tuple[PSNState, Float[Array, "time *batch neuron"]]:
        """Returns the states after every step and the spikes; keys are consumed, None is the deterministic neuron."""
        weights = jnp.broadcast_to(self.weight[...], (len(currents), self.weight.shape[0]))
        threshold = jnp.broadcast_to(self.threshold[...], (len(currents), 1))
        return _banded(self, state, currents, weights, threshold, keys)

    def cost(self) -> NeuronCost:
        """Returns the operations of one update."""
        order = int(self.weight.shape[0])
        return NeuronCost(macs=order, acs=0, compares=1, states=order - 1)


def _begin(cell: Any, compare: str, surrogate: str | Surrogate | None, noise: Any, **sizes: int) -> None:
    """Checks the options of a cell under construction, and how it fires."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be a positive integer, got {size}.")
    if isinstance(noise, ThresholdJitter):
        raise ValueError(
            "a parallel neuron has no threshold that moves from step to step, got a ThresholdJitter; take escape noise."
        )
    set_spike(cell, compare, surrogate, noise)


def _empty(batch_shape: tuple[int, ...], order: int) -> PSNState:
    zeros = jnp.zeros(batch_shape)
    return PSNState(zeros, (zeros,) * (order - 1))


def _stepped(
    cell: Any, state: PSNState, current: Array, weights: Array, threshold: Array, key: Any
) -> tuple[PSNState, Array]:
    """Returns the next state and the spikes of a neuron that sums the last currents."""
    seen = (*state.past, current)
    membrane = jnp.asarray(sum(weight * one for weight, one in zip(weights, seen, strict=True)))
    _, spikes = fire(cell, None, membrane - threshold, key)
    # of one dtype from the first step on, whatever the state began as
    return state._replace(membrane=membrane, past=tuple(one.astype(current.dtype) for one in seen[1:])), spikes


def _banded(
    cell: Any, state: PSNState, currents: Array, weights: Float[Array, "time order"], threshold: Array, keys: Any
) -> tuple[PSNState, Array]:
    """Returns the states after every step and the spikes, by one product with the weights in a band."""
    steps, order = weights.shape
    seen = jnp.concatenate([jnp.stack(state.past), currents]) if state.past else currents
    place = jnp.arange(steps + order - 1) - jnp.arange(steps)[:, None]
    inside = (place >= 0) & (place < order)
    band = jnp.where(inside, jnp.take_along_axis(weights, jnp.clip(place, 0, order - 1), 1), 0.0)
    membranes = jnp.tensordot(band, seen, 1)
    past = tuple(seen[i + 1 : i + 1 + steps] for i in range(order - 1))
    return state._replace(membrane=membranes, past=past), _fired(cell, membranes, threshold, keys)


def _fired(cell: Any, membranes: Array, threshold: Float[Array, "time one"], keys: Any) -> Array:
    """Returns the spikes of all steps, each by its own key."""
    above = membranes - value(threshold).reshape(-1, *[1] * (membranes.ndim - 1))
    if keys is None:
        return fire(cell, None, above, None)[1]
    return jax.vmap(lambda u, key: fire(cell, None, u, key)[1])(above, keys)
