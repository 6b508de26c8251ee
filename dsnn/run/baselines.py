"""Simpler models beside a network: a linear model and the deterministic twin, and the guard that holds it to them."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dsnn import data, rng, tasks
from dsnn.assembly.automatic import Choice
from dsnn.assembly.guard import Candidate, guarded, judged, milder, twin_of
from dsnn.assembly.linear import linear_model
from dsnn.config import Config
from dsnn.parameters import Params
from dsnn.run.console import console
from dsnn.run.loop import Member, train

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup

TWIN = "deterministic twin"


class Rivals(NamedTuple):
    """Simpler models of the same split: their losses on the part that selects, by name, and their metrics."""

    losses: dict[str, tasks.Losses]
    metrics: dict[str, Any]


class Answers(NamedTuple):
    """Parameters of a network that predicts, and the temperature that they hold, see `dsnn.tasks.calibration`."""

    params: Params
    temperature: float


@dataclasses.dataclass
class Fit:
    """A network that has learned: who, and the learner's last state."""

    member: Member
    state: Any

    @functools.cached_property
    def answers(self) -> Answers:
        """What was learned, finished and calibrated: parameters of the last epoch, or of the one that was selected."""
        member, setup = self.member, self.member.setup
        selected = member.selected()
        params = setup.params(self.state) if selected is None else selected[1]
        train_part = setup.split.train
        params = setup.bayesian.finish(params, train_part.x, train_part.y, rng.stream(setup.root, "weights"))
        wanted, key = setup.config.bayes.temperature, rng.stream(setup.root, "noise", setup.config.train.epochs)
        return Answers(*tasks.calibrated(setup.task, setup.bayesian, params, setup.split, member.predict, key, wanted))


def rivals(member: Member) -> Rivals:
    """Returns the linear model and, where the configuration asks for it, the deterministic twin; learns the latter."""
    setup = member.setup
    config, split = setup.config, setup.split
    metrics, losses = linear(setup)
    if config.baseline == "full" and config.learner == "svi" and setup.task.facts.twin:
        twin = _twin(member)
        for part in ("val", "test"):
            if data.size(getattr(split, part)):
                scores, lost = scored(twin, part)
                metrics |= {f"twin/{name}": value for name, value in scores.items()}
                if part == "val":
                    losses[TWIN] = lost
    return Rivals(losses, metrics)


def linear(setup: "Setup") -> tuple[dict[str, Any], dict[str, tasks.Losses]]:
    """Returns metrics and losses of the linear model of a run's split; nothing where there is none."""
    made = None if setup.config.baseline == "none" else linear_model(setup.split, setup.config.seed, setup.task)
    if made is None:
        return {}, {}
    metrics = {f"linear/{name}": value for name, value in made.scores.items()}
    return {**metrics, "linear/name": made.name}, {} if made.losses is None else {made.name: made.losses}


def _twin(member: Member) -> Fit:
    """Returns the deterministic twin, after learning."""
    from dsnn.assembly.assemble import build

    setup = member.setup
    own = dataclasses.replace(setup.config.train, eval_every=setup.config.train.epochs, select="last")
    config = dataclasses.replace(twin_of(setup.config), train=own)
    return _learned(Member(build(config, setup.split), _beside(member.directory, "twin")), TWIN)


def _learned(member: Member, what: str) -> Fit:
    console.print(f"{what}:")
    return Fit(member, train([member]).states[0])


def _beside(directory: Path, name: str) -> Path:
    place = directory / "baselines" / name
    place.mkdir(parents=True, exist_ok=True)
    return place


def scored(fit: Fit, part: str) -> tuple[dict[str, float], tasks.Losses]:
    """Returns scores and losses of all steps' predictive on a part."""
    member, split = fit.member, fit.member.setup.split
    made, lost = judged(member.setup, fit.answers.params, member.predict, part)
    task = member.setup.task
    return tasks.scored(part, task.scores(task.placed(made, split), task.targets(split, part))), lost


def held_to(first: Fit, simpler: Rivals) -> tuple[Fit, dict[str, Any]]:
    """Returns the network that the guard keeps, and what it found.

    Args:
        first: as learned under the automatic choices.
        simpler: whom it may not be worse than.
    """
    chosen = first.member.setup.automatic
    config = first.member.setup.config
    if not simpler.losses or config.learner != "svi" or milder(config, chosen, 0) is None:
        return first, {}

    def candidate(fit: Fit) -> Candidate:
        return Candidate(fit, scored(fit, "val")[1])

    def again(number: int, reasons: Sequence[str]) -> Candidate | None:
        from dsnn.assembly.assemble import build

        setup = first.member.setup
        config = milder(setup.config, chosen, number)
        if config is None:
            return None
        console.print(f"worse than {' and '.join(reasons)} on the selecting part; fitted again with less to spare")
        setup = dataclasses.replace(build(config, setup.split), automatic=_changed(chosen, config))
        place = _beside(first.member.directory, f"fit{number + 2}")
        member = Member(setup, place, like=first.member)
        fit = _learned(member, f"fit {number + 2}")
        kept = dataclasses.replace(first.member, setup=setup, like=first.member, selected_in=place)
        return candidate(Fit(kept, fit.state))

    kept = guarded(candidate(first), simpler.losses, again)
    metrics: dict[str, Any] = {"guard/fits": kept.fits, "guard/worse_than": ", ".join(kept.worse_than)}
    if kept.worse_than:
        console.print(f"still worse than {metrics['guard/worse_than']} on the selecting part, beyond chance")
    return kept.made, metrics


def _changed(chosen: dict[str, Choice], config: Config) -> dict[str, Choice]:
    """Returns the automatic choices as a configuration has them now."""
    values: dict[str, Any] = {name: functools.reduce(getattr, name.split("."), config) for name in chosen}
    return {name: float(value) if isinstance(value, int) else value for name, value in values.items()}
