"""The run directory: claims, exact round trips, atomic files, and one sentence for everything that can go wrong."""

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

from dsnn import store
from dsnn.store import RunDirError

CONFIG = {
    "model": {"kind": "dense", "widths": [64, 32], "beta": 0.9, "noise": None},
    "train": {"epochs": 3, "rate": 1e-05, "note": "1e-3"},
    "data": {"name": "digits", "root": None},
    "run": {"dir": None, "root": "outputs"},
    "track": {"wandb": "offline"},
    "resume": False,
    "seed": 0,
}


def changed(**sections):
    return {key: {**CONFIG[key], **new} if isinstance(new := sections.get(key), dict) else sections.get(key, old)
            for key, old in CONFIG.items()}  # fmt: skip


def test_config_round_trips_with_its_types(tmp_path):
    store.write_config(tmp_path, CONFIG)
    back = store.read_config(tmp_path)
    assert back == CONFIG
    assert isinstance(back["train"]["rate"], float)
    assert isinstance(back["train"]["note"], str)
    assert list(back) == list(CONFIG)


def test_hash_leaves_out_where_the_run_lives_and_how_it_is_watched():
    same = changed(run={"dir": "/x", "root": "y"}, track={"wandb": "online"}, resume=True, data={"root": "/d"})
    assert store.config_hash(same) == store.config_hash(CONFIG)
    assert store.config_hash(dict(reversed(list(CONFIG.items())))) == store.config_hash(CONFIG)
    for other in (changed(seed=1), changed(data={"name": "mnist"}), changed(model={"widths": [64, 33]})):
        assert store.config_hash(other) != store.config_hash(CONFIG)


def test_hash_is_stable_over_versions():
    assert store.config_hash({"b": [1, 2.0], "a": {"x": None}}) == "9322a8fad9ed"


def test_dataclasses_tuples_and_numpy_numbers_hash_like_what_yaml_reads_back(tmp_path):
    @dataclass
    class Model:
        widths: tuple[int, ...] = (64, 32)
        beta: float = 0.9

    config = {"model": Model(), "rate": np.float64(0.1)}
    store.write_config(tmp_path, config)
    assert store.config_hash(store.read_config(tmp_path)) == store.config_hash(config)


def test_claim_tells_fresh_interrupted_and_done(tmp_path):
    run = tmp_path / "deep" / "run"
    assert store.claim(run, CONFIG) == "fresh"
    assert store.claim(run, changed(resume=True)) == "interrupted"
    store.mark_done(run)
    assert store.claim(run, CONFIG) == "done"
    assert store.is_done(run)


def test_claim_refuses_another_configuration_and_names_the_keys(tmp_path):
    store.claim(tmp_path / "run", CONFIG)
    with pytest.raises(RunDirError) as refusal:
        store.claim(tmp_path / "run", changed(seed=3, model={"beta": 0.8, "extra": 1}))
    text = str(refusal.value)
    assert "model.beta (0.9 there, 0.8 now)" in text
    assert "seed (0 there, 3 now)" in text
    assert "model.extra (absent there, 1 now)" in text
    assert "run.dir=DIR" in text
    assert "widths" not in text


def test_claim_refuses_a_directory_of_something_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunDirError, match=r"no config.yaml and holds thesis.tex"):
        store.claim(tmp_path, CONFIG)
    assert sorted(os.listdir(tmp_path)) == ["thesis.tex"]


def test_claim_refuses_a_torn_config(tmp_path):
    (tmp_path / "config.yaml").write_text("a: [1, 2")
    with pytest.raises(RunDirError, match="must be YAML of plain values"):
        store.claim(tmp_path, CONFIG)


def test_lock_keeps_a_second_process_out_and_ends_with_the_first(tmp_path):
    with store.lock(tmp_path):
        code = f"from dsnn import store\nwith store.lock({str(tmp_path)!r}): pass"
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert second.returncode != 0
    assert f"in use by process {os.getpid()}" in second.stderr
    with store.lock(tmp_path):
        assert store.claim(tmp_path, CONFIG) == "fresh"


def test_metrics_round_trip_exactly(tmp_path):
    metrics = {"test/accuracy": np.float32(0.97), "n": np.int64(3), "carbon/source": "estimate", "x": 0.1 + 0.2}
    store.write_metrics(tmp_path, metrics)
    assert store.read_metrics(tmp_path) == {**metrics, "test/accuracy": float(np.float32(0.97))}
    assert store.read_metrics(tmp_path / "none") == {}


@pytest.mark.parametrize(
    ("value", "words"),
    [(np.nan, "got nan for bad"), (np.float32(np.inf), "got inf for bad"), ({"a": 1}, "got dict for bad"),
     ([1.0], "got list"), (None, "got NoneType"), (True, "got bool"), (np.zeros(3), "got ndarray")],
)  # fmt: skip
def test_metrics_refuse_what_is_not_a_finite_number_or_text(tmp_path, value, words):
    store.write_metrics(tmp_path, {"good": 1.0})
    with pytest.raises(RunDirError, match=words):
        store.write_metrics(tmp_path, {"good": 2.0, "bad": value})
    assert store.read_metrics(tmp_path) == {"good": 1.0}


def test_a_torn_last_line_of_history_is_left_out(tmp_path):
    for step in (0, 10, 20):
        store.append_history(tmp_path, {"step": step, "train/loss": 1 / (step + 3)})
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"step": 30, "train/lo')
    assert [record["step"] for record in store.read_history(tmp_path)] == [0, 10, 20]


def test_history_writes_null_for_nan_and_needs_a_step(tmp_path):
    store.append_history(tmp_path, {"step": 1, "loss": float("nan"), "nll": np.float32(np.inf)})
    assert store.read_history(tmp_path) == [{"step": 1, "loss": None, "nll": None}]
    with pytest.raises(RunDirError, match="integer step, got None"):
        store.append_history(tmp_path, {"loss": 1.0})
    assert store.read_history(tmp_path / "none") == []


def test_a_damaged_history_line_is_named(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(RunDirError, match="damaged in line 2"):
        store.read_history(tmp_path)


def test_arrays_round_trip_and_are_the_same_bytes_each_time(tmp_path):
    arrays = {"example/x": np.arange(6.0).reshape(2, 3), "raster/hidden0": np.ones((4, 2), bool)}
    first = store.write_arrays(tmp_path, "records.npz", arrays).read_bytes()
    back = store.read_arrays(tmp_path, "records.npz")
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[key], arrays[key]) and back[key].dtype == arrays[key].dtype for key in arrays)
    assert store.write_arrays(tmp_path, "records.npz", arrays).read_bytes() == first
    assert store.read_arrays(tmp_path, "gates.npz") == {}


def test_arrays_are_never_pickled(tmp_path):
    with pytest.raises(RunDirError, match="got objects in x"):
        store.write_arrays(tmp_path, "gates.npz", {"x": np.array([{}])})
    np.savez(tmp_path / "gates.npz", x=np.array([{}], dtype=object))
    with pytest.raises(RunDirError, match="damaged"):
        store.read_arrays(tmp_path, "gates.npz")
    (tmp_path / "gates.npz").write_bytes(b"PK\x03\x04torn")
    with pytest.raises(RunDirError, match="damaged"):
        store.read_arrays(tmp_path, "gates.npz")


def test_environment_says_what_the_run_depended_on(tmp_path):
    import jax

    store.write_environment(tmp_path, seed=7)
    environment = store.read_environment(tmp_path)
    assert environment["jax"] == jax.__version__
    assert environment["python"].split(".")[0] == "3"
    assert environment["seed"] == 7
    assert environment["cores"] >= 1
    assert environment["device_platform"] == jax.default_backend()
    assert environment["command"].startswith("python ")


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    store.write_metrics(tmp_path, {"a": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(RunDirError, match=r"cannot write .*metrics.json: File too large; free space"):
            store.write_metrics(tmp_path, {"a": "x" * 1000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match=r"cannot write .*Not a directory"):
        store.claim(tmp_path / "file" / "run", CONFIG)
    with pytest.raises(RunDirError, match=r"config.yaml is missing"):
        store.read_config(tmp_path)


def test_a_run_of_before_an_option_is_no_damaged_one(tmp_path):
    """What a later version can name and an earlier could not had its default; another value is another run."""
    ours = {"seed": 0, "task": "auto", "task_options": {}, "train": {"epochs": 3}}
    assert store.claim(tmp_path, {"seed": 0, "train": {"epochs": 3}}) == "fresh"
    assert store.claim(tmp_path, ours) == "interrupted"
    with pytest.raises(store.RunDirError, match="it differs in task"):
        store.claim(tmp_path, ours | {"task": "lab:Mine"})
