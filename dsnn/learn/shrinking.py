"""Learning that gets cheaper: sites that are surely closed leave the network while it learns.

What is learned goes on in the smaller network, optimiser state and all, and after every epoch back into the whole one,
whose closed sites stand still. So whoever reads, keeps or assesses a state sees the whole network, and the smaller one
is a matter of time alone. The objective is the whole network's under closed gates but for a constant, the divergence of
the weights that have left.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.sites import FEATURES, INPUT, TIME, Sites, Wire
from dsnn.learn.fit import Epoch, fit_program
from dsnn.learn.svi_config import SviConfig
from dsnn.learn.svi_state import SviState, svi_params
from dsnn.networks.narrow import Entries, entries, narrows, outermost
from dsnn.parameters import STATISTICS

__all__ = ["Kept", "Phase", "Places", "check_guide", "closed_surely", "fit_shrinking", "places", "settled"]

Kept = dict[str, np.ndarray]
"""Numbers of the sites that stay, by group; a group that is left out stays whole."""


class Phase(NamedTuple):
    """Epochs that are learned in a network of one size.

    Attributes:
        run: all steps of an epoch, a program of `dsnn.learn.compiled`.
        narrow: gives its state of the whole network's.
        expand: gives the whole network's, of that before and its own.
    """

    run: Callable[..., Any]
    narrow: Callable[[Any], Any] = lambda state: state
    expand: Callable[[Any, Any], Any] = lambda whole, state: state


def fit_shrinking(
    phase: Phase,
    settings: Any,
    state: Any,
    arrays: Any,
    *,
    epochs: int,
    start: int = 0,
    at: Sequence[int] = (),
    since: int = 0,
    shrink: Callable[[Any, int], tuple[Any, Phase | None]],
) -> Iterator[Epoch]:
    """Yields after every epoch, with the state of the whole network; as `dsnn.learn.fit.fit_program` otherwise.

    Args:
        phase: that learning starts in.
        settings: of the program.
        state: of the whole network.
        arrays: all training examples.
        epochs: of the whole run.
        start: first epoch to run.
        at: epochs after which sites may leave.
        since: the last of them that the phase is of; 0 is none.
        shrink: gives, of the state after one of them and its number, the state in which what leaves is closed, and the
            phase that follows; None goes on.
    """
    ends = sorted({epoch for epoch in at if start < epoch < epochs} | {epochs})
    for first, last in zip([start, *ends], ends, strict=False):
        if first in at and first > since:
            state, after = shrink(state, first)
            phase = phase if after is None else after
        own = phase.narrow(state)
        for epoch in fit_program(phase.run, settings, own, arrays, epochs=last, start=first):
            state = phase.expand(state, epoch.state)
            yield epoch._replace(state=state)


def closed_surely(bayesian: Bayesian, config: SviConfig, state: SviState) -> Kept:
    """Returns the sites that stay when those leave that run with a probability below ``svi.shrink_below``.

    Every group keeps one site, and as many as its budget has. Steps stay, and features leave with their channels.
    """
    gates = bayesian.gates
    assert gates is not None
    runs = gates.running(svi_params(bayesian, state))
    model = bayesian.simulator.template.build(bayesian.weights.initial)
    kept: Kept = {}
    for group, p in jax.device_get(runs).items():
        if group in (TIME, FEATURES) or not narrows(model, group):
            continue
        open_ = p >= config.shrink_below
        if group in gates.sites.switches:  # a block goes as a whole, and takes with it what a budget may count
            stays = outermost(model, group, open_)
            if not stays.all() and not config.budget_sites:
                kept[group] = np.flatnonzero(stays)
            continue
        # of one input nothing could be spared, and it would be no site any more
        least = max(config.budget_sites.get(group, 1), int(open_.sum()), 2 if group == INPUT else 1)
        if least < len(p):
            kept[group] = np.sort(np.argsort(-p, kind="stable")[:least])
    return kept


def settled(bayesian: Bayesian, state: SviState, keep: Kept) -> SviState:
    """Returns the state in which the gates of all other sites are surely closed."""
    gates = bayesian.gates
    assert gates is not None
    stays = np.ones(gates.sites.total, bool)
    for group, at in _offsets(gates.sites).items():
        if group in keep:
            stays[at : at + gates.sites.groups[group]] = np.isin(np.arange(gates.sites.groups[group]), keep[group])
    count, (params, opt_state) = state.svi.optim_state
    shut = gates.decide(params, jnp.zeros(len(stays), bool))
    params = {name: jnp.where(stays, value, shut[name]) if _gate(name) else value for name, value in params.items()}
    return state._replace(svi=state.svi._replace(optim_state=(count, (params, opt_state))))


@dataclasses.dataclass(frozen=True, eq=False)
class Places:
    """Where the numbers of a smaller network's state stand in that of the whole.

    Attributes:
        parameters: by name, as `dsnn.networks.narrow.entries` has them.
        sites: numbers of the sites that stay, all groups in a row.
        senders: of each wire, the senders that stay.
        shape: the smaller state, of shapes.
    """

    parameters: Entries
    sites: np.ndarray
    senders: dict[str, np.ndarray]
    shape: SviState

    def narrow(self, whole: SviState) -> SviState:
        """Returns the smaller network's state of that of the whole."""
        have = dict(jax.tree_util.tree_flatten_with_path(whole)[0])
        paths, tree = jax.tree_util.tree_flatten_with_path(self.shape)
        return jax.tree.unflatten(tree, [self._at(path, have[path], leaf.shape) for path, leaf in paths])

    def expand(self, whole: SviState, small: SviState) -> SviState:
        """Returns the state of the whole network, in which what has left is as it was."""
        new = dict(jax.tree_util.tree_flatten_with_path(small)[0])
        paths, tree = jax.tree_util.tree_flatten_with_path(whole)
        return jax.tree.unflatten(
            tree, [self._put(path, leaf, new[path]) if path in new else leaf for path, leaf in paths]
        )

    def _at(self, path: Any, leaf: Any, shape: tuple[int, ...]) -> Any:
        if jnp.shape(leaf) == tuple(shape):
            return leaf
        return leaf[self._index(path, jnp.shape(leaf))]

    def _put(self, path: Any, leaf: Any, small: Any) -> Any:
        if jnp.shape(leaf) == jnp.shape(small):
            return small
        return leaf.at[self._index(path, jnp.shape(leaf))].set(small)

    def _index(self, path: Any, shape: tuple[int, ...]) -> Any:
        name = [str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)][-1]
        if isinstance(path[0], jax.tree_util.GetAttrKey) and path[0].name in ("events", "ungated_events"):
            return self.senders[name]
        if _gate(name):
            return self.sites
        own = self.parameters[_parameter(name, self.parameters)]
        # members of an ensemble stand in front
        return (..., *np.ix_(*own)) if len(own) < len(shape) else np.ix_(*own)


def places(whole: Bayesian, small: Bayesian, shape: SviState, keep: Kept) -> Places:
    """Returns where a smaller network's state stands in that of the whole.

    Args:
        whole: before sites left.
        small: the network of those that are kept.
        shape: the smaller state, of shapes.
        keep: the sites that stay, by group.
    """
    template, sites = whole.simulator.template, whole.gates.sites if whole.gates else whole.sites
    assert sites is not None
    statistics = {name.removeprefix(STATISTICS): value.shape for name, value in template.statistics.items()}
    shapes = {name: value.shape for name, value in whole.weights.initial.items()} | statistics
    found = entries(template.build(whole.weights.initial), shapes, keep)
    found |= {STATISTICS + name: found[name] for name in statistics}
    left = {wire.name for wire in small.sites.wires} if small.sites else set()
    every = _with_features(sites, keep)
    offsets = _offsets(sites)
    there = {} if small.sites is None else small.sites.groups
    numbers = [offsets[group] + every.get(group, np.arange(size)) for group, size in sites.groups.items()]
    stay = [numbers[place] for place, group in enumerate(sites.groups) if group in there]
    senders = {wire.name: np.flatnonzero(_sends(wire, every)) for wire in sites.wires if wire.name in left}
    return Places(found, np.concatenate(stay) if stay else np.arange(0), senders, shape)


def check_guide(bayesian: Bayesian, state: SviState) -> None:
    """Checks that a guide has a number for each weight, which leaves with it.

    Raises:
        ValueError: it has others.
    """
    names, (_, (params, _)) = bayesian.simulator.template.names, state.svi.optim_state
    likelihood = bayesian.likelihood.parameters()
    for name in params:
        known = _gate(name) or name.startswith("halting.") or name in likelihood
        if not known and not _parameter(name, names):
            raise ValueError(
                "svi.shrink_epochs needs a posterior that says something of each weight by itself, got a guide with "
                f"{name!r}; take bayes.guide=point or mean_field, or leave svi.shrink_epochs out."
            )


def _gate(name: str) -> bool:
    return name.startswith("gates.")


def _parameter(name: str, names: Any) -> str:
    """Returns the parameter of the network that a guide's parameter is about; empty where there is none."""
    return max((own for own in names if name == own or name.startswith(f"{own}.")), key=len, default="")


def _offsets(sites: Sites) -> dict[str, int]:
    """Returns where each group begins among all sites in a row."""
    ends = np.cumsum([0, *sites.groups.values()])
    return dict(zip(sites.groups, map(int, ends), strict=False))


def _with_features(sites: Sites, keep: Kept) -> Kept:
    """Returns the sites that stay, with the features whose channels do."""
    own = next((wire for wire in sites.wires if any(ends.group == FEATURES for ends in wire.senders)), None)
    if own is None:
        return keep
    return {**keep, FEATURES: np.flatnonzero(_sends(own, keep))}


def _sends(wire: Wire, keep: Kept) -> np.ndarray:
    """Returns whether each sender of a wire stays."""
    stays = np.ones(wire.pre_sites, bool)
    for ends in wire.senders:
        if ends.group in keep:
            stays &= (ends.index < 0) | np.isin(ends.index, keep[ends.group])
    return stays
