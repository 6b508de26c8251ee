"""Learning that goes on in a smaller network once sites are surely closed (``svi.shrink_epochs``).

A setup says when sites may leave; what left, and when, is told to whoever keeps it, so that a run that is resumed goes
on in the network in which it stopped.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import learn, resolve
from dsnn.assembly.assemble import Setup
from dsnn.assembly.bayesian import network
from dsnn.bayes.sites import INPUT, Sites
from dsnn.learn.shrinking import Kept, Phase, check_guide, closed_surely, fit_shrinking, places, settled

log = logging.getLogger(__name__)

__all__ = ["Left", "fit", "forward_macs", "phase_of"]

KEEP = "keep/"


class Left(NamedTuple):
    """What has left a network that learns.

    Attributes:
        epoch: epochs that had been done.
        keep: numbers of the sites that stayed, by group.
        left_nj: energy of an inference that left with the others, as it was measured then.
        macs: multiply-accumulates of a forward pass of one example from then on.
    """

    epoch: int
    keep: Kept
    left_nj: float
    macs: float

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns it as arrays by name, for a file."""
        numbers = {"epoch": self.epoch, "left_nj": self.left_nj, "macs": self.macs}
        kept = {KEEP + group: np.asarray(sites) for group, sites in self.keep.items()}
        return {name: np.asarray(value) for name, value in numbers.items()} | kept

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> "Left | None":
        """Returns what `arrays` gave; None of no arrays."""
        if not arrays:
            return None
        keep = {name.removeprefix(KEEP): value for name, value in arrays.items() if name.startswith(KEEP)}
        return cls(int(arrays["epoch"]), keep, float(arrays["left_nj"]), float(arrays["macs"]))


def fit(
    setup: Setup,
    run: Callable[..., Any],
    settings: Any,
    state: Any,
    arrays: Any,
    *,
    epochs: int,
    start: int = 0,
    left: Left | None = None,
    told: Callable[[Left], None] = lambda left: None,
) -> Iterator[learn.Epoch]:
    """Yields after every epoch, with the whole network's state, as `dsnn.learn.fit_program` does.

    Args:
        setup: what is learned.
        run: program of an epoch of the whole network.
        settings: of the program.
        state: of the whole network.
        arrays: all training examples.
        epochs: of the whole run.
        start: first epoch to run.
        left: what had left when learning stopped; None is nothing.
        told: is told whenever sites have left.
    """
    at = setup.config.svi.shrink_epochs
    if not at or setup.bayesian.gates is None:
        yield from learn.fit_program(run, settings, state, arrays, epochs=epochs, start=start)
        return
    check_guide(setup.bayesian, state)

    def shrink(state: Any, epoch: int) -> tuple[Any, Phase | None]:
        keep = closed_surely(setup.bayesian, setup.config.svi, state)
        if not _feeds_values(setup):
            keep.pop(INPUT, None)
        if not keep:
            log.warning(
                "after epoch %d no site is surely closed (svi.shrink_below): the whole network learns on", epoch
            )
            return state, None
        state = settled(setup.bayesian, state, keep)
        phase, found = phase_of(setup, state, keep, epoch)
        told(found)
        return state, phase

    first = Phase(run) if left is None else phase_of(setup, state, left.keep, left.epoch, left.left_nj)[0]
    since = 0 if left is None else left.epoch
    yield from fit_shrinking(
        first, settings, state, arrays, epochs=epochs, start=start, at=at, since=since, shrink=shrink
    )


def forward_macs(sites: Sites, steps: int) -> float:
    """Returns the multiply-accumulates of a forward pass of one example, every weight at every step that reads it."""
    return float(
        sum(
            wire.said.senders * wire.said.receivers * np.sum(wire.said.fan) * (1 if wire.once else steps)
            for wire in sites.wires
        )
    )


def phase_of(setup: Setup, state: Any, keep: Kept, epoch: int, left_nj: float | None = None) -> tuple[Phase, Left]:
    """Returns learning in the network of the sites that stay, and what has left.

    Args:
        setup: of the whole network.
        state: of the whole network, in which what leaves is closed.
        keep: the sites that stay.
        epoch: epochs that are done.
        left_nj: energy that has left; None measures it.
    """
    config = setup.config
    small, sites = network(config, setup.split, setup.settings, traced=False, start=setup.start, keep=keep)
    own = dataclasses.replace(setup, keep=keep, programs={})
    found = places(setup.bayesian, small, jax.eval_shape(own.family(setup.settings, traced=False).init), keep)
    if left_nj is None:
        left_nj = _spent(setup.bayesian, state.whole_events) - _spent(small, found.narrow(state).whole_events)
    learner = dataclasses.replace(own, left_nj=left_nj).family(setup.settings, traced=False)
    place = _placed(setup, small, keep)
    program = setup.epoch(lambda _: learner, place)
    left = Left(epoch, keep, left_nj, forward_macs(sites, small.simulator.steps))
    return Phase(program, jax.jit(found.narrow), jax.jit(found.expand)), left


def _spent(bayesian: Any, events: dict[str, Any]) -> float:
    """Returns the energy in nJ of an inference of a whole network and all steps."""
    return float(bayesian.energy.expected({}, events).total(float(bayesian.simulator.steps)))


def _feeds_values(setup: Setup) -> bool:
    """Returns whether a network reads values of the data one by one, so that some can be left out."""
    encoding = setup.bayesian.simulator.encoding
    return encoding != "scan" and not resolve.is_foreign(encoding)


def _placed(setup: Setup, small: Any, keep: Kept) -> Callable[[learn.Batch], learn.Batch]:
    """Returns what leaves the inputs of a batch out that nobody reads any more."""
    if INPUT not in keep:
        return lambda batch: batch
    simulator, stays = small.simulator, jnp.asarray(keep[INPUT])
    whole = setup.bayesian.simulator
    in_shape = whole.template.build(setup.bayesian.weights.initial).in_shape
    shape = tuple(simulator.template.build(small.weights.initial).in_shape)
    channels = len(in_shape) > 1 and shape[:-1] == tuple(in_shape[:-1]) and setup.sites.groups[INPUT] == in_shape[-1]
    lead = 2 if simulator.encoding == "temporal" else 1

    def place(batch: learn.Batch) -> learn.Batch:
        x = batch.x if channels else batch.x.reshape(*batch.x.shape[:lead], -1)
        return batch._replace(x=jnp.take(x, stays, axis=-1).reshape(*x.shape[:lead], *shape))

    return place
