"""From judged trials to a frontier's standings: who is chosen, at which level whom it meets, and what comes of it.

Choices and levels come from the part that selects, mean over seeds; ratios and verdicts from the test part.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dsnn import energy, evaluate, plots
from dsnn.run import trial
from dsnn.run.contenders import OURS
from dsnn.run.judged import Judged

MOST_POINTS = 4
"""Trials of a front that are learned with every seed and assessed on the test part, at most."""

TOLERANCES = {
    "mnist": 0.003, "fashion-mnist": 0.003, "digits": 0.007, "fsdd": 0.015, "nmnist-small": 0.015,
    "qtdb": 0.01,
}  # fmt: skip
"""Shares by which accuracies may differ and be equal, by data set."""

USUAL_TOLERANCE = 0.01

PRICES_BY = 0.2
"""Share by which each price may be wrong, in the sensitivity."""


UNREACHED = "ours does not reach it"
"""Verdict at an accuracy that only a rival has."""


class Tried(NamedTuple):
    """A finished trial: number and settings, core-seconds, and what it was judged to be on the part that selects."""

    number: int
    settings: dict[str, Any]
    core_s: float
    select: Judged


class Point(NamedTuple):
    """A chosen network of one contender on one machine, under every seed.

    Attributes:
        name: of the contender's energy, such as "relu_skipping".
        machine: of `dsnn.energy.MACHINES`.
        settings: that the trial varied.
        select: by seed, on the part that selects.
        test: by seed.
    """

    name: str
    machine: str
    settings: dict[str, Any]
    select: list[Judged]
    test: list[Judged]

    @property
    def accuracy(self) -> float:
        """Mean over seeds on the part that selects."""
        return float(np.mean([one.accuracy for one in self.select]))

    @property
    def spends(self) -> float:
        """Mean primary energy over seeds on the part that selects, nJ."""
        return float(np.mean([one.mean_nj(trial.primary(self.machine)) for one in self.select]))

    def tested(self, key: str) -> float:
        """Returns a mean energy over seeds on the test part, nJ."""
        return float(np.mean([one.mean_nj(key) for one in self.test]))


def chosen(trials: Sequence[Tried], machine: str) -> list[int]:
    """Returns the numbers of the trials that are assessed: of their front on the part that selects, spread evenly."""
    spent = np.asarray([one.select.mean_nj(trial.primary(machine)) for one in trials])
    accuracy = np.asarray([one.select.accuracy for one in trials])
    front = plots.pareto_front(spent, accuracy)
    return [trials[k].number for k in evaluate.spread_over(front, MOST_POINTS)]


def trials_of(trials: Sequence[Tried], machine: str) -> dict[str, Any]:
    """Returns what is written down of trials: each on the part that selects, the expected best of k, core-seconds."""
    accuracy = np.asarray([one.select.accuracy for one in trials])
    return {
        "core_s": [one.core_s for one in trials],
        "core_s_mean": float(np.mean([one.core_s for one in trials])) if trials else 0.0,
        "tried": [
            {
                "settings": one.settings,
                "accuracy": one.select.accuracy,
                "nj": one.select.mean_nj(trial.primary(machine)),
            }
            for one in trials
        ],
        "best_of": evaluate.expected_best(accuracy).tolist() if len(accuracy) else [],
    }


def meetings(
    points: Mapping[str, Sequence[Point]], tolerance: float, broken: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Returns what comes of ours against every rival at each level of accuracy.

    The levels are those of ours. One row stands above them where a rival is more accurate than all of ours.

    Args:
        points: by the name of a contender's energy.
        tolerance: how far accuracies may lie apart and be equal.
        broken: why the trials of those failed of whom none ended well, by contender.
    """
    ours = points.get(OURS, ())
    if not ours:
        return []
    best = max(point.accuracy for point in ours)
    others = {name: those for name, those in points.items() if name != OURS and those}
    found = _beyond(others, best, tolerance)
    for level in evaluate.levels(best, tolerance):
        own = _at(ours, level, tolerance)
        assert own is not None
        there = {name: one for name, those in others.items() if (one := _at(those, level, tolerance)) is not None}
        rivals = {name: _against(own, point, tolerance) for name, point in there.items()}
        first = min(there, key=lambda name: there[name].spends, default="")
        found.append(
            {
                "level": level,
                "ours": {"settings": own.settings, "select": own.accuracy, "test": _test_accuracy(own)},
                "best_rival": first,
                "verdict": rivals[first]["verdict"] if first else _nobody(others, broken or {}),
                "rivals": rivals,
            }
        )
    return found


def _beyond(others: Mapping[str, Sequence[Point]], best: float, tolerance: float) -> list[dict[str, Any]]:
    """Returns a row of the most accurate rival, if it is above the best of ours by more than a tolerance."""
    every = [point for those in others.values() for point in those]
    first = max(every, key=lambda point: (point.accuracy, -point.spends), default=None)
    if first is None or first.accuracy <= best + tolerance + 1e-12:
        return []
    reached = {"settings": first.settings, "test": _test_accuracy(first), "ours_select": best}
    row = {"level": first.accuracy, "ours": None, "best_rival": first.name, "verdict": UNREACHED}
    return [{**row, "rivals": {}, "reached": reached}]


def _nobody(others: Mapping[str, Sequence[Point]], broken: Mapping[str, str]) -> str:
    """Returns why nobody stands at a level."""
    if others:
        return "no rival is as accurate"
    if broken:
        return f"every trial of the rivals failed ({next(iter(broken.values())).rstrip('.')})"
    return "no rival took part"


def _at(points: Sequence[Point], level: float, tolerance: float) -> Point | None:
    accuracy, spends = (np.asarray([getattr(point, name) for point in points]) for name in ("accuracy", "spends"))
    place = evaluate.cheapest(accuracy, spends, level, tolerance)
    return None if place is None else points[place]


def _test_accuracy(point: Point) -> float:
    return float(np.mean([one.accuracy for one in point.test]))


def _against(own: Point, other: Point, tolerance: float) -> dict[str, Any]:
    """Returns ratio, gain, verdict and sensitivity of two points on the test part."""
    gained = evaluate.paired_gain(*(np.stack([one.right for one in point.test]) for point in (own, other)))
    ratios = {key: _ratio(own, other, key) for key in columns()}
    return {
        **_decided(own, other, ratios[primary_key()], gained.value, tolerance),
        "apart": abs(gained.value) > tolerance,
        "gained": gained._asdict(),
        "settings": other.settings,
        "select": other.accuracy,
        "test": _test_accuracy(other),
        "ratios": {key: ratio and ratio._asdict() for key, ratio in ratios.items()},
    }


def _decided(own: Point, other: Point, ratio: evaluate.Ratio | None, gained: float, tolerance: float) -> dict[str, Any]:
    """Returns a verdict, its ratio and its sensitivity; of accuracy alone where a side spends nothing."""
    if ratio is None:
        first, second = (point.tested(trial.primary(point.machine)) for point in (own, other))
        said = evaluate.free_verdict(first, second, gained, tolerance)
        free = [name for name, nj in ((own.name, first), (other.name, second)) if not nj]
        return {"verdict": said, "fragile": False, "ratio": None, "corners": None, "free": free}
    said = evaluate.verdict(ratio, gained, tolerance)
    low, high = evaluate.corners(_parts(own), _parts(other), PRICES_BY)
    spread = evaluate.Ratio(ratio.value, ratio.low * low / ratio.value, ratio.high * high / ratio.value)
    fragile = said != "tie" and evaluate.verdict(spread, gained, tolerance) != said
    return {"verdict": said, "fragile": fragile, "ratio": ratio._asdict(), "corners": [low, high], "free": []}


def columns() -> list[str]:
    """Returns every profile and accounting, as "profile/accounting"."""
    return [f"{one.name}/{what}" for one, what in itertools.product(trial.profiles(), energy.ACCOUNTINGS)]


def primary_key() -> str:
    """Returns the profile and the accounting that decide."""
    return f"{trial.profiles()[0].name}/{trial.ACCOUNTING}"


def _ratio(own: Point, other: Point, key: str) -> evaluate.Ratio | None:
    """Returns the ratio in a profile and accounting; None where a side spends nothing there."""
    keys = [f"{point.machine}/{key}" for point in (own, other)]
    if not (own.tested(keys[0]) and other.tested(keys[1])):
        return None
    # seeds of a network saw the same blocks
    first, second = (
        np.stack([one.energy[key] for one in point.test]) for point, key in zip((own, other), keys, strict=True)
    )
    return evaluate.paired_ratio(first, second, own.test[0].sizes)


def _parts(point: Point) -> dict[str, float]:
    key = trial.primary(point.machine)
    return {name: float(np.mean([one.parts[key][name] for one in point.test])) for name in point.test[0].parts[key]}


def row(point: Point) -> dict[str, Any]:
    """Returns a point as it is written down."""
    spent = {key: point.tested(f"{point.machine}/{key}") for key in columns()}
    return {
        "settings": point.settings,
        "select": {"accuracy": point.accuracy, "nj": point.spends},
        "test": {
            "accuracy": _test_accuracy(point),
            "accuracy_by_seed": [one.accuracy for one in point.test],
            "steps_mean": float(np.mean([one.steps for one in point.test])),
            "nj": spent,
            "parts_nj": _parts(point),
        },
    }
