"""Values of sites at the units that they are, and back: without a gather where the units are the sites in order.

Channels are last, so what reads a flattened feature map reads its channels over and over: the values are repeated.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from dsnn.types import Array, Shaped

__all__ = ["first_units", "of_groups", "rows_scaled", "spread", "summed"]


def spread(values: Shaped[Array | np.ndarray, " site"], index: np.ndarray) -> Shaped[Array, " unit"]:
    """Returns the value of each unit's site, 1 where it has none.

    Args:
        values: by site.
        index: site of each unit, -1 for none.
    """
    values, size, units = jnp.asarray(values), len(values), len(index)
    if _repeats(index, size):
        return values if units == size else jnp.tile(values, units // size)
    if units and index[0] >= 0 and np.array_equal(index, np.arange(index[0], index[0] + units)):
        return values[int(index[0]) : int(index[0]) + units]
    return jnp.where(index < 0, jnp.ones((), values.dtype), values[np.maximum(index, 0)])


def summed(values: Shaped[Array, " unit"], index: np.ndarray, sites: int) -> Shaped[Array, " site"]:
    """Returns the sum over the units of each site.

    Args:
        values: by unit.
        index: site of each unit, -1 for none.
        sites: how many there are.
    """
    if _repeats(index, sites):
        return values if len(index) == sites else values.reshape(-1, sites).sum(0)
    units = np.flatnonzero(index >= 0)
    return jnp.zeros(sites, values.dtype).at[index[units]].add(values[units])


def rows_scaled(kernel: Any, values: Any, axis: int, groups: int = 1) -> Any:
    """Returns a kernel whose rows are multiplied by their senders' values; in NumPy where all of it is.

    Args:
        kernel: of a product.
        values: one for each sender.
        axis: of the senders; of a kernel of groups it is the last but one.
        groups: how many of them a kernel has, see `dsnn.protocols.Wire`.
    """
    if groups == 1:
        return kernel * values.reshape(-1, *[1] * (kernel.ndim - axis % kernel.ndim - 1))
    apart = of_groups(kernel, groups)
    return (apart * values.reshape(groups, -1).T[..., None]).reshape(kernel.shape)


def of_groups(kernel: Any, groups: int) -> Any:
    """Returns a kernel ``[..., channel of a group, feature]`` as ``[..., channel of a group, group, its feature]``."""
    return kernel.reshape(*kernel.shape[:-1], groups, -1)


def first_units(indices: list[np.ndarray], units: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns one unit of each kind that shares all its sites, in order, and the number of each unit's kind.

    Units without any site are kinds of their own.

    Args:
        indices: site of each unit in each group, -1 for none.
        units: how many there are.
    """
    alone = np.arange(units)
    if not indices or (len(indices) == 1 and np.array_equal(indices[0], alone)):
        return alone, alone
    if len(indices) == 1 and len(indices[0]) and indices[0].min() >= 0:
        _, first, kind = np.unique(indices[0], return_index=True, return_inverse=True)
    else:
        first, kind = _kinds(np.stack(indices), alone)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return first[order], place[kind.reshape(-1)]


def _kinds(stacked: np.ndarray, alone: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    stacked = np.concatenate([stacked, np.where((stacked >= 0).any(0), -1, alone)[None]])
    _, first, kind = np.unique(stacked, axis=1, return_index=True, return_inverse=True)
    return first, kind


def _repeats(index: np.ndarray, sites: int) -> bool:
    """Returns whether the units are all sites in order, again and again."""
    if not sites or not len(index) or len(index) % sites:
        return False
    return bool((index.reshape(-1, sites) == np.arange(sites)).all())
