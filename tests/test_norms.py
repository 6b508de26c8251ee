"""Norms between synapse and cell: the formula by hand, statistics that the learner keeps, and folding."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from numpyro import handlers
from numpyro.infer import SVI, TraceMeanField_ELBO

import dsnn
from dsnn import learn, parameters, rng
from dsnn.bayes import guides, priors, sites
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.gates import FAMILIES
from dsnn.bayes.norm_statistics import DECIDED, ROWS, WHOLE
from dsnn.bayes.objective import Draw
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.cells import LI, LIF
from dsnn.config import Config, GatesConfig, HaltingConfig
from dsnn.deploy.decided import compaction_error, deploy, ran
from dsnn.energy import profile
from dsnn.learn import Batch, SviConfig
from dsnn.networks import Chain, Conv, Dense, Layer, Pool, Residual, Stack, TdBN, Whole, cut
from dsnn.parameters import STATISTICS, split
from dsnn.protocols import Output
from dsnn.simulate.simulator import Simulator, log_likelihood
from dsnn.simulate.unroll import unroll_trained
from dsnn.store import checkpoint

ROOT = rng.root(0)
MEAN, VARIANCE = f"{STATISTICS}hidden.norm.mean", f"{STATISTICS}hidden.norm.variance"
X = np.asarray(jax.random.normal(jax.random.key(1), (48, 5)))
Y = (X[:, 0] > 0).astype(np.int32)
DATA = Batch(jnp.asarray(X), jnp.asarray(Y))


def norm(features: int, seed: int = 0, **options: Any) -> TdBN:
    """A norm whose numbers are all different from those that it begins with."""
    made = TdBN(features, **options)
    draws = np.random.default_rng(seed).uniform(0.5, 1.5, (4, features)).astype(np.float32)
    for variable, values in zip((made.scale, made.shift, made.mean, made.variance), draws, strict=True):
        variable[...] = jnp.asarray(values)
    return made


def by_hand(currents: np.ndarray, made: TdBN, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    normalised = made.alpha * made.threshold * (currents - mean) / np.sqrt(variance + made.epsilon)
    return np.asarray(made.scale[...]) * normalised + np.asarray(made.shift[...])


def stack(**options: Any) -> Stack:
    """Two layers with norms; what goes between them are spikes."""
    one, two = jax.random.split(jax.random.key(7))
    return Stack(
        hidden=Layer(Dense(5, 6, key=one, bias=False), LIF(beta=0.9), norm=norm(6, **options)),
        readout=Layer(Dense(6, 2, key=two), LI(beta=0.9), norm=norm(2, 1)),
    )


def images(channels: int = 3) -> Stack:
    """A small network of convolutions with norms."""
    keys = jax.random.split(jax.random.key(5), 3)
    first = Conv((6, 6, 1), channels, key=keys[0], bias=False)
    second = Conv((3, 3, channels), 4, key=keys[1], padding="VALID")
    return Stack(
        conv0=Layer(first, LIF(beta=0.9), norm=norm(channels)),
        conv1=Layer(second, LIF(beta=0.9), before=(Pool((6, 6, channels)),), norm=norm(4, 1)),
        readout=Layer(Dense(4, 2, key=keys[2]), LI(beta=0.9)),
    )


# --- The formula


@pytest.mark.parametrize("shape", [(4, 7, 3), (4, 5, 2, 3, 3)], ids=["dense", "space"])
def test_a_norm_is_the_formula(shape: tuple[int, ...]) -> None:
    made = norm(3, threshold=0.5, alpha=0.7, momentum=0.8)
    currents = np.random.default_rng(2).normal(0.3, 2.0, shape).astype(np.float32)
    rows = currents.reshape(-1, 3).astype(np.float64)
    mean, variance = rows.mean(0), ((rows - rows.mean(0)) ** 2).mean(0)
    found = made.trained(jnp.asarray(currents))
    np.testing.assert_allclose(found.currents, by_hand(currents, made, mean, variance), rtol=1e-5, atol=1e-5)
    for name, old, now in (("mean", made.mean, mean), ("variance", made.variance, variance)):
        np.testing.assert_allclose(found.statistics[name], 0.8 * np.asarray(old[...]) + 0.2 * now, rtol=1e-6)
    stored = np.asarray(made.mean[...]), np.asarray(made.variance[...])
    np.testing.assert_allclose(made(jnp.asarray(currents)), by_hand(currents, made, *stored), rtol=1e-5, atol=1e-5)


def test_steps_that_are_skipped_count_nothing() -> None:
    made, currents = norm(3), jax.random.normal(jax.random.key(0), (4, 5, 3))
    some = made.trained(currents, jnp.array([1.0, 0.0, 0.5, 0.0]))
    twice = made.trained(jnp.concatenate([currents[0], currents[0], currents[2]])[None])
    for name, value in twice.statistics.items():
        np.testing.assert_allclose(some.statistics[name], value, rtol=1e-5, atol=1e-6)


def test_a_layer_in_training_goes_by_its_batch_over_all_steps() -> None:
    layer = Layer(Dense(5, 6, key=jax.random.key(0)), LI(beta=0.9), norm=norm(6))
    model, xs = Stack("last", readout=layer), np.asarray(jax.random.normal(jax.random.key(1), (4, 8, 5)))
    outputs, statistics = unroll_trained(model, jnp.asarray(xs))
    raw = xs @ np.asarray(layer.synapse.kernel[...])
    currents = by_hand(raw, layer.norm, raw.mean((0, 1)), raw.var((0, 1)))
    membrane, expected = np.zeros((8, 6)), []
    for current in currents:
        membrane = 0.9 * membrane + current
        expected.append(membrane)
    scale = np.asarray(dsnn.unroll(layer.cell, jnp.ones((1, 1, 1)))[0]).item()  # what one unit of current gives
    np.testing.assert_allclose(outputs, scale * np.stack(expected), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        statistics["readout.norm.mean"], 0.9 * np.asarray(layer.norm.mean[...]) + 0.1 * raw.mean((0, 1)), rtol=1e-5
    )


@pytest.mark.parametrize("make", [stack, images])
@pytest.mark.parametrize("held", [False, True])
def test_answers_are_the_same_in_every_schedule(make, held: bool) -> None:
    model = make()
    xs = jax.random.normal(jax.random.key(2), (8, *model.in_shape) if held else (4, 8, *model.in_shape))
    options = {"steps": 4} if held else {}
    layers, steps = (dsnn.unroll(model, xs, None, None, how, **options)[0] for how in ("layer", "step"))
    np.testing.assert_allclose(layers, steps, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{"schedule": "step"}, {"memory": "sqrt"}])
def test_training_by_steps_gets_a_sentence(options: dict[str, Any]) -> None:
    template, params = split(stack())
    with pytest.raises(ValueError, match='needs all time steps at once, which schedule="layer"'):
        Simulator(template, 4, **options).trained(params, DATA.x)


def test_one_number_a_channel_gets_a_sentence() -> None:
    template, params = split(stack())
    with pytest.raises(ValueError, match=r"two numbers a channel at least.*raise the batch size"):
        Simulator(template, 4).trained(params, DATA.x[:1])
    Simulator(template, 4, "rate").trained(params, DATA.x[:1], ROOT)  # four steps of one example


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": 0}, "positive integer"),
        ({"features": 3, "threshold": 0.0}, "threshold must be positive"),
        ({"features": 3, "alpha": float("inf")}, "alpha must be positive"),
        ({"features": 3, "momentum": 1.0}, r"momentum must be in \[0, 1\)"),
    ],
)
def test_bad_options_get_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TdBN(**options)


def test_a_norm_of_other_channels_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="the channels of its layer, 6, got features=5"):
        Layer(Dense(5, 6, key=ROOT), LIF(beta=0.9), norm=TdBN(5))


@pytest.mark.parametrize("recurrent", [False, True])
def test_a_chain_of_the_same_layers_is_the_stack(recurrent: bool) -> None:
    own = jax.random.key(9) if recurrent else None
    hidden = Layer(Dense(5, 6, key=ROOT), LIF(beta=0.9), norm=norm(6), recurrent_key=own)
    readout = Layer(Dense(6, 2, key=jax.random.key(2)), LI(beta=0.9), norm=norm(2, 1))
    models = Stack(hidden=hidden, readout=readout), Whole(Chain(hidden=hidden, readout=readout))
    found = []
    for model in models:
        template, params = split(model)
        simulator = Simulator(template, 4)

        def loss(values: dict, simulator: Simulator = simulator) -> Any:
            logits, after = simulator.trained(values, DATA.x)
            return log_likelihood(logits[-1], DATA.y).mean(), (logits, after)

        slopes, (logits, after) = jax.grad(loss, has_aux=True)(params)
        folded = simulator.logits(template.fold(params | after), DATA.x)
        np.testing.assert_allclose(folded, simulator.logits(params | after, DATA.x), atol=1e-5)
        found.append([{n.replace("network.", ""): v for n, v in d.items()} for d in (slopes, after, {"": logits})])
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert np.abs(found[0][0]["hidden.norm.scale"]).max() > 1e-3


# --- Folding


@pytest.mark.parametrize("make", [stack, images])
def test_folded_is_the_same_network(make) -> None:
    template, params = split(make())
    simulator = Simulator(template, 4)
    x = jax.random.normal(jax.random.key(2), (32, *template.build(params).in_shape))
    folded = template.fold(params | template.statistics)
    assert not any(".norm." in name for name in folded)
    assert not template.plain.statistics
    assert template.plain.names == tuple(folded)
    logits = simulator.logits(params, x)
    assert np.abs(logits).max() > 0.1
    np.testing.assert_allclose(simulator.logits(folded, x), logits, atol=1e-5)


def test_cutting_folds_first() -> None:
    model = images()
    small = cut(model, {"conv0": np.array([0, 2])})
    assert small.conv0.norm is None
    assert small.conv0.synapse.kernel.shape == (3, 3, 1, 2)
    assert small.conv0.synapse.bias.shape == (2,)


def blocks() -> Whole:
    keys = jax.random.split(jax.random.key(3), 4)
    inner = Layer(Dense(6, 6, key=keys[1]), LIF(beta=0.9), norm=norm(6, 1))
    return Whole(
        Chain(
            hidden=Layer(Dense(5, 6, key=keys[0]), LIF(beta=0.9), norm=norm(6)),
            block=Residual(Chain(inner=inner)),
            readout=Layer(Dense(6, 2, key=keys[2]), LI(beta=0.9)),
        )
    )


def net(model: Any, *, gated: bool = False, encoding: str = "direct", prior: Any = None, family: str = "") -> Bayesian:
    template, params = split(model)
    where = sites.sites(model, analog_input=encoding == "direct", gate_input=not family)
    gates = GatePosterior(where, FAMILIES[family]) if family else GatePosterior(where) if gated else None
    prior, guide = (prior, guides.point()) if prior else (priors.default(template), guides.mean_field(0.05))
    return Bayesian(
        Simulator(template, 4, encoding), WeightPosterior(template, params, prior, guide), gates, data_size=len(X)
    )


@pytest.mark.parametrize("make", [stack, images, blocks])
def test_the_compacted_network_is_the_masked_one_bit_for_bit(make) -> None:
    bayesian = net(make(), gated=True, encoding="temporal")
    learner = learn.svi_learner(bayesian, SviConfig(), optax.sgd(1e-3), 10, ROOT)
    params = learn.svi_params(bayesian, learner.init())
    half = jnp.arange(bayesian.gates.sites.total) % 3 > 0
    params = bayesian.gates.decide(params, half)
    deployed = deploy(bayesian, params)
    shape = bayesian.simulator.template.build(bayesian.weights.initial).in_shape
    spikes = (jax.random.uniform(jax.random.key(2), (4, 16, *shape)) < 0.5).astype(jnp.float32)
    model, runs = bayesian.simulator.built(deployed.masked)
    masked = ran(bayesian.simulator, model, spikes, None, runs)
    small = ran(bayesian.simulator, deployed.small, spikes, None)
    assert parameters.count(split(deployed.small)[1]) < parameters.count(deployed.masked)
    assert compaction_error(masked, small) == 0.0
    assert np.abs(masked.logits).max() > 0.1
    # and it is the network that learned, but for rounding
    centre = bayesian.network(bayesian.centre(params))
    unfolded = ran(bayesian.simulator, bayesian.simulator.built(centre)[0], spikes, None)
    assert np.mean(np.abs(np.asarray(unfolded.logits) - np.asarray(masked.logits)) < 2e-3) > 0.8


# --- Statistics in the learner


def map_rule(template: Any, params: Any, simulator: Simulator) -> learn.Learner:
    def loss(values: dict, batch: Batch, key: jax.Array) -> Any:
        logits, statistics = simulator.trained(values, batch.x, key)
        return -log_likelihood(logits[-1], batch.y).mean(), statistics

    return learn.map_learner(loss, template, params, optax.adam(0.05), ROOT)


def test_statistics_of_map_follow_the_recursion() -> None:
    template, params = split(stack(momentum=0.7))
    rule = map_rule(template, params, Simulator(template, 4))
    state = rule.init()
    mean, variance = (np.asarray(template.statistics[name]) for name in (MEAN, VARIANCE))
    for number in range(5):
        rows = slice(8 * number, 8 * number + 8)
        raw = X[rows] @ np.asarray(learn.map_params(template, state)["hidden.synapse.kernel"])
        mean, variance = 0.7 * mean + 0.3 * raw.mean(0), 0.7 * variance + 0.3 * raw.var(0)
        state, _ = rule.step(state, Batch(DATA.x[rows], DATA.y[rows]))
    moved = state.params["hidden.synapse.kernel"] - params["hidden.synapse.kernel"]
    assert np.abs(moved).max() > 0.1
    found = learn.map_params(template, state)
    np.testing.assert_allclose(found[MEAN], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[VARIANCE], variance, rtol=1e-5)


@pytest.mark.parametrize("vectorize", [True, False])
def test_statistics_of_svi_are_the_mean_over_particles(vectorize: bool) -> None:
    bayesian = net(stack(momentum=0.7))
    config = SviConfig(particles=2)
    rule = learn.svi_learner(bayesian, config, optax.adam(0.05), 10, ROOT, vectorize=vectorize)
    state = rule.init()
    mean, variance = (np.asarray(state.statistics[name]) for name in (MEAN, VARIANCE))
    for number in range(4):
        rows = slice(8 * number, 8 * number + 8)
        params = learn.svi_params(bayesian, state)
        now = jax.random.split(rng.stream(ROOT, "weights", state.step))[1]
        raws = []
        for particle in jax.random.split(now, 2):
            guide = handlers.seed(bayesian.guide, jax.random.split(particle)[1])
            with handlers.block():
                weights, _ = handlers.substitute(guide, data=params)()
            raws.append(X[rows] @ np.asarray(weights["hidden.synapse.kernel"]))
        assert np.abs(raws[0] - raws[1]).max() > 0.01
        mean = 0.7 * mean + 0.3 * np.mean([raw.mean(0) for raw in raws], 0)
        variance = 0.7 * variance + 0.3 * np.mean([raw.var(0) for raw in raws], 0)
        state, info = rule.step(state, Batch(DATA.x[rows], DATA.y[rows]))
        assert np.isfinite(info.loss)
    found = learn.svi_params(bayesian, state)
    np.testing.assert_allclose(found[MEAN], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[VARIANCE], variance, rtol=1e-4)
    # draws, centres and folded networks have them
    for draw in (bayesian.draw(found, ROOT), bayesian.centre(found)):
        np.testing.assert_array_equal(bayesian.network(draw)[MEAN], found[MEAN])


@pytest.mark.parametrize("kind", ["flipout", "dropout"])
def test_statistics_under_draws_within_the_batch(kind: str) -> None:
    template, params = split(stack(momentum=0.7))
    if kind == "flipout":  # signs of deviations that are all but nothing
        weights = WeightPosterior(template, params, priors.default(template), guides.mean_field(1e-7), flipout=True)
    else:  # the inputs of the first layer are not dropped
        weights = WeightPosterior(template, params, priors.point, guides.dropout(0.5))
    bayesian = Bayesian(Simulator(template, 4), weights, data_size=len(X))
    rule = learn.svi_learner(bayesian, SviConfig(), optax.sgd(1e-9), 10, ROOT)
    state, _ = rule.step(rule.init(), DATA)
    raw = X @ np.asarray(params["hidden.synapse.kernel"])
    expected = 0.7 * np.asarray(template.statistics[MEAN]) + 0.3 * raw.mean(0)
    np.testing.assert_allclose(state.statistics[MEAN], expected, rtol=1e-4, atol=1e-5)
    points = dataclasses.replace(bayesian, weights=WeightPosterior(template, params, priors.point, guides.point()))
    point = learn.svi_learner(points, SviConfig(), optax.sgd(1e-9), 10, ROOT)
    plain, _ = point.step(point.init(), DATA)
    second = f"{STATISTICS}readout.norm.variance"
    same = np.allclose(plain.statistics[second], state.statistics[second], rtol=1e-3)
    assert same == (kind == "flipout")


def test_points_by_svi_are_the_deterministic_twin() -> None:
    bayesian = net(stack(), prior=priors.point)
    template, params = bayesian.simulator.template, bayesian.weights.initial
    twin = learn.map_learner(map_loss(bayesian.simulator), template, params, optax.sgd(0.5), ROOT)
    rule = learn.svi_learner(bayesian, SviConfig(), optax.sgd(0.5 / len(X)), 10, ROOT)
    one, other = twin.init(), rule.init()
    for _ in range(3):
        one, _ = twin.step(one, DATA)
        other, _ = rule.step(other, DATA)
    expected, found = learn.map_params(template, one), learn.svi_params(bayesian, other)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def map_loss(simulator: Simulator) -> Any:
    def loss(values: dict, batch: Batch, key: jax.Array) -> Any:
        logits, statistics = simulator.trained(values, batch.x, key)
        return -log_likelihood(logits[-1], batch.y).mean(), statistics

    return loss


@pytest.mark.parametrize("kind", ["map", "svi"])
def test_going_on_is_the_same_as_never_stopping(kind: str, tmp_path: Path) -> None:
    bayesian = net(stack(), gated=True)
    template, params = bayesian.simulator.template, bayesian.weights.initial
    if kind == "svi":
        rule = learn.svi_learner(bayesian, SviConfig(), optax.adam(0.01), 15, ROOT)
    else:
        rule = map_rule(template, params, bayesian.simulator)

    def run(state: Any, epochs: int, start: int = 0) -> Any:
        for epoch in learn.fit(rule, state, DATA, epochs=epochs, batch_size=16, root=ROOT, start=start):
            state = epoch.state
        return state

    whole, half = run(rule.init(), 5), run(rule.init(), 2)
    checkpoint.save(tmp_path, 2, half)
    rest = run(checkpoint.restore(tmp_path, 2, rule.init()), 5, start=2)
    assert whole.statistics.keys() == template.statistics.keys()
    for name, value in whole.statistics.items():
        assert np.abs(value - template.statistics[name]).max() > 1e-3
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(rest), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)


def test_states_without_norms_have_the_leaves_that_they_had() -> None:
    model = Stack(readout=Layer(Dense(5, 2, key=ROOT), LI(beta=0.9)))
    bayesian = net(model)
    rules = (
        learn.svi_learner(bayesian, SviConfig(), optax.sgd(0.1), 10, ROOT),
        learn.map_learner(
            lambda *_: jnp.zeros(()), bayesian.simulator.template, bayesian.weights.initial, optax.sgd(0.1), ROOT
        ),
    )
    for rule in rules:
        named = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(rule.init())]
        assert not [name for name in named if "statistics" in name]


def test_a_checkpoint_of_before_restores(tmp_path: Path) -> None:
    class Before(NamedTuple):
        params: Any
        opt_state: Any
        step: Any

    bayesian = net(Stack(readout=Layer(Dense(5, 2, key=ROOT), LI(beta=0.9))))
    start, template = bayesian.weights.initial, bayesian.simulator.template
    state = learn.map_learner(lambda *_: jnp.zeros(()), template, start, optax.adam(0.1), ROOT).init()
    checkpoint.save(tmp_path, 1, Before(state.params, state.opt_state, state.step + 7))
    restored = checkpoint.restore(tmp_path, 1, state)
    assert restored.statistics == {}
    assert int(restored.step) == 7


def test_what_is_unknown_or_absent_among_statistics() -> None:
    template, params = split(stack())
    np.testing.assert_array_equal(template.build(params).hidden.norm.mean[...], template.statistics[MEAN])
    moved = template.build(params | {MEAN: jnp.full(6, 3.0)})
    np.testing.assert_array_equal(moved.hidden.norm.mean[...], np.full(6, 3.0))
    with pytest.raises(KeyError, match=r"these differ: statistics\.other"):
        template.build(params | {f"{STATISTICS}other": jnp.zeros(6)})


@pytest.mark.parametrize("model", [stack(), Whole(Chain(**dict(stack().layers())))], ids=["stack", "own"])
def test_priors_see_no_statistics_and_scale_and_shift_are_points(model: Any) -> None:
    template, params = split(model)
    prior = priors.default(template)
    assert not [name for name in template.names if name.endswith((".mean", ".variance"))]
    points = {name for name in template.names if prior(name, params[name].shape) is None}
    assert points == {name for name in template.names if ".norm." in name}


def test_what_the_whole_network_spends_does_not_go_by_statistics_of_networks_under_gates() -> None:
    bayesian = net(stack(), gated=True)
    bayesian = dataclasses.replace(bayesian, energy=EnergyPrior(bayesian.sites, profile("45nm")))
    learner = learn.svi_learner(bayesian, SviConfig(), optax.sgd(1e-3), 10, ROOT)
    params = learn.svi_params(bayesian, learner.init())
    other = params | {VARIANCE: 100.0 * params[VARIANCE]}

    def spikes(params: dict, gated: bool) -> np.ndarray:
        return np.asarray(bayesian.measure(params, DATA.x, ROOT, gated=gated)[0]["readout"])

    np.testing.assert_array_equal(spikes(other, False), spikes(params, False))
    assert not np.array_equal(spikes(other, True), spikes(params, True))


def test_members_of_one_guide_get_a_sentence() -> None:
    template, params = split(stack())
    many = guides.ensemble(guides.stacked([params, params]))
    with pytest.raises(ValueError, match="need normalisation statistics of their own, got 2"):
        Bayesian(Simulator(template, 4), WeightPosterior(template, params, priors.point, many), data_size=4)


def test_the_decided_networks_statistics_are_measured_anew() -> None:
    bayesian = net(stack(), gated=True)
    learner = learn.svi_learner(bayesian, SviConfig(), optax.sgd(1e-3), 10, ROOT)
    params = bayesian.gates.decide(
        learn.svi_params(bayesian, learner.init()), jnp.arange(bayesian.gates.sites.total) % 3 > 0
    )
    x = np.asarray(jax.random.normal(jax.random.key(4), (2 * ROWS, 5))) + np.arange(5)
    finished = bayesian.finish(params, x, np.zeros(len(x), int), ROOT)
    centre = bayesian.centre(finished)
    raw = x @ np.asarray(bayesian.network(centre)["hidden.synapse.kernel"])
    np.testing.assert_allclose(finished[DECIDED + MEAN], raw.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(finished[DECIDED + VARIANCE], raw.var(0), rtol=1e-4)
    np.testing.assert_array_equal(centre.weights[MEAN], finished[DECIDED + MEAN])
    np.testing.assert_array_equal(bayesian.draw(finished, ROOT).weights[MEAN], params[MEAN])
    # what is deployed has them in its kernels
    norms = bayesian.simulator.template.build(bayesian.network(centre)).hidden.norm
    factor = norms.scale[...] / np.sqrt(norms.variance[...] + norms.epsilon)
    bias = np.asarray(norms.shift[...] - norms.mean[...] * factor)
    deployed = deploy(bayesian, finished)
    np.testing.assert_allclose(deployed.masked["hidden.synapse.bias"], bias, atol=2**-12)
    # and the whole network, which it is held to, has its own
    raw = x @ np.asarray(centre.weights["hidden.synapse.kernel"])
    np.testing.assert_allclose(finished[WHOLE + MEAN], raw.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(finished[WHOLE + VARIANCE], raw.var(0), rtol=1e-4)
    factor = norms.scale[...] / np.sqrt(finished[WHOLE + VARIANCE] + norms.epsilon)
    bias = np.asarray(norms.shift[...] - finished[WHOLE + MEAN] * factor)
    np.testing.assert_allclose(deployed.full["hidden.synapse.bias"], bias, atol=2**-12)


# --- Gates


def test_a_gates_gradient_behind_the_norm_is_that_of_all_settings() -> None:
    bayesian = net(stack(), family="bernoulli", prior=priors.point)
    template, weights = bayesian.simulator.template, bayesian.weights.initial
    where = bayesian.gates.sites
    svi = SVI(bayesian.model, bayesian.guide, optax.sgd(1.0), TraceMeanField_ELBO())
    state = svi.init(ROOT, DATA.x[:1], DATA.y[:1], bayesian.no_context())
    params = svi.get_params(state)
    logit = jnp.linspace(-1.0, 1.5, where.total)
    context = bayesian.no_context()._replace(statistics=template.statistics, gates_weight=jnp.asarray(1e-9))

    def objective(logit: jax.Array, context: Any) -> jax.Array:
        (name,) = [name for name in params if name.startswith("gates.")]
        return -svi.loss.loss(ROOT, params | {name: logit}, bayesian.model, bayesian.guide, DATA.x, DATA.y, context)

    settings = [np.array(bits, np.float32) for bits in itertools.product((0.0, 1.0), repeat=where.total)]

    def under(z: np.ndarray) -> tuple[jax.Array, dict[str, jax.Array]]:
        gated = bayesian.network(Draw(weights, where.unflatten(jnp.asarray(z))))
        logits, after = bayesian.simulator.trained(gated | template.statistics, DATA.x)
        return log_likelihood(logits[-1], DATA.y).sum(), after

    found = [under(z) for z in settings]

    def enumerated(logit: jax.Array) -> jax.Array:
        p = jax.nn.sigmoid(logit)
        shares = jnp.stack([jnp.prod(jnp.where(z > 0, p, 1 - p)) for z in settings])
        return shares @ jnp.stack([value for value, _ in found])

    slope, expected = jax.grad(objective)(logit, context), jax.grad(enumerated)(logit)
    np.testing.assert_allclose(slope, expected, rtol=2e-3, atol=2e-3)
    hidden = where.unflatten(expected)["hidden"]
    assert np.abs(hidden).min() > 1e-3, "every gate behind the norm is felt"
    # the statistics after the batch are expected over the same settings
    after = jax.grad(lambda s: objective(logit, context._replace(statistics=s)))(template.statistics)
    p = np.asarray(jax.nn.sigmoid(logit))
    shares = np.array([np.prod(np.where(z > 0, p, 1 - p)) for z in settings])
    name = f"{STATISTICS}readout.norm.mean"
    np.testing.assert_allclose(after[name], shares @ np.stack([a[name] for _, a in found]), rtol=1e-4, atol=1e-5)


def test_a_gate_before_the_norm_would_not_be_felt() -> None:
    bayesian = net(stack(), prior=priors.point)
    weights = bayesian.weights.initial

    def loss(z: jax.Array, name: str) -> jax.Array:
        rows = z if name.startswith("hidden") else z[:, None]
        gated = weights | {name: weights[name] * rows}
        return log_likelihood(bayesian.simulator.trained(gated, DATA.x)[0][-1], DATA.y).mean()

    open_ = jnp.ones(6)
    before, behind = (jax.grad(loss)(open_, f"{name}.synapse.kernel") for name in ("hidden", "readout"))
    assert np.abs(behind).max() > 1e-3
    assert np.abs(before).max() < 1e-4 * np.abs(behind).max()


# --- Networks of one's own, and a whole fit


class Normed(nnx.Module):
    """A network of one's own that keeps statistics: the running maximum of its inputs."""

    in_shape: tuple[int, ...] = (5,)
    out_shape: tuple[int, ...] = (2,)

    def __init__(self) -> None:
        self.kernel = nnx.Param(jax.random.normal(jax.random.key(0), (5, 2)))
        self.most = nnx.BatchStat(jnp.ones(5))

    def init(self, batch: int) -> Any:
        return jnp.zeros((batch, 2))

    def sequence(self, state: Any, xs: Any, keys: Any = None, *, running: Any = None, train: bool = False) -> Any:
        most = jnp.abs(xs).max((0, 1)) if train else self.most[...]
        return state, Output(xs / most @ self.kernel[...], stats={"most": most} if train else {})


def test_a_network_of_ones_own_gives_its_statistics() -> None:
    template, params = split(Whole(Normed()))
    name = f"{STATISTICS}network.most"
    assert template.statistics.keys() == {name}
    logits, after = Simulator(template, 4).trained(params, DATA.x)
    np.testing.assert_allclose(after[name], np.abs(X).max(0))
    np.testing.assert_allclose(Simulator(template, 4).logits(params | after, DATA.x), logits, rtol=1e-5, atol=1e-6)


def convolutions(in_shape: tuple[int, ...], classes: int, *, key: Any, cell: Any) -> Stack:
    """A convolutional network with norms, as `dsnn.fit` takes it."""
    keys = jax.random.split(key, 3)
    first = Conv((*in_shape[:2], 1), 4, key=keys[0], bias=False)
    second = Conv((3, 3, 4), 6, key=keys[1], bias=False)
    return Stack(
        conv0=Layer(first, cell(4), norm=TdBN(4)),
        conv1=Layer(second, cell(6), before=(Pool((6, 6, 4)),), norm=TdBN(6)),
        readout=Layer(Dense((3, 3, 6), classes, key=keys[2]), LI(beta=0.9)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("bayes", [True, False])
def test_a_fit_with_norms_predicts_is_kept_and_deploys(bayes: bool, tmp_path: Path) -> None:
    y = np.arange(120) % 2
    noise = np.random.default_rng(0).normal(0.0, 0.3, (120, 6, 6, 1)).astype(np.float32)
    x = noise + np.where(y, 1.0, 0.0)[:, None, None, None] * np.eye(6, dtype=np.float32)[None, :, :, None]
    options: dict[str, Any] = {} if bayes else {"bayesian": False}
    fitted = dsnn.fit(x, y, network=convolutions, epochs=25, steps=4, batch_size=16, baseline="none", **options)
    names = {name for name in fitted.params if STATISTICS in name}
    kept = {f"{STATISTICS}conv{i}.norm.{name}" for i in (0, 1) for name in ("mean", "variance")}
    starts = ("", DECIDED, WHOLE) if bayes else ("", DECIDED)
    assert names == {start + name for start in starts for name in kept}
    made = dsnn.predict(fitted, x, samples=4)
    assert (made.probs.argmax(1) == y).mean() > 0.9
    fitted.save(tmp_path / "kept")
    again = dsnn.predict(dsnn.load(tmp_path / "kept", trust=True), x, samples=4)
    np.testing.assert_array_equal(made.probs, again.probs)
    small = fitted.network()
    assert small.conv0.norm is None
    assert "TdBN" not in repr(fitted)
    scaled = jnp.asarray(x)
    logits = small.logits(dsnn.unroll(small, scaled, steps=4)[0])
    assert (np.asarray(logits[-1]).argmax(1) == y).mean() > 0.9


def test_a_learner_that_keeps_no_statistics_gets_a_sentence() -> None:
    x, y = np.zeros((40, 6, 6, 1), np.float32), np.arange(40) % 2
    config = Config(learner="nuts", gates=GatesConfig(enabled=False), halting=HaltingConfig(enabled=False))
    with pytest.raises(ValueError, match=r"kept by learner=svi and learner=map.*got a network with norms"):
        dsnn.fit(x, y, network=convolutions, config=config, baseline="none")


def test_nir_has_the_norm_in_the_kernel(tmp_path: Path) -> None:
    pytest.importorskip("nir")
    model = stack()
    dsnn.nir.save(model, tmp_path / "with.nir")
    dsnn.nir.save(parameters.folded(model), tmp_path / "without.nir")
    xs = jax.random.normal(jax.random.key(2), (4, 8, 5))
    one, other = (dsnn.unroll(dsnn.nir.load(tmp_path / name), xs)[0] for name in ("with.nir", "without.nir"))
    np.testing.assert_array_equal(one, other)
    assert np.abs(one).max() > 0.1
