"""What a wire costs at each width that its kernel may have: prices that expected energy weighs by their chances."""

import dataclasses
import math
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np

from dsnn.bayes.bit_posterior import BitPosterior, named
from dsnn.bayes.sites import Wire
from dsnn.types import Array, Float

__all__ = ["PricesByWidth", "Widths"]


@runtime_checkable
class PricesByWidth(Protocol):
    """What is asked of an energy profile beside `dsnn.bayes.energy.Prices` (`dsnn.energy.Profile` has it)."""

    def event_at_nj(self, source: Any, accounting: Any, bits: int, fan_in: int, input_bits: int) -> float:
        """Returns the price in nJ of one event at one target whose weight has so many bits."""
        ...


@dataclasses.dataclass(frozen=True)
class Widths:
    """Prices of the widths of a network's kernels.

    Attributes:
        posterior: says which kernels have which widths.
        prices: the energy profile.
        updates: the profile at the width of membranes, by which updates are priced.
    """

    posterior: BitPosterior
    prices: PricesByWidth
    updates: Any

    def event_nj(
        self, wire: Wire, source: str, accounting: str, values: dict[str, Array]
    ) -> Float[Array, "..."] | float | None:
        """Returns the expected price in nJ of one event at one target, by receiver where channels differ.

        Args:
            wire: whose kernel may have widths; None is returned for others.
            source: "spikes" or "analog".
            accounting: "arithmetic", "updates" or "memory".
            values: probabilities, of widths by `named`; a kernel that is not there has its widest.
        """
        posterior, kernel = self.posterior, wire.kernel
        if kernel is None or kernel not in posterior.initial:
            return None
        fan_in = math.prod(np.shape(posterior.initial[kernel])[:-1])
        sent = self.input_bits(wire, kernel)
        table = [self.prices.event_at_nj(source, accounting, bits, fan_in, sent) for bits in posterior.settings]
        if named(kernel) not in values:
            return table[-1]
        expected = jnp.tensordot(jnp.asarray(table), values[named(kernel)], 1)
        return expected if posterior.per_channel else expected[0]

    def input_bits(self, wire: Wire, kernel: str) -> int:
        """Returns the width of what is sent over a wire: of values their own, of sums of spikes what they need."""
        return self.posterior.input_bits(kernel) if wire.analog else (1 + len(wire.sums)).bit_length()
