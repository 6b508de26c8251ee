"""The posterior predictive: averaged over weights, gates and firing noise, streamed over samples and examples."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dsnn.bayes import halting
from dsnn.bayes.lift import Lifted
from dsnn.bayes.likelihood import Bernoulli, Categorical, Stepwise
from dsnn.data import eval_batches, require_finite
from dsnn.data.rows import Rows
from dsnn.rng import stream
from dsnn.types import Array, Float, Key


class Prediction(NamedTuple):
    """What the posterior predicts.

    Where several thresholds were asked for, all but ``full`` have an axis of them in front.

    Attributes:
        probs: predictive probabilities with early stopping, ``[n, class]``, or of each label, ``[n, label]``.
        full: the same when every step runs.
        aleatoric: mean entropy of the samples' predictions in nats, ``[n]``.
        steps: mean stopping step, ``[n]``.
    """

    probs: Any
    full: Any
    aleatoric: Any
    steps: Any


class Rules(NamedTuple):
    """When examples stop, and what their early logits are multiplied by, ``[rule]``."""

    threshold: Float[Array, " rule"]
    sharpness: Float[Array, " rule"]


Predict = Callable[..., Prediction]
"""``predict(params, x, key, *, samples, threshold, sharpness, batch_size, progress)``, see `predictor`."""


def predictor(lifted: Lifted, devices: int = 1) -> Predict:
    """Returns a compiled ``predict(params, x, key, *, samples, threshold, sharpness, batch_size, progress)``.

    Every draw stops each example by itself, once its log odds of having stopped reach ``threshold``; by default all
    steps run. Early logits are divided by the temperature of their step and multiplied by ``sharpness``, by default
    those among the parameters. Several thresholds share the draws and the steps. No examples have an empty answer.
    Memory is bounded: posterior draws run one after another, examples in batches. Any number of draws uses the same
    compiled program. An ensemble's members take turns. ``progress(done, total)`` is called after every batch.

    Args:
        lifted: the network.
        devices: of this process that share the draws.

    Raises:
        ValueError: the network's likelihood is of numbers, or of a class at every step.
    """
    likelihood = lifted.likelihood
    every_step = isinstance(likelihood, Stepwise) and not likelihood.mean
    if not isinstance(likelihood, Categorical | Bernoulli | Stepwise) or every_step:
        raise ValueError(f"classes are predicted by a likelihood of classes, got {type(likelihood).__name__}.")

    def one(params: dict[str, Array], x: Array, key: Key[Array, ""], rules: Rules, sample: Array) -> Prediction:
        key = jax.random.fold_in(key, sample)
        draw = lifted.draw(params, stream(key, "weights"), sample)
        logits = lifted.forward.logits(lifted.network(draw), x, key, lifted.adapt(key, x.shape[0]))
        hazards = None
        if lifted.feature is not None:
            hazards = halting.hazard_logits(lifted.head(params), logits, lifted.feature)

        def stopped(threshold: Array, sharper: Array) -> tuple[Array, Array, Array]:
            stop = jnp.full(x.shape[0], logits.shape[0]) if hazards is None else halting.stop_step(hazards, threshold)
            at = jnp.take_along_axis(logits, (stop - 1)[None, :, None], 0)[0]
            sharp = jnp.where(stop == logits.shape[0], 1.0, sharper / lifted.temperature(params)[stop - 1])
            at = at * sharp[:, None]
            return *likelihood.distribution(at), stop.astype(jnp.float32)

        probs, entropy, steps = jax.vmap(stopped)(*rules)
        return Prediction(probs, likelihood.distribution(logits[-1])[0], entropy, steps)

    def every(
        params: dict[str, Array], x: Array, key: Key[Array, ""], rules: Rules, samples: Array, first: Any = 0
    ) -> Prediction:
        """Sums the draws first, first + devices, ... below ``samples``."""

        def add(turn: Array, total: Prediction) -> Prediction:
            return jax.tree.map(jnp.add, total, one(params, x, key, rules, first + turn * devices))

        shapes = jax.eval_shape(one, params, x, key, rules, jnp.zeros((), jnp.int32))
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.fori_loop(0, (samples - first + devices - 1) // devices, add, zero)

    row, whole = Mesh(np.array(jax.local_devices()[:devices]), ("device",)), PartitionSpec()

    def shared(*arguments: Any) -> Prediction:
        def here(params: Any, x: Array, key: Any, rules: Rules, samples: Array) -> Prediction:
            first = jax.lax.axis_index("device")
            return jax.lax.psum(every(params, x, key, rules, samples, first), "device")

        return jax.shard_map(here, mesh=row, in_specs=whole, out_specs=whole, check_vma=False)(*arguments)

    summed = every if devices == 1 else shared

    @jax.jit
    def batch(params: dict[str, Array], x: Array, key: Key[Array, ""], rules: Rules, samples: Array) -> Prediction:
        total = summed(params, x, key, rules, samples)
        return jax.tree.map(lambda a: a / samples, total)

    def predict(
        params: dict[str, Array],
        x: np.ndarray | Rows,
        key: Key[Array, ""],
        *,
        samples: int,
        threshold: float | Sequence[float] | np.ndarray = math.inf,
        sharpness: float | np.ndarray | None = None,
        batch_size: int = 256,
        progress: Callable[[int, int], None] | None = None,
    ) -> Prediction:
        if samples < 1:
            raise ValueError(f"the number of posterior samples must be at least 1, got {samples}.")
        if devices > 1:
            params = jax.device_put(params, NamedSharding(row, whole))
        thresholds = jnp.atleast_1d(jnp.asarray(threshold, jnp.float32))
        sharper = lifted.sharpness(params) if sharpness is None else jnp.asarray(sharpness, jnp.float32)
        rules = Rules(thresholds, jnp.broadcast_to(sharper, thresholds.shape))
        parts = []
        indices, masks = eval_batches(len(x), batch_size)
        for index, mask in zip(indices, masks, strict=True):
            part = batch(params, jnp.asarray(require_finite(x[index])), key, rules, jnp.asarray(samples))
            made = jax.tree.map(np.asarray, part)
            parts.append(Prediction(made.probs[:, mask], made.full[mask], made.aleatoric[:, mask], made.steps[:, mask]))
            if progress is not None:
                progress(len(parts), len(indices))
        made = _joined(parts) if parts else _nothing(lifted, len(thresholds))
        return made if np.ndim(threshold) else Prediction(made.probs[0], made.full, made.aleatoric[0], made.steps[0])

    return predict


def _joined(parts: list[Prediction]) -> Prediction:
    """Returns the predictions of batches as one; examples are the second axis of all but ``full``."""
    axes = Prediction(1, 0, 1, 1)
    return Prediction(*(np.concatenate(a, axis) for a, axis in zip(zip(*parts, strict=True), axes, strict=True)))


def _nothing(lifted: Lifted, thresholds: int) -> Prediction:
    """Returns the prediction of no examples."""
    classes = lifted.forward.template.build(lifted.initial).out_shape
    empty = np.zeros((thresholds, 0), np.float32)
    return Prediction(
        np.zeros((thresholds, 0, *classes), np.float32), np.zeros((0, *classes), np.float32), empty, empty
    )
