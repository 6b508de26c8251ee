"""What a network does in the very pass that gives its likelihood: the energy of its events, and its spikes.

Both have the gradient of the spikes, so that their price reaches weights, thresholds and time constants. They are
penalties on behaviour: their normaliser over what a network may do is not computed. Where a network gives values, its
events are those that are not zero, and beside them stands their L1 norm.
"""

from typing import NamedTuple

import jax.numpy as jnp

from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.bayes.events import differentiable
from dsnn.cells import kind
from dsnn.networks.plan import NEURONS, fires
from dsnn.networks.stack import Stack
from dsnn.networks.whole import Runnable
from dsnn.simulate.simulator import Pass
from dsnn.types import Array, Float

__all__ = ["Behaviour", "behaviour", "hidden", "hidden_spikes"]


class Behaviour(NamedTuple):
    """What was done in an inference, the mean over examples; what has no price is zero.

    Attributes:
        spent_nj: energy.
        spikes: of all hidden neurons, and sizes of the values of hidden ReLU.
    """

    spent_nj: Float[Array, ""]
    spikes: Float[Array, ""]


def behaviour(
    energy: EnergyPrior | None,
    opened: dict[str, Array],
    ran: Pass | None,
    reached: Float[Array, "time batch"] | None,
    *,
    held: bool,
    counts: bool,
) -> Behaviour:
    """Returns what a pass did.

    Args:
        energy: prices of its events, where these are differentiated.
        opened: by group, probabilities of open gates, or gates that are 0 or 1.
        ran: the pass; None: nothing that it did has a price.
        reached: probability that each example reaches each step, None: it does.
        held: whether the input was held.
        counts: whether spikes are counted.
    """
    spent_nj = spikes = jnp.zeros(())
    if ran is not None and energy is not None and energy.differentiated:
        share = jnp.ones(len(ran.logits)) if reached is None else reached.mean(1)
        spent_nj = energy.spent(opened, share, energy.events_of(ran, reached, held=held))
    if ran is not None and counts:
        spikes = hidden_spikes(ran, reached, held=held)
    return Behaviour(spent_nj, spikes)


def hidden_spikes(ran: Pass, reached: Float[Array, "time batch"] | None, *, held: bool) -> Float[Array, ""]:
    """Returns the spikes of all hidden neurons in an inference, whatever they cost and whichever gates are open.

    Values of hidden ReLU count by their size, the plain L1 norm.

    Args:
        ran: the pass.
        reached: probability that each example reaches each step, None: it does.
        held: whether the input was held.

    Raises:
        ValueError: the network says of no hidden neurons what they fire or give.
    """
    sent = ran.model.carried(ran.inputs, ran.sent, held=held)
    fired = [differentiable(sent[name]) for name in hidden(ran.model) if name in sent]
    fired += [jnp.abs(ran.sent[name]) for name in _values(ran.model)]
    if not fired:
        raise ValueError(
            "svi.rate_penalty needs hidden neurons that fire, and their spikes under the name of their group in "
            f"Output.sent, or a hidden ReLU of a stack, got none from {type(ran.model).__name__}; set "
            "svi.rate_penalty=0."
        )
    at_once = jnp.stack([events.reshape(*events.shape[:2], -1).sum(-1) for events in fired]).sum(0)
    if ran.running is not None:
        at_once = at_once * ran.running[:, None]
    return (at_once if reached is None else at_once * reached).sum(0).mean()


def hidden(model: Runnable) -> tuple[str, ...]:
    """Returns the names of the groups of hidden neurons: all that fire but for those that answer."""
    if isinstance(model, Stack):
        return tuple(f"{name}{NEURONS}" for name, layer in list(model.layers())[:-1] if fires(layer))
    wiring = model.wiring()
    return () if wiring is None else tuple(group.name for group in wiring.neurons if group.site is not None)


def _values(model: Runnable) -> tuple[str, ...]:
    """Returns the names of the hidden layers of a stack whose neurons are ReLU."""
    layers = list(model.layers())[:-1] if isinstance(model, Stack) else []
    return tuple(name for name, layer in layers if kind(layer.cell) == "ReLU")
