"""The page of one run: what was learned, where computation runs, what it costs, how it was made."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from dsnn import store
from dsnn.plots import wording
from dsnn.report import figures, files
from dsnn.report.costs import cost_tables, placement_rows
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
    config, metrics, history = files.config(directory), files.metrics(directory), files.history(directory)
    gates, records = store.read_arrays(directory, "gates.npz"), store.read_arrays(directory, "records.npz")
    if (directory / store.DONE).exists():
        store.whole(directory)
    belief = wording.belief(config, metrics)
    drawn = {
        name: draw(directory, name, caption, figure)
        for name, (caption, figure) in {
            **figures.learned(metrics, history, records, belief),
            **figures.in_time(metrics, records, belief),
            **figures.believed(records, belief),
            **figures.running(metrics, gates, records),
            **figures.costing(metrics),
        }.items()
    }
    environment = store.read_environment(directory)
    values = {
        "title": title(config, directory),
        "verdict": verdict(metrics, belief),
        "facts": facts(config),
        "finished": (directory / "metrics.json").exists(),  # DONE is written after the report
        "networks": networks(metrics, belief),
        "figures": drawn,
        "quality": _quality(config, metrics, belief),
        "own_task": wording.own_task(config),
        "decided": decided(metrics, config),
        "budget": wording.budget(config, metrics),
        "behaviour": behaviour(config),
        "sites": figures.site_rows(metrics),
        "bits": figures.bit_rows(metrics),
        "costs": cost_tables(metrics, wording.degenerate(config, metrics)),
        "uncounted": wording.degenerate(config, metrics) if "energy/uncounted" in metrics else "",
        "placement": placement_rows(metrics),
        "belief": belief.whole,
        "spent": _spent_rows(metrics),
        "metrics": sorted(metrics.items()),
        "command": environment.get("command", ""),
        "environment": [(key, value) for key, value in environment.items() if key != "command"],
        "config": yaml.safe_dump(config, sort_keys=False, allow_unicode=True) if config else "",
    }
    page = render("run.html.j2", directory / "report.html", values)
    store.reseal(directory)
    return page


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

    # the widths of other networks are their own business
    hidden = at("model.hidden") if at("model.architecture") in ("mlp", "conv", "auto") else None
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


def verdict(metrics: figures.Metrics, belief: wording.Belief) -> str:
    """A sentence for the predictive and one for the deployed network, since they are two networks."""
    sentences = []
    if (accuracy := metrics.get("test/accuracy")) is not None:
        right = "of the test examples are classified right"
        sentences.append(f"{percent(float(accuracy))} {right} ({belief.predictive}).")
    if belief.noun == wording.CONVERTED:
        return " ".join(sentences)
    spent = []
    if (kept := metrics.get("gates/kept_fraction")) is not None:
        spent.append(f"{percent(float(kept))} of the compute sites")
    if {"deployed/steps_mean", "compute/steps_total"} <= metrics.keys():
        steps, total = float(metrics["deployed/steps_mean"]), number(metrics["compute/steps_total"])
        spent.append(f"{steps:.1f} of {total} time steps on average")
    own = metrics.get("deployed/accuracy")
    reached = "" if own is None else f" and classifies {percent(float(own))} right"
    if spent:
        sentences.append(f"The deployed network runs {' and '.join(spent)}{reached}.")
    elif reached:
        sentences.append(f"The deployed network{reached.removeprefix(' and')}.")
    return " ".join(sentences)


CONTROLS = {
    "random": "This is a control: which sites run was drawn by chance, as many of them as it was told.",
    "magnitude": "This is a control: the sites with the largest weights run, as many of them as it was told.",
}
"""What is said of runs in which nothing is inferred about sites, by ``gates.family``."""


def decided(metrics: figures.Metrics, config: Mapping[str, Any]) -> str:
    """A sentence on what decided where and how long the network runs; empty where nothing did."""
    control = CONTROLS.get(str(_part(config, "gates").get("family")), "") if figures.site_rows(metrics) else ""
    inputs = "inputs and neurons" if _part(config, "gates").get("input", True) else "neurons"
    sites = f"which {inputs} have to run" if figures.site_rows(metrics) and not control else ""
    stops = "after how many time steps an example is answered" if metrics.get("halting/certified") else ""
    inferred = ", and ".join(part for part in (sites, stops) if part)
    return " ".join(part for part in (control, f"Inference decided {inferred}." if inferred else "") if part)


def behaviour(config: Mapping[str, Any]) -> str:
    """A sentence on what learning asked of the spikes themselves; empty where nothing had a price."""
    gates, halting, energy, svi = (_part(config, name) for name in ("gates", "halting", "energy", "svi"))
    said = []
    if config.get("learner") == "svi" and energy.get("events") == "differentiated":
        said.append(
            "Energy was differentiated through the spikes of learning's own passes (energy.events=differentiated): its "
            "price also moved weights, thresholds and time constants, as a penalty on behaviour."
        )
    elif config.get("learner") == "svi" and "events" in energy and (gates.get("enabled") or halting.get("enabled")):
        said.append(
            "Events of the energy were measured and held (energy.events=frozen): its price moved gates and steps alone."
        )
    if penalty := float(svi.get("rate_penalty") or 0):
        said.append(f"Each spike of a hidden neuron cost {penalty:.3g} nats (svi.rate_penalty).")
    return " ".join(said)


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


class Network(NamedTuple):
    """One of a run's two networks, and its headline numbers."""

    name: str
    tiles: list[Tile]


def networks(metrics: figures.Metrics, belief: wording.Belief) -> list[Network]:
    """The headline numbers of the predictive and, apart from them, those of the deployed network."""
    if belief.noun == wording.CONVERTED:  # it is what is deployed
        return [Network(belief.predictive, _deployed(metrics))]
    found = (Network(belief.predictive, _predictive(metrics)), Network(wording.DEPLOYED, _deployed(metrics)))
    return [network for network in found if network.tiles]


def _predictive(metrics: figures.Metrics) -> list[Tile]:
    return _tiles(
        metrics,
        ("test/accuracy", "test accuracy", percent, _against(metrics, "test/accuracy", percent)),
        ("test/rmse", "test RMSE", number, _against(metrics, "test/rmse", number)),
        ("test/r2", "explained variance (R²)", "{:.3f}".format, ""),
        ("test/coverage_90", "inside 90 % intervals", percent, ""),
        ("test/nll", "negative log-likelihood", number, "nats"),
        ("test/ece", "calibration error", "{:.3f}".format, "ECE, 0 is perfect"),
        ("compute/steps_mean", "time steps per example", "{:.1f}".format, _total(metrics)),
    )


def _against(metrics: figures.Metrics, name: str, form: Callable[[float], str]) -> str:
    """What simpler models of the same data score."""
    simpler = (("twin", "deterministic twin"), ("linear", "linear model"))
    found = [(label, metrics.get(f"{prefix}/{name}")) for prefix, label in simpler]
    return ", ".join(f"{label} {form(float(value))}" for label, value in found if isinstance(value, int | float))


def _deployed(metrics: figures.Metrics) -> list[Tile]:
    shown = _tiles(
        metrics,
        ("deployed/accuracy", "test accuracy", percent, ""),
        ("deployed/rmse", "test RMSE", number, ""),
        ("deployed/nll", "negative log-likelihood", number, "nats"),
        ("deployed/ece", "calibration error", "{:.3f}".format, "ECE, 0 is perfect"),
        ("deployed/steps_mean", "time steps per example", "{:.1f}".format, _total(metrics)),
        ("gates/kept_fraction", "compute sites that run", percent, ""),
        ("bits/mean", "bits per weight", "{:.1f}".format, "of the integer network, mean over weights"),
        ("compute/speedup_realised", "speed-up, measured", "{:.1f}×".format, "wall time, compacted + early stop"),
    )
    for profile, cost in figures.headline_costs(metrics).items():
        if "snn_nj" in cost:
            rivals = {name: value for name, value in cost.items() if name.startswith("rival/")}
            least = min(rivals, key=lambda name: rivals[name]) if rivals else ""
            note = f"; cheapest rival {energy(rivals[least])}: {figures.networks(metrics)[least]}" if least else ""
            shown.append(Tile(energy(cost["snn_nj"]), "energy per inference", f"modelled, {profile}{note}"))
            break
    return shown


def _tiles(metrics: figures.Metrics, *wanted: tuple[str, str, Callable[[float], str], str]) -> list[Tile]:
    return [
        Tile(form(float(metrics[name])), label, note)
        for name, label, form, note in wanted
        if isinstance(metrics.get(name), int | float)
    ]


def _total(metrics: figures.Metrics) -> str:
    return f"of {number(metrics['compute/steps_total'])}" if "compute/steps_total" in metrics else ""


OUTSIDE = {
    "auroc": "AUROC against {}",
    "auroc_epistemic": "AUROC against {}, by epistemic uncertainty",
    "fpr95": "share of {} accepted where 95 % of test examples are",
}
"""What is said of another data set, by the score's name."""


def _simpler(metrics: figures.Metrics) -> list[tuple[str, list[tuple[str, str]]]]:
    """What is said of simpler models of the same data, under their names."""
    named = (("twin", "deterministic twin"), ("linear", str(metrics.get("linear/name", "linear model"))))
    found = []
    for prefix, name in named:
        own = {f"{prefix}/{metric}": said for metric, said in SIMPLER.items()}
        found.append((name, _rows(metrics, own)))
    return [(name, rows) for name, rows in found if rows]


def _quality(
    config: Mapping[str, Any], metrics: figures.Metrics, belief: wording.Belief
) -> list[tuple[str, list[tuple[str, str]]]]:
    """What is said of each of the two networks, and of simpler models, under its name."""
    own = {part: wording.own_scores(config, metrics, part) for part in ("test", "deployed")}
    predictive = _rows(metrics, {**own["test"], **_predictive_names(metrics)}) + _outside_rows(metrics)
    deployed = _rows(metrics, {**own["deployed"], **DEPLOYED})
    if belief.noun == wording.CONVERTED:
        return [(belief.predictive, deployed)]
    both = ((belief.predictive, predictive), (wording.DEPLOYED, deployed))
    return [(name, rows) for name, rows in both if rows] + _simpler(metrics)


SIMPLER = {
    "test/accuracy": "accuracy",
    "test/balanced_accuracy": "mean accuracy over classes",
    "test/nll": "negative log-likelihood (nats)",
    "test/ece": "expected calibration error",
    "test/rmse": "root mean squared error",
    "test/r2": "explained variance (R²)",
}
"""What is said of a simpler model."""


def _predictive_names(metrics: figures.Metrics) -> dict[str, str]:
    """What is said of the predictive."""
    unit = "in the targets' unit" if "test/rmse" in metrics else "nats"
    return {
        "test/accuracy": "accuracy",
        "test/nll": "negative log-likelihood (nats)",
        "test/brier": "Brier score",
        "test/ece": "expected calibration error",
        "test/balanced_accuracy": "mean accuracy over classes",
        "test/rmse": "root mean squared error",
        "test/r2": "explained variance (R²)",
        "test/coverage_90": "share of targets inside 90 % intervals",
        "test/interval_score_90": "interval score",
        "val/accuracy": "validation accuracy",
        "uncertainty/aleatoric": f"aleatoric uncertainty ({unit})",
        "uncertainty/epistemic": f"epistemic uncertainty ({unit})",
        "uncertainty/from_weights": "of it from weights",
        "uncertainty/from_gates": "of it from gates",
        "uncertainty/from_spikes": "of it from firing",
        "calibration/temperature": "temperature fitted on the examples that select",
        "calibration/nll": "negative log-likelihood at that temperature (nats)",
        "conformal/coverage": "share of labels inside 90 % conformal sets",
        "conformal/size": "classes in a conformal set",
        "conformal/width": "width of a 90 % conformal interval",
        "test/aurc": "area under the risk-coverage curve",
    }


DEPLOYED = {
    "deployed/accuracy": "accuracy",
    "deployed/rmse": "root mean squared error",
    "deployed/r2": "explained variance (R²)",
    "deployed/nll": "negative log-likelihood (nats)",
    "deployed/ece": "expected calibration error",
    "deployed/steps_mean": "time steps per example",
    "compute/spike_rate": "spikes per input and step",
    "compute/events_per_inference": "spikes of all neurons per inference",
    "compute/deployed_ms": "milliseconds for the examples that were timed, together",
    "compute/full_ms": "the same with all sites and steps",
}
"""What is said of the deployed network."""


def _rows(metrics: figures.Metrics, names: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(label, number(metrics[name])) for name, label in names.items() if name in metrics]


def _outside_rows(metrics: figures.Metrics) -> list[tuple[str, str]]:
    rows = []
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
