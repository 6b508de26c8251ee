"""Layers of images as the arrays that the fused program reads (`images.h`): cells, their kernels, their constants.

A cell is what is summed together. Usually these are all features of one place, which share a kernel. Where a dense
layer reads only some places of the pooled map, the neurons behind a few of these are a cell with a kernel of its own,
and neurons that nobody reads are not there at all.
"""

from typing import Any, NamedTuple

import numpy as np

from dsnn.networks.layers import Conv, Layer, Pool
from dsnn.networks.select import Select
from dsnn.networks.windows import around

__all__ = ["Images", "leading", "pack", "takes"]

BITS, MOST_WORDS, MOST_IMAGES = 16, 64, 8
MOST_OWN_BYTES = 2**22
"""Size of kernels of their own above which cells share one: they are read from the second cache."""


class Images(NamedTuple):
    """What is packed of the layers of images, and what the dense layer after them reads.

    Attributes:
        arrays: plan, kernel, bias and constants of every layer.
        rows: numbers of the rows of the dense kernel that the events name, -1 for a value that is not read; None where
            they are those of the kernel.
    """

    arrays: list[np.ndarray]
    rows: np.ndarray | None


class _Place(NamedTuple):
    """A convolution and the pooling after it."""

    layer: Any
    constants: np.ndarray  # beta, threshold and scale, [3, feature]
    window: tuple[int, ...]
    pooled: tuple[int, int]
    corner: tuple[int, int]  # rows above and columns left of the image that the first window sees


def leading(layers: list[Layer]) -> int:
    """Returns the number of layers of images that a network begins with."""
    return next((k for k, layer in enumerate(layers) if not isinstance(layer.synapse, Conv)), len(layers))


def takes(layer: Layer, after: Layer, first: bool, dense: bool) -> bool:
    """Returns whether `pack` takes a layer's convolution, and the modules before the layer after it.

    Args:
        layer: with a convolution.
        after: the next layer.
        first: whether the layer is the first.
        dense: whether the next layer is dense.
    """
    synapse: Any = layer.synapse
    if type(synapse) is not Conv:
        return False
    plain = synapse.dtype in (None, "float32")
    plain = plain and synapse.groups == 1 and set(synapse.dilation) == {1}
    # the program knows no window that sees padding alone
    zeros = around(synapse.in_shape[:2], synapse.window, synapse.strides, synapse.padding)
    plain = plain and all(max(pair) < window for pair, window in zip(zeros, synapse.window, strict=True))
    plain = plain and len(synapse.in_shape) == 3 and synapse.out_shape[-1] <= BITS * MOST_WORDS
    kinds = [type(module) for module in after.before]
    ends = Pool in kinds[:1]
    allowed = kinds[ends:] in ([], [Select]) if dense else kinds[ends:] == []
    pools = [module for module in after.before if isinstance(module, Pool)]
    fits = all(pool.kind == "max" and pool.window[0] * pool.window[1] <= BITS for pool in pools)
    fits = fits and all(pool.strides == pool.window and pool.padding == "VALID" for pool in pools)
    selects = all(not module.channels for module in after.before if isinstance(module, Select))
    return plain and allowed and fits and selects and not (first and len(layer.before))


def pack(layers: list[Layer], constants: list[np.ndarray], after: Layer) -> Images:
    """Returns the arrays of a network's layers of images.

    Args:
        layers: for which `takes` holds.
        constants: beta, threshold and scale of each, ``[3, feature]``.
        after: the dense layer that follows.
    """
    arrays: list[np.ndarray] = []
    rows, readers = None, [*layers, after][1:]
    for layer, numbers, reader in zip(layers, constants, readers, strict=True):
        place = _place(layer, numbers, reader)
        select = next((module for module in reader.before if isinstance(module, Select)), None)
        keep = None if select is None else np.asarray(select.keep[...])
        own = None if keep is None else _own(place, keep)
        if own is not None:
            cells, rows = own
            arrays += cells
            continue
        if keep is not None:
            rows = np.full(np.prod(place.pooled) * layer.out_shape[-1], -1, np.int32)
            rows[keep] = np.arange(len(keep), dtype=np.int32)
        arrays += _shared(place)
    return Images(arrays, rows)


def _place(layer: Any, constants: np.ndarray, reader: Any) -> _Place:
    conv = layer.synapse
    pool = reader.before[0] if len(reader.before) and isinstance(reader.before[0], Pool) else None
    window = (1, 1) if pool is None else pool.window
    height, width, _ = conv.out_shape
    (top, _), (left, _) = around(conv.in_shape[:2], conv.window, conv.strides, conv.padding)
    return _Place(layer, constants, window, (height // window[0], width // window[1]), (top, left))


def _arrays(place: _Place, seen: tuple[int, int], wide: int, own: bool, cells: Any, *numbers: Any) -> list[np.ndarray]:
    """Returns plan, kernel, bias and constants, the last three as given."""
    conv, window = place.layer.synapse, place.window
    plan = [*conv.in_shape, *seen, len(cells), wide, own, window[0] * window[1], *place.pooled, conv.out_shape[-1]]
    whole = np.concatenate([np.asarray(plan, np.int32), np.asarray(cells, np.int32).reshape(-1)])
    return [whole, *(np.ascontiguousarray(each, np.float32) for each in numbers)]


def _weights(place: _Place) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel and bias."""
    conv = place.layer.synapse
    bias = np.zeros(conv.out_shape[-1], np.float32) if conv.bias is None else np.asarray(conv.bias[...])
    return np.asarray(conv.kernel[...]), bias


def _corners(place: _Place) -> Any:
    """Yields the pooled row and column, and the first row and column that its first neuron sees."""
    conv = place.layer.synapse
    for row in range(place.pooled[0]):
        for column in range(place.pooled[1]):
            yield (
                (row, column),
                row * place.window[0] * conv.strides[0] - place.corner[0],
                column * place.window[1] * conv.strides[1] - place.corner[1],
            )


def _members(place: _Place) -> list[tuple[int, int]]:
    """Returns how far a window's neurons look from where its first does."""
    down, right = place.layer.synapse.strides
    return [(i * down, j * right) for i in range(place.window[0]) for j in range(place.window[1])]


def _shared(place: _Place) -> list[np.ndarray]:
    """Returns a layer whose cells are places of all features."""
    kernel, bias = _weights(place)
    more = -kernel.shape[-1] % BITS
    cells = [(row + i, column + j, 0, 0) for _, row, column in _corners(place) for i, j in _members(place)]
    constants = np.pad(place.constants, ((0, 0), (0, more)))
    constants[1, kernel.shape[-1] :] = np.inf  # what is no neuron never fires
    wide = kernel.shape[-1] + more
    flat = np.pad(kernel.reshape(-1, kernel.shape[-1]), ((0, 0), (0, more)))
    return _arrays(place, kernel.shape[:2], wide, False, cells, flat, np.pad(bias, (0, more)), constants)


def _own(place: _Place, keep: np.ndarray) -> tuple[list[np.ndarray], np.ndarray] | None:
    """Returns a layer whose cells are what is read of a place, and the row of each feature; None where it would cost.

    Features are numbered place by place.
    """
    kernel, bias = _weights(place)
    rows, columns, channels, features = kernel.shape
    members = _members(place)
    seen = (rows + members[-1][0], columns + members[-1][1])
    there = BITS // len(members)  # features of a cell
    numbers = np.unravel_index(keep, (*place.pooled, features))
    cells: list[tuple[int, ...]] = []
    lanes: list[np.ndarray] = []
    order: list[int] = []
    for (row, column), top, left in _corners(place):
        here = np.flatnonzero((numbers[0] == row) & (numbers[1] == column))
        for begin in range(0, len(here), there):
            some = here[begin : begin + there]
            cells.append((top, left, len(order), len(some)))
            lanes.append(numbers[2][some])
            order += list(some)
    work = len(cells) * seen[0] * seen[1] * BITS
    whole = np.prod(place.pooled) * len(members) * rows * columns * (features + -features % BITS)
    if not cells or work > whole or work * channels * 4 > MOST_OWN_BYTES:
        return None
    kernels = np.zeros((len(cells), *seen, channels, there, len(members)), np.float32)
    biases = np.zeros((len(cells), there, len(members)), np.float32)
    constants = np.zeros((len(cells), 3, there, len(members)), np.float32)
    constants[:, 1] = np.inf  # what is no neuron never fires
    for cell, some in enumerate(lanes):
        biases[cell, : len(some)] = bias[some, None]
        constants[cell, :, : len(some)] = place.constants[:, some, None]
        for m, (i, j) in enumerate(members):
            kernels[cell, i : i + rows, j : j + columns, :, : len(some), m] = kernel[..., some]

    def filled(array: np.ndarray, axes: int) -> np.ndarray:
        flat = array.reshape(*array.shape[:axes], -1)
        return np.pad(flat, [(0, 0)] * axes + [(0, BITS - flat.shape[-1])])

    constants = filled(constants, 2)
    constants[:, 1, there * len(members) :] = np.inf
    packed = _arrays(place, seen, BITS, True, cells, filled(kernels, 4), filled(biases, 1), constants)
    return packed, np.asarray(order, np.int32)
