"""What networks of the zoo have in common: checks of what they are asked for, keys, norms and the readout."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from dsnn import resolve
from dsnn.cells import LI, LIF
from dsnn.networks.layers import Dense, Layer, Pool
from dsnn.networks.norms import BatchNorm, TdBN
from dsnn.networks.step_norms import BNTT, TEBN
from dsnn.networks.token_norms import LayerNorm, RMSNorm
from dsnn.types import Array, Key

__all__ = ["NORMS", "Normed", "check", "counted", "lif", "readout_of", "silenced"]

NORMS: dict[str, Any] = {
    "tdbn": TdBN,
    "batch": BatchNorm,
    "bntt": BNTT,
    "tebn": TEBN,
    "rms": RMSNorm,
    "layer": LayerNorm,
    "none": None,
}
"""Norms by name; a factory of one's own is called ``(features, threshold=, alpha=)`` with what of these it names."""


def check(name: str, in_shape: tuple[int, ...], least: int, **sizes: int) -> tuple[int, int, int]:
    """Returns the shape of an image that a network of the zoo takes.

    Args:
        name: of the network, for sentences.
        in_shape: of one input.
        least: height and width that it has to have.
        **sizes: numbers that have to be positive.

    Raises:
        ValueError: no image, one that is too small, or a number that is not positive.
    """
    for option, size in sizes.items():
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{option} of {name} must be a positive integer, got {size!r}; 1, 2, 3 are.")
    if len(in_shape) != 3:
        raise ValueError(f"{name} needs images [height, width, channel], got inputs of shape {tuple(in_shape)}.")
    height, width, channels = in_shape
    if min(height, width) < least:
        raise ValueError(
            f"{name} halves an image again and again and needs {least} x {least} pixels at least, got {height} x "
            f"{width}; enlarge the images, or take a network with fewer stages."
        )
    return height, width, channels


def counted(key: Key[Array, ""]) -> Iterator[Any]:
    """Yields keys; the key is consumed."""
    return (jax.random.fold_in(key, number) for number in itertools.count())


def lif(neurons: int) -> LIF:
    """Returns the cell of a network that is not told of another."""
    del neurons
    return LIF(beta=0.9)


class Normed:
    """Makes the norms of a network: those of a name, by the threshold of its cells.

    Args:
        norm: a name of `NORMS`, a factory, or ``package.module:factory``; None is none. With options it is a mapping
            that has them beside the name: ``{name: tebn, steps: 4}``, for norms with parameters for each time step.
        cell: a function of the number of neurons.

    Raises:
        ValueError: an unknown name.
    """

    def __init__(self, norm: Any, cell: Callable[[int], Any]):
        self.options: dict[str, Any] = {}
        if isinstance(norm, Mapping):
            self.options = {option: value for option, value in norm.items() if option != "name"}
            norm = norm.get("name", "tdbn")
        if isinstance(norm, str):
            resolve.check_name("norm", norm, NORMS)
            norm = NORMS[norm] if norm in NORMS else resolve.piece("norm", norm)
        threshold = getattr(cell(1), "threshold", 1.0)
        self.make, self.threshold = norm, float(threshold) if isinstance(threshold, int | float) else 1.0

    @property
    def gain(self) -> float:
        """Standard deviation of kernels times sqrt(fan in): without a norm, sparse spikes have to make neurons fire."""
        return 1.0 if self.make is not None else 2.0

    def __call__(self, features: int, alpha: float = 1.0) -> Any:
        """Returns the norm of so many channels, whose currents begin with a deviation of alpha thresholds, or None."""
        if self.make is None:
            return None
        offered = {"threshold": self.threshold, "alpha": alpha}
        return self.make(
            features, **resolve.arguments("norm={name: ...}", self.make, offered, self.options, (features,))
        )


def silenced(norm: Any, shift: float = 0.0) -> Any:
    """Returns a norm that gives ``shift`` to begin with, whatever the currents; None is none."""
    if norm is not None:
        norm.scale[...] = jnp.zeros_like(norm.scale[...])
        if shift and not hasattr(norm, "shift"):
            raise ValueError(
                f'connect="and" begins as its shortcut, by a norm with a shift, got {type(norm).__name__} without; '
                'take norm="tdbn".'
            )
        if shift:
            norm.shift[...] = jnp.full_like(norm.shift[...], shift)
    return norm


def readout_of(shape: tuple[int, int, int], classes: int, key: Key[Array, ""], beta: float, dtype: str | None) -> Layer:
    """Returns the leaky integrators that answer, of the mean over places of a feature map; the key is consumed."""
    pool = Pool(shape, shape[:2], "mean")
    return Layer(Dense(pool.out_shape, classes, key=key, dtype=dtype), LI(beta=beta), before=(pool,))
