"""Flipout: every example its own draw of the weights, for the price of one more product (Wen et al. 2018).

One draw W = M + Δ serves a whole minibatch, so the noise of its gradient does not fall with the batch size. If Δ has
independent entries, symmetric around zero, then so has Δ ∘ r s' with random signs r and s, and

    x (M + Δ ∘ r s') = x M + ((x ∘ r) Δ) ∘ s

gives every example its own signs. They hold for all time steps of the example, so its weights do not change while it
is seen. Local reparameterisation would draw currents of each step anew, which is another posterior in a spiking net.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dsnn.parameters import Params, Template
from dsnn.rng import stream
from dsnn.types import Array, Float, Key


class Flipped:
    """A synapse that adds randomly signed deviations to its central weights.

    Args:
        centre: synapse with the central kernel (and the bias).
        deviation: synapse with the deviations, without bias.
        key: makes the signs; consumed.
        batch: number of examples; time is folded into the batch, time first.
    """

    def __init__(self, centre: Any, deviation: Any, key: Key[Array, ""], batch: int):
        self.centre, self.deviation, self.key, self.batch = centre, deviation, key, batch
        self.in_shape, self.out_shape = centre.in_shape, centre.out_shape

    def __call__(self, x: Float[Array, "batch ..."]) -> Array:
        """Returns the currents, every example under its own signs."""
        before, after = jax.random.split(self.key)
        x = x.reshape(x.shape[0], -1) if len(self.out_shape) == 1 else x
        out = self.centre(x)
        return out + self.deviation(x * self._signs(before, x)) * self._signs(after, out)

    def _signs(self, key: Key[Array, ""], like: Array) -> Array:
        signs = jax.random.rademacher(key, (self.batch, like.shape[-1]), like.dtype)
        signs = jnp.tile(signs, (like.shape[0] // self.batch, 1))
        return signs.reshape(signs.shape[0], *[1] * (like.ndim - 2), signs.shape[1])


def flipout(
    template: Template, drawn: Params, centre: Params, key: Key[Array, ""], batch: int
) -> tuple[Params, Callable[[Any], Any]]:
    """Returns parameters and an adaptation of the network built from them, under which every example has its own draw.

    Args:
        template: the network.
        drawn: one draw of the weights, by name.
        centre: centres of the kernels whose deviations are independent and symmetric.
        key: makes the signs; consumed.
        batch: number of examples.
    """
    flipped = [name for name in centre if name.endswith(".synapse.kernel")]
    at_centre = drawn | {name: centre[name] for name in flipped}
    own = {name: drawn[name] for name in template.names}  # gates of steps and blocks are no parameters
    rest = {name: jnp.zeros_like(value) for name, value in own.items() if name.endswith(".synapse.bias")}
    apart = template.build(own | {name: own[name] - centre[name] for name in flipped} | rest)

    def adapt(model: Any) -> Any:
        for index, (name, layer) in enumerate(model.layers()):
            if f"{name}.synapse.kernel" in flipped:
                deviation = getattr(apart, name).synapse
                layer.synapse = Flipped(layer.synapse, deviation, stream(key, "weights", index), batch)
        return model

    return at_centre, adapt
