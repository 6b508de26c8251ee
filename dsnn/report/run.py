"""The page of one run: what was learned, where computation runs, what it costs, how it was made."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dsnn import plots, rundir
from dsnn.report import figures
from dsnn.report.page import draw, energy, number, percent, render


class Tile(NamedTuple):
    """A headline number, what it is, and what to hold it against."""

    value: str
    label: str
    note: str = ""


def write_report(run_dir: str | Path) -> Path:
    """Writes ``report.html`` (and ``figures/*.png``) from what the run directory holds, and returns its path.

    Whatever the directory does not hold is left out.

    Raises:
        RunDirError: The page cannot be written, or a file of the run is damaged.
    """
    directory = Path(run_dir)
    config = rundir.read_config(directory) if (directory / "config.yaml").exists() else {}
    metrics, history = rundir.read_metrics(directory), rundir.read_history(directory)
    gates, records = rundir.read_arrays(directory, "gates.npz"), rundir.read_arrays(directory, "records.npz")
    drawn = {
        name: draw(directory, name, caption, figure)
        for name, (caption, figure) in {
            **figures.learned(metrics, history, records),
            **figures.in_time(metrics, records),
            **figures.believed(records),
            **figures.running(metrics, gates, records),
            **figures.costing(metrics),
        }.items()
    }
    environment = rundir.read_environment(directory)
    values = {
        "title": title(config, directory),
        "verdict": verdict(metrics),
        "facts": facts(config),
        "finished": (directory / "metrics.json").exists(),  # DONE is written after the report
        "tiles": tiles(metrics),
        "figures": drawn,
        "quality": _quality_rows(metrics),
        "decided": decided(metrics),
        "sites": figures.site_rows(metrics),
        "costs": _cost_tables(metrics),
        "placement": _placement_rows(metrics),
        "spent": _spent_rows(metrics),
        "metrics": sorted(metrics.items()),
        "command": environment.get("command", ""),
        "environment": [(key, value) for key, value in environment.items() if key != "command"],
        "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else "",
    }
    return render("run.html.j2", directory / "report.html", values)


# --- The words and numbers


def title(config: Mapping[str, Any], directory: Path) -> str:
    """The experiment, else the data set, else the directory's name."""
    data = config.get("data")
    name = config.get("experiment") or (data.get("name") if isinstance(data, Mapping) else data)
    return str(name or directory.resolve().name)


def facts(config: Mapping[str, Any]) -> str:
    """The network and its data in a line, as far as the configuration names them."""

    def at(dotted: str) -> Any:
        value: Any = config
        for key in dotted.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    hidden = at("model.hidden")
    parts = [
        at("data.name"),
        at("model.architecture"),
        "-".join(map(str, hidden)) if isinstance(hidden, list) else None,
        at("model.cell"),
        at("learner"),
        f"{steps} steps" if (steps := at("train.steps")) is not None else None,
        f"seed {seed}" if (seed := at("seed")) is not None else None,
    ]
    return " · ".join(str(part) for part in parts if part)


def verdict(metrics: figures.Metrics) -> str:
    """One sentence for the whole run."""
    parts = []
    if (accuracy := metrics.get("test/accuracy")) is not None:
        parts.append(f"{percent(float(accuracy))} of the test examples are classified right")
    spent = []
    if (kept := metrics.get("gates/kept_fraction")) is not None:
        spent.append(f"{percent(float(kept))} of the compute sites")
    if {"compute/steps_mean", "compute/steps_total"} <= metrics.keys():
        steps, total = float(metrics["compute/steps_mean"]), number(metrics["compute/steps_total"])
        spent.append(f"{steps:.1f} of {total} time steps on average")
    if spent:
        parts.append(("with " if parts else "It runs ") + " and ".join(spent))
    return ", ".join(parts) + "." if parts else ""


def decided(metrics: figures.Metrics) -> str:
    """What inference decided about where and how long the network runs; empty where it decided nothing."""
    sites = "which inputs and neurons have to run" if figures.site_rows(metrics) else ""
    stops = "after how many time steps an example is answered" if "halting/steps_mean" in metrics else ""
    return ", and ".join(part for part in (sites, stops) if part)


def tiles(metrics: figures.Metrics) -> list[Tile]:
    """The headline numbers that the run has."""
    shown = []

    def add(name: str, label: str, form: Callable[[float], str], note: str = "") -> None:
        if isinstance(value := metrics.get(name), int | float):
            shown.append(Tile(form(value), label, note))

    def against(name: str, words: str, form: Callable[[float], str] = number) -> str:
        return words.format(form(value)) if isinstance(value := metrics.get(name), int | float) else ""

    add("test/accuracy", "test accuracy", percent, against("twin/accuracy", "deterministic twin {}", percent))
    add("test/rmse", "test RMSE", number)
    add("test/ece", "calibration error", lambda value: f"{value:.3f}", "ECE, 0 is perfect")
    add("gates/kept_fraction", "compute sites that run", percent)
    add("compute/steps_mean", "time steps per example", lambda value: f"{value:.1f}",
        against("compute/steps_total", "of {}"))  # fmt: skip
    add(
        "compute/speedup_realised",
        "speed-up, measured",
        lambda value: f"{value:.1f}×",
        "wall time, compacted + early stop",
    )
    for profile, cost in figures.headline_costs(metrics).items():
        if cost.get("ann_nj") and "snn_nj" in cost:
            shown.append(Tile(percent(cost["snn_nj"] / cost["ann_nj"]), "of the ANN's energy", f"modelled, {profile}"))
            break
    return shown


class CostTable(NamedTuple):
    """One profile's energies: a row per network, a column per accounting."""

    profile: str
    accountings: list[str]
    rows: list[tuple[str, list[str]]]


def _cost_tables(metrics: figures.Metrics) -> list[CostTable]:
    tables = []
    for profile, by_accounting in figures.energies(metrics).items():
        own = by_accounting.get("")
        named = {name: costs for name, costs in by_accounting.items() if name} or by_accounting
        named = dict(sorted(named.items(), key=lambda item: item[1] != own))  # the run's own accounting first
        rows = [
            (label, [energy(costs[key]) if key in costs else "–" for costs in named.values()])
            for key, label in plots.NETWORKS.items()
            if any(key in costs for costs in named.values())
        ]
        shares = [
            percent(costs["snn_nj"] / costs["ann_nj"]) if costs.get("ann_nj") and "snn_nj" in costs else "–"
            for costs in named.values()
        ]
        rows.append(("this network / ANN twin", shares))
        if "compute/spike_rate" in metrics and all("break_even_rate" in costs for costs in named.values()):
            rates = [number(costs["break_even_rate"]) for costs in named.values()]
            rows.append((f"break-even spike rate (measured {number(metrics['compute/spike_rate'])})", rates))
        tables.append(CostTable(profile, list(named), rows))
    return tables


OUTSIDE = {
    "auroc": "AUROC against {}",
    "auroc_epistemic": "AUROC against {}, by epistemic uncertainty",
    "fpr95": "share of {} accepted where 95 % of test examples are",
}
"""What is said of another data set, by the score's name."""


class PlacementRow(NamedTuple):
    """Where one layer should run, and what speaks for it."""

    layer: str
    where: str
    probability: str
    rate: str
    break_even: str
    events: str
    dense: str


def _placement_rows(metrics: figures.Metrics) -> list[PlacementRow]:
    rows = []
    for name, value in metrics.items():
        if not name.endswith("/p_events"):
            continue
        layer, p = name.split("/")[1], float(value)
        at = {key: float(metrics[f"placement/{layer}/{key}"]) for key in (
            "rate", "rate_low", "rate_high", "break_even_rate", "events_nj", "dense_nj")}  # fmt: skip
        where = "event-driven core" if p >= 0.5 else "dense engine"
        rate = f"{number(at['rate'])} ({number(at['rate_low'])} to {number(at['rate_high'])})"
        costs = (energy(at["events_nj"]), energy(at["dense_nj"]))
        rows.append(PlacementRow(layer, where, percent(p), rate, number(at["break_even_rate"]), *costs))
    return rows


def _quality_rows(metrics: figures.Metrics) -> list[tuple[str, str]]:
    unit = "standard deviations" if "test/rmse" in metrics else "nats"
    names = {
        "test/accuracy": "accuracy",
        "test/nll": "negative log-likelihood (nats)",
        "test/brier": "Brier score",
        "test/ece": "expected calibration error",
        "test/rmse": "root mean squared error",
        "test/coverage_90": "share of targets inside 90 % intervals",
        "test/interval_score_90": "interval score",
        "val/accuracy": "validation accuracy",
        "uncertainty/aleatoric": f"aleatoric uncertainty ({unit})",
        "uncertainty/epistemic": f"epistemic uncertainty ({unit})",
        "uncertainty/from_weights": "of it from weights",
        "uncertainty/from_gates": "of it from gates",
        "uncertainty/from_spikes": "of it from firing",
        "calibration/temperature": "temperature fitted on validation",
        "calibration/nll": "negative log-likelihood at that temperature (nats)",
        "conformal/coverage": "share of labels inside 90 % conformal sets",
        "conformal/size": "classes in a conformal set",
        "conformal/width": "width of a 90 % conformal interval",
        "test/aurc": "area under the risk-coverage curve",
    }
    rows = [(label, number(metrics[name])) for name, label in names.items() if name in metrics]
    for name, value in metrics.items():
        match name.split("/"):
            case ["ood", other, score] if score in OUTSIDE:
                rows.append((OUTSIDE[score].format(other), number(value)))
    return rows


def _spent_rows(metrics: figures.Metrics) -> list[tuple[str, str]]:
    names = {
        "time/setup_s": ("setting up", "{} s"),
        "time/compile_s": ("compiling", "{} s"),
        "time/train_s": ("training", "{} s"),
        "time/eval_s": ("evaluating", "{} s"),
        "carbon/kwh": ("energy of the run", "{} kWh"),
        "carbon/co2e_g": ("emissions", "{} g CO₂e"),
        "carbon/source": ("source", "{}"),
    }
    guessed = str(metrics.get("carbon/source", "")).startswith("estimated")
    return [
        (
            label + " (estimated)" * (guessed and name in ("carbon/kwh", "carbon/co2e_g")),
            form.format(number(metrics[name])),
        )
        for name, (label, form) in names.items()
        if name in metrics
    ]
