"""The distribution over widths of nested gates: which of them counts depends on those before it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from multipledispatch import dispatch
from numpyro.distributions import constraints
from numpyro.distributions.kl import kl_divergence as _kl_divergence

from dsnn.bayes.gates.contract import unscored
from dsnn.types import Array, Float, Key


class NestedGates(dist.Distribution):
    """Independent gates of a family, of which one counts where those before it are open.

    Args:
        q: the family's distribution, over ``[level * unit]``.
        levels: gates of each unit.
    """

    support = constraints.unit_interval
    pytree_data_fields = ("q",)
    pytree_aux_fields = ("levels",)

    def __init__(self, q: Any, levels: int, *, validate_args: bool | None = None):
        self.q, self.levels = q, levels
        super().__init__(event_shape=q.event_shape, validate_args=validate_args)

    @property
    def open_probability(self) -> Float[Array, " gate"]:
        """Probability that each gate is open, whatever those before it."""
        return self.q.open_probability

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """Returns the family's gates; the key is consumed."""
        return self.q.sample(key, sample_shape)

    def log_prob(self, value: Float[Array, "*sample site"]) -> Array:
        """Returns the log probability of the gates, those that are not reached included."""
        return self.q.log_prob(value)

    def entropy(self) -> Float[Array, ""]:
        """Returns the entropy of the widths in nats: that of each gate where it is reached."""
        p = self.open_probability.reshape(self.levels, -1)
        reached = jnp.cumprod(jnp.concatenate([jnp.ones_like(p[:1]), p[:-1]]), 0)
        return (reached * self.q.entropy_of_opening().reshape(p.shape)).sum()


class AnyWidth(dist.Distribution):
    """The uniform base measure over the widths of every unit.

    Args:
        levels: gates of each unit.
        units: number of units.
    """

    support = constraints.unit_interval

    def __init__(self, levels: int, units: int, *, validate_args: bool | None = None):
        self.levels, self.units = levels, units
        super().__init__(event_shape=(levels * units,), validate_args=validate_args)

    def sample(self, key: Key[Array, ""], sample_shape: tuple[int, ...] = ()) -> Array:
        """Returns gates that are open up to a width drawn uniformly; the key is consumed."""
        width = jax.random.randint(key, (*sample_shape, 1, self.units), 0, self.levels + 1)
        opened = jnp.arange(self.levels)[:, None] < width
        return opened.astype(jnp.float32).reshape(*sample_shape, -1)

    def log_prob(self, value: Float[Array, "*sample site"]) -> Array:
        """Raises ValueError: only the divergence from it is used, see `dsnn.bayes.gates.contract.unscored`."""
        return unscored(value)


@dispatch(NestedGates, AnyWidth)
def kl_divergence(q, p):  # type: ignore[no-untyped-def]
    """KL(q || uniform over the widths of every unit)."""
    return p.units * math.log(p.levels + 1) - q.entropy()


assert kl_divergence is _kl_divergence
