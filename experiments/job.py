"""One run, from a checked configuration to a finished run directory."""

import dataclasses
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import checkpoint, data, energy, evaluate, parameters, rng, rundir, train
from dsnn.bayes import guides, priors, sites
from dsnn.bayes.lift import Lifted
from dsnn.bayes.likelihood import Categorical, Gaussian
from dsnn.bayes.predict import predictor
from dsnn.bayes.regress import regressor
from dsnn.config import Config, as_dict, build_guide, build_model, load_data
from dsnn.forward import Forward, log_likelihood
from dsnn.track import Track, open_track
from experiments import assess, assess_numbers
from experiments.console import Live, console, final_table

VALIDATION_SAMPLES = 8
FAILED = "FAILED"


class Interrupted(RuntimeError):
    """A run that was told to stop; its checkpoint is written."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.exit_code = 128 + signal_number


@dataclasses.dataclass
class Setup:
    """What a configuration builds."""

    config: Config
    split: data.Split
    lifted: Lifted
    learner: train.Learner
    sites: sites.Sites
    root: Any

    def params(self, state: Any) -> dict[str, Any]:
        """Returns the natural parameters of a learner's state."""
        if self.config.learner == "map":
            return train.map_params(self.lifted.forward.template, state)
        return train.svi_params(self.lifted, state)


def build(config: Config) -> Setup:
    """Returns data, network, model and learner of a configuration."""
    split = load_data(config)
    root = rng.root(config.seed)
    shape = data.input_shape(split)
    model = build_model(config.model, shape, split.classes, rng.stream(root, "init"))
    template, params = parameters.split(model)
    temporal = split.temporal
    forward = Forward(
        template,
        data.steps(split) or config.train.steps if temporal else config.train.steps,
        "temporal" if temporal else config.train.encoding,
        config.train.schedule,
        int(config.train.memory) if config.train.memory.isdigit() else config.train.memory,
    )
    size = len(split.train.x)
    total = config.train.epochs * (size // config.train.batch_size)
    tx = train.optimizer(config.optimizer, total)
    every_site = sites.sites(
        model, gate_input=config.gates.input, analog_input=_analog(forward, split), held_input=forward.held
    )
    bayesian = config.learner == "svi"
    prior = priors.default(template, config.bayes.prior_scale, config.bayes.bias_scale, config.bayes.prior)
    lifted = Lifted(
        forward,
        params,
        prior if bayesian else priors.point,
        size,
        sites=every_site if bayesian and config.gates.enabled else None,
        prices=energy.profile(config.energy.profile),
        accounting=config.energy.accounting,
        feature=config.halting.feature if bayesian and config.halting.enabled else None,
        family=build_guide(config, shape, split.classes, rng.stream(root, "init")) if bayesian else guides.point(),
        likelihood=Gaussian() if split.task == "regression" else Categorical(),
        flipout=bayesian and config.bayes.flipout,
        open_probability=config.gates.open_probability,
    )
    if bayesian:
        learner = train.svi_learner(lifted, config.svi, tx, total, root)
    else:

        def loss(values: Any, batch: train.Batch, key: Any) -> Any:
            return -log_likelihood(forward.logits(values, batch.x, key)[-1], batch.y).mean()

        learner = train.map_learner(loss, template, params, tx, root)
    return Setup(config, split, lifted, learner, every_site, root)


def _analog(forward: Forward, split: data.Split) -> bool:
    if forward.encoding != "temporal":
        return forward.analog
    values = np.asarray(split.train.x[:256])
    return not bool(np.isin(values, (0.0, 1.0)).all())


def directory_of(config: Config) -> Path:
    """Returns the run's directory: as given, or named by the hash of the configuration."""
    if config.run.dir:
        return Path(config.run.dir)
    return Path(config.run.root) / f"{config.experiment}-{rundir.config_hash(as_dict(config))}"


def run(config: Config, group: str | None = None) -> tuple[Path, dict[str, Any]]:
    """Runs one configuration to its end, or returns what a finished run left.

    Returns:
        The run directory and its metrics.

    Raises:
        Interrupted: told to stop; going on is the same command.
    """
    started = time.monotonic()
    directory = directory_of(config)
    if not config.resume and directory.exists():
        _set_aside(directory)
    status = rundir.claim(directory, as_dict(config))
    if status == "done":
        console.print(f"{directory} is finished; run.dir=DIR or resume=false runs it anew.")
        return directory, rundir.read_metrics(directory)
    with rundir.lock(directory), energy.meter(config.energy.pue, config.energy.intensity) as meter:
        rundir.write_environment(directory, config.seed)
        (directory / FAILED).unlink(missing_ok=True)
        setup = build(config)
        described = _described(setup)
        console.print(f"{config.experiment}: {described}")
        track = open_track(
            directory,
            mode=config.track.wandb,
            project=config.track.project,
            group=config.track.group or group or config.experiment,
            name=directory.name,
            tags=[config.experiment, config.learner, *config.track.tags],
            job_type="train",
            config=as_dict(config),
        )
        code = 1
        try:
            metrics = _learn_and_assess(setup, directory, track, meter, started)
            code = 0
        except Interrupted as stop:
            code = stop.exit_code
            raise
        except Exception as error:
            rundir.write_text(directory, FAILED, f"{error}\n")
            raise
        finally:
            track.finish(code)
        if hint := track.sync_hint:
            console.print(f"to send it to W&B: {hint}")
    return directory, metrics


def _described(setup: Setup) -> str:
    split, forward = setup.split, setup.lifted.forward
    counts = f"{len(split.train.x)} training, {len(split.val.x)} validation, {len(split.test.x)} test examples"
    size = parameters.count(setup.lifted.initial)
    where = "" if setup.lifted.sites is None else f", {setup.lifted.sites.total} compute sites"
    return f"{counts}; {size} parameters{where}, {forward.steps} steps, on {jax.devices()[0].device_kind}"


def _learn_and_assess(
    setup: Setup, directory: Path, track: Track, meter: energy.Meter, started: float
) -> dict[str, Any]:
    config = setup.config
    numbers = setup.split.task == "regression"
    predict = regressor(setup.lifted) if numbers else predictor(setup.lifted)
    clock = {"time/setup_s": time.monotonic() - started}
    state, clock["time/compile_s"], clock["time/train_s"] = _learn(setup, directory, track, predict)
    before = time.monotonic()
    train_part = setup.split.train
    params = setup.lifted.finish(setup.params(state), train_part.x, train_part.y, rng.stream(setup.root, "weights"))
    assessed = assess.assess(setup, params, predict)
    metrics: dict[str, Any] = {"experiment": config.experiment, "seed": config.seed, **assessed.metrics}
    rundir.write_arrays(directory, "parameters.npz", params)
    rundir.write_arrays(directory, "records.npz", assessed.records)
    if assessed.gates:
        rundir.write_arrays(directory, "gates.npz", assessed.gates)
    clock["time/eval_s"] = time.monotonic() - before
    clock["time/total_s"] = time.monotonic() - started
    examples = len(setup.split.train.x)
    operations = energy.training_operations(metrics["compute/dense_macs"], examples, config.train.epochs)
    metrics |= clock | meter.metrics(operations)
    rundir.write_metrics(directory, metrics)
    report = _report(directory) if config.run.report else None
    track.summary(metrics)
    if report is not None:
        for figure in sorted((directory / "figures").glob("*.png")):
            track.figure(figure.stem, figure)
    rundir.mark_done(directory)
    final_table(metrics, directory, report, Path(config.energy.profile).stem)
    return metrics


def _report(directory: Path) -> Path:
    from dsnn.report import write_report  # drawing takes a second to import, and is not needed to learn

    return write_report(directory)


def _learn(setup: Setup, directory: Path, track: Track, predict: Any) -> tuple[Any, float, float]:
    """Trains from the newest checkpoint, if there is one; returns the state, compile and training seconds."""
    config, split = setup.config, setup.split
    checkpoints = directory / "checkpoints"
    state = jax.jit(setup.learner.init)()
    start = checkpoint.latest(checkpoints) or 0
    if start:
        state = checkpoint.restore(checkpoints, start, state)
        console.print(f"going on after epoch {start} of {config.train.epochs}")
    rundir.truncate_history(directory, start)
    batch = train.Batch(jnp.asarray(split.train.x), jnp.asarray(split.train.y))
    epochs = train.fit(
        setup.learner,
        state,
        batch,
        epochs=config.train.epochs,
        batch_size=config.train.batch_size,
        root=setup.root,
        start=start,
    )
    began, compiled, saved, last = time.monotonic(), 0.0, start, {}
    written = began
    with _stopping() as stop, Live(config.train.epochs, start) as live:
        try:
            for epoch in epochs:
                done, state = epoch.number + 1, epoch.state
                compiled = compiled or time.monotonic() - began
                loss = float(epoch.info.loss.mean())
                if done % config.train.eval_every == 0 or done == config.train.epochs:
                    last = _validate(setup, state, epoch.info, predict, done)
                    rundir.append_history(directory, {"step": done, **last})
                    track.log(last, done)
                    live.validation(done, last)
                live.epoch(done, loss, last)
                final = done == config.train.epochs
                if final or stop or time.monotonic() - written > config.train.checkpoint_s:
                    checkpoint.save(checkpoints, done, state)
                    written, saved = time.monotonic(), done
                if stop and not final:
                    raise Interrupted(
                        f"stopped after epoch {done} of {config.train.epochs}, checkpoint written; the same command "
                        f"(or run.dir={directory}) goes on.",
                        stop[0],
                    )
        except train.TrainingError as error:
            kept = f"the last good checkpoint is after epoch {saved}" if saved else "no checkpoint was written yet"
            raise train.TrainingError(f"{error} ({kept}, in {checkpoints})") from None
    return state, compiled, time.monotonic() - began


def _validate(setup: Setup, state: Any, info: train.Info, predict: Any, epoch: int) -> dict[str, float]:
    """Returns a history record: training averages and scores on the validation part."""
    split, config = setup.split, setup.config
    record = {
        "epoch": float(epoch),
        "train/loss": float(info.loss.mean()),
        "compute/steps_mean": float(info.mean_steps[-1]),
    }
    if setup.lifted.sites is not None:
        record |= {
            "svi/lam": float(info.lam[-1]),
            "svi/energy_nj": float(info.energy_nj[-1]),
            "gates/kept_fraction": float(info.kept_fraction[-1]),
        }
    if len(split.val.x) and split.task == "regression":
        key, options = rng.stream(setup.root, "weights", epoch), {"samples": VALIDATION_SAMPLES, "y": split.val.y}
        prediction = predict(setup.params(state), split.val.x, key, **options)
        record |= assess_numbers.scores("val", prediction, np.asarray(split.val.y))
    elif len(split.val.x):
        prediction = predict(
            setup.params(state),
            split.val.x,
            rng.stream(setup.root, "weights", epoch),
            samples=VALIDATION_SAMPLES,
            quantile=config.halting.quantile,
            batch_size=assess.EVAL_BATCH,
        )
        labels = np.asarray(split.val.y)
        record |= {
            "val/accuracy": evaluate.accuracy(prediction.probs, labels),
            "val/nll": evaluate.nll(prediction.probs, labels),
            "val/ece": evaluate.ece(prediction.probs, labels),
            "compute/steps_mean": float(prediction.steps.mean()),
        }
    return record


def _set_aside(directory: Path) -> None:
    """Renames a directory out of the way; nothing that a run made is lost."""
    number = 1
    while (target := directory.with_name(f"{directory.name}.{number}")).exists():
        number += 1
    shutil.move(directory, target)
    console.print(f"the earlier {directory} is now {target}")


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """Turns SIGINT and SIGTERM into a request that the loop reads at the end of an epoch."""
    asked: list[int] = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        console.print("stopping after this epoch; once more stops at once")

    old = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            old[number] = signal.signal(number, ask)
    except ValueError:  # not the main thread: a launcher's worker, which is stopped by its launcher
        pass
    try:
        yield asked
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
