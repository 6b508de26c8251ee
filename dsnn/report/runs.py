"""One page over many runs: a table that sorts, curves laid over each other, what energy buys, downloads.

Table, figures and downloads are of the same rows, read once: they are one file.
"""

import base64
import csv
import io
import os
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dsnn import plots, store
from dsnn.report import files
from dsnn.report.page import draw, number, percent, render

PREDICTIVE = {
    "test/accuracy": "accuracy",
    "test/rmse": "RMSE",
    "test/nll": "NLL",
    "test/ece": "ECE",
    "compute/steps_mean": "steps",
}
"""What is shown of the predictives."""

DEPLOYED = {
    "deployed/accuracy": "accuracy",
    "deployed/nll": "NLL",
    "deployed/ece": "ECE",
    "gates/kept_fraction": "sites kept",
    "deployed/steps_mean": "steps",
    "compute/speedup_realised": "speed-up",
}
"""What is shown of the deployed networks, before their energy and the rivals'."""

HEADLINES = PREDICTIVE | DEPLOYED | {"time/train_s": "training s"}
SHARES = ("test/accuracy", "deployed/accuracy", "gates/kept_fraction")
"""Metrics that are shown in percent."""

ACCURACY = "deployed/accuracy"
"""What is held against energy: the accuracy of the network that the energy is of."""
CURVES = ("val/accuracy", "val/nll", "train/loss")
_MOST_AXES = 8


class Run(NamedTuple):
    """What one run directory says.

    Args:
        name: Its path below the folder of runs.
        status: "done", "failed", "unfinished" or "damaged".
        config: Its configuration by dotted key.
        metrics: Its metrics.
        history: Its evaluations.
        reason: Why it failed or what is damaged, in a line.
        link: The address of its page, relative to the folder of runs; empty where it has none.
    """

    name: str
    status: str
    config: dict[str, Any]
    metrics: dict[str, float | int | str]
    history: list[dict[str, Any]]
    reason: str = ""
    link: str = ""


class Cell(NamedTuple):
    """A cell of the table: what it shows and what it sorts by."""

    text: str
    key: float | str
    link: str = ""
    status: str = ""


class Table(NamedTuple):
    """A table of runs: what it is of, its headings as (short, full), and its rows."""

    title: str
    headings: list[tuple[str, str]]
    rows: list[list[Cell]]


class Means(NamedTuple):
    """A table of means over seeds."""

    title: str
    headings: list[str]
    rows: list[list[str]]


def write_runs_report(root: str | Path) -> Path:
    """Writes ``report.html`` over all runs below `root` (and ``figures/*.png``), and returns its path.

    Raises:
        RunDirError: There are no runs below `root`, or the page cannot be written.
    """
    root = Path(root)
    runs = read_runs(root)
    if not runs:
        raise store.RunDirError(f"there are no run directories below {root}; name the folder that holds them.")
    settings = varying(runs)
    energy = _energy_metric(runs)
    parts = _parts(runs, energy)
    figures = {
        name: draw(root, f"runs_{name}", caption, figure) for name, (caption, figure) in _figures(runs, energy).items()
    }
    among = varying([run for run in runs if run.status == "done"])
    means = [(title, over_seeds(runs, among, metrics)) for title, metrics in parts.items()]
    values = {
        "title": f"{len(runs)} runs",
        "where": root.resolve().name,
        "counts": _counts(runs),
        "tables": [_table(title, runs, [*settings, *metrics]) for title, metrics in parts.items()],
        "seeds": [Means(title, found["headings"], found["rows"]) for title, found in means if found],
        "figures": figures,
        "csv": base64.b64encode(to_csv(runs, settings).encode("utf-8", "replace")).decode(),
    }
    return render("runs.html.j2", root / "report.html", values)


def read_runs(root: Path) -> list[Run]:
    """The runs below a folder, by name; a damaged one is told by its status and does not hide the others."""
    found = {path.parent for name in ("config.yaml", "DONE") for path in root.rglob(name)}
    return [_read(root, directory) for directory in sorted(found) if not _is_hidden(directory.relative_to(root))]


def _is_hidden(place: Path) -> bool:
    return any(part.startswith(".") or part == "wandb" for part in place.parts)


def _read(root: Path, directory: Path) -> Run:
    place = directory.relative_to(root)
    name = os.fsencode(place.as_posix()).decode("utf-8", "replace")  # names of files need not be text
    page = (directory / "report.html").exists()
    link = urllib.parse.quote(os.fsencode(place / "report.html")) if page else ""
    try:
        config = store.flat_config(files.config(directory))
        metrics, history = files.metrics(directory), files.history(directory)
        done = (directory / store.DONE).exists()
        for missing in ("config.yaml", *["metrics.json"] * done):
            if not (directory / missing).exists():
                raise store.RunDirError(f"{missing} is missing; put back a copy of it, or run the command again.")
        if done:
            store.whole(directory)
    except store.RunDirError as error:
        return Run(name, "damaged", {}, {}, [], str(error).replace(f"{directory}/", ""), link)
    if done:
        return Run(name, "done", config, metrics, history, "", link)
    if (directory / "FAILED").exists():
        return Run(name, "failed", config, metrics, history, files.first_line(directory / "FAILED"), link)
    return Run(name, "unfinished", config, metrics, history, "", link)


def varying(runs: Sequence[Run]) -> list[str]:
    """The settings in which the runs differ, `seed` last."""
    keys = dict.fromkeys(key for run in runs for key in run.config)
    differing = [key for key in keys if len({str(run.config.get(key)) for run in runs if run.config}) > 1]
    return sorted(differing, key=lambda key: key == "seed")


def over_seeds(runs: Sequence[Run], settings: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
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
        cells = [_mean_and_spread(name, [value for run in group if (value := _value(run, name)) is not None])
                 for name in metrics]  # fmt: skip
        rows.append([*key, str(len(group)), *cells])
    columns = [*others, *metrics]
    named = [_heading(name, columns) for name in columns]
    return {"headings": [*named[: len(others)], "seeds", *named[len(others) :]], "rows": rows}


def to_csv(runs: Sequence[Run], settings: Sequence[str]) -> str:
    """All metrics and the settings that differ, a line per run."""
    metrics = sorted({name for run in runs for name in run.metrics})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_no_formula(name) for name in ("run", "status", *settings, *metrics)])
    for run in runs:
        values = [run.config.get(key, "") for key in settings] + [run.metrics.get(name, "") for name in metrics]
        writer.writerow([_no_formula(value) for value in (run.name, run.status, *values)])
    return text.getvalue()


# --- The table


def _parts(runs: Sequence[Run], energy: str) -> dict[str, list[str]]:
    """Which metrics are shown of the deployed networks and of the predictives, as far as they are known."""
    deployed = [*DEPLOYED, energy, CHEAPEST if energy else ""]
    parts = {"deployed networks": deployed, "predictives": [*PREDICTIVE, "time/train_s"]}
    known = {title: [name for name in names if name and _known(runs, name)] for title, names in parts.items()}
    return {title: names for title, names in known.items() if names} or {"runs": []}


def _table(title: str, runs: Sequence[Run], columns: Sequence[str]) -> Table:
    headings = [("run", "run"), ("status", "status"), *[(_heading(name, columns), name) for name in columns]]
    return Table(title, headings, [_row(run, columns) for run in runs])


CHEAPEST = "energy/cheapest rival"
"""What stands beside the energy: the least of the rivals' in the same accounting, priced and mostly not trained."""


def _value(run: Run, name: str) -> float | int | str | None:
    """A metric of a run, or the energy of its cheapest rival; a converted network has no predictive."""
    if name in PREDICTIVE and run.config.get("learner") == "convert":
        return None
    if name != CHEAPEST:
        return run.metrics.get(name)
    prefix = f"{_energy_metric([run]).removesuffix('snn_nj')}rival/"
    energies = [v for key, v in run.metrics.items() if key.startswith(prefix) and key.endswith("_nj")]
    return min((float(value) for value in energies), default=None)


def _heading(name: str, columns: Sequence[str]) -> str:
    """A short name for a column: of a setting its last part, where that is enough to tell it from the others."""
    if name in HEADLINES:
        return HEADLINES[name]
    if name == CHEAPEST:
        return "cheapest rival, nJ"
    if name.startswith("energy/"):
        return f"nJ ({name.split('/')[1]})"
    tail = name.rsplit(".", 1)[-1]
    return tail if sum(other.rsplit(".", 1)[-1] == tail for other in columns) == 1 else name


def _row(run: Run, columns: Sequence[str]) -> list[Cell]:
    status = f"{run.status}: {run.reason}" if run.reason else run.status
    cells = [Cell(run.name, run.name, run.link), Cell(status, status, status=run.status)]
    for name in columns:
        value = _value(run, name)
        value = run.config.get(name) if value is None else value
        if value is None or isinstance(value, bool | list):
            cells.append(Cell("–" if value is None else str(value), str(value)))
        else:
            cells.append(Cell(_shown(name, value), value if isinstance(value, int | float) else str(value)))
    return cells


def _shown(name: str, value: float | int | str) -> str:
    if name in SHARES and isinstance(value, int | float):
        return percent(value)
    return number(value)


def _counts(runs: Sequence[Run]) -> str:
    counts = {
        status: sum(run.status == status for run in runs) for status in ("done", "failed", "unfinished", "damaged")
    }
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)


def _mean_and_spread(name: str, values: Sequence[float | int | str]) -> str:
    """The mean and the standard deviation in the unit of the table of runs; no deviation where nothing deviates."""
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    if not numbers:
        return "–"
    with np.errstate(over="ignore", invalid="ignore"):
        mean, spread = float(np.mean(numbers)), float(np.std(numbers, ddof=1)) if len(numbers) > 1 else 0.0
    if spread <= 1e-12 * abs(mean):
        return _shown(name, mean)
    if name in SHARES:
        return f"{100 * mean:.1f} ± {percent(spread)}"
    return f"{number(mean)} ± {spread:.2g}"


def _no_formula(value: Any) -> Any:
    """A cell that a spreadsheet shows and does not run: a text that begins like a formula gets a quote before it.

    So OWASP advises under CSV Injection. Negative numbers stay as they are, also as texts.
    """
    text = str(value)
    if isinstance(value, int | float) or (text[:1] == "-" and _is_number(text)):
        return value
    return f"'{text}" if text[:1] in _CONTROLS or text.lstrip()[:1] in _FORMULAS else value


_FORMULAS = tuple("=+-@＝＋－＠")  # some spreadsheets take the wide forms for the others
_CONTROLS = tuple("\t\r\n")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()


def _known(runs: Sequence[Run], name: str) -> bool:
    return any(_value(run, name) is not None for run in runs)


def _energy_metric(runs: Sequence[Run]) -> str:
    """The energy that most runs know, of the runs' own accounting."""
    names = [name for run in runs for name in run.metrics if name.startswith("energy/") and name.endswith("/snn_nj")]
    own = [name for name in names if name.count("/") == 2]
    return max(sorted(set(own)), key=own.count) if own else ""


# --- The figures


def _figures(runs: Sequence[Run], energy: str) -> dict[str, tuple[str, Callable[[], Figure]]]:
    drawings: dict[str, tuple[str, Callable[[], Figure]]] = {}
    complete = [run for run in runs if {ACCURACY, energy} <= run.metrics.keys()]
    settings = varying(complete)
    if len(complete) > 1:
        drawings["front"] = (
            "What energy buys, of the deployed networks. Energies are modelled from counted operations; the front is "
            "that of configurations, each at the mean of its seeds.",
            lambda: plots.accuracy_energy(
                np.array([float(run.metrics[energy]) for run in complete]),
                np.array([float(run.metrics[ACCURACY]) for run in complete]),
                configurations(complete, settings),
                energy.split("/")[1],
            ),
        )
    curve = next((name for name in CURVES if any(name in record for run in runs for record in run.history)), "")
    if curve:
        histories = {run.name: run.history for run in runs}
        drawings["curves"] = ("The course of training.", lambda: plots.overlaid_curves(histories, curve))
    if len(complete) > 2:
        drawings["parallel"] = (
            "Every line is a run, from its settings (left) to its results (right); the most accurate are blue.",
            lambda: plots.parallel_coordinates(_axes(complete, settings, energy), ACCURACY),
        )
    return drawings


def configurations(runs: Sequence[Run], settings: Sequence[str]) -> list[str]:
    """The name of each run's configuration, the same for runs that differ in their seed alone.

    A configuration of one run is called what the run is called, others what their settings are.
    """
    others = [key for key in settings if key != "seed"]
    own = [tuple(str(run.config.get(key)) for key in others) for run in runs]
    names = []
    for run, key in zip(runs, own, strict=True):
        said = ", ".join(f"{_heading(name, others)} {value}" for name, value in zip(others, key, strict=True))
        names.append(run.name if own.count(key) == 1 else said or f"{own.count(key)} seeds")
    return names


def _axes(runs: Sequence[Run], settings: Sequence[str], energy: str) -> Mapping[str, list[float | str]]:
    """The settings (without the seed) and the results in which these runs differ, the accuracy last."""
    shown = ("gates/kept_fraction", energy, "deployed/ece")
    names = [name for name in shown if all(name in run.metrics for run in runs)]
    results: dict[str, list[float | str]]
    results = {name: [float(run.metrics[name]) for run in runs] for name in (*names, ACCURACY)}
    results = {name: values for name, values in results.items() if name == ACCURACY or len(set(values)) > 1}
    columns: dict[str, list[float | str]] = {}
    for key in [key for key in settings if key != "seed"][: _MOST_AXES - len(results)]:
        values = [run.config.get(key) for run in runs]
        plain = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        columns[key] = [float(v) for v in values if v is not None] if plain else [str(value) for value in values]
    return {**columns, **results}
