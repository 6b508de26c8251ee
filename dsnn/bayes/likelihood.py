"""What is observed given the network's outputs: a class, several labels, or numbers with Normal noise."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from dsnn.forward import log_likelihood
from dsnn.types import Array, Float

SCALE = "likelihood.scale"


@runtime_checkable
class Likelihood(Protocol):
    """The contract: positive parameters of its own, a log density, and its curvature in the outputs."""

    def parameters(self) -> dict[str, Array]:
        """Returns the initial values of the parameters, all positive, by their names among the guide's."""
        ...

    def log_prob(self, own: Mapping[str, Array], outputs: Float[Array, "*axes batch class"], y: Array) -> Array:
        """Returns log p(y | outputs), ``[*axes, batch]``."""
        ...

    def curvature(self, own: Mapping[str, Array], outputs: Float[Array, "batch class"]) -> Array:
        """Returns the expected negative second derivative in the outputs, ``[batch, class, class]``."""
        ...


@dataclasses.dataclass(frozen=True)
class Categorical:
    """A class label under the softmax of the outputs."""

    def parameters(self) -> dict[str, Array]:
        """Returns no parameters."""
        return {}

    def log_prob(self, own: Mapping[str, Array], outputs: Float[Array, "*axes batch class"], y: Array) -> Array:
        """Returns log p(y | outputs) of labels ``[batch]``."""
        return log_likelihood(outputs, y)

    def curvature(self, own: Mapping[str, Array], outputs: Float[Array, "batch class"]) -> Array:
        """Returns diag(p) - p p'."""
        p = jax.nn.softmax(outputs)
        return p[:, :, None] * (jnp.eye(p.shape[-1]) - p[:, None, :])

    def distribution(self, outputs: Float[Array, "batch class"]) -> tuple[Array, Array]:
        """Returns the probability of each class, ``[batch, class]``, and the entropy in nats, ``[batch]``."""
        log_p = jax.nn.log_softmax(outputs)
        return jnp.exp(log_p), -(jnp.exp(log_p) * log_p).sum(-1)


@dataclasses.dataclass(frozen=True)
class Bernoulli:
    """Labels 0 or 1, independent given the outputs, which are their log odds."""

    def parameters(self) -> dict[str, Array]:
        """Returns no parameters."""
        return {}

    def log_prob(self, own: Mapping[str, Array], outputs: Float[Array, "*axes batch label"], y: Array) -> Array:
        """Returns log p(y | outputs) of labels ``[batch, label]``, summed over labels."""
        return (y * outputs - jax.nn.softplus(outputs)).sum(-1)

    def curvature(self, own: Mapping[str, Array], outputs: Float[Array, "batch label"]) -> Array:
        """Returns the diagonal of p (1 - p)."""
        p = jax.nn.sigmoid(outputs)
        return (p * (1 - p))[:, :, None] * jnp.eye(p.shape[-1])

    def distribution(self, outputs: Float[Array, "batch label"]) -> tuple[Array, Array]:
        """Returns the probability of each label, ``[batch, label]``, and their joint entropy in nats, ``[batch]``."""
        p = jax.nn.sigmoid(outputs)
        return p, (jax.nn.softplus(outputs) - p * outputs).sum(-1)


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Numbers with independent Normal noise of one standard deviation around the outputs.

    Attributes:
        scale: the standard deviation, or where it starts.
        learned: whether it is a parameter (a point estimate).
    """

    scale: float = 1.0
    learned: bool = True

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"the noise of a Gaussian likelihood must be positive and finite, got {self.scale}.")

    def parameters(self) -> dict[str, Array]:
        """Returns the noise's standard deviation, if it is learned."""
        return {SCALE: jnp.asarray(float(self.scale))} if self.learned else {}

    def deviation(self, own: Mapping[str, Array]) -> Array:
        """Returns the standard deviation of the noise."""
        return own[SCALE] if self.learned else jnp.asarray(float(self.scale))

    def log_prob(self, own: Mapping[str, Array], outputs: Float[Array, "*axes batch output"], y: Array) -> Array:
        """Returns log p(y | outputs) of targets ``[batch, output]``, summed over outputs."""
        return jax.scipy.stats.norm.logpdf(y, outputs, self.deviation(own)).sum(-1)

    def curvature(self, own: Mapping[str, Array], outputs: Float[Array, "batch output"]) -> Array:
        """Returns the identity over the noise's variance."""
        eye = jnp.eye(outputs.shape[-1]) / self.deviation(own) ** 2
        return jnp.broadcast_to(eye, (*outputs.shape, outputs.shape[-1]))
