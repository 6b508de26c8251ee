"""Looks at data before any training: ``python -m experiments.inspect data=NAME [option=value ...] [picture=FILE]``."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from rich.table import Table
from rich.text import Text

from dsnn import data, tasks
from dsnn.assembly import automatic
from dsnn.assembly.linear import linear_model
from dsnn.assembly.loading import learnable, open_data, task_of
from dsnn.config import Config
from dsnn.data.worries import name_of
from dsnn.deploy import exit_calibration
from dsnn.learn.memory import StepMemory, step_memory
from dsnn.run import machine, schema, usage
from dsnn.run.console import console
from dsnn.store import places

if TYPE_CHECKING:
    from dsnn.assembly.assemble import Setup

PICTURE = "picture="
DRAWN = 3


def main(arguments: list[str] | None = None) -> int:
    """Prints what a data set holds, what is odd about it and what a run would do with it; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if usage.wants_help(given):
        console.print(__doc__)
        return 0
    picture = Path(next((a.removeprefix(PICTURE) for a in given if a.startswith(PICTURE)), "outputs/inspect.png"))
    try:
        words = usage.read([a for a in given if not a.startswith(PICTURE)])
        places.add(words.folders)
        overrides = words.overrides
        usage.check(overrides)
        config = schema.compose(overrides)
        machine.host_devices(config.compute, config.population.size)
        split = open_data(config)
        show(split, tasks.of(split, tasks.Choice(config.task, config.task_options)))
        draw(split, picture)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    try:
        learned = learnable(split, config)
        sentences = plan(learned, config)
    except ValueError as error:
        console.print(f"a run cannot learn this: {error}", markup=False)
        return 0
    console.print("a run can learn this.")
    for sentence in sentences:
        console.print(sentence, markup=False)
    with console.status("fitting a linear model to compare with"):
        sentence = to_beat(learned, config)
    console.print(sentence, markup=False)
    return 0


def plan(split: data.Split, config: Config) -> list[str]:
    """Returns what a run would do with a split, by the checks and the choices that a run makes.

    Args:
        split: as `learnable` returns it.
        config: of the run.

    Raises:
        ValueError: a run would refuse it.
    """
    held = 0 if split.certify is None else data.size(split.certify)
    said = [
        f"it would take experiment={config.experiment}: {data.size(split.train)} training, {data.size(split.val)} "
        f"selecting, {held} certifying and {data.size(split.test)} test examples."
    ]
    if config.learner != "convert":
        said += _choices(split, config, held)
    return said


def to_beat(split: data.Split, config: Config) -> str:
    """Returns what a linear model reaches on a split, as `learnable` returns it; it may take minutes on images."""
    if (linear := linear_model(split, config.seed, task_of(split, config))) is None:
        return "there is no linear model of such targets to compare with."
    part = "val" if any(name.startswith("val/") for name in linear.scores) else "test"
    scores = ", ".join(f"{n.split('/')[1]} {v:.3g}" for n, v in linear.scores.items() if n.startswith(f"{part}/"))
    return f"a linear model ({linear.name}) has {scores} on the {'selecting' if part == 'val' else part} part."


def _choices(split: data.Split, config: Config, held: int) -> list[str]:
    from dsnn.assembly.assemble import build  # which imports all that learns
    from dsnn.run.finish import dealt_out

    setup = build(config, split)
    train, steps = setup.config.train, setup.bayesian.simulator.steps
    updates = setup.updates
    said = [f"batches of {train.batch_size}, {train.epochs} epochs of {updates} updates, {steps} time steps."]
    if (needed := training_memory(setup)) is not None:
        said.append(
            f"a training step needs about {_megabytes(needed.total)} of memory: {_megabytes(needed.state)} of "
            f"parameters and optimiser, {_megabytes(needed.activations)} of activations (estimated), the rest draws "
            "and the batch."
        )
    if setup.config.learner == "svi":
        svi = setup.config.svi
        price = f"all energy is worth {svi.lam_nats:.3g} nats" if svi.lam_nats else f"an nJ costs {svi.lam:.3g} nats"
        price = "energy costs what keeps it to its budget" if svi.budgeted else f"{price} an example"
        moves = "; events have a gradient" if setup.config.energy.events == "differentiated" else ""
        said.append(f"the divergence of the weights counts {svi.kl_weight:.3g} times, and {price}{moves}.")
    if setup.spread is not None:
        said.append(f"{dealt_out(setup)}.")
    if setup.automatic:
        said.append(f"chosen from the data: {automatic.said(setup.automatic)}.")
    if setup.bayesian.halting is None:
        said.append(f"every example runs all {steps} steps.")
    elif held < exit_calibration.FEWEST and not setup.bayesian.joint:
        said.append(
            f"every example runs all {steps} steps: early answers take {exit_calibration.FEWEST} certifying examples."
        )
    else:
        said.append("examples may stop early, within a certified risk (halting.enabled=false runs all steps).")
    return said


def training_memory(setup: "Setup") -> StepMemory | None:
    """Returns what one training step of a run needs; None where there is no estimate.

    Args:
        setup: of the run.
    """
    config, simulator = setup.config, setup.bayesian.simulator
    if config.learner not in ("map", "svi"):
        return None
    x, y = setup.split.train
    rows = config.train.batch_size
    batch = [jax.ShapeDtypeStruct((rows, *part.shape[1:]), part.dtype) for part in (x, y)]
    together = config.svi.particles if jax.default_backend() != "cpu" else 1
    return step_memory(
        simulator.template.build(setup.bayesian.weights.initial),
        jax.eval_shape(setup.learner.init),
        batch,
        steps=simulator.steps,
        held=simulator.held,
        samples=0 if config.learner == "map" else together,
        memory=simulator.memory,
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.3g} MB"


def show(split: data.Split, task: tasks.Task) -> None:
    """Prints what a split holds."""
    steps = data.steps(split)
    kind = f"{steps} steps of {data.input_shape(split)}" if steps else f"static {data.input_shape(split)}"
    console.print(f"{split.name}: {split.task}, {split.classes} {task.facts.noun}, {kind}", markup=False)
    table = Table("part", "examples", "x", "range", "mean", "zero", "binary")
    if steps:
        table.add_column("events a channel and step")
    for name in ("train", "val", "test"):
        part = getattr(split, name)
        table.add_row(name, *statistics(part, bool(steps)))
    console.print(table)
    if task.facts.counted:
        console.print(_balance(split, task))
    for title, sentences in (("done while reading", split.notes), ("to know", data.worries(split))):
        for sentence in sentences:
            console.print(f"{title}: {sentence}", markup=False)


def statistics(part: data.Arrays, temporal: bool) -> list[str]:
    """Returns the number of examples, shape, range, mean, share of zeros, whether binary, and event rate.

    Of a stream these are of the examples that `dsnn.data.looked_at` draws.
    """
    shape = tuple(part.x.shape)
    if not data.size(part):
        return ["0", "", "", "", "", "", *[""] * temporal]
    x: Any = data.looked_at(part).x
    values = np.asarray(x.data if hasattr(x, "indptr") else x)
    cells = int(np.prod(x.shape))
    zero = 1 - np.count_nonzero(values) / cells
    binary = bool(np.isin(values, (0, 1)).all())
    low = min(float(values.min(initial=0)), 0.0) if hasattr(x, "indptr") else float(values.min())
    row = [f"{shape[0]}", f"{shape}", f"{low:.4g} to {float(values.max(initial=low)):.4g}"]
    row += [f"{float(values.sum(dtype=np.float64)) / cells:.4g}", f"{zero:.1%}", "yes" if binary else "no"]
    return [*row, f"{(1 - zero):.4g}" if binary else "not spikes"] if temporal else row


def _balance(split: data.Split, task: tasks.Task) -> Table:
    table = Table("class", "train", "val", "test", "share of train")
    every = [task.counts(np.asarray(getattr(split, p).y), split.classes) for p in ("train", "val", "test")]
    counts, total = [one for one, _ in every], max(every[0][1], 1)
    for label in range(min(split.classes, 40)):
        share = counts[0][label] / total
        table.add_row(
            Text(name_of(split, label)), *(f"{c[label]}" for c in counts), f"{share:6.1%} {'█' * round(20 * share)}"
        )
    return table


def draw(split: data.Split, place: Path) -> None:
    """Writes a picture of the first examples of each class."""
    from dsnn.plots import save_png  # drawing takes a second to import
    from dsnn.plots.examples import examples

    x, y = split.test.x, np.asarray(split.test.y)
    single = y.ndim == 1 and np.issubdtype(y.dtype, np.integer)
    rows = np.concatenate([np.flatnonzero(y == k)[:DRAWN] for k in np.unique(y)]) if single else np.arange(DRAWN)
    rows = np.sort(rows[rows < len(y)])
    some: Any = x[rows]
    dense = some.toarray() if hasattr(some, "toarray") else np.asarray(some)
    place.parent.mkdir(parents=True, exist_ok=True)
    save_png(examples(dense, y[rows], split.class_names, split.temporal), place)
    console.print(f"a picture of it: {place}")


if __name__ == "__main__":
    sys.exit(main())
