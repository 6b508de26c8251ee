"""Every configuration composes, builds and takes a step; every mistake on the command line gets a sentence."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn import data, energy, learn, parameters
from dsnn.assembly.network import build_model
from dsnn.config import CELLS, BayesConfig, Config, DataConfig, ModelConfig
from dsnn.config import model as model_config
from dsnn.deploy import activity
from dsnn.run import job, reproduce, schema, usage
from dsnn.simulate.simulator import keep_spikes
from dsnn.store import places

EXPERIMENTS = sorted(path.stem for path in (places.CONF / "experiment").glob("*.yaml"))
RUNS = sorted(
    {
        tuple(claim.run)
        for name in reproduce.papers()
        for claim in reproduce.read_paper(places.file("paper", name)).claims
        if claim.run and not all(o.startswith(("experiment=", "seed=")) for o in claim.run)  # tried as experiments
    }
)


def composed(*overrides: str) -> Config:
    return schema.compose(overrides)


@pytest.fixture(autouse=True, scope="module")
def _reads_once() -> Iterator[None]:
    """Experiments on the same data stand beside each other, and reading takes longer than building."""
    load, kept = data.load, {}

    def loaded(*given: Any, **options: Any) -> data.Split:
        asked = repr((given, options))
        if asked not in kept:
            if len(kept) == 3:
                del kept[next(iter(kept))]
            kept[asked] = load(*given, **options)
        return kept[asked]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", loaded)
        yield


STEPPED = ("convert_bayes", "digits", "mnist_conv_structure", "own")
"""Experiments of unlike networks and learners: the steps of all are taken by the slow tests."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in STEPPED)) for name in EXPERIMENTS]
)
def test_every_experiment_takes_a_step(name: str) -> None:
    if name.startswith("guides_") and name != "guides_mean_field":
        pytest.skip("one network under another guide each, whose steps are taken in the tests of guides")
    takes_a_step(f"experiment={name}")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_builds_a_learner(name: str) -> None:
    config = composed(f"experiment={name}")
    first = jax.eval_shape(built(config).learner.init)
    assert jax.tree.leaves(first), "a learner without anything to learn"
    assert config.experiment == name


@pytest.mark.parametrize("overrides", RUNS, ids=" ".join)
def test_every_run_of_a_paper_composes_builds_and_takes_a_step(overrides: tuple[str, ...]) -> None:
    takes_a_step(*overrides)


def test_examples_can_stop_early_in_a_network_without_gates() -> None:
    takes_a_step("experiment=digits", "gates.enabled=false", "svi.budget_fraction=0.5", "halting.fit=training")


def built(config: Config) -> job.Setup:
    """Returns what a configuration builds, where its data are to be had."""
    try:
        return job.build(config)
    except data.DataError as error:
        pytest.skip(str(error))


def takes_a_step(*overrides: str) -> Config:
    config = composed(*overrides, "train.batch_size=2", "train.steps=2")
    setup = built(config)
    if isinstance(setup.split.train.x, np.ndarray):
        batch = learn.Batch(jnp.asarray(setup.split.train.x[:2]), jnp.asarray(setup.split.train.y[:2]))
    else:
        batch = learn.Batch(*data.take(setup.split.train, np.arange(2)))
    state = jax.jit(setup.learner.init)()
    _, info = jax.jit(setup.learner.step)(state, batch)
    assert jnp.isfinite(info.loss)
    return config


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_states_command_time_and_result(name: str) -> None:
    assert usage.experiments()[name].keys() >= {"title", "command", "time", "expected"}


def test_defaults_live_in_the_dataclasses() -> None:
    assert composed("experiment=digits").model == ModelConfig()
    assert composed("data=mnist").data.name == "mnist"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", "'train.epoch' is not an option; did you mean 'train.epochs'"),
        ("epochs=3", "did you mean 'train.epochs'"),
        ("experiment=digit", "got 'digit'; did you mean 'digits'"),
        ("data=minst", "did you mean 'mnist'"),
        ("seed 3", "given as name=value, got 'seed 3'"),
        ('optimizer.factors={"*.tau": 1}', "keys of a dictionary never are, 'optimizer.factors={key: 1}'"),
        ("track.project=(a)", "text with special characters is quoted, 'track.project=\"(text)\"'"),
    ],
)
def test_unknown_options_name_the_nearest(override: str, message: str) -> None:
    with pytest.raises(usage.UsageError, match=re.escape(message)):
        usage.check([override])


def test_layers_of_a_stack_are_none_of_a_network_of_the_zoo() -> None:
    with pytest.raises(usage.UsageError, match=r"mlp and conv, got model.hidden=\[9\] with model.architecture=csnn"):
        usage.check(["model.hidden=[9]", "model.architecture=csnn"])
    usage.check(["model.hidden=[9]", "model.architecture=mlp"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=-1", "seed must be a non-negative integer, got -1"),
        ("train.epochs=-1", "train.epochs must be at least 1, or 0 for automatic, got -1"),
        ("optimizer.factors=3", "^optimizer.factors=3: Cannot assign int to Dict"),
        ("model.beta=1.3", "model.beta must be in \\[0, 1\\], got 1.3"),
        ("track.wandb=of", "track.wandb must be one of auto, offline, online, disabled, got 'of'"),
        ("gates.open_probability=1", "got 1.0"),
        ("energy.profile=abacus", "abacus"),
        ("data=npz", "give data.path=PATH"),
        ("bayes.guide=meanfield", "bayes.guide must be one of point, mean_field, .* got 'meanfield'"),
        ("bayes.dropout=1", "bayes.dropout must be in \\(0, 1\\), got 1.0"),
        ("bayes.members=1", "at least 2, got 1"),
        ("bayes.rare_inputs=0.5", "at least 1 and finite, got 0.5"),
        ("train.schedule=steps", "train.schedule must be one of auto, layer, step, .* got 'steps'"),
        ("model.products=float16", "model.products must be one of float32, bfloat16, got 'float16'"),
    ],
)
def test_values_out_of_range_stop_before_any_work(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        composed(override)


def test_data_that_a_run_cannot_learn_gets_a_sentence_before_training() -> None:
    with pytest.raises(ValueError, match=r"data\.ood must have the shape of the data"):
        job.build(Config(data=DataConfig("digits", ood=["two-moons"])))


def test_halting_is_off_by_itself_where_an_example_has_no_one_class() -> None:
    assert job.build(Config()).bayesian.halting.feature == "margin"
    assert job.build(Config(data=DataConfig("diabetes"))).bayesian.halting is None


def test_what_has_keys_of_its_own_takes_new_ones_on_the_command_line() -> None:
    arguments = ["optimizer.factors={*.cell.*: 0.2}", "model.cell=ALIF", "model.options.strength=1.5",
                 "svi.budget_sites={input: 3}"]  # fmt: skip
    usage.check(arguments)
    config = composed("experiment=digits", *arguments)
    assert config.optimizer.factors == {"*.cell.*": 0.2}
    joined = composed("experiment=fsdd", "optimizer.factors={*.cell.*: 0.2}").optimizer.factors
    assert list(joined.items()) == [("*.cell.tau*", 10.0), ("*.cell.*", 0.2)], "the last one counts"
    assert config.model.options == {"strength": 1.5}
    assert config.svi.budget_sites == {"input": 3}
    with pytest.raises(usage.UsageError, match=re.escape("did you mean 'model.options'")):
        usage.check(["model.optionz.strength=1"])


def test_a_configuration_can_be_made_in_python() -> None:
    setup = job.build(Config(data=DataConfig("digits"), model=ModelConfig(hidden=[5])))
    assert setup.bayesian.sites is not None
    assert setup.bayesian.sites.groups == {"input": 64, "hidden0": 5}


def test_rare_inputs_widen_the_first_kernels_prior_alone() -> None:
    config = Config(data=DataConfig("digits"), model=ModelConfig(hidden=[5]), bayes=BayesConfig(rare_inputs=3.0))
    prior = job.build(config).bayesian.weights.priors
    first = np.sqrt(prior("hidden0.synapse.kernel", (64, 5)).variance) * 8
    np.testing.assert_allclose(first[0], 3.0, rtol=1e-5, err_msg="the corner of a digit is never on")
    np.testing.assert_allclose(first.min(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(prior("readout.synapse.kernel", (5, 10)).variance, 1 / 5, rtol=1e-5)


def test_help_lists_experiments_and_options() -> None:
    out = subprocess.run(
        [sys.executable, "-m", "experiments.run", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(name in out for name in (*EXPERIMENTS, "svi.lam", "train.epochs", "kmnist"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.epoch=1"], "error: 'train.epoch' is not an option"),
        (["model.beta=2"], "error: model.beta must be in [0, 1], got 2.0"),
        (
            ["train.epochs=many"],
            "error: train.epochs=many: Value 'many' of type 'str' could not be converted to Integer",
        ),
    ],
)
def test_the_door_says_one_sentence_and_no_traceback(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments.run", f"run.dir={tmp_path}/run", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len(done.stderr.strip().splitlines()) <= 2


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_of_the_configuration_builds_and_runs(cell):
    options = {"steps": 6} if cell in model_config.STEPPED else {}  # which a run fills in
    model = build_model(ModelConfig(cell=cell, hidden=[5], options=options), (4,), 3, jax.random.key(0))
    outputs = dsnn.unroll(model, jnp.ones((6, 2, 4)), jax.random.key(1))[0]
    assert outputs.shape == (6, 2, 3)
    assert np.isfinite(outputs).all()


def test_liquid_neurons_learn_and_are_counted_but_have_no_gates(tmp_path: Path) -> None:
    liquid = ["experiment=digits", "model.cell=LTC", "model.noise=none", "model.hidden=[6]"]
    with pytest.raises(ValueError, match=r"set gates\.enabled=false, halting\.enabled=false"):
        job.build(composed(*liquid))
    takes_a_step(*liquid, "gates.enabled=false", "halting.enabled=false", "svi.lam=0")
    takes_a_step(*liquid, "learner=fptt", "model.readout=last", "train.encoding=scan")
    model = build_model(composed(*liquid).model, (4,), 3, jax.random.key(0))
    x = jnp.ones((5, 2, 4))
    spikes = dsnn.unroll(model, x, None, keep_spikes)[2]
    ran = activity.records(model, x, spikes, held=False, analog=True)
    counted = energy.count(ran)
    # of each of 5 steps: 4 inputs to 6, and twice 6 currents and 6 traces to 6; 3 multiplications more for every update
    assert counted.total.effective_macs == 5 * (4 * 6 + 2 * 12 * 6)
    assert counted.total.update_macs == 5 * (3 * 6 + 3)
    assert counted.total.weights == 4 * 6 + 2 * 12 * 6 + 6 * 3
    assert energy.count(energy.ann_twin(ran)).total.weights == 4 * 6 + 6 * 3, "the dense twin has no such neurons"
    wide = ModelConfig(cell="LTC", noise="none", architecture="conv", channels=[2], hidden=[3])
    model = build_model(wide, (6, 6, 1), 3, jax.random.key(0))
    images = jnp.ones((2, 2, 6, 6, 1))
    spikes = dsnn.unroll(model, images, None, keep_spikes)[2]
    ran = energy.count(activity.records(model, images, spikes, held=False, analog=True))
    kernels = [v for name, v in parameters.split(model)[1].items() if name.endswith("kernel")]
    assert ran.total.weights == sum(kernel.size for kernel in kernels)


@pytest.mark.parametrize(("cell", "gain"), [("LIF", 2.0), ("AdEx", 20.0), ("Izhikevich", 20.0), ("LTC", 2.0)])
def test_cells_fire_at_the_gain_that_the_configuration_asks_for(cell: str, gain: float) -> None:
    model = build_model(ModelConfig(cell=cell, hidden=[40], noise="none", gain=gain), (8,), 3, jax.random.key(0))
    spikes = dsnn.unroll(model, jnp.ones((60, 4, 8)), None, keep_spikes)[2]["hidden0"]
    assert 0.001 < float(spikes.mean()) < 0.9


@pytest.mark.parametrize("architecture", ["mlp", "conv"])
def test_every_product_of_the_configuration_can_be_narrow(architecture):
    config = ModelConfig(architecture=architecture, channels=[2], hidden=[5], recurrent=True, products="bfloat16")
    shape = (8, 8, 1)
    model = build_model(config, shape, 3, jax.random.key(0))
    assert {layer.synapse.dtype for _, layer in model.layers()} == {"bfloat16"}
    assert dsnn.unroll(model, jnp.ones((2, 2, *shape)))[0].dtype == jnp.float32


def test_an_option_that_a_cell_has_not_is_a_sentence():
    with pytest.raises(ValueError, match=r"RF has no beta, got model.beta=0.5; leave it out"):
        ModelConfig(cell="RF", beta=0.5)
    with pytest.raises(ValueError, match=r"IF has no beta"):
        ModelConfig(cell="IF", beta=0.5)
    with pytest.raises(ValueError, match=r"AdEx has no reset"):
        ModelConfig(cell="AdEx", reset="zero")
