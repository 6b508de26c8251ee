"""Batches as index arrays: an epoch is drawn inside a compiled function, evaluation sees each example once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sparse

from dsnn.data.split import Arrays, DataError
from dsnn.rng import stream
from dsnn.types import Array, Bool, Int, Key

ROWS = 16


class EvalBatches(NamedTuple):
    """Indices of every example once, the last batch filled up with index 0.

    Attributes:
        indices: int32 ``[batches, batch]``.
        mask: bool ``[batches, batch]``, False where the index only fills up.
    """

    indices: Int[np.ndarray, "batches batch"]
    mask: Bool[np.ndarray, "batches batch"]


def epoch_permutation(key: Key[Array, ""], n: int, batch_size: int) -> Int[Array, "batches batch"]:
    """Returns one epoch's batches of shuffled indices; the incomplete last batch is dropped.

    Works inside ``jax.jit`` with ``n`` and ``batch_size`` static. Give each epoch its own key, for example
    ``rng.stream(root, "data", epoch)``: a resumed run then needs only the number of the epoch.

    Args:
        key: consumed.
        n: number of examples.
        batch_size: from 1 to ``n``.

    Raises:
        DataError: there is not one full batch.
    """
    _check_batch_size(batch_size)
    if n < batch_size:
        raise DataError(f"batch_size must be at most the {n} training examples, got {batch_size}; lower it.")
    batches = n // batch_size
    return jax.random.permutation(key, n)[: batches * batch_size].reshape(batches, batch_size)


def epoch_order(
    root: Key[Array, ""], epoch: int | Int[Array, ""], n: int, batch_size: int, updates: int = 0
) -> Int[Array, "batches batch"]:
    """Returns the batches of an epoch, which is a pass over the data, or so many updates of one pass after another.

    Works inside ``jax.jit`` with a traced epoch. What is drawn for a pass depends on the root key and the number of the
    pass alone.

    Args:
        root: root key of the run; the streams "data" of its passes are consumed.
        epoch: from 0.
        n: number of examples.
        batch_size: from 1 to ``n``.
        updates: batches of an epoch; 0 is a pass.

    Raises:
        DataError: there is not one full batch.
    """
    if not updates:
        return epoch_permutation(stream(root, "data", epoch), n, batch_size)
    batches = max(n // batch_size, 1)
    first = jnp.asarray(epoch) * updates
    passes = (batches - 1 + updates - 1) // batches + 1  # that so many batches in a row may fall into
    drawn = [
        epoch_permutation(stream(root, "data", first // batches + number), n, batch_size) for number in range(passes)
    ]
    return jax.lax.dynamic_slice_in_dim(jnp.concatenate(drawn), first % batches, updates)


def eval_batches(n: int, batch_size: int) -> EvalBatches:
    """Returns indices that cover 0 .. n-1 exactly once in order, in equal batches, with a mask of the real ones.

    Args:
        n: number of examples.
        batch_size: at least 1; where it is larger than ``n`` it is lowered to the multiple of `ROWS` that holds them
            (to ``n`` where that is less), so that parts of nearly one size share a compiled program.
    """
    _check_batch_size(batch_size)
    if n < 0:
        raise DataError(f"the number of examples must not be negative, got {n}.")
    enough = n if n < ROWS else -(-n // ROWS) * ROWS
    batch_size = min(batch_size, enough) or batch_size
    slots = np.arange(-(-n // batch_size) * batch_size, dtype=np.int32).reshape(-1, batch_size)
    return EvalBatches(np.where(slots < n, slots, 0).astype(np.int32), slots < n)


def take(
    arrays: Arrays, index: Int[Array, "batch"] | Int[np.ndarray, "batch"], temporal: bool = False
) -> tuple[Array, Array]:
    """Returns the chosen (x, y), time first where there is time: ``[time, batch, ...]``.

    Works inside ``jax.jit`` on dense arrays; sparse rows are made dense here, a batch at a time, on the host only.

    Args:
        arrays: one part of a split, stored ``[n, ...]`` or ``[n, time, ...]``.
        index: of the examples.
        temporal: as the split says.
    """
    if isinstance(arrays.x, sparse.csr_array):
        return jnp.asarray(arrays.x[np.asarray(index)].toarray()), jnp.asarray(arrays.y[np.asarray(index)])
    x, y = jnp.asarray(arrays.x)[index], jnp.asarray(arrays.y)[index]
    x = x.astype(jnp.float32)  # events may be stored as bytes
    if not temporal:
        return x, y
    stepwise = jnp.issubdtype(y.dtype, jnp.integer) and y.ndim == 2 and y.shape[1] == x.shape[1]
    return jnp.moveaxis(x, 1, 0), jnp.moveaxis(y, 1, 0) if stepwise else y


def _check_batch_size(batch_size: int) -> None:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise DataError(f"batch_size must be a positive integer, got {batch_size!r}.")
