"""Laplace on the last layer: points while training, then a Normal whose precision is the curvature at the mode."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from dsnn.bayes.guides.contract import Guide, Weights, point_value
from dsnn.bayes.guides.factorised import point
from dsnn.parameters import Params
from dsnn.rng import stream
from dsnn.types import Array, Float, Key

FACTOR, PRECISION = "laplace.factor", "laplace.precision"
LARGEST = 4096


def laplace(batch_size: int = 64, draws: int = 1) -> Guide:
    """Returns the last-layer Laplace guide (Daxberger et al. 2021): N(mode, (H + c P)^-1).

    H is the generalised Gauss-Newton matrix of the likelihood over all training examples, full over the last layer's
    weights before they are gated, so that weights behind a closed gate keep their prior; P the prior's precision, and c
    the number that maximises the Laplace evidence (MacKay 1992). Features of a stochastic network are random: H is
    averaged over ``draws`` of its firing. What lies on an interval (the decay of a cell) stays at its mode.

    Args:
        batch_size: examples per product; memory grows with it.
        draws: firing draws per example.
    """

    def finish(bayesian: Any, params: Params, x: Array, y: Array, key: Key[Array, ""]) -> Params:
        last = _last(bayesian.weights.over, params)
        hessian, scale = gauss_newton(bayesian, params, x, key, batch_size, draws), last.scale
        values, vectors = np.linalg.eigh(np.asarray(hessian, np.float64) * np.outer(scale, scale))
        values = np.maximum(values, 0.0)
        c = best_precision(values, float((((last.mode - last.mean) / scale) ** 2).sum()))
        factor = scale[:, None] * vectors / np.sqrt(values + c)
        return params | {FACTOR: jnp.asarray(factor, jnp.float32), PRECISION: jnp.asarray(c, jnp.float32)}

    def redraw(weights: Weights, params: Params, values: Params, key: Key[Array, ""]) -> Params:
        if FACTOR not in params:
            return values
        shift = params[FACTOR] @ jax.random.normal(key, params[FACTOR].shape[-1:])
        return values | _add(values, _names(weights), shift)

    return point()._replace(finish=finish, redraw=redraw)


def gauss_newton(
    bayesian: Any, params: Params, x: Array, key: Key[Array, ""], batch_size: int, draws: int
) -> Float[Array, "weight weight"]:
    """Returns Σ_examples J' Λ J of the last layer's parameters, J of the logits after all steps; a key is consumed.

    The parameters are those before gating, which a draw adds its deviation to.
    """
    last, centre = _last(bayesian.weights.over, params), bayesian.centre(params)
    size = last.mode.size
    noise = bayesian.likelihood_parameters(params)

    def logits(shift: Array, one: Array, own: Key[Array, ""]) -> Array:
        moved = centre._replace(weights=centre.weights | _add(centre.weights, last.names, shift))
        return bayesian.simulator.logits(bayesian.network(moved), one[None], own)[-1, 0]

    @jax.jit
    def add(total: Array, rows: Array, mask: Array, own: Key[Array, ""]) -> Array:
        keys = jax.random.split(own, len(rows))
        zero = jnp.zeros(size)
        jacobian = jax.vmap(jax.jacrev(logits), (None, 0, 0))(zero, rows, keys)
        outputs = jax.vmap(logits, (None, 0, 0))(zero, rows, keys)
        curvature = bayesian.likelihood.curvature(noise, outputs) * mask[:, None, None]
        half = jnp.einsum("bcd,bdp->bcp", curvature, jacobian).reshape(-1, size)
        return total + jacobian.reshape(-1, size).T @ half

    total = jnp.zeros((size, size))
    for start in range(0, len(x), batch_size):
        rows = jnp.asarray(x[start : start + batch_size])
        mask = (jnp.arange(batch_size) < len(rows)).astype(jnp.float32)
        rows = jnp.concatenate([rows, jnp.zeros((batch_size - len(rows), *rows.shape[1:]), rows.dtype)])
        for draw in range(draws):
            total = add(total, rows, mask / draws, stream(key, "noise", start * draws + draw))
    return total


def best_precision(eigenvalues: np.ndarray, distance: float) -> float:
    """Returns the c in [1e-4, 1e6] that maximises (d log c - c distance - Σ log(eigenvalue + c)) / 2.

    Args:
        eigenvalues: of the curvature in units of the prior's standard deviations.
        distance: squared distance of the mode from the prior's mean, in the same units.
    """
    grid = np.logspace(-4, 6, 401)
    logs = np.log(eigenvalues[None] + grid[:, None]).sum(1)
    return float(grid[np.argmax(len(eigenvalues) * np.log(grid) - grid * distance - logs)])


class _Last(NamedTuple):
    """The uncertain parameters of the last layer: names, and values, prior means and deviations in one vector each."""

    names: list[str]
    mode: Float[np.ndarray, " weight"]
    mean: Float[np.ndarray, " weight"]
    scale: Float[np.ndarray, " weight"]


def _names(weights: Weights) -> list[str]:
    supports = weights.template.supports
    return [name for name in weights.last if weights.of(name) is not None and supports[name] == "real"]


def _last(weights: Weights, params: Params) -> _Last:
    names = _names(weights)
    if not names:
        raise ValueError("a Laplace guide needs a prior on the last layer, got points; give its parameters a prior.")
    priors = [weights.of(name) for name in names]
    if not all(isinstance(fn, dist.Distribution) for fn in priors):
        raise ValueError("a Laplace guide needs Normal priors on the last layer, got a hierarchical one; use normal.")

    def flat(values: Iterable[Array]) -> Float[np.ndarray, " weight"]:
        return np.concatenate([np.asarray(value, np.float64).ravel() for value in values])

    scale = np.sqrt(flat(fn.variance for fn in priors))  # type: ignore[union-attr]
    if len(scale) > LARGEST:
        raise ValueError(
            f"a full Laplace posterior needs a last layer of at most {LARGEST} weights, got {len(scale)}; use "
            "last_layer."
        )
    mean = flat(fn.mean for fn in priors)  # type: ignore[union-attr]
    return _Last(names, flat(point_value(params, name) for name in names), mean, scale)


def _add(values: Params, names: list[str], shift: Array) -> Params:
    out, start = {}, 0
    for name in names:
        size = values[name].size
        out[name] = values[name] + shift[start : start + size].reshape(values[name].shape)
        start += size
    return out
