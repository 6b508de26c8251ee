"""The posterior predictive: averaged over weights, gates and firing noise, streamed over samples and examples."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dsnn.bayes import halting
from dsnn.bayes.lift import Lifted
from dsnn.bayes.likelihood import Bernoulli, Categorical
from dsnn.data import eval_batches
from dsnn.rng import stream
from dsnn.types import Array, Key


class Prediction(NamedTuple):
    """What the posterior predicts.

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


def predictor(lifted: Lifted, devices: int = 1) -> Callable[..., Prediction]:
    """Returns a compiled ``predict(params, x, key, *, samples, quantile, batch_size, progress) -> Prediction``.

    Memory is bounded: posterior draws run one after another, examples in batches. Any number of draws uses the same
    compiled program. An ensemble's members take turns. ``progress(done, total)`` is called after every batch.

    Args:
        lifted: the network.
        devices: of this process that share the draws.

    Raises:
        ValueError: the network's likelihood is of numbers.
    """
    likelihood = lifted.likelihood
    if not isinstance(likelihood, Categorical | Bernoulli):
        raise ValueError(f"classes are predicted by a likelihood of classes, got {type(likelihood).__name__}.")

    def one(params: dict[str, Array], x: Array, key: Key[Array, ""], quantile: Array, sample: Array) -> Prediction:
        key = jax.random.fold_in(key, sample)
        draw = lifted.draw(params, stream(key, "weights"), sample)
        logits = lifted.forward.logits(lifted.network(draw), x, key, lifted.adapt(key, x.shape[0]))
        stop = jnp.full(x.shape[0], logits.shape[0])
        if lifted.feature is not None:
            hazards = halting.hazard_logits(lifted.head(params), logits, lifted.feature)
            stop = halting.stop_step(hazards, quantile)
        probs, entropy = likelihood.distribution(jnp.take_along_axis(logits, (stop - 1)[None, :, None], 0)[0])
        return Prediction(probs, likelihood.distribution(logits[-1])[0], entropy, stop.astype(jnp.float32))

    def every(
        params: dict[str, Array], x: Array, key: Key[Array, ""], quantile: Array, samples: Array, first: Any = 0
    ) -> Prediction:
        """Sums the draws first, first + devices, ... below ``samples``."""

        def add(turn: Array, total: Prediction) -> Prediction:
            return jax.tree.map(jnp.add, total, one(params, x, key, quantile, first + turn * devices))

        shapes = jax.eval_shape(one, params, x, key, quantile, jnp.zeros((), jnp.int32))
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.fori_loop(0, (samples - first + devices - 1) // devices, add, zero)

    row, whole = Mesh(np.array(jax.local_devices()[:devices]), ("device",)), PartitionSpec()

    def shared(*arguments: Any) -> Prediction:
        def here(params: Any, x: Array, key: Any, quantile: Array, samples: Array) -> Prediction:
            first = jax.lax.axis_index("device")
            return jax.lax.psum(every(params, x, key, quantile, samples, first), "device")

        return jax.shard_map(here, mesh=row, in_specs=whole, out_specs=whole, check_vma=False)(*arguments)

    summed = every if devices == 1 else shared

    @jax.jit
    def batch(params: dict[str, Array], x: Array, key: Key[Array, ""], quantile: Array, samples: Array) -> Prediction:
        total = summed(params, x, key, quantile, samples)
        return jax.tree.map(lambda a: a / samples, total)

    def predict(
        params: dict[str, Array],
        x: np.ndarray,
        key: Key[Array, ""],
        *,
        samples: int,
        quantile: float = 0.5,
        batch_size: int = 256,
        progress: Callable[[int, int], None] | None = None,
    ) -> Prediction:
        if samples < 1:
            raise ValueError(f"the number of posterior samples must be at least 1, got {samples}.")
        if devices > 1:
            params = jax.device_put(params, NamedSharding(row, whole))
        parts = []
        indices, masks = eval_batches(len(x), batch_size)
        for index, mask in zip(indices, masks, strict=True):
            part = batch(params, jnp.asarray(x[index]), key, jnp.asarray(quantile), jnp.asarray(samples))
            parts.append(jax.tree.map(lambda a, mask=mask: np.asarray(a)[mask], part))
            if progress is not None:
                progress(len(parts), len(indices))
        return jax.tree.map(lambda *a: np.concatenate(a), *parts)

    return predict
