"""The posterior predictive of numbers: a mixture of Normals over posterior draws, with intervals."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.bayes.lift import Lifted
from dsnn.bayes.likelihood import Gaussian, InputGaussian
from dsnn.data import eval_batches
from dsnn.data.rows import Rows
from dsnn.rng import stream
from dsnn.types import Array, Float, Key

BISECTIONS = 40


class Regression(NamedTuple):
    """What the posterior predicts, each ``[n, output]`` in the unit of the targets but for the density, ``[n]``.

    Intervals and deviations are those of each output by itself. The density is that of all outputs of an example
    together: they are independent given one draw, but not under the mixture of draws, whose density is
    1/S Σ_s Π_o N(y_o; centre_so, deviation²).

    Attributes:
        mean: of the predictive.
        lower: end of the central interval.
        upper: its other end.
        aleatoric: standard deviation of the observation noise.
        epistemic: standard deviation of the outputs over draws of weights, gates and firing.
        log_prob: joint log density of the targets given to `regressor`'s function, NaN without them.
    """

    mean: Any
    lower: Any
    upper: Any
    aleatoric: Any
    epistemic: Any
    log_prob: Any


def mixture_quantile(centres: Float[Array, "sample *axes"], deviation: Array, share: float) -> Float[Array, "*axes"]:
    """Returns the quantile of an equal mixture of Normals, by bisection.

    Args:
        centres: their means.
        deviation: their standard deviations, one or as many as means.
        share: in (0, 1).
    """
    low, high = (centres - 8 * deviation).min(0), (centres + 8 * deviation).max(0)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        below = jax.scipy.stats.norm.cdf(middle, centres, deviation).mean(0) < share
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (low, high))
    return (low + high) / 2


def regressor(lifted: Lifted) -> Callable[..., Regression]:
    """Returns a compiled ``predict(params, x, key, *, samples, y, level, batch_size, progress) -> Regression``.

    Draws run one after another, examples in batches; only one number per draw and output of a batch is kept.

    Raises:
        ValueError: the network's likelihood is not Gaussian.
    """
    likelihood = lifted.likelihood
    if not isinstance(likelihood, Gaussian | InputGaussian):
        raise ValueError(f"numbers are predicted under a Gaussian likelihood, got {type(likelihood).__name__}.")

    def outputs(params: dict[str, Array], x: Array, key: Key[Array, ""], sample: Array) -> Array:
        key = jax.random.fold_in(key, sample)
        draw = lifted.draw(params, stream(key, "weights"), sample)
        return lifted.forward.logits(lifted.network(draw), x, key, lifted.adapt(key, x.shape[0]))[-1]

    def batch(params: dict[str, Array], x: Array, y: Array, key: Key[Array, ""], samples: int, level: float) -> Any:
        drawn = jax.lax.map(lambda s: outputs(params, x, key, s), jnp.arange(samples))
        own = lifted.likelihood_parameters(params)
        centres, deviation = likelihood.moments(own, drawn)
        tail = (1 - level) / 2
        log_prob = jax.nn.logsumexp(likelihood.log_prob(own, drawn, y), 0) - jnp.log(samples)
        return Regression(
            centres.mean(0),
            mixture_quantile(centres, deviation, tail),
            mixture_quantile(centres, deviation, 1 - tail),
            jnp.sqrt((deviation**2).mean(0)),
            centres.std(0),
            log_prob,
        )

    compiled = jax.jit(batch, static_argnums=(4, 5))

    def predict(
        params: dict[str, Array],
        x: np.ndarray | Rows,
        key: Key[Array, ""],
        *,
        samples: int,
        y: np.ndarray | None = None,
        level: float = 0.9,
        batch_size: int = 256,
        progress: Callable[[int, int], None] | None = None,
    ) -> Regression:
        if samples < 1:
            raise ValueError(f"the number of posterior samples must be at least 1, got {samples}.")
        if not 0 < level < 1:
            raise ValueError(f"the level of an interval must be in (0, 1), got {level}; 0.9 is usual.")
        width = lifted.forward.template.build(lifted.initial).out_shape[-1] // likelihood.outputs(1)
        targets = np.full((len(x), width), np.nan, np.float32) if y is None else np.asarray(y)
        parts = []
        indices, masks = eval_batches(len(x), batch_size)
        for index, mask in zip(indices, masks, strict=True):
            part = compiled(params, jnp.asarray(x[index]), jnp.asarray(targets[index]), key, samples, level)
            parts.append(jax.tree.map(lambda a, mask=mask: np.asarray(a)[mask], part))
            if progress is not None:
                progress(len(parts), len(indices))
        return jax.tree.map(lambda *a: np.concatenate(a), *parts)

    return predict
