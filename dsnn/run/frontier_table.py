"""A frontier's standings on the screen: who took part, and what came of ours at each level of accuracy."""

from typing import Any

from rich.table import Table

from dsnn.report.frontier import corners_of, ratio_of
from dsnn.run.console import console


def show(result: dict[str, Any]) -> None:
    """Prints contenders with their most accurate and their cheapest choice, and the verdict at every level."""
    folds = f", {result['folds']} folds" if result.get("folds") else ""
    title = f"{result['data']}, {result['primary']}: {result['trials']} trials, seeds {result['seeds']}{folds}"
    table = Table(title=title, title_justify="left")
    for column in ("contender", "core-s a trial", "test accuracy and nJ of its choices"):
        table.add_column(column, overflow="fold")
    for name, one in result["contenders"].items():
        points = sorted(one["points"], key=lambda point: point["select"]["nj"])
        said = [f"{p['test']['accuracy']:.4f} at {p['test']['nj'][result['primary']]:.4g}" for p in points]
        seconds = f"{one['core_s_mean']:.0f}" if one["core_s"] else "–"
        table.add_row(name, seconds, "; ".join(said) or f"every trial failed: {one['failures'][-1]}")
    console.print(table)
    console.print(result["lead"], markup=False)
    if not result["meetings"]:
        return
    table = Table(title=f"{result['ours']} over the best rival at equal accuracy", title_justify="left")
    for column in ("level (select)", "best rival", "energy ratio, 95 %", "accuracy gained", "prices ± 20 %", "verdict"):
        table.add_column(column, overflow="fold")
    for met in result["meetings"]:
        rival = met["rivals"].get(met["best_rival"])
        if rival is None:
            table.add_row(f"{met['level']:.4f}", met["best_rival"], "", "", "", met["said"])
            continue
        gained = rival["gained"]
        table.add_row(
            f"{met['level']:.4f}",
            met["best_rival"],
            ratio_of(rival),
            f"{gained['value']:+.4f} ({gained['low']:+.4f} to {gained['high']:+.4f})",
            corners_of(rival),
            met["said"],
        )
    console.print(table)
