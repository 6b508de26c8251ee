"""A decided network as one call into C, on CPUs: each example runs until its own stop and pays for its own events.

`decision` takes stacks of `Conv` layers with max pooling, then `Dense` layers, of deterministic `LIF` neurons with held
inputs, what a compacted multi-layer network is, and gives the logits and steps that `dsnn.anytime` gives, sums in
another order. What it does not take (`supports`) is left to `dsnn.anytime`; so are processes on other devices, and
whoever exports a network to one.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.cells import LI, LIF
from dsnn.cells.decay import per_step, scaled
from dsnn.cells.firing import intervening
from dsnn.deploy import packed_images
from dsnn.escape import ThresholdJitter
from dsnn.escape.parameters import value
from dsnn.native.library import problem
from dsnn.networks.layers import Dense
from dsnn.networks.stack import Stack
from dsnn.networks.whole import Runnable
from dsnn.simulate.early_exit import Decision
from dsnn.types import Array, Float

__all__ = ["decision", "packed", "pictures", "supports"]

MOST_LAYERS, WIDEST = 16, 4096
FEATURES = ("", "margin", "entropy", "learned")
RESETS = ("subtract", "zero", "none")
SIGNS, WIDTH, LANES = 9, 16, 16


def supports(model: Runnable) -> bool:
    """Returns whether `decision` takes the network, here and now, with held inputs."""
    layers: list[Any] = [layer for _, layer in model.layers()]
    images = packed_images.leading(layers)
    return (
        isinstance(model, Stack)
        and model.readout_kind == "mean"
        and images < len(layers) <= MOST_LAYERS
        and images <= packed_images.MOST_IMAGES
        and not intervening()
        and all(_plain(layer, number, images, len(layers) - 1) for number, layer in enumerate(layers))
        and all(
            packed_images.takes(layer, after, number == 0, number + 1 == images)
            for number, (layer, after) in zip(range(images), itertools.pairwise(layers), strict=False)
        )
        and all(len({getattr(layer.cell, o) for layer in layers[:-1]}) < 2 for o in ("compare", "reset"))
        and jax.default_backend() == "cpu"  # its arrays lie there, and it is called and never part of a larger program
        and problem() is None
    )


def pictures(model: Runnable) -> bool:
    """Returns whether `decision` takes the network, and it begins with convolutions."""
    return supports(model) and packed_images.leading([layer for _, layer in model.layers()]) > 0


def _plain(layer: Any, number: int, images: int, last: int) -> bool:
    """Returns whether the program knows the neurons of a layer, and its product where this is dense."""
    synapse: Any = layer.synapse
    cell: Any = layer.cell
    unnormed = layer.norm is None and not layer.folds
    if not unnormed or layer.recurrent is not None or layer.skip or layer.reads != "spikes":
        return False
    if number >= images:
        selects = len(layer.before) == 1 and layer.before[0].kind == "select" and not layer.before[0].channels
        read = not layer.before or (selects and number == 0) or (number == images > 0)  # see `packed_images.takes`
        plain = type(synapse) is Dense and getattr(synapse, "dtype", None) in (None, "float32")
        if not plain or layer.out_shape[-1] > WIDEST or not read:
            return False
    if number == last:
        return type(cell) is LI
    if type(cell) is not LIF:
        return False
    lif: Any = cell  # its options are set by a function, which mypy does not follow
    at_zero = isinstance(lif.rest, int | float) and lif.rest == 0 and not lif.refractory
    simple = at_zero and lif.reset_timing == "same" and isinstance(lif.reset, str)
    return simple and not isinstance(lif.noise, ThresholdJitter)


def packed(
    model: Runnable, steps: int, head: dict[str, Array] | None = None, feature: str = "", enough: Any = 0.0
) -> list[Array]:
    """Returns a network and its rule as the arrays that `decision` takes.

    Args:
        model: for which `supports` holds.
        steps: T.
        head: of the rule, see `dsnn.bayes.halting`; None runs all steps.
        feature: what the head reads, empty without one.
        enough: log odds of having stopped at which to stop.
    """
    layers: list[Any] = [layer for _, layer in model.layers()]
    images = packed_images.leading(layers)
    dense = layers[images]
    inputs = int(np.prod(layers[0].in_shape))
    selects = images == 0 and len(dense.before)
    keep = np.asarray(dense.before[0].keep[...] if selects else np.arange(inputs, dtype=np.int32))
    hidden = [layer.cell for layer in layers[:-1]]
    settings = [
        FEATURES.index(feature),
        steps,
        _shared(hidden, "compare", (">", ">=")),
        _shared(hidden, "reset", RESETS),
        images,
    ]
    rows = np.full(inputs, -1, np.int32)
    rows[keep] = np.arange(len(keep), dtype=np.int32)
    arrays: list[Any] = [keep, rows, np.asarray(settings, np.float32), _head(head, enough)]
    convolved = packed_images.pack(layers[:images], [_constants(layer) for layer in layers[:images]], dense)
    arrays += convolved.arrays
    for layer in layers[images:]:
        neurons = layer.out_shape[-1]
        bias = np.zeros(neurons, np.float32) if layer.synapse.bias is None else layer.synapse.bias[...]
        kernel = np.pad(np.asarray(layer.synapse.kernel[...]), ((0, 0), (0, -neurons % LANES)))
        if layer is dense and convolved.rows is not None:
            kernel = np.where(convolved.rows[:, None] < 0, np.float32(0), kernel[np.maximum(convolved.rows, 0)])
        arrays += [kernel, bias, _constants(layer)]
    return [jnp.asarray(array) for array in arrays]


def _constants(layer: Any) -> np.ndarray:
    """Returns beta, threshold and scale of each neuron; in NumPy: nothing to compile for each shape."""
    beta = per_step(layer.cell)
    threshold = value(layer.cell.threshold) if type(layer.cell) is LIF else 0.0
    constants = (beta, threshold, scaled(layer.cell, jnp.ones(()), beta))
    return np.stack([np.broadcast_to(np.asarray(c, np.float32), layer.out_shape[-1:]) for c in constants])


@jax.jit
def decision(
    arrays: list[Array], inputs: Float[Array, "batch ..."], temperature: Float[Array, " time"] | None = None
) -> Decision:
    """Returns the logits with which each example stopped, and the step; see `dsnn.anytime`.

    Args:
        arrays: from `packed`.
        inputs: held for all steps; an empty batch has an empty answer.
        temperature: what the logits of an answer after each step are divided by; None is 1.
    """
    if not inputs.shape[0]:
        return Decision(jnp.zeros((0, arrays[-1].shape[-1])), jnp.zeros(0, jnp.int32))
    x = jnp.asarray(inputs, jnp.float32).reshape(inputs.shape[0], -1)
    shapes = (
        jax.ShapeDtypeStruct((x.shape[0], arrays[-1].shape[-1]), jnp.float32),
        jax.ShapeDtypeStruct((x.shape[0],), jnp.int32),
    )
    return Decision(*jax.ffi.ffi_call("dsnn_decide", shapes)(x, *arrays)).at(temperature)


def _shared(cells: list[Any], option: str, known: tuple[str, ...]) -> int:
    """Returns the number of an option that all hidden cells of a stack share."""
    return known.index(getattr(cells[0], option)) if cells else 0


def _head(head: dict[str, Array] | None, enough: Any) -> np.ndarray:
    """Returns the head as one array, in the order in which the program reads it."""
    if head is None:
        return np.zeros(5 + SIGNS * WIDTH + 2 * WIDTH, np.float32)
    learned = (
        tuple(np.ravel(head[name]) for name in ("inner", "shift", "outer"))
        if "inner" in head
        else (np.zeros(SIGNS * WIDTH), np.zeros(WIDTH), np.zeros(WIDTH))
    )
    first = (head["bias"], jax.nn.softplus(head["slope"]), head["drift"], head.get("growth", 0.0), enough)
    return np.concatenate([np.asarray(first, np.float32), *learned]).astype(np.float32)
