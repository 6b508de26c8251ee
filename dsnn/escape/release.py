"""Synaptic release failure: a spike that is fired and not passed on."""

from collections.abc import Sequence
from typing import Any

from flax import nnx

from dsnn.escape.draw import uniform16, with_gradient_of
from dsnn.escape.parameters import check_learnable, parameter, value
from dsnn.types import Array, Float, Key


class ReleaseFailure(nnx.Module):
    """Passes each spike on with a probability, independently; the neuron that fired it is reset all the same.

    A failure silences all synapses of the neuron in that step (Katz 1969). The derivative with respect to the spikes
    is that of the spikes passed on, and with respect to the probability that of their mean.

    Args:
        probability: of release, in [0, 1].
        learnable: ("probability",) trains it.
        shape: shape of a learnable probability, () shared or (neurons,).

    Raises:
        ValueError: the probability is out of range.
    """

    def __init__(self, probability: Any = 0.9, *, learnable: Sequence[str] = (), shape: Sequence[int] = ()):
        check_learnable(learnable, ("probability",))
        hint = "it is the probability that a spike is passed on"
        self.probability = parameter(
            "probability", probability, "unit_interval", learnable="probability" in learnable, shape=shape, hint=hint
        )

    def release(self, spikes: Float[Array, "..."], key: Key[Array, ""] | None = None) -> Float[Array, "..."]:
        """Returns the spikes that are passed on, all of them without a key; a key is consumed."""
        if key is None:
            return spikes
        chance = value(self.probability)
        passed = (chance > uniform16(key, spikes.shape)).astype(spikes.dtype)
        return spikes * with_gradient_of(passed, chance + 0.0 * passed)
