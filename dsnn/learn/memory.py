"""How much memory a training step needs, before anything is compiled: a model, held against compiled programs by tests.

A step needs its state (parameters of the guide and what the optimiser keeps of them), its batch, the weights that it
draws with their gradients, and activations: what the backward pass reads of every time step. Only the last is a model;
the others are counted. Per time step, example and draw, in float32:

    4 bytes (inputs + KEPT neurons of all layers + PASSING neurons of the largest layer)

A layer keeps its membranes, draws and spikes; while its own gradient is computed, currents, surrogate derivatives and
cotangents of all steps pass through memory as well. Inputs that are held have one step. Where only the states at every
c-th step are kept, products stand inside the loop over time: T / c states and, of c steps that are computed again,
`AGAIN` arrays, both of the neurons of all layers.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.networks.layers import Layer

__all__ = ["AGAIN", "KEPT", "PASSING", "StepMemory", "size", "step_memory"]

KEPT, PASSING = 2.5, 3.25
"""Arrays of all time steps for each layer, and more of them for the one whose gradient is being computed.

Fitted to dense networks of one and two hidden layers, learned by `map` and `svi` on a CPU, which they meet to a fifth.
"""


AGAIN = 2
"""Arrays of the steps that are computed again: currents and membranes."""


class StepMemory(NamedTuple):
    """Bytes of one training step.

    Attributes:
        state: parameters and what the optimiser keeps, counted.
        batch: inputs and targets, counted.
        weights: gradients, and what is drawn, of all draws at once.
        activations: of all layers, time steps, examples and draws at once.
    """

    state: int
    batch: int
    weights: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def step_memory(
    model: Any, state: Any, batch: Any, *, steps: int, held: bool, samples: int = 0, memory: str | int = "full"
) -> StepMemory | None:
    """Returns what one training step needs; None of a network without layers, of which nothing is known.

    Args:
        model: the network.
        state: of the learner; shapes will do.
        batch: inputs ``[batch, ...]`` and targets; shapes will do.
        steps: T.
        held: whether one input is held for all steps.
        samples: draws of weights that are computed at once; 0 are points.
        memory: what the backward pass keeps, see `dsnn.unroll`.
    """
    layers = [layer for _, layer in nnx.iter_modules(model) if isinstance(layer, Layer)]
    if not layers:
        return None
    neurons = [math.prod(layer.out_shape) for layer in layers]
    examples, passes = jax.tree.leaves(batch)[0].shape[0], max(1, samples)
    inputs = math.prod(model.in_shape) * (1 if held else steps)
    if memory == "full":
        each = inputs + steps * (KEPT * sum(neurons) + PASSING * max(neurons))
    else:
        chunk = max(1, round(steps**0.5)) if memory == "sqrt" else min(int(memory), steps)
        each = inputs + (-(-steps // chunk) + AGAIN * chunk) * sum(neurons)
    weights = size(nnx.state(model)) * max(1, 2 * samples)
    return StepMemory(size(state), size(batch), weights, round(4 * passes * examples * each))


def size(tree: Any) -> int:
    """Returns the bytes of the arrays in a tree, or of their shapes."""
    return sum(_bytes(leaf) for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype"))


def _bytes(leaf: Any) -> int:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
