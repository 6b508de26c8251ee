"""``dsnn search search=NAME [trials=N] [root=DIR] [--config-dir DIR] [option=value ...]``.

Any number of processes, on any number of machines that see the same folder, may run the same command: they share one
study, an Optuna journal in DIR/NAME, and go on with the trials of those that were killed. Options are those of
``dsnn run``, and hold for every trial.
"""

import fcntl
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState
from rich.table import Table

from dsnn import store
from dsnn.config import Config
from dsnn.run import schema, signals, usage
from dsnn.run.console import console
from dsnn.run.journal import Journal
from dsnn.run.search import Search, read_search, searches
from dsnn.run.task import run
from dsnn.store import checkpoint, places
from dsnn.suggest import did_you_mean

FIRST_TRIALS = 5
"""Trials that have been as far before one can be stopped for being behind."""

BEGAN = "began"
"""Attribute of a trial: the newest checkpoint that there was each time it was begun, since it was last told to stop."""

CORE_S = "core_s"
"""Attribute of a trial: core-seconds of all threads, without those of processes that were killed."""

Measure = Callable[[Config, optuna.Trial, Search], dict[str, Any]]
"""What a trial does: metrics by name of a configuration."""

DEATHS = 2
"""Processes that a trial may take with it without getting further."""

DEADLY = f"{DEATHS} processes ended at it without a word (killed, or out of memory)"

RISING = ("accuracy", "r2")
"""Ends of the names of records that should be large."""


@signals.heard()
def main(arguments: Sequence[str] | None = None) -> int:
    """Searches, and returns the exit status: 0, 1 if no trial ended well, 2 for a command that cannot be meant."""
    from dsnn.run.job import Interrupted

    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(arguments):
        console.print(f"{__doc__}\nSearches: {', '.join(searches())}.", markup=False)
        return 0
    try:
        name, options, overrides = _parsed(arguments)
        search = read_search(places.file("search", name), overrides)
        search.trials = int(options.get("trials", search.trials))
        folder = Path(options.get("root", "outputs/search")).expanduser() / name
        study = opened(folder, search)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    try:
        searched(study, search, folder)
        return _end(study, search, folder)
    except Interrupted as stop:
        console.print(f"{stop} The search goes on with the same command, from this trial.")
        return stop.exit_code
    except KeyboardInterrupt:
        console.print("stopped at once; the search goes on with the same command, from this trial's last checkpoint.")
        return 130
    except (
        ValueError,
        OSError,
        store.RunDirError,
    ) as error:  # a trial's own end the trial
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def opened(folder: Path, search: Search) -> optuna.Study:
    """Returns the study in a folder, made if there is none.

    A study of an earlier version, which did not write down what it read, goes on where nothing of one's own is read;
    where something is, nobody knows whether it is still the same, so that it counts as another search.

    Raises:
        ValueError: The study there searches something else, or its journal is damaged before its end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = (
        optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=search.prune_after)
        if search.prune_after and len(search.objectives) == 1
        else optuna.pruners.NopPruner()
    )
    with _locked(folder / "study.lock"):
        study = optuna.create_study(
            study_name=folder.name,
            storage=optuna.storages.JournalStorage(Journal(folder / "journal.log")),
            pruner=pruner,
            directions=[StudyDirection[objective.direction.upper()] for objective in search.objectives],
            load_if_exists=True,
        )
        mine = {
            "objectives": [objective.metric for objective in search.objectives],
            "space": {name: store.flat_config(vars(values), ()) for name, values in search.space.items()},
            "overrides": search.overrides,
            "reads": search.reads(),
        }
        theirs = study.user_attrs.get("search")
        if theirs is None:
            study.set_user_attr("search", json.loads(json.dumps(mine)))
        elif {"reads": {}} | theirs != json.loads(json.dumps(mine)):
            differing = [name for name in mine if theirs.get(name, {}) != json.loads(json.dumps(mine[name]))]
            what = ", ".join("the data and files that it reads" if name == "reads" else name for name in differing)
            raise ValueError(f"{folder} holds another search, it differs in {what}; give root=DIR.")
    return study


def searched(study: optuna.Study, search: Search, folder: Path, measure: Measure | None = None) -> None:
    """Runs trials until none is left, those first that other processes left behind.

    Args:
        study: of `opened`.
        search: whose trials these are.
        folder: of both.
        measure: what a trial does; None is an ordinary run.
    """
    while (turn := _next(study, search, folder)) is not None:
        trial, held = turn
        with held:
            _run(study, trial, search, folder, measure or _whole_run)


def _whole_run(config: Config, trial: optuna.Trial, search: Search) -> dict[str, Any]:
    return run(config, group=trial.study.study_name, wait=True, watch=_watch(trial, search))[1]


def _next(study: optuna.Study, search: Search, folder: Path) -> tuple[optuna.Trial, Any] | None:
    """Returns a trial that its process left behind, or a new one, with the lock that says it is ours; or None."""
    with _locked(folder / "study.lock"):
        trials = study.get_trials(deepcopy=False)
        for left in (trial for trial in trials if trial.state == TrialState.RUNNING):
            if held := _taken(folder, left.number):
                if _is_deadly(left):
                    study.tell(left.number, state=TrialState.FAIL)
                    console.print(f"trial {left.number} is given up: {DEADLY}.")
                    held.close()
                    continue
                console.print(f"trial {left.number} goes on: its process is gone.")
                study.sampler = _sampler(search, left.number)
                return optuna.Trial(study, left._trial_id), held
        number = sum(trial.state != TrialState.WAITING for trial in trials)
        if number >= search.trials:
            return None
        if number == len(trials) and (fixed := search.fixed(number)):
            study.enqueue_trial(fixed)  # which the next question is answered with; one that was killed between left it
        study.sampler = _sampler(search, number)
        if (held := _taken(folder, number)) is None:
            raise ValueError(f"trial {number} is new but in use; another study lives in {folder}, give root=DIR.")
        return study.ask(), held


def _sampler(search: Search, number: int) -> optuna.samplers.BaseSampler:
    """Returns the sampler of one trial: seeded by its number, so that processes do not repeat each other's draws."""
    seed = search.seed * 100_003 + number
    match search.sampler:
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(population_size=16, seed=seed)
        case _:
            return optuna.samplers.TPESampler(seed=seed)


def _run(study: optuna.Study, trial: optuna.Trial, search: Search, folder: Path, measure: Measure = _whole_run) -> None:
    """Runs one trial to its end and tells the study."""
    from dsnn.run import job

    began = time.process_time()
    overrides = [*search.suggest(trial), f"run.root={folder / 'runs'}", "track.tags=[search]"]
    console.print(f"trial {trial.number}: {' '.join(f'{k}={v}' for k, v in trial.params.items())}", markup=False)
    try:
        config = schema.compose(overrides)
        directory = job.directory_of(config)
        trial.set_user_attr("dir", str(directory))
        trial.set_user_attr(BEGAN, [*trial.user_attrs.get(BEGAN, []), _reached(directory)])
        metrics = measure(config, trial, search)
        values = [float(metrics[objective.metric]) for objective in search.objectives]
        trial.set_user_attr("also", {name: float(metrics[name]) for name in search.also if name in metrics})
    except job.Pruned:
        study.tell(trial, state=TrialState.PRUNED)
        console.print(f"trial {trial.number} is pruned.")
    except (job.Interrupted, KeyboardInterrupt):
        trial.set_user_attr(BEGAN, [])  # told to stop is no death
        _spent(trial, began)
        raise
    except (Exception, SystemExit) as error:  # whatever it died of, the next command must not meet it again
        trial.set_user_attr("failure", f"{type(error).__name__}: {' '.join(str(error).split())}")
        study.tell(trial, state=TrialState.FAIL)
        console.print(f"trial {trial.number} failed: {error}", markup=False)
    else:
        _spent(trial, began)
        study.tell(trial, values)


def _spent(trial: optuna.Trial, began: float) -> None:
    """Adds the core-seconds of this process to those that a trial has taken so far."""
    trial.set_user_attr(CORE_S, trial.user_attrs.get(CORE_S, 0.0) + time.process_time() - began)


def _reached(directory: Path | str) -> int:
    """Returns the epoch of a run's newest checkpoint, 0 where there is none."""
    return max(checkpoint.steps(Path(directory) / "checkpoints"), default=0)


def _is_deadly(left: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial took two processes with it that began where it still stands."""
    began = left.user_attrs.get(BEGAN, [])
    return began[-DEATHS:] == [_reached(left.user_attrs.get("dir", ""))] * DEATHS


def _watch(trial: optuna.Trial, search: Search) -> Callable[[int, dict[str, float]], bool] | None:
    """Returns what looks at each validation and stops a trial that is not worth its time."""
    if not search.prune_after:
        return None
    if len(search.objectives) > 1:
        return behind(trial, search)
    metric = search.objectives[0].metric

    def watch(epoch: int, record: dict[str, float]) -> bool:
        seen = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        if metric in record and epoch not in seen:  # a trial that goes on passes epochs it has reported
            trial.report(record[metric], epoch)
        return trial.should_prune()

    return watch


def behind(trial: optuna.Trial, search: Search) -> Callable[[int, dict[str, float]], bool]:
    """Returns what stops a trial that is worse than three quarters of the earlier ones.

    Optuna's pruners are made for one objective.
    """
    sign = -1.0 if search.prune_on.endswith(RISING) else 1.0

    def watch(epoch: int, record: dict[str, float]) -> bool:
        if search.prune_on not in record:
            return False
        seen = trial.user_attrs.get("seen", {}) | {str(epoch): sign * record[search.prune_on]}
        trial.set_user_attr("seen", seen)
        if epoch < search.prune_after:
            return False
        earlier = [other.user_attrs.get("seen", {}) for other in trial.study.get_trials(deepcopy=False)[: trial.number]]
        there = sorted(value[str(epoch)] for value in earlier if str(epoch) in value)
        return len(there) >= FIRST_TRIALS and seen[str(epoch)] > there[-(len(there) // 4) - 1]

    return watch


def _end(study: optuna.Study, search: Search, folder: Path) -> int:
    """Prints the best trials, draws the report, and returns the exit status."""
    trials = study.get_trials(deepcopy=False)
    counts = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    done, failed = counts[TrialState.COMPLETE], counts[TrialState.FAIL]
    console.print(f"{len(trials)} trials: {done} done, {counts[TrialState.PRUNED]} pruned, {failed} failed.")
    for trial in trials:
        if trial.state == TrialState.FAIL:
            console.print(f"  trial {trial.number}: {trial.user_attrs.get('failure', DEADLY)}", markup=False)
    if not done:
        return 1
    best = sorted(study.best_trials, key=lambda trial: trial.values[0])
    title = "The best trial" if len(search.objectives) == 1 else f"The front, {len(best)} trials"
    table = Table(title=title, title_justify="left")
    shown = [name for name in search.also if any(name in trial.user_attrs.get("also", {}) for trial in best)]
    for column in ("trial", *(objective.metric for objective in search.objectives), *shown, "settings", "run"):
        table.add_column(column, overflow="fold")
    for trial in best:
        settings = " ".join(f"{name}={value}" for name, value in trial.params.items())
        name = Path(trial.user_attrs.get("dir", "")).name
        found = trial.user_attrs.get("also", {})
        numbers = [*trial.values, *(found.get(name) for name in shown)]
        cells = ["" if value is None else f"{value:.5g}" for value in numbers]
        table.add_row(str(trial.number), *cells, settings, name)
    console.print(table)
    winner = best[0] if search.objectives[0].direction == "minimize" else best[-1]
    words = [*search.overrides, *(f"{name}={value}" for name, value in winner.params.items())]
    kept = [word for word in words if not word.startswith(("run.", "track."))]
    where = [f"--config-dir={folder}" for folder in places.own()]
    console.print(f"best {search.objectives[0].metric}: dsnn run {shlex.join([*where, *kept])}", markup=False)
    if any(trial.state == TrialState.RUNNING for trial in trials):
        console.print("other processes are still at work; the last one draws the report.")
        return 0
    from dsnn.report import write_runs_report  # drawing takes a second to import
    from dsnn.run.fronts import draw_front

    if len(search.objectives) > 1:
        console.print(str(draw_front(study, folder)), markup=False)
    console.print(str(write_runs_report(folder / "runs")), markup=False)
    return 0


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _taken(folder: Path, number: int) -> Any:
    """Returns the lock of a trial, which goes with the process that holds it, or None if another one does."""
    path = folder / "trials" / f"{number}.lock"
    path.parent.mkdir(exist_ok=True)
    file = path.open("wb")
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file
    file.close()
    return None


def _parsed(arguments: Sequence[str]) -> tuple[str, dict[str, str], list[str]]:
    own, overrides = {}, []
    words = usage.read(arguments)
    places.add(words.folders)
    if words.flags:
        raise ValueError(f"a search takes no flag of Hydra's, got {words.flags[0]!r}; dsnn run does.")
    for argument in words.overrides:
        name, equals, value = argument.partition("=")
        if not equals:
            raise ValueError(f"an option is given as name=value, got {argument!r}; see --help.")
        if name in ("search", "trials", "root"):
            own[name] = value
        else:
            overrides.append(argument)
    name = own.pop("search", "")
    if name not in searches():
        hint = did_you_mean(name, searches(), "--config-dir DIR adds a folder of your own.", most=1)
        raise ValueError(f"search must be one of {', '.join(searches())}, got {name!r}; {hint}")
    if not own.get("trials", "1").isdigit():
        raise ValueError(f"trials must be a number, got {own['trials']!r}.")
    return name, own, overrides


if __name__ == "__main__":
    sys.exit(main())
