"""Every norm by its formula, in every form in which a network runs, folded, cut, gated and priced."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from numpyro.infer import SVI, TraceMeanField_ELBO

import dsnn
from dsnn import learn, rng
from dsnn.bayes import guides, priors, sites
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.energy import expected_energy
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.gates import FAMILIES
from dsnn.bayes.norm_statistics import DECIDED, ROWS
from dsnn.bayes.objective import Draw
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.cells import LI, LIF
from dsnn.deploy.activity import records
from dsnn.deploy.decided import compaction_error, deploy, ran
from dsnn.energy import SynapseRecord, ann_twin, count, price, profile
from dsnn.learn import Batch, SviConfig
from dsnn.networks import (
    BNTT,
    TEBN,
    BatchNorm,
    Chain,
    Conv,
    Dense,
    Layer,
    LayerNorm,
    Residual,
    RMSNorm,
    Stack,
    StepAffine,
    TdBN,
    Whole,
    cut,
)
from dsnn.nir.fields import NIRError
from dsnn.parameters import STATISTICS, folded, split
from dsnn.simulate.early_exit import Rule, confidence_rule
from dsnn.simulate.simulator import Simulator, keep_spikes, log_likelihood
from dsnn.simulate.unroll import unroll_trained

sys.path.append(str(Path(__file__).parent / "own_package" / "src"))
from ownlab.norms import SizeNorm, normed

ROOT = rng.root(0)
STEPS = 4
X = np.asarray(jax.random.normal(jax.random.key(1), (48, 5)))
Y = (X[:, 0] > 0).astype(np.int32)
DATA = Batch(jnp.asarray(X), jnp.asarray(Y))

KINDS: dict[str, Callable[[int], Any]] = {
    "TdBN": TdBN,
    "BatchNorm": BatchNorm,
    "BNTT": lambda features: BNTT(features, STEPS),
    "TEBN": lambda features: TEBN(features, STEPS),
    "RMSNorm": RMSNorm,
    "LayerNorm": LayerNorm,
    "own": SizeNorm,
}
BY_STEP, BY_TOKEN = ("BNTT", "TEBN"), ("RMSNorm", "LayerNorm")
MEASURED = tuple(kind for kind in KINDS if kind not in BY_TOKEN)

every_kind = pytest.mark.parametrize("kind", KINDS)


def norm(kind: str, features: int, seed: int = 0) -> Any:
    """A norm whose numbers are all different from those that it begins with."""
    made, draws = KINDS[kind](features), np.random.default_rng(seed)
    state = nnx.state(made)
    drawn = jax.tree.map(lambda a: jnp.asarray(draws.uniform(0.5, 1.5, a.shape), jnp.float32), state)
    nnx.update(made, drawn)
    if kind in ("TdBN", "BatchNorm", *BY_STEP):  # what is far below its mean fires nothing
        made.mean[...] = made.mean[...] - 1.0
    return made


def stack(kind: str, *, widths: tuple[int, int] = (6, 4), **options: Any) -> Stack:
    """Three layers, the first and the last with norms."""
    wide, narrow = widths
    one, two, three, loop = jax.random.split(jax.random.key(7), 4)
    recurrent = loop if options.pop("recurrent", False) else None
    return Stack(
        first=Layer(Dense(5, wide, key=one, gain=2.0), LIF(beta=0.9), norm=norm(kind, wide), recurrent_key=recurrent),
        second=Layer(Dense(wide, narrow, key=two, gain=3.0), LIF(beta=0.9)),
        readout=Layer(Dense(narrow, 2, key=three), LI(beta=0.9), norm=norm(kind, 2, 1)),
    )


def chain(kind: str) -> Whole:
    """The same layers around a residual block whose norm is of the kind."""
    keys = jax.random.split(jax.random.key(3), 4)
    return Whole(
        Chain(
            first=Layer(Dense(5, 6, key=keys[0], gain=2.0), LIF(beta=0.9), norm=norm(kind, 6)),
            block=Residual(Chain(inner=Layer(Dense(6, 6, key=keys[1], gain=2.0), LIF(0.9), norm=norm(kind, 6, 1)))),
            second=Layer(Dense(6, 4, key=keys[3], gain=3.0), LIF(beta=0.9)),
            readout=Layer(Dense(4, 2, key=keys[2]), LI(beta=0.9)),
        )
    )


def images(kind: str) -> Stack:
    """Convolutions with norms."""
    keys = jax.random.split(jax.random.key(5), 3)
    first = Conv((6, 6, 1), 3, key=keys[0], gain=2.0)
    second = Conv((6, 6, 3), 4, key=keys[1], padding="VALID", strides=(2, 2), gain=2.0)
    return Stack(
        conv0=Layer(first, LIF(beta=0.9), norm=norm(kind, 3)),
        conv1=Layer(second, LIF(beta=0.9), norm=norm(kind, 4, 1)),
        readout=Layer(Dense(16, 2, key=keys[2]), LI(beta=0.9)),
    )


# --- The formulas


@pytest.mark.parametrize("shape", [(STEPS, 7, 3), (STEPS, 5, 2, 3, 3)], ids=["dense", "space"])
def test_bntt_is_the_formula_of_each_step(shape: tuple[int, ...]) -> None:
    made = norm("BNTT", 3)
    currents = np.random.default_rng(2).normal(0.3, 2.0, shape).astype(np.float32)
    found, stored = made.trained(jnp.asarray(currents)), made(jnp.asarray(currents), jnp.arange(STEPS))
    scale, mean, variance = (np.asarray(v[...], np.float64) for v in (made.scale, made.mean, made.variance))
    for t in range(STEPS):
        rows = currents[t].reshape(-1, 3).astype(np.float64)
        expected = scale[t] * (rows - rows.mean(0)) / np.sqrt(rows.var(0) + made.epsilon)
        np.testing.assert_allclose(found.currents[t].reshape(-1, 3), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.statistics["mean"][t], 0.9 * mean[t] + 0.1 * rows.mean(0), rtol=1e-5)
        np.testing.assert_allclose(found.statistics["variance"][t], 0.9 * variance[t] + 0.1 * rows.var(0), rtol=1e-5)
        expected = scale[t] * (rows - mean[t]) / np.sqrt(variance[t] + made.epsilon)
        np.testing.assert_allclose(stored[t].reshape(-1, 3), expected, rtol=1e-4, atol=1e-5)
        alone = made(jnp.asarray(currents[t]), jnp.asarray(t))
        np.testing.assert_array_equal(alone, stored[t])


def test_tebn_is_batch_norm_by_a_number_for_each_step() -> None:
    made = norm("TEBN", 3)
    currents = np.random.default_rng(2).normal(0.3, 2.0, (STEPS, 5, 2, 2, 3)).astype(np.float32)
    rows, found = currents.reshape(-1, 3).astype(np.float64), made.trained(jnp.asarray(currents))
    scale, shift, by_step = (np.asarray(v[...], np.float64) for v in (made.scale, made.shift, made.by_step))
    assert by_step.shape == (STEPS, 1)
    unit = scale * (currents - rows.mean(0)) / np.sqrt(rows.var(0) + made.epsilon) + shift
    np.testing.assert_allclose(found.currents, unit * by_step.reshape(-1, 1, 1, 1, 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.statistics["variance"], 0.9 * made.variance[...] + 0.1 * rows.var(0), rtol=1e-5)


def test_batch_norm_keeps_the_unbiased_variance_as_pytorch_does() -> None:
    made, currents = norm("BatchNorm", 3), np.random.default_rng(2).normal(0.3, 2.0, (2, 5, 3)).astype(np.float32)
    rows, found = currents.reshape(-1, 3).astype(np.float64), made.trained(jnp.asarray(currents))
    scale, shift = np.asarray(made.scale[...]), np.asarray(made.shift[...])
    unit = scale * (currents - rows.mean(0)) / np.sqrt(rows.var(0) + made.epsilon) + shift
    np.testing.assert_allclose(found.currents, unit, rtol=1e-4, atol=1e-5)
    kept = 0.9 * np.asarray(made.variance[...]) + 0.1 * rows.var(0, ddof=1)
    np.testing.assert_allclose(found.statistics["variance"], kept, rtol=1e-5)


def test_token_norms_are_formulas_of_one_place() -> None:
    currents = np.random.default_rng(2).normal(0.3, 2.0, (STEPS, 5, 7, 3))
    power = (currents**2).mean(-1, keepdims=True)
    made = norm("RMSNorm", 3)
    expected = made.scale[...] * currents / np.sqrt(power + made.epsilon)
    np.testing.assert_allclose(made(jnp.asarray(currents, jnp.float32)), expected, rtol=1e-5, atol=1e-6)
    made = norm("LayerNorm", 3)
    unit = (currents - currents.mean(-1, keepdims=True)) / np.sqrt(currents.var(-1, keepdims=True) + made.epsilon)
    expected = made.scale[...] * unit + made.shift[...]
    np.testing.assert_allclose(made(jnp.asarray(currents, jnp.float32)), expected, rtol=1e-4, atol=1e-5)


# --- The forms in which a network runs


@every_kind
@pytest.mark.parametrize(("make", "held"), [(stack, True), (chain, True), (images, False)])
def test_answers_are_the_same_in_every_schedule(kind: str, make: Callable[[str], Any], held: bool) -> None:
    model = make(kind)
    xs = jax.random.normal(jax.random.key(2), (8, *model.in_shape) if held else (STEPS, 8, *model.in_shape))
    options = {"steps": STEPS} if held else {}
    ways = ("layer", "step", "associative")
    found = [dsnn.unroll(model, xs, None, None, how, **options)[:2] for how in ways]
    assert np.abs(found[0][0]).max() > 0.1
    for outputs, state in found[1:]:
        np.testing.assert_allclose(outputs, found[0][0], rtol=1e-5, atol=1e-5)
        for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(found[0][1]), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", BY_STEP)
@pytest.mark.parametrize("schedule", ["layer", "step"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_a_run_that_goes_on_knows_its_step(kind: str, schedule: str, recurrent: bool) -> None:
    model, xs = stack(kind, recurrent=recurrent), jax.random.normal(jax.random.key(2), (STEPS, 8, 5))
    whole, last, _ = dsnn.unroll(model, xs, schedule=schedule)
    first, state, _ = dsnn.unroll(model, xs[:1], schedule=schedule)
    rest, after, _ = dsnn.unroll(model, xs[1:], schedule=schedule, state=state)
    np.testing.assert_allclose(jnp.concatenate([first, rest]), whole, rtol=1e-5, atol=1e-5)
    assert int(after["first"].step) == int(last["first"].step) == STEPS


@pytest.mark.parametrize("kind", BY_STEP)
@pytest.mark.parametrize("schedule", ["layer", "step"])
@pytest.mark.parametrize("make", [stack, chain])
def test_skipped_steps_are_not_counted(kind: str, schedule: str, make: Callable[[str], Any]) -> None:
    model, xs = make(kind), jax.random.normal(jax.random.key(2), (STEPS, 8, 5))
    running = jnp.array([0.0, 1.0, 0.0, 1.0])
    masked, _, _ = dsnn.unroll(model, xs, schedule=schedule, running=running)
    alone, _, _ = dsnn.unroll(model, xs[1::2], schedule=schedule)
    np.testing.assert_allclose(masked[1::2], alone, rtol=1e-5, atol=1e-5)
    if kind == "BNTT" and make is stack:
        _, statistics = unroll_trained(model, xs, running=running)
        _, kept = unroll_trained(model, xs[1::2])
        np.testing.assert_allclose(statistics["first.norm.mean"], kept["first.norm.mean"], rtol=1e-5)
        np.testing.assert_array_equal(statistics["first.norm.mean"][2:], model.first.norm.mean[2:])


@every_kind
def test_examples_that_stop_early_get_what_they_would_get(kind: str) -> None:
    model, x = stack(kind), jax.random.normal(jax.random.key(3), (160, 5))
    logits = model.logits(dsnn.unroll(model, x, steps=STEPS)[0])
    enough = jnp.quantile(logits[0, :, 0], 0.4)
    rule = Rule(lambda batch: jnp.zeros(batch), lambda state, logits, step: (state, logits[:, 0] > enough))
    decision = dsnn.anytime(model, rule, STEPS)(x, None)
    assert len(np.unique(decision.steps)) > 1
    expected = np.asarray(logits)[np.asarray(decision.steps) - 1, np.arange(len(x))]
    np.testing.assert_allclose(decision.logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", MEASURED)
@pytest.mark.parametrize("held", [False, True])
def test_training_by_layers_is_the_norm_over_all_steps(kind: str, held: bool) -> None:
    layer = Layer(Dense(5, 6, key=jax.random.key(0)), LI(beta=0.9), norm=norm(kind, 6))
    xs = jax.random.normal(jax.random.key(1), (8, 5) if held else (STEPS, 8, 5))
    every = jnp.broadcast_to(xs, (STEPS, 8, 5)) if held else xs
    outputs, statistics = unroll_trained(Stack("last", readout=layer), xs, steps=STEPS if held else None)
    raw = every @ layer.synapse.kernel[...]
    expected = layer.norm.trained(raw, None, jnp.arange(STEPS))
    np.testing.assert_allclose(outputs, dsnn.unroll(layer.cell, expected.currents)[0], rtol=1e-4, atol=1e-5)
    for name, value in expected.statistics.items():
        # a held input is one set of numbers, whose unbiased variance is another
        if not (held and kind == "BatchNorm" and name == "variance"):
            np.testing.assert_allclose(statistics[f"readout.norm.{name}"], value, rtol=1e-4, atol=1e-6)


# --- Sentences


@pytest.mark.parametrize("kind", BY_STEP)
def test_more_steps_than_it_has_get_a_sentence(kind: str) -> None:
    model, x = stack(kind), jnp.zeros((3, 5))
    for network in (model, folded(model), chain(kind)):
        for how in ("layer", "step"):
            with pytest.raises(ValueError, match=r"got 5 steps and 4 in a .*; run at most 4, or learn with more"):
                dsnn.unroll(network, x, schedule=how, steps=5)
    with pytest.raises(ValueError, match="got 5 steps and 4"):
        dsnn.anytime(folded(model), confidence_rule(0.9), 5)
    with pytest.raises(ValueError, match="must be told which step it sees"):
        model.first.norm(jnp.zeros((3, 6)))


def test_bad_norms_get_a_sentence() -> None:
    synapse = Dense(5, 6, key=ROOT)
    with pytest.raises(ValueError, match="steps must be positive"):
        BNTT(6, 0)
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\)"):
        BatchNorm(6, momentum=1.0)
    with pytest.raises(ValueError, match="epsilon must be positive"):
        RMSNorm(6, epsilon=0.0)
    with pytest.raises(ValueError, match="the channels of its layer, 6, got features=4"):
        Layer(synapse, LIF(0.9), norm=LayerNorm(4))
    own = SizeNorm(6)
    del own.momentum
    with pytest.raises(ValueError, match="must have a momentum"):
        Layer(synapse, LIF(0.9), norm=own)
    with pytest.raises(ValueError, match=r"two numbers a channel at least, over batch and space of a step, got 1"):
        unroll_trained(stack("BNTT"), jnp.zeros((STEPS, 1, 5)))


@pytest.mark.parametrize("kind", [*BY_STEP, *BY_TOKEN])
def test_nir_has_no_words_for_what_no_kernel_holds(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("nir")
    with pytest.raises(NIRError, match=r"layer 'first' has a .*, which no kernel holds"):
        dsnn.nir.save(stack(kind), tmp_path / "net.nir")


# --- Folding and cutting


@every_kind
@pytest.mark.parametrize("make", [stack, chain, images])
def test_folded_is_the_same_network(kind: str, make: Callable[[str], Any]) -> None:
    template, params = split(make(kind))
    simulator = Simulator(template, STEPS)
    x = jax.random.normal(jax.random.key(2), (32, *template.build(params).in_shape))
    small = template.fold(params | template.statistics)
    logits = simulator.logits(params, x)
    assert np.abs(logits).max() > 0.1
    # a spike that rounding moves changes an answer, so most of them have to agree
    same = np.abs(np.asarray(simulator.logits(small, x)) - np.asarray(logits)) < 1e-4
    assert same.mean() > 0.95
    names = {name.rpartition(".norm.")[2] for name in small if ".norm." in name}
    left = {"BNTT": {"step_scale", "step_shift"}, "TEBN": {"step_scale"}}
    assert names == left.get(
        kind, {"scale", "shift"} if kind == "LayerNorm" else {"scale"} & {"scale" * (kind == "RMSNorm")}
    )
    # what is folded is folded for good
    again = folded(template.build(small) if kind in MEASURED else template.build(params))
    assert not [module for _, module in nnx.iter_modules(again) if getattr(module, "folds", False)]


def test_cutting_leaves_the_steps_and_cuts_the_channels() -> None:
    model = images("BNTT")
    small = cut(model, {"conv0": np.array([0, 2])})
    whole = folded(model).conv0.norm
    assert isinstance(small.conv0.norm, StepAffine)
    np.testing.assert_array_equal(small.conv0.norm.step_scale[...], whole.step_scale[:, [0, 2]])
    np.testing.assert_array_equal(small.conv0.norm.step_shift[...], whole.step_shift[:, [0, 2]])


@pytest.mark.parametrize("kind", BY_TOKEN)
def test_channels_before_a_norm_over_them_are_no_sites(kind: str) -> None:
    assert stack(kind).wiring().groups.keys() == {"input", "second"}
    assert chain(kind).wiring().groups.keys() == {"input", "residual", "second"}
    with pytest.raises(ValueError, match="keep must name groups of the wiring, input, second, got 'first'"):
        cut(stack(kind), {"first": np.array([0])})


def net(model: Any, *, encoding: str = "direct", prior: Any = None, family: str = "", **options: Any) -> Bayesian:
    template, params = split(model)
    where = sites.sites(model, analog_input=encoding == "direct", gate_input=not family)
    gates = GatePosterior(where, FAMILIES[family]) if family else GatePosterior(where)
    prior, guide = (prior, guides.point()) if prior else (priors.default(template), guides.mean_field(0.05))
    weights = WeightPosterior(template, params, prior, guide, **options)
    return Bayesian(Simulator(template, STEPS, encoding), weights, gates, data_size=len(X))


@every_kind
@pytest.mark.parametrize("make", [stack, chain, images])
def test_the_compacted_network_is_the_masked_one_bit_for_bit(kind: str, make: Callable[[str], Any]) -> None:
    bayesian = net(make(kind), encoding="temporal")
    learner = learn.svi_learner(bayesian, SviConfig(), optax.sgd(1e-3), 10, ROOT)
    params = bayesian.gates.decide(
        learn.svi_params(bayesian, learner.init()), jnp.arange(bayesian.gates.sites.total) % 3 > 0
    )
    deployed = deploy(bayesian, params)
    shape = bayesian.simulator.template.build(bayesian.weights.initial).in_shape
    spikes = (jax.random.uniform(jax.random.key(2), (STEPS, 16, *shape)) < 0.5).astype(jnp.float32)
    model, runs = bayesian.simulator.built(deployed.masked)
    masked = ran(bayesian.simulator, model, spikes, None, runs)
    small = ran(bayesian.simulator, deployed.small, spikes, None)
    if not (kind in BY_TOKEN and make is images):  # which has no sites but its one input
        assert sum(leaf.size for leaf in split(deployed.small)[1].values()) < sum(
            a.size for a in deployed.masked.values()
        )
    assert compaction_error(masked, small) == 0.0
    assert np.abs(masked.logits).max() > 0.1
    decision = deployed.run(spikes)  # the form that ships steps through time
    np.testing.assert_allclose(decision.logits, masked.logits[-1], rtol=1e-4, atol=1e-5)


# --- Statistics in the learner, under draws


@pytest.mark.parametrize("kind", MEASURED)
def test_statistics_under_flipout_are_those_of_each_examples_own_draw(kind: str) -> None:
    """Signs of deviations that are all but nothing change nothing."""
    template, params = split(stack(kind))
    guide = guides.mean_field(1e-7)
    weights = WeightPosterior(template, params, priors.default(template), guide, flipout=True)
    flipped = Bayesian(Simulator(template, STEPS), weights, data_size=len(X))
    points = Bayesian(
        Simulator(template, STEPS), WeightPosterior(template, params, priors.point, guides.point()), data_size=len(X)
    )
    found = []
    for bayesian in (flipped, points):
        rule = learn.svi_learner(bayesian, SviConfig(), optax.sgd(1e-9), 10, ROOT)
        state, _ = rule.step(rule.init(), DATA)
        found.append(state.statistics)
    for name, value in found[1].items():
        assert np.abs(value - template.statistics[name]).max() > 1e-4
        np.testing.assert_allclose(found[0][name], value, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", MEASURED)
def test_the_decided_networks_statistics_are_measured_anew(kind: str) -> None:
    bayesian = net(stack(kind))
    learner = learn.svi_learner(bayesian, SviConfig(), optax.sgd(1e-3), 10, ROOT)
    params = learn.svi_params(bayesian, learner.init())
    x = np.asarray(jax.random.normal(jax.random.key(4), (2 * ROWS, 5))) + np.arange(5)
    finished = bayesian.finish(params, x, np.zeros(len(x), int), ROOT)
    raw = x @ np.asarray(bayesian.network(bayesian.centre(finished))["first.synapse.kernel"])
    raw = raw + np.asarray(bayesian.network(bayesian.centre(finished))["first.synapse.bias"])
    start = f"{DECIDED}{STATISTICS}first.norm."
    if kind == "own":
        np.testing.assert_allclose(finished[f"{start}size"], np.abs(raw).mean(0) + 1e-3, rtol=1e-4)
        return
    shape = finished[f"{start}mean"].shape
    np.testing.assert_allclose(finished[f"{start}mean"], np.broadcast_to(raw.mean(0), shape), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(finished[f"{start}variance"], np.broadcast_to(raw.var(0), shape), rtol=5e-3)


# --- Gates


@every_kind
def test_a_gates_gradient_behind_the_norm_is_that_of_all_settings(kind: str) -> None:
    bayesian = net(stack(kind, widths=(3, 3)), family="bernoulli", prior=priors.point)
    template, weights, where = bayesian.simulator.template, bayesian.weights.initial, bayesian.gates.sites
    assert where.groups == ({"second": 3} if kind in BY_TOKEN else {"first": 3, "second": 3})
    svi = SVI(bayesian.model, bayesian.guide, optax.sgd(1.0), TraceMeanField_ELBO())
    params = svi.get_params(svi.init(ROOT, DATA.x[:1], DATA.y[:1], bayesian.no_context()))
    (name,) = [name for name in params if name.startswith("gates.")]
    logit = jnp.linspace(-1.0, 1.5, where.total)
    context = bayesian.no_context()._replace(statistics=template.statistics, gates_weight=jnp.asarray(1e-9))

    def objective(logit: jax.Array) -> jax.Array:
        given = params | {name: logit}
        return -svi.loss.loss(ROOT, given, bayesian.model, bayesian.guide, DATA.x, DATA.y, context)

    settings = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=where.total)))

    def under(z: jax.Array) -> jax.Array:
        gated = bayesian.network(Draw(weights, where.unflatten(z)))
        logits, _ = bayesian.simulator.trained(gated | template.statistics, DATA.x)
        return log_likelihood(logits[-1], DATA.y).sum()

    found = jax.lax.map(under, settings)

    def enumerated(logit: jax.Array) -> jax.Array:
        p = jax.nn.sigmoid(logit)
        return jnp.prod(jnp.where(settings > 0, p, 1 - p), -1) @ found

    slope, expected = jax.grad(objective)(logit), jax.grad(enumerated)(logit)
    np.testing.assert_allclose(slope, expected, rtol=2e-3, atol=2e-3)
    assert np.abs(expected).min() > 1e-3, "every gate is felt"


# --- Energy


class Prices:
    """Tells operations apart by their prices."""

    def event_nj(self, source: str, accounting: str) -> float:
        return 0.0

    def update_nj(self, kind: str, accounting: str) -> float:
        return {"BNTT": 1.0, "TEBN": 1.0, "StepAffine": 1.0, "RMSNorm": 1.0, "LayerNorm": 1.0}.get(kind.split()[0], 0.0)


OPERATIONS = {"BNTT": (1, 0), "TEBN": (1, 0), "RMSNorm": (3, 0), "LayerNorm": (3, 2)}
"""Multiply-accumulates and additions for each current."""


@pytest.mark.parametrize("kind", OPERATIONS)
@pytest.mark.parametrize("held", [False, True])
def test_a_norm_that_stays_is_priced_by_hand_count(kind: str, held: bool) -> None:
    model = images(kind)
    x = jax.random.normal(jax.random.key(2), (8, 6, 6, 1) if held else (STEPS, 8, 6, 6, 1))
    options: dict[str, Any] = {"steps": STEPS} if held else {}
    spikes = dsnn.unroll(model, x, None, keep_spikes, **options)[2]
    where = sites.sites(model, held_input=held)
    events = sites.measure(where, model, x, spikes, held=held)
    z = {name: jnp.ones(size) for name, size in where.groups.items()}
    if kind in BY_STEP:  # two of three, and one of four channels
        z = z | {"conv0": jnp.array([1.0, 0.0, 1.0]), "conv1": jnp.array([0.0, 1.0, 0.0, 0.0])}
    ours = expected_energy(where, z, events, Prices())
    first, second = (2 * 36, 1 * 4) if kind in BY_STEP else (3 * 36, 4 * 4)
    once = first if held and kind in BY_TOKEN else 0
    np.testing.assert_allclose([ours.once_nj, ours.step_nj], [once, first + second - once], rtol=1e-6)
    # the count of what runs, folded
    small = folded(model)
    ran_ = dsnn.unroll(small, x, None, keep_spikes, **options)[2]
    counted = count(records(small, x, ran_, held=held, analog=True))
    own = {layer.name: layer for layer in counted.layers}["conv0.norm"]
    macs, acs = OPERATIONS[kind]
    times = 1 if held and kind in BY_TOKEN else STEPS
    assert (own.update_macs, own.update_acs) == (3 * 36 * times * macs, 3 * 36 * times * acs)
    assert own.neurons == own.states == 0
    # its twin without time steps has a token norm too, and the others in its kernels
    twin = count(ann_twin(records(small, x, ran_, held=held, analog=True)))
    assert ("conv0.norm" in [layer.name for layer in twin.layers]) == (kind in BY_TOKEN)
    assert price(twin, profile("45nm"), "updates").total_nj > 0


def test_the_product_of_a_held_input_is_one_whatever_the_norm() -> None:
    counts = {}
    for kind in ("TdBN", "BNTT"):
        model, x = folded(images(kind)), jnp.ones((8, 6, 6, 1))
        spikes = dsnn.unroll(model, x, None, keep_spikes, steps=STEPS)[2]
        made = records(model, x, spikes, held=True, analog=True)
        products = (record for record in made if isinstance(record, SynapseRecord))
        counts[kind] = next(product.executions for product in products if product.name == "conv0")
    assert counts == {"TdBN": 1.0, "BNTT": 1.0}


# --- A norm of one's own


@pytest.mark.slow
def test_a_norm_of_ones_own_is_learned_kept_and_folded() -> None:
    x = np.concatenate([X + 1.0, X - 1.0]).astype(np.float32)
    y = np.arange(len(x)) // len(X)
    fitted = dsnn.fit(x, y, network=normed, epochs=20, steps=STEPS, batch_size=16, baseline="none")
    names = {f"{STATISTICS}hidden.norm.size", f"{DECIDED}{STATISTICS}hidden.norm.size"}
    assert {name for name in fitted.params if STATISTICS in name} == names
    assert np.abs(fitted.params[f"{STATISTICS}hidden.norm.size"] - 1.0).max() > 1e-3
    assert fitted.network().hidden.norm is None
    assert (dsnn.predict(fitted, x, samples=4).probs.argmax(1) == y).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*BY_STEP, *BY_TOKEN])
def test_a_fit_with_every_norm_predicts_and_deploys(kind: str) -> None:
    x = np.concatenate([X + 1.0, X - 1.0]).astype(np.float32)
    y = np.arange(len(x)) // len(X)

    def network(in_shape: tuple[int, ...], classes: int, *, key: Any, cell: Any) -> Stack:
        one, two = jax.random.split(key)
        hidden = Layer(Dense(in_shape, 8, key=one), cell(8), norm=KINDS[kind](8))
        return Stack(hidden=hidden, readout=Layer(Dense(8, classes, key=two), LI(beta=0.9)))

    fitted = dsnn.fit(x, y, network=network, epochs=20, steps=STEPS, batch_size=16, baseline="none")
    assert (dsnn.predict(fitted, x, samples=4).probs.argmax(1) == y).mean() > 0.9
    small = fitted.network()
    assert type(small.hidden.norm).__name__ == ("StepAffine" if kind in BY_STEP else kind)
