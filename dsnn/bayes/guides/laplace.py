"""Laplace on the last layer: points while training, then a Normal whose precision is the curvature at the mode."""

from typing import Any

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

    H is the generalised Gauss-Newton matrix of the likelihood over all training examples, full over the last layer; P
    the prior's precision, and c the number that maximises the Laplace evidence (MacKay 1992). Features of a stochastic
    network are random: H is averaged over ``draws`` of its firing.

    Args:
        batch_size: examples per product; memory grows with it.
        draws: firing draws per example.
    """

    def finish(lifted: Any, params: Params, x: Array, y: Array, key: Key[Array, ""]) -> Params:
        _, mode, scale = _last(lifted.weights, params)
        hessian = gauss_newton(lifted, params, x, key, batch_size, draws)
        values, vectors = np.linalg.eigh(np.asarray(hessian, np.float64) * np.outer(scale, scale))
        values = np.maximum(values, 0.0)
        c = best_precision(values, float(((mode / scale) ** 2).sum()))
        factor = scale[:, None] * vectors / np.sqrt(values + c)
        return params | {FACTOR: jnp.asarray(factor, jnp.float32), PRECISION: jnp.asarray(c, jnp.float32)}

    def redraw(weights: Weights, params: Params, values: Params, key: Key[Array, ""]) -> Params:
        if FACTOR not in params:
            return values
        shift = params[FACTOR] @ jax.random.normal(key, params[FACTOR].shape[-1:])
        return values | _add(values, [n for n in weights.last if weights.of(n) is not None], shift)

    return point()._replace(finish=finish, redraw=redraw)


def gauss_newton(
    lifted: Any, params: Params, x: Array, key: Key[Array, ""], batch_size: int, draws: int
) -> Float[Array, "weight weight"]:
    """Returns Σ_examples J' Λ J of the last layer's parameters, J of the logits after all steps; a key is consumed."""
    names, mode, _ = _last(lifted.weights, params)
    network = lifted.network(lifted.centre(params))
    noise = lifted.likelihood_parameters(params)

    def logits(shift: Array, one: Array, own: Key[Array, ""]) -> Array:
        return lifted.forward.logits(network | _add(network, names, shift), one[None], own)[-1, 0]

    @jax.jit
    def add(total: Array, rows: Array, mask: Array, own: Key[Array, ""]) -> Array:
        keys = jax.random.split(own, len(rows))
        zero = jnp.zeros(mode.size)
        jacobian = jax.vmap(jax.jacrev(logits), (None, 0, 0))(zero, rows, keys)
        outputs = jax.vmap(logits, (None, 0, 0))(zero, rows, keys)
        curvature = lifted.likelihood.curvature(noise, outputs) * mask[:, None, None]
        half = jnp.einsum("bcd,bdp->bcp", curvature, jacobian).reshape(-1, mode.size)
        return total + jacobian.reshape(-1, mode.size).T @ half

    total = jnp.zeros((mode.size, mode.size))
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


def _last(weights: Weights, params: Params) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names with a prior in the last layer, their values in one vector, and the prior's standard deviations."""
    names = [name for name in weights.last if weights.of(name) is not None]
    if not names:
        raise ValueError("a Laplace guide needs a prior on the last layer, got points; give its parameters a prior.")
    priors = [weights.of(name) for name in names]
    if not all(isinstance(fn, dist.Distribution) for fn in priors):
        raise ValueError("a Laplace guide needs Normal priors on the last layer, got a hierarchical one; use normal.")
    scale = np.concatenate([np.sqrt(np.asarray(fn.variance, np.float64)).ravel() for fn in priors])  # type: ignore[union-attr]
    if len(scale) > LARGEST:
        raise ValueError(
            f"a full Laplace posterior needs a last layer of at most {LARGEST} weights, got {len(scale)}; use "
            "last_layer."
        )
    return names, np.concatenate([np.asarray(point_value(params, n), np.float64).ravel() for n in names]), scale


def _add(values: Params, names: list[str], shift: Array) -> Params:
    out, start = {}, 0
    for name in names:
        size = values[name].size
        out[name] = values[name] + shift[start : start + size].reshape(values[name].shape)
        start += size
    return out
