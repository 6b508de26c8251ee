"""What a person sees: one bar while it learns, plain lines where there is no terminal, a short table at the end."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

# a log has no width of its own, and tables in 80 columns are hard to read
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)


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
    return ", ".join(parts)


def final_table(metrics: Mapping[str, Any], directory: Path, report: Path | None, profile: str) -> None:
    """Prints what was learned, what it costs, and where everything is."""
    table = Table(show_header=False, title=f"{metrics['experiment']}", title_justify="left")
    table.add_column(style="bold")
    table.add_column()

    def row(name: str, text: str, *keys: str) -> None:
        if all(key in metrics for key in keys):
            table.add_row(name, text.format(*(metrics[key] for key in keys)))

    row("test accuracy", "{:.4f}   (NLL {:.3f}, ECE {:.3f}, Brier {:.3f})", *_test("accuracy", "nll", "ece", "brier"))
    row("all labels right", "{:.1%}   (F1 over labels and examples {:.3f})", *_test("exact_match", "f1_micro"))
    row(
        "test error",
        "{:.3f} (root mean square, in standard deviations); 90 % intervals hold {:.1%}",
        *_test("rmse", "coverage_90"),
    )
    row("computation kept", "{:.0f} of {:.0f} sites ({:.0%})", *_gates("kept", "total", "kept_fraction"))
    row("steps", "{:.2f} of {:.0f}", "compute/steps_mean", "compute/steps_total")
    row("wall time", "{:.1f} times faster than the full network (measured)", "compute/speedup_realised")
    keys = [f"energy/{profile}/{part}" for part in ("snn_nj", "ungated_nj", "ann_nj", "ratio")]
    row("energy (modelled)", "{:.1f} nJ; ungated {:.1f} nJ; dense network {:.1f} nJ, {:.1f} times as much", *keys)
    row("spike rate", "{:.3f} a step; at {:.3f} a matched quantised network costs the same", *_rates(profile))
    row("carbon", "{:.4f} g CO2e ({})", "carbon/co2e_g", "carbon/source")
    row("time", "{:.0f} s learning, {:.0f} s in all", "time/train_s", "time/total_s")
    table.add_row("files", str(directory))
    if report is not None:
        table.add_row("report", str(report))
    console.print(table)


def sweep_table(runs: list[dict[str, Any]]) -> None:
    """Prints a row per job of a sweep, with what tells it from the others, and then why each that failed did."""
    words = [run["overrides"].split(" ") for run in runs]
    common = set.intersection(*map(set, words)) if len(runs) > 1 else set()
    reasons = []
    table = Table(title=f"{len(runs)} runs", title_justify="left")
    for column in ("run", "overrides", "accuracy", "ECE", "kept", "steps", "energy nJ", "status"):
        table.add_column(column, overflow="fold")
    for run in runs:
        m = run.get("metrics", {})
        energy = next((v for k, v in m.items() if k.endswith("/snn_nj") and k.count("/") == 2), None)
        cells = [m.get("test/accuracy"), m.get("test/ece"), m.get("gates/kept_fraction"), m.get("compute/steps_mean")]
        shown = ["" if c is None else f"{c:.4g}" for c in (*cells, energy)]
        own = " ".join(word for word in run["overrides"].split(" ") if word not in common)
        table.add_row(Path(run["dir"]).name, own, *shown, run["status"].split(":")[0])
        if run["status"] != "done":
            reasons.append(f"{own or 'the job'} {run['status']}")
    console.print(table)
    for reason in reasons:
        console.print(reason, markup=False)


def _rates(profile: str) -> list[str]:
    return ["compute/spike_rate", f"energy/{profile}/break_even_rate"]


def _test(*names: str) -> list[str]:
    return [f"test/{name}" for name in names]


def _gates(*names: str) -> list[str]:
    return [f"gates/{name}" for name in names]
