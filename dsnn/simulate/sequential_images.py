"""An image shown bit by bit: row after row, or pixel after pixel in reading order or in a fixed random one.

Sequential MNIST (Le, Jaitly & Hinton 2015) and its codes in Yin, Corradi & Bohte 2020, 2021: a threshold on the pixels,
a window that slides over the sequence, and receptive fields over grey levels. Images stay static until a batch is
encoded, so that 60000 of them take 188 MB whatever the code.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from dsnn.simulate import encode
from dsnn.types import Array, Float

ORDERS = ("rows", "pixels")


@dataclasses.dataclass(unsafe_hash=True)
class Scan:
    """How an image becomes a sequence.

    Attributes:
        order: "rows", one row a step, or "pixels", one pixel a step.
        permuted: seed of a fixed random order of the steps; -1 keeps them in order.
        threshold: pixels above it become 1 and others 0; -1 keeps the grey level (Yin et al. 2021: 0.1).
        window: successive steps that are seen at once, the last ones filled up with zeros (8, and 4 when permuted).
        units: receptive fields over the grey level of each value, see `dsnn.simulate.encode.population`; 0 is none (80
            in Yin et al. 2020).
    """

    order: str = "rows"
    permuted: int = -1
    threshold: float = -1.0
    window: int = 1
    units: int = 0

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"the order of a sequence must be one of {', '.join(ORDERS)}, got {self.order!r}.")
        if self.window < 1:
            raise ValueError(f"a window must see at least 1 step, got {self.window}.")
        if self.units < 0 or self.units == 1:
            raise ValueError(f"receptive fields must be 0 (none) or at least 2, got {self.units}.")
        if self.threshold >= 0 and self.units:
            raise ValueError("a threshold leaves no grey levels for receptive fields; give one of the two.")

    @property
    def analog(self) -> bool:
        """Whether the sequence carries values and not spikes."""
        return self.threshold < 0

    def shape(self, image: tuple[int, ...]) -> tuple[int, int]:
        """Returns steps and features per step of an image [height, width, ...]."""
        steps = image[0] if self.order == "rows" else image[0] * image[1]
        return steps, math.prod(image) // steps * self.window * max(self.units, 1)

    def blank(self, steps: int, features: int) -> tuple[int, ...]:
        """Returns the shape of an image that becomes this many steps of this many features."""
        return (steps, 1, features // self.window // max(self.units, 1))

    def __call__(self, x: Float[Array, "batch height width ..."]) -> Float[Array, "time batch feature"]:
        """Returns the sequences of a batch of images with values in [0, 1]."""
        steps = self.shape(x.shape[1:])[0]
        xs = jnp.swapaxes(x.reshape(x.shape[0], steps, -1), 0, 1)
        if self.permuted >= 0:
            xs = xs[np.random.default_rng(self.permuted).permutation(steps)]
        if self.threshold >= 0:
            xs = (xs > self.threshold).astype(xs.dtype)
        if self.units:
            xs = encode.population(xs, self.units, 1)[0].reshape(*xs.shape[:2], -1)
        if self.window > 1:
            filled = jnp.concatenate([xs, jnp.zeros((self.window - 1, *xs.shape[1:]), xs.dtype)])
            xs = jnp.concatenate([filled[k : k + steps] for k in range(self.window)], -1)
        return xs
