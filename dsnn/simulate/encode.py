"""From values to spikes or currents over time: every encoder returns ``[time, batch, ...]``.

Inputs are arrays with the batch first; the data package has already refused NaN and infinite values. What is static
(numbers of steps and units, thresholds) is checked at once; values are not looked at, so every encoder can be compiled.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp

from dsnn.simulate.row_sampling import address_events, draws_for
from dsnn.simulate.row_sampling import trains as address_trains
from dsnn.types import Array, Float, Key

__all__ = ["address_events", "address_trains", "delta", "direct", "draws_for", "latency", "population", "rate"]


def direct(x: Float[Array, "batch *feature"], steps: int) -> Float[Array, "time batch *feature"]:
    """Returns the values as a current that is the same at every step (Rueckauer et al. 2017).

    Args:
        x: any finite values.
        steps: at least 1.
    """
    _check_steps(steps)
    return jnp.broadcast_to(x, (steps, *x.shape))


def rate(x: Float[Array, "batch *feature"], steps: int, key: Key[Array, ""]) -> Float[Array, "time batch *feature"]:
    """Returns independent spikes, each with probability x at every step.

    Args:
        x: probabilities in [0, 1]; below 0 counts as 0, above 1 as 1.
        steps: at least 1.
        key: consumed.
    """
    _check_steps(steps)
    return (jax.random.uniform(key, (steps, *x.shape), x.dtype) < x).astype(x.dtype)


def latency(
    x: Float[Array, "batch *feature"],
    steps: int,
    *,
    method: Literal["linear", "log"] = "linear",
    threshold: float = 0.01,
    first: int = 0,
    tau: float | None = None,
) -> Float[Array, "time batch *feature"]:
    """Returns one spike per value, the earlier the larger the value, and none where x <= threshold.

    With d = steps - 1 - first, the spike falls on the step nearest to

        linear:  t = first + tau (1 - x),                       tau = d by default
        log:     t = first + tau log(x / (x - threshold)),      tau = d / log((threshold + e) / e) by default, e = 1e-7

    the second being the time at which a leaky membrane charged by a current x crosses the threshold (with the default
    tau, snnTorch's ``normalize``). Zero never spikes. A time past the last step is no spike.

    Args:
        x: values in [0, 1]; larger ones spike at ``first``.
        steps: at least 1.
        method: ``linear`` or ``log``.
        threshold: in [0, 1); for ``log`` above 0.
        first: the earliest step, from 0 to ``steps - 1``.
        tau: time scale in steps, above 0; None fits the code to the steps there are.
    """
    _check_steps(steps)
    if not 0 <= first < steps:
        raise ValueError(f"first must be a step from 0 to {steps - 1}, got {first}; raise steps to begin later.")
    if method not in ("linear", "log"):
        raise ValueError(f"method must be 'linear' or 'log', got {method!r}.")
    if not 0 <= threshold < 1 or (method == "log" and threshold == 0):
        low = "(0" if method == "log" else "[0"
        raise ValueError(f"threshold must be in {low}, 1) for the {method} code, got {threshold}.")
    if tau is not None and not tau > 0:
        raise ValueError(f"tau must be above 0 steps, got {tau}; leave it out to fill the steps there are.")
    span, least = steps - 1 - first, 1e-7
    if method == "linear":
        time = (span if tau is None else tau) * (1 - x)
    else:
        scale = span / math.log((threshold + least) / least) if tau is None else tau
        above = jnp.maximum(x, threshold + least)
        time = scale * jnp.log(above / jnp.maximum(above - threshold, least))
    when = jnp.where(x > threshold, first + jnp.maximum(jnp.round(time), 0), -1)
    grid = jnp.arange(steps, dtype=when.dtype).reshape(steps, *(1,) * x.ndim)
    return (grid == when).astype(x.dtype)


def delta(
    xs: Float[Array, "time batch *feature"],
    threshold: float,
    *,
    off: Literal["none", "sign", "channel"] = "none",
) -> Float[Array, "time batch *channel"]:
    """Returns a spike wherever the values rose by at least the threshold since the step before.

    The first step is compared with zero, so that (1, 2, 2.91, 3, 3.9) at threshold 0.1 gives (1, 1, 1, 0, 1).

    Args:
        xs: values over time.
        threshold: above 0, in the unit of the values.
        off: what a fall by the threshold gives: ``none`` nothing; ``sign`` a spike of -1; ``channel`` a spike of its
            own: the last axis becomes twice as long, rises first, then falls.
    """
    if not threshold > 0:
        raise ValueError(f"threshold must be above 0, got {threshold}.")
    if off not in ("none", "sign", "channel"):
        raise ValueError(f"off must be 'none', 'sign' or 'channel', got {off!r}.")
    change = jnp.diff(xs, axis=0, prepend=jnp.zeros_like(xs[:1]))
    rise, fall = (change >= threshold).astype(xs.dtype), (change <= -threshold).astype(xs.dtype)
    match off:
        case "none":
            return rise
        case "sign":
            return rise - fall
        case _:
            return jnp.concatenate([rise, fall], axis=-1)


def population(
    x: Float[Array, "batch *feature"],
    units: int,
    steps: int,
    key: Key[Array, ""] | None = None,
    *,
    low: float = 0.0,
    high: float = 1.0,
    width: float | None = None,
) -> Float[Array, "time batch *feature unit"]:
    """Returns each value as the activity of a row of receptive fields, exp(-(x - c_k)^2 / (2 width^2)).

    The centres c_k lie evenly from ``low`` to ``high``, both included (Bohte, La Poutre & Kok 2002).

    Args:
        x: values, usually in [low, high].
        units: receptive fields per value, at least 2.
        steps: at least 1.
        key: consumed: spikes are drawn with the activity as probability. None gives the activity itself as a current.
        low: centre of the first field.
        high: centre of the last field, above ``low``.
        width: standard deviation of a field, above 0; None takes the distance between centres.
    """
    _check_steps(steps)
    if isinstance(units, bool) or not isinstance(units, int) or units < 2:
        raise ValueError(f"units must be an integer of at least 2, got {units!r}.")
    if not low < high:
        raise ValueError(f"low must lie below high, got {low} and {high}.")
    if width is not None and not width > 0:
        raise ValueError(f"width must be above 0, got {width}; leave it out for the distance between centres.")
    width = (high - low) / (units - 1) if width is None else width
    centres = jnp.linspace(low, high, units, dtype=x.dtype)
    activity = jnp.exp(-0.5 * ((x[..., None] - centres) / width) ** 2)
    return direct(activity, steps) if key is None else rate(activity, steps, key)


def _check_steps(steps: int) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be an integer of at least 1, got {steps!r}.")
