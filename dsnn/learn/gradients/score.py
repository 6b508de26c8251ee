"""The score-function gradient (REINFORCE): unbiased for spikes that are drawn, whatever the network."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dsnn.cells.firing import intervene
from dsnn.simulate.unroll import unroll
from dsnn.types import Array, Float, Key

BASELINES = ("none", "leave_one_out", "control_variate")


def sample(
    model: Any, xs: Float[Array, "time batch ..."], key: Key[Array, ""]
) -> tuple[Float[Array, "time batch ..."], Float[Array, " batch"]]:
    """Runs a stochastic network with its spikes held constant, and returns outputs and log-probability.

    Args:
        model: a `Stack`, layer or cell; every spiking cell has an escape noise with ``log_prob``.
        xs: inputs.
        key: drives the firing; consumed.

    Returns:
        outputs ``[time, batch, ...]`` and log P(all spikes | inputs) ``[batch]``, whose derivative is the score. No
        gradient passes through a spike.

    Raises:
        ValueError: a cell fires without an escape noise.
    """
    found: list[Array] = []

    def hold(noise: Any, u: Array, spikes: Array) -> Array:
        if not callable(getattr(noise, "log_prob", None)):
            raise ValueError(
                f"every firing cell needs an escape noise, got {type(noise).__name__}; give noise=Logistic(...)."
            )
        spikes = jax.lax.stop_gradient(spikes)
        found.append(noise.log_prob(u, spikes).reshape(u.shape[0], -1).sum(1))
        return spikes

    def record(states: Any, spikes: Any) -> Array:
        total = sum(found, jnp.zeros(xs.shape[1]))
        found.clear()
        return total

    with intervene(hold):
        outputs, _, log_prob = unroll(model, xs, key, record, "step")
    return outputs, log_prob.sum(0)


def score_gradient(
    build: Callable[[Any], Any],
    params: Any,
    xs: Float[Array, "time batch ..."],
    loss: Callable[[Array], Float[Array, " batch"]],
    key: Key[Array, ""],
    *,
    samples: int = 16,
    baseline: str = "leave_one_out",
) -> tuple[Float[Array, ""], Any]:
    """Returns the expected loss and an unbiased estimate of its gradient, mean over the batch (Williams 1992).

        g = mean over s of (L_s - a) d log P(spikes_s) + dL_s

    where dL holds spikes constant and a is a baseline that does not change the expectation.

    Args:
        build: parameters -> network, such as `Template.build`.
        params: where the gradient is taken.
        xs: inputs.
        loss: outputs ``[time, batch, ...]`` -> loss per example.
        key: drives the firing; consumed.
        samples: independent runs; at least 2 with "leave_one_out", 3 with "control_variate".
        baseline: "none"; "leave_one_out", the mean loss of the other samples, per example (Kool et al. 2019; Mnih and
            Rezende 2016); or "control_variate", per parameter the multiple of the score with the least variance, as
            estimated from the other samples (Ranganath et al. 2014, eq. 9), which costs a gradient's memory per sample.

    Raises:
        ValueError: an unknown baseline, or too few samples for it.
    """
    if baseline not in BASELINES:
        raise ValueError(f"baseline must be one of {', '.join(BASELINES)}, got {baseline!r}.")
    least = BASELINES.index(baseline) + 1
    if samples < least:
        raise ValueError(f"baseline {baseline!r} needs at least {least} samples, got {samples}.")
    keys = jax.random.split(key, samples)

    def run(params: Any, key: Key[Array, ""]) -> tuple[Array, Array]:
        outputs, log_prob = sample(build(params), xs, key)
        return loss(outputs), log_prob

    if baseline == "control_variate":
        return _with_control_variate(run, params, keys)

    def objective(params: Any) -> tuple[Array, Array]:
        losses, log_probs = jax.vmap(run, (None, 0))(params, keys)
        advantage = losses if baseline == "none" else _against_others(losses)
        return (jax.lax.stop_gradient(advantage) * log_probs + losses).mean(), losses.mean()

    (_, value), grads = jax.value_and_grad(objective, has_aux=True)(params)
    return value, grads


def _against_others(losses: Float[Array, "sample batch"]) -> Float[Array, "sample batch"]:
    """Each sample's loss less the mean of the others'."""
    count = losses.shape[0]
    return (losses - losses.mean(0)) * count / (count - 1)


def _with_control_variate(run: Callable, params: Any, keys: Array) -> tuple[Array, Any]:
    def parts(key: Array) -> tuple[Array, Any, Any]:
        """Returns loss, gradient estimate and score of one sample; the others must not enter, or there is a bias."""

        def both(params: Any) -> tuple[tuple[Array, Array], Array]:
            losses, log_prob = run(params, key)
            return ((jax.lax.stop_gradient(losses) * log_prob + losses).mean(), log_prob.mean()), losses.mean()

        _, pullback, value = jax.vjp(both, params, has_aux=True)
        one, zero = jnp.ones(()), jnp.zeros(())
        return value, pullback((one, zero))[0], pullback((zero, one))[0]

    values, estimates, scores = jax.vmap(parts)(keys)

    def combine(g: Array, h: Array) -> Array:
        n = g.shape[0]

        def others(a: Array) -> Array:
            return (a.sum(0) - a) / (n - 1)

        # a score's mean is known to be zero, so its second moment is its variance: no difference of two estimates that
        # a few equal samples could leave near zero
        variance = others(h * h)
        multiple = jnp.where(variance > 0, others(g * h) / jnp.where(variance > 0, variance, 1.0), 0.0)
        return (g - multiple * h).mean(0)

    return values.mean(), jax.tree.map(combine, estimates, scores)
