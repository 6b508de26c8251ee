"""One Normal over all weights together, with covariance F F' + diag(d): correlations that mean field leaves out."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from multipledispatch import dispatch
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.distributions.kl import kl_divergence as _kl_divergence

from dsnn.bayes.guides.contract import Guide, Weights, guide_scales, point_constraints, point_parameter, prior_of
from dsnn.parameters import Params
from dsnn.rng import stream
from dsnn.types import Array, Float, Key

WEIGHTS = "weights"


class Joint(dist.Distribution):
    """Several priors as one vector in the unconstrained space.

    Args:
        parts: prior by name, in the order in which the vector holds them.
        transforms: bijection from the reals to the support, by name.
    """

    support = constraints.real_vector

    def __init__(self, parts: dict[str, dist.Distribution], transforms: dict[str, Any]):
        self.parts, self.transforms = parts, transforms
        size = sum(math.prod(fn.event_shape) for fn in parts.values())
        super().__init__(event_shape=(size,))

    def unflatten(self, flat: Float[Array, " weight"]) -> Params:
        """Returns the constrained parameters by name."""
        raw = _cut(flat, {name: fn.event_shape for name, fn in self.parts.items()})
        return {name: self.transforms[name](value) for name, value in raw.items()}

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """Returns a draw; the key is consumed."""
        draws = {n: fn.sample(stream(key, "weights", i), sample_shape) for i, (n, fn) in enumerate(self.parts.items())}
        raw = [self.transforms[n].inv(v).reshape(*sample_shape, -1) for n, v in draws.items()]
        return jnp.concatenate(raw, -1)

    def log_prob(self, value: Float[Array, " weight"]) -> Array:
        """Returns the log density in the unconstrained space."""
        total: Any = 0.0
        for name, raw in _cut(value, {n: fn.event_shape for n, fn in self.parts.items()}).items():
            transform = self.transforms[name]
            natural = transform(raw)
            total = total + self.parts[name].log_prob(natural) + transform.log_abs_det_jacobian(raw, natural).sum()
        return total

    def normal(self) -> tuple[Array, Array] | None:
        """Returns means and standard deviations if every part is a Normal on the reals, else None."""
        bases = [_innermost(fn) for fn in self.parts.values()]
        if not all(isinstance(base, dist.Normal) for base in bases):
            return None
        shapes = [fn.event_shape for fn in self.parts.values()]
        pairs = [
            (jnp.broadcast_to(base.loc, shape).ravel(), jnp.broadcast_to(base.scale, shape).ravel())
            for base, shape in zip(bases, shapes, strict=True)
        ]
        return jnp.concatenate([loc for loc, _ in pairs]), jnp.concatenate([scale for _, scale in pairs])


@dispatch(dist.LowRankMultivariateNormal, Joint)
def kl_divergence(q, p):  # type: ignore[no-untyped-def]
    """KL(N(m, F F' + D) || N(a, diag(s²))), with the determinant by the matrix determinant lemma."""
    if (normal := p.normal()) is None:
        raise NotImplementedError  # NumPyro then takes log q - log p at the sample
    loc, scale = normal
    factor, diagonal = q.cov_factor, q.cov_diag
    trace = ((diagonal + (factor**2).sum(-1)) / scale**2).sum(-1)
    distance = (((q.loc - loc) / scale) ** 2).sum(-1)
    small = jnp.eye(factor.shape[-1]) + factor.T @ (factor / diagonal[:, None])
    log_det = jnp.log(diagonal).sum(-1) + jnp.linalg.slogdet(small)[1]
    return 0.5 * (trace + distance - q.event_shape[0] + 2 * jnp.log(scale).sum(-1) - log_det)


# multipledispatch joins functions of one name; NumPyro's dispatcher must now know ours
assert kl_divergence is _kl_divergence


def low_rank(rank: int = 4, scale: float = 0.01) -> Guide:
    """Returns a low-rank plus diagonal Normal over all weights with a prior (Ong, Nott & Smith 2018).

    Args:
        rank: columns of F, at least 1.
        scale: initial standard deviation of the diagonal; the columns of F begin at a tenth of it in all.

    Raises:
        ValueError: rank or scale out of range.
    """
    if rank < 1:
        raise ValueError(f"the rank of a low-rank guide must be at least 1, got {rank}; mean_field has none.")
    if not 0 < scale < float("inf"):
        raise ValueError(f"a guide's initial scale must be positive and finite, got {scale}; 0.01 is usual.")

    def names(weights: Weights) -> list[str]:
        return [name for name in weights.template.names if weights.of(name) is not None]

    def points(weights: Weights) -> Params:
        free = set(weights.template.names) - set(names(weights))
        return {name: point_parameter(weights, name) for name in weights.template.names if name in free}

    def whole(weights: Weights, values: Params) -> Params:
        return {name: values[name] for name in weights.template.names}

    def start(weights: Weights) -> Array:
        return jnp.concatenate([weights.transform(n).inv(weights.initial[n]).ravel() for n in names(weights)])

    def prior(weights: Weights, kl_weight: Array) -> Params:
        parts = {name: prior_of(weights, name, kl_weight) for name in names(weights)}
        joint = Joint(parts, {name: weights.transform(name) for name in parts})
        with handlers.scale(scale=kl_weight):
            flat = numpyro.sample(WEIGHTS, joint)
        return whole(weights, joint.unflatten(flat) | points(weights))

    def posterior(weights: Weights, kl_weight: Array, key: Key[Array, ""]) -> Params:
        for index, name in enumerate(names(weights)):
            guide_scales(weights, name, kl_weight, stream(key, "init", index))
        begin = start(weights)
        loc = numpyro.param(f"{WEIGHTS}.loc", begin)
        deviation = numpyro.param(f"{WEIGHTS}.scale", jnp.full(begin.shape, scale), constraint=constraints.positive)
        first = 0.1 * scale / math.sqrt(rank)
        factor = numpyro.param(f"{WEIGHTS}.factor", lambda k: first * jax.random.normal(k, (begin.size, rank)))
        with handlers.scale(scale=kl_weight):
            q = dist.LowRankMultivariateNormal(loc, factor, deviation**2)
            flat = numpyro.sample(WEIGHTS, q, rng_key=stream(key, "weights"))
        return whole(weights, _natural(weights, names(weights), flat) | points(weights))

    def centre(weights: Weights, params: Params) -> Params:
        free = {name: params[name] for name in weights.template.names if name in params}
        return whole(weights, _natural(weights, names(weights), params[f"{WEIGHTS}.loc"]) | free)

    def supports(weights: Weights) -> dict[str, Any]:
        return point_constraints(weights) | {f"{WEIGHTS}.scale": constraints.positive}

    return Guide(prior, posterior, centre, supports)


def _innermost(fn: Any) -> Any:
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution):
        fn = fn.base_dist
    return fn


def _natural(weights: Weights, names: list[str], flat: Array) -> Params:
    raw = _cut(flat, {name: weights.initial[name].shape for name in names})
    return {name: weights.transform(name)(value) for name, value in raw.items()}


def _cut(flat: Array, shapes: dict[str, tuple[int, ...]]) -> Params:
    out, start = {}, 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        out[name] = flat[start : start + size].reshape(shape)
        start += size
    return out
