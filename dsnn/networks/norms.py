"""Normalisation between a synapse and its cell.

A norm of spiking layers sees currents of all time steps. In training it normalises by the statistics of the batch,
which only the layer-by-layer form of a network has (`dsnn.unroll`); it keeps no state of its own: new statistics are
returned, and the learner keeps them. Anywhere else it is an affine map per channel, which `TdBN.folded` puts into the
kernel.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from dsnn.types import Array, Float

__all__ = ["Normalised", "TdBN", "measuring"]


class Normalised(NamedTuple):
    """What a norm makes of the currents of a batch: these, and its statistics afterwards by their own names."""

    currents: Float[Array, "..."]
    statistics: dict[str, Array]


class TdBN(nnx.Module):
    """Threshold-dependent batch normalisation (tdBN; Zheng, Wu, Deng, Hu & Li 2021, AAAI, eq. 4 to 6).

        I' = alpha theta (I - E[I]) / sqrt(Var[I] + epsilon)        y = scale I' + shift

    Mean and variance are those of each channel over time, batch and space, the variance the mean squared deviation, so
    that currents begin with a standard deviation of alpha thresholds. Afterwards statistics are averages over batches:
    new = momentum old + (1 - momentum) of the batch. (PyTorch's momentum is one minus this one, and its average of the
    variance has n / (n - 1) in it.)

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

    def __init__(
        self,
        features: int,
        threshold: float = 1.0,
        alpha: float = 1.0,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
    ):
        if features < 1:
            raise ValueError(f"features must be a positive integer, got {features}; give the number of channels.")
        for name, value in (("threshold", threshold), ("alpha", alpha), ("epsilon", epsilon)):
            if not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive and finite, got {value}.")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}; it is the share of old statistics.")
        self.threshold, self.alpha, self.momentum, self.epsilon = threshold, alpha, momentum, epsilon
        self.scale, self.shift = nnx.Param(jnp.ones(features)), nnx.Param(jnp.zeros(features))
        self.mean, self.variance = nnx.BatchStat(jnp.zeros(features)), nnx.BatchStat(jnp.ones(features))

    @property
    def features(self) -> int:
        """Number of channels."""
        return int(self.scale.shape[-1])

    def __call__(self, currents: Float[Array, "... channel"]) -> Float[Array, "... channel"]:
        """Returns currents normalised by the statistics that it has."""
        return self._affine(currents, self.mean[...], self.variance[...])

    def trained(
        self, currents: Float[Array, "... channel"], weights: Float[Array, " time"] | None = None
    ) -> Normalised:
        """Returns currents normalised by their own statistics, and the norm's statistics after them.

        Args:
            currents: of a batch, ``[time, batch, ..., channel]``, or ``[batch, ..., channel]`` that are held.
            weights: how much each time step counts; None is all alike.

        Raises:
            ValueError: one number a channel, which has no variance.
        """
        if (count := math.prod(currents.shape[:-1])) < 2:
            raise ValueError(
                "a norm in training needs two numbers a channel at least, over time, batch and space, got "
                f"{count} in currents of shape {tuple(currents.shape)}; raise the batch size."
            )
        axes = tuple(range(currents.ndim - 1))
        mean, variance = _moments(currents, axes, weights)
        keep = self.momentum
        new = {
            name: keep * old[...] + (1.0 - keep) * jax.lax.stop_gradient(now).astype(old[...].dtype)
            for name, old, now in (("mean", self.mean, mean), ("variance", self.variance, variance))
        }
        return Normalised(self._affine(currents, mean, variance), new)

    def folded(self, synapse: Any) -> Any:
        """Returns the synapse whose kernel and bias do what it and this norm with its statistics do.

        Args:
            synapse: with a kernel ``[..., channel]`` and a bias or None, such as `dsnn.networks.Dense`.

        Raises:
            ValueError: it has no such.
        """
        if not hasattr(synapse, "kernel") or not hasattr(synapse, "bias"):
            raise ValueError(
                "a norm is folded into a synapse with kernel and bias (None is none), got a "
                f"{type(synapse).__name__} without; give it both, or a fold()."
            )
        factor = self._factor(self.variance[...])
        bias = 0.0 if synapse.bias is None else synapse.bias[...]
        kernel = synapse.kernel[...]
        new = nnx.clone(synapse)
        new.kernel = nnx.Param(kernel * _last(factor, kernel.ndim))
        # where there was no bias, Flax takes the attribute for a constant
        new.bias = nnx.data(nnx.Param((bias - self.mean[...]) * factor + self.shift[...]))
        return new

    def _factor(self, variance: Array) -> Array:
        return self.scale[...] * (self.alpha * self.threshold) / jnp.sqrt(variance + self.epsilon)

    def _affine(self, currents: Array, mean: Array, variance: Array) -> Array:
        mean, factor, shift = (_last(a, currents.ndim) for a in (mean, self._factor(variance), self.shift[...]))
        return (currents - mean) * factor + shift


def measuring(network: Any) -> Any:
    """Returns a network whose norms give the statistics of a batch alone; it is changed."""
    for _, module in nnx.iter_modules(network):
        if isinstance(module, TdBN):
            module.momentum = 0.0
    return network


def _moments(currents: Array, axes: tuple[int, ...], weights: Array | None) -> tuple[Array, Array]:
    """Returns mean and mean squared deviation per channel, each time step weighed."""
    if weights is None:
        mean = currents.mean(axes)
        return mean, jnp.square(currents - _last(mean, currents.ndim)).mean(axes)
    each = weights.reshape(-1, *[1] * (currents.ndim - 1))
    # steps that are all skipped have no statistics, and nothing is made of them
    total = jnp.maximum(weights.sum(), 1e-6) * math.prod(currents.shape[1:-1])
    mean = (each * currents).sum(axes) / total
    return mean, (each * jnp.square(currents - _last(mean, currents.ndim))).sum(axes) / total


def _last(values: Array, ndim: int) -> Array:
    """Returns values per channel with axes of one in front, which broadcast under every setting of JAX."""
    return values.reshape(*[1] * (ndim - 1), -1)
