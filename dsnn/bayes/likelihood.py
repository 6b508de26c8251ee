"""What is observed given the network's outputs: a class, one at every step, several labels, or numbers with noise."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from dsnn.simulate.simulator import log_likelihood
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

    def of_sequence(self, own: Mapping[str, Array], outputs: Float[Array, "time batch class"], y: Array) -> Array:
        """Returns log p(y | outputs of all steps), ``[batch]``, when no step is the last before its time."""
        ...

    def curvature(self, own: Mapping[str, Array], outputs: Float[Array, "batch class"]) -> Array:
        """Returns the expected negative second derivative in the outputs, ``[batch, class, class]``."""
        ...


@dataclasses.dataclass(frozen=True)
class Categorical:
    """A class label under the softmax of the outputs.

    Attributes:
        weights: what an example of each class counts; empty is 1.
    """

    weights: tuple[float, ...] = ()

    def parameters(self) -> dict[str, Array]:
        """Returns no parameters."""
        return {}

    def log_prob(self, own: Mapping[str, Array], outputs: Float[Array, "*axes batch class"], y: Array) -> Array:
        """Returns log p(y | outputs) of labels ``[batch]``, times the weights of their classes."""
        found = log_likelihood(outputs, y)
        return jnp.asarray(self.weights)[y] * found if self.weights else found

    def of_sequence(self, own: Mapping[str, Array], outputs: Float[Array, "time batch class"], y: Array) -> Array:
        """Returns log p(y | outputs of the last step)."""
        return self.log_prob(own, outputs[-1], y)

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

    def of_sequence(self, own: Mapping[str, Array], outputs: Float[Array, "time batch label"], y: Array) -> Array:
        """Returns log p(y | outputs of the last step)."""
        return self.log_prob(own, outputs[-1], y)

    def curvature(self, own: Mapping[str, Array], outputs: Float[Array, "batch label"]) -> Array:
        """Returns the diagonal of p (1 - p)."""
        p = jax.nn.sigmoid(outputs)
        return (p * (1 - p))[:, :, None] * jnp.eye(p.shape[-1])

    def distribution(self, outputs: Float[Array, "batch label"]) -> tuple[Array, Array]:
        """Returns the probability of each label, ``[batch, label]``, and their joint entropy in nats, ``[batch]``."""
        p = jax.nn.sigmoid(outputs)
        return p, (jax.nn.softplus(outputs) - p * outputs).sum(-1)


UNLABELLED = -1
"""What stands in a row of labels where a step has none."""


@dataclasses.dataclass(frozen=True)
class Stepwise:
    """A class at every step, each under the softmax of that step's outputs; steps without a label say nothing.

    Attributes:
        skip: first steps that do not count, while the network has not seen enough (Yin et al. 2021: 10).
        mean: whether the sum over steps is divided by their number, so that a sequence weighs as much as one label; for
            a class per sequence that is learned at every step.
    """

    skip: int = 0
    mean: bool = False

    def __post_init__(self) -> None:
        if self.skip < 0:
            raise ValueError(f"skip must not be negative, got {self.skip}; 0 counts every step.")

    def parameters(self) -> dict[str, Array]:
        """Returns no parameters."""
        return {}

    def log_prob(self, own: Mapping[str, Array], outputs: Float[Array, "*axes batch class"], y: Array) -> Array:
        """Returns log p(y | outputs) at each step; ``y`` holds classes, or `UNLABELLED`, which gives 0."""
        y = jnp.broadcast_to(y, outputs.shape[:-1])
        # a product with a row of ones and zeros has a gradient that is cheaper than that of an index
        chosen = (y[..., None] == jnp.arange(outputs.shape[-1])).astype(outputs.dtype)
        return (jax.nn.log_softmax(outputs) * chosen).sum(-1)

    def of_sequence(self, own: Mapping[str, Array], outputs: Float[Array, "time batch class"], y: Array) -> Array:
        """Returns the sum over the steps of labels ``[batch, time]``, or of one label per sequence ``[batch]``."""
        if not self.skip < outputs.shape[0]:
            raise ValueError(f"skip must leave a step of {outputs.shape[0]}, got {self.skip}; lower it.")
        labels = y.T[self.skip :] if y.ndim == 2 else y
        total = self.log_prob(own, outputs[self.skip :], labels).sum(0)
        return total / (outputs.shape[0] - self.skip) if self.mean else total

    def curvature(self, own: Mapping[str, Array], outputs: Float[Array, "batch class"]) -> Array:
        """Returns diag(p) - p p' of one step."""
        return Categorical().curvature(own, outputs)

    def distribution(self, outputs: Float[Array, "batch class"]) -> tuple[Array, Array]:
        """Returns the probability of each class, ``[batch, class]``, and the entropy in nats, ``[batch]``."""
        return Categorical().distribution(outputs)


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

    def outputs(self, numbers: int) -> int:
        """Returns how many outputs a network needs for so many numbers."""
        return numbers

    def deviation(self, own: Mapping[str, Array]) -> Array:
        """Returns the standard deviation of the noise."""
        return own[SCALE] if self.learned else jnp.asarray(float(self.scale))

    def moments(self, own: Mapping[str, Array], outputs: Float[Array, "*axes output"]) -> tuple[Array, Array]:
        """Returns mean and standard deviation of each number, ``[*axes, number]``."""
        return outputs, jnp.broadcast_to(self.deviation(own), outputs.shape)

    def log_prob(self, own: Mapping[str, Array], outputs: Float[Array, "*axes batch output"], y: Array) -> Array:
        """Returns log p(y | outputs) of targets ``[batch, output]``, summed over outputs."""
        return jax.scipy.stats.norm.logpdf(y, outputs, self.deviation(own)).sum(-1)

    def of_sequence(self, own: Mapping[str, Array], outputs: Float[Array, "time batch output"], y: Array) -> Array:
        """Returns log p(y | outputs of the last step)."""
        return self.log_prob(own, outputs[-1], y)

    def curvature(self, own: Mapping[str, Array], outputs: Float[Array, "batch output"]) -> Array:
        """Returns the identity over the noise's variance."""
        eye = jnp.eye(outputs.shape[-1]) / self.deviation(own) ** 2
        return jnp.broadcast_to(eye, (*outputs.shape, outputs.shape[-1]))


LEAST_DEVIATION = 1e-3
"""Standard deviations of standardised numbers below this would let single examples decide."""


@dataclasses.dataclass(frozen=True)
class InputGaussian:
    """Numbers with independent Normal noise whose standard deviation depends on the input (Nix & Weigend 1994).

    The first half of the outputs are the means m, the second half r says how noisy each is, with deviations
    s (softplus(r + log(e - 1)) + 0.001): s times 1 where r is 0.

    Attributes:
        scale: where the learned factor s of all deviations starts.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.scale < float("inf"):
            raise ValueError(f"the noise of a Gaussian likelihood must be positive and finite, got {self.scale}.")

    def outputs(self, numbers: int) -> int:
        """Returns how many outputs a network needs for so many numbers."""
        return 2 * numbers

    def parameters(self) -> dict[str, Array]:
        """Returns the factor of all deviations."""
        return {SCALE: jnp.asarray(float(self.scale))}

    def deviation(self, own: Mapping[str, Array]) -> Array:
        """Returns the factor of all deviations."""
        return own[SCALE]

    def moments(self, own: Mapping[str, Array], outputs: Float[Array, "*axes output"]) -> tuple[Array, Array]:
        """Returns mean and standard deviation of each number, ``[*axes, number]``."""
        mean, raw = jnp.split(outputs, 2, axis=-1)
        return mean, own[SCALE] * (jax.nn.softplus(raw + jnp.log(jnp.expm1(1.0))) + LEAST_DEVIATION)

    def log_prob(self, own: Mapping[str, Array], outputs: Float[Array, "*axes batch output"], y: Array) -> Array:
        """Returns log p(y | outputs) of targets ``[batch, number]``, summed over numbers."""
        mean, deviation = self.moments(own, outputs)
        return jax.scipy.stats.norm.logpdf(y, mean, deviation).sum(-1)

    def of_sequence(self, own: Mapping[str, Array], outputs: Float[Array, "time batch output"], y: Array) -> Array:
        """Returns log p(y | outputs of the last step)."""
        return self.log_prob(own, outputs[-1], y)

    def curvature(self, own: Mapping[str, Array], outputs: Float[Array, "batch output"]) -> Array:
        """Returns the Fisher information, diagonal: 1 / deviation² of a mean, 2 (deviation' / deviation)² of r."""
        _, deviation = self.moments(own, outputs)
        raw = jnp.split(outputs, 2, axis=-1)[1]
        slope = own[SCALE] * jax.nn.sigmoid(raw + jnp.log(jnp.expm1(1.0)))
        diagonal = jnp.concatenate([1 / deviation**2, 2 * (slope / deviation) ** 2], axis=-1)
        return diagonal[:, :, None] * jnp.eye(outputs.shape[-1])
