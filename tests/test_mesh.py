"""One run on many devices: forced host devices and two real processes learn what one device learns."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from sweeping import TINY

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
losses = [np.asarray(jax.device_get(epoch.info.loss)).tolist() for epoch in epochs]
state = together.init()
member = loop.Member(setup, None)
probs = member.predict(setup.params(together.of(state, 0)), setup.split.val.x[:64], setup.root, samples=5).probs
if jax.process_index() == 0:
    found = {"loss": losses, "probs": np.asarray(probs).tolist(), "devices": jax.device_count()}
    json.dump(found, open(sys.argv[1], "w"))
"""


def curve(out: Path, *overrides: str, processes: int = 1) -> dict:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = [f"compute.coordinator=127.0.0.1:{port}", f"compute.processes={processes}"] if processes > 1 else []
    command = [sys.executable, "-c", CURVE, str(out), *TINY, *together, *overrides]
    started = [
        subprocess.Popen(
            [*command, *([f"compute.process={k}"] if together else [])],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for k in range(processes)
    ]
    for process in started:
        said = process.communicate(timeout=300)[0].decode()
        assert process.returncode == 0, said
    return json.loads(out.read_text())


@pytest.mark.parametrize(
    ("kind", "overrides", "processes"),
    [
        ("data", ["compute.host_devices=4"], 1),
        pytest.param("samples", ["compute.host_devices=4"], 1, marks=pytest.mark.slow),
        ("data", [], 2),
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


def test_work_that_cannot_be_dealt_out_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jax.device_count", lambda: 4)
    with pytest.raises(ValueError, match=r"train.batch_size must be a multiple of the 4 devices .* got 30; .*=32"):
        mesh.spread("data", batch_size=30, particles=1)
    with pytest.raises(ValueError, match=r"svi.particles must be a multiple of the 4 devices .* got 6; .*=8"):
        mesh.spread("samples", batch_size=30, particles=6)
    assert mesh.spread("none", batch_size=30, particles=1) is None
