"""Learning in a smaller network: what it learns is what the whole network learns under closed gates."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn import data, learn, resolve, store
from dsnn.assembly import smaller
from dsnn.assembly.assemble import Setup, build
from dsnn.cells import LI, LIF
from dsnn.config import (
    BayesConfig,
    Config,
    DataConfig,
    GatesConfig,
    HaltingConfig,
    ModelConfig,
    PopulationConfig,
    RunConfig,
    TrackConfig,
    TrainConfig,
)
from dsnn.learn import SviConfig
from dsnn.learn.optimizer import OptimizerConfig
from dsnn.learn.shrinking import settled
from dsnn.networks import Chain, Conv, Dense, Layer, Pool, Residual, TdBN
from dsnn.run import job, loop

RNG = np.random.default_rng(0)


def split_of(*shape: int, temporal: bool = False, n: int = 48) -> data.Split:
    x = RNG.uniform(0, 1, (n, *shape)).astype(np.float32)
    x = (x > 0.5).astype(np.float32) if temporal else x
    y = (x.reshape(n, -1)[:, :3].sum(1) > 1.5).astype(np.int32)
    part = data.Arrays(x, y)
    return data.Split(part, part, part, 2, "made", temporal)


def config_of(**parts: Any) -> Config:
    """A network without noise, so that two of them do the same."""
    usual: dict[str, Any] = {
        "model": ModelConfig(hidden=[8, 6], noise="none", surrogate="atan"),
        "bayes": BayesConfig(guide="point", samples=2),
        "gates": GatesConfig(enabled=True),
        "halting": HaltingConfig(enabled=False),
        "svi": SviConfig(kl_weight=0.3, lam=0.01, measure_every=2, shrink_epochs=[1]),
        "optimizer": OptimizerConfig(learning_rate=0.01),
        "train": TrainConfig(epochs=4, batch_size=16, steps=3, eval_every=1),
    }
    return Config(**(usual | parts))


def residual_network(in_shape: tuple[int, ...], classes: int, *, key: Any) -> Chain:
    """Channels that share a shortcut, a block, and norms."""
    one, two, three = jax.random.split(key, 3)

    def layer(shape: tuple[int, int, int], channels: int, own: Any) -> Layer:
        conv = Conv(shape, channels, key=own, bias=False)
        return Layer(conv, LIF(beta=0.9, surrogate="atan"), norm=TdBN(channels))

    readout = Dense((3, 3, 5), classes, key=three)
    return Chain(
        stem=layer(in_shape, 5, one),
        first=Residual(layer((6, 6, 5), 5, two)),
        second=Residual(layer((6, 6, 5), 5, three)),
        readout=Layer(readout, LI(beta=0.9), before=(Pool((6, 6, 5)),)),
    )


BLOCKS = ModelConfig(hidden=[6], blocks=2, noise="none", surrogate="atan")
RECURRENT = ModelConfig(hidden=[6, 5], recurrent=True, noise="none", surrogate="atan")
CONV = ModelConfig(architecture="conv", channels=[3, 4], hidden=[5], noise="none", surrogate="atan")
OWN = ModelConfig(architecture=resolve.name_of(residual_network), noise="none")

CASES: dict[str, tuple[Config, data.Split, dict[str, list[int]]]] = {
    "dense": (config_of(), split_of(7), {"input": [0, 2, 3, 6], "hidden0": [1, 5, 6], "hidden1": [0, 4]}),
    "pixels": (config_of(), split_of(4, 3), {"input": [0, 2, 3, 6, 7, 8], "hidden0": [1, 5]}),
    "mean field": (
        config_of(bayes=BayesConfig(guide="mean_field", samples=2, guide_scale=1e-6)),
        split_of(7),
        {"input": [1, 2], "hidden1": [0, 3]},
    ),
    "blocks": (config_of(model=BLOCKS), split_of(7), {"hidden0": [0, 2, 3], "blocks": [1]}),
    "recurrent": (config_of(model=RECURRENT), split_of(4, 5, temporal=True), {"input": [1, 4], "hidden0": [0, 2, 3]}),
    "conv": (
        config_of(model=CONV, gates=GatesConfig(enabled=True, features=True)),
        split_of(16, 16),
        {"conv0": [0, 2], "conv1": [1, 3], "hidden0": [0, 4]},
    ),
    "residual": (config_of(model=OWN), split_of(6, 6, 1), {"stem": [0, 3, 4], "residual": [1]}),
}


def begun(name: str) -> tuple[Setup, Any, dict[str, np.ndarray]]:
    """A setup, its first state with every other site surely open, and the sites that stay."""
    config, split, given = CASES[name]
    setup = build(config, split)
    keep = {group: np.asarray(sites) for group, sites in given.items()}
    state = setup.learner.init()
    gates = setup.bayesian.gates
    assert gates is not None
    count, (params, rest) = state.svi.optim_state
    params = gates.decide(params, jnp.ones(gates.sites.total, bool))
    state = state._replace(svi=state.svi._replace(optim_state=(count, (params, rest))))
    return setup, settled(setup.bayesian, state, keep), keep


def learned(phase: Any, setup: Setup, state: Any) -> Any:
    batch = learn.Batch(jnp.asarray(setup.split.train.x), jnp.asarray(setup.split.train.y))
    (epoch,) = learn.fit_program(phase.run, setup.settings, phase.narrow(state), batch, epochs=1)
    return phase.expand(state, epoch.state), epoch.info


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in ("residual", "recurrent") else ()) for name in CASES]
)
def test_a_smaller_network_learns_what_the_whole_one_learns_under_closed_gates(name: str) -> None:
    setup, state, keep = begun(name)
    whole = smaller.Phase(learn.compiled(learn.epoch_program(setup.family, setup.config.train.batch_size)))
    phase, left = smaller.phase_of(setup, state, keep, 0)
    ours, told = learned(phase, setup, state)
    theirs, said = learned(whole, setup, state)
    stays = phase.narrow(jax.tree.map(lambda leaf: jnp.ones(jnp.shape(leaf), bool), theirs, is_leaf=_is_key))
    mask = phase.expand(jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf), bool), theirs, is_leaf=_is_key), stays)
    changed = 0
    for path, stay in jax.tree_util.tree_flatten_with_path(mask)[0]:
        if "rng_key" in jax.tree_util.keystr(path):
            continue
        own, other, before = (np.asarray(_at(tree, path)) for tree in (ours, theirs, state))
        stay = np.asarray(stay)
        np.testing.assert_allclose(own[stay], other[stay], rtol=2e-4, atol=2e-6, err_msg=jax.tree_util.keystr(path))
        np.testing.assert_array_equal(own[~stay], before[~stay])
        changed += int((own != before).sum())
    assert changed > 50
    np.testing.assert_allclose(told.energy_nj, said.energy_nj, rtol=1e-5)
    np.testing.assert_allclose(told.kept_fraction, said.kept_fraction, rtol=1e-6)
    assert left.left_nj > 0


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _at(tree: Any, path: Any) -> Any:
    return dict(jax.tree_util.tree_flatten_with_path(tree)[0])[path]


def test_macs_are_those_that_the_whole_network_is_priced_by() -> None:
    setup, state, keep = begun("conv")
    small = smaller.phase_of(setup, state, keep, 0)[1]
    # conv 5 x 5 valid of 16 x 16 once, 5 x 5 of 6 x 6 at three steps, 4 values to 5 neurons to 2 outputs
    assert smaller.forward_macs(setup.sites, 3) == 12 * 12 * 25 * 3 + 3 * (2 * 2 * 25 * 3 * 4 + 4 * 5 + 5 * 2)
    assert small.macs == 12 * 12 * 25 * 2 + 3 * (2 * 2 * 25 * 2 * 2 + 2 * 2 + 2 * 2)


def run_config(folder: Path, **parts: Any) -> Config:
    svi = SviConfig(
        kl_weight=0.1,
        budget_sites={"input": 8, "hidden0": 4},
        budget_fall_fraction=0.3,
        decide_fraction=0.5,
        measure_every=2,
        shrink_epochs=[2, 4],
        shrink_below=0.2,
    )
    return Config(
        seed=1,
        run=RunConfig(root=str(folder), report=False),
        track=TrackConfig(wandb="disabled"),
        data=DataConfig(name="two-moons"),
        model=ModelConfig(hidden=[12, 8]),
        bayes=BayesConfig(guide="point", samples=2),
        gates=GatesConfig(enabled=True),
        halting=HaltingConfig(enabled=False),
        svi=dataclasses.replace(svi, budget_sites={"hidden0": 4, "hidden1": 3}),
        optimizer=OptimizerConfig(learning_rate=0.02),
        train=TrainConfig(epochs=6, batch_size=64, steps=3, eval_every=1),
        baseline="none",
        **parts,
    )


@pytest.mark.slow
def test_a_run_that_shrinks_is_whole_afterwards_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    config = run_config(tmp_path / "whole")
    directory, metrics = job.run(config)
    shrunk = store.read_arrays(directory, loop.SHRUNK)
    assert [epoch for epoch, _ in shrunk["phases"]] == [2, 4]
    assert len(shrunk["keep/hidden0"]) == 4
    assert len(shrunk["keep/hidden1"]) == 3
    assert metrics["gates/hidden0/total"] == 12
    assert metrics["gates/hidden0/kept"] == 4
    assert store.read_arrays(directory, "gates.npz")["hidden0"].shape == (12,)
    macs = [12 * 2 + 3 * (12 * 8 + 8 * 2), *(each for _, each in shrunk["phases"])]
    share = sum(macs) / 3 / macs[0]  # two epochs each
    assert metrics["training/macs_share"] == pytest.approx(share)
    assert metrics["training/operations"] == pytest.approx(6 * share * macs[0] * 6 * metrics_examples(directory))

    again = run_config(tmp_path / "stopped")
    for stop in (4, 5):  # before the second time that sites leave is kept, and after
        with pytest.raises(loop.Pruned):
            job.run(again, watch=lambda epoch, _, stop=stop: epoch > stop)
    resumed, other = job.run(again)
    for name in ("parameters.npz", "gates.npz", loop.SHRUNK):
        ours, theirs = store.read_arrays(resumed, name), store.read_arrays(directory, name)
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours), name
    assert other["test/accuracy"] == metrics["test/accuracy"]


def metrics_examples(directory: Path) -> int:
    return len(dsnn.data.load("two-moons", seed=1).train.x)


def test_a_fit_shrinks_as_a_run_does() -> None:
    x, y = CASES["dense"][1].train
    options = {"hidden": (12,), "steps": 3, "epochs": 6, "baseline": "none", "halting": False, "held_out": 0.0}
    config = Config(svi=SviConfig(budget_sites={"hidden0": 3}, decide_fraction=0.5, shrink_epochs=[4]))
    fitted = dsnn.fit(x, y, config=config, **options)
    assert int((fitted.gates["hidden0"] > 0.5).sum()) == 3
    assert fitted.params["hidden0.synapse.kernel.loc"].shape == (7, 12)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"gates": GatesConfig(enabled=False)}, "got no gates"),
        ({"svi": SviConfig(shrink_epochs=[2]), "population": PopulationConfig(size=2)}, "got a population"),
        ({"svi": SviConfig(shrink_epochs=[1, 4])}, "before the last of train.epochs=4, got 4"),
    ],
)
def test_what_cannot_shrink_gets_a_sentence(parts: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config_of(**parts)


def test_a_guide_without_a_number_for_each_weight_gets_a_sentence() -> None:
    x, y = CASES["dense"][1].train
    with pytest.raises(ValueError, match="says something of each weight by itself, got a guide with"):
        dsnn.fit(x, y, guide="low_rank", config=Config(svi=SviConfig(shrink_epochs=[1])), epochs=2, baseline="none")


@pytest.mark.parametrize(("option", "value"), [("shrink_epochs", [0]), ("shrink_below", 0.0), ("shrink_below", 0.7)])
def test_options_out_of_range_get_a_sentence(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"svi.{option} must be"):
        SviConfig(**{option: value})
