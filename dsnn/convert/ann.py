"""Deep networks to convert: ordinary Flax modules in a row, and how they run with their activations in view.

A network is an `nnx.Sequential` of `nnx.Linear`, `nnx.Conv`, `nnx.BatchNorm`, `nnx.Dropout`, `jax.nn.relu` (or
`ClipFloor`), `dsnn.networks.layers.Pool`, `Flatten` and `Residual`. `forward` runs it as Flax would, and keeps what
conversion
needs: the value of every activation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from dsnn.networks.convolve import convolve
from dsnn.networks.layers import Pool
from dsnn.types import Array, Float, Key

RELUS = (jax.nn.relu, nnx.relu)
ACTIVATIONS = ("relu", "clip_floor")
NORMALISED_LIMIT = 3.0
"""First λ after batch norm, whose outputs have a standard deviation of one."""


def _convolve(x: Array, kernel: Array, strides: Any, padding: str, **others: Any) -> Array:
    """What a plain `nnx.Conv` asks of `jax.lax.conv_general_dilated`."""
    return convolve(x, kernel, tuple(strides), padding)


class Flatten(nnx.Module):
    """Flattens every example."""

    def __call__(self, x: Float[Array, "batch *feature"]) -> Float[Array, "batch flat"]:
        """Returns the examples as vectors."""
        return x.reshape(x.shape[0], -1)


class ClipFloor(nnx.Module):
    """Quantised clip-floor-shift activation, λ clip(floor(x L / λ + 1/2) / L, 0, 1) (Bu et al. 2022, eq. 10).

    It is what an integrate-and-fire neuron with threshold λ and first membrane λ / 2 sends on average over L steps of
    constant current. The floor is passed straight through by gradients, so that λ learns as in their appendix.

    Args:
        levels: L, at least 1.
        limit: λ before learning, positive.
    """

    def __init__(self, levels: int, limit: float | int = 8.0):
        if levels < 1 or not limit > 0:
            raise ValueError(f"levels must be at least 1 and limit positive, got {levels} and {limit}.")
        self.levels = levels
        self.limit = nnx.Param(jnp.asarray(float(limit)))

    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Returns the quantised activation."""
        limit = self.limit[...]
        scaled = jnp.clip(x / limit, 0.0, 1.0)
        quantised = jnp.floor(scaled * self.levels + 0.5) / self.levels
        return limit * (scaled + jax.lax.stop_gradient(quantised - scaled))


class Residual(nnx.Module):
    """body(x) + shortcut(x); what follows, usually an activation, acts on the sum.

    Args:
        body: an `nnx.Sequential` that ends in an `nnx.Linear` or `nnx.Conv` (and batch norm), without activation.
        shortcut: a 1 x 1 `nnx.Conv` or a `nnx.Linear` without batch norm; None is the identity.
    """

    def __init__(self, body: nnx.Sequential, shortcut: Any = None):
        self.body, self.shortcut = body, shortcut


class Ran(NamedTuple):
    """Outputs of the last layer, and the value of every activation in order."""

    outputs: Float[Array, "batch class"]
    activations: tuple[Array, ...]


def forward(model: nnx.Sequential, x: Array, key: Key[Array, ""] | None = None, *, train: bool = False) -> Ran:
    """Runs a deep network.

    Args:
        model: as the module describes it.
        x: examples ``[batch, ...]``.
        key: drives dropout and is consumed; None drops nothing.
        train: batch norm takes its statistics from the batch, and updates its running ones in place.
    """
    kept: list[Array] = []
    outputs = _run(model, x, key, train, kept)
    return Ran(outputs, tuple(kept))


def is_activation(module: Any) -> bool:
    """Returns whether a module is an activation that conversion knows."""
    return isinstance(module, ClipFloor) or module in RELUS


def _run(model: nnx.Sequential, x: Array, key: Array | None, train: bool, kept: list[Array]) -> Array:
    for number, module in enumerate(model.layers):
        own = None if key is None else jax.random.fold_in(key, number)
        if isinstance(module, nnx.BatchNorm):
            x = module(x, use_running_average=not train)
        elif isinstance(module, nnx.Dropout):
            if own is not None:
                keep = jax.random.bernoulli(own, 1 - module.rate, x.shape)
                x = jnp.where(keep, x / (1 - module.rate), 0.0)
        elif isinstance(module, Residual):
            direct = x if module.shortcut is None else module.shortcut(x)
            x = _run(module.body, x, own, train, kept) + direct
        elif isinstance(module, nnx.Linear | nnx.Conv | Pool | Flatten):
            x = module(x)
        elif is_activation(module):
            x = module(x)
            kept.append(x)
        else:
            raise ValueError(unknown(module))
    return x


def unknown(module: Any) -> str:
    """Returns the sentence for a module that conversion does not know."""
    name = getattr(module, "__name__", type(module).__name__)
    return (
        "a network to convert is an nnx.Sequential of Linear, Conv, BatchNorm, Dropout, relu, ClipFloor, Pool, Flatten "
        f"and Residual, got {name}; replace it by one of these."
    )


def activation(kind: str, levels: int = 4, limit: float | int = 8.0) -> Callable[[Array], Array]:
    """Returns a fresh activation, "relu" or "clip_floor" (with its levels and first limit)."""
    if kind not in ACTIVATIONS:
        raise ValueError(f"an activation must be one of {', '.join(ACTIVATIONS)}, got {kind!r}.")
    return ClipFloor(levels, limit) if kind == "clip_floor" else jax.nn.relu


def deep_mlp(
    inputs: int,
    hidden: tuple[int, ...],
    classes: int,
    *,
    key: Key[Array, ""],
    kind: str = "relu",
    levels: int = 4,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
) -> nnx.Sequential:
    """Returns Flatten, (Linear, activation, Dropout) for each hidden layer, Linear.

    Args:
        inputs: size of one flattened input.
        hidden: units of each hidden layer.
        classes: number of outputs.
        key: initialises; consumed.
        kind: of activation.
        levels: of "clip_floor".
        dropout: share of hidden values dropped while training.
        input_dropout: share of inputs dropped while training.
    """
    rngs = nnx.Rngs(key)
    modules: list[Any] = [Flatten()]
    if input_dropout:
        modules.append(nnx.Dropout(input_dropout))
    for units in hidden:
        modules += [nnx.Linear(inputs, units, kernel_init=nnx.initializers.he_normal(), rngs=rngs)]
        modules += [activation(kind, levels)] + ([nnx.Dropout(dropout)] if dropout else [])
        inputs = units
    modules.append(nnx.Linear(inputs, classes, rngs=rngs))
    return nnx.Sequential(*modules)


def deep_conv(
    in_shape: tuple[int, int, int],
    channels: tuple[int, ...],
    classes: int,
    *,
    key: Key[Array, ""],
    kind: str = "relu",
    levels: int = 4,
    pool: str = "mean",
    window: int = 3,
    padding: str = "SAME",
) -> nnx.Sequential:
    """Returns (Conv, BatchNorm, activation, 2 x 2 pooling) for each number of channels, Flatten, Linear.

    With three times 32 channels, average pooling and padding VALID this is SpikingJelly's network for MNIST.

    Args:
        in_shape: (height, width, channel).
        channels: of each convolution.
        classes: number of outputs.
        key: initialises; consumed.
        kind: of activation.
        levels: of "clip_floor".
        pool: "mean" or "max".
        window: height and width of the kernels.
        padding: "SAME" or "VALID".
    """
    rngs = nnx.Rngs(key)
    modules: list[Any] = []
    shape = in_shape
    lost = 0 if padding == "SAME" else window - 1
    for features in channels:
        # the same numbers as Flax's own, with gradients that are faster in a loop
        kernel = (window, window)
        modules.append(
            nnx.Conv(shape[-1], features, kernel, padding=padding, conv_general_dilated=_convolve, rngs=rngs)
        )
        modules += [nnx.BatchNorm(features, momentum=0.9, rngs=rngs), activation(kind, levels, NORMALISED_LIMIT)]
        pooling = Pool((shape[0] - lost, shape[1] - lost, features), (2, 2), pool)
        modules.append(pooling)
        shape = pooling.out_shape
    size = shape[0] * shape[1] * shape[2]
    modules += [Flatten(), nnx.Linear(size, classes, rngs=rngs)]
    return nnx.Sequential(*modules)
