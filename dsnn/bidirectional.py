"""Two stacks that read a sequence from its two ends, and a readout that sees both (Yin et al. 2021, TIMIT).

What is read backwards has to have ended, so such a network answers after the sequence and cannot stop early.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx

from dsnn.layers import Layer
from dsnn.models import Stack, layer_key, running_logits
from dsnn.types import Array, Float, Key
from dsnn.unroll import unroll


class Bidirectional(nnx.Module):
    """A forward and a backward stack under one readout, outputs_t = readout([ahead_t, behind_t]).

    Args:
        ahead: reads the sequence as it is.
        behind: reads it from its end.
        readout: a layer whose inputs are both stacks' outputs.
        readout_kind: how outputs become logits, see `dsnn.models.running_logits`.

    Raises:
        ValueError: the readout does not take what the stacks give.
    """

    def __init__(self, ahead: Stack, behind: Stack, readout: Layer, readout_kind: str = "last"):
        both = ahead.out_shape[-1] + behind.out_shape[-1]
        if readout.in_shape != (both,):
            raise ValueError(
                f"the readout must take the {both} outputs of both stacks, got in_shape {readout.in_shape}."
            )
        self.ahead, self.behind, self.readout, self.readout_kind = ahead, behind, readout, readout_kind

    def logits(self, outputs: Float[Array, "time batch class"]) -> Float[Array, "time batch class"]:
        """Returns the running logits under this network's readout."""
        return running_logits(outputs, self.readout_kind)


def unroll_both(
    model: Bidirectional, xs: Float[Array, "time batch ..."], key: Key[Array, ""] | None = None, **options: Any
) -> Float[Array, "time batch class"]:
    """Returns the outputs of every step; a key is consumed, None is the deterministic network.

    Args:
        model: the two stacks and their readout.
        xs: the whole sequence.
        key: drives stochastic firing.
        **options: ``schedule`` and ``memory`` of `dsnn.unroll`.
    """
    ahead = unroll(model.ahead, xs, layer_key(key, 0), None, **options)[0]
    behind = unroll(model.behind, xs[::-1], layer_key(key, 1), None, **options)[0][::-1]
    both = Stack(model.readout_kind, readout=model.readout)
    return unroll(both, jnp.concatenate([ahead, behind], -1), layer_key(key, 2), None, **options)[0]
