"""What a command line of ``dsnn frontier`` asks for, all of it checked before any work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dsnn import data
from dsnn.assembly.loading import check_trainable, open_data
from dsnn.config import Config
from dsnn.run import schema, standings, trial, usage
from dsnn.run.console import console
from dsnn.run.contenders import OURS, Contender, contenders, had, read_contender, who
from dsnn.run.search import Search
from dsnn.store import places

OWN = ("trials", "seeds", "folds", "contenders", "tolerance", "root")
TRIALS = 8
BASE = (
    "experiment=own", "baseline=none", "run.report=false", "track.wandb=disabled", "bayes.samples=8",
    "data.val_fraction=0.2", "train.eval_every=1000000",
    f"energy.profile={trial.PROFILES[0]}", f"energy.accounting={trial.ACCOUNTING}",
)  # fmt: skip
"""Of every trial: every choice that depends on data is made from the data, and energies are those that are compared."""

CALLED = {"bits": "bits", "events": "price of their own", "rate": "price by their number"}

Entrants = Mapping[str, tuple[Contender, Search]]


@dataclass
class Plan:
    """What a command asks for.

    Args:
        name: What the data are called.
        split: The data, as they are read.
        entrants: Who takes part, with the search of each.
        seeds: Of the networks that are assessed; the first is that of the trials.
        folds: Of the data, each of which every seed learns without; 0 where the test part is the set's own.
        tolerance: How far accuracies may lie apart and be equal.
        trials: Of each.
        folder: Where everything is.
    """

    name: str
    split: data.Split
    entrants: Entrants
    seeds: list[int]
    folds: int
    tolerance: float
    trials: int
    folder: Path

    @property
    def tested(self) -> int:
        """How many examples are tested."""
        parts = (self.split.train, self.split.val, self.split.test)
        return sum(map(data.size, parts)) if self.folds else data.size(self.split.test)


def planned(arguments: Sequence[str]) -> Plan:
    """Returns what a command line asks for, all of it checked.

    Raises:
        ValueError: one sentence on what cannot be meant.
    """
    own, given, scoped = _parsed(arguments)
    trials, seeds = _whole("trials", own.get("trials", str(TRIALS)), 1), _seeds(own.get("seeds", "0"))
    folds = _whole("folds", own["folds"], 2) if own.get("folds") else 0
    tolerance = _share(own["tolerance"]) if own.get("tolerance") else None
    wanted = [name for name in own.get("contenders", "").strip("[]").split(",") if name]
    for name in wanted:
        read_contender(name)
    given = [*given, f"seed={seeds[0]}", *([f"data.folds={folds}", "data.fold=0"] if folds else [])]
    config = schema.compose([*BASE, *given])
    _check_judged_as_learned(config)
    split = check_trainable(open_data(config), config)
    if split.task != "classification":
        raise ValueError(
            f"a frontier compares accuracies of classes, {split.name} holds {split.task}; take other data."
        )
    taking, left_out = who(wanted, split)
    for sentence in left_out:
        console.print(f"left out: {sentence}", markup=False)
    name = Path(config.data.path).stem if config.data.path else split.name
    folder = Path(own.get("root", f"outputs/frontier/{name}")).expanduser()
    entrants = {
        one.name: (
            one,
            one.search(split, base=BASE, given=given, own=scoped.get(one.name, []), trials=trials, seed=seeds[0]),
        )
        for one in taking
    }
    _check_fair(entrants)
    usual = standings.TOLERANCES.get(split.name, standings.USUAL_TOLERANCE)
    return Plan(name, split, entrants, seeds, folds, usual if tolerance is None else tolerance, trials, folder)


def _check_fair(entrants: Entrants) -> None:
    """Checks that everybody learns for the energy that decides, and that nobody has what another one has not."""
    options: dict[str, dict[str, str]] = {}
    for name, (_, search) in entrants.items():
        options[name] = {}
        for config in search.ends:
            _check_judged_as_learned(config)
            options[name] |= had(config)
    if set(entrants) <= {OURS}:
        return
    for name, own in options.items():
        for what, option in own.items():
            able = [other for other in entrants if what in entrants[other][0].takes]
            if lacking := [other for other in entrants if other not in able]:
                raise ValueError(
                    f"values of {lacking[0]} have no {CALLED[what]}, got {option} for {name} in a frontier with it; "
                    f"leave it out, or give contenders={','.join(able or [OURS])}."
                )
            if without := [other for other in entrants if what not in options[other]]:
                raise ValueError(
                    f"a frontier compares networks of the same inference, got {option} for {name} and not for "
                    f"{without[0]}; give it to everybody, as {option}, or leave it out."
                )


def _check_judged_as_learned(config: Config) -> None:
    learned, judged = (config.energy.profile, config.energy.accounting), (trial.PROFILES[0], trial.ACCOUNTING)
    if learned != judged:
        raise ValueError(
            f"a frontier is decided by energy.profile={judged[0]} energy.accounting={judged[1]}, got energy.profile="
            f"{learned[0]} energy.accounting={learned[1]}; leave these out, energies on {', '.join(trial.PROFILES)} in "
            "every accounting are shown beside it."
        )


def _parsed(arguments: Sequence[str]) -> tuple[dict[str, str], list[str], dict[str, list[str]]]:
    """Returns a command's own options, overrides of every contender, and those of single ones by name."""
    words = usage.read(arguments)
    places.add(words.folders)
    if words.flags:
        raise ValueError(f"a frontier takes no flag of Hydra's, got {words.flags[0]!r}; dsnn run does.")
    own: dict[str, str] = {}
    known = contenders()
    given: list[str] = []
    scoped: dict[str, list[str]] = {name: [] for name in known}
    for word in words.overrides:
        name, equals, value = word.partition("=")
        first, dot, option = name.partition(".")
        if not equals:
            raise ValueError(f"an option is given as name=value, got {word!r}; see --help.")
        if name == "seed":
            raise ValueError(f"a frontier has seeds, got seed={value}; give seeds={value}.")
        if name in ("data.folds", "data.fold"):
            raise ValueError(f"a frontier tests every fold, got {word}; give folds={value if 's=' in word else 10}.")
        if name in OWN:
            own[name] = value
        elif dot and first in known:
            scoped[first].append(f"{option}={value}")
        else:
            given.append(word)
    usage.check([*given, *(word for alone in scoped.values() for word in alone)])
    return own, given, scoped


def _whole(name: str, value: str, least: int) -> int:
    if not value.isdigit() or int(value) < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    return int(value)


def _seeds(value: str) -> list[int]:
    found = [_whole("seeds", part, 0) for part in value.strip("[]").split(",")]
    if len(set(found)) < len(found):
        raise ValueError(f"seeds must differ, got {value}; a network that is learned twice says nothing new.")
    return found


def _share(value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise ValueError(f"tolerance must be a share in [0, 1), got {value!r}; 0.01 is one point.")
    return share
