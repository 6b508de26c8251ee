"""Bit gates against closed forms, enumeration, hand counts and independent quantisers."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpyro.distributions import kl_divergence
from numpyro.infer import SVI, TraceMeanField_ELBO

from dsnn import learn, rng
from dsnn.bayes import guides, priors, sites
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.bit_posterior import BitPosterior, named
from dsnn.bayes.bits_config import BitsConfig
from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.gates import BERNOULLI, HARD_CONCRETE, Bernoulli
from dsnn.bayes.likelihood import Gaussian
from dsnn.bayes.nested_gates import AnyWidth, NestedGates
from dsnn.bayes.quantiser import best_log_step, nested, power_of_two, quantised, top
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.bayes.widths import Widths
from dsnn.cells import LI, LIF
from dsnn.config import Config, EnergyConfig, ExportConfig, ModelConfig
from dsnn.energy import NeuronRecord, SynapseRecord, compare, count, price, profile
from dsnn.learn import SviConfig
from dsnn.networks import Dense, Layer, Stack
from dsnn.parameters import split
from dsnn.simulate.simulator import Simulator, log_likelihood

KEY = jax.random.key(0)
INT32 = profile("45nm-int32")
WIDTHS = (2, 4, 8, 16)


# --- The quantiser


def by_residuals(w: np.ndarray, log_steps: list[float], gates: list[float]) -> np.ndarray:
    """Nested residuals in NumPy, each rounded by itself: what the width before left, on the finer grid."""
    total, before, share = np.zeros_like(w), np.zeros_like(w), 1.0
    for bits, log_step, gate in zip(WIDTHS, log_steps, gates, strict=True):
        step, most = 2.0 ** round(log_step), 2 ** (bits - 1) - 1
        clipped = np.clip(w, -most * step, most * step)
        residual = step * np.round((clipped - before) / step)
        share *= gate
        total, before = total + share * residual, before + residual
    return total


def test_nested_gates_sum_the_residuals_of_an_independent_quantiser() -> None:
    w = np.asarray(jax.random.normal(KEY, (40, 6)), np.float64)
    log_steps = [-1.0, -2.6, -5.0, -13.0]
    for gates in ([1, 1, 1, 1], [1, 1, 0, 0], [1, 0.3, 0.8, 0.5], [0, 1, 1, 1]):
        ours = nested(
            jnp.asarray(w, jnp.float32),
            jnp.asarray(log_steps)[:, None],
            jnp.asarray(gates, jnp.float32)[:, None],
            WIDTHS,
        )
        np.testing.assert_allclose(ours, by_residuals(w, log_steps, gates), atol=1e-6)


@pytest.mark.parametrize("last", range(4))
def test_gates_up_to_a_width_are_that_width_exactly(last: int) -> None:
    w = jax.random.normal(KEY, (30, 5))
    log_steps = jnp.asarray([[-1.0], [-2.0], [-6.0], [-13.0]])
    gates = (jnp.arange(4) <= last).astype(jnp.float32)[:, None]
    direct = np.clip(np.round(np.asarray(w) / 2.0 ** log_steps[last, 0]), -top(WIDTHS[last]), top(WIDTHS[last]))
    np.testing.assert_array_equal(nested(w, log_steps, gates, WIDTHS), direct * 2.0 ** float(log_steps[last, 0]))


def test_steps_are_exact_powers_of_two_with_the_gradient_of_a_learned_step() -> None:
    exponents = jnp.arange(-30.0, 30.0)
    np.testing.assert_array_equal(power_of_two(exponents + 0.4), 2.0 ** np.arange(-30, 30))
    w, bits, t = jnp.asarray([[0.3, -0.8, 5.0]]), 4, jnp.asarray([-2.0])
    gradient = jax.grad(lambda t: quantised(w, t, bits).sum())(t)
    inside = sum(round(x / 0.25) - x / 0.25 for x in (0.3, -0.8))
    by_hand = (inside + top(bits)) * 0.25 * math.log(2) / math.sqrt(3 * top(bits))
    np.testing.assert_allclose(gradient, [by_hand], rtol=1e-5)
    np.testing.assert_array_equal(jax.grad(lambda w: quantised(w, t, bits).sum())(w), [[1.0, 1.0, 0.0]])


def test_the_first_step_has_the_least_squared_error_of_all_powers_of_two() -> None:
    w = jax.random.normal(KEY, (50, 3)) * jnp.asarray([1.0, 0.1, 0.0])
    for bits, per in itertools.product((2, 4, 8), (1, 3)):
        found = np.asarray(best_log_step(w, bits, per))
        for unit, values in enumerate([w] if per == 1 else [w[:, i : i + 1] for i in range(3)]):
            errors = {e: float(((quantised(values, jnp.asarray([e]), bits) - values) ** 2).sum()) for e in FLOATS}
            best = errors[float(found[unit])]
            assert best == min(errors.values()) or not float(jnp.abs(values).max())


FLOATS = [float(e) for e in range(-16, 3)]


# --- The distribution over widths


def test_divergence_is_that_of_the_distribution_over_widths() -> None:
    p = np.array([0.9, 0.4, 0.7])
    q = NestedGates(Bernoulli(jnp.asarray(np.log(p / (1 - p)))), 3)
    widths = np.array([0.1, 0.9 * 0.6, 0.9 * 0.4 * 0.3, 0.9 * 0.4 * 0.7])
    np.testing.assert_allclose(kl_divergence(q, AnyWidth(3, 1)), (widths * np.log(widths * 4)).sum(), rtol=1e-5)
    drawn = np.asarray(AnyWidth(3, 1).sample(KEY, (4000,))).sum(-1)
    assert all(abs((drawn == k).mean() - 0.25) < 4.5 * math.sqrt(0.1875 / 4000) for k in range(4))


def test_chances_are_those_of_every_setting_of_the_gates() -> None:
    bits = BitPosterior({"a": jnp.ones((2, 3)), "b": jnp.ones((3, 2))}, (2, 8), per_channel=True)
    p = np.asarray(jax.random.uniform(KEY, (bits.total,)))
    chances = bits.of_gates(jnp.asarray(p))
    table = p.reshape(2, 5)
    for kernel, units in (("a", [0, 1, 2]), ("b", [3, 4])):
        for place, unit in enumerate(units):
            first, second = table[:, unit]
            np.testing.assert_allclose(
                chances[named(kernel)][:, place], [1 - first, first * (1 - second), first * second], rtol=1e-5
            )


# --- A tiny network, enumerated


def tiny(**parts) -> Bayesian:
    """Two inputs, two neurons, two classes: two kernels, of three widths each."""
    keys = jax.random.split(KEY, 2)
    model = Stack(
        hidden=Layer(Dense(2, 2, key=keys[0], gain=2.0, bias=False), LIF(beta=0.5)),
        readout=Layer(Dense(2, 2, key=keys[1], gain=2.0, bias=False), LI(beta=0.5)),
    )
    template, params = split(model)
    where = sites.sites(model)
    kernels = {name: params[name] for name in template.names}
    bits = BitPosterior(kernels, (2, 4), family=BERNOULLI, open_probability=0.5)
    widths = Widths(bits, INT32, INT32.at_bits(16))
    usual = {"bits": bits, "energy": EnergyPrior(where, INT32, "memory", widths=widths)}
    weights = WeightPosterior(template, params, priors.point, guides.point())
    return Bayesian(Simulator(template, 3), weights, data_size=6, **{**usual, **parts})


X = jax.random.uniform(jax.random.key(3), (6, 2), minval=-1.0, maxval=2.0)
Y = jnp.asarray([0, 1, 1, 0, 1, 0])


def enumerated(net: Bayesian, events: dict, lam: float) -> tuple[np.ndarray, list]:
    """The exact posterior over both kernels' widths: exp(log likelihood - λ N E), normalised over all settings."""
    params = net.weights.initial
    settings = list(itertools.product(range(3), repeat=2))
    scores = []
    for levels in settings:
        gates = jnp.asarray([[float(k < level) for level in levels] for k in range(2)]).reshape(-1)
        rounded = net.bits.fold(params, net.bits.at(gates, {n: net.bits.log_steps(n) for n in params}))
        fit = float(log_likelihood(net.simulator.logits(rounded, X)[-1], Y).sum())
        spent = float(net.energy.expected(net.bits.of_gates(gates), events).total(3.0))
        scores.append(fit - lam * len(X) * spent)
    weights = np.exp(np.array(scores) - max(scores))
    return weights / weights.sum(), settings


def test_the_objective_over_widths_is_bounded_by_the_enumerated_evidence_and_reaches_it() -> None:
    """The mean-field optimum of one free kernel is the exact posterior over its widths."""
    net = tiny()
    free = next(iter(net.bits.initial))
    one = dataclasses.replace(net.bits, initial={free: net.bits.initial[free]})
    widths = Widths(one, INT32, INT32.at_bits(16))
    net = dataclasses.replace(net, bits=one, energy=dataclasses.replace(net.energy, widths=widths))
    _, inputs, spikes = net.simulator.run(net.weights.initial, X, None, lambda s, spikes: spikes)
    model = net.simulator.template.build(net.weights.initial)
    events = net.energy.measured(model, inputs, spikes, held=True, seen=18)
    lam = 0.05
    scores = []
    for level in range(3):
        gates = jnp.asarray([float(k < level) for k in range(2)])
        rounded = one.fold(net.weights.initial, one.at(gates, {free: one.log_steps(free)}))
        fit = float(log_likelihood(net.simulator.logits(rounded, X)[-1], Y).sum())
        scores.append(fit - lam * 6 * float(net.energy.expected(one.of_gates(gates), events).total(3.0)))
    exact = np.exp(np.array(scores) - max(scores))
    context = net.no_context()._replace(events=events, lam=jnp.asarray(lam))
    svi = SVI(net.model, net.guide, optax.adam(0.1), TraceMeanField_ELBO())
    state = svi.init(KEY, X, Y, context)
    held = {name: value for name, value in svi.get_params(state).items() if not name.startswith("bits.gates.")}

    def loss(gates: dict) -> jax.Array:
        return svi.loss.loss(KEY, held | gates, svi.model, svi.guide, X, Y, context)

    gates, tx = {"bits.gates.logit": jnp.zeros(2)}, optax.adam(0.1)

    @jax.jit
    def step(gates: dict, moments: optax.OptState) -> tuple:
        moved, moments = tx.update(jax.grad(loss)(gates), moments)
        return optax.apply_updates(gates, moved), moments

    moments = tx.init(gates)
    for _ in range(300):
        gates, moments = step(gates, moments)
    found = np.asarray(one.chances(gates)[named(free)][:, 0])
    np.testing.assert_allclose(found, exact / exact.sum(), atol=2e-3)
    evidence = max(scores) + math.log(exact.sum() / 3)
    np.testing.assert_allclose(-float(loss(gates)), evidence, rtol=1e-4)


def test_two_kernels_are_summed_over_all_their_widths() -> None:
    net = tiny()
    events = {wire.name: jnp.full(wire.pre_sites, 0.7) for wire in net.sites.wires}
    context = net.no_context()._replace(events=events, lam=jnp.asarray(0.02))
    svi = SVI(net.model, net.guide, optax.sgd(0.1), TraceMeanField_ELBO())
    params = dict(svi.get_params(svi.init(KEY, X, Y, context)))
    params["bits.gates.logit"] = jnp.asarray([0.3, -0.4, 0.9, 0.1])
    objective = -float(svi.loss.loss(KEY, params, svi.model, svi.guide, X, Y, context))
    p = np.asarray(jax.nn.sigmoid(params["bits.gates.logit"])).reshape(2, 2)
    posterior, settings = enumerated(net, events, 0.02)
    q = np.stack([1 - p[0], p[0] * (1 - p[1]), p[0] * p[1]])
    weight = np.array([q[a, 0] * q[b, 1] for a, b in settings])
    # log p(y) - KL(q || exact posterior), whose evidence is that of a uniform base over the nine settings
    gates = jnp.zeros(4)
    rounded = net.bits.fold(
        net.weights.initial, net.bits.at(gates, {n: net.bits.log_steps(n) for n in net.bits.initial})
    )
    closed = float(log_likelihood(net.simulator.logits(rounded, X)[-1], Y).sum())
    closed -= 0.02 * 6 * float(net.energy.expected(net.bits.of_gates(gates), events).total(3.0))
    evidence = closed - math.log(posterior[0]) - math.log(9)
    np.testing.assert_allclose(objective, evidence - (weight * np.log(weight / posterior)).sum(), rtol=1e-5)


def test_gradients_reach_weights_gates_and_steps_and_are_finite() -> None:
    net = tiny()
    relaxed = dataclasses.replace(net.bits, family=BitPosterior({}).family)
    net = dataclasses.replace(net, bits=relaxed)
    events = {wire.name: jnp.ones(wire.pre_sites) for wire in net.sites.wires}
    context = net.no_context()._replace(events=events, lam=jnp.asarray(0.01))
    svi = SVI(net.model, net.guide, optax.sgd(0.1), TraceMeanField_ELBO(num_particles=8))
    params = svi.get_params(svi.init(KEY, X, Y, context))
    slopes = jax.grad(lambda p: svi.loss.loss(KEY, p, svi.model, svi.guide, X, Y, context))(params)
    assert all(np.isfinite(value).all() for value in slopes.values())
    for name in ("bits.gates.log_alpha", "bits.readout.synapse.kernel.log_step", "readout.synapse.kernel"):
        assert float(jnp.abs(slopes[name]).max()) > 0


def test_without_a_price_all_bits_stay() -> None:
    net = tiny()
    net = dataclasses.replace(net, bits=dataclasses.replace(net.bits, open_probability=0.98))
    learner = learn.svi_learner(net, SviConfig(lam=0.0, decide_fraction=0.5), optax.adam(0.3), 6, rng.root(0))
    state = learner.init()
    for _ in range(6):
        state, _ = jax.jit(learner.step)(state, learn.Batch(X, Y))
    params = learn.svi_params(net, state)
    assert all((np.asarray(w) == 4).all() for w in net.bits.widths_of(net.centre(params).bits).values())


def test_a_budget_decides_sites_and_bits_together() -> None:
    net = tiny()
    relaxed = dataclasses.replace(net.bits, family=BitPosterior({}).family, open_probability=0.9)
    priced = dataclasses.replace(net.energy, widths=dataclasses.replace(net.energy.widths, posterior=relaxed))
    net = dataclasses.replace(net, bits=relaxed, energy=priced, gates=GatePosterior(net.sites))
    config = SviConfig(budget_fraction=0.9, decide_fraction=0.5, measure_every=100, budget_fall_fraction=0.0)
    learner = learn.svi_learner(net, config, optax.set_to_zero(), 4, rng.root(0))
    state, step = learner.init(), jax.jit(learner.step)
    for _ in range(3):
        state, _ = step(state, learn.Batch(X, Y))
    params = learn.svi_params(net, state)
    chances = net.chances(params)
    assert {float(round(p, 4)) for values in chances.values() for p in np.asarray(values).ravel()} <= {0.0, 1.0}
    whole = float(net.energy.expected({}, state.whole_events).total(3.0))
    spent = float(net.energy.expected(chances, state.events).total(3.0))
    assert 0.7 * whole < spent <= 0.9 * whole * 1.0001
    kept = [int(w[0]) for w in net.bits.widths_of(net.centre(params).bits).values()]
    assert 0 < sum(kept) < 8


# --- Prices


def test_the_price_of_an_event_is_that_of_its_adder_multiplier_and_weight() -> None:
    # 45 nm, int32: add 0.1, multiply 3.1 pJ at 32 bits; 100 inputs need 7 bits more in the accumulator
    assert INT32.event_at_nj("spikes", "arithmetic", 4, 100) == pytest.approx(1e-3 * 0.1 * (4 + 7) / 32)
    multiply, add = 3.1 * 4 * 8 / 32**2, 0.1 * (4 + 7 + 8) / 32
    assert INT32.event_at_nj("analog", "updates", 4, 100, 8) == pytest.approx(1e-3 * (multiply + add))
    read = 4 * INT32.weight_pj_per_bit
    assert INT32.event_at_nj("analog", "memory", 4, 100, 8) == pytest.approx(1e-3 * (multiply + add + read))
    assert INT32.event_at_nj("analog", "memory", 0, 100, 8) == 0
    square = INT32.event_at_nj("analog", "arithmetic", 8, 1, 8) * 1e3 - 0.1 * 16 / 32
    assert square == pytest.approx(INT32.at_bits(8).multiply_pj)


@pytest.mark.parametrize("per_channel", [False, True])
def test_expected_energy_is_the_mean_over_gates_and_widths(per_channel: bool) -> None:
    net = tiny()
    bits = dataclasses.replace(net.bits, per_channel=per_channel, family=BitPosterior({}).family)
    prior = dataclasses.replace(net.energy, widths=Widths(bits, INT32, INT32.at_bits(16)))
    events = {wire.name: jax.random.uniform(KEY, (wire.pre_sites,)) for wire in prior.sites.wires}
    p = {name: jax.random.uniform(jax.random.key(4), (size,)) for name, size in prior.sites.groups.items()}
    levels = np.asarray(jax.random.uniform(jax.random.key(5), (bits.total,)))
    found = float(prior.expected(p | bits.of_gates(jnp.asarray(levels)), events).total(3.0))
    kinds = {"hidden": ("analog", 1.0), "readout": ("spikes", 3.0)}
    by_hand, start, table = 0.0, 0, levels.reshape(2, -1)
    inputs, hidden = (np.asarray(p[name]) for name in ("input", "hidden"))
    ends = {"hidden": (inputs, hidden), "readout": (hidden, np.ones(2))}
    for name, (source, times) in kinds.items():
        units = 2 if per_channel else 1
        first, second = table[:, start : start + units]
        start += units
        costs = [INT32.event_at_nj(source, "memory", b, 2, 8) for b in (2, 4)]
        mean = first * (1 - second) * costs[0] + first * second * costs[1]
        sends, runs = ends[name]
        by_hand += times * (sends * np.asarray(events[name])).sum() * (runs * mean).sum()
    at16 = INT32.at_bits(16)
    by_hand += 3 * (hidden.sum() * at16.update_nj("LIF", "memory") + 2 * at16.update_nj("LI", "memory"))
    assert found == pytest.approx(by_hand, rel=1e-5)


def test_no_bits_anywhere_cost_nothing_but_updates() -> None:
    net = tiny()
    events = {wire.name: jnp.ones(wire.pre_sites) for wire in net.sites.wires}
    spent = net.energy.expected(net.bits.of_gates(jnp.zeros(4)), events).total(3.0)
    at16 = INT32.at_bits(16)
    assert float(spent) == pytest.approx(3 * 2 * (at16.update_nj("LIF", "memory") + at16.update_nj("LI", "memory")))


def test_records_with_widths_cost_their_hand_counts() -> None:
    events = np.array([1.0, 3.0])
    mixed = SynapseRecord("a", "dense", (2,), (3,), events, 4, bits=np.array([0, 2, 4]))
    neurons = NeuronRecord("a", "LIF", (3,), 4, 2.0, bits=16)
    found = price(count([mixed, neurons]), INT32, "memory")
    sums = sum(4 * (0.1 * (b + 1) / 32) for b in (2, 4))
    assert found.parts["acs"] == pytest.approx(1e-3 * sums)
    assert found.parts["weights"] == pytest.approx(1e-3 * 4 * (2 + 4) * INT32.weight_pj_per_bit)
    assert found.parts["updates"] == pytest.approx(1e-3 * 12 * INT32.at_bits(16).neuron_pj("LIF"))
    assert found.parts["states"] == pytest.approx(1e-3 * 2 * 12 * 16 * INT32.state_pj_per_bit)


def test_quantised_rivals_pay_for_their_accumulators_where_the_network_does() -> None:
    ours = [SynapseRecord("a", "dense", (4,), (2,), np.ones(4), 3, bits=8), NeuronRecord("a", "LIF", (2,), 3, bits=16)]
    row = next(r for r in compare(ours, INT32, steps=7) if r.accounting == "arithmetic")
    by_hand = 8 * INT32.event_at_nj("analog", "arithmetic", 3, 4, 3)  # 7 steps are 3 bits
    assert row.rivals["quantised"].total_nj == pytest.approx(by_hand)
    assert row.rivals["dense"].total_nj == pytest.approx(8e-3 * INT32.mac_pj)


# --- Recovery


@pytest.mark.slow
@pytest.mark.parametrize(("family", "zero"), [(HARD_CONCRETE, False), (BERNOULLI, True)])
def test_planted_widths_are_found(family, zero: bool) -> None:
    """A teacher of a 2-bit and an 8-bit kernel; the student starts near its weights and finds 2 and 8."""
    keys = jax.random.split(jax.random.key(7), 4)
    model = Stack(
        hidden=Layer(Dense(12, 24, key=keys[0], gain=2.0), LIF(beta=0.8)),
        readout=Layer(Dense(24, 3, key=keys[1], gain=1.0), LI(beta=0.9)),
    )
    template, params = split(model)
    first, second = "hidden.synapse.kernel", "readout.synapse.kernel"
    params[first] = quantised(params[first], jnp.asarray([-1.0]), 2)
    params[second] = quantised(params[second], jnp.asarray([-7.0]), 8)
    simulator = Simulator(template, 4)
    x = jax.random.uniform(keys[2], (256, 12))
    target = simulator.logits(params, x)[-1]
    for name in (first, second):
        params[name] = params[name] + 1e-3 * jax.random.normal(keys[3], params[name].shape)
    bits = BitPosterior({name: params[name] for name in (first, second)}, zero=zero, family=family)
    widths = Widths(bits, INT32, INT32.at_bits(16))
    net = Bayesian(
        simulator,
        WeightPosterior(template, params, priors.point, guides.point()),
        energy=EnergyPrior(sites.sites(model), INT32, "memory", widths=widths),
        likelihood=Gaussian(0.03, learned=False),
        bits=bits,
        data_size=256,
    )
    config = SviConfig(lam=0.2, decide_fraction=0.2)
    gates = optax.multi_transform(
        {"gates": optax.adam(0.1), "others": optax.adam(1e-5)},
        lambda p: {name: "gates" if name.startswith("bits.gates.") else "others" for name in p},
    )
    learner = learn.svi_learner(net, config, gates, 120, rng.root(0), targets=jax.ShapeDtypeStruct((3,), jnp.float32))
    state, step = learner.init(), jax.jit(learner.step)
    for number in range(120):
        rows = slice(32 * (number % 8), 32 * (number % 8) + 32)
        state, _ = step(state, learn.Batch(x[rows], target[rows]))
    found = net.bits.widths_of(net.centre(learn.svi_params(net, state)).bits)
    assert {name: int(w[0]) for name, w in found.items()} == {first: 2, second: 8}


# --- Sentences


def config(**parts) -> Config:
    usual = {"bits": BitsConfig(enabled=True), "energy": EnergyConfig(profile="45nm-int32")}
    return Config(**{**usual, **parts})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: BitsConfig(per="row"), "bits.per must be one of kernel, channel, got 'row'."),
        (lambda: BitsConfig(widths=[8, 4]), "bits.widths must be some of 2, 4, 8, 16 in order, got"),
        (lambda: BitsConfig(widths=[3]), "bits.widths must be some of"),
        (lambda: BitsConfig(fixed=3), "bits.fixed must be one of"),
        (lambda: BitsConfig(family="magnitude"), "bits.family must be one of"),
        (lambda: BitsConfig(membrane=24, leak=8), "bits.membrane must be from 6 to 24"),
        (lambda: BitsConfig(fixed=4, family="posterior_width"), "got both; leave one of them out."),
        (lambda: config(learner="map"), "bits are part of a posterior, got learner=map; set learner=svi"),
        (lambda: config(energy=EnergyConfig(profile="loihi")), "multiply_pj, got energy.profile=loihi"),
        (lambda: config(svi=SviConfig(shrink_epochs=[1])), "leave svi.shrink_epochs out."),
        (lambda: config(model=ModelConfig(products="bfloat16")), "set model.products=float32."),
        (lambda: config(export=ExportConfig(nir="a.nir")), "NIR has no numbers in fixed point"),
        (
            lambda: BitPosterior({"a": jnp.ones((2, 9))}, per_channel=True, family=BERNOULLI),
            "at most 8 gates, got 36 of bernoulli; take hard_concrete.",
        ),
    ],
)
def test_wrong_options_get_a_sentence(wrong, said: str) -> None:
    with pytest.raises(ValueError, match=r"bits|NIR") as caught:
        wrong()
    assert said in str(caught.value)
