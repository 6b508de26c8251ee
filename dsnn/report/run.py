"""The page of one run: what was learned, where computation runs, what it costs, how it was made."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from jaxtyping import Float, Shaped
from matplotlib.figure import Figure

from dsnn import plots, rundir
from dsnn.report.page import draw, energy, number, percent, render

Metrics = Mapping[str, float | int | str]
Arrays = Mapping[str, Shaped[np.ndarray, "..."]]


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
            **_learned(metrics, history, records),
            **_running(metrics, gates, records),
            **_costing(metrics),
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
        "sites": _site_rows(metrics),
        "costs": _cost_tables(metrics),
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


def verdict(metrics: Metrics) -> str:
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


def tiles(metrics: Metrics) -> list[Tile]:
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
        "faster, measured",
        lambda value: f"{value:.1f}×",
        "wall time, compacted + early stop",
    )
    for profile, cost in headline_costs(metrics).items():
        if cost.get("ann_nj") and "snn_nj" in cost:
            shown.append(Tile(percent(cost["snn_nj"] / cost["ann_nj"]), "of the ANN's energy", f"modelled, {profile}"))
            break
    return shown


def headline_costs(metrics: Metrics) -> dict[str, dict[str, float]]:
    """Per hardware profile its energies in the run's own accounting (``energy/<profile>/snn_nj`` and so on)."""
    return {profile: tables[""] for profile, tables in _energies(metrics).items() if "" in tables}


def _energies(metrics: Metrics) -> dict[str, dict[str, dict[str, float]]]:
    """Energies by profile, accounting ("" for the run's own) and network."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, value in metrics.items():
        match name.split("/"):
            case ["energy", profile, quantity]:
                accounting = ""
            case ["energy", profile, accounting, quantity]:
                pass
            case _:
                continue
        if quantity in plots.NETWORKS and isinstance(value, int | float):
            found.setdefault(profile, {}).setdefault(accounting, {})[quantity] = float(value)
    return found


class CostTable(NamedTuple):
    """One profile's energies: a row per network, a column per accounting."""

    profile: str
    accountings: list[str]
    rows: list[tuple[str, list[str]]]


def _cost_tables(metrics: Metrics) -> list[CostTable]:
    tables = []
    for profile, by_accounting in _energies(metrics).items():
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
        tables.append(CostTable(profile, list(named), [*rows, ("this network / ANN twin", shares)]))
    return tables


def _quality_rows(metrics: Metrics) -> list[tuple[str, str]]:
    names = {
        "test/accuracy": "accuracy",
        "test/nll": "negative log-likelihood (nats)",
        "test/brier": "Brier score",
        "test/ece": "expected calibration error",
        "test/rmse": "root mean squared error",
        "val/accuracy": "validation accuracy",
        "uncertainty/aleatoric": "aleatoric uncertainty (nats)",
        "uncertainty/epistemic": "epistemic uncertainty (nats)",
    }
    rows = [(label, number(metrics[name])) for name, label in names.items() if name in metrics]
    for name, value in metrics.items():
        if name.startswith("ood/") and name.endswith("/auroc"):
            rows.append((f"AUROC against {name.split('/')[1]}", number(value)))
    return rows


def _site_rows(metrics: Metrics) -> list[tuple[str, int, int]]:
    """Group, sites that run, sites there are: the input first, the sum last."""
    names = [name.split("/")[1] for name in metrics if name.startswith("gates/") and name.endswith("/kept")]
    names = sorted(
        {name for name in names if f"gates/{name}/total" in metrics}, key=lambda name: (name != "input", name)
    )
    rows = [(name, int(metrics[f"gates/{name}/kept"]), int(metrics[f"gates/{name}/total"])) for name in names]
    return [*rows, ("together", sum(row[1] for row in rows), sum(row[2] for row in rows))] if len(rows) > 1 else rows


def _spent_rows(metrics: Metrics) -> list[tuple[str, str]]:
    names = {
        "time/setup_s": ("setting up", "{} s"),
        "time/compile_s": ("compiling", "{} s"),
        "time/train_s": ("training", "{} s"),
        "time/eval_s": ("evaluating", "{} s"),
        "carbon/kwh": ("energy of the run", "{} kWh"),
        "carbon/co2e_g": ("emissions", "{} g CO₂e"),
        "carbon/source": ("source", "{}"),
    }
    return [(label, form.format(number(metrics[name]))) for name, (label, form) in names.items() if name in metrics]


# --- The figures: name -> (caption, function that draws it)

Drawings = dict[str, tuple[str, Callable[[], Figure]]]


def _learned(metrics: Metrics, history: Sequence[Mapping[str, Any]], records: Arrays) -> Drawings:
    drawings: Drawings = {}
    if history:
        drawings["learning_curves"] = ("The course of training.", lambda: plots.learning_curves(history))
    if not {"test/probs", "test/y"} <= records.keys():
        return drawings
    probs, labels = records["test/probs"], records["test/y"]
    score = entropy(probs)
    ece = metrics.get("test/ece")
    drawings["reliability"] = (
        "How often the network is right when it says it is sure. On the diagonal, confidence can be taken at its word; "
        "strong dots hold many examples.",
        lambda: plots.reliability(*reliability(probs, labels), ece if isinstance(ece, float) else None),
    )
    if outside := under(records, "ood/"):
        foreign = {name.removesuffix("/probs"): entropy(p) for name, p in outside.items() if name.endswith("/probs")}
        drawings["uncertainty"] = (
            "How uncertain the network is on its own test data and on data it never saw. Well apart is good.",
            lambda: plots.uncertainty_histogram(score, foreign),
        )
    drawings["risk_coverage"] = (
        "The error if the network may stay silent on what it is least sure of.",
        lambda: plots.risk_coverage(*risk_coverage(score, probs.argmax(axis=-1) != labels)),
    )
    return drawings


def _running(metrics: Metrics, gates: Arrays, records: Arrays) -> Drawings:
    drawings: Drawings = {}
    example = records.get("example/x")
    stop = int(records["example/step"]) if "example/step" in records else None
    if gates:
        shape = None if example is None else example.shape
        kept = {name: runs for name, runs, _ in _site_rows(metrics)}
        drawings["gate_map"] = (
            "Every square is a place where computation can run. The input keeps its picture; neurons are sorted. "
            "What is switched off costs nothing once the network is compacted.",
            lambda: plots.gate_map(_in_network_order(gates), shape, kept),
        )
    if "example/logits" in records:
        label = int(records["example/y"]) if "example/y" in records else None
        drawings["running_decision"] = (
            "One test example: what the network believes as the time steps pass, and when it stops.",
            lambda: plots.running_decision(records["example/logits"], stop, label, picture=example),
        )
    if "test/steps" in records:
        total = int(metrics.get("compute/steps_total", np.ceil(records["test/steps"].max())))
        drawings["steps"] = (
            "When the examples were answered; what would come after is not computed.",
            lambda: plots.steps_histogram(records["test/steps"], total),
        )
    if spikes := under(records, "raster/"):
        drawings["raster"] = (
            "The spikes of that example: a row per neuron, a column per time step.",
            lambda: plots.raster(spikes, stop),
        )
    if traces := under(records, "membrane/"):
        thresholds = {name: float(np.mean(value)) for name, value in under(records, "threshold/").items()}
        drawings["membrane"] = (
            "The membranes of a few neurons; one that reaches its threshold tends to spike and is reset.",
            lambda: plots.membrane_traces(traces, thresholds, stop),
        )
    return drawings


def _costing(metrics: Metrics) -> Drawings:
    if not (costs := headline_costs(metrics)):
        return {}
    return {"energy": ("Modelled, from counted operations and published energies.", lambda: plots.energy_bars(costs))}


# --- From predictions to curves (held against dsnn.evaluate in the tests; this module knows files and numbers only)


def under(records: Arrays, prefix: str) -> dict[str, Shaped[np.ndarray, "..."]]:
    """The arrays below a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): array for name, array in records.items() if name.startswith(prefix)}


def entropy(probs: Float[np.ndarray, "batch class"]) -> Float[np.ndarray, "batch"]:
    """Predictive entropy of each example in nats."""
    probs = np.asarray(probs, float)
    return -np.sum(probs * np.log(np.maximum(probs, np.finfo(float).tiny)), axis=-1)


def reliability(
    probs: Float[np.ndarray, "batch class"], labels: Shaped[np.ndarray, "batch"], bins: int = 15
) -> tuple[Float[np.ndarray, "bin"], Float[np.ndarray, "bin"], Shaped[np.ndarray, "bin"]]:
    """Mean confidence, accuracy and number of examples in bins of equal width; NaN where a bin is empty."""
    sure = np.asarray(probs, float).max(axis=-1)
    right = probs.argmax(axis=-1) == labels
    place = np.minimum((sure * bins).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, weights=values, minlength=bins) / counts for values in (sure, right)]
    return means[0], means[1], counts


def risk_coverage(
    uncertainty: Float[np.ndarray, "batch"], wrong: Shaped[np.ndarray, "batch"]
) -> tuple[Float[np.ndarray, "batch"], Float[np.ndarray, "batch"]]:
    """Share of examples answered and the error among them, surest first; equally sure ones share their errors."""
    _, group, size = np.unique(uncertainty, return_inverse=True, return_counts=True)
    errors = np.repeat(np.bincount(group, weights=wrong) / size, size)
    answered = np.arange(1, len(errors) + 1)
    return answered / len(errors), np.cumsum(errors) / answered


def _in_network_order(gates: Arrays) -> dict[str, Shaped[np.ndarray, "..."]]:
    return {**{name: gates[name] for name in ("input",) if name in gates}, **gates}
