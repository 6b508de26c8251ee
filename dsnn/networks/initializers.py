"""How a network begins: kernels by the name that papers give them, and constants drawn neuron by neuron."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dsnn.types import Array, Key

KERNELS = ("normal", "xavier", "joint_xavier", "orthogonal", "torch", "zeros")
SPREADS = ("normal", "uniform")


def kernel(name: str, key: Key[Array, ""], shape: tuple[int, ...], gain: float = 1.0, beside: int = 0) -> Array:
    """Returns initial weights whose last axis is the fan out; the key is consumed.

    Args:
        name: "normal", N(0, 1 / fan in); "xavier", uniform within sqrt(6 / (fan in + fan out)) (Glorot & Bengio 2010);
            "joint_xavier", the same with the inputs ``beside`` counted in; "orthogonal" (Saxe et al. 2014); "torch",
            uniform within 1 / sqrt(fan in); "zeros".
        key: consumed.
        shape: of the weights.
        gain: a factor on all of them.
        beside: inputs of the same neurons that come through another kernel, such as a recurrent one.

    Raises:
        ValueError: an unknown name.
    """
    inputs, outputs = math.prod(shape[:-1]), shape[-1]
    match name:
        case "normal":
            return gain / inputs**0.5 * jax.random.normal(key, shape)
        case "xavier" | "joint_xavier":
            total = inputs + outputs * math.prod(shape[:-2]) + (beside if name == "joint_xavier" else 0)
            return _uniform(key, shape, gain * (6 / total) ** 0.5)
        case "torch":
            return _uniform(key, shape, gain / inputs**0.5)
        case "orthogonal":
            return gain * jax.nn.initializers.orthogonal()(key, (inputs, outputs)).reshape(shape)
        case "zeros":
            return jnp.zeros(shape)
    raise ValueError(f"initial kernels must be one of {', '.join(KERNELS)}, got {name!r}.")


def constant(name: str, given: Any, key: Key[Array, ""], neurons: int) -> Any:
    """Returns a cell's constant as it was given, or drawn for every neuron; the key is consumed.

    Args:
        name: what a message calls it.
        given: a number, ``{"normal": [mean, deviation]}`` or ``{"uniform": [low, high]}``; normal draws keep within
            three deviations, so that time constants stay positive.
        key: consumed.
        neurons: how many.

    Raises:
        ValueError: a mapping that is neither.
    """
    if not isinstance(given, Mapping):
        return given
    check_constant(name, given)
    (kind, (first, second)) = next(iter(given.items()))
    if kind == "normal":
        return first + second * jax.random.truncated_normal(key, -3.0, 3.0, (neurons,))
    return jax.random.uniform(key, (neurons,), minval=first, maxval=second)


def check_constant(name: str, given: Any) -> None:
    """Raises a ValueError if ``given`` is a mapping that does not say how a constant is drawn."""
    if not isinstance(given, Mapping):
        return
    pair = next(iter(given.values()), None)
    well = len(given) == 1 and next(iter(given)) in SPREADS and isinstance(pair, list | tuple) and len(pair) == 2
    if not well or not all(isinstance(number, int | float) for number in pair or ()):
        raise ValueError(
            f"{name} must be a number, {{normal: [mean, deviation]}} or {{uniform: [low, high]}}, got {dict(given)}."
        )


def _uniform(key: Key[Array, ""], shape: tuple[int, ...], bound: float) -> Array:
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)
