"""Checkpoints come back bit for bit, survive damage and kills, and refuse in a sentence."""

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsnn.store import checkpoint, rescue
from dsnn.store.checkpoint import CheckpointError


class TrainState(NamedTuple):
    params: dict
    opt_state: tuple
    key: jax.Array
    step: jax.Array


def make_state(seed: int = 0, width: int = 24) -> TrainState:
    key = jax.random.PRNGKey(seed)
    params = {
        "dense/kernel_loc": jax.random.normal(key, (16, width)),
        "log scale": jnp.array([np.nan, -0.0, np.inf, 1e-42], jnp.float32),
        "half": jax.random.normal(key, (5,)).astype(jnp.bfloat16),
        "empty": jnp.zeros((0, 3)),
        "mask": jnp.array([True, False]),
    }
    floats = {"kernel": params["dense/kernel_loc"]}
    return TrainState(params, optax.adam(1e-3).init(floats), key, jnp.int32(3))


def assert_identical(left, right) -> None:
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert type(a) is type(b)
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("save", [checkpoint.save, rescue.save])
def test_restores_bit_identical_tree_with_its_structure(save, tmp_path):
    state, folder, beside = make_state(), tmp_path / "kept", tmp_path / "history.jsonl"
    beside.write_text("{}\n")
    assert save(folder, 3, state, [beside]) == folder / "3"
    assert checkpoint.latest(folder) == 3
    assert (folder / "3" / checkpoint.BESIDE / beside.name).read_text() == "{}\n"
    assert_identical(checkpoint.restore(folder, 3, make_state(seed=1)), state)


def test_a_rescue_that_fails_says_so_and_leaves_what_is_there(tmp_path, capfd):
    checkpoint.save(tmp_path, 3, make_state())
    (tmp_path / "3" / "mine.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"^no checkpoint of step 3 could be written to .* \(1\)\.$"):
        rescue.save(tmp_path, 3, make_state(seed=1))
    assert "mine.txt, which no run wrote" in capfd.readouterr().err
    assert checkpoint.latest(tmp_path) == 3


def test_restores_typed_keys_numbers_and_numpy_leaves(tmp_path):
    tree = {"key": jax.random.key(5), "epoch": 4, "rate": 0.1, "np": np.arange(3), "none": None}
    like = {"key": jax.random.key(0), "epoch": 0, "rate": 0.0, "np": np.zeros(3, int), "none": None}
    checkpoint.save(tmp_path, 0, tree)
    back = checkpoint.restore(tmp_path, 0, like)
    assert jnp.array_equal(jax.random.bits(back["key"], (4,)), jax.random.bits(tree["key"], (4,)))
    assert (back["epoch"], back["rate"], type(back["epoch"])) == (4, 0.1, int)
    assert isinstance(back["np"], np.ndarray)
    assert back["np"].tolist() == [0, 1, 2]


def test_a_restored_tree_can_be_donated(tmp_path):
    checkpoint.save(tmp_path, 0, {"w": jnp.arange(4096.0)})
    back = checkpoint.restore(tmp_path, 0, {"w": jnp.zeros(4096)})
    double = jax.jit(lambda tree: {"w": 2 * tree["w"]}, donate_argnums=0)
    assert float(double(back)["w"][-1]) == 8190.0
    assert float(checkpoint.restore(tmp_path, 0, {"w": jnp.zeros(4096)})["w"][-1]) == 4095.0


def test_keeps_the_last_two_and_finds_the_newest(tmp_path):
    assert checkpoint.latest(tmp_path / "nothing") is None
    for step in (2, 10, 9, 30):
        checkpoint.save(tmp_path, step, {"x": jnp.float32(step)})
    assert checkpoint.steps(tmp_path) == [10, 30]
    assert checkpoint.latest(tmp_path) == 30


def test_saving_a_step_again_replaces_it(tmp_path):
    for value in (1.0, 2.0):
        checkpoint.save(tmp_path, 7, {"x": jnp.float32(value)})
    assert float(checkpoint.restore(tmp_path, 7, {"x": jnp.float32(0)})["x"]) == 2.0


def test_relative_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint.save("here", 1, {"x": jnp.ones(3)})
    assert checkpoint.latest("here") == 1
    assert (tmp_path / "here" / "1").is_dir()


def every_file(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]


def flip_byte(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize("damage", ["empty", "half", "flip", "delete"])
def test_a_damaged_newest_checkpoint_falls_back(tmp_path, capsys, damage):
    state = {"w": jax.random.normal(jax.random.PRNGKey(0), (64, 64))}
    checkpoint.save(tmp_path, 1, state)
    checkpoint.save(tmp_path, 2, state)
    largest = max(every_file(tmp_path / "2"), key=lambda path: path.stat().st_size)
    if damage == "empty":
        largest.write_bytes(b"")
    elif damage == "half":
        os.truncate(largest, largest.stat().st_size // 2)
    elif damage == "flip":
        flip_byte(largest)
    else:
        largest.unlink()
    assert checkpoint.latest(tmp_path) == 1
    sentence = capsys.readouterr().err
    assert f"{tmp_path / '2'} is damaged" in sentence
    assert sentence.count("\n") == 1
    assert "Going back to the checkpoint before it." in sentence
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.restore(tmp_path, 2, state)
    checkpoint.save(tmp_path, 2, state)
    assert checkpoint.latest(tmp_path) == 2


def test_a_flipped_byte_in_any_file_is_found(tmp_path):
    state = {"w": jnp.arange(12.0), "key": jax.random.PRNGKey(4)}
    files = every_file(checkpoint.save(tmp_path, 1, state))
    assert len(files) > 3
    for file in files:
        whole = file.read_bytes()
        flip_byte(file)
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.restore(tmp_path, 1, state)
        file.write_bytes(whole)
    checkpoint.restore(tmp_path, 1, state)


def test_a_flipped_byte_anywhere_in_the_manifest_is_found(tmp_path):
    state = {"w": jnp.arange(12.0), "empty": jnp.zeros((0, 3))}
    manifest = checkpoint.save(tmp_path, 1, state) / "manifest.json"
    whole = manifest.read_bytes()
    for place in (*range(15), *range(15, len(whole), 7)):
        manifest.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.restore(tmp_path, 1, state)


def test_a_checkpoint_whose_numbers_mean_other_things_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    checkpoint.save(tmp_path, 3, {"a": np.ones(2)})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"format 1, this one has 3\); set resume=false to start over"):
        checkpoint.restore(tmp_path, 3, {"a": np.zeros(2)})


def test_leftovers_of_a_killed_save_are_ignored_and_removed(tmp_path):
    torn = tmp_path / "5.partial"
    torn.mkdir()
    (torn / "half").write_text("x")
    assert checkpoint.latest(tmp_path) is None
    checkpoint.save(tmp_path, 6, {"x": jnp.ones(2)})
    assert not torn.exists()


@pytest.mark.parametrize("place", ["mine.txt", "state/d/mine.txt", "beside/mine.txt", "manifest.json/mine.txt"])
def test_a_checkpoint_with_a_file_of_the_user_in_it_is_neither_removed_nor_replaced(tmp_path, place):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"a": np.ones(2)})
    for step in ("1", "2"):
        (tmp_path / step / place.split("/")[0]).unlink() if place.startswith("manifest") else None
        (tmp_path / step / place).parent.mkdir(exist_ok=True)
        (tmp_path / step / place).write_text("mine")
    with pytest.raises(CheckpointError, match=rf"2 is to be replaced and holds {place}, which no run wrote"):
        checkpoint.save(tmp_path, 2, {"a": np.ones(2)})
    for step in (3, 4, 5):
        checkpoint.save(tmp_path, step, {"a": np.ones(2)})
    assert checkpoint.steps(tmp_path) == [1, 2, 4, 5]
    assert [(tmp_path / step / place).read_text() for step in ("1", "2")] == ["mine", "mine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "4", "5"]


@pytest.mark.parametrize("torn", [False, True])
def test_a_checkpoint_in_which_only_runs_wrote_is_replaced_and_removed(tmp_path, torn):
    history = tmp_path / "history.jsonl"
    history.write_text("{}")
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"a": np.ones(2), "b": {"c": jnp.ones((3, 2))}}, [history])
        if torn:
            (tmp_path / str(step) / "manifest.json").write_text("")
    for step in (2, 3, 4):
        checkpoint.save(tmp_path, step, {"a": np.ones(2)}, [history])
    assert checkpoint.steps(tmp_path) == [3, 4]


@pytest.mark.parametrize(
    ("like", "words"),
    [
        ({"w": jnp.ones((3, 2))}, r"\['w'\] is float32\[2, 3\] in it, expected float32\[3, 2\]"),
        ({"w": jnp.ones((2, 3), jnp.int32)}, r"expected int32\[2, 3\]"),
        ({"w": jnp.ones((2, 3)), "b": jnp.ones(2)}, r"not in it, the first is \['b'\]"),
        ({}, r"not expected, the first is \['w'\]"),
    ],
)
def test_another_structure_is_refused_in_a_sentence(tmp_path, like, words):
    checkpoint.save(tmp_path, 1, {"w": jnp.ones((2, 3))})
    with pytest.raises(CheckpointError, match=words):
        checkpoint.restore(tmp_path, 1, like)


def test_what_cannot_be_saved_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="got str at \\['name'\\]"):
        checkpoint.save(tmp_path, 1, {"name": "lif"})
    with pytest.raises(CheckpointError, match="at least 0, got -1"):
        checkpoint.save(tmp_path, -1, {})
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        checkpoint.restore(tmp_path, 4, {})


@contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_takes_no_more_is_one_sentence_and_leaves_the_last_checkpoint(tmp_path, capfd, caplog):
    state = {"w": jax.random.normal(jax.random.PRNGKey(0), (64, 64))}
    checkpoint.save(tmp_path, 1, state)
    with file_size_limit(4096), pytest.raises(CheckpointError, match=r"cannot write .*: File too large; free space"):
        checkpoint.save(tmp_path, 2, state)
    assert capfd.readouterr().err == ""
    assert caplog.records == []
    assert checkpoint.latest(tmp_path) == 1
    assert_identical(checkpoint.restore(tmp_path, 1, state), state)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot write .* choose a writable folder"):
        checkpoint.save(tmp_path / "file" / "checkpoints", 1, {"x": jnp.ones(1)})


def test_a_small_state_is_saved_quickly(tmp_path):
    state = {str(i): jnp.full((50, 100), i, jnp.float32) for i in range(5)}
    seconds = []
    for step in range(5):
        start = time.perf_counter()
        checkpoint.save(tmp_path, step, state)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5, f"five saves of 100 kB took {seconds} s; about 0.03 s each is usual"
