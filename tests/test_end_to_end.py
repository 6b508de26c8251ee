"""The door itself, in processes of its own: a run to its end, a kill and going on, a sweep, one's own data."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsnn import nir, store
from dsnn.report.run import decided
from dsnn.run import inspect, job, schema, sweep_record
from dsnn.store import checkpoint

TINY = [
    "model.hidden=[12]",
    "train.steps=4",
    "train.epochs=8",
    "train.eval_every=2",
    "train.checkpoint_s=0",
    "bayes.samples=3",
    "run.report=false",
    "track.wandb=disabled",
]
CLOCKS = ("time/", "carbon/", "compute/speedup", "compute/full_ms", "compute/deployed_ms")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "experiments.run", *TINY, *arguments]


def run(*arguments: str, code: int = 0) -> str:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    return done.stdout + done.stderr


def timeless(directory: Path) -> dict:
    return {k: v for k, v in store.read_metrics(directory).items() if not k.startswith(CLOCKS)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("whole") / "run"
    run(f"run.dir={directory}", "run.report=true", "track.wandb=offline")
    return directory


def test_a_run_leaves_what_the_contract_says(whole: Path) -> None:
    metrics = store.read_metrics(whole)
    names = {p.name for p in whole.iterdir()}
    files = {"config.yaml", "metrics.json", "history.jsonl", "environment.json", "gates.npz", "checkpoints", "DONE"}
    assert names >= files | {"report.html", "figures"}
    wanted = [
        "test/accuracy",
        "test/nll",
        "test/ece",
        "test/brier",
        "val/accuracy",
        "uncertainty/aleatoric",
        "uncertainty/epistemic",
        "gates/input/kept",
        "gates/input/total",
        "gates/hidden0/kept",
        "gates/kept_fraction",
        "compute/steps_mean",
        "compute/steps_total",
        "compute/spike_rate",
        "compute/speedup_realised",
        "energy/45nm/snn_nj",
        "time/setup_s",
        "time/compile_s",
        "time/train_s",
        "time/eval_s",
        "carbon/kwh",
        "carbon/co2e_g",
        "carbon/source",
    ]
    assert not set(wanted) - metrics.keys()
    assert metrics["compute/compaction_error"] <= 1e-5
    gates = np.load(whole / "gates.npz")
    assert {name: gates[name].shape for name in gates.files} == {"input": (64,), "hidden0": (12,)}
    assert all(0 <= gates[name].min() <= gates[name].max() <= 1 for name in gates.files)
    assert [record["step"] for record in store.read_history(whole)] == [2, 4, 6, 8]
    assert len((whole / "report.html").read_text()) > 10_000


def test_a_finished_run_is_not_run_again(whole: Path) -> None:
    before = (whole / "metrics.json").stat().st_mtime_ns
    assert "is finished" in run(f"run.dir={whole}", "run.report=true", "track.wandb=offline")
    assert (whole / "metrics.json").stat().st_mtime_ns == before


def test_another_configuration_does_not_get_the_directory(whole: Path) -> None:
    said = run(f"run.dir={whole}", "seed=1", code=1)
    assert "another configuration" in said
    assert "seed" in said


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_killed_and_resumed_is_bit_identical_to_uninterrupted(
    whole: Path, tmp_path: Path, signal_number: signal.Signals
) -> None:
    directory = tmp_path / "run"
    process = subprocess.Popen(command(f"run.dir={directory}"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    patience = time.monotonic() + 240
    while not (checkpoint.latest(directory / "checkpoints") or 0) and process.poll() is None:
        assert time.monotonic() < patience
        time.sleep(0.01)
    process.send_signal(signal_number)
    said = process.communicate()[0].decode()
    if signal_number == signal.SIGTERM and not store.is_done(directory):
        assert process.returncode == 128 + signal.SIGTERM, said
        assert "goes on" in said
    run(f"run.dir={directory}")
    assert store.is_done(directory)
    assert timeless(directory) == timeless(whole)
    for name in ("parameters.npz", "gates.npz", "records.npz"):
        ours, theirs = store.read_arrays(directory, name), store.read_arrays(whole, name)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours), name
    assert store.read_history(directory) == store.read_history(whole)


@pytest.mark.slow
def test_examples_stop_early_in_a_whole_run_without_gates(tmp_path: Path) -> None:
    directory, metrics = job.run(schema.compose([
        "experiment=digits", "model.hidden=[8]", "train.epochs=2", "train.steps=4", "gates.enabled=false",
        "svi.decide_fraction=0.5", "bayes.samples=2", "track.tool=none", "run.report=false",
        f"run.dir={tmp_path / 'run'}",
    ]))  # fmt: skip
    assert 1 <= metrics["deployed/steps_mean"] <= 4
    assert not any(name.startswith("gates/") for name in metrics)
    history = store.read_history(directory)
    assert history[-1]["svi/lam"] > 0
    assert "gates/kept_fraction" not in history[-1], "there is no gate to be kept"
    assert decided(metrics, {}) == "Inference decided after how many time steps an example is answered."


@pytest.mark.slow
def test_a_sweep_goes_on_after_a_failure_and_says_so(tmp_path: Path) -> None:
    said = run("-m", f"run.root={tmp_path}", "train.epochs=1", "train.batch_size=64,5000", code=1)
    assert "train.batch_size must be at most" in said
    lines = sweep_record.jobs(next((tmp_path / "sweeps").glob("*.jsonl")))
    assert sorted(line["status"].split(":")[0] for line in lines) == ["done", "failed"]
    assert len({line["dir"] for line in lines}) == 2


def own_temporal(path: Path) -> dict[str, np.ndarray]:
    """Three classes of spike trains, each with two busy channels that take turns."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 480)
    rate = np.full((480, 9, 6), 0.05)
    for label in range(3):
        rate[y == label, ::2, 2 * label] = 0.95
        rate[y == label, 1::2, 2 * label + 1] = 0.95
    x = np.float32(rng.random(rate.shape) < rate)
    arrays = {"x_train": x[:320], "y_train": y[:320], "x_test": x[320:], "y_test": y[320:]}
    np.savez(path, **arrays)
    return arrays


def test_own_data_trains_from_the_command_line(tmp_path: Path, capsys: Any) -> None:
    own_temporal(tmp_path / "own.npz")
    directory = tmp_path / "run"
    own = ["data=npz", f"data.path={tmp_path}/own.npz", "data.temporal=true", "train.encoding=temporal"]
    own += ["train.epochs=25", "train.batch_size=16", "optimizer.learning_rate=0.01", "run.report=true"]
    own += ["model.hidden=[24]", "svi.kl_weight=0.01", "svi.gates_weight=0.01", "svi.lam=0.001"]
    said = run(*own, f"run.dir={directory}", f"export.nir={tmp_path}/own.nir")
    metrics = store.read_metrics(directory)
    assert metrics["test/accuracy"] >= 0.95
    assert metrics["linear/test/accuracy"] >= 0.9
    assert metrics["twin/test/accuracy"] >= 0.9
    assert "guard/fits" not in metrics, "nothing is automatic here, so nothing becomes milder"
    assert metrics["compute/steps_total"] == 9
    assert (directory / "report.html").stat().st_size > 10_000
    gates = np.load(directory / "gates.npz")
    assert {name: gates[name].shape for name in gates.files} == {"input": (6,), "hidden0": (24,)}
    assert "closed sites are removed" in said
    network = nir.load(tmp_path / "own.nir")
    assert network.in_shape == (6,)
    assert network.source.notes["weights"] == "posterior means"
    assert set(network.source.notes["posterior_std"]) >= {"hidden0.synapse.kernel", "readout.synapse.kernel"}
    # a finished run exports without learning again, and the same file
    more = [f"run.dir={directory}", f"export.nir={tmp_path}/again.nir", "export.dt=1e-3"]
    job.run(schema.compose([*TINY, *own, *more]))
    assert "is finished" in capsys.readouterr().out
    assert nir.load(tmp_path / "again.nir").clock.dt == 1e-3
    for name, node in nir.load(tmp_path / "again.nir").nodes.items():
        if "weight" in node.source.fields:
            assert np.array_equal(node.source["weight"], network.nodes[name].source["weight"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x_train": np.zeros((320, 6))}, "must be [n, time, features]"),
        ({"x_train": np.zeros((320, 9, 5))}, "one shape"),
        ({"y_train": np.zeros(319, int)}, "equally long"),
        ({"x_train": np.array([{}] * 320)}, "pickled objects"),
        ({"x_test": None}, "add x_test"),
        ({"y_train": np.full(320, 0.5)}, "labels must be integers"),
        ({"x_train": np.full((320, 9, 6), np.nan)}, "must be finite"),
    ],
)
def test_each_fault_of_own_data_has_its_sentence(change: dict, words: str, tmp_path: Path, capsys: Any) -> None:
    arrays = own_temporal(tmp_path / "own.npz") | change
    kept = {key: value for key, value in arrays.items() if value is not None}
    np.savez(tmp_path / "own.npz", allow_pickle=True, **kept)
    assert inspect.main(["data=npz", f"data.path={tmp_path}/own.npz", "data.temporal=true"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert words in said


def test_bad_data_gets_a_sentence(tmp_path: Path) -> None:
    np.savez(tmp_path / "bad.npz", x_train=np.full((8, 2), np.nan), y_train=np.zeros(8, int), x_test=np.ones((2, 2)))
    assert "error: " in run("data=npz", f"data.path={tmp_path}/bad.npz", f"run.dir={tmp_path}/run", code=1)
    environment = {**os.environ, "DSNN_DATA": str(tmp_path)}
    (tmp_path / "mnist").mkdir()
    for name in ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        (tmp_path / "mnist" / name).write_bytes(b"not the file")
    done = subprocess.run(
        command("data=mnist", f"run.dir={tmp_path}/mnist-run"),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 1
    assert "sha256" in done.stderr
    assert "Traceback" not in done.stderr
