"""One run, from a checked configuration to a finished run directory."""

import contextlib
import functools
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from dsnn import energy, learn, store
from dsnn.assembly import automatic
from dsnn.assembly.assemble import Setup, build
from dsnn.assembly.bayesian import network, settings_of, with_network
from dsnn.assembly.control import as_many_as
from dsnn.assembly.identity import directory_of, identity, reads
from dsnn.assembly.loading import load_data
from dsnn.config import Config, as_dict
from dsnn.deploy import exit_calibration
from dsnn.deploy.exit_calibration import Calibrated
from dsnn.learn import mesh
from dsnn.run import assess, assess_conversion, baselines, conversion, exit_rule, hooks, machine, population, signals
from dsnn.run.console import console, final_table
from dsnn.run.finish import check_export, check_unchanged, described, exported, finish, recorded, reported, reporting
from dsnn.run.loop import Member, Pruned, Watch, train
from dsnn.run.signals import Interrupted
from dsnn.run.training_cost import training_cost
from dsnn.store.track import open_track

__all__ = ["Interrupted", "Pruned", "Setup", "build", "directory_of", "network", "run", "settings_of", "stopping_rule"]


TEMPERATURE = "bayes.temperature"


def run(
    config: Config, group: str | None = None, *, wait: bool = False, watch: Watch | None = None
) -> tuple[Path, dict[str, Any]]:
    """Runs one configuration to its end, or returns what a finished run left.

    A population trains its members together; the directory and the metrics returned are its first member's.

    Args:
        config: what to run.
        group: W&B group where the configuration names none.
        wait: waits for another process that is working in the run directory, instead of refusing.
        watch: is told of each validation, and ends the run by returning true.

    Returns:
        The run directory and its metrics.

    Raises:
        Interrupted: told to stop; going on is the same command.
        Pruned: the watch ended it.
        TrainingError: the loss was not finite; of a population, after the other members have ended.
    """
    started = time.monotonic()
    config = as_many_as(config)
    machine.prepare(config)
    signals.heed()
    configs = population.members(config)
    places = [_place(one) for one in configs]
    directories = [place.directory for place in places]
    if config.learner == "convert":
        return _converted(places[0], wait)
    if not mesh.leads():
        train([Member(build(config), directories[0])])
        return directories[0], {}
    if len(configs) > 1:
        group = group or f"population-{store.config_hash({'members': [path.name for path in directories]})}"
    meter = energy.meter(config.energy.pue, config.energy.intensity)
    with meter, contextlib.ExitStack() as closing:
        waiting = [one for one in places if not _is_finished(one, closing, wait)]
        members = _opened(waiting, group, closing)
        if members:
            _learn_and_assess(members, meter, started, watch)
    for member in members:
        if member.track is not None and (hint := member.track.sync_hint):
            console.print(f"to send it to W&B: {hint}")
    if failed := [member for member in members if member.failure]:
        raise learn.TrainingError(f"{len(failed)} of {len(configs)} members failed; the first: {failed[0].failure}")
    return directories[0], store.read_metrics(directories[0])


class Place(NamedTuple):
    """Where a run lives, and what it read when it was named so."""

    config: Config
    directory: Path
    reads: dict[str, str]


def _place(config: Config) -> Place:
    read = reads(config)
    return Place(config, directory_of(config, read), read)


def _converted(place: Place, wait: bool) -> tuple[Path, dict[str, Any]]:
    """Trains and converts a deep network; the run directory is like any other."""
    started = time.monotonic()
    config, directory, _ = place
    with energy.meter(config.energy.pue, config.energy.intensity) as meter, contextlib.ExitStack() as closing:
        if not _is_finished(place, closing, wait):
            store.write_environment(directory, config.seed)
            with recorded(directory):
                shaped, split = with_network(config, load_data(config))
                check_unchanged(config, place.reads)
                metrics, records = assess_conversion.assess(shaped.config, split, directory)
            metrics = {"experiment": config.experiment, "seed": config.seed, **metrics, **meter.metrics()}
            metrics["time/total_s"] = time.monotonic() - started
            store.write_arrays(directory, "records.npz", records)
            store.write_metrics(directory, metrics)
            report = reported(directory) if config.run.report else None
            store.mark_done(directory)
            (directory / store.FAILED).unlink(missing_ok=True)
            final_table(metrics, directory, report, Path(config.energy.profile).stem)
    return directory, store.read_metrics(directory)


def _is_finished(place: Place, closing: contextlib.ExitStack, wait: bool) -> bool:
    """Claims and locks the directory of a run, unless the run is done."""
    config, directory, read = place
    claim = store.held(directory, identity(config), read, resume=config.resume, wait=wait)
    if closing.enter_context(claim) != "done":
        return False
    if not store.pictures_whole(directory) and config.run.report:
        reported(directory)
    console.print(f"{directory} is finished; run.dir=DIR or resume=false runs it anew.")
    if config.export.nir:
        exported(build(config), directory, store.read_arrays(directory, "parameters.npz"))
    return True


def _opened(places: list[Place], group: str | None, closing: contextlib.ExitStack) -> list[Member]:
    """Builds runs and opens their tracks, which end in the state that the runs end in."""
    members: list[Member] = []
    for config, directory, read in places:
        store.write_environment(directory, config.seed)
        (directory / store.FAILED).unlink(missing_ok=True)
        with recorded(directory):
            setup, begun = _built(config, directory)
            check_export(setup)
            check_unchanged(config, read)
        console.print(f"{config.experiment}: {described(setup)}")
        for sentence in setup.split.notes:
            console.print(f"data: {sentence}", markup=False)
        if setup.task.facts.note:
            console.print(f"task: {setup.task.facts.note}", markup=False)
        if setup.automatic:
            said = automatic.said(setup.automatic)
            console.print(f"chosen from the data (set by hand where you know better): {said}", markup=False)
        track = open_track(
            directory,
            tool=config.track.tool,
            mode=config.track.wandb,
            project=config.track.project,
            group=config.track.group,
            usual_group=group or config.experiment,
            name=directory.name,
            tags=[config.experiment, config.learner, *config.track.tags],
            job_type="train",
            config=as_dict(config),
        )
        signals.heed()
        members.append(Member(setup, directory, track, like=members[0] if members else None, begun=begun))
        closing.push(members[-1].close)
    return members


def _built(config: Config, directory: Path) -> tuple[Setup, dict[str, Any]]:
    """Returns the setup, after the deep network that it goes on from, and what that was worth."""
    if not config.convert.method:
        return build(config), {}
    shaped, split = with_network(config, load_data(config))
    config = shaped.config
    begun = conversion.begin(config, split, directory)
    for name, value in begun.metrics.items():
        console.print(f"{name}: {value:.4f}")
    return build(config, split, begun.params), begun.metrics


def _learn_and_assess(members: list[Member], meter: energy.Meter, started: float, watch: Watch | None) -> None:
    """Trains members together and assesses them; what they shared is dealt out evenly among them."""
    setup_s = time.monotonic() - started
    learned = train(members, watch)
    share, began = 1 / len(members), time.monotonic()
    fits, beside = _beside(members, learned.states)
    members = [fit.member for fit in fits]
    baseline_s, began = time.monotonic() - began, time.monotonic()
    assessed = _assessed(fits)
    eval_s = time.monotonic() - began
    parts = {"setup": setup_s, "compile": learned.compile_s, "train": learned.train_s, "eval": eval_s}
    parts["baseline"] = baseline_s
    parts = {name: seconds * share for name, seconds in parts.items()}
    for member, metrics in assessed:
        metrics |= {f"time/{name}_s": seconds for name, seconds in parts.items()}
        metrics |= beside[member.directory]
        metrics["time/total_s"] = parts["setup"] + parts["train"] + parts["baseline"] + parts["eval"]
        passes = round(metrics.get("nuts/gradients", learned.epochs))
        macs = metrics.get("compute/dense_macs")
        if macs is not None:
            metrics |= training_cost(member, float(macs), float(passes))
        spent = meter.metrics(metrics.get("training/operations"))
        for name in ("carbon/kwh", "carbon/co2e_g", "carbon/device_hours"):
            spent[name] = float(spent[name]) * share
        metrics |= spent | ({"population/size": len(members)} if len(members) > 1 else {})
    for member, metrics in assessed:
        store.write_metrics(member.directory, metrics)
    pages = reporting([member.directory for member, _ in assessed if member.setup.config.run.report])
    for member, metrics in assessed:
        finish(member, metrics, pages.get(member.directory))


def _beside(members: list[Member], states: list[Any]) -> tuple[list[baselines.Fit], dict[Path, dict[str, Any]]]:
    """Returns the fits that are kept, and what simpler models of the same data make of each run directory's.

    A network that learned alone is held to them; of a population only a linear model is reported.
    """
    fits = [baselines.Fit(member, state) for member, state in zip(members, states, strict=True)]
    if len(members) > 1:
        alone = [fit.member for fit in fits if not fit.member.failure]
        return fits, {member.directory: baselines.linear(member.setup)[0] for member in alone}
    simpler = baselines.rivals(members[0])
    kept, found = baselines.held_to(fits[0], simpler)
    return [kept], {kept.member.directory: simpler.metrics | found}


def _assessed(fits: list[baselines.Fit]) -> list[tuple[Member, dict[str, Any]]]:
    """Writes the trained networks and returns what each is worth; one that cannot be assessed fails, if not alone.

    Predictions share their program and come one after another, networks with programs of their own side by side, and
    wall times once everything else is still.
    """
    members = [fit.member for fit in fits]

    def unless_failed(step: Callable[..., Any], member: Member, *given: Any) -> Any:
        signals.heed()
        try:
            return None if member.failure else step(member, *given)
        except Exception as error:
            if len(members) == 1:
                raise
            member.fail(error)
            return None

    def predicted(member: Member, fit: baselines.Fit) -> tuple[Any, ...]:
        setup, answers = member.setup, fit.answers
        if setup.config.bayes.temperature < 0:
            setup.automatic = setup.automatic | {TEMPERATURE: answers.temperature}
            console.print(f"fitted on the selecting part: {TEMPERATURE}={answers.temperature:.3g}")
        settled = stopping_rule(setup, answers.params, fit.state, member.predict)
        store.write_arrays(member.directory, "parameters.npz", settled.params)
        return settled, *assess.predicted(setup, settled, member.predict)

    def measured(member: Member, made: tuple[Any, ...]) -> assess.Assessed:
        return assess.measured(member.setup, *made)

    def timed(member: Member, settled: Calibrated, assessed: assess.Assessed) -> dict[str, float]:
        return assess.timed(member.setup, settled, assessed, member.predict)

    made = [unless_failed(predicted, *pair) for pair in zip(members, fits, strict=True)]
    with ThreadPoolExecutor(min(len(members), machine.cores())) as pool:
        whole = list(pool.map(functools.partial(unless_failed, measured), members, made))
    done = []
    for fit, member, one, assessed in zip(fits, members, made, whole, strict=True):
        times = unless_failed(timed, member, one and one[0], assessed)
        if member.failure:
            continue
        store.write_arrays(member.directory, "records.npz", assessed.records)
        if assessed.gates:
            store.write_arrays(member.directory, "gates.npz", assessed.gates)
        named = {"experiment": member.setup.config.experiment, "seed": member.setup.config.seed, **member.begun}
        chosen = member.setup.automatic.items()
        named |= {f"automatic/{name}": str(value) if isinstance(value, list) else value for name, value in chosen}
        agreed = member.setup.diagnostics(fit.state)
        values = {**named, **assessed.metrics, **times, **agreed, **_chosen(member)}
        own = unless_failed(hooks.metrics, member, values, one[0], fit.answers.temperature)
        if not member.failure:
            done.append((member, values | own))
    return done


def stopping_rule(setup: Setup, params: dict[str, Any], state: Any, predict: Any) -> Calibrated:
    """Returns when the network stops, and says what was promised of it."""
    if not exit_rule.stops(setup):
        return Calibrated(params, math.inf, {})
    settled = exit_calibration.calibrate(
        setup.bayesian,
        params,
        setup.split,
        setup.config.halting,
        setup.root,
        price=exit_calibration.step_price(setup.bayesian, params, state),
        predict=predict,
        samples=setup.config.bayes.samples,
        key=assess.predictive_key(setup),
    )
    console.print(exit_calibration.said(settled))
    return settled


def _chosen(member: Member) -> dict[str, float]:
    """Returns the epoch that validation selected, and beside it what papers report that selected on test."""
    selected = member.selected()
    chosen: dict[str, float] = {} if selected is None else {"selected/epoch": selected[0]}
    history = store.read_history(member.directory) if member.setup.config.train.watch_test else []
    if seen := [record["test/accuracy"] for record in history if "test/accuracy" in record]:
        chosen |= {"test/accuracy_best_epoch": max(seen), "test/accuracy_last_epoch": seen[-1]}
    return chosen
