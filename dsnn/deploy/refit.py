"""The stopping guide q(n | x) fitted on examples that trained nothing else.

On its own training examples a network is nearly always right and sure, so none of them gains from another step, and
what was learned there about stopping falls back on prior and entropy. On held-out examples more steps do mend errors.
The network stays as it is; the objective has the form of the stopping part of the ELBO, summed over n exactly:

    E_q[log p(y | x, n)] + c H(q(n | x)) - price E_q[n]

with price = λ E_step in nats per step. At c = 1 the posterior is not tempered, and soft, since a step seldom changes
the likelihood by a nat: up to log T nats of entropy outbid what the labels say, and q stops near T / 2 whatever the
evidence. By default c = price / log T, so that the whole entropy is never worth more than one step: a tempered ("cold")
posterior that tells examples apart.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dsnn.bayes import halting
from dsnn.simulate.simulator import log_likelihood
from dsnn.types import Array, Float, Int

SLOPES = (4.0, 16.0)
CUTS = 24
GROWTHS = (0.0, 0.5, 1.0, 1.5, 2.0)
TEMPERATURES = 61


class Refit(NamedTuple):
    """A head and its objective, in nats per example, at the start and at the end.

    Attributes:
        head: of q(n | x).
        temperatures: under which the labels are likeliest at each step, see `temperatures`.
        start: objective of the best threshold rule.
        end: objective of the head.
    """

    head: dict[str, Array]
    temperatures: Float[Array, " time"]
    start: Float[Array, ""]
    end: Float[Array, ""]


def refit(
    logits: Float[Array, "time batch class"],
    labels: Int[Array, " batch"],
    price: Float[Array, ""] | float,
    *,
    feature: str = "learned",
    entropy: float | None = None,
    updates: int = 200,
    rate: float = 0.003,
    decay: float = 2.0,
) -> Refit:
    """Returns the head that is best on these examples; a pure function that can be compiled and mapped over prices.

    The ascent (Adam, all examples at once) begins at the best of a grid of threshold rules on the certainty, so the
    head is at least as good on these examples as every one of them. The likelihood of each step is that of its logits
    at the temperature that suits them best: as they stand those of later steps are too sure of themselves, and more
    steps would look like a loss.

    Args:
        logits: running logits of held-out examples.
        labels: their classes.
        price: of a step, nats.
        feature: what the head reads, see `dsnn.bayes.halting`.
        entropy: weight c of the entropy; None is price / log T.
        updates: of the ascent.
        rate: its first learning rate, which falls to zero.
        decay: decoupled weight decay of the learned head's layer.
    """
    steps = logits.shape[0]
    suited = temperatures(logits, labels)
    observed = log_likelihood(logits / suited[:, None, None], labels)
    read = halting.read(logits, feature)
    learned = feature == "learned"
    weight = price / math.log(max(steps, 2)) if entropy is None else entropy

    def objective(head: dict[str, Array]) -> Float[Array, ""]:
        log_q = halting.log_stop(halting.odds(head, read))
        expected, spread, mean = halting.mixture_elbo(log_q, observed)
        return (expected + weight * spread - price * mean).mean()

    def threshold(growth: Array, slope: Array, level: Array) -> dict[str, Array]:
        """Returns the head that stops where the grown certainty exceeds its quantile at ``level``."""
        cut = jnp.quantile(read.certainty * read.step**growth, level)
        head = halting.initial_head(steps, feature) | ({"growth": growth} if learned else {})
        return head | {"slope": jnp.log(jnp.expm1(slope)), "bias": -slope * cut, "drift": jnp.zeros(())}

    axes = (GROWTHS if learned else (0.0,), SLOPES, jnp.append(jnp.linspace(0.01, 0.95, CUTS), 1.0))
    grid = tuple(axis.ravel() for axis in jnp.meshgrid(*(jnp.asarray(axis) for axis in axes)))
    best = jax.lax.map(lambda point: objective(threshold(*point)), grid).argmax()
    head = threshold(*(axis[best] for axis in grid))
    tx = optax.adamw(optax.cosine_decay_schedule(rate, updates), weight_decay=decay, mask=_decays)

    def update(carry: tuple[dict[str, Array], Any], _: None) -> tuple[Any, None]:
        head, state = carry
        move, state = tx.update(jax.grad(lambda h: -objective(h))(head), state, head)
        return (optax.apply_updates(head, move), state), None

    (ended, _), _ = jax.lax.scan(update, (head, tx.init(head)), None, updates)
    start, end = objective(head), objective(ended)
    better = jax.tree.map(lambda a, b: jnp.where(end > start, a, b), ended, head)
    return Refit(better, suited, start, jnp.maximum(start, end))


def temperatures(logits: Float[Array, "time batch class"], labels: Int[Array, " batch"]) -> Float[Array, " time"]:
    """Returns the temperature of each step's logits, between 0.01 and 10, under which the labels are likeliest.

    Weights that learned with all steps say little after few of them, and what they say is right more often than it
    sounds: a mean over steps begins near zero.
    """
    tried = jnp.geomspace(0.01, 10.0, TEMPERATURES)
    fits = jax.lax.map(lambda temperature: log_likelihood(logits / temperature, labels).mean(1), tried)
    return tried[fits.argmax(0)]


def _decays(head: dict[str, Array]) -> dict[str, bool]:
    return {name: name in ("inner", "outer") for name in head}
