"""One page over many runs: a table that sorts, curves laid over each other, what energy buys, downloads."""

import base64
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dsnn import plots, rundir
from dsnn.report.page import draw, number, percent, render

HEADLINES = {
    "test/accuracy": "accuracy",
    "test/rmse": "RMSE",
    "test/nll": "NLL",
    "test/ece": "ECE",
    "gates/kept_fraction": "sites kept",
    "compute/steps_mean": "steps",
    "compute/speedup_realised": "speed-up",
    "time/train_s": "training s",
}
CURVES = ("val/accuracy", "val/nll", "train/loss")
_MOST_AXES = 8


class Run(NamedTuple):
    """What one run directory says.

    Args:
        name: Its path below the folder of runs.
        status: "done", "failed" or "unfinished".
        config: Its configuration by dotted key.
        metrics: Its metrics.
        history: Its evaluations.
    """

    name: str
    status: str
    config: dict[str, Any]
    metrics: dict[str, float | int | str]
    history: list[dict[str, Any]]


class Cell(NamedTuple):
    """A cell of the table: what it shows and what it sorts by."""

    text: str
    key: float | str
    link: str = ""


def write_runs_report(root: str | Path) -> Path:
    """Writes ``report.html`` over all runs below `root` (and ``figures/*.png``), and returns its path.

    Raises:
        RunDirError: There are no runs below `root`, or the page cannot be written.
    """
    root = Path(root)
    runs = read_runs(root)
    if not runs:
        raise rundir.RunDirError(f"there are no run directories below {root}; name the folder that holds them.")
    settings = varying(runs)
    energy = _energy_metric(runs)
    columns = [*settings, *[name for name in (*HEADLINES, energy) if name and _known(runs, name)]]
    figures = {
        name: draw(root, f"runs_{name}", caption, figure)
        for name, (caption, figure) in _figures(runs, settings, energy).items()
    }
    values = {
        "title": f"{len(runs)} runs",
        "where": root.resolve().name,
        "counts": _counts(runs),
        "headings": [("run", "run"), ("status", "status"), *[(_heading(name, columns), name) for name in columns]],
        "rows": [_row(root, run, columns) for run in runs],
        "seeds": over_seeds(runs, settings, [name for name in columns if name not in settings]),
        "figures": figures,
        "csv": base64.b64encode(to_csv(runs, settings).encode()).decode(),
    }
    return render("runs.html.j2", root / "report.html", values)


def read_runs(root: Path) -> list[Run]:
    """The runs below a folder, by name; a damaged one is told by its status and does not hide the others."""
    found = []
    for path in sorted(root.rglob("config.yaml")):
        directory = path.parent
        if any(part.startswith(".") or part == "wandb" for part in directory.relative_to(root).parts):
            continue
        name = directory.relative_to(root).as_posix()
        try:
            config = rundir.flat_config(rundir.read_config(directory))
            metrics, history = rundir.read_metrics(directory), rundir.read_history(directory)
        except rundir.RunDirError:
            found.append(Run(name, "damaged", {}, {}, []))
            continue
        status = "done" if rundir.is_done(directory) else "failed" if (directory / "FAILED").exists() else "unfinished"
        found.append(Run(name, status, config, metrics, history))
    return found


def varying(runs: Sequence[Run]) -> list[str]:
    """The settings in which the runs differ, `seed` last."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    differing = [key for key in keys if len({str(run.config.get(key)) for run in runs if run.config}) > 1]
    return sorted(differing, key=lambda key: key == "seed")


def over_seeds(
    runs: Sequence[Run], settings: Sequence[str], metrics: Sequence[str]
) -> dict[str, list[list[str]] | list[str]]:
    """Mean and standard deviation over seeds, a row per combination of the other settings; empty without seeds."""
    others = [key for key in settings if key != "seed"]
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        if run.status == "done":
            groups.setdefault(tuple(str(run.config.get(key)) for key in others), []).append(run)
    if "seed" not in settings or all(len(group) < 2 for group in groups.values()):
        return {}
    rows = []
    for key, group in groups.items():
        cells = [_mean_and_spread([run.metrics[name] for run in group if name in run.metrics]) for name in metrics]
        rows.append([*key, str(len(group)), *cells])
    columns = [*others, *metrics]
    named = [_heading(name, columns) for name in columns]
    return {"headings": [*named[: len(others)], "seeds", *named[len(others) :]], "rows": rows}


def to_csv(runs: Sequence[Run], settings: Sequence[str]) -> str:
    """All metrics and the settings that differ, a line per run."""
    metrics = sorted({name for run in runs for name in run.metrics})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", "status", *settings, *metrics])
    for run in runs:
        values = [run.config.get(key, "") for key in settings] + [run.metrics.get(name, "") for name in metrics]
        writer.writerow([_no_formula(value) for value in (run.name, run.status, *values)])
    return text.getvalue()


# --- The table


def _heading(name: str, columns: Sequence[str]) -> str:
    """A short name for a column: of a setting its last part, where that is enough to tell it from the others."""
    if name in HEADLINES:
        return HEADLINES[name]
    if name.startswith("energy/"):
        return f"nJ ({name.split('/')[1]})"
    tail = name.rsplit(".", 1)[-1]
    return tail if sum(other.rsplit(".", 1)[-1] == tail for other in columns) == 1 else name


def _row(root: Path, run: Run, columns: Sequence[str]) -> list[Cell]:
    page = f"{run.name}/report.html" if (root / run.name / "report.html").exists() else ""
    cells = [Cell(run.name, run.name, page), Cell(run.status, run.status)]
    for name in columns:
        value = run.metrics.get(name, run.config.get(name))
        if value is None or isinstance(value, bool | list):
            cells.append(Cell("–" if value is None else str(value), str(value)))
        else:
            cells.append(Cell(_shown(name, value), value if isinstance(value, int | float) else str(value)))
    return cells


def _shown(name: str, value: float | int | str) -> str:
    if name in ("test/accuracy", "gates/kept_fraction") and isinstance(value, int | float):
        return percent(value)
    return number(value)


def _counts(runs: Sequence[Run]) -> str:
    counts = {
        status: sum(run.status == status for run in runs) for status in ("done", "failed", "unfinished", "damaged")
    }
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def _mean_and_spread(values: Sequence[float | int | str]) -> str:
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    if not numbers:
        return "–"
    if len(numbers) < 2:
        return f"{numbers[0]:.4g}"
    mean, spread = float(np.mean(numbers)), float(np.std(numbers, ddof=1))
    return f"{mean:.4g} ± {spread if spread > 1e-12 * abs(mean) else 0.0:.2g}"


def _no_formula(value: Any) -> Any:
    # A spreadsheet would run a text that begins like a formula.
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def _known(runs: Sequence[Run], name: str) -> bool:
    return any(name in run.metrics for run in runs)


def _energy_metric(runs: Sequence[Run]) -> str:
    """The energy that most runs know, of the runs' own accounting."""
    names = [name for run in runs for name in run.metrics if name.startswith("energy/") and name.endswith("/snn_nj")]
    own = [name for name in names if name.count("/") == 2]
    return max(sorted(set(own)), key=own.count) if own else ""


# --- The figures


def _figures(runs: Sequence[Run], settings: Sequence[str], energy: str) -> dict[str, tuple[str, Callable[[], Figure]]]:
    drawings: dict[str, tuple[str, Callable[[], Figure]]] = {}
    complete = [run for run in runs if {"test/accuracy", energy} <= run.metrics.keys()]
    if len(complete) > 1:
        drawings["front"] = (
            "What energy buys. Energies are modelled from counted operations.",
            lambda: plots.accuracy_energy(
                np.array([float(run.metrics[energy]) for run in complete]),
                np.array([float(run.metrics["test/accuracy"]) for run in complete]),
                [run.name for run in complete],
                energy.split("/")[1],
            ),
        )
    curve = next((name for name in CURVES if any(name in record for run in runs for record in run.history)), "")
    if curve:
        histories = {run.name: run.history for run in runs}
        drawings["curves"] = ("The course of training.", lambda: plots.overlaid_curves(histories, curve))
    if len(complete) > 2:
        axes = _axes(complete, settings, energy)
        drawings["parallel"] = (
            "Every line is a run, from its settings (left) to its results (right); the most accurate are blue.",
            lambda: plots.parallel_coordinates(axes, "test/accuracy"),
        )
    return drawings


def _axes(runs: Sequence[Run], settings: Sequence[str], energy: str) -> Mapping[str, list[float | str]]:
    """The settings (without the seed) and the results in which these runs differ, the accuracy last."""
    names = [name for name in ("gates/kept_fraction", energy, "test/ece") if all(name in run.metrics for run in runs)]
    results: dict[str, list[float | str]]
    results = {name: [float(run.metrics[name]) for run in runs] for name in (*names, "test/accuracy")}
    results = {name: values for name, values in results.items() if name == "test/accuracy" or len(set(values)) > 1}
    columns: dict[str, list[float | str]] = {}
    for key in [key for key in settings if key != "seed"][: _MOST_AXES - len(results)]:
        values = [run.config.get(key) for run in runs]
        plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        columns[key] = [float(v) for v in values if v is not None] if plain else [str(value) for value in values]
    return {**columns, **results}
