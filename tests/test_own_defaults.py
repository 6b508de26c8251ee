"""What the data choose where nobody does: scale, batch, epochs, weights of divergences, the price of energy."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn import data, learn, rng, tasks
from dsnn.assembly import automatic
from dsnn.bayes import priors, sites
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.gates import FAMILIES
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.config import Config, ModelConfig, TrainConfig
from dsnn.data import Arrays, Split
from dsnn.data.scaling import scaling
from dsnn.deploy.fold import fold_scaling
from dsnn.energy import profile
from dsnn.learn import Batch, SviConfig
from dsnn.learn.optimizer import OptimizerConfig, optimizer
from dsnn.networks.stack import mlp
from dsnn.parameters import split as split_parameters
from dsnn.run import schema
from dsnn.simulate.simulator import Simulator

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
OPEN = SviConfig(kl_weight=-1.0, gates_weight=-1.0, lam=-1.0)


def made(x: np.ndarray, y: np.ndarray, **options: object) -> Split:
    part = Arrays(x, y)
    return Split(part, part, part, int(y.max()) + 1, "made", **options)  # type: ignore[arg-type]


def table(count: int) -> Split:
    return made(RNG.normal(size=(count, 4)).astype(np.float32), (np.arange(count) % 3).astype(np.int32))


@pytest.mark.parametrize(
    ("count", "batch", "epochs"),
    [(5, 5, 2500), (20, 8, 1250), (101, 8, 209), (480, 16, 84), (4000, 128, 81), (60000, 128, 22), (400_000, 128, 20)],
)
def test_small_data_come_in_small_batches_and_updates_enough(count: int, batch: int, epochs: int) -> None:
    config = dataclasses.replace(Config(), train=TrainConfig(epochs=0, batch_size=0))
    found = automatic.schedule(config, table(count))
    assert (found.config.train.batch_size, found.config.train.epochs) == (batch, epochs)
    assert epochs * (count // batch) >= automatic.DENSE.updates
    assert set(found.chosen) == {"train.batch_size", "train.epochs"}
    by_hand = dataclasses.replace(config, train=TrainConfig(epochs=7, batch_size=3))
    assert automatic.schedule(by_hand, table(count)) == (by_hand, {})


def image(*shape: int, temporal: bool = False) -> Split:
    return made(np.zeros((4, *shape), np.float32), np.arange(4, dtype=np.int32) % 2, temporal=temporal)


@pytest.mark.parametrize(
    ("split", "architecture", "steps"),
    [
        (image(784), "mlp", 16),
        (image(8, 8), "mlp", 16),
        (image(28, 28), "conv", 4),
        (image(32, 32, 3), "conv", 4),
        (image(100, 40, temporal=True), "mlp", 16),
        (image(20, 34, 34, 2, temporal=True), "conv", 4),
        (image(150, 3), "mlp", 16),
    ],
)
def test_images_are_read_by_convolutions_and_anything_else_by_dense_layers(split, architecture, steps) -> None:
    base = Config(model=ModelConfig(architecture="auto"), train=TrainConfig(steps=0))
    found = automatic.network(base, split)
    assert (found.config.model.architecture, found.config.train.steps) == (architecture, steps)
    assert found.chosen["model.architecture"] == architecture
    assert ("train.steps" in found.chosen) == (not split.temporal)
    by_hand = Config(model=ModelConfig(architecture="auto", hidden=[64]), train=TrainConfig(steps=0))
    assert automatic.network(by_hand, split).config.model.architecture == "mlp"
    assert automatic.network(Config(), split) == (Config(), {})


@pytest.mark.parametrize("norm", ["bntt", {"name": "tebn"}, {"name": "bntt", "steps": 9}, "tdbn"])
def test_norms_of_each_step_have_those_of_the_run(norm: str | dict) -> None:
    model = ModelConfig(architecture="csnn", architecture_options={"norm": norm})
    found = automatic.network(Config(model=model, train=TrainConfig(steps=6)), image(28, 28, 1))
    options = found.config.model.architecture_options["norm"]
    if norm == "tdbn":
        assert options == norm
    else:
        assert options["steps"] == (9 if isinstance(norm, dict) and "steps" in norm else 6)
    assert ("model.architecture_options.norm.steps" in found.chosen) == (norm in ("bntt", {"name": "tebn"}))


def test_a_budget_finds_its_price_itself() -> None:
    split, weights = table(480), {"w": jnp.zeros(10)}
    for budget, names in (({}, {"svi.lam_nats"}), ({"budget_fraction": 0.5}, set()), ({"budget_nj": 3.0}, set())):
        found = automatic.weights(Config(svi=SviConfig(lam=-1.0, **budget)), split, lambda *_: None, weights)
        assert found.chosen.keys() == names
        assert found.config.svi.lam == 0.0
        assert bool(found.config.svi.lam_nats) == bool(names)


def test_options_that_a_network_of_the_zoo_does_not_read_get_a_sentence() -> None:
    x, y = np.zeros((8, 16, 16, 1), np.float32), np.arange(8) % 2
    with pytest.raises(ValueError, match=r"hidden is of the networks mlp and conv, .* network_options\.$"):
        dsnn.fit(x, y, network="csnn", hidden=[64])


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        (SviConfig, {"budget_gain": math.nan}, "budget_gain must be a finite number, got nan"),
        (SviConfig, {"budget_nj": math.inf}, "budget_nj must be a finite number, got inf"),
        (SviConfig, {"budget_rate": -0.5}, "or -1 for automatic, got -0.5"),
        (Config, {"svi": SviConfig(ungated_fraction=0.5, decide_fraction=0.5)}, "less than 1, got 0.5 and 0.5"),
    ],
)
def test_prices_and_phases_that_cannot_be_get_a_sentence(kind, values, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        kind(**values)


@pytest.mark.slow
def test_grey_images_without_a_channel_axis_are_fitted_and_predicted() -> None:
    x = RNG.random((40, 16, 16), np.float32)
    y = np.arange(40) % 2
    x[y == 1, :8] += 1
    fitted = dsnn.fit(x, y, epochs=2, baseline="none")
    assert fitted.setup.config.model.architecture == "conv"
    assert dsnn.predict(fitted, x[:3]).probs.shape == (3, 2)
    assert fitted.network().in_shape == (16, 16, 1)


def test_divergences_and_energy_are_weighed_in_what_labels_carry() -> None:
    model = mlp((400,), (128,), 3, key=KEY)
    template, initial = split_parameters(model)
    config = dataclasses.replace(Config(), svi=OPEN)
    found = automatic.weights(config, table(99), priors.default(template), initial)
    uncertain = 400 * 128 + 128 + 128 * 3 + 3
    weight = 20 * 99 * math.log(3) / (2.2 * uncertain)
    assert found.config.svi.kl_weight == pytest.approx(weight)
    assert found.config.svi.gates_weight == pytest.approx(weight)
    assert found.config.svi.lam_nats == pytest.approx(0.3 * math.log(3))
    by_hand = dataclasses.replace(Config(), svi=SviConfig(kl_weight=0.5, lam=0.25))
    assert automatic.weights(by_hand, table(99), priors.default(template), initial) == (by_hand, {})


@pytest.mark.parametrize(("rows", "columns"), [(2, 1), (1, 2), (1, 3)])
def test_repeated_rows_and_columns_leave_the_shares_of_the_objective(rows: int, columns: int) -> None:
    """What the divergence weighs at the start, in what the labels carry, and what energy is worth; below the cap."""

    def weighed(rows: int, columns: int) -> tuple[float, float]:
        y = np.tile((np.arange(99) % 3).astype(np.int32), rows)
        split = made(np.zeros((len(y), 400 * columns), np.float32), y)
        template, initial = split_parameters(mlp((400 * columns,), (128,), 3, key=KEY))
        svi = automatic.weights(dataclasses.replace(Config(), svi=OPEN), split, priors.default(template), initial)
        count = sum(value.size for value in initial.values())
        nats = svi.config.svi.kl_weight * automatic.NATS_PER_WEIGHT * count
        return nats / (len(y) * tasks.of(split).nats(y)), svi.config.svi.lam_nats

    assert weighed(rows, columns) == pytest.approx(weighed(1, 1))


def test_what_labels_carry_does_not_depend_on_their_names_or_number() -> None:
    def nats(split: Split) -> float:
        return tasks.of(split).nats(np.asarray(split.train.y))

    x = np.zeros((6, 2), np.float32)
    three, named = np.array([0, 0, 1, 1, 2, 2]), np.array([5, 5, 0, 0, 3, 3])
    for y in (three, named, np.tile(three, 4)):
        assert nats(made(np.zeros((len(y), 2), np.float32), y)) == pytest.approx(math.log(3))
    labels = np.array([[0, 1], [1, 1]] * 3, np.int32)
    assert nats(made(x, labels, task="multilabel")) == pytest.approx(math.log(2), abs=1e-9)
    numbers = nats(made(x, np.ones((6, 2), np.float32), task="regression"))
    assert numbers == pytest.approx(math.log(2 * math.pi * math.e))


# --- Scale


def test_a_table_is_standardised_whatever_its_units() -> None:
    x = RNG.normal([1, -3, 40], [2, 1e3, 1e-3], (200, 3)).astype(np.float32)
    ours = scaling(x, False)(x)
    np.testing.assert_allclose(ours.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(ours.std(0), 1, rtol=1e-3)
    other = 1000 * x.astype(np.float64) + 5
    np.testing.assert_allclose(scaling(other, False)(other), ours, atol=2e-3)


def test_zeros_that_mean_nothing_stay_zero() -> None:
    spikes = (RNG.random((9, 5, 4)) < 0.3).astype(np.float32)
    np.testing.assert_array_equal(scaling(spikes, True)(spikes), spikes)
    images = 255 * RNG.random((9, 6, 6, 1))
    images[:, :2] = 0
    ours = scaling(images, False)(images)
    assert (ours[:, :2] == 0).all()
    assert np.sqrt((ours[:, 2:] ** 2).mean()) == pytest.approx(1, rel=1e-3)
    sparse = np.where(RNG.random((50, 9)) < 0.1, 7.0, 0.0)
    np.testing.assert_array_equal(scaling(sparse, False)(sparse) == 0, sparse == 0)
    constant = np.full((5, 2), 1e8)
    assert np.isfinite(scaling(constant, False)(constant)).all()
    assert (scaling(constant, False)(constant) == 0).all()
    some = np.where(RNG.random((40, 3)) < 0.4, 0.0, RNG.random((40, 3)) * [1, 1e4, 1e-4])
    own = scaling(some, False)
    np.testing.assert_array_equal(own.undone(own(some)) == 0, some == 0)
    np.testing.assert_allclose(own.undone(own(some)), some, rtol=1e-3)


def test_every_part_is_scaled_as_the_training_part_asks() -> None:
    x = RNG.normal(3, 2, (40, 2)).astype(np.float32)
    whole = data.assign_roles(made(x, np.arange(40) % 2), 0)._replace(test=Arrays(x + 100, np.arange(40) % 2))
    ours = data.standardised(whole)
    found = data.scaling_of(ours)
    assert found is not None
    np.testing.assert_allclose(ours.test.x, (x + 100 - x.mean(0)) / x.std(0), rtol=1e-4)
    np.testing.assert_allclose(ours.certify.x, found(whole.certify.x))
    assert data.standardised(ours) is ours, "once"
    assert data.scaling_of(whole) is None


@pytest.mark.parametrize("temporal", [False, True])
def test_the_scaling_is_folded_into_the_first_weights(temporal: bool) -> None:
    model = mlp((3,), (6,), 2, key=KEY, gain=2.0)
    x = RNG.normal([5, -200, 0.3], [3, 50, 0.01], (20, 7, 3) if temporal else (20, 3)).astype(np.float32)
    own = scaling(x, temporal)
    raw, scaled = (np.swapaxes(a, 0, 1) if temporal else a for a in (x, own(x)))
    steps = None if temporal else 7
    ours, _, _ = dsnn.unroll(fold_scaling(model, own), jnp.asarray(raw), steps=steps)
    right, _, _ = dsnn.unroll(model, jnp.asarray(scaled), steps=steps)
    np.testing.assert_allclose(ours, right, atol=1e-3)


# --- The ungated phase and the price that it sets


def bayesian(family: str) -> Bayesian:
    model = mlp((4,), (8,), 2, key=KEY, gain=2.0)
    template, params = split_parameters(model)
    where = sites.sites(model)
    return Bayesian(
        Simulator(template, 4),
        WeightPosterior(template, params, priors.default(template)),
        GatePosterior(where, FAMILIES[family]),
        energy=EnergyPrior(where, profile("45nm")),
        data_size=48,
    )


@pytest.mark.parametrize("family", ["hard_concrete", "bernoulli"])
def test_gates_stand_still_and_open_until_the_ungated_phase_ends(family: str) -> None:
    net, total = bayesian(family), 40
    config = SviConfig(kl_weight=0.01, gates_weight=0.01, lam_nats=0.2, ungated_fraction=0.5, measure_every=1)
    rule = learn.svi_learner(net, config, optimizer(OptimizerConfig(0.05), total), total, rng.root(0))
    x = np.asarray(jax.random.uniform(KEY, (48, 4)))
    batch = Batch(jnp.asarray(x[:16]), jnp.asarray((x[:16, 0] > 0.5).astype(np.int32)))
    state, step = rule.init(), jax.jit(rule.step)
    first = net.gate_probabilities(learn.svi_params(net, state))
    for _ in range(20):
        state, info = step(state, batch)
        assert float(info.lam) == 0.0
    for group, p in net.gate_probabilities(learn.svi_params(net, state)).items():
        np.testing.assert_array_equal(p, first[group])
    state, info = step(state, batch)
    whole = float(net.energy.expected({}, state.events).total(4.0))
    assert float(info.lam) == pytest.approx(0.2 / whole, rel=0.05)
    assert any((p != first[g]).any() for g, p in net.gate_probabilities(learn.svi_params(net, state)).items())


def test_own_data_have_an_experiment_of_their_own(tmp_path: object) -> None:
    np.savez(f"{tmp_path}/x.npz", x_train=[[0.0]], y_train=[0], x_test=[[0.0]], y_test=[0])
    named = ["data=npz", f"data.path={tmp_path}/x.npz"]
    own = schema.compose(named)
    assert own.experiment == "own"
    assert (own.svi.lam, own.svi.kl_weight, own.train.epochs, own.data.standardise) == (-1, -1, 0, "auto")
    assert schema.compose(["experiment=digits", *named]).experiment == "digits"
    assert schema.compose([]).data.standardise == "none"


def test_a_fit_does_not_depend_on_the_units_of_its_inputs() -> None:
    """What learning sees is what prediction sees, in any unit."""
    x = RNG.normal(size=(60, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(int)
    options = {"hidden": [6], "epochs": 3, "steps": 3, "batch_size": 16, "halting": False, "baseline": "none"}
    one, other = (dsnn.fit(1000.0 * x.astype(np.float64) * k + 5 * k, y, **options) for k in (1.0, 1e-3))  # type: ignore[arg-type]
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-3)
    plain = dsnn.fit(x, y, **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(one.losses, plain.losses, rtol=1e-2)
    ours, right = (dsnn.predict(f, v, samples=2).probs for f, v in ((one, 1000.0 * x + 5), (plain, x)))
    assert np.abs(ours - right).mean() < 0.02


def test_a_budget_that_nothing_can_meet_is_refused() -> None:
    net = dataclasses.replace(bayesian("hard_concrete"), gates=None)
    with pytest.raises(ValueError, match=r"needs gates to close.*got none; set gates\.enabled=true"):
        learn.svi_learner(net, SviConfig(budget_fraction=0.5), optimizer(OptimizerConfig(0.05), 10), 10, rng.root(0))


def test_own_data_are_known_in_any_spelling(tmp_path: object) -> None:
    for spelling in ("data=npz", "data='npz'", 'data="npz"', "data.name=npz"):
        assert "experiment=own" in schema.completed([spelling, "data.path=x"]), spelling
    for named in ("data=mnist", "data=mnist,fashion-mnist", "data=digits,mnist", "data.name=two-moons"):
        assert "experiment=own" in schema.completed([named]), named
    for named in ("data=digits", "seed=1"):
        assert "experiment=own" not in schema.completed([named]), named
    assert "experiment=own" not in schema.completed(["data=mnist", "experiment=mnist"])
