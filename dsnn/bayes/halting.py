"""When to stop: a posterior q(n | x) over the number of time steps, read from the running decision.

The prior is truncated geometric, p(n) ∝ exp(-λ E_step n) on {1..T} (design, equation 4); the likelihood is summed over
n exactly. q is built from hazards h_t = P(stop at t | not stopped) of the running logits, so it can be evaluated as the
network runs. An example stops once the log odds of having stopped reach a threshold: 0 is the posterior median, and
infinity runs all steps. Thresholds are log odds everywhere: a probability in single precision would lose them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from dsnn.simulate.early_exit import Rule
from dsnn.types import Array, Float, Int

FEATURES = ("entropy", "margin", "learned")
WIDTH = 16
LARGEST_ODDS = 20.0


class Seen(NamedTuple):
    """What the next step needs to know of a decision: probability and number of its likeliest class."""

    probability: Float[Array, "*axes"]
    winner: Int[Array, "*axes"]


def certainty(logits: Float[Array, "*axes class"], feature: str = "margin") -> Float[Array, "*axes"]:
    """Returns how sure a running decision is, larger is surer.

    Args:
        logits: running logits.
        feature: "margin", the log odds between the two likeliest classes, or "entropy", minus the log of the entropy
            in nats; "learned" takes the margin as its base.
    """
    if feature in ("margin", "learned"):
        # two maxima are much faster than a sort on CPU
        first = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=bool)
        return logits.max(-1) - jnp.where(first, -jnp.inf, logits).max(-1)
    if feature == "entropy":
        log_p = jax.nn.log_softmax(logits)
        return -jnp.log(jnp.maximum(-(jnp.exp(log_p) * log_p).sum(-1), 1e-9))
    raise ValueError(f"a halting feature must be one of {', '.join(FEATURES)}, got {feature!r}.")


def nothing_seen(shape: tuple[int, ...]) -> Seen:
    """Returns what was seen before the first step."""
    return Seen(jnp.zeros(shape), jnp.full(shape, -1))


def signs(logits: Float[Array, "*axes class"], step: Array, before: Seen) -> tuple[Float[Array, "*axes sign"], Seen]:
    """Returns what the learned head reads of a running decision, each of order one, and what the next step needs.

    In order: the three largest class probabilities (two classes have a third of 0), the log odds of the first two,
    minus the log of the entropy, the change of the largest probability since the step before, whether the winner
    changed, the step's log and inverse.

    Args:
        logits: running logits.
        step: counted from 1, broadcast against ``axes``.
        before: of the step before.
    """
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    winner = p.argmax(-1)
    largest, rest = [], p
    for _ in range(3):
        largest.append(jnp.maximum(rest.max(-1), 0.0))
        rest = jnp.where(jax.nn.one_hot(rest.argmax(-1), p.shape[-1], dtype=bool), -1.0, rest)
    step = jnp.broadcast_to(jnp.asarray(step, p.dtype), winner.shape)
    values = [
        *largest,
        jnp.minimum(certainty(logits), LARGEST_ODDS) / 5,
        certainty(logits, "entropy") / 5,
        largest[0] - before.probability,
        (winner != before.winner).astype(p.dtype),
        jnp.log(step) / 2,
        1 / step,
    ]
    return jnp.stack(values, -1), Seen(largest[0], winner)


SIGNS = 9


def initial_head(steps: int, feature: str = "margin") -> dict[str, Array]:
    """Returns the parameters of a head that begins near uniform over the steps.

    The learned head lets the margin count for more as time goes on, margin step^growth: under the mean readout the
    evidence, a sum, is the step times what the logits say. It also adds a hidden layer of `WIDTH`, which begins with no
    effect, from a discrete cosine transform, so no key is needed.
    """
    head = {"bias": jnp.asarray(-2.5), "slope": jnp.asarray(0.1), "drift": jnp.asarray(1.0 / steps)}
    if feature == "learned":
        head["growth"] = jnp.zeros(())
        rows, columns = jnp.arange(SIGNS)[:, None], jnp.arange(WIDTH)
        head["inner"] = jnp.cos(jnp.pi * (columns + 0.5) * (rows + 1) / WIDTH)
        head |= {"shift": jnp.zeros(WIDTH), "outer": jnp.zeros(WIDTH)}
    return head


class Read(NamedTuple):
    """What a head reads of running decisions; ``signs`` is None unless it is learned."""

    certainty: Float[Array, "*axes"]
    step: Float[Array, "..."]
    signs: Float[Array, "*axes sign"] | None


def read(logits: Float[Array, "time *batch class"], feature: str = "margin") -> Read:
    """Returns what a head reads of all steps at once; no gradient reaches the network."""
    logits = jax.lax.stop_gradient(logits)
    steps = jnp.arange(1, logits.shape[0] + 1, dtype=logits.dtype).reshape(-1, *[1] * (logits.ndim - 2))
    if feature != "learned":
        return Read(certainty(logits, feature), steps, None)
    empty = nothing_seen(logits.shape[:-1])
    before = jax.tree.map(lambda none, a: jnp.concatenate([none[:1], a[:-1]]), empty, signs(logits, steps, empty)[1])
    return Read(certainty(logits), steps, signs(logits, steps, before)[0])


def odds(head: dict[str, Array], read: Read) -> Float[Array, "*axes"]:
    """Returns the log odds of stopping."""
    base = head["bias"] + head["drift"] * read.step
    if read.signs is None:
        return base + jax.nn.softplus(head["slope"]) * read.certainty
    grown = read.certainty * jnp.asarray(read.step, read.certainty.dtype) ** head["growth"]
    return (
        base
        + jax.nn.softplus(head["slope"]) * grown
        + jnp.tanh(read.signs @ head["inner"] + head["shift"]) @ head["outer"]
    )


def hazard_logits(
    head: dict[str, Array], logits: Float[Array, "time *batch class"], feature: str = "margin"
) -> Float[Array, "time *batch"]:
    """Returns the log odds of stopping at each step, from the logits up to it; no gradient reaches the network."""
    return odds(head, read(logits, feature))


def log_stop(hazards: Float[Array, "time *batch"]) -> Float[Array, "time *batch"]:
    """Returns log q(n) for n = 1..T: stop at n after not stopping before; the last step takes what is left."""
    go_on = jax.nn.log_sigmoid(-hazards)
    survived = jnp.concatenate([jnp.zeros_like(go_on[:1]), jnp.cumsum(go_on[:-1], 0)])
    stop = jax.nn.log_sigmoid(hazards).at[-1].set(0.0)
    return survived + stop


def mixture_elbo(
    log_q: Float[Array, "time batch"], log_likelihood: Float[Array, "time batch"]
) -> tuple[Float[Array, " batch"], Float[Array, " batch"], Float[Array, " batch"]]:
    """Returns E_q[log p(y | x, n)], H(q(n | x)) and E_q[n] per example, all summed exactly."""
    q = jnp.exp(log_q)
    steps = jnp.arange(1, log_q.shape[0] + 1, dtype=q.dtype)[:, None]
    return (q * log_likelihood).sum(0), -(q * log_q).sum(0), (q * steps).sum(0)


def stop_step(hazards: Float[Array, "time *batch"], threshold: float | Array = 0.0) -> Int[Array, "*batch"]:
    """Returns the step, 1..T, at which the log odds of having stopped reach a threshold: the rule used at run time.

    Args:
        hazards: log odds of stopping at each step.
        threshold: log odds; 0 is the median of q, infinity the last step.
    """
    stopped = log_odds_stopped(hazards) >= threshold
    return stopped.at[-1].set(True).argmax(0) + 1


def log_odds_stopped(hazards: Float[Array, "time *batch"]) -> Float[Array, "time *batch"]:
    """Returns the log odds of having stopped by each step, q(n <= t) / q(n > t), exact where these are extreme."""
    return _log_odds(jnp.cumsum(jax.nn.log_sigmoid(-hazards), 0))


def _log_odds(survived: Array) -> Array:
    """Returns log((1 - s) / s) from log s."""
    return jnp.log(-jnp.expm1(survived)) - survived


def rule(head: dict[str, Array], feature: str = "margin", threshold: float | Array = 0.0) -> Rule:
    """Returns `stop_step` as a rule for `dsnn.anytime`: it remembers the log probability of still running."""
    learned = feature == "learned"

    def init(batch: int) -> tuple[Array, Seen | None]:
        return jnp.zeros(batch), nothing_seen((batch,)) if learned else None

    def stop(state: tuple[Array, Seen | None], logits: Array, step: Array) -> tuple[tuple[Array, Seen | None], Array]:
        survived, seen = state
        values, seen = (None, None) if seen is None else signs(logits, step, seen)
        hazard = odds(head, Read(certainty(logits, feature), step, values))
        survived = survived + jax.nn.log_sigmoid(-hazard)
        return (survived, seen), _log_odds(survived) >= threshold

    return Rule(init, stop)
