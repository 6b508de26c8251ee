"""When to stop: a posterior q(n | x) over the number of time steps, read from the running decision.

The prior is truncated geometric, p(n) ∝ exp(-λ E_step n) on {1..T} (design, equation 4); the likelihood is summed over
n exactly. q is built from hazards h_t = P(stop at t | not stopped) of the running logits, so it can be evaluated as the
network runs.
"""

import jax
import jax.numpy as jnp

from dsnn.anytime import Rule
from dsnn.types import Array, Float, Int

FEATURES = ("entropy", "margin")


def certainty(logits: Float[Array, "*axes class"], feature: str = "margin") -> Float[Array, "*axes"]:
    """Returns how sure a running decision is, larger is surer.

    Args:
        logits: running logits.
        feature: "margin", the log odds between the two likeliest classes, or "entropy", minus the log of the entropy
            in nats.
    """
    if feature == "margin":
        # two maxima are much faster than a sort on CPU
        first = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1], dtype=bool)
        return logits.max(-1) - jnp.where(first, -jnp.inf, logits).max(-1)
    if feature == "entropy":
        log_p = jax.nn.log_softmax(logits)
        return -jnp.log(jnp.maximum(-(jnp.exp(log_p) * log_p).sum(-1), 1e-9))
    raise ValueError(f"a halting feature must be one of {', '.join(FEATURES)}, got {feature!r}.")


def initial_head(steps: int) -> dict[str, Array]:
    """Returns the parameters of a head that begins near uniform over the steps."""
    return {"bias": jnp.asarray(-2.5), "slope": jnp.asarray(0.1), "drift": jnp.asarray(1.0 / steps)}


def hazard_logits(
    head: dict[str, Array], logits: Float[Array, "time *batch class"], feature: str = "margin"
) -> Float[Array, "time *batch"]:
    """Returns the log odds of stopping at each step, from the logits up to it; no gradient reaches the network."""
    sure = certainty(jax.lax.stop_gradient(logits), feature)
    steps = jnp.arange(1, logits.shape[0] + 1, dtype=sure.dtype).reshape(-1, *[1] * (sure.ndim - 1))
    return head["bias"] + jax.nn.softplus(head["slope"]) * sure + head["drift"] * steps


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


def stop_step(hazards: Float[Array, "time *batch"], quantile: float | Array = 0.5) -> Int[Array, "*batch"]:
    """Returns the step, 1..T, by which q has stopped with probability ``quantile``: the rule used at run time."""
    stopped = jnp.cumsum(jnp.exp(log_stop(hazards)), 0) >= quantile
    return jnp.where(stopped.any(0), stopped.argmax(0) + 1, hazards.shape[0])


def rule(head: dict[str, Array], feature: str = "margin", quantile: float | Array = 0.5) -> Rule:
    """Returns `stop_step` as a rule for `dsnn.anytime`: its state is the log probability of still running."""

    def stop(survived: Array, logits: Array, step: Array) -> tuple[Array, Array]:
        hazard = head["bias"] + jax.nn.softplus(head["slope"]) * certainty(logits, feature) + head["drift"] * step
        survived = survived + jax.nn.log_sigmoid(-hazard)
        return survived, jnp.exp(survived) <= 1.0 - quantile

    return Rule(jnp.zeros, stop)
