"""The wires and neurons of a network seen from its compute sites: what has to run so that they cost something."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dsnn.cells import kind
from dsnn.energy import priced_as
from dsnn.networks.indices import first_units, spread
from dsnn.networks.wiring import priced
from dsnn.protocols import NeuronGroup
from dsnn.protocols import Wire as Said
from dsnn.types import Array, Float, Shaped

__all__ = ["Ends", "Neurons", "Wire", "inside_of", "neurons_of", "wire_of"]


class Ends(NamedTuple):
    """Which site of a group each of several is: ``index`` has one number for each, -1 for none."""

    group: str
    index: np.ndarray  # type: ignore[assignment]  # the field's name, of a tuple's method

    def of(self, values: Shaped[Array | np.ndarray, " site"]) -> Shaped[Array, " unit"]:
        """Returns the values of each one's site; 1 where it has none."""
        return spread(values, self.index)


Within = tuple[tuple[str, int], ...]
"""Sites (group, number)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Wire:
    """One product of the network seen from its sites: events of senders, each reaching ``fan`` targets per receiver.

    Attributes:
        said: what the network says of it under the options of the run, see `dsnn.protocols.Wire`.
        units: number of the sender that each unit of the wire is: units that share all their sites are one sender.
        senders: the sites of each sender, by group, which must all be open for it to send.
        receivers: the same of each receiver.
        pre_sites: number of senders, each of which has one number in what `measure` gives.
        post_sites: number of receivers.
        fan: number of targets per event and receiver, the mean over the places of what is sent; 1 for dense. What
            `measure` gives weighs each event by the fan of its own place, so that events times fan is exact.
        places: targets of an event by place over ``fan``, of what is sent in places; None is one.
        inside: sites that have to run too, such as a block or a head.
        sums: sites whose spikes are added to what is sent; where one of them runs, events are sums and carry values.
    """

    said: Said
    units: np.ndarray
    senders: tuple[Ends, ...]
    receivers: tuple[Ends, ...]
    pre_sites: int
    post_sites: int
    fan: float
    places: Float[np.ndarray, "..."] | None
    inside: Within
    sums: Within

    @property
    def name(self) -> str:
        """Its name, as in the network's wiring."""
        return self.said.name

    @property
    def kernel(self) -> str | None:
        """Name of the parameter whose rows the senders' gates scale; None where there is none."""
        return self.said.kernel

    @property
    def analog(self) -> bool:
        """Whether events carry values, so that each costs a multiplication."""
        return self.said.values == "analog"

    @property
    def once(self) -> bool:
        """Whether the product is computed once per inference and not at every step: of a held input, or at the end."""
        return self.said.once or self.said.at == -1

    @property
    def recurrent(self) -> bool:
        """Whether what is sent is read a step later."""
        return self.said.recurrent

    def pairs(
        self, values: dict[str, Array], rate: Float[Array, " sender"], price: Float[Array, "..."] | float = 1.0
    ) -> Float[Array, ""]:
        """Returns the expected number of events that reach a receiver that runs, of independent gates.

        A site at both ends is one gate, and counts once: so does one that everything here lies inside of.

        Args:
            values: probabilities by group.
            rate: events of each sender.
            price: of an event, of each receiver or one for all.
        """
        values = inside_of(self.inside, values)
        sending = math.prod((ends.of(values[ends.group]) for ends in self.senders), start=jnp.ones(self.pre_sites))
        each = jnp.broadcast_to(jnp.asarray(price, jnp.float32), (self.post_sites,))
        receiving = math.prod((ends.of(values[ends.group]) for ends in self.receivers), start=each)
        total = (sending * rate).sum() * receiving.sum()
        into = {ends.group: ends for ends in self.receivers}
        shared = [ends for ends in self.senders if ends.group in into]
        if not shared and self.said.groups == 1:
            return total
        if self.said.groups == 1 and len(self.senders) == len(self.receivers) == 1:
            # p instead of p times p, for each receiver that is the sender's own site
            (own,), there = shared, into[shared[0].group].index
            alike = jnp.zeros(len(values[own.group])).at[there[there >= 0]].add(each[there >= 0])
            return total + (sending * (1 - sending) * rate * alike[np.maximum(own.index, 0)]).sum()
        together = rate[:, None] * self._reaches() * each
        for ends in self.senders:
            p, other = ends.of(values[ends.group])[:, None], into.pop(ends.group, None)
            if other is not None:  # one gate where both ends are one site
                same = (ends.index[:, None] == other.index) & (other.index >= 0)
                p = jnp.where(same, p, p * other.of(values[ends.group]))
            together = together * p
        for other in into.values():
            together = together * other.of(values[other.group])
        return together.sum()

    def ceaseless(self) -> Float[Array, " sender"]:
        """Returns the events of each sender if it sent from every place: as many as it has units and places."""
        everywhere = 1.0 if self.places is None else float(self.places.sum())
        return jnp.asarray(everywhere * np.bincount(self.units, minlength=self.pre_sites), jnp.float32)

    def _reaches(self) -> Any:
        """Returns which receivers each sender reaches, ``[sender, receiver]``: those of its own group."""
        groups = self.said.groups
        each = np.ones((self.pre_sites // groups, self.post_sites // groups), np.float32)
        return jnp.asarray(np.kron(np.eye(groups, dtype=np.float32), each))


@dataclasses.dataclass(frozen=True, eq=False)
class Neurons:
    """A group of neurons seen from its sites.

    Attributes:
        name: as in the network's wiring.
        sites: the site of each of them but for places; None where nothing closes them.
        each: neurons for each of these, or all of them.
        kind: of their cell, by which an update is priced.
        inside: sites that have to run too, such as a block or a head.
        once: whether this is done once per inference and not at every step: the norm of a held input.
    """

    name: str
    sites: Ends | None
    each: int
    kind: str
    inside: Within
    once: bool = False

    def running(self, values: dict[str, Array]) -> Any:
        """Returns the expected number of neurons that are updated where what they lie inside of runs."""
        if self.sites is None:
            return float(self.each)
        return self.sites.of(inside_of(self.inside, values)[self.sites.group]).sum() * self.each


def wire_of(said: Said) -> Wire:
    """Returns a wire of `dsnn.networks.wiring.described_by` as its sites see it."""
    # which group of a convolution a sender is in is told by its place
    indices = [axis.index for axis in said.pre] if said.groups == 1 else []
    first, units = first_units(indices, said.senders)
    fan = float(np.mean(said.fan))
    return Wire(
        said,
        units,
        tuple(Ends(axis.group, axis.index[first]) for axis in said.pre),
        tuple(Ends(axis.group, axis.index) for axis in said.post),
        len(first),
        said.receivers,
        fan,
        np.asarray(said.fan, float) / fan if np.ndim(said.fan) and fan else None,
        _within(said.within),
        _within(said.joined),
    )


def neurons_of(said: NeuronGroup) -> Neurons:
    """Returns a group of neurons as its sites see it."""
    site = said.site
    each = said.count if site is None else said.count // max(len(site.index), 1)
    ends = None if site is None else Ends(site.group, site.index)
    once = said.once or said.at is not None
    return Neurons(said.name, ends, each, priced_as(priced(said), kind(priced(said))), _within(said.within), once)


def _within(names: tuple[str, ...]) -> Within:
    split = (name.rpartition(":") for name in names)
    return tuple((group, int(number)) for group, _, number in split)


def inside_of(sites: Within, values: dict[str, Array]) -> dict[str, Array]:
    """Returns values by group with those of some sites at one."""
    for group, number in sites:
        if group in values:
            values = values | {group: jnp.asarray(values[group]).at[number].set(1.0)}
    return values
