"""One run, from a checked configuration to a finished run directory."""

import contextlib
import functools
import math
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import data, energy, evaluate, learn, parameters, store
from dsnn.assembly import automatic
from dsnn.assembly.assemble import Setup, build, network, settings_of, with_network
from dsnn.assembly.identity import directory_of, identity, reads
from dsnn.assembly.loading import load_data
from dsnn.config import Config, as_dict
from dsnn.deploy import exit_calibration
from dsnn.deploy.decided import deploy
from dsnn.deploy.exit_calibration import Calibrated
from dsnn.deploy.fold import fold_scaling
from dsnn.learn import mesh
from dsnn.networks.whole import Whole
from dsnn.run import assess, assess_conversion, baselines, conversion, exit_rule, hooks, machine, population, signals
from dsnn.run.console import console, final_table
from dsnn.run.loop import Member, Pruned, Watch, train
from dsnn.run.signals import Interrupted
from dsnn.store import checkpoint
from dsnn.store.track import Track, open_track

__all__ = ["Interrupted", "Pruned", "Setup", "build", "directory_of", "network", "run", "settings_of"]


TEMPERATURE = "bayes.temperature"
WEIGHTS = {"svi": "posterior means", "nuts": "the likeliest of the draws"}
"""What the weights of an exported network are, by learner."""


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
            with _recorded(directory):
                shaped, split = with_network(config, load_data(config))
                _check_unchanged(config, place.reads)
                metrics, records = assess_conversion.assess(shaped.config, split, directory)
            metrics = {"experiment": config.experiment, "seed": config.seed, **metrics, **meter.metrics()}
            metrics["time/total_s"] = time.monotonic() - started
            store.write_arrays(directory, "records.npz", records)
            store.write_metrics(directory, metrics)
            report = _report(directory) if config.run.report else None
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
        _report(directory)
    console.print(f"{directory} is finished; run.dir=DIR or resume=false runs it anew.")
    if config.export.nir:
        _export(build(config), directory, store.read_arrays(directory, "parameters.npz"))
    return True


def _opened(places: list[Place], group: str | None, closing: contextlib.ExitStack) -> list[Member]:
    """Builds runs and opens their tracks, which end in the state that the runs end in."""
    members: list[Member] = []
    for config, directory, read in places:
        store.write_environment(directory, config.seed)
        (directory / store.FAILED).unlink(missing_ok=True)
        with _recorded(directory):
            setup, begun = _built(config, directory)
            _check_export(setup)
            _check_unchanged(config, read)
        console.print(f"{config.experiment}: {_described(setup)}")
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
        macs, examples = metrics.get("compute/dense_macs"), data.size(member.setup.split.train)
        spent = meter.metrics(None if macs is None else energy.training_operations(macs, examples, passes))
        for name in ("carbon/kwh", "carbon/co2e_g", "carbon/device_hours"):
            spent[name] = float(spent[name]) * share
        metrics |= spent | ({"population/size": len(members)} if len(members) > 1 else {})
    for member, metrics in assessed:
        store.write_metrics(member.directory, metrics)
    pages = _reports([member.directory for member, _ in assessed if member.setup.config.run.report])
    for member, metrics in assessed:
        _finish(member, metrics, pages.get(member.directory))


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
        settled = _exit_rule(setup, answers.params, fit.state, member.predict)
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


def _exit_rule(setup: Setup, params: dict[str, Any], state: Any, predict: Any) -> Calibrated:
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


def _finish(member: Member, metrics: dict[str, Any], report: Path | None) -> None:
    config, directory, track = member.setup.config, member.directory, member.track
    if config.export.nir:
        _export(member.setup, directory, store.read_arrays(directory, "parameters.npz"))
    if track is not None:
        track.summary(metrics)
        _track_results(member, track)
    store.mark_done(directory)
    (directory / store.FAILED).unlink(missing_ok=True)
    final_table(metrics, directory, report, Path(config.energy.profile).stem)
    if metrics.get("halting/clearly_worse"):
        early, late = metrics["deployed/accuracy"], metrics["halting/accuracy_all_steps"]
        console.print(
            f"early answers are clearly worse on the test part: {early:.4f} right against {late:.4f} with all steps; "
            "halting.risk bounds that, and halting.enabled=false runs all steps."
        )


def _track_results(member: Member, track: Track) -> None:
    """Sends figures, the reliability table, the gate map, and the checkpoint where it is asked for."""
    directory = member.directory
    for figure in sorted((directory / "figures").glob("*.png")):
        track.figure(figure.stem, figure)
    records = store.read_arrays(directory, "records.npz")
    if {"test/probs", "test/y"} <= records.keys():
        bins = evaluate.reliability(records["test/probs"], records["test/y"])
        rows = zip(*(column.tolist() for column in bins), strict=True)
        track.table("reliability", ["confidence", "accuracy", "count"], [row for row in rows if row[2]])
    if gates := store.read_arrays(directory, "gates.npz"):
        sites_ = [[name, site, float(p)] for name, group in gates.items() for site, p in enumerate(group)]
        track.table("gates", ["group", "site", "probability"], sites_)
    if member.setup.config.track.checkpoint and (step := checkpoint.latest(member.checkpoints)):
        track.artifact(f"checkpoint-{directory.name}", member.checkpoints / str(step))


@contextlib.contextmanager
def _recorded(directory: Path) -> Iterator[None]:
    """Leaves the reason of a failure in the run directory."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(store.RunDirError):  # a full disk must not hide the reason
            store.write_text(directory, store.FAILED, f"{error}\n\n{traceback.format_exc()}")
        raise


def _described(setup: Setup) -> str:
    split, simulator = setup.split, setup.bayesian.simulator
    held = 0 if split.certify is None else data.size(split.certify)
    counts = (
        f"{data.size(split.train)} training, {data.size(split.val)} selecting, {held} certifying, "
        f"{data.size(split.test)} test examples"
    )
    size = parameters.count(setup.bayesian.weights.initial)
    sites_ = None if setup.bayesian.gates is None else setup.bayesian.gates.sites
    where = "" if sites_ is None else f", {sites_.total} compute sites"
    return f"{counts}; {size} parameters{where}, {simulator.steps} steps, on {jax.devices()[0].device_kind}"


def _check_unchanged(config: Config, read: dict[str, str]) -> None:
    """Raises if what a run reads was replaced between its naming and its reading."""
    now = reads(config)
    if changed := sorted(name for name in now.keys() | read.keys() if now.get(name) != read.get(name)):
        raise ValueError(f"{', '.join(changed)} changed while the run began; the same command begins anew with it.")


def _check_export(setup: Setup) -> None:
    """Raises before any learning if the network cannot be written as NIR."""
    if setup.config.export.nir:
        from dsnn import nir  # an optional library

        model = setup.bayesian.simulator.template.build(setup.bayesian.weights.initial)
        if isinstance(model, Whole):
            raise ValueError("export.nir takes networks of layers, got one of your own; leave export.nir empty.")
        nir.to_nir(model, dt=setup.config.export.dt, method=setup.config.export.method)


def _export(setup: Setup, directory: Path, params: dict[str, Any]) -> None:
    """Writes the deployed network as NIR, with what NIR cannot say in its metadata and on the screen."""
    from dsnn import nir  # an optional library

    export, bayesian = setup.config.export, setup.bayesian
    params = {name: jnp.asarray(value) for name, value in params.items()}
    deployed = deploy(bayesian, params)
    unit = data.target_scaling(setup.split)
    notes: dict[str, Any] = {
        "weights": WEIGHTS.get(setup.config.learner, "point estimates"),
        "posterior_std": {name[:-6]: float(s.mean()) for name, s in params.items() if name.endswith(".scale")},
        "kept": {name: np.flatnonzero(np.asarray(gate) > 0).tolist() for name, gate in deployed.gates.items()},
        "steps": bayesian.simulator.steps,
        "encoding": bayesian.simulator.encoding,
        "run": directory.name,
    }
    if unit is not None:  # outputs are standardised: a number is shift + scale * output
        notes["target_shift"], notes["target_scale"] = unit.shift.tolist(), unit.scale.tolist()
    scaled = data.scaling_of(setup.split)
    small: Any = deployed.small if scaled is None else fold_scaling(deployed.small, scaled)
    sentences = list(nir.save(small, export.nir, dt=export.dt, method=export.method, notes=notes))
    if notes["posterior_std"]:
        sentences.append("the weights are posterior means; their mean standard deviations are in the metadata.")
    if deployed.gates:
        sentences.append("closed sites are removed; which ones were kept is in the metadata.")
    if bayesian.halting is not None:
        sentences.append(f"stopping early is left out; a reader runs all {bayesian.simulator.steps} steps.")
    console.print(f"NIR, dt = {export.dt:g} s, {export.method}: {export.nir}")
    for sentence in sentences:
        console.print(f"  {sentence}")


def _reports(directories: list[Path]) -> dict[Path, Path]:
    """Writes the pages of runs, several at a time in processes of their own where there are several."""
    count = machine.cores() if len(directories) > 2 else 0
    command = [sys.executable, "-m", "dsnn.run.report"]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    parts = [[f"run={one.absolute()}" for one in directories[k::count]] for k in range(count)]
    working = [
        subprocess.Popen([*command, *part], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for part in parts
    ]
    for process in working:
        process.wait()
    pages = {directory: directory / "report.html" for directory in directories}
    return {directory: page if working and page.exists() else _report(directory) for directory, page in pages.items()}


def _report(directory: Path) -> Path:
    from dsnn.report import write_report  # drawing takes a second to import, and is not needed to learn

    return write_report(directory)
