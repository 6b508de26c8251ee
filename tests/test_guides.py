"""Every guide under one contract, and each against a closed form, an enumeration or an independent computation."""

import dataclasses
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
from dsnn.bayes import guides, priors, sites
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.bayes.flipout import flipout
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.gates import HardConcrete, OpenOrClosed
from dsnn.bayes.guides.laplace import best_precision, gauss_newton
from dsnn.bayes.guides.low_rank import Joint
from dsnn.bayes.halting_posterior import HaltingPosterior
from dsnn.bayes.likelihood import Bernoulli, Categorical, Gaussian
from dsnn.bayes.nuts import nuts, pooled
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.cells import LI, LIF
from dsnn.energy import profile
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack, mlp, running_logits
from dsnn.parameters import split
from dsnn.simulate.simulator import Simulator, log_likelihood
from dsnn.simulate.unroll import unroll
from dsnn.tasks import predictor

KEY = jax.random.key(0)
X, Y = jax.random.uniform(jax.random.key(1), (12, 3)), jnp.arange(12) % 2


def network(key: jax.Array = KEY, readout: str = "mean") -> Stack:
    def cell(neurons: int) -> LIF:
        return LIF(beta=0.9, noise=escape.Logistic(0.3))

    return mlp((3,), (4,), 2, key=key, gain=2.0, cell=cell, readout=readout)


def members() -> dict[str, jax.Array]:
    return guides.stacked([split(network(jax.random.key(k)))[1] for k in range(3)])


SMALL = {"AutoBNAFNormal": {"hidden_factors": [2, 2]}}
FAMILIES = {
    "point": guides.point,
    "mean_field": lambda: guides.mean_field(0.05),
    "low_rank": lambda: guides.low_rank(2, 0.05),
    "last_layer": lambda: guides.last_layer(0.05),
    "rank1": guides.rank1,
    "dropout": lambda: guides.dropout(0.3),
    "aot": lambda: guides.aot(0.3),
    "ensemble": lambda: guides.ensemble(members()),
    "laplace": guides.laplace,
    **{
        name: lambda name=name: guides.made(name, {"scale": 0.05}, SMALL.get(name, {}))
        for name in guides.numpyro_guides()
    },
}
SAMPLING = {"mean_field", "low_rank", "last_layer", "rank1", "ensemble", "laplace", *guides.numpyro_guides()}
SAMPLING -= {"AutoDelta"}


def bayesian(family: guides.Guide, *, flipout: bool = False, whole: bool = True) -> Bayesian:
    """A network with all of its parts, or with weights alone."""
    model = network()
    template, params = split(model)
    where = sites.sites(model)
    weights = WeightPosterior(template, params, priors.default(template), family, flipout)
    parts = (GatePosterior(where), HaltingPosterior(5, joint=True), EnergyPrior(where, profile("45nm")))
    return Bayesian(Simulator(template, 5), weights, *(parts if whole else ()), data_size=12)


def start(net: Bayesian, x: jax.Array = X, y: jax.Array = Y) -> dict[str, jax.Array]:
    svi = SVI(net.model, net.guide, optax.sgd(0.1), TraceMeanField_ELBO())
    return net.constrain(jax.jit(svi.init)(KEY, x, y, net.no_context()).optim_state[1][0])


# --- The contract


SLOW = {"AutoBNAFNormal", "AutoIAFNormal", "AutoDiagonalNormal", "AutoMultivariateNormal"}  # they take long to compile


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in FAMILIES])
def test_every_guide_learns_draws_and_predicts_under_gates_and_halting(name: str) -> None:
    net = bayesian(FAMILIES[name](), flipout=True)
    params = start(net)
    context = net.no_context()._replace(lam=jnp.asarray(0.1))
    loss = lambda p, k: TraceMeanField_ELBO().loss(k, p, net.model, net.guide, X, Y, context)  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(loss))(params, KEY)
    assert jnp.isfinite(value)
    for own, g in gradient.items():
        assert jnp.isfinite(g).all(), own
        assert own.startswith("halting") or float(jnp.abs(g).max()) > 0, f"{own} is not trained"
    params = net.finish(params, X, Y, KEY)
    draw = jax.jit(lambda key, member: net.draw(params, key, member))
    one, two = (draw(jax.random.key(k), k) for k in (1, 2))
    assert set(one.weights) == set(net.simulator.template.names)
    for n, v in net.weights.initial.items():
        assert one.weights[n].shape == net.centre(params).weights[n].shape == v.shape
    differ = any((one.weights[n] != two.weights[n]).any() for n in net.weights.initial)
    assert differ == (name in SAMPLING)
    predict = predictor(net)
    first, again, other = (predict(params, np.asarray(X), jax.random.key(k), samples=3) for k in (1, 1, 2))
    np.testing.assert_allclose(first.probs.sum(-1), 1.0, rtol=1e-5)
    assert (first.probs == again.probs).all()
    assert (first.probs != other.probs).any()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: guides.mean_field(0.0), "scale must be positive and finite, got 0.0"),
        (lambda: guides.low_rank(0), "rank of a low-rank guide must be at least 1, got 0"),
        (lambda: guides.rank1(prior_scale=-1.0), "positive and finite, got -1.0"),
        (lambda: guides.dropout(1.0), "dropout rate must be in \\(0, 1\\), got 1.0"),
        (lambda: guides.ensemble({"a": jnp.zeros((1, 2))}), "two members or more, got sizes \\[1\\]"),
    ],
)
def test_a_guide_says_what_is_wrong(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# --- The conjugate check: a Bayesian linear readout on the spike counts of a fixed stochastic layer

NOISE = 0.3


def spike_features() -> jax.Array:
    layer = Layer(Dense((3,), 5, key=jax.random.key(7), gain=3.0), LIF(beta=0.9, noise=escape.Logistic(0.2)))
    x = jax.random.normal(jax.random.key(8), (60, 3))
    return unroll(Stack(hidden=layer), x, KEY, steps=10)[0].mean(0)


def linear() -> tuple[Bayesian, jax.Array, jax.Array, np.ndarray, np.ndarray, float]:
    """A one-layer network that is linear in its weights; its exact posterior and log evidence."""
    features = spike_features()
    template, params = split(Stack("last", readout=Layer(Dense((5,), 1, key=KEY), LI(beta=0.0))))
    truth = jnp.asarray([0.8, -0.5, 1.2, 0.3, -0.9])
    y = (features @ truth + 0.2 + NOISE * jax.random.normal(jax.random.key(9), (60,)))[:, None]
    weights = WeightPosterior(template, params, priors.default(template))
    net = Bayesian(Simulator(template, 1, stochastic=False), weights, likelihood=Gaussian(NOISE, False), data_size=60)
    design = np.concatenate([np.ones((60, 1)), np.asarray(features, float)], 1)  # bias first: names are sorted
    assert net.simulator.template.names == ("readout.synapse.bias", "readout.synapse.kernel")
    prior = np.diag([1.0] + [5.0] * 5)
    precision = design.T @ design / NOISE**2 + prior
    mean = np.linalg.solve(precision, design.T @ np.asarray(y[:, 0], float) / NOISE**2)
    covariance = NOISE**2 * np.eye(60) + design @ np.linalg.inv(prior) @ design.T
    target = np.asarray(y[:, 0], float)
    evidence = -0.5 * (60 * math.log(2 * math.pi) + np.linalg.slogdet(covariance)[1])
    evidence -= 0.5 * target @ np.linalg.solve(covariance, target)
    return net, features, y, mean, precision, float(evidence)


def fitted(net: Bayesian, x: jax.Array, y: jax.Array, steps: int = 4000) -> dict[str, jax.Array]:
    tx = optax.adam(optax.cosine_decay_schedule(0.02, steps))
    svi = SVI(net.model, net.guide, tx, TraceMeanField_ELBO(num_particles=64))
    context = net.no_context()

    @jax.jit
    def run(state):
        return jax.lax.scan(lambda s, _: (svi.update(s, x, y, context)[0], None), state, None, steps)[0]

    return svi.get_params(run(svi.init(KEY, x, y, context)))


@pytest.mark.parametrize("family", ["mean_field", "low_rank"])
def test_svi_finds_the_conjugate_posterior(family: str) -> None:
    """Means to 1 %, variances to 5 % of the optimum of the family, and ELBO = log evidence - KL(q || posterior)."""
    net, x, y, mean, precision, evidence = linear()
    # a rank of all but one spans every covariance of six weights
    guide = guides.mean_field(0.05) if family == "mean_field" else guides.low_rank(5, 0.05)
    net = dataclasses.replace(net, weights=dataclasses.replace(net.weights, guide=guide))
    params = fitted(net, x, y)
    if family == "mean_field":
        found = np.concatenate([np.ravel(params[f"{n}.loc"]) for n in net.weights.initial]).astype(float)
        covariance = np.diag(
            np.concatenate([np.ravel(params[f"{n}.scale"]) for n in net.weights.initial]).astype(float) ** 2
        )
        best = 1 / np.diag(precision)
    else:
        found, factor = (np.asarray(params[f"weights.{n}"], float) for n in ("loc", "factor"))
        covariance = factor @ factor.T + np.diag(np.asarray(params["weights.scale"], float) ** 2)
        best = np.diag(np.linalg.inv(precision))
    np.testing.assert_allclose(found, mean, rtol=0.01, atol=0.01 * np.abs(mean).max())
    np.testing.assert_allclose(np.diag(covariance), best, rtol=0.05)
    gap = 0.5 * (
        np.trace(precision @ covariance)
        + (found - mean) @ precision @ (found - mean)
        - 6
        - np.linalg.slogdet(precision @ covariance)[1]
    )
    elbo = TraceMeanField_ELBO(num_particles=4000)
    bound = -float(jax.jit(lambda k: elbo.loss(k, params, net.model, net.guide, x, y, net.no_context()))(KEY))
    assert bound <= evidence + 0.1
    np.testing.assert_allclose(evidence - bound, gap, atol=0.15)
    assert (gap < 0.05) == (family == "low_rank"), "mean field pays for the correlations, the full rank does not"


def test_nuts_finds_the_conjugate_posterior_within_monte_carlo_error() -> None:
    net, x, y, mean, precision, _ = linear()
    chains = nuts(net, x, y, KEY, warmup=300, samples=1000, chains=2)
    samples = pooled(chains)
    drawn = np.concatenate([np.asarray(samples[n], float).reshape(2000, -1) for n in net.weights.initial], 1)
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    assert (np.abs(drawn.mean(0) - mean) < 4 * sd / math.sqrt(500)).all(), "at least 500 of 2000 count as independent"
    np.testing.assert_allclose(drawn.std(0), sd, rtol=0.15)
    assert not chains.diverging.any()


@pytest.mark.slow
def test_nuts_with_a_surrogate_force_finds_the_posterior_of_a_hard_threshold() -> None:
    """The likelihood has steps in the weight; the posterior is enumerated on a grid."""
    layers = {
        "hidden": Layer(Dense((1,), 1, key=KEY, bias=False), LIF(beta=0.5)),
        "readout": Layer(Dense((1,), 1, key=KEY, bias=False), LI(beta=0.0)),
    }
    template, params = split(Stack("mean", **layers))
    params = params | {"readout.synapse.kernel": jnp.ones((1, 1)), "hidden.synapse.kernel": jnp.full((1, 1), 1.2)}
    prior = priors.by_pattern({"hidden*": priors.normal(2.0), "*": priors.point}, template)
    weights = WeightPosterior(template, params, prior)
    net = Bayesian(Simulator(template, 8, stochastic=False), weights, likelihood=Gaussian(0.15, False), data_size=6)
    x = jnp.linspace(0.2, 1.0, 6)[:, None]
    y = net.simulator.logits(params, x)[-1] + 0.1 * jax.random.normal(KEY, (6, 1))
    grid = jnp.linspace(-8.0, 8.0, 16001)

    def log_density(w: jax.Array) -> jax.Array:
        out = net.simulator.logits(params | {"hidden.synapse.kernel": w.reshape(1, 1)}, x)[-1]
        return net.likelihood.log_prob({}, out, y).sum() + dist.Normal(0.0, 2.0).log_prob(w)

    log_p = np.asarray(jax.jit(jax.vmap(log_density))(grid), float)
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    mean = p @ np.asarray(grid)
    sd = math.sqrt(p @ (np.asarray(grid) - mean) ** 2)
    chains = nuts(net, x, y, KEY, warmup=500, samples=2000, chains=4)
    drawn = np.asarray(chains.samples["hidden.synapse.kernel"], float).reshape(4, -1)
    from numpyro.diagnostics import effective_sample_size

    count = float(effective_sample_size(drawn))
    assert count > 100
    assert abs(drawn.mean() - mean) < 4 * sd / math.sqrt(count)
    np.testing.assert_allclose(drawn.std(), sd, rtol=0.2)


def test_nuts_refuses_a_random_likelihood() -> None:
    with pytest.raises(ValueError, match="NUTS needs a likelihood without chance"):
        nuts(bayesian(guides.point()), X, Y, KEY)


# --- Low rank


def test_low_rank_divergence_is_that_of_full_normals() -> None:
    parts = {"a": dist.Normal(0.5, 2.0).expand((2, 2)).to_event(2), "b": dist.Normal(0.0, jnp.asarray([1.0, 3.0]))}
    parts["b"] = parts["b"].to_event(1)
    identity = {n: dist.biject_to(dist.constraints.real) for n in parts}
    loc, factor = jax.random.normal(KEY, (6,)), jax.random.normal(jax.random.key(1), (6, 2))
    diagonal = jnp.linspace(0.1, 1.0, 6)
    q, p = dist.LowRankMultivariateNormal(loc, factor, diagonal), Joint(parts, identity)
    full = dist.MultivariateNormal(loc, factor @ factor.T + jnp.diag(diagonal))
    target = dist.MultivariateNormal(
        jnp.asarray([0.5] * 4 + [0.0] * 2), jnp.diag(jnp.asarray([2.0, 2, 2, 2, 1, 3]) ** 2)
    )
    np.testing.assert_allclose(kl_divergence(q, p), kl_divergence(full, target), rtol=1e-5)
    np.testing.assert_allclose(p.log_prob(loc), target.log_prob(loc), rtol=1e-5)


# --- Flipout


def test_flipout_keeps_the_gradient_and_cuts_its_variance() -> None:
    """With 64 examples the shared draw's gradient noise does not average out; its own signs for each example do."""
    x, y = jax.random.normal(jax.random.key(3), (64, 6)), jnp.arange(64) % 3
    model = mlp((6,), (8,), 3, key=KEY, gain=1.0)
    template, params = split(model)
    weights = WeightPosterior(template, params, priors.default(template), guides.mean_field(0.3))
    base = Bayesian(Simulator(template, 3, stochastic=False), weights, data_size=64)
    state = start(base, x, y)
    found = {}
    for flips in (False, True):
        net = dataclasses.replace(base, weights=dataclasses.replace(weights, flipout=flips))

        def readout_gradient(key: jax.Array, net: Bayesian = net) -> jax.Array:
            loss = lambda p: TraceMeanField_ELBO().loss(key, p, net.model, net.guide, x, y, net.no_context())  # noqa: E731
            return jax.grad(loss)(state)["readout.synapse.kernel.loc"].ravel()

        found[flips] = np.asarray(jax.jit(jax.vmap(readout_gradient))(jax.random.split(KEY, 1500)), float)
    shared, own = found[False], found[True]
    error = np.sqrt(shared.var(0) / 1500 + own.var(0) / 1500)
    assert (np.abs(shared.mean(0) - own.mean(0)) < 5 * error).all()
    assert own.var(0).mean() < 0.5 * shared.var(0).mean()


def test_flipped_examples_have_draws_of_their_own_that_hold_for_all_steps() -> None:
    template, params = split(network())
    drawn = {
        n: v + 0.3 * jax.random.normal(jax.random.fold_in(KEY, i), v.shape) for i, (n, v) in enumerate(params.items())
    }
    kernels = {n: v for n, v in params.items() if n.endswith("kernel")}
    at_centre, adapt = flipout(template, drawn, kernels, KEY, 2)
    synapse = adapt(template.build(at_centre)).hidden0.synapse
    one = jnp.asarray([[1.0, 2.0, 3.0]])
    currents = synapse(jnp.concatenate([one, one, one, one]))  # two steps of two equal examples
    np.testing.assert_allclose(currents[:2], currents[2:], rtol=1e-6)
    assert (jnp.abs(currents[0] - currents[1]) > 1e-4).any()
    signs = jnp.asarray([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)], float)
    delta = drawn["hidden0.synapse.kernel"] - params["hidden0.synapse.kernel"]
    possible = jnp.abs((one * signs) @ delta)
    bias = drawn["hidden0.synapse.bias"]
    off = jnp.abs(currents[0] - one[0] @ params["hidden0.synapse.kernel"] - bias)
    assert (jnp.abs(possible - off).min(0) < 1e-5).all()


# --- Dropout and AOT


def test_masks_hold_for_an_example_under_dropout_and_change_every_step_under_aot() -> None:
    template, params = split(mlp((3,), (400,), 2, key=KEY))
    ones = jnp.ones((6, 400))  # three steps of two examples
    for make, same in ((guides.dropout, True), (guides.aot, False)):
        model = make(0.25).noise(KEY, 2)(template.build(params))
        seen = []
        model.readout.synapse.synapse = lambda x, seen=seen: seen.append(x) or x[:, :2]
        model.readout.synapse(ones)
        masks = np.asarray(seen[0]).reshape(3, 2, 400)
        np.testing.assert_allclose(np.unique(masks), [0.0, 1 / 0.75], rtol=1e-6)
        share = (masks[0] > 0).mean()
        assert abs(share - 0.75) < 4.5 * math.sqrt(0.25 * 0.75 / 800)
        assert (masks[0] == masks[1]).all() == same
        assert (masks[:, 0] != masks[:, 1]).any()


def test_the_vote_averages_probabilities_over_time() -> None:
    outputs = 3 * jax.random.normal(KEY, (5, 4, 3))
    expected = np.cumsum(np.asarray(jax.nn.softmax(outputs)), 0) / np.arange(1, 6)[:, None, None]
    np.testing.assert_allclose(jnp.exp(running_logits(outputs, "vote")), expected, rtol=1e-5)


# --- Ensemble


def test_an_ensemble_is_its_members_trained_apart() -> None:
    """Averaged objectives leave every member its own gradient, and predictions take the members in turn."""
    together = bayesian(guides.ensemble(members()), whole=False)
    params = start(together)
    context = together.no_context()
    quiet = dataclasses.replace(together.simulator, stochastic=False)
    together = dataclasses.replace(together, simulator=quiet)
    loss = lambda net: jax.jit(  # noqa: E731
        jax.grad(lambda p: TraceMeanField_ELBO().loss(KEY, p, net.model, net.guide, X, Y, context))
    )
    gradient = loss(together)(params)
    for k in range(3):
        own = {n: v[k] for n, v in members().items()}
        weights = dataclasses.replace(together.weights, guide=guides.point(), initial=own)
        alone = dataclasses.replace(together, weights=weights)
        for name, g in loss(alone)(start(alone)).items():
            np.testing.assert_allclose(3 * gradient[name][k], g, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(
            together.draw(params, KEY, 3 + k).weights[name[: -len(".point")]], params[name][k]
        )


# --- Laplace


def test_the_gauss_newton_matrix_of_a_linear_softmax_is_its_hessian() -> None:
    template, params = split(Stack("last", readout=Layer(Dense((3,), 2, key=KEY), LI(beta=0.0))))
    family = guides.laplace()
    weights = WeightPosterior(template, params, priors.default(template), family)
    net = Bayesian(Simulator(template, 1), weights, likelihood=Categorical(), data_size=12)
    state = start(net)
    ours = gauss_newton(net, state, X, KEY, 5, 1)
    flat = jnp.concatenate([params[n].ravel() for n in template.names])

    def loss(w: jax.Array) -> jax.Array:
        return -log_likelihood(X @ w[2:].reshape(3, 2) + w[:2], Y).sum()

    np.testing.assert_allclose(ours, jax.hessian(loss)(flat), rtol=1e-4, atol=1e-5)
    done = net.finish(state, X, Y, KEY)
    factor = np.asarray(done["laplace.factor"], float)
    scale = np.concatenate([np.ones(2), np.full(6, 1 / math.sqrt(3))])
    precision = np.asarray(ours, float) + float(done["laplace.precision"]) * np.diag(1 / scale**2)
    np.testing.assert_allclose(factor @ factor.T @ precision, np.eye(8), atol=1e-3)


def test_the_laplace_precision_maximises_the_evidence() -> None:
    """Weights of precision 4 seen through much data: the chosen precision is near theirs."""
    w = 0.5 * np.asarray(jax.random.normal(KEY, (400,)))
    c = best_precision(np.full(400, 1e5), float(w @ w))
    np.testing.assert_allclose(c, 1 / np.mean(w**2), rtol=0.06)


# --- Priors of two levels


@pytest.mark.parametrize("kind", ["hierarchical", "horseshoe"])
@pytest.mark.parametrize("family", ["mean_field", "low_rank", "rank1"])
def test_hierarchical_priors_bring_their_scales(kind: str, family: str) -> None:
    net = bayesian(FAMILIES[family](), whole=False)
    scaled = priors.default(net.weights.template, kernel=kind)
    net = dataclasses.replace(net, weights=dataclasses.replace(net.weights, priors=scaled))
    params = start(net)
    scale = "sigma" if kind == "hierarchical" else "tau"
    assert f"hidden0.synapse.kernel.{scale}.loc" in params
    from numpyro import handlers

    trace = handlers.trace(handlers.seed(handlers.substitute(net.model, params), KEY)).get_trace(X, Y, net.no_context())
    assert float(trace[f"hidden0.synapse.kernel.{scale}"]["value"]) > 0
    loss = TraceMeanField_ELBO().loss
    value = jax.jit(lambda k: loss(k, params, net.model, net.guide, X, Y, net.no_context()))(KEY)
    assert jnp.isfinite(value)


def test_a_horseshoe_is_its_scales_times_a_normal() -> None:
    prior = priors.horseshoe(0.5)("hidden0.synapse.kernel", (4, 3))
    fn = prior.given({"tau": jnp.asarray(0.5), "lambda": jnp.full((4, 3), 2.0)})
    np.testing.assert_allclose(fn.variance, (0.5 * 2.0) ** 2 / 4, rtol=1e-6)
    assert prior.scales["lambda"].event_shape == (4, 3)


# --- Gates: the gradient of the ELBO against integration over every gate


def test_the_gradient_of_the_elbo_over_gates_is_exact_on_average() -> None:
    """A linear readout of two gated inputs: E_q over both gates by quadrature, against sampled gradients."""
    model = Stack("last", readout=Layer(Dense((2,), 2, key=KEY), LI(beta=0.0)))
    template, params = split(model)
    params = params | {"readout.synapse.kernel": jnp.asarray([[2.0, -1.0], [-1.5, 1.0]])}
    x, y = jnp.asarray([[1.0, 0.4], [0.2, 1.3], [0.9, 0.8]]), jnp.asarray([0, 1, 0])
    prior = priors.by_pattern({"*": priors.point}, template)
    weights, where = WeightPosterior(template, params, prior, guides.point()), sites.sites(model)
    energy_prior = EnergyPrior(where, profile("45nm"))
    net = Bayesian(Simulator(template, 1), weights, GatePosterior(where), energy=energy_prior, data_size=3)
    events = {"readout": jnp.asarray([0.7, 0.9])}
    context = net.no_context()._replace(events=events, lam=jnp.asarray(5.0))
    rank = (jnp.arange(400) + 0.5) / 400
    noise = jnp.log(rank) - jnp.log1p(-rank)

    def exact(log_alpha: jax.Array) -> jax.Array:
        q = HardConcrete(log_alpha)
        z = jnp.clip(jax.nn.sigmoid((noise[:, None] + log_alpha) / q.temperature) * 1.2 - 0.1, 0.0, 1.0)

        def given(z0: jax.Array, z1: jax.Array) -> jax.Array:
            network = sites.gate(net.gates.sites, params, {"input": jnp.stack([z0, z1])})
            return log_likelihood(net.simulator.logits(network, x)[-1], y).sum()

        expected = jax.vmap(lambda a: jax.vmap(lambda b: given(a, b))(z[:, 1]))(z[:, 0]).mean()
        energy = net.energy.expected({"input": q.open_probability}, events).total(1.0)
        return -(expected - kl_divergence(q, OpenOrClosed(2)) - 5.0 * 3 * energy)

    log_alpha = jnp.asarray([0.3, -0.5])
    state = params | {"gates.log_alpha": log_alpha}

    def sampled(key: jax.Array) -> jax.Array:
        loss = lambda a: TraceMeanField_ELBO().loss(  # noqa: E731
            key, state | {"gates.log_alpha": a}, net.model, net.guide, x, y, context
        )
        return jax.grad(loss)(log_alpha)

    draws = np.asarray(jax.jit(jax.vmap(sampled))(jax.random.split(rng.root(3), 20_000)), float)
    error = draws.std(0) / math.sqrt(len(draws))
    assert (np.abs(draws.mean(0) - np.asarray(jax.jit(jax.grad(exact))(log_alpha))) < 4 * error + 1e-3).all()


def test_several_labels_are_independent_coins_with_the_outputs_as_log_odds() -> None:
    likelihood, outputs = Bernoulli(), jnp.array([[0.3, -2.0, 5.0], [-0.1, 0.0, -40.0]])
    patterns = jnp.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    log_p = jnp.stack([likelihood.log_prob({}, outputs, jnp.broadcast_to(y, outputs.shape)) for y in patterns])
    np.testing.assert_allclose(jnp.exp(log_p).sum(0), 1.0, rtol=1e-5)
    probs, entropy = likelihood.distribution(outputs)
    np.testing.assert_allclose((jnp.exp(log_p)[:, :, None] * patterns[:, None]).sum(0), probs, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(-(jnp.exp(log_p) * log_p).sum(0), entropy, rtol=1e-5)
    y = jnp.array([1, 0, 1])
    hessian = jax.hessian(lambda out: -likelihood.log_prob({}, out[None], y[None])[0])(outputs[0])
    np.testing.assert_allclose(likelihood.curvature({}, outputs)[0], hessian, atol=1e-6)
