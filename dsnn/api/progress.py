"""A line that says how far learning is, in a terminal or a notebook."""

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def shown(epochs: Iterable[Any], total: int, progress: bool | None = None) -> Iterator[Any]:
    """Yields epochs, and shows on standard error how many are done, the loss of the last and the time that is left.

    Args:
        epochs: each with ``info.loss``.
        total: of them.
        progress: whether to show it; None does so on a terminal and in a notebook.
    """
    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter if progress is None else progress):
        yield from epochs
        return
    columns = TextColumn("learning"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[loss]}")
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=progress is None) as bar:
        task = bar.add_task("", total=total, loss="compiling")
        for epoch in epochs:
            bar.update(task, advance=1, loss=f"loss {float(epoch.info.loss.mean()):.3f}")
            yield epoch
