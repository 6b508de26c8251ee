"""Looks at data before any training: ``python -m experiments.inspect data=NAME [option=value ...] [picture=FILE]``."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from dsnn import data
from dsnn.loading import check_trainable, open_data
from experiments import door, schema
from experiments.console import console

PICTURE = "picture="


def main(arguments: list[str] | None = None) -> int:
    """Prints shapes, classes, values and events of a data set and draws some of it; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if door.wants_help(given):
        console.print(__doc__)
        return 0
    picture = Path(next((a.removeprefix(PICTURE) for a in given if a.startswith(PICTURE)), "outputs/inspect.png"))
    overrides = [a for a in given if not a.startswith(PICTURE)]
    try:
        door.check(overrides)
        config = schema.compose(overrides)
        split = open_data(config)
        show(split)
        draw(split, picture)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    try:
        check_trainable(split, config)
        console.print("a run can learn this.")
    except ValueError as error:
        console.print(f"a run cannot learn this: {error}")
    return 0


def show(split: data.Split) -> None:
    """Prints what a split holds."""
    steps = data.steps(split)
    kind = f"{steps} steps of {data.input_shape(split)}" if steps else f"static {data.input_shape(split)}"
    console.print(f"{split.name}: {split.task}, {split.classes} classes, {kind}")
    table = Table("part", "examples", "x", "range", "mean", "zero", "binary")
    if steps:
        table.add_column("events a channel and step")
    for name in ("train", "val", "test"):
        part = getattr(split, name)
        table.add_row(name, *statistics(part, bool(steps)))
    console.print(table)
    if split.task != "regression":
        console.print(_balance(split))


def statistics(part: data.Arrays, temporal: bool) -> list[str]:
    """Returns the number of examples, shape, range, mean, share of zeros, whether binary, and event rate."""
    x: Any = part.x
    if not data.size(part):
        return ["0", "", "", "", "", "", *[""] * temporal]
    values = np.asarray(x.data if hasattr(x, "indptr") else x)
    cells = int(np.prod(x.shape))
    zero = 1 - np.count_nonzero(values) / cells
    binary = bool(np.isin(values, (0, 1)).all())
    low = min(float(values.min(initial=0)), 0.0) if hasattr(x, "indptr") else float(values.min())
    row = [f"{x.shape[0]}", f"{tuple(x.shape)}", f"{low:.4g} to {float(values.max(initial=low)):.4g}"]
    row += [f"{float(values.sum(dtype=np.float64)) / cells:.4g}", f"{zero:.1%}", "yes" if binary else "no"]
    return [*row, f"{(1 - zero):.4g}" if binary else "not spikes"] if temporal else row


def _balance(split: data.Split) -> Table:
    table = Table("class", "train", "val", "test", "share of train")
    targets = [np.asarray(getattr(split, p).y) for p in ("train", "val", "test")]
    if split.task == "multilabel":
        counts, total = [y.sum(0) for y in targets], max(len(targets[0]), 1)
    else:
        counts = [np.bincount(np.ravel(y), minlength=split.classes) for y in targets]
        total = max(counts[0].sum(), 1)
    for label in range(min(split.classes, 40)):
        name = split.class_names[label] if label < len(split.class_names) else str(label)
        share = counts[0][label] / total
        table.add_row(name, *(f"{c[label]}" for c in counts), f"{share:6.1%} {'█' * round(20 * share)}")
    return table


def draw(split: data.Split, place: Path) -> None:
    """Writes a picture of the first examples of each class."""
    from dsnn.plots import save_png  # drawing takes a second to import
    from dsnn.plots.examples import examples

    x: Any = split.test.x
    dense = x.toarray() if hasattr(x, "toarray") else np.asarray(x)
    place.parent.mkdir(parents=True, exist_ok=True)
    save_png(examples(dense, np.asarray(split.test.y), split.class_names, split.temporal), place)
    console.print(f"a picture of it: {place}")


if __name__ == "__main__":
    sys.exit(main())
