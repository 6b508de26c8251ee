"""How large activations get: the limit λ of every layer, from data or from training."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from dsnn.convert.ann import forward
from dsnn.convert.units import Unit, limit_of
from dsnn.types import Array

BATCH = 250


def activations(model: nnx.Sequential, x: Any, batch: int = BATCH) -> list[np.ndarray]:
    """Returns every activation of a network on examples ``[n, ...]``, computed in batches."""
    graph, state = nnx.split(model)
    run = jax.jit(lambda s, b: forward(nnx.merge(graph, s), b).activations)
    parts = [run(state, _dense(x[i : i + batch])) for i in range(0, x.shape[0], batch)]
    return [np.concatenate([np.asarray(part[k]) for part in parts]) for k in range(len(parts[0]))]


def from_data(
    model: nnx.Sequential, x: Any, *, percentile: float | int = 100.0, fraction: float | int = 1.0, batch: int = BATCH
) -> list[float]:
    """Returns for every activation its percentile over examples, neurons and positions, times a fraction.

    Args:
        model: the deep network.
        x: examples ``[n, ...]``.
        percentile: in (0, 100]; 100 is the largest value (Diehl et al. 2015), 99.9 leaves out outliers (Rueckauer et
            al. 2017).
        fraction: of it, in (0, 1].
        batch: examples at a time; only the largest values are kept of each.

    Raises:
        ValueError: a value out of range, or a layer that is silent on all examples.
    """
    if not 0 < percentile <= 100 or not 0 < fraction <= 1:
        raise ValueError(f"percentile must be in (0, 100] and fraction in (0, 1], got {percentile} and {fraction}.")
    graph, state = nnx.split(model)
    run = jax.jit(lambda s, b: forward(nnx.merge(graph, s), b).activations)
    largest: list[list[np.ndarray]] = []
    counts: list[int] = []
    for start in range(0, x.shape[0], batch):
        for k, values in enumerate(run(state, _dense(x[start : start + batch]))):
            flat = np.asarray(values).reshape(-1)
            if k == len(largest):
                largest.append([])
                counts.append(0)
            keep = max(1, int(np.ceil(flat.size * (1 - percentile / 100) * 4)) + 16)
            largest[k].append(np.partition(flat, -min(keep, flat.size))[-min(keep, flat.size) :])
            counts[k] += flat.size
    limits = []
    for k, parts in enumerate(largest):
        top = np.sort(np.concatenate(parts))[::-1]
        rank = int(np.floor(counts[k] * (1 - percentile / 100)))
        limits.append(fraction * float(top[min(rank, len(top) - 1)]))
    return _audible(limits, x)


def running_largest(
    model: nnx.Sequential, x: Any, *, fraction: float | int = 1.0, batch: int = 100, momentum: float = 0.1
) -> list[float]:
    """Returns for every activation the running average of its largest value in each batch, in order.

    It is what SpikingJelly's "max" takes (its `VoltageHook`), and less than the largest value of all.

    Raises:
        ValueError: a fraction out of range, or a layer that is silent on all examples.

    Args:
        model: the deep network.
        x: examples ``[n, ...]``.
        fraction: of it, in (0, 1].
        batch: examples at a time; an incomplete last batch counts as one.
        momentum: weight of the newest batch.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}.")
    graph, state = nnx.split(model)
    run = jax.jit(lambda s, b: [a.max() for a in forward(nnx.merge(graph, s), b).activations])
    average: Any = None
    for start in range(0, x.shape[0], batch):
        largest = np.array(run(state, _dense(x[start : start + batch])), float)
        average = largest if average is None else (1 - momentum) * average + momentum * largest
    return _audible([fraction * float(limit) for limit in average], x)


def from_training(units: Sequence[Unit]) -> list[float]:
    """Returns the learned limits of `ClipFloor` activations.

    Raises:
        ValueError: another activation.
    """
    limits = [limit_of(unit) for unit in units[:-1]]
    if any(limit is None for limit in limits):
        raise ValueError('method="qcfs" reads the limits of ClipFloor activations, got a network with relu.')
    return limits


def _audible(limits: list[float], x: Any) -> list[float]:
    for k, limit in enumerate(limits):
        if not limit > 0:
            raise ValueError(
                f"activation {k} must exceed 0 somewhere to be normalised, got none on {x.shape[0]} examples."
            )
    return limits


def _dense(x: Any) -> Array:
    return jax.numpy.asarray(x if isinstance(x, np.ndarray | jax.Array) else x.toarray())
