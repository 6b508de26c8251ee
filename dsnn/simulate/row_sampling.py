"""Address events: a whole vector as a distribution, from which spikes are drawn that say where to compute.

Rate coding gives every value a spike train of its own. Here a vector x >= 0 with sum Z is one distribution p = x / Z,
and K draws from it are one stochastic spike train whose spikes carry addresses. A spike at address i means: fetch row i
of W and add it. With weight Z / K the sum of these rows is an unbiased estimate of x W,

    y = (Z / K) sum_k W[i_k],   E y = x W,   Var y_j = (Z / K) sum_i x_i W_ij^2 - (x W)_j^2 / K,

so the work is K rows and not N. (The idea is that of Alawad, Yoon & Tourassi 2017, IEEE Big Data; the paper's text is
not public, and this reconstruction follows its abstract. A proposal other than p, and draws that are spread instead of
independent, are ours.)
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.types import Array, Float, Int, Key

SAMPLINGS = ("independent", "spread")
K_PUBLISHED = 510
"""Draws per log of the number of inputs for an error of at most 0.05 at 95 % confidence (Alawad & Lin 2016)."""


class AddressEvents(NamedTuple):
    """Spikes that carry addresses; an event of value zero is none.

    Attributes:
        address: the row that an event selects, ``[batch, event]``.
        value: what it is multiplied by.
    """

    address: Int[Array, "batch event"]
    value: Float[Array, "batch event"]


class Rows(NamedTuple):
    """Sparse inputs: for each example its nonzero features, filled up with zeros to a common width.

    Attributes:
        address: numbers of the features.
        value: their values; zero where the row is filled up.
    """

    address: Int[Array, "batch width"]
    value: Float[Array, "batch width"]


def address_events(
    x: Float[Array, "batch *feature"] | Rows,
    draws: int,
    key: Key[Array, ""],
    *,
    signed: bool = False,
    proposal: Float[Array, " input"] | None = None,
    sampling: str = "independent",
) -> AddressEvents:
    """Returns ``draws`` events per example whose weighted rows are an unbiased estimate of x W.

    An example of zeros has events of value zero, which are none; a vector with one nonzero value has all its events
    there, and its estimate is exact. Where values are known (not traced), negative ones are refused unless ``signed``,
    and NaN or infinite ones always; in compiled code a negative value counts as zero, and a NaN makes every value NaN.

    Args:
        x: values, at least 0 unless ``signed``; examples are flattened. Or sparse rows.
        draws: K, at least 1.
        key: consumed.
        signed: draws two trains, ``draws`` events from the positive part and ``draws`` from the negative one.
        proposal: positive factors r, ``[input]``: addresses are drawn from q_i ∝ x_i r_i, and an event has the value
            x_i / (K q_i), which keeps the estimate unbiased. None draws from p.
        sampling: "independent" draws, or "spread": one random number u per example, and the k-th draw at the quantile
            frac(u + v_k) with v the van der Corput sequence (a randomly shifted low-discrepancy sequence, Owen 2003).
            Every draw still follows p, so nothing is biased, while any run of consecutive events is spread evenly.

    Raises:
        ValueError: fewer than one draw, an unknown sampling, or values that are no distribution.
    """
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 1:
        raise ValueError(f"draws must be an integer of at least 1, got {draws!r}; without a draw nothing is computed.")
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling must be one of {', '.join(SAMPLINGS)}, got {sampling!r}.")
    rows = x if isinstance(x, Rows) else None
    values = x.value if isinstance(x, Rows) else x.reshape(x.shape[0], -1)
    _check(values, signed)
    if proposal is not None:
        proposal = proposal[rows.address] if rows is not None else jnp.broadcast_to(proposal, values.shape)
    if not signed:
        events = _train(jnp.maximum(values, 0), draws, key, proposal, sampling)
    else:
        both = [
            _train(jnp.maximum(sign * values, 0), draws, k, proposal, sampling)
            for sign, k in zip((1, -1), jax.random.split(key), strict=True)
        ]
        signs = [both[0].value, -both[1].value]
        events = AddressEvents(jnp.concatenate([t.address for t in both], 1), jnp.concatenate(signs, 1))
    if rows is None:
        return events
    return events._replace(address=jnp.take_along_axis(rows.address, events.address, 1))


def trains(
    x: Float[Array, "batch *feature"], steps: int, draws: int, key: Key[Array, ""], **options: object
) -> Float[Array, "time batch *feature"]:
    """Returns the events laid out over time as arrays that any network takes: at each step those that fall there.

    The mean over steps is an unbiased estimate of x. This is what the events mean, not what they save: an array with
    few nonzero values is multiplied like any other, unless the network's products follow events.

    Args:
        x: as for `address_events`.
        steps: T, at least 1.
        draws: K per example (and sign), dealt out to the steps in turn.
        key: consumed.
        **options: of `address_events`.
    """
    events = address_events(x, draws, key, **options)  # type: ignore[arg-type]
    batch, number = events.address.shape
    when = jnp.arange(number) * steps // number
    flat = jnp.zeros((steps, batch, math.prod(x.shape[1:])), x.dtype)
    rows = jnp.arange(batch)[:, None]
    return flat.at[when[None, :], rows, events.address].add(steps * events.value).reshape(steps, *x.shape)


def draws_for(inputs: int, k: float | int = K_PUBLISHED) -> int:
    """Returns K = k ln N rounded up, the published law for an error of 0.05 at 95 % with k = 510.

    Args:
        inputs: N, at least 2.
        k: above 0.
    """
    if inputs < 2 or k <= 0:
        raise ValueError(f"the number of draws is k ln N with N of at least 2 and k above 0, got {inputs} and {k}.")
    return math.ceil(k * math.log(inputs))


def variance(
    x: Float[Array, "batch input"],
    weights: Float[Array, "input neuron"],
    draws: int | Float[Array, ""],
    proposal: Float[Array, " input"] | None = None,
) -> Float[Array, "batch neuron"]:
    """Returns the variance of the estimate of x W from independent draws, for x >= 0.

    With q_i ∝ x_i r_i it is (1 / K) (sum_i x_i^2 W_ij^2 / q_i - (x W)_j^2); without a proposal, q = p.
    """
    factors = jnp.ones(x.shape[-1]) if proposal is None else proposal
    total = (x * factors).sum(-1, keepdims=True)
    return (total * ((x / factors) @ weights**2) - (x @ weights) ** 2) / draws


def _train(
    values: Float[Array, "batch width"],
    draws: int,
    key: Key[Array, ""],
    proposal: Float[Array, "batch width"] | None,
    sampling: str,
) -> AddressEvents:
    """Draws positions among the values, which are not negative."""
    mass = values if proposal is None else values * proposal
    below = jnp.cumsum(mass, 1)
    total = below[:, -1:]
    if sampling == "spread":
        quantile = (jax.random.uniform(key, (len(values), 1), values.dtype) + _van_der_corput(draws)) % 1.0
    else:
        quantile = jax.random.uniform(key, (len(values), draws), values.dtype)
    # the first position whose cumulative mass exceeds the quantile has mass itself; rounding must not pass the last
    target = jnp.minimum(quantile * total, jnp.nextafter(total, jnp.zeros_like(total)))
    index = jax.vmap(lambda b, t: jnp.searchsorted(b, t, side="right"))(below, target)
    index = jnp.minimum(index, values.shape[1] - 1).astype(jnp.int32)
    there = jnp.take_along_axis(mass, index, 1)
    weight = total / draws
    if proposal is not None:
        weight = weight / jnp.take_along_axis(proposal, index, 1)
    # NaN fails the comparison and must not look like a silent example
    value = jnp.where(there > 0, weight, jnp.where(jnp.isnan(total), total, 0.0))
    return AddressEvents(index, value)


def _van_der_corput(count: int) -> np.ndarray:
    """Returns the first ``count`` numbers of the sequence in base 2: 0, 1/2, 1/4, 3/4, 1/8, ..."""
    numbers, out, scale = np.arange(count), np.zeros(count), 0.5
    while numbers.any():
        out += scale * (numbers % 2)
        numbers, scale = numbers // 2, scale / 2
    return out.astype(np.float32)


def _check(values: Array, signed: bool) -> None:
    if isinstance(values, jax.core.Tracer):
        return
    known = np.asarray(values)
    if not np.isfinite(known).all():
        raise ValueError(f"values must be finite, got {int((~np.isfinite(known)).sum())} NaN or infinite ones.")
    if not signed and (known < 0).any():
        raise ValueError(
            f"values must not be negative, got {float(known.min()):g}; signed=True draws a train for each sign."
        )
