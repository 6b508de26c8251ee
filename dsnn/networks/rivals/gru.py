"""The gated recurrent unit (Cho et al. 2014): the network of values that reads sequences."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.networks.rivals.recurrent import HIDDEN, Sums, check_answers, flat, groups_of, unit, weights, wires_of
from dsnn.networks.shrink import cut
from dsnn.networks.wiring import INPUT
from dsnn.protocols import Output, Wiring
from dsnn.types import Array, Float, Key

__all__ = ["GRU", "GRUState", "gru"]


class GRUState(NamedTuple):
    """The units' values."""

    hidden: Float[Array, "batch unit"]


class GRU(nnx.Module):
    """r, z = σ(W x + U h + b), c = tanh(W x + b + r (U h + b')), h' = (1 - z) c + z h, y = V h'.

    Cho et al. 2014, eqs. 5 to 8, with the reset gate behind the product, as in cuDNN and PyTorch.

    Args:
        in_shape: shape of one input.
        classes: number of outputs.
        key: initialises the kernels; consumed.
        width: units.
        answers: "last" reads the units out after the last step alone, "every" after each; what it costs is then as
            many products.

    Raises:
        ValueError: no units, or other answers.
    """

    readout_kind = "last"

    def __init__(
        self, in_shape: tuple[int, ...], classes: int, *, key: Key[Array, ""], width: int = 32, answers: str = "last"
    ):
        check_answers(answers)
        self.in_shape, self.out_shape, self.answers = tuple(in_shape), (classes,), answers
        self.into, self.back, self.inner, self.out = weights(in_shape, classes, width, key)

    def init(self, batch: int) -> GRUState:
        """Returns units at zero."""
        return GRUState(jnp.zeros((batch, self.back.kernel.shape[0])))

    def step(
        self, state: GRUState, x: Float[Array, "batch ..."], key: Key[Array, ""] | None = None
    ) -> tuple[GRUState, Output]:
        """Returns the next state, and the outputs with what was sent; a key is accepted and not used."""
        del key
        x = flat(x)
        given, back = jnp.split(self.into(x), 3, -1), jnp.split(self.back(state.hidden), 3, -1)
        sums = Sums(given[0] + back[0], given[1] + back[1], given[2], back[2] + self.inner[...])
        hidden = unit(sums, state.hidden)
        sent = {HIDDEN: x, f"{HIDDEN}.recurrent": hidden, "readout": hidden}
        return GRUState(hidden), Output(self.out(hidden), sent)

    def wiring(self) -> Wiring:
        """Returns inputs and units as sites, the three products, and what an update costs."""
        inputs, units = self.into.kernel.shape[0], self.back.kernel.shape[0]
        wires = wires_of(self.into, self.back, self.out, self.answers, held=True)
        return Wiring({INPUT: inputs, HIDDEN: units}, wires, groups_of(self.back, self.out))

    def shrink(self, keep: dict[str, np.ndarray]) -> "GRU":
        """Returns the network of the inputs and units that are kept."""
        small: GRU = cut(self, keep)
        return small


gru = GRU
"""Its name among architectures."""
