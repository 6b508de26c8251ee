"""Dropout as a posterior: masks that are drawn in prediction too (Gal & Ghahramani 2016), per example or per step."""

from typing import Any

import jax
import jax.numpy as jnp

from dsnn.bayes.guides.contract import Adapt, Guide
from dsnn.bayes.guides.factorised import point
from dsnn.rng import stream
from dsnn.types import Array, Float, Key


class Masked:
    """A synapse whose inputs are dropped by chance and the kept ones scaled by 1 / (1 - rate).

    Args:
        synapse: the synapse.
        rate: probability that an input is dropped.
        key: makes the masks; consumed.
        batch: number of examples; one mask per example serves all its time steps.
        every_step: a mask of its own for every time step too; a call then has to see all steps.
    """

    def __init__(self, synapse: Any, rate: float, key: Key[Array, ""], batch: int, every_step: bool):
        self.synapse, self.rate, self.key, self.batch, self.every_step = synapse, rate, key, batch, every_step
        self.in_shape, self.out_shape = synapse.in_shape, synapse.out_shape

    def __call__(self, x: Float[Array, "batch ..."]) -> Array:
        """Returns the currents that the kept inputs drive; time is folded into the batch, time first."""
        rows = x.shape[0] if self.every_step else self.batch
        keep = jax.random.bernoulli(self.key, 1.0 - self.rate, (rows, *x.shape[1:]))
        mask = jnp.tile(keep, (x.shape[0] // rows, *[1] * (x.ndim - 1)))
        return self.synapse(x * mask / (1.0 - self.rate))


def dropout(rate: float = 0.1) -> Guide:
    """Returns MC dropout: point weights at their posterior mode, inputs of every layer after the first dropped.

    The mask of an example holds for all its time steps, so that one pass is one draw of the network.

    Args:
        rate: probability that a neuron's output is dropped, in (0, 1).

    Raises:
        ValueError: the rate is out of range.
    """
    return _dropping(rate, every_step=False)


def aot(rate: float = 0.1) -> Guide:
    """Returns dropout with a new mask at every time step, so that T masks serve one pass (Sun, Yin & Bohté 2023).

    They average the class probabilities over time: give the network the readout "vote". Masks are drawn for all
    steps at once: the schedule "auto" is then "layer", and "step" is refused by `dsnn.unroll`.

    Args:
        rate: probability that a neuron's output is dropped at a step, in (0, 1).

    Raises:
        ValueError: the rate is out of range.
    """
    return _dropping(rate, every_step=True)


def _dropping(rate: float, *, every_step: bool) -> Guide:
    if not 0 < rate < 1:
        raise ValueError(f"a dropout rate must be in (0, 1), got {rate}; 0.1 is usual.")

    def noise(key: Key[Array, ""], batch: int) -> Adapt:
        def adapt(model: Any) -> Any:
            for index, (_, layer) in enumerate(model.layers()):
                if index:
                    layer.synapse = Masked(layer.synapse, rate, stream(key, "dropout", index), batch, every_step)
            return model

        return adapt

    return point()._replace(noise=noise)
