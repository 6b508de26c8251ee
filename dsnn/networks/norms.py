"""Normalisation between a synapse and its cell, by statistics over time, batch and space.

A norm of spiking layers sees currents of all time steps. In training it normalises by the statistics of the batch,
which only the layer-by-layer form of a network has (`dsnn.unroll`); it keeps no state of its own: new statistics are
returned, and the learner keeps them. Anywhere else it is an affine map per channel, which ``folded`` puts into the
kernel. What every norm has to be is `dsnn.protocols.Norm`; norms with parameters for each step are in
`dsnn.networks.step_norms`, norms of one place at one step in `dsnn.networks.token_norms`.
"""

import abc
from typing import Any

import jax.numpy as jnp
from flax import nnx

from dsnn.networks.moments import by_own, by_stored, check, folded_by
from dsnn.protocols import Norm, Normalised
from dsnn.types import Array, Float

__all__ = ["BatchNorm", "Normalised", "TdBN", "measuring"]


class _OverTime(nnx.Module):
    """What norms by the statistics of each channel over time, batch and space have in common.

    Statistics are averages over batches: new = momentum old + (1 - momentum) of the batch, as in Flax.
    """

    unbiased: bool
    """Whether the variance that is kept has n / (n - 1) in it, for n numbers a channel."""

    def __init__(self, features: int, momentum: float, epsilon: float):
        self.momentum, self.epsilon = momentum, epsilon
        self.scale, self.shift = nnx.Param(jnp.ones(features)), nnx.Param(jnp.zeros(features))
        self.mean, self.variance = nnx.BatchStat(jnp.zeros(features)), nnx.BatchStat(jnp.ones(features))

    @property
    @abc.abstractmethod
    def gain(self) -> float:
        """Standard deviation of what the scale multiplies."""

    @property
    def features(self) -> int:
        """Number of channels."""
        return int(self.scale.shape[-1])

    def __call__(
        self, currents: Float[Array, "... channel"], steps: Array | None = None
    ) -> Float[Array, "... channel"]:
        """Returns currents normalised by the statistics that it has; steps are all alike."""
        return by_stored(self, currents, self.gain)

    def trained(
        self,
        currents: Float[Array, "... channel"],
        weights: Float[Array, " time"] | None = None,
        steps: Array | None = None,
    ) -> Normalised:
        """Returns currents normalised by their own statistics, and the norm's statistics after them.

        Args:
            currents: of a batch, ``[time, batch, ..., channel]``, or ``[batch, ..., channel]`` that are held.
            weights: how much each time step counts; None is all alike.
            steps: of no account.

        Raises:
            ValueError: one number a channel, which has no variance.
        """
        return by_own(self, currents, weights, gain=self.gain, unbiased=self.unbiased)

    def folded(self, synapse: Any) -> tuple[Any, None]:
        """Returns the synapse whose kernel and bias do what it and this norm with its statistics do, and no norm.

        Args:
            synapse: with a kernel ``[..., channel]`` and a bias or None, such as `dsnn.networks.Dense`.

        Raises:
            ValueError: it has no such.
        """
        return folded_by(self, synapse, self.gain), None


class BatchNorm(_OverTime):
    """Batch normalisation over time, batch and space (Ioffe & Szegedy 2015), as PyTorch and SpikingJelly compute it.

        y = scale (I - E[I]) / sqrt(Var[I] + epsilon) + shift

    In training the variance is the mean squared deviation; the average that is kept is of the unbiased one, with
    n / (n - 1) for n numbers a channel, as in PyTorch, so that published statistics mean the same. What PyTorch calls
    ``momentum=0.1`` is ``momentum=0.9`` here.

    Args:
        features: number of channels.
        momentum: share of the old statistics in new ones, in [0, 1).
        epsilon: added to the variance.

    Raises:
        ValueError: an argument out of its range.
    """

    unbiased = True

    def __init__(self, features: int, momentum: float = 0.9, epsilon: float = 1e-5):
        check(features, momentum, epsilon=epsilon)
        super().__init__(features, momentum, epsilon)

    @property
    def gain(self) -> float:
        """Standard deviation of what the scale multiplies."""
        return 1.0


class TdBN(_OverTime):
    """Threshold-dependent batch normalisation (tdBN; Zheng, Wu, Deng, Hu & Li 2021, AAAI, eq. 4 to 6).

        I' = alpha theta (I - E[I]) / sqrt(Var[I] + epsilon)        y = scale I' + shift

    Mean and variance are those of each channel over time, batch and space, the variance the mean squared deviation, so
    that currents begin with a standard deviation of alpha thresholds. (PyTorch's momentum is one minus this one, and
    its average of the variance has n / (n - 1) in it.)

    Gates scale the kernels that read a channel, so they stand behind its norm: before it the norm would undo them, and
    a gate's gradient would be about epsilon.

    Args:
        features: number of channels.
        threshold: of the cell that is driven, theta.
        alpha: standard deviation in thresholds; 1 / sqrt(n) where n branches are added up.
        momentum: share of the old statistics in new ones, in [0, 1).
        epsilon: added to the variance.

    Raises:
        ValueError: an argument out of its range.
    """

    unbiased = False

    def __init__(
        self,
        features: int,
        threshold: float = 1.0,
        alpha: float = 1.0,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
    ):
        check(features, momentum, threshold=threshold, alpha=alpha, epsilon=epsilon)
        super().__init__(features, momentum, epsilon)
        self.threshold, self.alpha = threshold, alpha

    @property
    def gain(self) -> float:
        """Standard deviation of what the scale multiplies, alpha thresholds."""
        return self.alpha * self.threshold


def measuring(network: Any) -> Any:
    """Returns a network whose norms give the statistics of a batch alone; it is changed."""
    for _, module in nnx.iter_modules(network):
        if isinstance(module, Norm) and callable(getattr(module, "trained", None)):
            norm: Any = module
            norm.momentum = 0.0
    return network
