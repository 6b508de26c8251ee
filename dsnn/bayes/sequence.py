"""The posterior predictive at every time step, averaged over weights, gates and firing noise."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.bayes.lift import Lifted
from dsnn.data import eval_batches
from dsnn.data.rows import Rows
from dsnn.rng import stream
from dsnn.types import Array, Key


class Sequence(NamedTuple):
    """What the posterior predicts step by step.

    Attributes:
        probs: predictive probabilities after each step, ``[n, time, class]``.
        aleatoric: mean entropy of the samples' predictions in nats, ``[n, time]``.
    """

    probs: Any
    aleatoric: Any


def sequencer(lifted: Lifted) -> Callable[..., Sequence]:
    """Returns a compiled ``predict(params, x, key, *, samples, batch_size, progress) -> Sequence``.

    Posterior draws run one after another, examples in batches; any number of draws uses the same program.
    """

    def one(params: dict[str, Array], x: Array, key: Key[Array, ""], sample: Array) -> Sequence:
        key = jax.random.fold_in(key, sample)
        draw = lifted.draw(params, stream(key, "weights"), sample)
        logits = lifted.forward.logits(lifted.network(draw), x, key, lifted.adapt(key, x.shape[0]))
        log_p = jax.nn.log_softmax(logits)
        probs = jnp.exp(log_p)
        return Sequence(jnp.swapaxes(probs, 0, 1), -(probs * log_p).sum(-1).T)

    @jax.jit
    def batch(params: dict[str, Array], x: Array, key: Key[Array, ""], samples: Array) -> Sequence:
        shapes = jax.eval_shape(one, params, x, key, jnp.zeros((), jnp.int32))
        zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def add(turn: Array, total: Sequence) -> Sequence:
            return jax.tree.map(jnp.add, total, one(params, x, key, turn))

        return jax.tree.map(lambda a: a / samples, jax.lax.fori_loop(0, samples, add, zero))

    def predict(
        params: dict[str, Array],
        x: np.ndarray | Rows,
        key: Key[Array, ""],
        *,
        samples: int,
        batch_size: int = 256,
        progress: Callable[[int, int], None] | None = None,
    ) -> Sequence:
        if samples < 1:
            raise ValueError(f"the number of posterior samples must be at least 1, got {samples}.")
        parts = []
        indices, masks = eval_batches(len(x), batch_size)
        for index, mask in zip(indices, masks, strict=True):
            part = batch(params, jnp.asarray(x[index]), key, jnp.asarray(samples))
            parts.append(jax.tree.map(lambda a, mask=mask: np.asarray(a)[mask], part))
            if progress is not None:
                progress(len(parts), len(indices))
        return jax.tree.map(lambda *a: np.concatenate(a), *parts)

    return predict
