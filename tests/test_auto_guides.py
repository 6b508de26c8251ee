"""NumPyro's own guides over the weights of a spiking network, against closed forms."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
from numpyro import handlers
from numpyro.infer import SVI, TraceMeanField_ELBO

from dsnn import escape, learn, rng
from dsnn.bayes import guides, priors, sites
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.halting_posterior import HaltingPosterior
from dsnn.bayes.likelihood import Gaussian
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.cells import LI, LIF, PLIF
from dsnn.config import BayesConfig
from dsnn.energy import profile
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack, mlp
from dsnn.parameters import split
from dsnn.simulate.simulator import Simulator

STEPS = 3000
KEY, NOISE = jax.random.key(0), 0.3
DENSE = ("AutoMultivariateNormal", "AutoLowRankMultivariateNormal")
WITH_WIDTH = (*DENSE, "AutoNormal", "AutoDiagonalNormal")


def conjugate() -> tuple[Bayesian, jax.Array, jax.Array, np.ndarray, np.ndarray]:
    """A readout that is linear in its weights, on correlated inputs; its exact posterior mean and covariance."""
    x = jax.random.normal(jax.random.key(8), (40, 3)) @ jnp.asarray([[1.0, 0.9, 0.0], [0.0, 0.5, 0.7], [0.0, 0.0, 0.4]])
    template, params = split(Stack("last", readout=Layer(Dense((3,), 1, key=KEY), LI(beta=0.0))))
    y = (x @ jnp.asarray([0.8, -0.5, 1.2]) + 0.2 + NOISE * jax.random.normal(jax.random.key(9), (40,)))[:, None]
    simulator = Simulator(template, 1, stochastic=False)
    weights = WeightPosterior(template, params, priors.default(template))
    net = Bayesian(simulator, weights, likelihood=Gaussian(NOISE, False), data_size=40)
    design = np.concatenate([np.ones((40, 1)), np.asarray(x, float)], 1)  # bias first: names are sorted
    precision = design.T @ design / NOISE**2 + np.diag([1.0] + [3.0] * 3)
    covariance = np.linalg.inv(precision)
    return net, x, y, covariance @ design.T @ np.asarray(y[:, 0], float) / NOISE**2, covariance


def spiking(name: str, prior: str = "normal", **options: object) -> Bayesian:
    model = mlp((3,), (4,), 2, key=KEY, gain=2.0, cell=lambda _: LIF(beta=0.9, noise=escape.Logistic(0.3)))
    template, params = split(model)
    family = guides.made(name, {}, options)
    weights = WeightPosterior(template, params, priors.default(template, kernel=prior), family)
    return Bayesian(Simulator(template, 5), weights, data_size=12)


def under(net: Bayesian, guide: guides.Guide) -> Bayesian:
    """Returns the same network with another family of posteriors."""
    return dataclasses.replace(net, weights=dataclasses.replace(net.weights, guide=guide))


def start(net: Bayesian) -> dict[str, jax.Array]:
    svi = SVI(net.model, net.guide, optax.sgd(0.1), TraceMeanField_ELBO())
    x, y = jnp.zeros((2, *net.simulator.template.build(net.weights.initial).in_shape)), jnp.zeros(2, int)
    return net.constrain(jax.jit(svi.init)(KEY, x, y, net.no_context()).optim_state[1][0])


def drawn(net: Bayesian, params: dict[str, jax.Array], count: int) -> dict[str, np.ndarray]:
    draws = jax.jit(jax.vmap(lambda k: net.draw(params, k).weights))(jax.random.split(KEY, count))
    return {name: np.asarray(value, float).reshape(count, -1) for name, value in draws.items()}


@pytest.mark.parametrize("name", [*DENSE, "AutoNormal"])
def test_dense_guides_find_the_exact_covariance_and_independent_ones_cannot(name: str) -> None:
    net, x, y, mean, covariance = conjugate()
    options = {"rank": 4} if name == "AutoLowRankMultivariateNormal" else {}
    net = under(net, guides.made(name, {"scale": 0.05}, options))
    svi = SVI(
        net.model,
        net.guide,
        optax.adam(optax.cosine_decay_schedule(0.05, STEPS)),
        TraceMeanField_ELBO(num_particles=16),
    )
    run = jax.jit(
        lambda state: jax.lax.scan(lambda s, _: (svi.update(s, x, y, net.no_context())[0], None), state, None, STEPS)[0]
    )
    params = svi.get_params(run(svi.init(KEY, x, y, net.no_context())))
    centre = np.concatenate([np.ravel(net.centre(params).weights[n]) for n in net.weights.initial])
    np.testing.assert_allclose(centre, mean, atol=0.02)
    if name == "AutoNormal":
        found = np.diag(
            np.concatenate([np.ravel(params[f"{n}_auto_scale"]) for n in net.weights.initial]).astype(float) ** 2
        )
        np.testing.assert_allclose(np.diag(found), 1 / np.diag(np.linalg.inv(covariance)), rtol=0.05)
        assert (np.diag(found)[1:] < 0.6 * np.diag(covariance)[1:]).all(), "independent weights are too sure"
        return
    if name == "AutoMultivariateNormal":
        found = np.asarray(params["auto_scale_tril"], float) @ np.asarray(params["auto_scale_tril"], float).T
    else:
        scale = np.asarray(params["auto_scale"], float)
        factor = np.asarray(params["auto_cov_factor"], float) * scale[:, None]
        found = factor @ factor.T + np.diag(scale**2)
    sd = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(found / np.outer(sd, sd), covariance / np.outer(sd, sd), atol=0.05)
    # what prediction draws is that distribution
    draws = np.concatenate(list(drawn(net, params, 4000).values()), 1)
    np.testing.assert_allclose(np.cov(draws.T) / np.outer(sd, sd), found / np.outer(sd, sd), atol=0.08)


@pytest.mark.parametrize("name", WITH_WIDTH)
def test_guides_begin_at_the_network_with_a_small_width(name: str) -> None:
    net = spiking(name)
    params = start(net)
    centre, draws = net.centre(params).weights, drawn(net, params, 2000)
    for own, value in net.weights.initial.items():
        np.testing.assert_allclose(centre[own], value, rtol=1e-6)
        if net.weights.of(own) is not None:
            sd = (draws[own] - np.ravel(value)).std(0)
            assert (np.abs(sd / 0.01 - 1) < 5 / math.sqrt(2 * 2000)).all()


@pytest.mark.parametrize("name", ["AutoIAFNormal", pytest.param("AutoBNAFNormal", marks=pytest.mark.slow)])
def test_flows_begin_beside_the_network(name: str) -> None:
    net = spiking(name, **({"hidden_factors": [2, 2]} if name == "AutoBNAFNormal" else {}))
    params = start(net)
    centre, draws = net.centre(params).weights, drawn(net, params, 200)
    for own, value in net.weights.initial.items():
        np.testing.assert_allclose(centre[own], value, atol=0.05)
        np.testing.assert_allclose(draws[own], np.broadcast_to(np.ravel(value), draws[own].shape), atol=0.2)
    assert all(isinstance(value, jax.Array) for value in params.values()), "parameters.npz holds arrays"


def test_a_flow_s_density_is_that_of_its_draws() -> None:
    """An affine flow over the standardised vector is a Normal; -KL of one draw is then known."""
    net = conjugate()[0]
    net = under(net, guides.made("AutoIAFNormal", {"scale": 0.1}, {"num_flows": 1}))
    params = {name: jnp.zeros_like(value) for name, value in start(net).items()}
    with handlers.trace() as found:
        handlers.substitute(handlers.seed(net.guide, KEY), data=params)()
    log_q = sum(site["fn"].log_prob(site["value"]).sum() for site in found.values() if site["type"] == "sample")
    # networks of zeros leave the base as it is: N(initial, 0.1^2)
    values = [found[n]["value"] for n in net.weights.initial]
    normal = [
        dist.Normal(net.weights.initial[n], 0.1).log_prob(v).sum()
        for n, v in zip(net.weights.initial, values, strict=True)
    ]
    np.testing.assert_allclose(log_q, sum(normal), rtol=1e-5)


@pytest.mark.parametrize("name", [*DENSE, "AutoNormal", "AutoIAFNormal"])
@pytest.mark.parametrize("prior", ["normal", "hierarchical"])
def test_the_kl_weight_multiplies_both_log_densities(name: str, prior: str) -> None:
    """With the same draw the objective is linear in the weight, and its slope log q - log p of that draw."""
    net = spiking(name, prior)
    params, x, y = start(net), jax.random.uniform(KEY, (12, 3)), jnp.arange(12) % 2
    loss = jax.jit(
        lambda weight: TraceMeanField_ELBO().loss(
            KEY, params, net.model, net.guide, x, y, net.no_context()._replace(kl_weight=weight)
        )
    )
    none, half, whole = (float(loss(jnp.asarray(weight))) for weight in (0.0, 0.5, 1.0))
    assert whole - none > 1
    np.testing.assert_allclose(half - none, (whole - none) / 2, rtol=1e-3)
    if name != "AutoNormal":  # which has divergences in closed form
        guide_key = jax.random.split(KEY)[1]
        with handlers.trace() as found:
            handlers.substitute(handlers.seed(net.guide, guide_key), data=params)(
                x, y, net.no_context()._replace(kl_weight=jnp.ones(()))
            )
        sites = {n: site for n, site in found.items() if site["type"] == "sample"}
        log_q = sum(site["fn"].log_prob(site["value"]).sum() for site in sites.values())
        values = {n: site["value"] for n, site in sites.items()}
        log_p = jnp.zeros(())
        for own in net.simulator.template.names:
            fn = net.weights.of(own)
            if isinstance(fn, priors.Hierarchical):
                scales = {scale: values[f"{own}.{scale}"] for scale in fn.scales}
                log_p += sum(fn.scales[scale].log_prob(value).sum() for scale, value in scales.items())
                fn = fn.given(scales)
            log_p += 0 if fn is None else fn.log_prob(values[own])
        np.testing.assert_allclose(whole - none, float(log_q - log_p), rtol=1e-3)


def test_decays_keep_their_support() -> None:
    model = mlp((3,), (4,), 2, key=KEY, cell=lambda n: PLIF(beta=0.9, noise=escape.Logistic(0.3)))
    template, params = split(model)
    prior = priors.default(template, around=params)
    weights = WeightPosterior(template, params, prior, guides.made("AutoMultivariateNormal", {}, {}))
    net = Bayesian(Simulator(template, 5), weights, data_size=12)
    (decay,) = (n for n in params if template.supports[n] == "unit_interval")
    learned = start(net)
    np.testing.assert_allclose(net.centre(learned).weights[decay], params[decay], rtol=1e-5)
    draws = drawn(net, learned, 500)[decay]
    assert ((draws > 0) & (draws < 1)).all()
    np.testing.assert_allclose(draws.std(), 0.01 * 0.9 * 0.1, rtol=0.2)


@pytest.mark.slow
def test_a_resumed_run_goes_on_bit_for_bit_and_decides_its_gates() -> None:
    net = spiking("AutoLowRankMultivariateNormal", rank=2)
    model = net.simulator.template.build(net.weights.initial)
    where = sites.sites(model)
    parts = {"gates": GatePosterior(where), "energy": EnergyPrior(where, profile("45nm"))}
    net = dataclasses.replace(net, halting=HaltingPosterior(5, joint=True), **parts)
    batch = learn.Batch(jax.random.uniform(KEY, (12, 3)), jnp.arange(12) % 2)
    config = learn.SviConfig(lam=0.1, kl_weight=0.2, decide_fraction=0.5)
    learner = learn.svi_learner(net, config, optax.adam(0.01), 12, rng.root(0))
    how = {"epochs": 4, "batch_size": 4, "root": rng.root(0)}
    states = [jax.tree.map(jnp.copy, epoch.state) for epoch in learn.fit(learner, learner.init(), batch, **how)]
    *_, last = learn.fit(learner, states[1], batch, start=2, **how)
    whole, resumed = (learn.svi_params(net, state) for state in (states[-1], last.state))
    for name, value in whole.items():
        np.testing.assert_array_equal(value, resumed[name])
    before = learn.svi_params(net, states[1])
    assert all((whole[name] != before[name]).any() for name in ("auto_loc", "auto_scale", "auto_cov_factor"))
    probabilities = np.concatenate([np.ravel(p) for p in net.gate_probabilities(whole).values()])
    assert ((probabilities < 0.01) | (probabilities > 0.99)).all()


@pytest.mark.parametrize("prior", ["normal", "hierarchical"])
def test_eager_and_compiled_code_read_the_same_weights(prior: str) -> None:
    net = spiking("AutoLowRankMultivariateNormal", prior)
    params = start(net)
    params["auto_loc"] = jnp.arange(params["auto_loc"].size, dtype=float)
    eager, compiled = net.centre(params).weights, jax.jit(lambda p: net.centre(p).weights)(params)
    for name in net.weights.initial:
        np.testing.assert_array_equal(eager[name], compiled[name])
    drawn_eagerly = net.draw(params, KEY).weights
    for name, value in jax.jit(lambda p: net.draw(p, KEY).weights)(params).items():
        np.testing.assert_allclose(drawn_eagerly[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guide": "AutoNormall"}, "got 'AutoNormall'; did you mean 'AutoNormal'"),
        ({"guide": "meanfield"}, "got 'meanfield'; did you mean 'mean_field'\\?"),
        ({"guide": "AutoSemiDAIS"}, "AutoSemiDAIS follows the gradient of the likelihood of all examples"),
        ({"guide": "AutoDAIS"}, "AutoDAIS follows the gradient"),
        ({"guide": "AutoRVRS"}, "AutoRVRS rejects draws by the likelihood of all examples"),
        ({"guide": "AutoLaplaceApproximation"}, "second derivatives of the likelihood, which spikes do not have"),
        ({"guide": "AutoLowRankMultivariateNormal", "options": {"rnk": 4}}, "got 'rnk'; did you mean 'rank'\\?"),
        ({"guide": "AutoLowRankMultivariateNormal", "options": {"rank": 0}}, "rank must be a whole number above 0"),
        ({"guide": "AutoNormal", "options": {"init_scale": -1.0}}, "init_scale must be a positive number, got -1.0"),
        ({"guide": "AutoDelta", "options": {"rank": 4}}, "AutoDelta takes no options, got 'rank'"),
        ({"guide": "low_rank", "options": {"scales": 0.1}}, "takes the options rank, scale, got 'scales'"),
        ({"guide": "ensemble", "options": {"members": 3}}, "takes no bayes.options, got 'members'; see bayes.members"),
    ],
)
def test_a_misspelt_guide_or_option_gets_a_sentence(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BayesConfig(**options)


def test_options_take_the_place_of_the_configuration_s_own() -> None:
    net = under(spiking("point"), guides.made("low_rank", {"rank": 4, "scale": 0.1}, {"rank": 2}))
    params = start(net)
    assert params["weights.factor"].shape[1] == 2
    np.testing.assert_allclose(params["weights.scale"], 0.1, rtol=1e-6)
    net = spiking("AutoLowRankMultivariateNormal", rank=3, init_scale=0.02)
    params = start(net)
    assert params["auto_cov_factor"].shape[1] == 3
    np.testing.assert_allclose(params["auto_scale"], 0.02, rtol=1e-5)


def test_a_guide_too_large_says_so_before_it_takes_memory() -> None:
    template, params = split(mlp((200,), (100,), 2, key=KEY))
    family = guides.made("AutoMultivariateNormal", {}, {})
    net = Bayesian(
        Simulator(template, 2), WeightPosterior(template, params, priors.default(template), family), data_size=12
    )
    with pytest.raises(ValueError, match="at most 67108864 numbers, AutoMultivariateNormal of 20302 weights has 4"):
        net.constrain({})
