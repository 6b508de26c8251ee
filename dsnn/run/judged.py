"""What a decided network gets right of some examples, and what it costs on each machine, by blocks of examples.

A trial of a frontier is judged so on the part that selects, and a chosen one once more on the test part.
"""

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dsnn import data, energy, evaluate, rng
from dsnn.deploy.decided import Deployed, at_kept_steps, deploy, ran, running
from dsnn.deploy.exit_calibration import Calibrated, odds
from dsnn.run import assess_activity, exit_rule

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup

BLOCKS = 32
"""Blocks of examples by each of which energies are known, at most."""

RIGHT, SIZES, STEPS = "right", "sizes", "steps"
ENERGY, PART = "energy", "part"


class Judged(NamedTuple):
    """A network held to examples.

    Attributes:
        right: share of right answers of each example, 0 or 1 where it has one label, ``[example]``.
        sizes: examples of each block, ``[block]``.
        steps: mean steps that ran.
        energy: nJ of an inference, ``[block]``, by "machine/profile/accounting".
        parts: mean nJ by part, by the same.
    """

    right: np.ndarray
    sizes: np.ndarray
    steps: float
    energy: dict[str, np.ndarray]
    parts: dict[str, dict[str, float]]

    @property
    def accuracy(self) -> float:
        """Mean share of right answers."""
        return float(self.right.mean())

    def mean_nj(self, key: str) -> float:
        """Mean energy of an inference over the examples that were measured."""
        return float(np.average(self.energy[key], weights=self.sizes))

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns it as arrays by name, for a file."""
        flat = {f"{ENERGY}/{key}": values for key, values in self.energy.items()}
        flat |= {
            f"{PART}/{key}/{name}": np.asarray(nj) for key, parts in self.parts.items() for name, nj in parts.items()
        }
        return {RIGHT: self.right, SIZES: self.sizes, STEPS: np.asarray(self.steps), **flat}

    @classmethod
    def pooled(cls, folds: Sequence["Judged"]) -> "Judged":
        """Returns what networks were judged to be, each on a fold of its own, as one, whose blocks are the folds.

        A bootstrap then draws folds, networks and examples together.
        """
        if len(folds) == 1:
            return folds[0]
        sizes = np.asarray([one.sizes.sum() for one in folds])
        first = folds[0]
        return cls(
            np.concatenate([one.right for one in folds]),
            sizes,
            float(np.average([one.steps for one in folds], weights=[len(one.right) for one in folds])),
            {key: np.asarray([one.mean_nj(key) for one in folds]) for key in first.energy},
            {
                key: {
                    name: float(np.average([one.parts[key].get(name, 0.0) for one in folds], weights=sizes))
                    for name in names
                }
                for key, names in first.parts.items()
            },
        )

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray]) -> "Judged":
        """Returns what `arrays` gave."""
        found = {name.partition("/")[2]: v for name, v in arrays.items() if name.startswith(f"{ENERGY}/")}
        parts: dict[str, dict[str, float]] = {key: {} for key in found}
        for name, value in arrays.items():
            if name.startswith(f"{PART}/"):
                key, _, part = name.partition("/")[2].rpartition("/")
                parts[key][part] = float(value)
        return cls(arrays[RIGHT], arrays[SIZES], float(arrays[STEPS]), found, parts)


def key_of(machine: str, profile: str, accounting: str) -> str:
    """Returns what an energy is called in `Judged`."""
    return f"{machine}/{profile}/{accounting}"


def judged(setup: "Setup", settled: Calibrated, part: str, profiles: Sequence[energy.Profile]) -> Judged:
    """Returns what the decided network makes of examples.

    Args:
        setup: of the run.
        settled: its parameters, and when it stops.
        part: "val" or "test".
        profiles: hardware that it is priced on.
    """
    bayesian, arrays = setup.bayesian, getattr(setup.split, part)
    deployed = deploy(bayesian, settled.params, settled.threshold)
    logits = running(bayesian, deployed, arrays.x, setup.root)
    stop = np.full(logits.shape[1], len(logits))
    if exit_rule.stops(setup):
        stop = evaluate.exit_steps(odds(bayesian, settled.params, logits), settled.threshold)
    answered = right(setup, logits, part, stop)
    blocks = _blocks(setup, deployed, assess_activity.measured_on(setup, arrays))
    spent: dict[str, list[energy.Price]] = {}
    for block, machine in itertools.product(blocks, energy.MACHINES):
        counts = energy.count(energy.on_machine(block.records, machine, bayesian.simulator.steps))
        for profile, accounting in itertools.product(profiles, energy.ACCOUNTINGS):
            priced = energy.price(counts, profile, accounting)
            spent.setdefault(key_of(machine, profile.name, accounting), []).append(priced)
    sizes = np.asarray([block.size for block in blocks])
    return Judged(
        answered,
        sizes,
        float(stop.mean()),
        {key: np.asarray([price.total_nj for price in prices]) for key, prices in spent.items()},
        {key: _mean_parts(prices, sizes) for key, prices in spent.items()},
    )


def right(setup: "Setup", logits: np.ndarray, part: str, stop: np.ndarray) -> np.ndarray:
    """Returns the share of right answers of each example: at its own step, or over all steps that have a label.

    Args:
        setup: of the run.
        logits: running, ``[time, example, class]``.
        part: "val" or "test".
        stop: step after which each example was answered.
    """
    answers, y = logits.argmax(-1), np.asarray(getattr(setup.split, part).y)
    if y.ndim == 1:
        return (np.take_along_axis(answers, stop[None] - 1, 0)[0] == y).astype(float)
    steps: Any = setup.task  # a class at every step
    labelled = steps.counted(setup.split, part)
    return ((y == answers.T) & labelled).sum(1) / np.maximum(labelled.sum(1), 1)


class _Block(NamedTuple):
    """Records of some examples, and how many these are."""

    records: list[energy.Record]
    size: int


def _blocks(setup: "Setup", deployed: Deployed, arrays: data.Arrays) -> list[_Block]:
    """Returns what the compacted network did, a block of examples at a time."""
    simulator = setup.bayesian.simulator
    inputs = simulator.encode(jnp.asarray(arrays.x), rng.stream(setup.root, "data"))
    stop = deployed.executed(deployed.run(inputs).steps)
    model, runs = deployed.simulator.built(deployed.masked)
    kept = at_kept_steps(inputs, deployed.kept_steps)
    sent = assess_activity.sent_by(setup, deployed, kept, ran(simulator, model, inputs, running=runs))
    read, sent = np.asarray(kept), {name: np.asarray(values) for name, values in sent.items()}
    count = len(stop)
    each, blocks = -(-count // BLOCKS), []
    for start in range(0, count, each):
        rows = slice(start, min(start + each, count))
        given = read[rows] if simulator.held else read[:, rows]
        fired = {name: jnp.asarray(values[:, rows]) for name, values in sent.items()}
        records = assess_activity.records(setup, deployed, deployed.small, jnp.asarray(given), fired, stop[rows])
        blocks.append(_Block(records, rows.stop - rows.start))
    return blocks


def _mean_parts(prices: list[energy.Price], sizes: np.ndarray) -> dict[str, float]:
    return {name: float(np.average([price.parts[name] for price in prices], weights=sizes)) for name in prices[0].parts}
