"""What a learner is, a pair of pure functions (init, step), and what it says of a step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsnn.protocols import Batch
from dsnn.types import Array, Float


def _no_params(state: Any) -> Any:
    raise TypeError("this learner's parameters are read by map_params or svi_params.")


class Learner(NamedTuple):
    """A learning rule: ``init() -> state`` and ``step(state, batch) -> (state, info)``; the state is a pytree.

    ``params(state)`` gives the network's parameters by name; of the house's own rules `map_params` and `svi_params` do.
    """

    init: Callable[[], Any]
    step: Callable[[Any, Batch], tuple[Any, Any]]
    params: Callable[[Any], Any] = _no_params


class Info(NamedTuple):
    """What every learner says of a step; those with more to say have an info of their own.

    Attributes:
        loss: in nats per example.
    """

    loss: Float[Array, "..."]


def blank(targets: jax.ShapeDtypeStruct | None) -> Array:
    """Returns the targets of one example before there are data: zeros of its shape and dtype; None is a class."""
    return jnp.zeros(1, jnp.int32) if targets is None else jnp.zeros((1, *targets.shape), targets.dtype)


def info_of(values: Any) -> Info:
    """Returns what a step of a learner of one's own says, a dictionary with its ``loss``, as `Info`.

    Raises:
        ValueError: no loss.
    """
    if isinstance(values, Info):
        return values
    if not isinstance(values, dict) or "loss" not in values:
        raise ValueError(f"a learner's step must say its loss, got {values!r}; return (state, dict(loss=loss)).")
    return Info(jnp.asarray(values["loss"], jnp.float32))


class TrainingError(RuntimeError):
    """Training cannot go on; the message says at which step and what to do."""
