"""What a share of the energy is a share of: what the whole network spent before its energy had a price."""

import jax
import jax.numpy as jnp

from dsnn.types import Array, Int

__all__ = ["held"]


def held(before: dict[str, Array], now: dict[str, Array], step: Int[Array, ""], priced_from: int) -> dict[str, Array]:
    """Returns the events of the whole network that a budget is a share of, where the price reaches its spikes.

    A price then silences the network whose every site runs as well, and a reference that went on following it would
    fall with its own budget. So it follows the network up to the update from which energy has a price; where that is
    the first, it is what is counted there, of a network that has not learned yet.

    Args:
        before: by wire, as they were.
        now: with what was measured at this update.
        step: number of the update.
        priced_from: the update from which energy has a price.
    """
    return jax.tree.map(lambda new, old: jnp.where(step <= priced_from, new, old), now, before)
