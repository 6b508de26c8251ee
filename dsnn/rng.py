"""Named streams of random keys: the only place where keys are made.

A run has one root seed. Each use of randomness has a name and a step, so an ablation that changes one stream leaves
the others as they were, and a resumed run needs nothing but its step number.
"""

from typing import Any

import jax
import jax.numpy as jnp

from dsnn.types import Array, Int, Key

STREAMS = ("data", "init", "weights", "gates", "noise", "dropout", "augment", "bits")


def typed(key: Any) -> Any:
    """Returns a key of `jax.random.PRNGKey` as the same key of `jax.random.key`, others (and None) as they are."""
    if key is None or jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    return jax.random.wrap_key_data(jnp.asarray(key))


def root(seed: int) -> Key[Array, ""]:
    """Returns the root key of a run.

    Raises:
        ValueError: the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed must be a non-negative integer, got {seed}; any of 0, 1, 2, ... will do.")
    return jax.random.key(seed)


def stream(key: Key[Array, ""], name: str, step: int | Int[Array, ""] = 0) -> Key[Array, ""]:
    """Returns the key of the stream ``name`` at ``step``; the parent key is not consumed.

    Args:
        key: a root key, or any key that names a scope (a particle, an epoch).
        name: one of ``STREAMS``.
        step: position in the stream; may be traced.

    Raises:
        ValueError: the name is not a stream.
    """
    if name not in STREAMS:
        raise ValueError(f"a random stream must be one of {', '.join(STREAMS)}, got {name!r}.")
    return jax.random.fold_in(jax.random.fold_in(key, STREAMS.index(name)), step)
