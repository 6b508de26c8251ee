"""Examples a batch at a time, and posterior draws one after another: the loops that every prediction runs in."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sparse

from dsnn.bayes.bayesian import Bayesian
from dsnn.data import eval_batches, require_finite
from dsnn.rng import stream
from dsnn.types import Array, Float, Key

EVAL_BATCH = 256
"""Examples at a time, where nobody says otherwise."""

Told = Callable[[int, int], None]
"""``told(done, total)``, called after every batch."""


def in_batches(
    run: Callable[..., Any],
    x: Any,
    batch_size: int = EVAL_BATCH,
    *,
    beside: tuple[Any, ...] = (),
    axes: Any = 0,
    progress: Told | None = None,
) -> Any:
    """Returns what ``run(x, *beside)`` gives for all examples, of which it sees one batch at a time.

    The last batch is filled up with the first example and what that gives is left out, so that one compiled program
    serves all of them.

    Args:
        run: of a batch ``[batch, ...]``, to a pytree of arrays.
        x: all examples ``[n, ...]``: an array, or sparse rows, which are made dense a batch at a time; at least one.
        batch_size: at most.
        beside: arrays ``[n, ...]`` that go with the examples.
        axes: where the examples are in what is given: one number, or a pytree of them like it.
        progress: called after every batch.

    Raises:
        DataError: an input that is not finite.
        ValueError: no examples.
    """
    indices, masks = eval_batches(x.shape[0], batch_size)
    if not len(indices):
        raise ValueError("a prediction takes at least one example, got none; give some.")
    parts = []
    for index, mask in zip(indices, masks, strict=True):
        made = run(_batch(x, index), *(jnp.asarray(other[index]) for other in beside))
        every = jax.tree.map(lambda _: axes, made) if isinstance(axes, int) else axes
        parts.append(jax.tree.map(lambda a, axis, mask=mask: np.compress(mask, np.asarray(a), axis), made, every))
        if progress is not None:
            progress(len(parts), len(indices))
    return jax.tree.map(lambda axis, *a: np.concatenate(a, axis), every, *parts)


def first_batch(x: Any, batch_size: int = EVAL_BATCH) -> Array:
    """Returns the examples of the first batch, as `in_batches` gives them; for programs that are compiled ahead."""
    return _batch(x, eval_batches(x.shape[0], batch_size).indices[0])


def drawn(
    bayesian: Bayesian, params: dict[str, Array], x: Array, key: Key[Array, ""], sample: Array | int
) -> Float[Array, "time batch output"]:
    """Returns the outputs after every step under one posterior draw of weights, gates and firing noise.

    Args:
        bayesian: the network.
        params: of the guide.
        x: a batch of examples.
        key: of all draws; each takes its own from it.
        sample: number of the draw.
    """
    key = jax.random.fold_in(key, sample)
    draw = bayesian.draw(params, stream(key, "weights"), sample)
    return bayesian.simulator.logits(bayesian.network(draw), x, key, bayesian.adapt(key, x.shape[0]))


def outputs(
    bayesian: Bayesian, params: dict[str, Array], x: Array, key: Key[Array, ""], samples: int
) -> Float[Array, "sample batch output"]:
    """Returns the outputs after the last step under each of some posterior draws, which run one after another."""
    return jax.lax.map(lambda sample: drawn(bayesian, params, x, key, sample)[-1], jnp.arange(samples))


def averaged(one: Callable[[Array], Any], count: Array | int) -> Any:
    """Returns the mean of ``one(number)`` over so many numbers from 0, without keeping any of them."""
    shapes = jax.eval_shape(one, jnp.zeros((), jnp.int32))
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total = jax.lax.fori_loop(0, count, lambda number, sum_: jax.tree.map(jnp.add, sum_, one(number)), zero)
    return jax.tree.map(lambda a: a / count, total)


def require_samples(samples: int) -> None:
    """Checks a number of posterior draws.

    Raises:
        ValueError: less than one.
    """
    if samples < 1:
        raise ValueError(f"the number of posterior samples must be at least 1, got {samples}.")


def _batch(x: Any, index: np.ndarray) -> Array:
    rows = x[index]
    return jnp.asarray(require_finite(rows.toarray() if sparse.issparse(rows) else rows))
