"""Checkpoints of what is dealt out over devices: written by shard, read on any number of devices and processes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sweeping import door, ran
from test_mesh import POINTS, joined, side_by_side

from dsnn import store

STATE = """
import json, sys
from pathlib import Path
import jax, jax.numpy as jnp, numpy as np
from dsnn.learn import mesh
from dsnn.store import checkpoint

does, folder, split, devices, *peers = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", int(devices))
if peers:
    host, count, number = (word.partition("=")[2] for word in peers)
    mesh.join(host, int(count), int(number))
spread = mesh.spread(split, batch_size=8, particles=1)
begin = lambda: {
    "kernel": jnp.arange(256 * 512, dtype=jnp.float32).reshape(256, 512),
    "bias": jnp.arange(512, dtype=jnp.float32),
    "narrow": jnp.arange(7), "key": jax.random.key(3), "step": jnp.asarray(11), "empty": jnp.zeros((0, 4)),
}
state = jax.jit(lambda: spread.dealt(begin()))() if spread else begin()
if does == "save":
    checkpoint.save(folder, 4, state)
else:
    like = jax.tree.map(jnp.zeros_like, state)
    found = checkpoint.restore(folder, checkpoint.latest(folder), like)
    for name, leaf in found.items():
        assert leaf.sharding == like[name].sharding, name
        value, wanted = leaf, begin()[name]
        if name == "key":
            value, wanted = jax.random.key_data(leaf), jax.random.key_data(wanted)
        for shard in value.addressable_shards:
            np.testing.assert_array_equal(shard.data, np.asarray(wanted)[shard.index])
    assert not spread or found["kernel"].addressable_data(0).size * jax.device_count() == found["kernel"].size
print(jax.device_count())
"""


def does(what: str, folder: Path, split: str, devices: int, processes: int = 1) -> None:
    command = [sys.executable, "-c", STATE, what, str(folder), split, str(devices)]
    side_by_side([[*command, *words] for words in joined(processes)])


@pytest.mark.slow
def test_a_checkpoint_of_four_devices_is_restored_on_one_and_on_two(tmp_path: Path) -> None:
    does("save", tmp_path, "model", 4)
    chunks = json.loads((tmp_path / "4" / "state" / "_METADATA").read_text())
    assert "kernel" in str(chunks)
    does("restore", tmp_path, "none", 1)
    does("restore", tmp_path, "model", 2)


@pytest.mark.slow
def test_two_processes_write_one_checkpoint_that_one_restores(tmp_path: Path) -> None:
    does("save", tmp_path, "model", 1, processes=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4"]  # nothing half-written is left
    does("restore", tmp_path, "none", 1)
    does("restore", tmp_path, "model", 1, processes=2)


@pytest.mark.slow
def test_a_run_on_four_devices_goes_on_with_two(tmp_path: Path) -> None:
    same = [*POINTS, "model.hidden=[256]", "train.epochs=40", "baseline=none", "compute.split=model"]
    ran(*same[:-1], f"run.dir={tmp_path / 'whole'}")
    moved = [*same, f"run.dir={tmp_path / 'moved'}"]
    with subprocess.Popen(door(*moved, "compute.host_devices=4"), stdout=subprocess.PIPE, text=True) as four:
        assert four.stdout is not None
        for line in four.stdout:
            if line.startswith("epoch 4/"):
                four.send_signal(signal.SIGINT)
    assert four.returncode == 128 + signal.SIGINT
    assert "going on after epoch" in ran(*moved, "compute.host_devices=2")
    one, two = ([record["train/loss"] for record in store.read_history(tmp_path / name)] for name in ("whole", "moved"))
    assert len(one) == 20
    assert one == pytest.approx(two, abs=1e-4)
