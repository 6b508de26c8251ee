"""Events of a pass: what went over a wire and was not zero, per step that ran, and its derivative in the spikes.

A wire carries an event where it carries something else than zero. Counted, events are numbers; differentiated, they
have the derivative of the spikes that they are, which is the density of the escape noise, or the surrogate of a neuron
that has a named one (`dsnn.escape`). Values have no noise, and whether one of them is zero has no derivative: they have
that of the L1 norm in units of a usual value (`valued`).
"""

import jax.numpy as jnp
from jax import lax

from dsnn.escape.draw import with_gradient_of
from dsnn.types import Array, Float

__all__ = ["counted", "differentiable", "followed", "per_step", "valued"]

LEAST = 1e-3
"""Steps of an example below which there are no events to speak of: where all but stop before one is read again."""

Weights = Float[Array, " time"] | Float[Array, "time batch"]
"""How far each step runs, of all examples or of each."""


def counted(x: Array) -> Array:
    """Returns one where something was sent and zero elsewhere, without a gradient."""
    return (x != 0).astype(jnp.float32)


def differentiable(x: Array) -> Array:
    """Returns `counted`, with the gradient of the spikes that were sent.

    One more spike is one more event where there was at most one; in a sum of several (`Wire.joined`) it is none.
    """
    size = jnp.where(x < 0, -x, x)  # whose slope at zero is that of a spike about to come
    return with_gradient_of(counted(x), jnp.where(size <= 1, size, 0.0).astype(jnp.float32))


def valued(x: Array) -> Array:
    """Returns `counted`, with the gradient of |x| / m, where m is the mean size of what is not zero and is held.

    These sum to the count, so that a price of events has its unit whatever the scale of a layer, and everything that is
    sent is drawn towards zero by the same amount, the small ones to it first. An indicator's own derivative is nowhere,
    and a scale-free measure such as Hoyer's (Kurtz et al. 2020) draws the small ones alone and lets a large value that
    nobody needs grow. As with every L1 norm, part of the price can be paid by smaller values; the prior of the weights
    that read them resists.
    """
    size, sent = jnp.where(x < 0, -x, x), counted(x)
    mean = lax.stop_gradient(size.sum() / jnp.maximum(sent.sum(), 1.0))
    return with_gradient_of(sent, (size / jnp.where(mean > 0, mean, 1.0)).astype(jnp.float32))


def followed(running: Float[Array, " time"]) -> Float[Array, " time"]:
    """Returns how far each step runs and a later one does too, which then reads its spikes over recurrent wires.

    Steps run independently of each other; the sum is the expected number of times that spikes are fed back.
    """
    none_later = jnp.cumprod((1 - running)[::-1])[::-1]
    return running * (1 - jnp.append(none_later[1:], 1.0))


def per_step(events: Float[Array, "time batch ..."], weights: Weights | None) -> Array:
    """Returns the events of each unit per step that ran, a mean over examples.

    Args:
        events: of each step and example.
        weights: how far steps run; None is all the way.
    """
    if weights is None:
        return events.mean(1).mean(0)
    if weights.ndim == 1:
        return jnp.tensordot(weights, events.mean(1), 1) / jnp.maximum(weights.sum(), 0.5)
    return jnp.tensordot(weights, events, 2) / jnp.maximum(weights.sum(), LEAST * events.shape[1])
