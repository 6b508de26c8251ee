"""What a person sees: one bar while it learns, plain lines where there is no terminal, a short table at the end."""

import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from dsnn import store
from dsnn.plots import wording

for stream in (sys.stdout, sys.stderr):
    # A terminal of another encoding shows ? for what it cannot say, and a run does not end for a superscript.
    if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
        stream.reconfigure(errors="replace")

# a log has no width of its own, and tables in 80 columns are hard to read
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)


def at_once(said: str) -> None:
    """Says a line from a handler of a signal.

    It goes past the console and its stream, which the signal may have met halfway through a line: rich would write that
    line twice, and a buffered stream refuses to be entered again.
    """
    try:
        os.write(sys.stdout.fileno(), f"{said}\n".encode())
    except (OSError, ValueError):  # no file behind it: a notebook, a test
        console.print(said)


class Live:
    """Progress over epochs: a bar on a terminal, a line per validation elsewhere."""

    def __init__(self, epochs: int, done: int):
        self._epochs = epochs
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} epochs"),
                TextColumn("{task.fields[state]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task("learning", total=epochs, completed=done, state="compiling")

    def __enter__(self) -> "Live":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def epoch(self, number: int, loss: float, last: Mapping[str, float]) -> None:
        """Shows one epoch done, with the latest validation."""
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=number, state=_said(loss, last))
        elif not last and number == 1:  # the first sign that it learns
            console.print(f"epoch {number}/{self._epochs}: loss {loss:.3f}")

    def validation(self, number: int, record: Mapping[str, float]) -> None:
        """Shows a validation where there is no bar."""
        if not self._bar:
            console.print(f"epoch {number}/{self._epochs}: {_said(record['train/loss'], record)}")


@contextmanager
def batches(what: str) -> Iterator[Callable[[int, int], None]]:
    """Gives ``progress(done, total)``: a bar over batches on a terminal, nothing elsewhere."""
    if not console.is_terminal:
        yield lambda done, total: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _said(loss: float, record: Mapping[str, float]) -> str:
    parts = [f"loss {loss:.3f}"]
    for key, name, form in (
        ("val/accuracy", "validation accuracy", "{:.3f}"),
        ("val/rmse", "validation error", "{:.3f}"),
        ("gates/kept_fraction", "kept units", "{:.0%}"),
        ("compute/steps_mean", "mean steps", "{:.1f}"),
    ):
        if key in record:
            parts.append(f"{name} {form.format(record[key])}")
    scored = [key for key in record if key.startswith("val/")]
    if scored and not {"val/accuracy", "val/rmse"} & record.keys():  # of a task of one's own
        parts.insert(1, f"validation {scored[0].removeprefix('val/')} {record[scored[0]]:.4g}")
    return ", ".join(parts)


def final_table(metrics: Mapping[str, Any], directory: Path, report: Path | None, profile: str) -> None:
    """Prints what was learned, what it costs beside its rivals, and where everything is.

    The predictive and the deployed network are two networks: each has its own row.
    """
    config = store.read_config(directory) if (directory / "config.yaml").exists() else {}
    path = config.get("data", {}).get("path")
    title = f"{metrics['experiment']}: {Path(path).name}" if path else str(metrics["experiment"])
    table = Table(show_header=False, title=escape(title), title_justify="left")
    table.add_column(style="bold", overflow="fold", max_width=40)
    table.add_column(overflow="fold")

    def row(name: str, parts: list[str]) -> None:
        if parts:
            table.add_row(name, ", ".join(parts))

    belief = wording.belief(config, metrics)
    own = {part: _own_forms(config, metrics, part) for part in ("test", "deployed")}
    if belief.noun != wording.CONVERTED:
        row(belief.predictive.replace(", ", ",\n", 1), _said_of(metrics, {**own["test"], **PREDICTIVE}))
    row(
        wording.CONVERTED if belief.noun == wording.CONVERTED else wording.DEPLOYED,
        _said_of(metrics, {**own["deployed"], **DEPLOYED, f"energy/{profile}/snn_nj": "{:.1f} nJ (modelled)"}),
    )
    for name, prefix in (("deterministic twin", "twin"), (str(metrics.get("linear/name")), "linear")):
        row(name, _said_of(metrics, {f"{prefix}/{key}": form for key, form in PREDICTIVE.items()}))
    if metrics.get("guard/worse_than"):
        row("guard", [f"worse than {metrics['guard/worse_than']} on the selecting part, beyond chance"])
    row("computation kept", _said_of(metrics, {"gates/kept_fraction": "{:.0%} of the sites"}))
    row("precision", _said_of(metrics, {"bits/mean": "{:.1f} bits per weight, on integers"}))
    row("carbon", _said_of(metrics, {"carbon/co2e_g": "{:.4f} g CO2e", "carbon/source": "{}"}))
    row("time", _said_of(metrics, {"time/train_s": "{:.0f} s learning", "time/total_s": "{:.0f} s in all"}))
    table.add_row("files", str(directory))
    if report is not None:
        table.add_row("report", str(report))
    console.print(table)
    for said in (wording.degenerate(config, metrics), wording.budget(config, metrics)):
        if said:
            console.print(said, markup=False)
    rivals_table(metrics, profile)


PREDICTIVE = {
    "test/accuracy": "accuracy {:.4f}",
    "test/exact_match": "all labels right {:.1%}",
    "test/f1_micro": "F1 over labels and examples {:.3f}",
    "test/rmse": "error {:.4g} (root mean square)",
    "test/r2": "R² {:.3f}",
    "test/coverage_90": "90 % intervals hold {:.1%}",
    "test/nll": "NLL {:.3f}",
    "test/ece": "ECE {:.3f}",
    "test/brier": "Brier {:.3f}",
    "compute/steps_mean": "steps {:.2f}",
}
"""What is said of the predictive."""

DEPLOYED = {
    "deployed/accuracy": "accuracy {:.4f}",
    "deployed/rmse": "error {:.4g}",
    "deployed/r2": "R² {:.3f}",
    "deployed/nll": "NLL {:.3f}",
    "deployed/ece": "ECE {:.3f}",
    "deployed/steps_mean": "steps {:.2f}",
    "compute/spike_rate": "{:.3f} spikes per input and step",
    "compute/events_per_inference": "{:.4g} spikes an inference",
    "compute/speedup_realised": "{:.1f} times as fast as all sites and steps (measured)",
}
"""What is said of the network that is deployed."""


def _own_forms(config: Mapping[str, Any], metrics: Mapping[str, Any], part: str) -> dict[str, str]:
    """Returns how scores of a task of one's own are said, where the house has no words for them."""
    return {name: f"{label} {{:.4g}}" for name, label in wording.own_scores(config, metrics, part).items()}


def _said_of(metrics: Mapping[str, Any], forms: Mapping[str, str]) -> list[str]:
    total = f" of {metrics['compute/steps_total']:.0f}" if "compute/steps_total" in metrics else ""
    known = {name: form.format(metrics[name]) for name, form in forms.items() if name in metrics}
    return [f"{said}{total}" if name.endswith("/steps_mean") else said for name, said in known.items()]


def rivals_table(metrics: Mapping[str, Any], profile: str) -> None:
    """Prints modelled energies of the deployed network and of every rival, and which of them are cheaper."""
    costs = {name: f"energy/{profile}/{name}" for name in ("updates", "memory")}
    costs = {name: prefix for name, prefix in costs.items() if f"{prefix}/snn_nj" in metrics}
    if not costs:
        return
    table = Table(title=f"energy, nJ per inference (modelled, {profile})", title_justify="left")
    table.add_column("", overflow="fold")
    for accounting in costs:
        table.add_column(accounting, justify="right")
    table.add_column("accuracy", overflow="fold")
    for key, label in wording.OURS.items():
        own = metrics.get("deployed/accuracy") if key == "snn_nj" else None
        cells = [_nj(metrics.get(f"{prefix}/{key}")) for prefix in costs.values()]
        table.add_row(label, *cells, "" if own is None else f"{own:.4f}", style="bold" if key == "snn_nj" else None)
    cheaper: dict[str, list[str]] = {}
    for name in wording.RIVALS:
        if not any(f"{prefix}/rival/{name}_nj" in metrics for prefix in costs.values()):
            continue
        cells = []
        for accounting, prefix in costs.items():
            theirs, ours = metrics[f"{prefix}/rival/{name}_nj"], metrics[f"{prefix}/snn_nj"]
            if theirs < ours:
                cheaper.setdefault(accounting, []).append(wording.rival(name, metrics))
            cells.append(_nj(theirs) + (f" ({theirs / ours:.3g} x)" if ours else ""))
        table.add_row(wording.rival(name, metrics), *cells, _worth(name, metrics))
    console.print(table)
    for accounting, names in cheaper.items():
        console.print(f"cheaper than this network ({accounting}): {'; '.join(names)}", markup=False)
    even = [wording.even(metrics, profile, name) for name in costs]
    for sentence in (*even, wording.assumption(metrics), wording.unpriced(metrics)):
        if sentence:
            console.print(sentence, markup=False)


def _nj(nanojoules: float | None) -> str:
    return "-" if nanojoules is None else f"{nanojoules:.4g}"


def _worth(name: str, metrics: Mapping[str, Any]) -> str:
    if not wording.is_trained(name, metrics):
        return wording.UNTRAINED
    accuracy = metrics.get(f"rival/{name}/accuracy")
    return "trained" if accuracy is None else f"{accuracy:.4f}"


def sweep_table(runs: list[dict[str, Any]]) -> None:
    """Prints a row per job of a sweep, with what tells it from the others, and then why each that failed did.

    What the predictives are worth is another table than what the deployed networks are worth and cost.
    """
    words = [run["overrides"].split(" ") for run in runs]
    common = set.intersection(*map(set, words)) if len(runs) > 1 else set()
    own = [" ".join(word for word in run["overrides"].split(" ") if word not in common) for run in runs]
    for title, columns in SWEPT.items():
        table = Table(title=f"{len(runs)} runs: {title}", title_justify="left")
        for column in ("run", "overrides", *columns, "status"):
            table.add_column(column, overflow="fold")
        for run, overrides in zip(runs, own, strict=True):
            cells = [_found(run.get("metrics", {}), name) for name in columns.values()]
            shown = [f"{cell:.4g}" if isinstance(cell, int | float) else "" for cell in cells]
            row = (Path(run["dir"]).name, overrides, *shown, run["status"].split(":")[0])
            table.add_row(*(escape(word) for word in row))
        console.print(table)
    for run, overrides in zip(runs, own, strict=True):
        if run["status"] != "done":
            console.print(f"{overrides or 'the job'} {run['status']}", markup=False)


SWEPT = {
    "predictives": {"accuracy": "test/accuracy", "NLL": "test/nll", "ECE": "test/ece", "steps": "compute/steps_mean"},
    "deployed networks": {
        "accuracy": "deployed/accuracy",
        "NLL": "deployed/nll",
        "ECE": "deployed/ece",
        "kept": "gates/kept_fraction",
        "steps": "deployed/steps_mean",
        "energy nJ": "/snn_nj",
        "cheapest rival nJ": "/rival/",
    },
}
"""Columns of the tables of a sweep, and the metrics in them."""


def _found(metrics: Mapping[str, Any], name: str) -> float | None:
    """A metric; of energies, those in the run's own accounting on its first profile."""
    if not name.startswith("/"):
        return metrics.get(name)
    ours = next((key for key in metrics if key.endswith("/snn_nj") and key.count("/") == 2), None)
    if ours is None or name == "/snn_nj":
        return None if ours is None else metrics[ours]
    theirs = f"{ours.removesuffix('snn_nj')}rival/"
    return min((v for k, v in metrics.items() if k.startswith(theirs) and k.endswith("_nj")), default=None)
