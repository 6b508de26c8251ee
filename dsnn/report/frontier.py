"""A page over a frontier: who won at equal accuracy, accuracy over energy, who took part, and how it was measured."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dsnn import plots
from dsnn.report.page import Picture, draw, energy, percent, render

Result = Mapping[str, Any]


class Row(NamedTuple):
    """Cells of a table, the first of them a heading; ``tone`` marks a row that speaks against ours."""

    head: str
    cells: list[str]
    tone: str = ""


def write_frontier_report(folder: str | Path, result: Result) -> Path:
    """Writes ``report.html`` (and ``figures/*.png``) into the folder of a frontier, and returns its path.

    Args:
        folder: of the frontier.
        result: what its ``frontier.json`` holds.

    Raises:
        RunDirError: the page cannot be written.
    """
    folder = Path(folder)
    values = {
        "title": f"{result['data']}: accuracy over energy",
        "lead": result["lead"],
        "facts": _facts(result),
        "verdicts": [_verdict(met) for met in result["meetings"]],
        "rivals": [(percent(met["level"]), _rivals(met)) for met in result["meetings"]],
        "pictures": _pictures(folder, result),
        "contenders": [_contender(result, name) for name in result["contenders"]],
        "keys": result["keys"],
        "energies": _energies(result),
    }
    return render("frontier.html.j2", folder / "report.html", values)


def _facts(result: Result) -> str:
    seeds = ", ".join(map(str, result["seeds"]))
    networks = f"seeds {seeds}, {result['folds']} folds" if result.get("folds") else f"seeds {seeds}"
    return (
        f"{result['trials']} trials a contender, {networks}; {result['test_examples']} test examples; equal means "
        f"within {percent(result['tolerance'])}; energies are modelled, {result['primary']} decides."
    )


def ratio_of(rival: Mapping[str, Any]) -> str:
    """Returns the ratio of energies with its interval, or who spends nothing."""
    found = rival["ratio"]
    if found is None:
        return f"{' and '.join(rival['free'])} spend{'s' * (len(rival['free']) == 1)} nothing"
    return f"{found['value']:.3g} ({found['low']:.3g} to {found['high']:.3g})"


def corners_of(rival: Mapping[str, Any]) -> str:
    """Returns the ratios at the ends of all prices."""
    return " to ".join(f"{end:.3g}" for end in rival["corners"] or ())


def _points_gained(found: Mapping[str, float]) -> str:
    return f"{100 * found['value']:+.2f} ({100 * found['low']:+.2f} to {100 * found['high']:+.2f})"


def _verdict(met: Mapping[str, Any]) -> Row:
    rival = met["rivals"].get(met["best_rival"])
    against = "cheaper" if met["verdict"] == "loss" or met["ours"] is None else ""
    if rival is None:
        return Row(percent(met["level"]), [met["best_rival"] or "–", "–", "–", "–", met["said"]], against)
    corners = corners_of(rival) or "–"
    cells = [met["best_rival"], ratio_of(rival), _points_gained(rival["gained"]), corners, met["said"]]
    return Row(percent(met["level"]), cells, against)


def _rivals(met: Mapping[str, Any]) -> list[Row]:
    return [
        Row(
            name,
            [ratio_of(one), _points_gained(one["gained"]), percent(one["test"]), one["said"]],
            "cheaper" if one["verdict"] == "loss" else "",
        )
        for name, one in sorted(met["rivals"].items(), key=lambda item: -_dearness(item[1]))
    ]


def _dearness(rival: Mapping[str, Any]) -> float:
    return float("inf") if rival["ratio"] is None else rival["ratio"]["value"]


def _contender(result: Result, name: str) -> Row:
    one = result["contenders"][name]
    points = sorted(one["points"], key=lambda point: point["select"]["nj"])
    spent = [
        f"{percent(point['test']['accuracy'])} at {energy(point['test']['nj'][result['primary']])}" for point in points
    ]
    mean = one["core_s_mean"]
    failed = f"every trial failed: {one['failures'][-1]}" if one["failures"] else ""
    slow = " (less than half of ours)" if 0 < mean < 0.5 * _ours_s(result) else ""
    return Row(name, [one["about"], one["machine"], f"{mean:.0f}{slow}", "; ".join(spent) or failed])


def _ours_s(result: Result) -> float:
    return float(result["contenders"].get(result["ours"], {}).get("core_s_mean", 0.0))


def _energies(result: Result) -> list[Row]:
    """Returns each contender's most accurate choice in every profile and accounting."""
    rows = []
    for name, one in result["contenders"].items():
        if one["points"]:
            best = max(one["points"], key=lambda point: point["select"]["accuracy"])
            spent = [energy(best["test"]["nj"][key]) for key in result["keys"]]
            rows.append(Row(name, [percent(best["test"]["accuracy"]), *spent]))
    return rows


def _pictures(folder: Path, result: Result) -> list[Picture]:
    profiles = list(dict.fromkeys(key.split("/")[0] for key in result["keys"]))
    found = []
    for profile in profiles:
        panels = {key.split("/")[1]: _drawn(result, key) for key in result["keys"] if key.startswith(f"{profile}/")}
        caption = (
            f"{profile}: test accuracy and modelled energy of an inference, means over seeds, in each accounting. "
            "Steps join the networks that no other of the same contender beats."
        )
        shown = functools.partial(plots.frontier, panels, result["ours"])
        found.append(draw(folder, f"frontier_{profile}", caption, shown))
    of_network = {one["network"]: name for name, one in reversed(result["contenders"].items())}
    curves = {name: one["best_of"] for name, one in result["contenders"].items() if of_network[one["network"]] == name}
    curves = {name: values for name, values in curves.items() if values}
    names = list(result["contenders"])
    caption = "The most accurate of k trials that one may expect, on the part that selects, energy aside."
    return [*found, draw(folder, "best_of", caption, lambda: plots.best_of(curves, result["ours"], names))]


def _drawn(result: Result, key: str) -> dict[str, Sequence[tuple[float, float]]]:
    return {
        name: [(point["test"]["nj"][key], point["test"]["accuracy"]) for point in one["points"]]
        for name, one in result["contenders"].items()
    }
