"""The loops of `loops.c` as scans, step for step the same: what runs where a program is lowered for no CPU.

Each takes the arrays that the C program takes and gives what that gives; equations and names stand there.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dsnn.surrogate import Surrogate, heaviside
from dsnn.types import Array

__all__ = ["Kind", "adapting", "adaptive", "adaptive_back", "resonating", "resonating_back"]


class Kind(NamedTuple):
    """What differs between compiled loops: recurrence, reset timing, adaptation, whether membranes are read."""

    recurrent: bool
    next: bool
    adapts: bool
    read: bool
    surrogate: Surrogate


def adaptive(kind: Kind, currents: Array, _numbers: Array, kernel: Array, constants: Array) -> list[Array]:
    """Returns d, u (before the reset) and a (one zero if nothing adapts) at every step, of LIF or ALIF neurons."""
    d, u, a = adapting(kind, currents, kernel, constants)[1]
    return [d, u, a if kind.adapts else jnp.zeros(1, jnp.float32)]


def adapting(
    kind: Kind, currents: Array, kernel: Array, constants: Array
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    """Returns the final (membrane, adaptation), and d, u and a at every step, of LIF or ALIF neurons."""
    beta, rho, theta, strength, scale = constants

    def step(carry: tuple[Array, Array, Array], given: Array) -> tuple[tuple[Array, Array, Array], tuple[Array, ...]]:
        m, a, z = carry
        th = theta + strength * a
        u = beta * m + scale * (given + z @ kernel if kind.recurrent else given)
        u = u - z * th if kind.next else u
        d = u - th
        z = heaviside(d, kind.surrogate)
        a = rho * a + (1 - rho) * z
        return (u if kind.next else u - z * th, a, z), (d, u, a)

    rest = jnp.zeros_like(currents[0])
    (membrane, adaptation, _), over_time = jax.lax.scan(step, (rest, rest, rest), currents)
    return (membrane, adaptation), over_time


def adaptive_back(
    kind: Kind,
    psi: Array,
    _numbers: Array,
    kernel: Array,
    constants: Array,
    d: Array,
    u: Array,
    a: Array,
    by_d: Array,
    by_u: Array,
    by_last: Array,
    by_adaptation: Array,
) -> list[Array]:
    """Returns the gradients of currents and constants, from those of what `adaptive` gave and of the final state."""
    beta, rho, _, strength, scale = constants
    a, by_u = (jnp.broadcast_to(each, d.shape) if each.ndim == 1 else each for each in (a, by_u))

    def step(carry: tuple[Array, ...], at: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array]:
        m_, a_, z_, total = carry
        ps, dd, uu, dp, up, ap, gd, du = at
        th, z, zp = uu - dd, (dd > 0).astype(dd.dtype), (dp > 0).astype(dd.dtype)
        mp = up if kind.next else up - zp * (up - dp)
        spike, threshold = z_ + (1 - rho) * a_, jnp.zeros_like(th)
        if not kind.next:
            spike, threshold = spike - th * m_, -z * m_
        x = spike * ps + gd
        membrane, threshold = m_ + du + x, threshold - x
        if kind.next:
            threshold = threshold - zp * membrane
        by_current = scale * membrane
        entered = uu - beta * mp + (zp * th if kind.next else 0.0)
        entered = jnp.where(scale != 0, entered / jnp.where(scale != 0, scale, 1.0), 0.0)
        parts = membrane * mp, a_ * (ap - z), threshold, threshold * ap, membrane * entered
        back = -th * membrane if kind.next else jnp.zeros_like(th)
        back = back + by_current @ kernel.T if kind.recurrent else back
        total = total + jnp.stack([part.sum(0) for part in parts])
        return (beta * membrane, rho * a_ + strength * threshold, back, total), by_current

    start: tuple[Array, ...] = (by_last, by_adaptation, jnp.zeros_like(by_last), jnp.zeros_like(constants))
    steps = (psi, d, u, _before(d), _before(u), _before(a), by_d, by_u)
    final, by_currents = jax.lax.scan(step, start, steps, reverse=True)
    return [by_currents, final[-1]]


def resonating(kind: Kind, currents: Array, _numbers: Array, kernel: Array, constants: Array) -> list[Array]:
    """Returns d, u, v and q at every step, of BRF neurons."""
    bound, omega, theta, gamma, dt = constants

    def step(carry: tuple[Array, ...], given: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        u, v, q, z = carry
        current = given + z @ kernel if kind.recurrent else given
        b = bound - q
        u, v = u + dt * (b * u - omega * v + current), v + dt * (omega * u + b * v)
        d = u - theta - q
        z = heaviside(d, kind.surrogate)
        q = gamma * q + z
        return (u, v, q, z), (d, u, v, q)

    rest = jnp.zeros_like(currents[0])
    start: tuple[Array, ...] = (rest,) * 4
    return list(jax.lax.scan(step, start, currents)[1])


def resonating_back(
    kind: Kind,
    psi: Array,
    _numbers: Array,
    kernel: Array,
    constants: Array,
    d: Array,
    u: Array,
    v: Array,
    q: Array,
    by_d: Array,
    by_u: Array,
    *by_last: Array,
) -> list[Array]:
    """Returns the gradients of currents and constants, from those of what `resonating` gave and of the final state."""
    bound, omega, _, gamma, dt = constants
    by_u = jnp.broadcast_to(by_u, d.shape) if by_u.ndim == 1 else by_u

    def step(carry: tuple[Array, ...], at: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array]:
        u_, v_, q_, z_, total = carry
        ps, up, vp, qp, gd, du = at
        x = (z_ + q_) * ps + gd
        real, b = u_ + du + x, bound - qp
        by_b = dt * (real * up + v_ * vp)
        # an oscillator's time step is no parameter
        parts = by_b, dt * (v_ * up - real * vp), -x, q_ * qp, jnp.zeros_like(x)
        by_current = dt * real
        back = by_current @ kernel.T if kind.recurrent else jnp.zeros_like(x)
        by_u, by_v = real * (1 + dt * b) + v_ * dt * omega, v_ * (1 + dt * b) - real * dt * omega
        total = total + jnp.stack([part.sum(0) for part in parts])
        return (by_u, by_v, gamma * q_ - x - by_b, back, total), by_current

    start = (*by_last, jnp.zeros_like(by_last[0]), jnp.zeros_like(constants))
    steps = (psi, _before(u), _before(v), _before(q), by_d, by_u)
    final, by_currents = jax.lax.scan(step, start, steps, reverse=True)
    return [by_currents, final[-1]]


def _before(values: Array) -> Array:
    """Returns what stood a step earlier, zero before the first."""
    return jnp.concatenate([jnp.zeros_like(values[:1]), values[:-1]])
