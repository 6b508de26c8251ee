"""Populations: each member is the single run of its settings, one that fails leaves the others, and one can go on."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sweeping import TINY, timeless

from dsnn import learn, store
from dsnn.config import Config
from dsnn.run import job, loop, machine, population, schema
from dsnn.store import checkpoint


def composed(*overrides: str) -> Config:
    return schema.compose([*TINY, *overrides])


def test_seeds_count_up_unless_something_else_differs() -> None:
    assert [c.seed for c in population.members(composed("population.size=3", "seed=5"))] == [5, 6, 7]
    some = population.members(composed("population.size=2", "population.lam=[0.01,0.1]", "seed=5"))
    assert [(c.seed, c.svi.lam) for c in some] == [(5, 0.01), (5, 0.1)]
    both = population.members(
        composed("population.size=2", "population.seeds=[3,4]", "population.noise_width=[0.1,0.3]")
    )
    assert [(c.seed, c.model.noise_width) for c in both] == [(3, 0.1), (4, 0.3)]


def test_a_member_has_the_name_of_its_single_run(tmp_path: Path) -> None:
    root = f"run.root={tmp_path}"
    members = population.members(composed("population.size=2", "population.learning_rate=[0.001,0.002]", root))
    assert job.directory_of(members[1]) == job.directory_of(composed("optimizer.learning_rate=0.002", root))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["population.size=3", "population.lam=[0.1]"], "population.lam must have one value for each of the 3 members"),
        (["population.size=0"], "population.size must be at least 1"),
        (["population.size=2", "population.seeds=[1,1]"], "members must differ, got the same settings for 0 and 1"),
        (["population.size=2", "run.dir=here"], "got run.dir=here; name their common folder with run.root=DIR"),
        (["population.size=2", "population.lam=[0.1,-1]"], "population.lam must not be negative"),
    ],
)
def test_a_population_that_cannot_be_meant_gets_a_sentence(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", "\\(")):
        population.members(composed(*overrides))


@pytest.mark.parametrize("mapped", ["scan", pytest.param("vmap", marks=pytest.mark.slow)])
def test_members_equal_their_single_runs(mapped: str) -> None:
    varied = ["population.size=2", "population.learning_rate=[0.001,0.01]", "population.noise_width=[0.1,0.3]"]
    varied += ["population.prior_scale=[0.5,2.0]", "population.lam=[0.3,0.01]", "population.seeds=[1,2]"]
    configs = population.members(composed(*varied))
    setups = [
        job.build(dataclasses.replace(c, population=dataclasses.replace(c.population, mapped=mapped))) for c in configs
    ]
    losses = {}
    for name, group in {"all": setups, "one": setups[:1], "two": setups[1:]}.items():
        together = population.together(group, None)
        epochs = learn.fit_program(together.run, together.settings, together.init(), together.arrays, epochs=2)
        of = [[together.of(epoch.info, k).loss for k in range(len(group))] for epoch in epochs]
        losses[name] = np.array(of)
    alone = np.concatenate([losses["one"], losses["two"]], 1)
    np.testing.assert_allclose(losses["all"], alone, rtol=0, atol=0 if mapped == "scan" else 1e-4)
    assert np.abs(alone[:, 0] - alone[:, 1]).min() > 1e-4


TWO_DEVICES = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
import jax.numpy as jnp
from dsnn.run import job, population, schema
config = schema.compose([*sys.argv[1:], "population.size=3"])
setups = [job.build(one) for one in population.members(config)]
found = {}
for name, group in {"all": setups, "last": setups[2:]}.items():
    together = population.together(group, None)
    state = together.init()
    for epoch in range(2):
        state, info = together.run(together.settings, state, together.arrays, jnp.asarray(epoch))
    found[name] = [together.of(info, k).loss.tolist() for k in range(len(group))]
    places = {device.id for leaf in jax.tree.leaves(state) for device in leaf.devices()}
    found[name + " places"] = sorted(places)
assert found["all places"] == [0, 1] and found["last places"] == [0]
assert found["all"][2] == found["last"][0] and found["all"][0] != found["all"][2]
"""


@pytest.mark.slow
def test_members_on_two_devices_are_their_single_runs_bit_for_bit() -> None:
    done = subprocess.run([sys.executable, "-c", TWO_DEVICES, *TINY], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_setting_reaches_the_program() -> None:
    first = job.build(composed())
    together = population.together([first], None)
    run, init = together.run, jax.jit(lambda settings: first.family(settings).init())
    _, base = run(together.settings, init(together.settings), together.arrays, jnp.asarray(0))
    for name, value in {"learning_rate": 0.05, "lam": 3.0, "noise_width": 0.5, "prior_scale": 0.1}.items():
        settings = together.settings._replace(**{name: jnp.asarray(value)})
        _, info = run(settings, init(settings), together.arrays, jnp.asarray(0))
        assert np.abs(info.loss - base.loss).max() > 1e-5, name


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "use_cache", lambda folder: None)


@pytest.mark.slow
@pytest.mark.usefixtures("no_cache")
def test_a_failing_member_leaves_the_others_and_a_stopped_population_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = ["population.size=2", "population.learning_rate=[0.003,1e30]", f"run.root={tmp_path}"]
    config = composed(*sizes)
    good, bad = (job.directory_of(member) for member in population.members(config))
    with pytest.raises(learn.TrainingError, match="1 of 2 members failed; the first: the loss must stay finite"):
        job.run(config)
    assert store.is_done(good)
    assert not store.is_done(bad)
    assert "the loss must stay finite, got nan at step" in (bad / store.FAILED).read_text()
    assert store.read_metrics(good)["population/size"] == 2

    record, whole = loop.Member.record, timeless(good)

    def stop(self: loop.Member, state: object, info: object, epoch: int) -> dict:
        if epoch == 4:
            raise KeyboardInterrupt
        return record(self, state, info, epoch)

    again = composed("population.size=2", "population.learning_rate=[0.003,0.004]", f"run.root={tmp_path}/again")
    places = [job.directory_of(member) for member in population.members(again)]
    monkeypatch.setattr(loop.Member, "record", stop)
    with pytest.raises(KeyboardInterrupt):
        job.run(again)
    assert [checkpoint.latest(place / "checkpoints") for place in places] == [3, 3]
    monkeypatch.setattr(loop.Member, "record", record)
    job.run(again)
    assert timeless(places[0]) == whole
    assert all(store.is_done(place) for place in places)
