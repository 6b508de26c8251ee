"""Simpler models beside a network: a linear model and the deterministic twin, and the guard that holds it to them."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dsnn import data, rng
from dsnn.answer_calibration import calibrated
from dsnn.guard import Candidate, Losses, guarded, judged, milder
from dsnn.linear import linear_model
from dsnn.numbers import in_units, targets_of
from dsnn.parameters import Params
from experiments import assess_labels, assess_numbers
from experiments.assess import scores as class_scores
from experiments.console import console
from experiments.learn import Member, learn

if TYPE_CHECKING:
    from dsnn.assemble import Setup

TWIN = "deterministic twin"


class Rivals(NamedTuple):
    """Simpler models of the same split: their losses on the part that selects, by name, and their metrics."""

    losses: dict[str, Losses]
    metrics: dict[str, Any]


class Fit(NamedTuple):
    """A network that has learned: who, and the learner's last state."""

    member: Member
    state: Any


def rivals(member: Member) -> Rivals:
    """Returns the linear model and, where the configuration asks for it, the deterministic twin; learns the latter."""
    setup = member.setup
    config, split = setup.config, setup.split
    metrics, losses = linear(setup)
    if config.baseline == "full" and config.learner == "svi" and not data.per_step(split):
        twin = _twin(member)
        for part in ("val", "test"):
            if data.size(getattr(split, part)):
                scores, lost = scored(twin, part)
                metrics |= {f"twin/{name}": value for name, value in scores.items()}
                if part == "val":
                    losses[TWIN] = lost
    return Rivals(losses, metrics)


def linear(setup: "Setup") -> tuple[dict[str, Any], dict[str, Losses]]:
    """Returns metrics and losses of the linear model of a run's split; nothing where there is none."""
    made = None if setup.config.baseline == "none" else linear_model(setup.split, setup.config.seed)
    if made is None:
        return {}, {}
    metrics = {f"linear/{name}": value for name, value in made.scores.items()}
    return {**metrics, "linear/name": made.name}, {} if made.losses is None else {made.name: made.losses}


def _twin(member: Member) -> Fit:
    """Returns the same network with point weights, every site and every step, after learning."""
    from dsnn.assemble import build

    setup = member.setup
    config = dataclasses.replace(
        setup.config,
        learner="map",
        gates=dataclasses.replace(setup.config.gates, enabled=False, time=False),
        halting=dataclasses.replace(setup.config.halting, enabled=False),
        train=dataclasses.replace(setup.config.train, eval_every=setup.config.train.epochs, select="last"),
    )
    return _learned(Member(build(config, setup.split), _beside(member.directory, "twin")), TWIN)


def finished(fit: Fit) -> Params:
    """Returns what a network has learned: parameters of its last or its selected epoch, finished and calibrated."""
    member, setup = fit.member, fit.member.setup
    selected = member.selected()
    params = setup.params(fit.state) if selected is None else selected[1]
    train_part = setup.split.train
    params = setup.lifted.finish(params, train_part.x, train_part.y, rng.stream(setup.root, "weights"))
    wanted, key = setup.config.bayes.temperature, rng.stream(setup.root, "noise", setup.config.train.epochs)
    return calibrated(setup.lifted, params, setup.split, member.predict, key, wanted)[0]


def _learned(member: Member, what: str) -> Fit:
    console.print(f"{what}:")
    return Fit(member, learn([member]).states[0])


def _beside(directory: Path, name: str) -> Path:
    place = directory / "baselines" / name
    place.mkdir(parents=True, exist_ok=True)
    return place


def scored(fit: Fit, part: str) -> tuple[dict[str, float], Losses]:
    """Returns scores and losses of all steps' predictive on a part."""
    member, split = fit.member, fit.member.setup.split
    made, lost = judged(member.setup, finished(fit), member.predict, part)
    labels = np.asarray(getattr(split, part).y)
    if split.task == "regression":
        return assess_numbers.scores(part, in_units(made, split), targets_of(split, part)), lost
    if split.task == "multilabel":
        return assess_labels.scores(part, made.full, labels), lost
    return class_scores(part, made.full, labels), lost


def held_to(first: Fit, simpler: Rivals) -> tuple[Fit, dict[str, Any]]:
    """Returns the network that the guard keeps, and what it found.

    Args:
        first: as learned under the automatic choices.
        simpler: whom it may not be worse than.
    """
    chosen = first.member.setup.automatic
    if not simpler.losses or not chosen or first.member.setup.config.learner != "svi":
        return first, {}

    def candidate(fit: Fit) -> Candidate:
        return Candidate(fit, scored(fit, "val")[1])

    def again(number: int, reasons: Sequence[str]) -> Candidate | None:
        from dsnn.assemble import build

        setup = first.member.setup
        config = milder(setup.config, chosen, number)
        if config is None:
            return None
        console.print(f"worse than {' and '.join(reasons)} on the selecting part; fitted again with less to spare")
        setup = dataclasses.replace(build(config, setup.split), automatic=_changed(chosen, config))
        place = _beside(first.member.directory, f"fit{number + 2}")
        member = Member(setup, place, like=first.member)
        fit = _learned(member, f"fit {number + 2}")
        kept = Member(setup, first.member.directory, first.member.track, like=first.member, begun=first.member.begun)
        return candidate(Fit(kept, fit.state))

    kept = guarded(candidate(first), simpler.losses, again)
    metrics: dict[str, Any] = {"guard/fits": kept.fits, "guard/worse_than": ", ".join(kept.worse_than)}
    if kept.worse_than:
        console.print(f"still worse than {metrics['guard/worse_than']} on the selecting part, beyond chance")
    return kept.made, metrics


def _changed(chosen: dict[str, float], config: Any) -> dict[str, float]:
    """Returns the automatic choices as a configuration has them now."""
    return {name: float(functools.reduce(getattr, name.split("."), config)) for name in chosen}
