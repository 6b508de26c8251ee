"""Gates, halting and the Bayesian network against closed forms and enumeration."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import kl_divergence
from numpyro.infer import SVI, TraceMeanField_ELBO

from dsnn import escape, rng
from dsnn.bayes import guides, halting, priors, sites
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.gates import HardConcrete, OpenOrClosed, log_alpha_for
from dsnn.bayes.halting_posterior import HaltingPosterior
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.cells import LIF
from dsnn.networks.stack import mlp, running_logits
from dsnn.parameters import split
from dsnn.simulate.early_exit import anytime
from dsnn.simulate.simulator import Simulator, log_likelihood
from dsnn.simulate.unroll import unroll
from dsnn.tasks import predictor

KEY = jax.random.key(0)


class Prices:
    def event_nj(self, source: str, accounting: str) -> float:
        return 0.5 if source == "analog" else 0.25

    def update_nj(self, kind: str, accounting: str) -> float:
        return 0.125


def bayesian(**parts) -> Bayesian:
    def cell(neurons: int) -> LIF:
        return LIF(beta=0.9, noise=escape.Logistic(0.3))

    model = mlp((3,), (4,), 2, key=KEY, gain=2.0, cell=cell)
    template, params = split(model)
    where = sites.sites(model)
    weights = WeightPosterior(template, params, priors.default(template), guides.mean_field(0.05))
    usual = {"gates": GatePosterior(where), "energy": EnergyPrior(where, Prices())}
    usual["halting"] = HaltingPosterior(5, joint=True)
    return Bayesian(Simulator(template, 5), weights, data_size=12, **{**usual, **parts})


X, Y = jax.random.uniform(jax.random.key(1), (12, 3)), jnp.arange(12) % 2


# --- Gates


@pytest.mark.parametrize("log_alpha", [-3.0, -0.4, 0.0, 2.5])
def test_hard_concrete_opens_with_its_stated_probability(log_alpha: float) -> None:
    n = 40_000
    q = HardConcrete(jnp.full(n, log_alpha))
    z = q.sample(KEY)
    p = float(q.open_probability[0])
    assert abs(float((z > 0).mean()) - p) < 4.5 * math.sqrt(p * (1 - p) / n)
    assert float(z.min()) >= 0
    assert float(z.max()) <= 1
    assert 0 < float((z == 1).mean()) < 1


def test_gate_entropy_and_divergence_in_closed_form() -> None:
    q = HardConcrete(jnp.asarray([-2.0, 0.3, 40.0, -40.0]))
    p = np.asarray(q.open_probability, float)
    by_hand = [-a * math.log(a) - (1 - a) * math.log(1 - a) if 0 < a < 1 else 0.0 for a in p]
    np.testing.assert_allclose(q.entropy_of_opening(), by_hand, atol=1e-6)
    np.testing.assert_allclose(kl_divergence(q, OpenOrClosed(4)), 4 * math.log(2) - sum(by_hand), rtol=1e-5)
    assert np.isfinite(jax.grad(lambda a: HardConcrete(a).entropy_of_opening().sum())(q.log_alpha)).all()


def test_gate_decisions_and_initial_probability() -> None:
    np.testing.assert_allclose(HardConcrete(jnp.asarray([log_alpha_for(0.9)])).open_probability, 0.9, rtol=1e-6)
    q = HardConcrete(jnp.asarray([log_alpha_for(0.49), log_alpha_for(0.51), 9.0]))
    decided = q.decision()
    assert decided[0] == 0
    assert decided[1] > 0
    assert decided[2] == 1
    total = sum(float(jnp.exp(q.log_prob(jnp.asarray(z, float)))) for z in itertools.product((0, 1), repeat=3))
    assert abs(total - 1) < 1e-5


# --- Halting


def test_stopping_probabilities_sum_to_one_and_match_the_product_of_hazards() -> None:
    hazards = jax.random.normal(KEY, (6, 4))
    q = jnp.exp(halting.log_stop(hazards))
    np.testing.assert_allclose(q.sum(0), 1.0, rtol=1e-5)
    h = np.asarray(jax.nn.sigmoid(hazards))
    np.testing.assert_allclose(q[2], h[2] * (1 - h[0]) * (1 - h[1]), rtol=1e-5)
    np.testing.assert_allclose(q[-1], np.prod(1 - h[:-1], 0), rtol=1e-5)


def test_mixture_terms_by_enumeration() -> None:
    log_q = halting.log_stop(jax.random.normal(KEY, (5, 3)))
    log_p = -jax.random.uniform(jax.random.key(1), (5, 3))
    expected, entropy, steps = halting.mixture_elbo(log_q, log_p)
    q = np.exp(np.asarray(log_q, float))
    for b in range(3):
        np.testing.assert_allclose(expected[b], sum(q[n, b] * float(log_p[n, b]) for n in range(5)), rtol=1e-5)
        np.testing.assert_allclose(entropy[b], -sum(q[n, b] * math.log(q[n, b]) for n in range(5)), rtol=1e-5)
        np.testing.assert_allclose(steps[b], sum(q[n, b] * (n + 1) for n in range(5)), rtol=1e-5)


def test_the_best_stopping_posterior_is_the_truncated_geometric_prior_when_steps_do_not_matter() -> None:
    """With equal likelihoods, gradient ascent on H(q) - lam E[n] has to find p(n) proportional to exp(-lam n)."""
    lam, steps = 0.7, 6

    def objective(hazards: jax.Array) -> jax.Array:
        expected, entropy, mean = halting.mixture_elbo(halting.log_stop(hazards), jnp.zeros((steps, 1)))
        return (expected + entropy - lam * mean).sum()

    climb = jax.jit(lambda h: jax.lax.fori_loop(0, 3000, lambda _, h: h + 0.5 * jax.grad(objective)(h), h))
    hazards = climb(jnp.zeros((steps, 1)))
    prior = np.exp(-lam * np.arange(1, steps + 1))
    np.testing.assert_allclose(jnp.exp(halting.log_stop(hazards))[:, 0], prior / prior.sum(), rtol=1e-3)


@pytest.mark.parametrize("feature", halting.FEATURES)
@pytest.mark.parametrize("readout", ["mean", "sum", "max", "last"])
def test_the_running_rule_stops_where_the_batch_formula_says(feature: str, readout: str) -> None:
    model = mlp((4,), (6,), 3, key=KEY, gain=3.0, readout=readout)
    x = jax.random.uniform(jax.random.key(2), (70, 4))
    head = halting.initial_head(9, feature) | {"bias": jnp.asarray(-4.0), "slope": jnp.asarray(2.0)}
    if feature == "learned":
        head |= {"slope": jnp.asarray(-2.0), "outer": jax.random.normal(jax.random.key(3), (halting.WIDTH,))}
    logits = running_logits(unroll(model, x, steps=9)[0], readout)
    stop = halting.stop_step(halting.hazard_logits(head, logits, feature))
    for smallest in (20, 1000):
        decision = jax.jit(anytime(model, halting.rule(head, feature), 9, smallest=smallest))(x)
        assert decision.steps.tolist() == stop.tolist()
        chosen = jnp.take_along_axis(logits, (stop - 1)[None, :, None], 0)[0]
        np.testing.assert_allclose(decision.logits, chosen, atol=1e-5)
    assert len(set(stop.tolist())) > 2, "a rule that always stops at one step would pass by accident"


def test_anytime_takes_inputs_over_time() -> None:
    model = mlp((4,), (6,), 3, key=KEY, gain=3.0, recurrent=True)
    xs = jax.random.uniform(jax.random.key(2), (7, 40, 4))
    head = {"bias": jnp.asarray(-3.0), "slope": jnp.asarray(2.0), "drift": jnp.asarray(0.3)}
    logits = model.logits(unroll(model, xs)[0])
    stop = halting.stop_step(halting.hazard_logits(head, logits))
    decision = jax.jit(anytime(model, halting.rule(head), 7, held=False, smallest=10))(xs)
    assert decision.steps.tolist() == stop.tolist()


# --- Priors


def test_priors_by_pattern_cover_everything_or_say_so() -> None:
    template, _ = split(mlp((3,), (4,), 2, key=KEY))
    prior = priors.by_pattern({"*.kernel": priors.fan_in_normal(2.0), "*": priors.point}, template)
    fn = prior("hidden0.synapse.kernel", (3, 4))
    np.testing.assert_allclose(fn.variance, 4.0 / 3, rtol=1e-6)
    assert prior("hidden0.synapse.bias", (4,)) is None
    with pytest.raises(ValueError, match=r"'\*\.kernal' matches none"):
        priors.by_pattern({"*.kernal": priors.normal(), "*": priors.point}, template)
    with pytest.raises(ValueError, match=r"'hidden0\.synapse\.bias' has none"):
        priors.by_pattern({"*.kernel": priors.normal()}, template)


def test_weights_of_rare_inputs_have_wider_priors_of_every_family() -> None:
    x = np.asarray([[2.0, 0.0, 1.0, 0.1], [-2.0, 0.0, 1.0, -0.1]])  # mean squares 4, 0, 1, 0.01; their mean 1.2525
    factors = priors.rare_inputs(x, 3.0)
    np.testing.assert_allclose(factors, [1.0, 3.0, math.sqrt(1.2525), 3.0], rtol=1e-6)
    np.testing.assert_array_equal(priors.rare_inputs(x, 1.0), np.ones(4))
    np.testing.assert_array_equal(priors.rare_inputs(np.zeros((2, 3)), 5.0), np.ones(3))
    with pytest.raises(ValueError, match=r"at least 1 and finite, got 0\.5"):
        priors.rare_inputs(x, 0.5)
    template, _ = split(mlp((4,), (6,), 2, key=KEY))
    for kernel in ("normal", "laplace"):
        rows = {"hidden0.synapse.kernel": factors}
        wide = priors.default(template, 2.0, kernel=kernel, rows=rows)
        plain = priors.default(template, 2.0, kernel=kernel)
        for name, shape in (("hidden0.synapse.kernel", (4, 6)), ("readout.synapse.kernel", (6, 2))):
            expected = factors[:, None] ** 2 if name in rows else 1.0
            ratio = wide(name, shape).variance / plain(name, shape).variance
            np.testing.assert_allclose(ratio, np.broadcast_to(expected, shape), rtol=1e-5)
    fn = priors.default(template, kernel="hierarchical", rows=rows)("hidden0.synapse.kernel", (4, 6))
    np.testing.assert_allclose(fn.given({"sigma": 2.0}).variance[:, 0], 4.0 * factors**2 / 4, rtol=1e-5)


def test_constrained_parameters_need_constrained_priors() -> None:
    model = mlp((3,), (4,), 2, key=KEY, cell=lambda n: LIF(beta=0.8, learnable=("beta",)))
    template, params = split(model)
    bad = priors.by_pattern({"*": priors.normal()}, template)
    with pytest.raises(ValueError, match="must have the support unit_interval"):
        bad("hidden0.cell.beta", ())
    good = priors.by_pattern({"*.beta": priors.beta(0.8), "*": priors.point}, template)
    net = Bayesian(Simulator(template, 4), WeightPosterior(template, params, good), data_size=12)
    init = SVI(net.model, net.guide, optax.sgd(0.1), TraceMeanField_ELBO()).init(KEY, X, Y, net.no_context())
    drawn = net.draw(net.constrain(init.optim_state[1][0]), KEY).weights["hidden0.cell.beta"]
    assert 0.7 < float(drawn) < 0.9
    np.testing.assert_allclose(net.centre(net.constrain(init.optim_state[1][0])).weights["hidden0.cell.beta"], 0.8)


# --- The Bayesian network


def start(net: Bayesian) -> dict[str, jax.Array]:
    svi = SVI(net.model, net.guide, optax.sgd(0.1), TraceMeanField_ELBO())
    return net.constrain(jax.jit(svi.init)(KEY, X, Y, net.no_context()).optim_state[1][0])


def test_sampled_sites_are_the_parameters_and_the_guide_starts_at_the_networks_own() -> None:
    net = bayesian()
    params = start(net)
    assert set(net.draw(params, KEY).weights) == set(net.simulator.template.names)
    for name, value in net.weights.initial.items():
        np.testing.assert_allclose(params[f"{name}.loc"], value)
        np.testing.assert_allclose(params[f"{name}.scale"], 0.05, rtol=1e-5)


def test_the_objective_is_its_definition_term_by_term() -> None:
    """ELBO = N E[log p] - kl_weight KL(w) + H(z) - sites log 2 + N H(n) - lam N E[E(z, n)], from a replayed draw."""
    net = bayesian()
    params = start(net)
    events = {w.name: jnp.full(w.pre_sites, 0.5) for w in net.gates.sites.wires}
    context = net.no_context()._replace(events=events, lam=jnp.asarray(0.3), kl_weight=jnp.asarray(0.2))
    elbo = TraceMeanField_ELBO(sum_sites=False)
    batch = slice(0, 6)
    terms = elbo.loss(jax.random.key(5), params, net.model, net.guide, X[batch], Y[batch], context)
    kl = sum(
        float(
            kl_divergence(
                dist.Normal(params[f"{n}.loc"], params[f"{n}.scale"]),
                net.weights.priors(n, v.shape).base_dist,
            ).sum()
        )
        for n, v in net.weights.initial.items()
    )
    ours = sum(float(terms[n]) for n in net.weights.initial)
    np.testing.assert_allclose(ours, 0.2 * kl, rtol=1e-4)
    q = HardConcrete(params["gates.log_alpha"])
    np.testing.assert_allclose(terms["gates"], kl_divergence(q, OpenOrClosed(net.gates.sites.total)), rtol=1e-5)
    # the two factors, from the draw that this key makes
    model_key, guide_key = jax.random.split(jax.random.key(5))
    from numpyro import handlers

    guide = handlers.trace(handlers.substitute(handlers.seed(net.guide, guide_key), params)).get_trace(X, Y, context)
    weights = {n: guide[n]["value"] for n in net.weights.initial}
    network = sites.gate(net.gates.sites, weights, net.gates.sites.unflatten(guide["gates"]["value"]))
    with handlers.seed(rng_seed=model_key):
        import numpyro

        logits = net.simulator.logits(network, X[batch], numpyro.prng_key())
    log_q = halting.log_stop(halting.hazard_logits(net.halting.head(params), logits))
    expected, entropy, steps = halting.mixture_elbo(log_q, log_likelihood(logits, Y[batch]))
    np.testing.assert_allclose(terms["likelihood"], -2 * (expected + entropy).sum(), rtol=1e-4)
    # the steps of this draw are those of its gates, so the energy is of what these gates open
    energy = net.energy.expected(net.gates.sites.unflatten((guide["gates"]["value"] > 0).astype(float)), events)
    np.testing.assert_allclose(terms["energy"], 0.3 * 12 * float(energy.total(steps.mean())), rtol=1e-4)


def test_particles_updates_and_predictions_differ() -> None:
    """The trap: noise kept in a module is frozen over particles, updates and predictive samples."""
    net = bayesian()
    params = start(net)
    context = net.no_context()
    losses = {
        n: jax.jit(lambda key, n=n: TraceMeanField_ELBO(n).loss(key, params, net.model, net.guide, X, Y, context))
        for n in (1, 2)
    }
    elbo = lambda key, n: float(losses[n](key))  # noqa: E731
    one, two = (elbo(jax.random.key(k), 1) for k in (1, 2))
    assert one != two, "two updates draw the same noise"
    k1, k2 = jax.random.split(jax.random.key(3))
    np.testing.assert_allclose(elbo(jax.random.key(3), 2), (elbo(k1, 1) + elbo(k2, 1)) / 2, rtol=1e-4)
    assert elbo(k1, 1) != elbo(k2, 1), "two particles draw the same noise"
    silent = params | {k: jnp.full_like(v, 1e-9) for k, v in params.items() if k.endswith(".scale")}
    silent["gates.log_alpha"] = jnp.full_like(params["gates.log_alpha"], 99.0)
    predict = predictor(net)
    rows = [predict(silent, np.asarray(X), jax.random.key(k), samples=1).full for k in range(2)]
    assert (rows[0] != rows[1]).any(), "with weights and gates fixed, firing noise alone has to differ"
    again = predict(silent, np.asarray(X), jax.random.key(0), samples=1).full
    assert (again == rows[0]).all()


def test_weights_gates_and_noise_are_streams_of_their_own() -> None:
    """Switching gates off leaves every drawn weight as it was."""
    net, without = bayesian(), bayesian(gates=None, energy=None)
    params = start(net)
    ours, theirs = net.draw(params, KEY).weights, without.draw(params, KEY).weights
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), ours, theirs)
    assert rng.STREAMS.index("weights") != rng.STREAMS.index("gates")


def test_gradient_of_expected_energy_is_exact() -> None:
    net = bayesian()
    events = {w.name: jax.random.uniform(KEY, (w.pre_sites,)) for w in net.gates.sites.wires}

    def energy(log_alpha: jax.Array) -> jax.Array:
        return net.energy.expected(net.gates.sites.unflatten(HardConcrete(log_alpha).open_probability), events).total(
            3.0
        )

    log_alpha = jax.random.normal(KEY, (net.gates.sites.total,))
    exact, h = jax.grad(energy)(log_alpha), 1e-2
    energy = jax.jit(energy)
    for i in range(net.gates.sites.total):
        bump = jnp.zeros_like(log_alpha).at[i].set(h)
        numeric = (energy(log_alpha + bump) - energy(log_alpha - bump)) / (2 * h)
        np.testing.assert_allclose(exact[i], numeric, rtol=2e-2, atol=1e-4)
