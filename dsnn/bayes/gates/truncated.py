"""A Normal truncated to an interval, accurate in float32 however far its mean lies outside.

The closed forms subtract numbers as large as the squared distance of the mean in standard deviations (Neklyudov et al.
2017, eq. 12): at a distance of 2000 float32 has no digit left. Here everything is measured from the mode, the point of
the interval nearest to the mean. With x = (value - mode) / sigma and pull = (mean - mode) / sigma the density is

    p(x) = exp(pull x - x² / 2) / mass,   low <= x <= high,

whose largest unnormalised value is 1, at x = 0; no term is large where the density is not negligible. Integrals are
sums over Gauss-Legendre nodes of that part, and their gradients are those of the sums.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri

from dsnn.types import Array, Float

DEPTH = 20.0
"""Nats below its largest value at which the density is cut off, 2e-9 of it."""
NODES, WEIGHTS = ((a + b) / 2 for a, b in zip(np.polynomial.legendre.leggauss(48), (1.0, 0.0), strict=True))
FAR = 4.0
"""Pull from which draws solve for the tail's survival in place of inverting Φ."""
FRACTIONS, NEWTON = 16, 3


class Truncated(NamedTuple):
    """The distribution in its own coordinate x.

    Attributes:
        mode: point of the interval nearest to the mean.
        sigma: standard deviation before truncation.
        pull: distance of the mean from the mode over sigma, with its sign; 0 where the mean lies within.
        low: lower end of x, at most 0.
        high: upper end of x, at least 0.
    """

    mode: Float[Array, "*axes"]
    sigma: Float[Array, "*axes"]
    pull: Float[Array, "*axes"]
    low: Float[Array, "*axes"]
    high: Float[Array, "*axes"]

    def log_kernel(self, x: Float[Array, "*axes"]) -> Float[Array, "*axes"]:
        """Returns pull x - x² / 2."""
        return self.pull * x - 0.5 * x**2


def truncated(mu: Float[Array, "*axes"], sigma: Float[Array, "*axes"], low: float, high: float) -> Truncated:
    """Returns Normal(mu, sigma²) truncated to [low, high]."""
    mode = jnp.clip(mu, low, high)
    return Truncated(mode, sigma, (mu - mode) / sigma, (low - mode) / sigma, (high - mode) / sigma)


def nodes(q: Truncated, rise: float = 0.0) -> tuple[Float[Array, "*axes node"], Float[Array, "*axes node"]]:
    """Returns x at quadrature nodes and the logarithm of what each contributes to the mass.

    Args:
        q: the distribution.
        rise: the nodes also cover where the density times exp(rise sigma x) is, for moments of exp(value) up to it.
    """
    reach = _reach(q.pull)
    # the factor moves the mean up by rise sigma² and leaves the width
    mean = q.pull + rise * q.sigma
    mode = jnp.clip(mean, q.low, q.high)
    first = jnp.maximum(q.low, -reach)
    last = jnp.minimum(q.high, jnp.maximum(reach, mode + _reach(mean - mode)))
    width = (last - first)[..., None]
    x = first[..., None] + width * jnp.asarray(NODES, jnp.float32)
    wide = jax.tree.map(lambda a: a[..., None], q)
    return x, wide.log_kernel(x) + jnp.log(width * jnp.asarray(WEIGHTS, jnp.float32))


def log_mass(q: Truncated) -> Float[Array, "*axes"]:
    """Returns log of the integral of exp(pull x - x² / 2) over [low, high]."""
    return jax.nn.logsumexp(nodes(q)[1], -1)


def from_uniform(q: Truncated) -> Float[Array, "*axes"]:
    """Returns the divergence of q from the uniform distribution on its interval, in nats."""
    x, log_shares = nodes(q)
    mass = jax.nn.logsumexp(log_shares, -1)
    kernel = jax.tree.map(lambda a: a[..., None], q).log_kernel(x)
    expected = (jnp.exp(log_shares - mass[..., None]) * kernel).sum(-1)
    return expected - mass + jnp.log(q.high - q.low)


def exponential_moments(q: Truncated) -> tuple[Float[Array, "*axes"], Float[Array, "*axes"]]:
    """Returns log E[exp(value)] and the variance of exp(value) over its squared mean."""
    x, log_shares = nodes(q, rise=2.0)
    share = jax.nn.softmax(log_shares, -1)
    apart = jnp.expm1(q.sigma[..., None] * x)
    mean = (share * apart).sum(-1)
    variance = (share * (apart - mean[..., None]) ** 2).sum(-1)
    return q.mode + jnp.log1p(mean), variance / (1 + mean) ** 2


def quantile(q: Truncated, u: Float[Array, "..."]) -> Float[Array, "..."]:
    """Returns the values below which a share ``u`` of the mass lies, u in (0, 1)."""
    far = jnp.abs(q.pull) > FAR
    pull, up = jnp.where(far, jnp.abs(q.pull), 2 * FAR), q.pull < 0
    tail = _tail(pull, jnp.where(up, q.high, -q.low), jnp.where(up, u, 1 - u))
    # what is not chosen has to be finite too, for the gradient's sake
    near = Truncated(*(jnp.where(far, plain, own) for plain, own in zip((0.0, 1.0, 0.0, -1.0, 1.0), q, strict=True)))
    inside = _inside(near, u)
    return q.mode + q.sigma * jnp.where(far, jnp.where(up, tail, -tail), inside)


def _reach(pull: Array) -> Array:
    """Returns how far from the mode the density has fallen by `DEPTH`, on the side of the interval."""
    return 2 * DEPTH / (jnp.sqrt(pull**2 + 2 * DEPTH) + jnp.abs(pull))


def _inside(q: Truncated, u: Array) -> Array:
    """Returns x by inverting Φ, for small pulls; the heavier tail is turned down, where float32 has more digits."""
    low, high = q.low - q.pull, q.high - q.pull
    turned = low + high > 0
    low, high = jnp.where(turned, -high, low), jnp.where(turned, -low, high)
    eps = float(jnp.finfo(jnp.float32).eps)
    u = jnp.where(turned, 1 - u, u)
    p = jnp.clip(ndtr(low) + u * (ndtr(high) - ndtr(low)), 1e-30, 1 - eps)
    x = jnp.where(turned, -1.0, 1.0) * ndtri(p) + q.pull
    return jnp.clip(x, q.low, q.high)


def _tail(pull: Array, end: Array, u: Array) -> Array:
    """Returns the distance s <= end from the mode within which a share u of the mass lies, by Newton's method.

    With the hazard h of the standard Normal, -log P(distance > s) = pull s + s² / 2 + log h(pull + s) - log h(pull)
    before it is cut at ``end``; the solution without the hazards is above the root, and steps stay there.
    """
    excess = _excess(pull)

    def exponent(s: Array) -> Array:
        return s * (pull + 0.5 * s) + jnp.log1p((s + _excess(pull + s) - excess) / (pull + excess))

    y = -jnp.log1p(u * jnp.expm1(-exponent(end)))
    s = 2 * y / (pull + jnp.sqrt(pull**2 + 2 * y))
    for _ in range(NEWTON):
        s = s - (exponent(s) - y) / (pull + s + _excess(pull + s))
    return jnp.clip(s, 0.0, end)


def _excess(x: Array) -> Array:
    """Returns h(x) - x of the standard Normal's hazard h, for x >= `FAR`, by Laplace's continued fraction."""
    below = x
    for k in range(FRACTIONS, 1, -1):
        below = x + k / below
    return 1 / below
