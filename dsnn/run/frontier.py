"""``dsnn frontier data=NAME [trials=N] [seeds=0,1] [folds=K] [contenders=A,B] [tolerance=SHARE] [root=DIR] [...]``.

Networks that a user would deploy, spiking and not, are trained by the same code: the same inference, the same
sampler, as many trials and epochs each. Trials are judged on the part that selects; those on its front are learned
with every seed and assessed on the test part, once. The result is accuracy over energy, with a ratio to the cheapest
rival at equal accuracy, in frontier.json and on a page. Options are those of ``dsnn run``, and hold for every trial;
``spiking.model.cell=ALIF`` is for one contender.

With folds=K all examples are dealt out into K folds. The chosen learn K times under every seed, each time without one
fold, which tests them; trials are searched where the first one is left out. So settings were chosen with examples that
test in another fold, those of every contender alike.

Any number of processes may run the same command: they share the trials, and go on with those of processes that were
killed. Nothing that is there is made anew.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from dsnn import store
from dsnn.assembly.identity import directory_of
from dsnn.config import Config
from dsnn.run import schema, signals, standings, sweep, trial
from dsnn.run.cli import EXPECTED
from dsnn.run.console import console
from dsnn.run.contenders import OURS, contenders
from dsnn.run.frontier_plan import Plan, planned
from dsnn.run.frontier_table import show
from dsnn.run.frontier_words import worded
from dsnn.run.judged import Judged
from dsnn.run.search import Search
from dsnn.run.standings import Point, Tried
from dsnn.run.sweep import CORE_S

RESULT = "frontier.json"


@signals.heard()
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a frontier, and returns the exit status: 0, 1 if somebody's trials all failed, 2 for a command not meant."""
    from dsnn.run.job import Interrupted

    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if {"-h", "--help"} & set(arguments):
        console.print(f"{__doc__}\nContenders: {', '.join(contenders())}.", markup=False)
        return 0
    try:
        plan = planned(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    try:
        return _run(plan)
    except Interrupted as stop:
        console.print(f"{stop} The frontier goes on with the same command.")
        return stop.exit_code
    except KeyboardInterrupt:
        console.print("stopped at once; the frontier goes on with the same command.")
        return 130
    except EXPECTED as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def _run(plan: Plan) -> int:
    """Runs trials, then the chosen ones under every seed, then assesses and shows them."""
    # all are opened first: what was changed since stops here, and nothing has learned in vain
    studies = {name: sweep.opened(plan.folder / name, search) for name, (_, search) in plan.entrants.items()}
    tried: dict[str, list[Tried]] = {}
    failures: dict[str, list[str]] = {}
    for name, (_, search) in plan.entrants.items():
        console.print(f"{name}: {plan.trials} trials", markup=False)
        sweep.searched(studies[name], search, plan.folder / name, _measure)
        tried[name], failures[name] = _finished(studies[name]), _failures(studies[name])
    every = [one for study in studies.values() for one in study.get_trials(deepcopy=False)]
    if any(one.state == TrialState.RUNNING for one in every):
        console.print("other processes are still at work on trials; the last one goes on.")
        return 0
    points = _points(plan, tried)
    result = _result(plan, tried, failures, points)
    store.write_text(plan.folder, RESULT, json.dumps(result, indent=1) + "\n")
    show(result)
    from dsnn.report import write_frontier_report  # drawing takes a second to import

    console.print(str(write_frontier_report(plan.folder, result)), markup=False)
    return int(not all(tried.values()))


def _measure(config: Config, of: optuna.Trial, search: Search) -> dict[str, Any]:
    return store.read_metrics(trial.learned(config))


def _finished(study: optuna.Study) -> list[Tried]:
    """Returns the trials that ended well."""
    done = [one for one in study.get_trials(deepcopy=False) if one.state == TrialState.COMPLETE]
    return [
        Tried(one.number, one.params, one.user_attrs.get(CORE_S, 0.0), trial.on_select(Path(one.user_attrs["dir"])))
        for one in done
    ]


def _failures(study: optuna.Study) -> list[str]:
    """Returns, and prints, why trials failed."""
    failed = [one for one in study.get_trials(deepcopy=False) if one.state == TrialState.FAIL]
    reasons = [one.user_attrs.get("failure", sweep.DEADLY) for one in failed]
    for one, reason in zip(failed, reasons, strict=True):
        console.print(f"  trial {one.number}: {reason}", markup=False)
    return reasons


def _points(plan: Plan, tried: Mapping[str, Sequence[Tried]]) -> dict[str, list[Point]]:
    """Returns the chosen networks by the name of their energy, after all seeds have learned and been assessed.

    Everything learns before anything is assessed, so that nothing can be changed by what the test part says.
    """
    chosen = {
        (name, energy): standings.chosen(tried[name], machine)
        for name, (one, _) in plan.entrants.items()
        if tried[name]
        for energy, machine in one.machines.items()
    }
    wanted = {(name, number): None for (name, _), numbers in chosen.items() for number in numbers}
    configs = {(name, number): _seeded(plan, name, number, tried[name]) for name, number in wanted}
    _learn([config for those in configs.values() for seed in those for config in seed])
    made = {which: [[trial.learned(one) for one in seed] for seed in those] for which, those in configs.items()}
    points: dict[str, list[Point]] = {}
    for (name, energy), numbers in chosen.items():
        machine, settings = plan.entrants[name][0].machines[energy], {one.number: one.settings for one in tried[name]}
        for number in numbers:
            those, kept = made[name, number], plan.folder / "test"
            select = [Judged.pooled([trial.on_select(directory) for directory in seed]) for seed in those]
            test = [Judged.pooled([trial.on_test(directory, kept) for directory in seed]) for seed in those]
            points.setdefault(energy, []).append(Point(energy, machine, settings[number], select, test))
    return points


def _learn(configs: Sequence[Config]) -> None:
    """Learns every configuration, those last that other processes are working on."""
    left = {directory_of(config): config for config in configs}
    while left:
        free = (directory for directory in left if store.state(directory).kind != "working")
        trial.learned(left.pop(next(free, next(iter(left)))))


def _seeded(plan: Plan, name: str, number: int, tried: Sequence[Tried]) -> list[list[Config]]:
    """Returns the configurations of a trial under every seed, one for each fold."""
    search = plan.entrants[name][1]
    settings = next(one.settings for one in tried if one.number == number)
    words = [*search.overrides, *(f"{option}={value}" for option, value in settings.items())]
    words += [f"run.root={plan.folder / name / 'runs'}", "track.tags=[search]"]
    folds = [[f"data.fold={fold}"] for fold in range(plan.folds)] or [[]]
    return [[schema.compose([*words, f"seed={seed}", *fold]) for fold in folds] for seed in plan.seeds]


def _result(
    plan: Plan,
    tried: Mapping[str, Sequence[Tried]],
    failures: Mapping[str, Sequence[str]],
    points: Mapping[str, Sequence[Point]],
) -> dict[str, Any]:
    """Returns everything that is known, as it is written down."""
    broken = {name: reasons[-1] for name, reasons in failures.items() if reasons and not tried[name]}
    result = {
        "data": plan.name,
        "test_examples": plan.tested,
        "folds": plan.folds,
        "trials": plan.trials,
        "seeds": plan.seeds,
        "tolerance": plan.tolerance,
        "ours": OURS,
        "primary": standings.primary_key(),
        "keys": standings.columns(),
        "contenders": {
            energy: {
                "about": one.about,
                "network": name,
                "machine": machine,
                "failures": list(failures[name]),
                **standings.trials_of(tried[name], machine),
                "points": [standings.row(point) for point in points.get(energy, ())],
            }
            for name, (one, _) in plan.entrants.items()
            for energy, machine in one.machines.items()
        },
        "meetings": standings.meetings(points, plan.tolerance, broken),
    }
    return worded(result)


if __name__ == "__main__":
    sys.exit(main())
