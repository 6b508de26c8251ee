"""The posterior over stopping times q(n | x), with what of it is learned or fitted.

In plain NumPyro ``halting.learned()`` stands in the model and in its guide, and `HaltingPosterior.expectation` sums the
stopping time out of a likelihood. The functions that it is made of are those of `dsnn.bayes.halting`.
"""

import dataclasses

import jax.numpy as jnp
import numpyro

from dsnn.bayes import halting
from dsnn.parameters import Params
from dsnn.types import Array, Float

TEMPERATURE, SHARPNESS = "halting.temperature", "halting.sharpness"


@dataclasses.dataclass(frozen=True)
class HaltingPosterior:
    """Hazards of stopping, read from the running decision by a small head.

    Attributes:
        steps: time steps T.
        feature: what the head reads, see `dsnn.bayes.halting`.
        joint: whether q(n | x) learns with the weights, its likelihood and its steps mixed into the objective. Without,
            learning runs all steps, and q(n | x) is fitted afterwards (`dsnn.deploy.exit_calibration`), so that
            stopping early cannot harm what is learned: evidence that comes late would else never be waited for.
    """

    steps: int
    feature: str = "margin"
    joint: bool = False

    def __post_init__(self) -> None:
        if self.feature not in halting.FEATURES:
            raise ValueError(f"a halting feature must be one of {', '.join(halting.FEATURES)}, got {self.feature!r}.")

    def learned(self) -> dict[str, Array]:
        """Returns the head with its learned parameters, inside a NumPyro model or guide."""
        initial = halting.initial_head(self.steps, self.feature)
        return {name: numpyro.param(f"halting.{name}", value) for name, value in initial.items()}

    def head(self, params: Params) -> dict[str, Array]:
        """Returns the head among the guide's parameters, the initial one where none was fitted yet."""
        first = halting.initial_head(self.steps, self.feature)
        return {name: params.get(f"halting.{name}", value) for name, value in first.items()}

    def hazards(self, head: dict[str, Array], logits: Float[Array, "time *batch class"]) -> Float[Array, "time *batch"]:
        """Returns the log odds of stopping at each step; no gradient reaches the network."""
        return halting.hazard_logits(head, logits, self.feature)

    def log_q(self, head: dict[str, Array], logits: Float[Array, "time *batch class"]) -> Float[Array, "time *batch"]:
        """Returns log q(n | x) for n = 1..T."""
        return halting.log_stop(self.hazards(head, logits))

    def expectation(
        self,
        head: dict[str, Array],
        logits: Float[Array, "time batch class"],
        log_likelihood: Float[Array, "time batch"],
    ) -> tuple[Float[Array, " batch"], Float[Array, " time"]]:
        """Returns E_q[log p(y | x, n)] + H(q(n | x)) per example, and the share of them that reaches each step."""
        log_q = self.log_q(head, logits)
        expected, entropy, _ = halting.mixture_elbo(log_q, log_likelihood)
        return expected + entropy, _reached(log_q).mean(1)

    def reached(self, head: dict[str, Array], logits: Float[Array, "time batch class"]) -> Float[Array, "time batch"]:
        """Returns the probability that each example reaches each step."""
        return _reached(self.log_q(head, logits))

    def mean_steps(self, params: Params, logits: Float[Array, "time batch class"]) -> Float[Array, ""]:
        """Returns E_q[n] over a batch of running logits."""
        q = jnp.exp(self.log_q(self.head(params), logits))
        return (q * jnp.arange(1, logits.shape[0] + 1)[:, None]).sum(0).mean()

    def temperature(self, params: Params) -> Float[Array, " time"]:
        """Returns what the logits of an answer are divided by, after each step; ones where nothing was fitted."""
        return params.get(TEMPERATURE, jnp.ones(self.steps))

    def sharpness(self, params: Params) -> Float[Array, ""]:
        """Returns what early logits of the predictive's draws are multiplied by; 1 where nothing was fitted."""
        return params.get(SHARPNESS, jnp.ones(()))

    def unfitted(self) -> dict[str, Array]:
        """Returns the parameters that are fitted once learning is over, as they are before: they change no answer."""
        found = {f"halting.{name}": value for name, value in self.head({}).items()}
        return found | {TEMPERATURE: self.temperature({}), SHARPNESS: self.sharpness({})}


def _reached(log_q: Float[Array, "time *batch"]) -> Float[Array, "time *batch"]:
    """Returns q(n >= t | x) from log q(n | x)."""
    return jnp.cumsum(jnp.exp(log_q)[::-1], 0)[::-1]
