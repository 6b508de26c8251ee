"""A guard over automatic choices: a network that is worse than a simpler model is fitted again with less to spare.

The simpler models are a linear model and the deterministic twin. Both sides are compared example by example on the part
that selects; the answers stay those of the network, nothing is blended with a rival's.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dsnn import rng
from dsnn.config import Config
from dsnn.parameters import Params
from dsnn.tasks import Losses

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup

BEYOND = 1.645
"""Standard errors of a paired difference beyond which a network is worse: by chance in one comparison of twenty."""

MILDER = (0.2, 0.02)
"""What the price of energy and the KL weights are multiplied by, one fit after another."""

LONGER = (1.5, 2.0)
"""What the number of epochs is multiplied by, one fit after another."""

LEAST_NATS = 0.02
"""A fiftieth of a nat: a smaller difference does not matter; of errors, see `dsnn.tasks.Losses`."""

SAMPLES = 8
"""Posterior draws with which networks are compared."""


class Candidate(NamedTuple):
    """A fitted network with what it costs on the part that selects."""

    made: Any
    losses: Losses


class Guarded(NamedTuple):
    """The network that is kept.

    Attributes:
        made: by the first fit, or by a later one.
        fits: how many there were.
        reasons: why each fit but the last was not enough; names of rivals.
        worse_than: rivals that the kept network is still worse than.
    """

    made: Any
    fits: int
    reasons: tuple[str, ...]
    worse_than: tuple[str, ...]


def judged(setup: "Setup", params: Params, predict: Any, part: str, samples: int = SAMPLES) -> tuple[Any, Losses]:
    """Returns what a network answers of a part with all steps, and what that costs it.

    Args:
        setup: of the network.
        params: once learning is over.
        predict: its compiled predictive.
        part: "val" or "test".
        samples: posterior draws.
    """
    arrays, task = getattr(setup.split, part), setup.task
    y = np.asarray(arrays.y)
    made = predict(params, arrays.x, rng.stream(setup.root, "weights", 0), samples=samples, **task.beside(arrays.y))
    return made, task.losses(made, y)


def is_worse(ours: Losses, theirs: Losses) -> bool:
    """Returns whether a network errs more than a rival, or is surer of what is wrong, beyond what chance explains."""
    return _beyond(ours.error - theirs.error, theirs.least) or _beyond(ours.nll - theirs.nll, LEAST_NATS)


def _beyond(difference: np.ndarray, least: float) -> bool:
    if len(difference) < 2:
        return False
    deviation = float(difference.std(ddof=1)) / np.sqrt(len(difference))
    mean = float(difference.mean())
    return bool(mean > max(least, 1e-9) and mean > BEYOND * deviation)


def twin_of(config: Config) -> Config:
    """Returns the configuration of the deterministic twin: point weights, every site and every step."""
    return dataclasses.replace(
        config,
        learner="map",
        metrics=[],
        callbacks=[],
        gates=dataclasses.replace(config.gates, enabled=False, time=False),
        halting=dataclasses.replace(config.halting, enabled=False),
        bits=dataclasses.replace(config.bits, enabled=False),
        energy=dataclasses.replace(config.energy, events="frozen"),
        svi=dataclasses.replace(config.svi, rate_penalty=0.0, shrink_epochs=[]),
    )


def milder(config: Config, chosen: Mapping[str, Any], fit: int) -> Config | None:
    """Returns a configuration with less to spare, None where nothing that could be milder was chosen by the data.

    Args:
        config: with every choice made.
        chosen: the automatic choices; what a user set by hand stays.
        fit: 0 for the first fit again.
    """
    svi, train = config.svi, config.train
    factor, longer = MILDER[fit], LONGER[fit]
    values: dict[str, Any] = {
        name.removeprefix("svi."): chosen[name] * factor
        for name in ("svi.kl_weight", "svi.gates_weight", "svi.lam_nats")
        if name in chosen
    }
    if not values:
        return None
    if "train.epochs" in chosen:
        train = dataclasses.replace(train, epochs=round(chosen["train.epochs"] * longer))
    return dataclasses.replace(config, svi=dataclasses.replace(svi, **values), train=train)


def guarded(
    first: Candidate, rivals: dict[str, Losses], again: Callable[[int, Sequence[str]], Candidate | None]
) -> Guarded:
    """Returns the first fit that no rival beats beyond chance; of fits that all are beaten, the one of fewest errors.

    Args:
        first: the network as fitted.
        rivals: losses of simpler models, by name.
        again: ``again(fit, reasons)`` fits anew with less to spare; None where that cannot be.
    """
    candidates, reasons = [first], []
    beaten = [_beaten(first, rivals)]
    while beaten[-1] and len(candidates) <= len(MILDER):
        made = again(len(candidates) - 1, beaten[-1])
        if made is None:
            break
        reasons.append(" and ".join(beaten[-1]))
        candidates.append(made)
        beaten.append(_beaten(made, rivals))
    if beaten[-1]:
        best = min(range(len(candidates)), key=lambda k: _means(candidates[k].losses))
    else:
        best = len(candidates) - 1
    return Guarded(candidates[best].made, len(candidates), tuple(reasons), tuple(beaten[best]))


def _means(losses: Losses) -> tuple[float, float]:
    return float(losses.error.mean()), float(losses.nll.mean())


def _beaten(candidate: Candidate, rivals: dict[str, Losses]) -> list[str]:
    return [name for name, theirs in rivals.items() if is_worse(candidate.losses, theirs)]
