"""Constants and learnable parameters of neurons and noises, told apart once for all.

A fixed scalar is a Python float (static under `jax.jit`), a fixed array a `Fixed` variable, and a learnable one an
`nnx.Param` that holds the constrained value itself; its ``support`` tells learners and priors where the value may lie.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.suggest import did_you_mean

SUPPORTS = ("positive", "real", "unit_interval")
WIDTH_HINT = "noise=None is the neuron without noise"


class Fixed(nnx.Variable):
    """An array that is part of a module and never trained."""


def parameter(
    name: str,
    value: Any,
    support: str,
    *,
    learnable: bool = False,
    shape: Sequence[int] = (),
    hint: str = "",
) -> Any:
    """Returns ``value`` as a float, a `Fixed` array or a learnable `nnx.Param`, after checking its range.

    Args:
        name: what a message calls it.
        value: a number or an array over neurons.
        support: "unit_interval" ([0, 1]), "positive" or "real".
        learnable: whether it becomes an `nnx.Param` with ``support`` metadata.
        shape: shape of a learnable parameter, () shared or (neurons,).
        hint: what to do about a value out of range.

    Raises:
        ValueError: the value is out of its range, or does not fit ``shape``.
    """
    if isinstance(value, jax.core.Tracer):  # part of a population; whoever traces it has checked its values
        if not learnable:
            return Fixed(value)
        return nnx.Param(
            jnp.broadcast_to(jnp.asarray(value, jnp.float32), tuple(shape) or value.shape), support=support
        )
    array = np.asarray(value, np.float32 if np.ndim(value) else np.float64)
    rule, inside = _range(support, array, learnable)
    if not inside:
        received = value if array.ndim == 0 else f"an array over [{array.min()}, {array.max()}]"
        raise ValueError(f"{name} must be {rule}, got {received}{'; ' + hint if hint else ''}.")
    if not learnable:
        return float(array) if array.ndim == 0 else Fixed(jnp.asarray(array, jnp.float32))
    shape = array.shape if array.ndim and not shape else tuple(shape)
    if array.ndim and array.shape != shape:
        raise ValueError(f"{name} must have the shape {shape}, got {array.shape}; leave out shape to take the array's.")
    return nnx.Param(jnp.full(shape, jnp.asarray(array, jnp.float32)), support=support)


def value(parameter: Any) -> Any:
    """Returns the number or array that a parameter holds."""
    return parameter[...] if isinstance(parameter, nnx.Variable) else parameter


def check_learnable(learnable: Sequence[str], allowed: tuple[str, ...]) -> None:
    """Raises a ValueError that names the nearest parameter if ``learnable`` holds something else."""
    if not isinstance(learnable, (tuple, list)):
        raise ValueError(f'learnable must be a tuple of names, got {learnable!r}; write ("{allowed[0]}",).')
    for name in learnable:
        if name not in allowed:
            hint = did_you_mean(name, allowed, f"known are {', '.join(allowed)}.", most=1)
            raise ValueError(f"learnable must name parameters of the cell, got {name!r}; {hint}")


def check_choice(name: str, received: Any, choices: tuple[Any, ...]) -> None:
    """Raises a ValueError if an option is none of its choices."""
    if received not in choices:
        hint = did_you_mean(received, choices, "choose one of them.", most=1)
        raise ValueError(f"{name} must be one of {', '.join(repr(c) for c in choices)}, got {received!r}; {hint}")


def _range(support: str, array: np.ndarray, strict: bool) -> tuple[str, bool]:
    if not np.isfinite(array).all():
        return "finite", False
    match support:
        case "unit_interval" if strict:
            return "in (0, 1) to be learnable", bool(((array > 0) & (array < 1)).all())
        case "unit_interval":
            return "in [0, 1]", bool(((array >= 0) & (array <= 1)).all())
        case "positive":
            return "positive", bool((array > 0).all())
        case "real":
            return "finite", True
    raise ValueError(f"support must be one of {', '.join(SUPPORTS)}, got {support!r}.")
