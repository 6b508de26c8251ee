"""Who takes part in a frontier: configuration overrides and a search space each, read from ``conf/frontier``.

A contender of one's own is a YAML file in ``frontier/`` of ``--config-dir DIR``.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dsnn import data, energy
from dsnn.config import Config
from dsnn.run import schema, usage
from dsnn.run.search import Objective, Range, Search, checked
from dsnn.store import places
from dsnn.suggest import did_you_mean

OURS = "spiking"
"""The contender whose energy is held against that of all others."""

READS = ("any", "sequences")
TAKES = ("bits", "events", "rate")
"""What a contender may have beside gates, budgets and exits: bits, and prices of what it does."""


@dataclass
class Contender:
    """One kind of network, as it is trained and as it is deployed.

    Args:
        name: Its file's.
        about: What it is, in a line.
        overrides: Of every trial.
        space: What its own kind can vary.
        machines: What its energy is called on which machine of `dsnn.energy.MACHINES`; trials are judged by the first.
        spread: The option of the space that trials take evenly over its range.
        static: Further options of the space, for data without time.
        sequences: Further options of the space, for sequences.
        reads: "any" data, or "sequences" alone.
        whole: Whether it reads a sequence as one input, as networks without time do.
        answers: Whether it has to be told where every step has a label.
        exits: Whether what tells it from another one is that it stops early, with one answer.
        takes: What of `TAKES` it can have, where a command gives it to everybody (`had`).
        priced: Further options of the space, where its bits are inferred or what it does has a price: what these fall
            with.
    """

    name: str
    about: str
    overrides: list[str]
    space: dict[str, Range]
    machines: dict[str, str]
    spread: str = ""
    static: dict[str, Range] = field(default_factory=dict)
    sequences: dict[str, Range] = field(default_factory=dict)
    reads: str = "any"
    whole: bool = False
    answers: bool = False
    exits: bool = False
    takes: list[str] = field(default_factory=list)
    priced: dict[str, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.reads not in READS:
            raise ValueError(f"reads must be one of {', '.join(READS)}, got {self.reads!r}.")
        if odd := sorted(set(self.takes) - set(TAKES)):
            raise ValueError(f"takes must be of {', '.join(TAKES)}, got {odd[0]!r}.")
        for machine in self.machines.values():
            if machine not in energy.MACHINES:
                raise ValueError(f"machines must be of {', '.join(energy.MACHINES)}, got {machine!r}.")

    def cannot(self, split: data.Split) -> str:
        """Returns in one sentence why it cannot read some data; nothing where it can."""
        if self.reads == "sequences" and not split.temporal:
            return f"{self.name} reads sequences, {split.name} is static."
        sums = any(override.startswith("data.view=") for override in self.overrides)
        if data.per_step(split) and (self.whole or sums or self.exits):
            return f"{self.name} gives one answer, {split.name} has a label at every step."
        return ""

    def search(
        self,
        split: data.Split,
        *,
        base: Sequence[str],
        given: Sequence[str],
        own: Sequence[str] = (),
        trials: int,
        seed: int,
    ) -> Search:
        """Returns the search of its trials.

        Args:
            split: the data.
            base: overrides of every contender.
            given: the user's, of every contender; what they name is not varied.
            own: the user's of this one alone, which may change what makes it what it is.
            trials: how many.
            seed: of the sampler.

        Raises:
            ValueError: nothing is left to vary or to spare, or an override that does not fit.
        """
        mine = [*self.overrides]
        if split.temporal and self.whole:
            mine.append("data.view=whole")
        if data.per_step(split) and self.answers:
            mine.append("model.architecture_options.answers=every")
        self._check_given(given, mine)
        space = self.space | (self.sequences if split.temporal else self.static)
        if self.priced and _falls(schema.compose([*base, *given, *mine, *own])):
            space |= self.priced
        space = {name: values for name, values in space.items() if name not in map(_option, (*given, *own))}
        if not space:
            raise ValueError(f"{self.name} has nothing to vary, since every option of its space is given; give fewer.")
        search = Search(
            [
                Objective("val/accuracy", "maximize"),
                Objective(f"val/{next(iter(self.machines.values()))}_nj", "minimize"),
            ],
            space,
            trials=trials,
            seed=seed,
            also=["val/steps_mean"],
            overrides=[*base, *given, *mine, *own],
            spread=self.spread if self.spread in space else "",
        )
        _check_spare(self.name, search.ends[0])
        return search

    def _check_given(self, given: Sequence[str], mine: Sequence[str]) -> None:
        """Checks that what is given to all does not change what makes this one what it is."""
        fixed = {_option(word): word.partition("=")[2] for word in mine}
        for option in map(_option, given):
            if option in fixed:
                raise ValueError(
                    f"{option} is what makes {self.name} what it is ({fixed[option]}), got it for every contender; "
                    f"give it to one, as {OURS}.{option}=VALUE."
                )


def _option(override: str) -> str:
    """Returns the option that an override is of."""
    return override.lstrip("+").partition("=")[0]


def had(config: Config) -> dict[str, str]:
    """Returns what of `TAKES` a configuration has, and by which option."""
    found = {
        "bits": "bits.enabled=true" if config.bits.enabled else "",
        "events": f"energy.events={config.energy.events}" if config.energy.events == "differentiated" else "",
        "rate": f"svi.rate_penalty={config.svi.rate_penalty:g}" if config.svi.rate_penalty else "",
    }
    return {what: option for what, option in found.items() if option}


def _falls(config: Config) -> bool:
    """Returns whether a price of energy moves widths or what a network does."""
    inferred = config.bits.enabled and not config.bits.fixed
    return inferred or config.energy.events == "differentiated"


def _check_spare(name: str, config: Config) -> None:
    """Checks that a budget has something to spare."""
    svi = config.svi
    steps = config.halting.enabled and config.halting.fit != "held_out"
    spikes = config.energy.events == "differentiated"
    spares = config.learner == "svi" and (config.gates.enabled or config.bits.enabled or steps or spikes)
    if svi.budgeted and not spares:
        raise ValueError(
            f"{name} keeps to a budget of energy and has nothing to spare, got gates.enabled="
            f"{str(config.gates.enabled).lower()} with learner={config.learner}; set gates.enabled=true, or leave the "
            "budget out."
        )


def contenders() -> list[str]:
    """Returns the names of the contenders, ours first."""
    return sorted(places.files("frontier"), key=lambda name: (name != OURS, name))


def read_contender(name: str) -> Contender:
    """Returns a contender.

    Raises:
        ValueError: there is none of this name, or its file is no contender.
    """
    known = contenders()
    if name not in known:
        hint = did_you_mean(name, known, "--config-dir DIR adds a folder of your own.", most=1)
        raise ValueError(f"contenders must be of {', '.join(known)}, got {name!r}; {hint}")
    path = places.file("frontier", name)
    try:
        return Contender(name=name, **_typed(path))
    except (TypeError, ValueError, usage.UsageError) as error:
        raise ValueError(f"{path.name}: {error}") from None


def _typed(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"this is no valid YAML ({' '.join(str(error).split())}); correct it.") from None
    top = checked("contender", content, Contender)
    for name in ("space", "static", "sequences", "priced"):
        top[name] = {key: Range(**checked(f"{name}.{key}", v, Range)) for key, v in (top.get(name) or {}).items()}
    if lacking := [name for name in ("about", "overrides", "machines") if not top.get(name)]:
        raise ValueError(f"a contender must have {lacking[0]}; add it.")
    return top


def who(wanted: Collection[str], split: data.Split) -> tuple[list[Contender], list[str]]:
    """Returns those that take part, and a sentence on each that cannot read the data.

    Args:
        wanted: names; empty are all that can.
        split: the data.

    Raises:
        ValueError: an unknown name, or one that was asked for and cannot read the data.
    """
    every = [read_contender(name) for name in (wanted or contenders())]
    why = {one.name: one.cannot(split) for one in every}
    if wanted and (refused := [sentence for sentence in why.values() if sentence]):
        raise ValueError(f"{refused[0].removesuffix('.')}; leave it out of contenders=.")
    left_out = [sentence for sentence in why.values() if sentence] if split.temporal else []
    return [one for one in every if not why[one.name]], left_out
