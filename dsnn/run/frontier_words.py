"""What came of a frontier, in words: its lead, and what stands in a row of its verdicts, on screen and page alike."""

from collections.abc import Mapping
from typing import Any

from dsnn.report.frontier import ratio_of
from dsnn.run.standings import UNREACHED

ALONE = "one seed: of these networks alone"
"""Beside every verdict of networks of one seed, whose interval holds no chance of learning."""


def worded(result: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a result with its lead, and with what is said at each level and of each rival there."""
    met = []
    for row in result["meetings"]:
        rivals = {name: {**one, "said": _said(result, one)} for name, one in row["rivals"].items()}
        said = rivals[row["best_rival"]]["said"] if rivals else row["verdict"] + _alone(result)
        met.append({**row, "rivals": rivals, "said": said})
    return {**result, "meetings": met, "lead": lead(result)}


def lead(result: Mapping[str, Any]) -> str:
    """Returns what came of it, in a sentence or a few."""
    ours, met = result["ours"], result["meetings"]
    if not met:
        failures = result["contenders"].get(ours, {}).get("failures")
        why = f"every trial of the {ours} network failed ({failures[-1].rstrip('.')})" if failures else ""
        return f"{_upper(why or f'no {ours} network took part')}, so that nothing is held against another."
    beyond = [_beyond(result, one) for one in met if one["verdict"] == UNREACHED]
    levels = [one for one in met if one["verdict"] != UNREACHED]
    against = [one for one in levels if one["best_rival"]]
    if not against:
        return f"{_upper(levels[0]['verdict'])}."
    counts = [f"{sum(one['verdict'] == word for one in against)} {word}" for word in ("win", "tie", "loss")]
    alone = [f"{_upper(ALONE)}."] if _alone(result) else []
    compared = (
        f"At {len(against)} levels of accuracy the {ours} network against its cheapest rival: {', '.join(counts)}."
    )
    return " ".join([*beyond, compared, _highest(against[0]), *alone])


def _upper(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _beyond(result: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    return (
        f"{row['best_rival']} reaches an accuracy of {100 * row['level']:.2f} % on the part that selects, which the "
        f"{result['ours']} network does not reach ({100 * row['reached']['ours_select']:.2f} %)."
    )


def _highest(row: Mapping[str, Any]) -> str:
    rival = row["rivals"][row["best_rival"]]
    if rival["ratio"] is None:
        return f"At the highest {ratio_of(rival)}."
    return f"At the highest it spends {ratio_of(rival)} times what {row['best_rival']} spends."


def _said(result: Mapping[str, Any], rival: Mapping[str, Any]) -> str:
    """Returns a verdict with everything that makes it weaker."""
    return rival["verdict"] + ", fragile" * rival["fragile"] + ", not as accurate" * rival["apart"] + _alone(result)


def _alone(result: Mapping[str, Any]) -> str:
    return f", {ALONE}" if len(result["seeds"]) == 1 and not result["folds"] else ""
