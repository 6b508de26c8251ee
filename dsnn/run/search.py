"""A search over settings: what it varies and what it wants, read from YAML, typed and checked before any work."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from dsnn.assembly.identity import reads
from dsnn.config import Config
from dsnn.run import schema, usage
from dsnn.store import places
from dsnn.suggest import did_you_mean

SAMPLERS = ("tpe", "random", "nsga2")
DIRECTIONS = ("maximize", "minimize")
ON_TEST = (
    "test/", "ood/", "deployed/", "halting/", "calibration/", "uncalibrated/", "conformal/", "firing/", "truth/",
    "uncertainty/",
    "converted/", "stochastic/", "allocated/", "match/",
)  # fmt: skip


@dataclass
class Range:
    """Values of one option: from ``low`` to ``high``, or one of ``choices``.

    Args:
        low: Smallest value.
        high: Largest value.
        log: Whether it is drawn evenly in its logarithm.
        step: Distance of the values; whole numbers have 1.
        choices: Values to choose from, instead of a range.
    """

    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    step: float | int | None = None
    choices: list[Any] | None = None

    def check(self, name: str, default: object) -> None:
        """Checks the range against the option that it is for.

        Raises:
            ValueError: It fits no option of this type.
        """
        if (self.choices is None) == (self.low is None or self.high is None):
            raise ValueError(f"space.{name} must have low and high, or choices, got {self}; keep one of the two.")
        if self.choices is not None:
            if len(self.choices) < 2:
                raise ValueError(f"space.{name} must have at least two choices, got {self.choices}.")
            return
        if not isinstance(default, int | float) or isinstance(default, bool):
            raise ValueError(f"space.{name} is no number (it is {default!r}); give choices instead of a range.")
        low, high = self.low, self.high
        for bound in (low, high):
            if not isinstance(bound, int | float) or isinstance(bound, bool):
                raise ValueError(f"space.{name} must have numbers as bounds, got {bound!r}; write 0.001 or 1.0e-3.")
            if isinstance(default, int) and int(bound) != bound:
                raise ValueError(f"space.{name} must have whole numbers as bounds, got {bound}.")
        assert low is not None
        assert high is not None
        if not low < high:
            raise ValueError(f"space.{name} must have low below high, got {low} and {high}; swap them.")
        if self.log and low <= 0:
            raise ValueError(f"space.{name} must begin above 0 to be logarithmic, got {low}.")
        if self.log and self.step is not None:
            raise ValueError(f"space.{name} must be logarithmic or have a step, got both; leave one out.")

    def at(self, share: float, whole: bool) -> Any:
        """Returns the value at this share of the range, in its logarithm where it is drawn so; or a choice."""
        if self.choices is not None:
            return _said(self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)])
        low, high = float(self.low or 0), float(self.high or 0)
        value = low * (high / low) ** share if self.log else low + (high - low) * share
        if self.step:
            value = low + round((value - low) / self.step) * self.step
        return round(value) if whole else min(value, high)

    def suggest(self, trial: Any, name: str, whole: bool) -> Any:
        """Returns the value that an Optuna trial gives this option."""
        if self.choices is not None:
            return trial.suggest_categorical(name, [_said(choice) for choice in self.choices])
        if whole:
            return trial.suggest_int(
                name, int(self.low or 0), int(self.high or 0), step=int(self.step or 1), log=self.log
            )
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


@dataclass
class Objective:
    """A number of ``metrics.json`` and where it should go."""

    metric: str
    direction: str

    def __post_init__(self) -> None:
        if self.direction not in DIRECTIONS:
            raise ValueError(f"objectives: direction must be maximize or minimize, got {self.direction!r}.")
        if self.metric.startswith(ON_TEST):
            raise ValueError(
                f"objectives: a search selects on validation, got {self.metric}; take val/{self.metric.split('/')[-1]}."
            )


@dataclass
class Search:
    """What is searched.

    Args:
        objectives: One, or several for a Pareto front.
        space: A `Range` by option.
        trials: How many, over all processes.
        sampler: "tpe", "random" or "nsga2".
        seed: Of the sampler.
        prune_after: Epoch from which trials worse than the median of the earlier ones stop; 0 stops none. On the
            history's record of the objective's name.
        prune_on: That record where there are several objectives: trials worse than three quarters of the earlier ones
            stop.
        also: Metrics that the table shows beside the objectives, where a run has them.
        overrides: Of every trial.
        spread: An option of the space that is not sampled: trials take it evenly over its range, whatever their number.
    """

    objectives: list[Objective]
    space: dict[str, Range]
    trials: int = 40
    sampler: str = "tpe"
    seed: int = 0
    prune_after: int = 0
    prune_on: str = ""
    also: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    spread: str = ""

    def __post_init__(self) -> None:
        if not self.objectives or not self.space:
            raise ValueError("a search must have at least one objective and one option in its space.")
        if self.trials < 1:
            raise ValueError(f"trials must be at least 1, got {self.trials}.")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}, got {self.sampler!r}.")
        if self.prune_after and len(self.objectives) > 1 and not self.prune_on:
            raise ValueError(
                f"prune_after needs a single objective, got {len(self.objectives)}; a trial that is bad in one may be "
                "best in another. Set prune_after to 0, or say by which record with prune_on."
            )
        if any(name.startswith(ON_TEST) for name in (self.prune_on, *self.also)):
            raise ValueError(f"a search selects on validation, got prune_on={self.prune_on!r} and also={self.also}.")
        if self.spread and self.spread not in self.space:
            raise ValueError(f"spread must be an option of the space, {', '.join(self.space)}, got {self.spread!r}.")
        known = self._defaults()
        for name, values in self.space.items():
            if name not in known or isinstance(known[name], dict):
                raise ValueError(f"space: {name!r} is no option; {did_you_mean(name, known, most=1)}")
            values.check(name, known[name])
        usage.check(self.overrides)
        # both ends of every range, so that a value out of its option's range stops here
        self.ends: tuple[Config, ...] = tuple(self._end(end, known) for end in (0, -1))

    def _end(self, end: int, known: dict[str, object]) -> Config:
        ends = {name: v.choices[end] if v.choices else (v.low, v.high)[end] for name, v in self.space.items()}
        words = [f"{name}={_said(_whole(value, known[name]))}" for name, value in ends.items()]
        return schema.compose([*self.overrides, *words])

    def reads(self) -> dict[str, str]:
        """Returns the digest of what its trials read beside their configurations, see `dsnn.assembly.identity.reads`.

        Without dsnn's version: with another one a search goes on, and its new trials are other runs.
        """
        found = {name: digest for end in self.ends for name, digest in reads(end).items()}
        found.pop("dsnn")
        return found

    def _defaults(self) -> dict[str, object]:
        """Returns the default of every option, and of those of pieces of one's own a number like their bounds."""
        own = {name: values for name, values in self.space.items() if schema.is_open_ended(name)}
        whole = {name: isinstance(values.low, int) and isinstance(values.high, int) for name, values in own.items()}
        return {**schema.options(), **{name: 0 if exact else 0.0 for name, exact in whole.items()}}

    def fixed(self, number: int) -> dict[str, Any]:
        """Returns what is not sampled in a trial of this number, by option: the one that is spread, if there is one."""
        if not self.spread:
            return {}
        whole = isinstance(self._defaults()[self.spread], int)
        return {self.spread: self.space[self.spread].at(_inverse(number), whole)}

    def suggest(self, trial: Any) -> list[str]:
        """Returns the overrides that an Optuna trial stands for."""
        known = self._defaults()
        values = {name: r.suggest(trial, name, isinstance(known[name], int)) for name, r in self.space.items()}
        return [*self.overrides, *(f"{name}={value}" for name, value in values.items())]


def _inverse(number: int) -> float:
    """Returns 0, 1, 1/2, 1/4, 3/4, ...: both ends, then numbers whose binary digits are mirrored (van der Corput)."""
    if number < 2:
        return float(number)
    digits = f"{number - 1:b}"[::-1]
    return int(digits, 2) / (1 << len(digits))


def searches() -> list[str]:
    """Returns the names of the searches, dsnn's and one's own."""
    return sorted(places.files("search"))


def read_search(path: Path, overrides: list[str]) -> Search:
    """Reads and checks a search.

    Args:
        path: The YAML file.
        overrides: Added to those of the file.

    Raises:
        ValueError: The file is no search.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is no valid YAML ({' '.join(str(error).split())}); correct it.") from None
    try:
        top = checked("search", content, Search)
        top["objectives"] = [Objective(**checked("objective", entry, Objective)) for entry in top["objectives"]]
        top["space"] = {name: Range(**checked(f"space.{name}", v, Range)) for name, v in top["space"].items()}
        top["overrides"] = [*top.get("overrides", []), *overrides]
        return Search(**top)
    except (ValueError, usage.UsageError) as error:
        raise ValueError(f"{path.name}: {error}") from None


def checked(what: str, content: object, kind: type) -> dict[str, Any]:
    """Returns a table of a YAML file whose entries are fields of a class.

    Raises:
        ValueError: It is no table, has an unknown entry, or lacks one.
    """
    known = [f.name for f in fields(kind)]
    if not isinstance(content, Mapping):
        raise ValueError(f"{what} must be a table of {', '.join(known)}, got {content!r}.")
    if unknown := [name for name in content if name not in known]:
        raise ValueError(f"{what} has no entry {unknown[0]!r}; it has {', '.join(known)}.")
    for name in ("objectives", "space", "metric", "direction"):
        if name in known and name not in content:
            raise ValueError(f"{what} must have {name}; add it.")
    return dict(content)


def _said(value: Any) -> str | int | float | bool:
    """Returns a value as an override says it, a list as ``[64,64]``."""
    return "[" + ",".join(str(v) for v in value) + "]" if isinstance(value, list) else value


def _whole(value: Any, default: object) -> Any:
    return int(value) if isinstance(default, int) and not isinstance(default, bool) and value == int(value) else value
