"""What is done once a run is assessed: its files and exports are written, its report drawn, its tracker told."""

import contextlib
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import data, evaluate, parameters, store
from dsnn.assembly.assemble import Setup
from dsnn.assembly.identity import reads
from dsnn.config import Config
from dsnn.deploy.decided import deploy
from dsnn.deploy.fold import fold_scaling
from dsnn.learn import mesh
from dsnn.networks.whole import Whole
from dsnn.run import machine
from dsnn.run.console import console, final_table
from dsnn.run.loop import Member
from dsnn.store import checkpoint
from dsnn.store.track import Track

WEIGHTS = {"svi": "posterior means", "nuts": "the likeliest of the draws"}
"""What the weights of an exported network are, by learner."""


def finish(member: Member, metrics: dict[str, Any], report: Path | None) -> None:
    """Exports what was asked for, and tells the tracker of the results."""
    config, directory, track = member.setup.config, member.directory, member.track
    if config.export.nir:
        exported(member.setup, directory, store.read_arrays(directory, "parameters.npz"))
    if track is not None:
        track.summary(metrics)
        _track_results(member, track)
    store.mark_done(directory)
    (directory / store.FAILED).unlink(missing_ok=True)
    final_table(metrics, directory, report, Path(config.energy.profile).stem)
    if metrics.get("halting/clearly_worse"):
        early, late = metrics["deployed/accuracy"], metrics["halting/accuracy_all_steps"]
        console.print(
            f"early answers are clearly worse on the test part: {early:.4f} right against {late:.4f} with all steps; "
            "halting.risk bounds that, and halting.enabled=false runs all steps."
        )


def _track_results(member: Member, track: Track) -> None:
    """Sends figures, the reliability table, the gate map, and the checkpoint where it is asked for."""
    directory = member.directory
    for figure in sorted((directory / "figures").glob("*.png")):
        track.figure(figure.stem, figure)
    records = store.read_arrays(directory, "records.npz")
    if {"test/probs", "test/y"} <= records.keys():
        bins = evaluate.reliability(records["test/probs"], records["test/y"])
        rows = zip(*(column.tolist() for column in bins), strict=True)
        track.table("reliability", ["confidence", "accuracy", "count"], [row for row in rows if row[2]])
    if gates := store.read_arrays(directory, "gates.npz"):
        sites_ = [[name, site, float(p)] for name, group in gates.items() for site, p in enumerate(group)]
        track.table("gates", ["group", "site", "probability"], sites_)
    if member.setup.config.track.checkpoint and (step := checkpoint.latest(member.checkpoints)):
        track.artifact(f"checkpoint-{directory.name}", member.checkpoints / str(step))


@contextlib.contextmanager
def recorded(directory: Path) -> Iterator[None]:
    """Leaves the reason of a failure in the run directory."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(store.RunDirError):  # a full disk must not hide the reason
            store.write_text(directory, store.FAILED, f"{error}\n\n{traceback.format_exc()}")
        raise


def described(setup: Setup) -> str:
    """Returns what is about to learn, in a line: examples by their role, parameters, steps and the device."""
    split, simulator = setup.split, setup.bayesian.simulator
    held = 0 if split.certify is None else data.size(split.certify)
    counts = (
        f"{data.size(split.train)} training, {data.size(split.val)} selecting, {held} certifying, "
        f"{data.size(split.test)} test examples"
    )
    size = parameters.count(setup.bayesian.weights.initial)
    sites_ = None if setup.bayesian.gates is None else setup.bayesian.gates.sites
    where = "" if sites_ is None else f", {sites_.total} compute sites"
    kept = "read as they are used" if setup.streamed else "in memory"
    device = jax.devices()[0].device_kind
    said = f"{counts}, {kept}; {size} parameters{where}, {simulator.steps} steps, on {device}"
    return said if setup.spread is None else f"{said}; {dealt_out(setup)}"


def dealt_out(setup: Setup) -> str:
    """Returns what each device of a run on many holds, in words."""
    spread = setup.spread
    assert spread is not None
    held = spread.held(jax.eval_shape(setup.family(setup.settings, traced=False).init))
    grid = ", ".join(f"{axis} {size}" for axis, size in spread.mesh.shape.items())
    each, every, whole = (f"{size / 1e6:.3g} MB" for size in held)
    said = f"{spread.devices} devices ({grid}): each holds {each} of {every} of parameters and optimiser state"
    if not spread.over(mesh.MODEL):
        return said
    return (
        f"{said}, {whole} of it whole, since no axis has at least {mesh.WIDE} entries and a multiple of the "
        f"{spread.mesh.shape[mesh.MODEL]} devices"
    )


def check_unchanged(config: Config, read: dict[str, str]) -> None:
    """Raises if what a run reads was replaced between its naming and its reading."""
    now = reads(config)
    if changed := sorted(name for name in now.keys() | read.keys() if now.get(name) != read.get(name)):
        raise ValueError(f"{', '.join(changed)} changed while the run began; the same command begins anew with it.")


def check_export(setup: Setup) -> None:
    """Raises before any learning if the network cannot be written as NIR."""
    if setup.config.export.nir:
        from dsnn import nir  # an optional library

        model = setup.bayesian.simulator.template.build(setup.bayesian.weights.initial)
        if isinstance(model, Whole):
            raise ValueError("export.nir takes stacks of layers, got a network that is none; leave export.nir empty.")
        nir.to_nir(model, dt=setup.config.export.dt, method=setup.config.export.method)


def exported(setup: Setup, directory: Path, params: dict[str, Any]) -> None:
    """Writes the deployed network as NIR, with what NIR cannot say in its metadata and on the screen."""
    from dsnn import nir  # an optional library

    export, bayesian = setup.config.export, setup.bayesian
    params = {name: jnp.asarray(value) for name, value in params.items()}
    deployed = deploy(bayesian, params)
    unit = data.target_scaling(setup.split)
    notes: dict[str, Any] = {
        "weights": WEIGHTS.get(setup.config.learner, "point estimates"),
        "posterior_std": {name[:-6]: float(s.mean()) for name, s in params.items() if name.endswith(".scale")},
        "kept": {name: np.flatnonzero(np.asarray(gate) > 0).tolist() for name, gate in deployed.gates.items()},
        "steps": bayesian.simulator.steps,
        "encoding": bayesian.simulator.encoding,
        "run": directory.name,
    }
    if unit is not None:  # outputs are standardised: a number is shift + scale * output
        notes["target_shift"], notes["target_scale"] = unit.shift.tolist(), unit.scale.tolist()
    scaled = data.scaling_of(setup.split)
    small: Any = deployed.small if scaled is None else fold_scaling(deployed.small, scaled)
    sentences = list(nir.save(small, export.nir, dt=export.dt, method=export.method, notes=notes))
    if notes["posterior_std"]:
        sentences.append("the weights are posterior means; their mean standard deviations are in the metadata.")
    if deployed.gates:
        sentences.append("closed sites are removed; which ones were kept is in the metadata.")
    if bayesian.halting is not None:
        sentences.append(f"stopping early is left out; a reader runs all {bayesian.simulator.steps} steps.")
    console.print(f"NIR, dt = {export.dt:g} s, {export.method}: {export.nir}")
    for sentence in sentences:
        console.print(f"  {sentence}")


def reporting(directories: list[Path]) -> dict[Path, Path]:
    """Writes the pages of runs, several at a time in processes of their own where there are several."""
    count = machine.cores() if len(directories) > 2 else 0
    command = [sys.executable, "-m", "dsnn.run.report"]
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    parts = [[f"run={one.absolute()}" for one in directories[k::count]] for k in range(count)]
    working = [
        subprocess.Popen([*command, *part], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for part in parts
    ]
    for process in working:
        process.wait()
    pages = {directory: directory / "report.html" for directory in directories}
    return {directory: page if working and page.exists() else reported(directory) for directory, page in pages.items()}


def reported(directory: Path) -> Path:
    """Writes the report of a run directory and returns its place."""
    from dsnn.report import write_report  # drawing takes a second to import, and is not needed to learn

    return write_report(directory)
