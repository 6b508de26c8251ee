"""Gate families under one contract, and their closed forms against quadrature, enumeration and counts."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpyro.distributions import kl_divergence
from numpyro.infer import SVI, TraceMeanField_ELBO
from scipy import integrate, stats

from dsnn.bayes import gate_posterior, gates, guides, priors, sites
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.learn.duals import ascend, falling, largest, most_within
from dsnn.networks.stack import mlp
from dsnn.parameters import split
from dsnn.simulate.simulator import Simulator

KEY = jax.random.key(0)
every_family = pytest.mark.parametrize("name", [name for name, f in gates.FAMILIES.items() if f.inferred])


@every_family
def test_family_contract(name: str) -> None:
    family = gates.FAMILIES[name]
    own = family.initial(6, 0.8)
    own = {n: v + 0.3 * jax.random.normal(jax.random.fold_in(KEY, k), v.shape) for k, (n, v) in enumerate(own.items())}

    @jax.jit
    def drawn(own: dict, key: jax.Array) -> jax.Array:
        return family.posterior(own).sample(key, (50,))

    z = drawn(own, KEY)
    assert z.shape == (50, 6)
    assert z.dtype == jnp.float32
    assert float(z.min()) >= 0
    assert float(z.max()) <= 1
    np.testing.assert_array_equal(z, drawn(own, KEY))
    assert np.any(z != drawn(own, jax.random.key(1)))
    q = family.posterior(own)
    p, decision = q.open_probability, q.decision()
    assert np.all((p >= 0) & (p <= 1))
    np.testing.assert_array_equal(decision > 0, p > 0.5)
    assert np.all(q.entropy_of_opening() >= 0)

    def divergence(own: dict) -> jax.Array:
        return kl_divergence(family.posterior(own), family.base(6))

    for f in (divergence, lambda own: family.posterior(own).open_probability.sum()):
        slopes = jax.tree.leaves(jax.grad(f)(own))
        assert all(np.all(np.isfinite(leaf)) for leaf in slopes)
        assert any(np.any(leaf != 0) for leaf in slopes)
    if not family.discrete:
        slopes = jax.grad(lambda own: family.posterior(own).sample(KEY).sum())(own)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))
        assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(slopes))


@every_family
def test_a_decided_gate_is_what_was_decided_in_every_draw(name: str) -> None:
    family = gates.FAMILIES[name]
    opened = jnp.asarray([True, False, True, False, False])
    q = family.posterior(family.decided(opened))
    np.testing.assert_array_equal(q.decision() > 0, opened)
    z = q.sample(KEY, (200,))
    assert float(z[:, opened].min()) > 0.98
    assert float(np.median(z[:, ~opened])) < 1e-6
    assert np.isfinite(kl_divergence(q, family.base(5)))


@pytest.mark.parametrize("name", ["hard_concrete", "concrete", "bernoulli"])
def test_open_probability_entropy_and_density_of_the_families_of_bernoulli_kind(name: str) -> None:
    family, n = gates.FAMILIES[name], 40_000
    q = family.posterior(family.initial(n, 0.3))
    np.testing.assert_allclose(q.open_probability, 0.3, rtol=1e-5)
    threshold = 0.5 if name == "concrete" else 0.0
    share = float((q.sample(KEY) > threshold).mean())
    assert abs(share - 0.3) < 4.5 * math.sqrt(0.3 * 0.7 / n)
    small = family.posterior(family.initial(3, 0.3))
    by_hand = -3 * (0.3 * math.log(0.3) + 0.7 * math.log(0.7))
    np.testing.assert_allclose(kl_divergence(small, family.base(3)), 3 * math.log(2) - by_hand, rtol=1e-5)
    settings = itertools.product((0.0, 1.0), repeat=3)
    np.testing.assert_allclose(sum(float(jnp.exp(small.log_prob(jnp.asarray(z)))) for z in settings), 1.0, rtol=1e-5)


@pytest.mark.parametrize(("mu", "sigma"), [(0.0, 0.01), (-0.5, 0.4), (-3.0, 2.0), (0.5, 1.0), (-18.0, 5.0)])
def test_log_normal_noise_against_quadrature(mu: float, sigma: float) -> None:
    q = gates.LogNormalNoise(jnp.asarray([mu]), jnp.asarray([sigma]))
    exact = stats.truncnorm((-20 - mu) / sigma, (0 - mu) / sigma, mu, sigma)
    low, high = exact.ppf(1e-12), exact.ppf(1 - 1e-12)

    def mean(f: object) -> float:
        return integrate.quad(lambda v: exact.pdf(v) * f(v), low, high, limit=500)[0]  # type: ignore[operator]

    first, second = mean(np.exp), mean(lambda v: np.exp(2 * v))
    ratio = first / math.sqrt(second - first**2)
    np.testing.assert_allclose(q.signal_to_noise[0], ratio, rtol=2e-2)
    np.testing.assert_allclose(q.decision()[0], first if ratio > 1 else 0.0, rtol=1e-3)
    divergence = mean(lambda v: exact.logpdf(v) + math.log(20.0))
    np.testing.assert_allclose(q.divergence()[0], divergence, rtol=1e-3, atol=1e-4)
    logs = np.log(np.asarray(q.sample(KEY, (4000,))[:, 0], float))
    assert stats.kstest(logs, exact.cdf).pvalue > 1e-4
    inside = jnp.exp(jnp.asarray([exact.ppf(0.3)]))
    np.testing.assert_allclose(
        q.log_prob(inside), exact.logpdf(math.log(inside[0])) - math.log(inside[0]), rtol=1e-3, atol=1e-3
    )


def test_arm_weights_give_the_gradient_of_an_expectation() -> None:
    logit = jnp.asarray([0.4, -1.0, 2.0])
    target = jnp.asarray([0.2, 0.7, -0.4])

    def f(z: jax.Array) -> jax.Array:
        return (z @ target) ** 2 + z[..., 0] * z[..., 2]

    def exact(logit: jax.Array) -> jax.Array:
        settings = gates.every_setting(3)
        return (jnp.exp(gates.Bernoulli(logit).log_prob(settings)) * f(settings)).sum()

    def one(key: jax.Array) -> jax.Array:
        first, second = jax.random.split(key)
        z = gates.Bernoulli(logit).sample(first)
        other, weights = gates.antithetic(logit, z, second)
        return (f(z) - f(other)) * weights

    draws = np.asarray(jax.vmap(one)(jax.random.split(KEY, 20_000)))
    error = draws.std(0) / math.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(0) - np.asarray(jax.grad(exact)(logit))) < 4.5 * error)


def _tiny(family: str) -> Bayesian:
    template, params = split(mlp((2,), (3,), 2, key=KEY, gain=2.0))
    return Bayesian(
        Simulator(template, 3, stochastic=False),
        WeightPosterior(template, params, priors.point, guides.point()),
        GatePosterior(sites.sites(mlp((2,), (3,), 2, key=KEY)), gates.FAMILIES[family]),
        data_size=8,
    )


X, Y = jax.random.uniform(jax.random.key(1), (8, 2)) * 2, jnp.arange(8) % 2


def _gradient(net: Bayesian, logit: jax.Array, keys: jax.Array) -> np.ndarray:
    svi = SVI(net.model, net.guide, optax.sgd(0.1), TraceMeanField_ELBO())
    params = net.constrain(svi.init(KEY, X, Y, net.no_context()).optim_state[1][0])

    def loss(logit: jax.Array, key: jax.Array) -> jax.Array:
        state = params | {"gates.logit": logit}
        return TraceMeanField_ELBO().loss(key, state, net.model, net.guide, X, Y, net.no_context())

    return np.asarray(jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(logit, keys))


def test_discrete_gates_learn_by_sum_and_by_arm(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum over all settings is the definition, written here once more; ARM has to agree with it on average."""
    net, logit = _tiny("bernoulli"), jnp.asarray([0.3, -0.4, 0.9, 0.0, -0.8])

    def elbo(logit: jax.Array) -> jax.Array:
        settings = gates.every_setting(5)
        q = gates.Bernoulli(logit)

        def evidence(z: jax.Array) -> jax.Array:
            network = sites.gate(net.gates.sites, net.weights.initial, net.gates.sites.unflatten(z))  # type: ignore[arg-type]
            log_p = jax.nn.log_softmax(net.simulator.logits(network, X)[-1])
            return log_p[jnp.arange(8), Y].sum()

        total = (jnp.exp(q.log_prob(settings)) * jax.lax.map(evidence, settings)).sum()
        return -(total + q.entropy_of_opening().sum())

    exact = jax.jit(jax.grad(elbo))(logit)
    summed = _gradient(net, logit, jax.random.split(KEY, 2))
    np.testing.assert_allclose(summed, np.broadcast_to(exact, summed.shape), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(gate_posterior, "ENUMERATED", 0)
    drawn = _gradient(net, logit, jax.random.split(KEY, 4000))
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert np.all(error > 0)
    assert np.all(np.abs(drawn.mean(0) - exact) < 4.5 * error)


def test_prices_rise_above_the_budget_which_falls_geometrically() -> None:
    np.testing.assert_allclose(
        ascend(jnp.asarray(0.5), jnp.asarray(2.0), jnp.asarray(1.0), 0.1), 0.5 + 0.1 * math.log(2)
    )
    np.testing.assert_allclose(ascend(jnp.asarray(0.5), jnp.asarray(1e9), jnp.asarray(1.0), 0.1), 0.6, rtol=1e-6)
    assert [round(float(falling(100.0, 1.0, jnp.asarray(done))), 3) for done in (0.0, 0.5, 1.0)] == [100.0, 10.0, 1.0]
    assert largest(jnp.asarray([0.1, 0.9, 0.3, 0.8]), 2).tolist() == [False, True, False, True]


@pytest.mark.parametrize("most", [1, 2, 3, 8, 37])
def test_bisection_finds_the_most_that_a_budget_pays_for(most: int) -> None:
    for fits in range(most + 1):
        found = int(most_within(lambda k: k * 2.0, jnp.asarray(2.0 * fits + 1), most))
        assert found == max(fits, 1)
