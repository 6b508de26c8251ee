"""What norms with statistics share: moments of a batch, averages over batches, and an affine map in a synapse."""

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import nnx

from dsnn.protocols import Normalised
from dsnn.types import Array, Float

__all__ = ["at_steps", "by_own", "by_stored", "check", "check_count", "factor", "folded_by", "last", "moments", "moved"]


@runtime_checkable
class OverTime(Protocol):
    """A norm whose statistics are those of each channel over time, batch and space.

    Attributes:
        scale: per channel.
        shift: per channel.
        mean: an average over batches.
        variance: an average over batches.
        momentum: share of the old statistics in new ones.
        epsilon: added to the variance.
    """

    scale: Any
    shift: Any
    mean: Any
    variance: Any
    momentum: float
    epsilon: float


def by_own(
    norm: OverTime,
    currents: Float[Array, "... channel"],
    weights: Float[Array, " time"] | None,
    *,
    gain: float = 1.0,
    unbiased: bool = False,
) -> Normalised:
    """Returns currents normalised by their own statistics, and the norm's after them.

    Args:
        norm: scale, shift and statistics so far.
        currents: of a batch, ``[time, batch, ..., channel]``, or ``[batch, ..., channel]`` that are held.
        weights: how much each time step counts; None is all alike.
        gain: standard deviation before the scale.
        unbiased: whether the variance that is kept has n / (n - 1) in it, for n numbers a channel.

    Raises:
        ValueError: one number a channel, which has no variance.
    """
    count = math.prod(currents.shape[:-1])
    check_count(count, "time, batch and space", tuple(currents.shape))
    mean, variance = moments(currents, tuple(range(currents.ndim - 1)), weights)
    ran: Any = count if weights is None else weights.sum() * (count / currents.shape[0])
    kept = variance * (ran / jnp.maximum(ran - 1, 1.0)) if unbiased else variance
    if weights is not None:  # steps that are all skipped say nothing
        mean, kept = (jnp.where(ran > 0, now, old[...]) for now, old in ((mean, norm.mean), (kept, norm.variance)))
    new = {"mean": moved(norm.mean, mean, norm.momentum), "variance": moved(norm.variance, kept, norm.momentum)}
    return Normalised(_affine(currents, mean, factor(norm, variance, gain), norm.shift[...]), new)


def by_stored(norm: OverTime, currents: Float[Array, "... channel"], gain: float = 1.0) -> Float[Array, "... channel"]:
    """Returns currents normalised by the statistics that the norm has."""
    return _affine(currents, norm.mean[...], factor(norm, norm.variance[...], gain), norm.shift[...])


def folded_by(norm: OverTime, synapse: Any, gain: float = 1.0) -> Any:
    """Returns the synapse whose kernel and bias do what it and the norm with its statistics do.

    Raises:
        ValueError: it has no kernel and bias.
    """
    by = factor(norm, norm.variance[...], gain)
    return _absorbed(synapse, by, lambda bias: (bias - norm.mean[...]) * by + norm.shift[...])


def factor(norm: OverTime, variance: Float[Array, " channel"], gain: float = 1.0) -> Float[Array, " channel"]:
    """Returns what a norm multiplies deviations from the mean by."""
    return norm.scale[...] * gain / jnp.sqrt(variance + norm.epsilon)


def _affine(currents: Array, mean: Array, by: Array, shift: Array) -> Array:
    mean, by, shift = (last(a, currents.ndim) for a in (mean, by, shift))
    return (currents - mean) * by + shift


def check(features: int, momentum: float, **positive: float | int) -> None:
    """Checks what a norm is made of.

    Args:
        features: number of channels.
        momentum: share of old statistics.
        **positive: numbers above zero, by name.

    Raises:
        ValueError: an argument out of its range.
    """
    if features < 1:
        raise ValueError(f"features must be a positive integer, got {features}; give the number of channels.")
    for name, value in positive.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}.")
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be in [0, 1), got {momentum}; it is the share of old statistics.")


def check_count(count: int, where: str, shape: tuple[int, ...]) -> None:
    """Raises a ValueError for one number a channel, which has no variance."""
    if count < 2:
        raise ValueError(
            f"a norm in training needs two numbers a channel at least, over {where}, got {count} in currents of shape "
            f"{shape}; raise the batch size."
        )


def moments(currents: Array, axes: tuple[int, ...], weights: Array | None = None) -> tuple[Array, Array]:
    """Returns mean and mean squared deviation over some axes, each time step weighed.

    Args:
        currents: ``[time, batch, ..., channel]`` with weights, else any with the channels last.
        axes: over which; with weights all but the last.
        weights: how much each time step counts; None is all alike.
    """
    if weights is None:
        mean = currents.mean(axes, keepdims=True)
        return mean.squeeze(axes), jnp.square(currents - mean).mean(axes)
    each = weights.reshape(-1, *[1] * (currents.ndim - 1))
    # steps that are all skipped have no statistics, and nothing is made of them
    total = jnp.maximum(weights.sum(), 1e-6) * math.prod(currents.shape[1:-1])
    mean = (each * currents).sum(axes) / total
    return mean, (each * jnp.square(currents - last(mean, currents.ndim))).sum(axes) / total


def moved(old: Any, now: Array, momentum: float) -> Array:
    """Returns a statistic after a batch: momentum of the old and the rest of the batch's, through which none learns."""
    return momentum * old[...] + (1.0 - momentum) * jax.lax.stop_gradient(now).astype(old[...].dtype)


def last(values: Array, ndim: int) -> Array:
    """Returns values per channel with axes of one in front, which broadcast under every setting of JAX."""
    return values.reshape(*[1] * (ndim - 1), -1)


def at_steps(values: Float[Array, "time channel"], steps: Array | None, ndim: int) -> Array:
    """Returns values of some steps as they meet currents; a step beyond the last has the last one's.

    Args:
        values: of each step.
        steps: a number, or numbers along the first axis of the currents.
        ndim: axes of the currents.

    Raises:
        ValueError: no number.
    """
    if steps is None:
        raise ValueError("a norm with parameters for each step must be told which step it sees, got steps=None.")
    found = values[jnp.minimum(steps, values.shape[0] - 1)]
    if not jnp.ndim(steps):
        return last(found, ndim)
    return found.reshape(found.shape[0], *[1] * (ndim - 2), found.shape[-1])


def _absorbed(synapse: Any, by: Array, shift: Callable[[Any], Array]) -> Any:
    """Returns the synapse that multiplies by ``by`` what it gives, with another bias.

    Args:
        synapse: with a kernel ``[..., channel]`` and a bias or None, such as `dsnn.networks.Dense`.
        by: ``[channel]``.
        shift: the new bias of the old one, which is zero where there is none.

    Raises:
        ValueError: it has no such.
    """
    if not hasattr(synapse, "kernel") or not hasattr(synapse, "bias"):
        raise ValueError(
            "a norm is folded into a synapse with kernel and bias (None is none), got a "
            f"{type(synapse).__name__} without; give it both, or a fold()."
        )
    kernel, bias = synapse.kernel[...], 0.0 if synapse.bias is None else synapse.bias[...]
    new = nnx.clone(synapse)
    new.kernel = nnx.Param(kernel * last(by, kernel.ndim))
    # where there was no bias, Flax takes the attribute for a constant
    new.bias = nnx.data(nnx.Param(shift(bias)))
    return new
