"""Leaves of networks of blocks beside the layer: a product without neurons, neurons without a product, pooling alone.

Each is a `dsnn.networks.Layer` one of whose halves does nothing, so that whatever runs, folds, cuts, prices and records
layers does so with them. A product alone costs no neuron updates, neurons alone no synaptic events, pooling neither.
"""

from typing import Any, NamedTuple

from flax import nnx

from dsnn.networks.layers import Layer
from dsnn.types import Array, Float, Key

__all__ = ["Current", "Fire", "Identity", "Linear", "NoState", "Pooled", "integrates", "multiplies"]


class Identity(nnx.Module):
    """The synapse of neurons that read currents: it passes these on, and has no kernel.

    Args:
        shape: of one input without the batch axis.
    """

    def __init__(self, shape: tuple[int, ...]):
        self.in_shape = self.out_shape = tuple(shape)

    def __call__(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Returns what it is given."""
        return x


class NoState(NamedTuple):
    """State of a product without neurons: there is nothing to keep."""


class Linear(nnx.Module):
    """The cell of a product without neurons: what it gives are the currents."""

    def init(self, shape: tuple[int, ...]) -> NoState:
        """Returns the state, which is empty."""
        del shape
        return NoState()

    def step(
        self, state: NoState, current: Float[Array, "..."], key: Key[Array, ""] | None = None
    ) -> tuple[NoState, Float[Array, "..."]]:
        """Returns the state and the currents; a key is accepted and not used."""
        del key
        return state, current


def Current(synapse: Any, norm: Any = None, before: tuple[Any, ...] = ()) -> Layer:
    """Returns a product and its norm without neurons: what it gives are currents, which may be added up before others.

    What reads currents multiplies, as it does with every analog value.

    Args:
        synapse: `dsnn.networks.Dense` or `Conv`.
        norm: what normalises the currents (`dsnn.networks.TdBN`); None is no norm.
        before: stateless modules (pooling) applied to the input first.
    """
    return Layer(synapse, Linear(), before=before, norm=norm)


def Fire(shape: tuple[int, ...], cell: Any) -> Layer:
    """Returns neurons without a product: they read currents, and give spikes.

    Their channels are those of the currents: one that is closed has no neurons to update.

    Args:
        shape: of the currents of one example, such as (height, width, channel).
        cell: any cell of `dsnn.cells`.
    """
    return Layer(Identity(shape), cell)


def Pooled(pool: Any) -> Layer:
    """Returns pooling that stands alone, where more than one part reads what it gives.

    Args:
        pool: a stateless module that keeps the channels, such as `dsnn.networks.Pool`.
    """
    return Layer(Identity(pool.out_shape), Linear(), before=(pool,))


def multiplies(layer: Layer) -> bool:
    """Returns whether a layer has a product, whose events it pays."""
    return not isinstance(layer.synapse, Identity)


def integrates(layer: Layer) -> bool:
    """Returns whether a layer has neurons, whose updates it pays."""
    return not isinstance(layer.cell, Linear)
