"""One run on many devices: forced host devices and two real processes learn what one device learns."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sweeping import TINY, door

from dsnn.learn import mesh

CURVE = """
import json, sys
import jax, numpy as np
from dsnn import learn
from dsnn.run import job, loop, machine, population, schema
config = schema.compose(sys.argv[2:])
machine.prepare(config)
setup = job.build(config)
together = population.together([setup], setup.spread)
epochs = learn.fit_program(together.run, together.settings, together.init(), together.arrays, epochs=2)
losses = []
for epoch in epochs:
    losses.append(np.asarray(jax.device_get(epoch.info.loss)).tolist())
state = together.init()
member = loop.Member(setup, None)
probs = member.predict(setup.params(together.of(state, 0)), setup.split.val.x[:64], setup.root, samples=5).probs
arrays = [a for a in jax.tree.leaves(epoch.state) if not jax.numpy.issubdtype(a.dtype, jax.dtypes.prng_key)]
held = {}
for shard in (shard for array in arrays for shard in array.addressable_shards):
    held[shard.device.id] = held.get(shard.device.id, 0) + shard.data.nbytes
if jax.process_index() == 0:
    found = {"loss": losses, "probs": np.asarray(probs).tolist(), "devices": jax.device_count()}
    found |= {"held": list(held.values()), "all": sum(array.nbytes for array in arrays)}
    json.dump(found, open(sys.argv[1], "w"))
"""

WIDE = ["model.hidden=[512,256]", "svi.particles=2"]
"""A network that can be dealt out, and as many particles as two devices share."""

POINTS = ["learner=map", "gates.enabled=false", "halting.enabled=false"]
"""Learning that compiles soon."""


def joined(processes: int) -> list[list[str]]:
    """Returns for each of some processes what tells it of the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = [f"compute.coordinator=127.0.0.1:{port}", f"compute.processes={processes}"]
    return [[*together, f"compute.process={k}"] if processes > 1 else [] for k in range(processes)]


def side_by_side(commands: list[list[str]], **environment: str) -> list[str]:
    """Runs commands at the same time, and returns what each said."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "env": {**os.environ, **environment}}
    started = [subprocess.Popen(one, **pipes) for one in commands]
    said = [process.communicate(timeout=600)[0].decode() for process in started]
    assert [process.returncode for process in started] == [0] * len(started), said
    return said


def curve(
    out: Path, *overrides: str, processes: int = 1, options: tuple[str, ...] = tuple(TINY), **environment: str
) -> dict:
    command = [sys.executable, "-c", CURVE, str(out), *options, *overrides]
    side_by_side([[*command, *words] for words in joined(processes)], **environment)
    return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "overrides", "processes"),
    [
        ("data", ["compute.host_devices=4"], 1),
        pytest.param("samples", ["compute.host_devices=4"], 1, marks=pytest.mark.slow),
        pytest.param("data", [], 2, marks=pytest.mark.slow),
        pytest.param("samples", [], 2, marks=pytest.mark.slow),
    ],
)
def test_many_devices_learn_what_one_learns(kind: str, overrides: list[str], processes: int, tmp_path: Path) -> None:
    same = ["svi.particles=4"] if kind == "samples" else []
    one = curve(tmp_path / "one.json", *same)
    many = curve(tmp_path / "many.json", *same, f"compute.split={kind}", *overrides, processes=processes)
    assert (one["devices"], many["devices"]) == (1, 4 if overrides else 2)
    for ours, theirs in zip(one["loss"], many["loss"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    for ours, theirs in zip(one["probs"], many["probs"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    assert one["loss"][0][0] != one["loss"][1][0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "overrides", "processes"),
    [("none", [], 1), ("data", ["compute.host_devices=4"], 1), ("data", [], 2), ("model", [], 2)],
)
def test_data_that_are_read_as_they_are_used_teach_the_same(
    split: str, overrides: list[str], processes: int, tmp_path: Path
) -> None:
    one = curve(tmp_path / "one.json")
    more = [f"compute.split={split}", "data.stream=always", *overrides]
    many = curve(tmp_path / "many.json", *more, processes=processes)
    if split == "none":
        assert one["loss"] == many["loss"]
        assert one["probs"] == many["probs"]
    agree(one, many)


def agree(one: dict, many: dict, within: float = 1e-4) -> None:
    """Holds losses to so many nats."""
    for ours, theirs in zip(one["loss"], many["loss"], strict=True):
        assert ours == pytest.approx(theirs, abs=within)


@pytest.mark.parametrize(
    ("split", "devices", "processes", "most", "learner"),
    [
        ("model", 4, 1, 0.3, POINTS),
        pytest.param("data:2+model:2", 4, 1, 0.55, [], marks=pytest.mark.slow),
        pytest.param("samples:2+model", 4, 1, 0.55, [], marks=pytest.mark.slow),
        pytest.param("model", 0, 2, 0.55, [], marks=pytest.mark.slow),
        pytest.param("data+model:2", 2, 2, 0.55, POINTS, marks=pytest.mark.slow),
    ],
)
def test_wide_parameters_are_dealt_out_and_learn_the_same(
    split: str, devices: int, processes: int, most: float, learner: list[str], tmp_path: Path
) -> None:
    # of drawn weights in single precision one spike of many may fall otherwise where sums have another order
    within, environment = (1e-4, {}) if learner else (1e-9, {"JAX_ENABLE_X64": "1"})
    one = curve(tmp_path / "one.json", *WIDE, *learner, **environment)
    dealt = [f"compute.split={split}", *([f"compute.host_devices={devices}"] if devices else [])]
    many = curve(tmp_path / "many.json", *WIDE, *learner, *dealt, processes=processes, **environment)
    agree(one, many, within)
    assert many["devices"] == max(devices, 1) * processes
    assert len(many["held"]) == max(devices, 1)
    assert max(many["held"]) <= most * many["all"]


@pytest.mark.slow  # 50 million parameters for five steps, once on one device
def test_four_devices_hold_a_quarter_of_fifty_million_parameters(tmp_path: Path) -> None:
    large = (*POINTS, "model.hidden=[8192,6144]", "train.steps=2", "train.batch_size=512", "track.wandb=disabled")
    one = curve(tmp_path / "one.json", options=large)
    many = curve(tmp_path / "many.json", "compute.split=model", "compute.host_devices=4", options=large)
    agree(one, many)
    assert one["all"] >= 50e6 * 3 * 4  # parameters and two moments of single precision
    assert one["held"] == [one["all"]]
    assert max(many["held"]) <= 0.3 * many["all"]


LOCAL = """
import sys
import jax, numpy as np
from dsnn.learn import mesh
jax.config.update("jax_num_cpu_devices", 2)
mesh.join(sys.argv[1], 2, int(sys.argv[2]))
whole = np.arange(24.0).reshape(8, 3), np.arange(8)
for split, reads in (("data", 2), ("data:2+model", 2), ("model", 1)):
    spread = mesh.spread(split, batch_size=8, particles=1)
    part, parts = spread.part()
    assert parts == reads, parts
    rows = slice(part * 8 // parts, (part + 1) * 8 // parts)
    x, y = spread.from_local(tuple(array[rows] for array in whole))
    assert x.shape == (8, 3) and y.shape == (8,)
    for array, values in ((x, whole[0]), (y, whole[1])):
        for shard in array.addressable_shards:
            np.testing.assert_array_equal(shard.data, values[shard.index])
    same = jax.jit(lambda x: (x * np.arange(1, 9)[:, None]).sum(0))(x)
    np.testing.assert_allclose(mesh.local(spread.replicated(mesh.local(same))), np.arange(1, 9) @ whole[0])
"""


CLUSTER = """
import jax
from dsnn.learn import mesh
mesh.join("auto", 1, 0)
assert jax.process_count() == 2 and mesh.agreed(jax.process_index()) == 1
"""


def test_processes_that_slurm_starts_find_each_other() -> None:
    slurm = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CLUSTER],
            env={**os.environ, **slurm, "SLURM_PROCID": str(k), "SLURM_LOCALID": str(k)},
        )
        for k in range(2)
    ]
    assert [process.wait(120) for process in started] == [0, 0]


def test_two_processes_make_a_batch_of_their_own_rows() -> None:
    told = [[words[0].partition("=")[2], str(k)] for k, words in enumerate(joined(2))]
    side_by_side([[sys.executable, "-c", LOCAL, *words] for words in told])


BY_HAND = """
import jax, jax.numpy as jnp
from dsnn.learn import mesh
jax.config.update("jax_num_cpu_devices", 4)
every, spread = jax.devices(), lambda split: mesh.spread(split, batch_size=8, particles=4)

for split, mine, part in (
    ("data:4", [1], (1, 4)),
    ("data:4", [2, 3], (1, 2)),
    ("data:2+model:2", [0, 1], (0, 2)),
    ("data:2+model", [3], (1, 2)),
    ("samples:2+model:2", [3], (0, 1)),
    ("data:2+samples:2", [0, 1, 2, 3], (0, 1)),
):
    jax.local_devices = lambda mine=mine: [every[k] for k in mine]
    assert spread(split).part() == part, (split, spread(split).part())

shapes = {
    "wide": jax.ShapeDtypeStruct((784, 512), jnp.float32),  # its longest axis
    "square": jax.ShapeDtypeStruct((256, 256), jnp.float32),  # the last of equal ones
    "odd": jax.ShapeDtypeStruct((130, 10), jnp.float32),  # 130 is no multiple of 4
    "narrow": jax.ShapeDtypeStruct((100, 4), jnp.float32),
    "key": jax.eval_shape(lambda: jax.random.key(0)),
    "step": jax.ShapeDtypeStruct((), jnp.int32),
}
row = spread("model")
assert row.home(shapes["wide"]).spec == jax.P("model")
assert row.home(shapes["square"]).spec == jax.P(None, "model")
whole, dealt = 4 * (130 * 10 + 100 * 4 + 2 + 1), 4 * (784 * 512 + 256 * 256)
assert row.held(shapes) == (dealt // 4 + whole, dealt + whole, whole), row.held(shapes)
assert spread("data").held(shapes) == (dealt + whole, dealt + whole, dealt + whole)
"""


def test_what_a_device_holds_and_a_process_reads_is_counted_by_hand() -> None:
    side_by_side([[sys.executable, "-c", BY_HAND]])


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("rows", r"joined by \+, .* got 'rows'; data:2\+model:2 are four"),
        ("data+data", "each once, .* got 'data\\+data'"),
        ("data:0", "got 'data:0'"),
        ("data:two+model", "got 'data:two\\+model'"),
        ("data+model", r"at most one axis without a number, got 'data\+model'; data:2\+model has two rows"),
    ],
)
def test_a_split_that_is_none_gets_a_sentence(split: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mesh.axes(split)
    assert mesh.axes("model+data:2") == {"data": 2, "model": 0}
    assert mesh.axes("none") == {}


def test_work_that_cannot_be_dealt_out_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.device_count", lambda: 4)
    with pytest.raises(ValueError, match=r"train.batch_size must be a multiple of the 4 devices .* got 30; .*=32"):
        mesh.spread("data", batch_size=30, particles=1)
    with pytest.raises(ValueError, match=r"svi.particles must be a multiple of the 4 devices .* got 6; .*=8"):
        mesh.spread("samples", batch_size=30, particles=6)
    assert mesh.spread("none", batch_size=30, particles=1) is None
    with pytest.raises(ValueError, match=r"as many devices as there are, 4, got 'data:2' for 2; leave one number out"):
        mesh.spread("data:2", batch_size=32, particles=1)
    with pytest.raises(ValueError, match=r"as many devices as there are, 4, got 'data:3\+model' for 3"):
        mesh.spread("data:3+model", batch_size=30, particles=1)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["never", "always"])
def test_a_process_that_sees_fewer_examples_ends_all_with_a_sentence(how: str, tmp_path: Path) -> None:
    started, environment = [], {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    for count, words in zip((96, 80), joined(2), strict=True):
        here = tmp_path / str(count)
        (here / "own").mkdir(parents=True)
        for part, many in (("train", count), ("test", 20)):
            np.save(here / "own" / f"x_{part}.npy", np.random.default_rng(0).normal(size=(many, 3)))
            np.save(here / "own" / f"y_{part}.npy", np.arange(many) % 2)
        own = ["data=npy", "data.path=own", f"data.stream={how}", f"run.dir={tmp_path / 'run'}", "compute.split=data"]
        command = door(*POINTS, *own, *words)
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started.append(subprocess.Popen(command, cwd=here, env=environment, **pipe))
    said = [process.communicate(timeout=300)[0].decode() for process in started]
    assert [process.returncode for process in started] == [1, 1], said
    for one in said:
        assert "every process must see the same training examples, got 77, 64; give all of them the same" in one
        assert "Traceback" not in one
