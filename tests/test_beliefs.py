"""What a run says of its posterior: draws of parameters, doubt over the plane, and doubt by its source."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpyro.infer import SVI, TraceMeanField_ELBO
from scipy import stats
from scipy.special import softmax

from dsnn import escape, evaluate, learn, rng
from dsnn.assembly.assemble import Setup
from dsnn.bayes import guides, priors, sites
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.objective import Draw
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.cells import LIF
from dsnn.config import BayesConfig, Config, DataConfig, GatesConfig, HaltingConfig, ModelConfig, TrainConfig
from dsnn.energy import profile
from dsnn.networks.stack import mlp
from dsnn.parameters import split
from dsnn.run import assess_beliefs, job
from dsnn.simulate.simulator import Simulator
from dsnn.tasks import by_source, predictor
from dsnn.tasks.classes import conformal, recalibrated

KEY = jax.random.key(0)
X = np.asarray(jax.random.uniform(jax.random.key(1), (7, 3)))


def moons(**bayes) -> tuple[Setup, dict[str, jax.Array]]:
    """A run on two moons that has not learned anything yet, with a guide as it begins."""
    setup = job.build(
        Config(
            data=DataConfig("two-moons"),
            model=ModelConfig(hidden=[4], cell="PLIF"),
            bayes=BayesConfig(cells=True, guide_scale=0.3, **bayes),
            gates=GatesConfig(enabled=False),
            halting=HaltingConfig(enabled=False),
            train=TrainConfig(steps=2),
        )
    )
    return setup, learn.svi_params(setup.bayesian, jax.jit(setup.learner.init)())


def test_posterior_and_prior_draws_are_those_of_guide_and_prior() -> None:
    setup, params = moons(prior_scale=2.0)
    records = assess_beliefs.posterior(setup, params, KEY)
    names = {name.removeprefix("posterior/") for name in records if name.startswith("posterior/")}
    assert len(names) == assess_beliefs.PANELS
    assert {name.removeprefix("prior/") for name in records if name.startswith("prior/")} == names
    assert "hidden0.beta" in names
    shown = next(name for name in names if name.startswith("readout.kernel["))
    i, j = map(int, shown.removeprefix("readout.kernel[").removesuffix("]").split(","))
    loc = float(params["readout.synapse.kernel.loc"][i, j])
    for values, by in (
        (records[f"posterior/{shown}"], stats.norm(loc, 0.3)),
        (records[f"prior/{shown}"], stats.norm(0.0, 2.0 / np.sqrt(4))),
        (records["prior/hidden0.beta"], stats.beta(0.9 * 20, 0.1 * 20)),
        (jax.scipy.special.logit(records["posterior/hidden0.beta"]), stats.norm(np.log(9), 0.3)),
    ):
        assert stats.kstest(np.asarray(values, float), by.cdf).pvalue > 1e-3


def test_points_have_no_posterior_to_draw() -> None:
    setup, params = moons(guide="point")
    assert assess_beliefs.posterior(setup, params, KEY) == {}


def test_the_plane_is_a_grid_around_the_examples() -> None:
    setup, _ = moons()
    seen = []

    class Made:
        aleatoric = np.zeros(assess_beliefs.GRID**2)

        def __init__(self, x: np.ndarray):
            p = 1 / (1 + np.exp(-x[:, 0]))
            self.probs = np.stack([p, 1 - p], -1)
            seen.append(x)

    records = assess_beliefs.plane(setup, Made)
    points = np.asarray(setup.split.train.x)
    for axis in (0, 1):
        assert records["plane/x"][..., axis].min() < points[:, axis].min()
        assert records["plane/x"][..., axis].max() > points[:, axis].max()
    assert (np.diff(records["plane/x"][..., 1], axis=0) > 0).all()
    expected = evaluate.entropy(Made(records["plane/x"].reshape(-1, 2)).probs)
    np.testing.assert_allclose(records["plane/total"].ravel(), expected)


def test_cells_are_uncertain_where_a_run_says_so() -> None:
    setup, params = moons()
    draws = [float(setup.bayesian.draw(params, jax.random.key(k)).weights["hidden0.cell.beta"]) for k in range(2)]
    assert 0 < draws[0] < 1
    assert draws[0] != draws[1]
    model = mlp((3,), (4,), 2, key=KEY, cell=lambda n: LIF(tau=8.0, learnable=("tau",)))
    template, initial = split(model)
    fn = priors.default(template, around=initial)("hidden0.cell.tau", ())
    np.testing.assert_allclose(np.median(fn.sample(KEY, (4001,))), 8.0, rtol=0.05)
    assert priors.default(template)("hidden0.cell.tau", ()) is None


# --- Where doubt comes from


def bayesian(width: float = 0.3) -> tuple[Bayesian, dict[str, jax.Array]]:
    model = mlp((3,), (4,), 2, key=KEY, gain=3.0, cell=lambda n: LIF(beta=0.9, noise=escape.Logistic(width)))
    template, initial = split(model)
    where = sites.sites(model)
    net = Bayesian(
        Simulator(template, 5),
        WeightPosterior(template, initial, priors.default(template), guides.mean_field(0.4)),
        GatePosterior(where),
        energy=EnergyPrior(where, profile("45nm")),
        data_size=7,
    )
    svi = SVI(net.model, net.guide, optax.sgd(0.1), TraceMeanField_ELBO())
    y = jnp.arange(7) % 2
    params = net.constrain(jax.jit(svi.init)(KEY, jnp.asarray(X), y, net.no_context()).optim_state[1][0])
    return net, params


def test_doubt_by_source_is_the_chain_rule_over_nested_draws() -> None:
    net, params = bayesian()
    draws = (3, 2, 4)
    found = by_source(net)(params, X, KEY, draws=draws, batch_size=7)

    @jax.jit
    def probs(i: jax.Array, j: jax.Array, k: jax.Array) -> jax.Array:
        weights = net.draw(params, rng.stream(KEY, "weights", i), i).weights
        gates = net.draw(params, rng.stream(rng.stream(KEY, "gates", i), "gates", j), i).gates
        own = rng.stream(rng.stream(rng.stream(KEY, "noise", i), "noise", j), "noise", k)
        return jax.nn.softmax(net.simulator.logits(net.network(Draw(weights, gates)), jnp.asarray(X), own)[-1])

    every = np.asarray([[[probs(i, j, k) for k in range(4)] for j in range(2)] for i in range(3)], np.float64)
    every /= every.sum(-1, keepdims=True)
    for name, expected in evaluate.epistemic_by_source(every).items():
        np.testing.assert_allclose(getattr(found, name), expected, atol=2e-5)
        assert expected.max() > 1e-3, f"{name} would agree by being zero"
    whole = evaluate.uncertainty(every.reshape(-1, 7, 2))
    np.testing.assert_allclose(found.total, whole.total, rtol=1e-4)
    np.testing.assert_allclose(found.aleatoric, whole.aleatoric, rtol=1e-4)
    parts = found.weights + found.gates + found.spikes
    np.testing.assert_allclose(found.total - found.aleatoric, parts, atol=1e-6)


def test_fixed_weights_leave_doubt_to_firing_and_progress_is_told() -> None:
    net, params = bayesian()
    split_, told = by_source(net), []
    quiet = params | {k: jnp.full_like(v, 1e-9) for k, v in params.items() if k.endswith(".scale")}
    parts = split_(
        quiet, X, KEY, draws=(2, 1, 3), batch_size=4, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(1, 2), (2, 2)]
    assert np.abs(parts.weights).max() < np.abs(parts.spikes).max(), "fixed weights cannot be what doubt comes from"
    with pytest.raises(ValueError, match="at least 1 each, got \\(0, 1, 1\\)"):
        split_(params, X, KEY, draws=(0, 1, 1))


def test_a_prediction_is_the_mean_over_draws_streamed_in_batches() -> None:
    net, params = bayesian()
    predict, told = predictor(net), []
    made = predict(params, X, KEY, samples=3, batch_size=7)

    @jax.jit
    def one(sample: jax.Array) -> jax.Array:
        key = jax.random.fold_in(KEY, sample)
        draw = net.draw(params, rng.stream(key, "weights"), sample)
        return jax.nn.softmax(net.simulator.logits(net.network(draw), jnp.asarray(X), key)[-1])

    every = np.asarray([one(jnp.asarray(s)) for s in range(3)])
    np.testing.assert_allclose(made.full, every.mean(0), atol=1e-6)
    np.testing.assert_allclose(made.aleatoric, evaluate.entropy(every).mean(0), atol=1e-5)
    predict(params, X, KEY, samples=1, batch_size=3, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_recalibration_sees_no_test_label() -> None:
    draws = np.random.default_rng(0)
    val, test = (softmax(4 * draws.normal(size=(n, 3)), axis=-1) for n in (90, 60))
    labels = draws.integers(3, size=90)
    one, other = (recalibrated(val, labels, test, np.full(60, k)) for k in (0, 1))
    assert one["calibration/nll"] != other["calibration/nll"]
    assert one["calibration/temperature"] == other["calibration/temperature"]
    sets = [conformal(val, labels, test, np.full(60, k)) for k in (0, 1)]
    assert sets[0]["conformal/size"] == sets[1]["conformal/size"]


# --- The learner's own randomness


def test_two_updates_draw_different_noise_and_the_same_seed_the_same() -> None:
    """A learning rate of zero, so that nothing but chance can change the loss; weights are all but fixed."""
    net, _ = bayesian(width=3.0)
    weights = dataclasses.replace(net.weights, guide=guides.mean_field(1e-9))
    narrow = Bayesian(net.simulator, weights, data_size=7)
    losses = []
    for seed in (0, 0, 1):
        rule = learn.svi_learner(narrow, learn.SviConfig(), optax.sgd(0.0), 4, rng.root(seed))
        state, step = jax.jit(rule.init)(), jax.jit(rule.step)
        batch = learn.Batch(jnp.asarray(X), jnp.arange(7) % 2)
        own = []
        for _ in range(3):
            state, info = step(state, batch)
            own.append(float(info.loss))
        losses.append(own)
    assert losses[0] == losses[1]
    assert len(set(losses[0] + losses[2])) == 6
