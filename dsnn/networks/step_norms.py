"""Norms that treat each time step by itself, and what is left of them in a kernel's stead once they are folded.

Such a norm has to know which step it sees: `dsnn.networks.LayerState` counts the steps that ran. The product of an
input that is held is still one; only what is made of it differs from step to step.
"""

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx

from dsnn.energy import NeuronCost
from dsnn.networks.moments import at_steps, by_own, by_stored, check, check_count, folded_by, moments, moved
from dsnn.protocols import Normalised
from dsnn.types import Array, Float

__all__ = ["BNTT", "TEBN", "StepAffine"]


class BNTT(nnx.Module):
    """Batch normalisation through time (BNTT; Kim & Panda 2021, Frontiers in Neuroscience 15:773954, eq. 6).

        y_t = scale_t (I_t - E[I_t]) / sqrt(Var[I_t] + epsilon)

    Mean and variance are those of each channel at each step, over batch and space, and so are their averages over
    batches; there is no shift. It begins at a scale of one. Once its statistics are fixed it is a factor and a shift
    for each step and channel, which stay in the network that is deployed (`StepAffine`): one multiply-accumulate for
    each current and step.

    Args:
        features: number of channels.
        steps: number of time steps; a network runs no more of them.
        momentum: share of the old statistics in new ones, in [0, 1).
        epsilon: added to the variance.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(self, features: int, steps: int, momentum: float = 0.9, epsilon: float = 1e-5):
        check(features, momentum, epsilon=epsilon, steps=steps)
        self.momentum, self.epsilon = momentum, epsilon
        shape = (steps, features)
        self.scale = nnx.Param(jnp.ones(shape))
        self.mean, self.variance = nnx.BatchStat(jnp.zeros(shape)), nnx.BatchStat(jnp.ones(shape))

    @property
    def features(self) -> int:
        """Number of channels."""
        return int(self.scale.shape[-1])

    @property
    def steps(self) -> int:
        """Number of time steps."""
        return int(self.scale.shape[0])

    def __call__(
        self, currents: Float[Array, "... channel"], steps: Array | None = None
    ) -> Float[Array, "... channel"]:
        """Returns currents normalised by the statistics that it has of these steps, see `dsnn.protocols.Norm`."""
        return self._affine(currents, self.mean[...], self.variance[...], steps)

    def trained(
        self, currents: Float[Array, "time batch *space channel"], weights: Array | None = None, steps: Any = None
    ) -> Normalised:
        """Returns currents normalised by their own statistics of each step, and the norm's statistics after them.

        Args:
            currents: of a batch; time is one long where the input is held.
            weights: how far each step runs; the statistics of one that does not stay as they were.
            steps: number of each step; None counts them from 0.

        Raises:
            ValueError: one number a channel and step, which has no variance.
        """
        check_count(math.prod(currents.shape[1:-1]), "batch and space of a step", tuple(currents.shape))
        numbers = jnp.arange(currents.shape[0]) if steps is None else steps
        shape = (numbers.shape[0], self.features)
        mean, variance = moments(currents, tuple(range(1, currents.ndim - 1)))
        mean, variance = jnp.broadcast_to(mean, shape), jnp.broadcast_to(variance, shape)
        # a step that does not run is written nowhere
        rows = numbers if weights is None else jnp.where(weights > 0, numbers, self.steps)

        def after(old: Any, now: Array) -> Array:
            new = moved(old[...][jnp.minimum(numbers, self.steps - 1)], now, self.momentum)
            return old[...].at[rows].set(new, mode="drop")

        statistics = {"mean": after(self.mean, mean), "variance": after(self.variance, variance)}
        scale = self.scale[...][jnp.minimum(numbers, self.steps - 1)]
        factor = (scale / jnp.sqrt(variance + self.epsilon)).reshape(shape[0], *[1] * (currents.ndim - 2), shape[1])
        centred = currents - mean.reshape(factor.shape)
        return Normalised(centred * factor, statistics)

    def folded(self, synapse: Any) -> tuple[Any, "StepAffine"]:
        """Returns the synapse as it is, and the factor and shift of each step."""
        factor = self.scale[...] / jnp.sqrt(self.variance[...] + self.epsilon)
        return synapse, StepAffine(factor, -self.mean[...] * factor)

    def cost(self) -> NeuronCost:
        """Returns the operations for each current and step: its factor and shift."""
        return StepAffine.OPERATIONS

    def _affine(self, currents: Array, mean: Array, variance: Array, steps: Array | None) -> Array:
        factor = at_steps(self.scale[...] / jnp.sqrt(variance + self.epsilon), steps, currents.ndim)
        return (currents - at_steps(mean, steps, currents.ndim)) * factor


class TEBN(nnx.Module):
    """Temporal effective batch normalisation (TEBN; Duan, Ding, Chen, Yu & Huang 2022, NeurIPS, eq. 7 and 8).

        y_t = p_t (scale (I_t - E[I]) / sqrt(Var[I] + epsilon) + shift)

    Mean and variance are those of each channel over time, batch and space; p_t is a learned number for each step, which
    begins at one. All but p_t is folded into the kernel; p_t stays in the network that is deployed (`StepAffine`): one
    multiplication for each current and step.

    Args:
        features: number of channels.
        steps: number of time steps; a network runs no more of them.
        momentum: share of the old statistics in new ones, in [0, 1).
        epsilon: added to the variance.

    Raises:
        ValueError: an argument out of its range.
    """

    def __init__(self, features: int, steps: int, momentum: float = 0.9, epsilon: float = 1e-5):
        check(features, momentum, epsilon=epsilon, steps=steps)
        self.momentum, self.epsilon = momentum, epsilon
        self.scale, self.shift = nnx.Param(jnp.ones(features)), nnx.Param(jnp.zeros(features))
        self.by_step = nnx.Param(jnp.ones((steps, 1)))
        self.mean, self.variance = nnx.BatchStat(jnp.zeros(features)), nnx.BatchStat(jnp.ones(features))

    @property
    def features(self) -> int:
        """Number of channels."""
        return int(self.scale.shape[-1])

    @property
    def steps(self) -> int:
        """Number of time steps."""
        return int(self.by_step.shape[0])

    def __call__(
        self, currents: Float[Array, "... channel"], steps: Array | None = None
    ) -> Float[Array, "... channel"]:
        """Returns currents normalised by the statistics that it has, by p of these steps."""
        return by_stored(self, currents) * at_steps(self.by_step[...], steps, currents.ndim)

    def trained(
        self, currents: Float[Array, "time batch *space channel"], weights: Array | None = None, steps: Any = None
    ) -> Normalised:
        """Returns currents normalised by their own statistics, by p of each step, and the norm's statistics after them.

        Args:
            currents: of a batch; time is one long where the input is held.
            weights: how much each time step counts; None is all alike.
            steps: number of each step; None counts them from 0.

        Raises:
            ValueError: one number a channel, which has no variance.
        """
        found = by_own(self, currents, weights if currents.shape[0] > 1 else None)
        numbers = jnp.arange(currents.shape[0]) if steps is None else steps
        return found._replace(currents=found.currents * at_steps(self.by_step[...], numbers, currents.ndim))

    def folded(self, synapse: Any) -> tuple[Any, "StepAffine"]:
        """Returns the synapse that does the norm's work but for p, and p of each step.

        Raises:
            ValueError: a synapse without kernel and bias.
        """
        return folded_by(self, synapse), StepAffine(jnp.broadcast_to(self.by_step[...], (self.steps, self.features)))

    def cost(self) -> NeuronCost:
        """Returns the operations for each current and step: its p."""
        return StepAffine.OPERATIONS


class StepAffine(nnx.Module):
    """A factor and a shift for each time step and channel, y_t = scale_t I_t + shift_t: what is left of a folded norm.

    Args:
        scale: of each step.
        shift: of each step; None is none.
    """

    OPERATIONS = NeuronCost(macs=1, acs=0, compares=0, states=0, fires=False)
    """For each current and step."""

    def __init__(self, scale: Float[Array, "time channel"], shift: Float[Array, "time channel"] | None = None):
        self.step_scale = nnx.Param(scale)
        self.step_shift = None if shift is None else nnx.Param(shift)

    @property
    def scale(self) -> Any:
        """The factor of each step."""
        return self.step_scale

    @property
    def steps(self) -> int:
        """Number of time steps."""
        return int(self.step_scale.shape[0])

    def __call__(
        self, currents: Float[Array, "... channel"], steps: Array | None = None
    ) -> Float[Array, "... channel"]:
        """Returns the currents of these steps, see `dsnn.protocols.Norm`."""
        scaled = currents * at_steps(self.step_scale[...], steps, currents.ndim)
        return scaled if self.step_shift is None else scaled + at_steps(self.step_shift[...], steps, currents.ndim)

    def cost(self) -> NeuronCost:
        """Returns the operations for each current and step."""
        return self.OPERATIONS
