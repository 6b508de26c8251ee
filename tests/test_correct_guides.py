"""Guides, gates and predictives where they once went wrong, each against a computation of its own."""

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpyro import handlers
from numpyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from scipy import integrate, special

from dsnn.bayes import gates, guides, priors, sites
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.gates.truncated import quantile, truncated
from dsnn.bayes.guides.laplace import gauss_newton
from dsnn.bayes.likelihood import Gaussian
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.cells import LI, LIF
from dsnn.learn import gradients
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack, mlp
from dsnn.parameters import Params, split
from dsnn.simulate.simulator import Simulator, log_likelihood
from dsnn.simulate.unroll import unroll
from dsnn.tasks import Numbers, predictor, regressor

KEY = jax.random.key(0)
X, Y = jax.random.uniform(jax.random.key(1), (12, 3)), jnp.arange(12) % 2


def network(key: jax.Array = KEY) -> Stack:
    return mlp((3,), (4,), 2, key=key, gain=2.0, cell=lambda n: LIF(beta=0.9))


def members() -> Params:
    return guides.stacked([split(network(jax.random.key(k)))[1] for k in range(3)])


def bayesian(family: guides.Guide, **options: Any) -> Bayesian:
    model = options.pop("model", None) or network()
    template, params = split(model)
    simulator = Simulator(template, 3, schedule=options.pop("schedule", "auto"), memory=options.pop("memory", "full"))
    gates_ = GatePosterior(sites.sites(model), options.pop("gate_family", gates.HARD_CONCRETE))
    gates_ = gates_ if options.pop("gated", True) else None
    weights = WeightPosterior(template, params, options.pop("prior", priors.default(template)), family)
    return Bayesian(simulator, weights, gates_, data_size=12, **options)


def begun(net: Bayesian) -> Params:
    """The guide's parameters where it starts."""
    trace = handlers.trace(handlers.seed(net.guide, KEY)).get_trace()
    return {name: site["value"] for name, site in trace.items() if site["type"] == "param"}


# --- A3, A4: Laplace over ungated weights, around the prior's mean

LOG_ALPHA = jnp.asarray([-1.0, 3.0, -5.0])


def gated_readout(prior: priors.Prior | None = None) -> tuple[Bayesian, Params]:
    """A linear readout of three inputs whose gates are 0.223, 1 and 0."""
    model = Stack("last", readout=Layer(Dense((3,), 2, key=KEY), LI(beta=0.0)))
    net = bayesian(guides.laplace(batch_size=5), model=model)
    weights = dataclasses.replace(net.weights, priors=prior or net.weights.priors)
    net = dataclasses.replace(net, simulator=Simulator(net.simulator.template, 1), weights=weights)
    return net, begun(net) | {"gates.log_alpha": LOG_ALPHA}


def test_a3_the_laplace_curvature_is_that_of_the_weights_before_their_gates() -> None:
    net, params = gated_readout()
    z = net.gates.of(params).decision()
    np.testing.assert_allclose(z, [0.2227, 1.0, 0.0], atol=1e-4)
    names = net.simulator.template.names
    flat = jnp.concatenate([net.weights.initial[n].ravel() for n in names])

    def loss(w: jax.Array) -> jax.Array:
        return -log_likelihood((X * z) @ w[2:].reshape(3, 2) + w[:2], Y).sum()

    exact = np.asarray(jax.hessian(loss)(flat), float)
    ours = np.asarray(gauss_newton(net, params, X, KEY, 5, 1), float)
    np.testing.assert_allclose(ours, exact, rtol=1e-4, atol=1e-5)
    assert (ours[6:] == 0).all(), "what is behind a closed gate has no curvature"
    done = net.finish(params, X, Y, KEY)
    scale = np.concatenate([np.ones(2), np.full(6, 1 / math.sqrt(3))])
    precision = exact + float(done["laplace.precision"]) * np.diag(1 / scale**2)
    draws = jax.jit(jax.vmap(lambda k: net.draw(done, k).weights))(jax.random.split(KEY, 4000))
    drawn = np.concatenate([np.asarray(draws[n], float).reshape(4000, -1) for n in names], 1)
    np.testing.assert_allclose(drawn.std(0), np.sqrt(np.diag(np.linalg.inv(precision))), rtol=0.06)


@pytest.mark.parametrize("away", [0.0, 0.2, 3.0])
def test_a4_the_laplace_precision_measures_from_the_mean_of_the_prior(away: float) -> None:
    """The c of the evidence by a scan of our own; at the prior's mean nothing speaks for a wide posterior."""
    template, start = split(gated_readout()[0].simulator.template.build(gated_readout()[0].weights.initial))
    net, params = gated_readout(priors.centred(template, {n: v - away for n, v in start.items()}))
    done = net.finish(params, X, Y, KEY)
    scale = np.concatenate([np.ones(2), np.full(6, 1 / math.sqrt(3))])
    hessian = np.asarray(gauss_newton(net, params, X, KEY, 5, 1), float) * np.outer(scale, scale)
    tried = np.logspace(-4, 6, 2001)
    evidence = [
        4 * np.log(c) - 0.5 * c * ((away / scale) ** 2).sum() - 0.5 * np.linalg.slogdet(hessian + c * np.eye(8))[1]
        for c in tried
    ]
    best = tried[int(np.argmax(evidence))]
    assert (best == tried[-1]) == (away == 0)
    np.testing.assert_allclose(done["laplace.precision"], best, rtol=0.05)


def test_a4_laplace_leaves_what_lies_on_an_interval_at_its_mode() -> None:
    cell = LI(beta=0.95, learnable=("beta",))
    model = Stack("last", readout=Layer(Dense((3,), 2, key=KEY), cell))
    template, start = split(model)
    prior = priors.default(template, around=start)
    assert prior("readout.cell.beta", ()) is not None
    net = bayesian(guides.laplace(), model=model, prior=prior)
    params = net.finish(begun(net), X, Y, KEY)
    one, two = (net.draw(params, jax.random.key(k)).weights for k in (1, 2))
    np.testing.assert_allclose([one["readout.cell.beta"], two["readout.cell.beta"]], 0.95, rtol=1e-6)
    assert (one["readout.synapse.kernel"] != two["readout.synapse.kernel"]).all()


# --- A4: every guide, with and without gates, with a prior around zero and around a network

FAMILIES = {
    "point": guides.point,
    "mean_field": lambda: guides.mean_field(0.05),
    "low_rank": lambda: guides.low_rank(2, 0.05),
    "last_layer": lambda: guides.last_layer(0.05),
    "rank1": lambda: guides.rank1(0.05),
    "dropout": lambda: guides.dropout(0.3),
    "aot": lambda: guides.aot(0.3),
    "ensemble": lambda: guides.ensemble(members()),
    "laplace": guides.laplace,
}


def prior_of(centred: bool) -> priors.Prior:
    template, start = split(network())
    return priors.centred(template, {n: v + 0.3 for n, v in start.items()}) if centred else priors.default(template)


def standard_deviations(name: str, net: Bayesian, params: Params) -> dict[str, Any]:
    """What each guide says that its draws spread by."""
    start, last = net.weights.initial, ("readout.synapse.bias", "readout.synapse.kernel")
    nothing = {n: np.zeros(v.shape) for n, v in start.items()}
    names = net.simulator.template.names
    match name:
        case "mean_field":
            return {n: np.full(v.shape, 0.05) for n, v in start.items()}
        case "last_layer":
            return nothing | {n: np.full(start[n].shape, 0.05) for n in last}
        case "low_rank":
            factor = np.asarray(params["weights.factor"], float)
            return cut(np.sqrt((factor**2).sum(1) + 0.05**2), net)
        case "rank1":
            spread = math.sqrt((1 + 0.05**2) ** 2 - 1)
            return nothing | {n: np.abs(v) * spread for n, v in start.items() if v.ndim == 2}
        case "laplace":
            scale = np.concatenate([np.full(start[n].size, 1.0 if n.endswith("bias") else 0.5) for n in last])
            hessian = np.asarray(gauss_newton(net, params, X, KEY, 64, 1), float)
            precision = hessian + float(params["laplace.precision"]) * np.diag(scale**-2.0)
            sd = np.sqrt(np.diag(np.linalg.inv(precision)))
            return nothing | {last[0]: sd[:2], last[1]: sd[2:].reshape(4, 2)}
    assert set(nothing) == set(names)
    return nothing


def cut(flat: np.ndarray, net: Bayesian) -> dict[str, np.ndarray]:
    out, begin = {}, 0
    for name in net.simulator.template.names:
        size = net.weights.initial[name].size
        out[name] = flat[begin : begin + size].reshape(net.weights.initial[name].shape)
        begin += size
    return out


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_a4_draws_of_every_guide_spread_around_its_centre(name: str, gated: bool, centred: bool) -> None:
    net = bayesian(FAMILIES[name](), gated=gated, prior=prior_of(centred))
    params = begun(net)
    if gated:
        params = net.gates.decide(params, jnp.ones(net.gates.sites.total, bool))  # type: ignore[union-attr]
    params = net.finish(params, X, Y, KEY)
    centre = net.centre(params)
    for n, v in net.network(centre).items():
        np.testing.assert_allclose(v, net.weights.initial[n], rtol=1e-6, err_msg=n)
    if name == "ensemble":
        for k in range(3):
            member = net.network(net.draw(params, KEY, k))
            for n, v in members().items():
                np.testing.assert_array_equal(member[n], v[k])
        return
    wanted = standard_deviations(name, net, params)
    drawn = jax.jit(jax.vmap(lambda k: net.network(net.draw(params, k))))(jax.random.split(KEY, 1000))
    for n, sd in wanted.items():
        values = np.asarray(drawn[n], float)
        np.testing.assert_allclose(values.std(0), sd, rtol=0.15, atol=1e-7, err_msg=n)
        np.testing.assert_allclose(values.mean(0), net.weights.initial[n], atol=5 * sd.max() / math.sqrt(1000) + 1e-6)


def divergence(name: str, net: Bayesian, params: Params) -> float:
    """Returns KL(q || prior) of the weights; of points, minus the log prior density."""
    total = 0.0
    spread = {
        "mean_field": net.simulator.template.names,
        "last_layer": ("readout.synapse.bias", "readout.synapse.kernel"),
    }
    for n, value in (members() if name == "ensemble" else net.weights.initial).items():
        fn: Any = net.weights.priors(n, net.weights.initial[n].shape)
        mean, sd = (np.asarray(a, float) for a in (fn.mean, np.sqrt(fn.variance)))
        apart = 0.5 * ((np.asarray(value, float) - mean) / sd) ** 2
        if n in spread.get(name, ()):
            total += (apart + np.log(sd / 0.05) + 0.5 * (0.05 / sd) ** 2 - 0.5).sum()
        elif name == "low_rank":
            total += (apart + np.log(sd)).sum()
        else:
            total += (apart + np.log(sd) + 0.5 * math.log(2 * math.pi)).sum() / (3 if name == "ensemble" else 1)
        if name == "rank1" and value.ndim == 2:
            total += sum(value.shape) * (math.log(0.1 / 0.05) + 0.5 * 0.25 - 0.5)
    if name == "low_rank":
        factor = np.asarray(params["weights.factor"], float)
        covariance = factor @ factor.T + 0.05**2 * np.eye(len(factor))
        scales = [
            np.full(v.size, 1.0 if v.ndim == 1 else 1 / math.sqrt(v.shape[0])) for v in net.weights.initial.values()
        ]
        variances = np.diag(covariance) / np.concatenate(scales) ** 2
        total += 0.5 * (variances.sum() - len(factor) - np.linalg.slogdet(covariance)[1])
    return float(total)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("name", FAMILIES)
def test_a4_every_guide_pays_for_its_distance_from_the_mean_of_the_prior(name: str, centred: bool) -> None:
    net = bayesian(FAMILIES[name](), gated=False, prior=prior_of(centred))
    params = begun(net)
    by_site = TraceMeanField_ELBO(sum_sites=False).loss(KEY, params, net.model, net.guide, X, Y, net.no_context())
    paid = sum(float(value) for site, value in by_site.items() if site != "likelihood")
    np.testing.assert_allclose(paid, divergence(name, net, params), rtol=1e-4)


# --- B3: log-normal gates far in the tails

MU = (-300.0, -33.0, -20.0, -12.0, -0.5, -0.01, 0.0, 0.2, 5.0, 300.0)
SIGMA = tuple(math.exp(s) for s in (-6.0, -5.0, -2.0, 0.0, 1.1, 5.0))
GRID = tuple(np.ravel(a).astype(np.float32) for a in np.meshgrid(MU, SIGMA, indexing="ij"))


def expectation(mu: float, sigma: float, f: Any, low: float = -20.0, high: float = 0.0) -> float:
    """Returns the integral of f(log θ) times the density, unnormalised, largest 1, measured from the mode."""
    mode = min(max(mu, -20.0), 0.0)
    pull = (mu - mode) / sigma
    a, b = (low - mode) / sigma, (high - mode) / sigma
    reach, rise = 40 / (abs(pull) + 5), pull + 2 * sigma  # where the density is, and where it is times θ²
    ends = sorted({a, b, *np.clip([-reach, -reach / 5, 0, reach / 5, reach, rise - 6, rise, rise + 6], a, b).tolist()})
    g = lambda x: math.exp(pull * x - 0.5 * x * x) * f(mode, sigma * x, pull * x - 0.5 * x * x)  # noqa: E731
    return sum(integrate.quad(g, c, d, epsabs=0, epsrel=1e-9)[0] for c, d in itertools.pairwise(ends) if d > c)


def exact_divergence(mu: float, sigma: float) -> float:
    mass = expectation(mu, sigma, lambda *_: 1.0)
    return expectation(mu, sigma, lambda mode, x, k: k) / mass - math.log(mass) + math.log(20 / sigma)


def noise(mu: Any, log_sigma: Any) -> gates.LogNormalNoise:
    return gates.LogNormalNoise(mu, jnp.exp(log_sigma))


def test_b3_the_divergence_of_a_log_normal_gate_far_outside() -> None:
    assert (
        abs(float(gates.LogNormalNoise(jnp.asarray([5.0]), jnp.exp(jnp.asarray([-6.0]))).divergence()[0]) - 15.6) < 0.1
    )
    slope = jax.grad(lambda mu: noise(mu, jnp.asarray([-6.0])).divergence().sum())(jnp.asarray([0.2]))
    np.testing.assert_allclose(slope, 5.0, rtol=0.01)


@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")
def test_b3_divergence_and_moments_of_log_normal_gates_are_those_of_quadrature() -> None:
    q = gates.LogNormalNoise(*map(jnp.asarray, GRID))
    divergence, ratio, decision = q.divergence(), q.signal_to_noise, q.decision()
    slopes = jax.grad(lambda mu, s: noise(mu, s).divergence().sum(), (0, 1))(jnp.asarray(GRID[0]), jnp.log(GRID[1]))
    for k, (mu, sigma) in enumerate(zip(*(a.astype(float) for a in GRID), strict=True)):
        where = f"mu {mu}, sigma {sigma}"
        np.testing.assert_allclose(divergence[k], exact_divergence(mu, sigma), rtol=2e-6, atol=2e-6, err_msg=where)
        mass = expectation(mu, sigma, lambda *_: 1.0)
        mean = expectation(mu, sigma, lambda mode, x, k: math.expm1(x)) / mass
        spread = expectation(mu, sigma, lambda mode, x, k, mean=mean: (math.expm1(x) - mean) ** 2) / mass
        exact = min((1 + mean) / math.sqrt(spread), 1e6)
        np.testing.assert_allclose(ratio[k], exact, rtol=2e-5, err_msg=where)
        if exact > 1:
            wanted = math.exp(min(max(mu, -20.0), 0.0)) * (1 + mean)
            np.testing.assert_allclose(decision[k], wanted, rtol=2e-5, err_msg=where)
        step = 1e-3 * max(sigma, abs(mu - min(max(mu, -20.0), 0.0)))
        by_mu = (exact_divergence(mu + step, sigma) - exact_divergence(mu - step, sigma)) / (2 * step)
        rise = math.exp(1e-3)
        by_sigma = (exact_divergence(mu, sigma * rise) - exact_divergence(mu, sigma / rise)) / 2e-3
        if mu not in (0.0, -20.0) or sigma > 0.1:  # at a border the slope turns within a step
            np.testing.assert_allclose(slopes[0][k], by_mu, rtol=1e-3, atol=2e-4 / sigma, err_msg=where)
        np.testing.assert_allclose(slopes[1][k], by_sigma, rtol=1e-3, atol=1e-4, err_msg=where)


@pytest.mark.parametrize("mu", MU)
@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")
def test_b3_draws_of_log_normal_gates_have_the_distribution_function_of_quadrature(mu: float) -> None:
    """The draw of rank u lies where a share u of the mass is below, and moves as the implicit function says."""
    mode = min(max(mu, -20.0), 0.0)
    for sigma in SIGMA:
        if mode == -20 and sigma**2 < 0.01 * max(sigma, -20 - mu):
            continue  # -20 itself has a last digit of 2e-6 in float32
        mass = expectation(mu, sigma, lambda *_: 1.0)
        for u in (0.02, 0.5, 0.97):

            def drawn(mu: Any, log_sigma: Any, u: float = u) -> Any:
                q = truncated(mu, jnp.exp(log_sigma), -20.0, 0.0)
                return quantile(q, jnp.asarray(u)) - q.mode  # what float32 has digits for

            own = (jnp.asarray(mu), jnp.log(sigma))
            x = float(drawn(*own))
            below = expectation(mu, sigma, lambda *_: 1.0, high=mode + x) if x > -20 - mode else 0.0
            np.testing.assert_allclose(below / mass, u, atol=2e-3, err_msg=f"sigma {sigma}, u {u}")
    value, slopes = jax.value_and_grad(lambda mu, s: noise(mu[None], s[None]).sample(KEY).sum(), (0, 1))(
        jnp.asarray(mu), jnp.asarray(-1.0)
    )
    assert 0 <= float(value) <= 1
    assert np.isfinite(slopes).all()


def test_b3_draws_of_a_gate_far_outside_are_exponential_and_their_slopes_too() -> None:
    """At mu = 5, sigma = e^-6 the distance from the end is Exponential with mean sigma² / mu to four digits."""
    mu, log_sigma = jnp.asarray([5.0]), jnp.asarray([-6.0])
    depth = lambda mu, s: -jnp.log(noise(mu, s).sample(KEY, (20_000,))).mean()  # noqa: E731
    exact = math.exp(-12) / 5
    value, slopes = jax.value_and_grad(depth, (0, 1))(mu, log_sigma)
    tolerance = 4 / math.sqrt(20_000) + 0.02  # the second for θ near one, whose last digit is 6e-8
    np.testing.assert_allclose(value, exact, rtol=tolerance)
    np.testing.assert_allclose(slopes[0], -exact / 5, rtol=tolerance)
    np.testing.assert_allclose(slopes[1], 2 * exact, rtol=tolerance)
    q = noise(mu, log_sigma)
    log = -3 * exact
    wanted = -math.log(exact) - 3 - log
    np.testing.assert_allclose(q.log_prob(jnp.exp(jnp.asarray([log]))), wanted, atol=0.05)


@pytest.mark.parametrize("mu", [0.01, 0.1, 0.4])
def test_b3_log_density_of_a_gate_near_its_end_is_that_of_the_scaled_error_function(mu: float) -> None:
    sigma, log = math.exp(-3), -0.05
    z = mu / sigma
    mass = -0.5 * z * z + math.log(special.erfcx(z / math.sqrt(2)) / 2)
    normal = -0.5 * ((log - mu) / sigma) ** 2 - math.log(sigma * math.sqrt(2 * math.pi))
    found = gates.LogNormalNoise(jnp.asarray([mu]), jnp.asarray([sigma])).log_prob(jnp.exp(jnp.asarray([log])))
    np.testing.assert_allclose(found, normal - mass - log, rtol=1e-4, atol=1e-4)


# --- B7: e-prop with constants for each class

READOUTS = {
    "beta": lambda: LI(beta=jnp.asarray([0.2, 0.7, 0.95])),
    "tau": lambda: LI(tau=jnp.asarray([2.0, 5.0, 9.0]), input_scale="decay"),
    "learnable": lambda: LI(beta=jnp.asarray([0.2, 0.7, 0.95]), learnable=("beta",), shape=(3,)),
    "scale": lambda: LI(beta=0.8, input_scale=jnp.asarray([1.0, 0.5, 2.0])),
    "shared": lambda: LI(beta=0.8),
}


@pytest.mark.parametrize(("recurrent", "feedback"), [(False, False), (True, True)])
@pytest.mark.parametrize("readout", READOUTS)
def test_b7_eprop_with_a_leak_for_each_class_is_backpropagation(readout: str, recurrent: bool, feedback: bool) -> None:
    """Without wires from neuron to neuron e-prop is exact; with them, where other neurons' spikes are held fixed."""
    one, two, three = jax.random.split(KEY, 3)
    hidden = Layer(Dense((4,), 5, key=one, gain=2.0), LIF(beta=0.9), recurrent_key=three if recurrent else None)
    template, params = split(Stack("last", hidden=hidden, readout=Layer(Dense((5,), 3, key=two), READOUTS[readout]())))
    xs = 2 * jax.random.uniform(jax.random.key(4), (9, 2, 4))
    loss = lambda out, t: ((out - jnp.asarray([1.0, -1.0, 0.5])) ** 2).sum(-1) * (1 + t)  # noqa: E731
    back = jax.random.normal(jax.random.key(5), (5, 3)) if feedback else None

    def total(params: Params) -> jax.Array:
        (_, first), (_, last) = template.build(params).layers()
        state, out, value = first.init((2,)), last.init((2,)), jnp.zeros(())
        for t, x in enumerate(xs):
            if recurrent:
                state = state._replace(spikes=jax.lax.stop_gradient(state.spikes))
            state, spikes = first.step(state, x)
            current = last.drive(spikes)
            if back is not None:  # the same numbers, while what goes back goes over other weights
                current = last.drive(jax.lax.stop_gradient(spikes)) + (spikes - jax.lax.stop_gradient(spikes)) @ back
            membrane = last.cell.step(out.cell, current)
            out, membrane = out._replace(cell=membrane[0]), membrane[1]
            value += loss(membrane, t).mean()
        return value

    expected, exact = jax.value_and_grad(total)(params)
    value, ours = gradients.eprop_gradient(template.build, params, xs, loss, feedback=back)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for name in params:
        if not name.endswith("cell.beta"):
            assert np.abs(exact[name]).max() > 0.01
            np.testing.assert_allclose(ours[name], exact[name], rtol=2e-4, atol=2e-4, err_msg=name)


def test_b7_eprop_says_which_readouts_it_takes() -> None:
    hidden = Layer(Dense((4,), 5, key=KEY), LIF(beta=0.9))
    for readout in (
        Layer(Dense((5,), 3, key=KEY), LIF(beta=0.9)),
        Layer(Dense((5,), 3, key=KEY), LI(), recurrent_key=KEY),
    ):
        template, params = split(Stack("last", hidden=hidden, readout=readout))
        with pytest.raises(ValueError, match="readout of LI neurons without recurrent wiring"):
            gradients.eprop_gradient(template.build, params, jnp.ones((3, 2, 4)), lambda out, t: out.sum(-1))


# --- B8: the density of several numbers


def test_b8_the_density_of_several_outputs_is_joint_under_the_mixture_of_draws() -> None:
    """Three members that disagree: the mean over them of products over outputs, by hand."""
    template, start = split(Stack("last", readout=Layer(Dense((2,), 2, key=KEY), LI(beta=0.0))))
    kernels = jnp.asarray([[[1.0, 1.0], [0.0, 0.5]], [[-1.0, -1.0], [0.3, 0.0]], [[0.2, 2.0], [1.0, -1.0]]])
    family = guides.ensemble({n: kernels if v.ndim == 2 else jnp.zeros((3, 2)) for n, v in start.items()})
    scale = 0.4
    weights = WeightPosterior(template, start, priors.point, family)
    net = Bayesian(Simulator(template, 1, stochastic=False), weights, likelihood=Gaussian(scale, False), data_size=4)
    x = np.asarray(jax.random.normal(KEY, (4, 2)))
    y = np.einsum("ni,io->no", x, np.asarray(kernels[0])) + 0.1
    found = regressor(net)(begun(net), x, KEY, samples=3, y=y, batch_size=3)
    centres = np.einsum("ni,sio->sno", x, np.asarray(kernels))
    density = np.exp(-0.5 * ((y - centres) / scale) ** 2) / (scale * math.sqrt(2 * math.pi))
    joint = np.log(density.prod(-1).mean(0))
    assert found.log_prob.shape == (4,)
    np.testing.assert_allclose(found.log_prob, joint, rtol=1e-4)
    scores = Numbers().scores(found, y)
    np.testing.assert_allclose(scores["nll"], -joint.mean(), rtol=1e-4)
    assert abs(np.log(density.mean(0)).sum(-1) - joint).max() > 0.1, "marginals would say something else"
    assert found.lower.shape == found.upper.shape == found.mean.shape == (4, 2)
    assert np.isnan(regressor(net)(begun(net), x, KEY, samples=3).log_prob).all()


# --- B10: masks that change with every step


def test_b10_masks_of_every_step_are_refused_by_a_loop_that_sees_one_step() -> None:
    net = bayesian(guides.aot(0.3), schedule="step", gated=False)
    params = begun(net)
    message = 'masks that change with every step need the schedule "layer", got "step"'
    with pytest.raises(ValueError, match=message):
        predictor(net)(params, np.asarray(X), KEY, samples=1)
    svi = SVI(net.model, net.guide, optax.sgd(0.1), TraceMeanField_ELBO())
    with pytest.raises(ValueError, match=message):
        svi.init(KEY, X, Y, net.no_context())
    adapted = net.adapt(KEY, 12)(net.simulator.template.build(net.weights.initial))  # type: ignore[misc]
    with pytest.raises(ValueError, match=message):
        unroll(adapted, X, schedule="step", steps=3)
    plain = bayesian(guides.dropout(0.3), schedule="step", gated=False)
    predictor(plain)(begun(plain), np.asarray(X), KEY, samples=1)


def test_b10_auto_is_by_layers_where_masks_change_with_every_step() -> None:
    """To save memory "auto" would go by steps, and every step had one mask."""
    template, params = split(network())
    adapt = guides.aot(0.5).noise(KEY, 12)  # type: ignore[misc]
    one = lambda **options: unroll(adapt(template.build(params)), 3 * X, steps=6, **options)[0]  # noqa: E731
    by_layers = one(schedule="layer")
    assert jnp.abs(by_layers - unroll(template.build(params), 3 * X, steps=6)[0]).max() > 0.1
    for memory in ("full", "sqrt", 1):
        np.testing.assert_allclose(one(memory=memory), by_layers, rtol=1e-5, atol=1e-6)


# --- B11: gates under objectives that score draws


@pytest.mark.parametrize("family", gates.FAMILIES)
def test_b11_gates_are_refused_by_objectives_that_score_draws(family: str) -> None:
    net = bayesian(guides.point(), prior=priors.point, gate_family=gates.FAMILIES[family])
    context = net.no_context()
    for objective in (Trace_ELBO(), TraceGraph_ELBO(), RenyiELBO(0.5), TraceMeanField_ELBO()):
        svi = SVI(net.model, net.guide, optax.sgd(0.1), objective)
        update = lambda svi=svi: svi.update(svi.init(KEY, X, Y, context), X, Y, context)  # noqa: E731
        if isinstance(objective, TraceMeanField_ELBO):
            assert jax.eval_shape(update)[1].shape == ()
            continue
        with pytest.raises(ValueError, match=r"got an objective that scores drawn gates.*infer\.TraceMeanField_ELBO"):
            jax.eval_shape(update)


@pytest.mark.parametrize("family", gates.FAMILIES)
def test_b11_under_the_mean_field_objective_gates_learn_by_their_divergence(family: str) -> None:
    """What the objective says of the gates is their divergence in closed form, with its gradient."""
    net = bayesian(guides.point(), prior=priors.point, gate_family=gates.FAMILIES[family])
    params, total = begun(net), net.gates.sites.total  # type: ignore[union-attr]
    by_site = TraceMeanField_ELBO(sum_sites=False)
    paid = lambda p: by_site.loss(KEY, p, net.model, net.guide, X, Y, net.no_context())["gates"]  # noqa: E731
    slopes = jax.grad(paid)(params)
    own = {n: params[f"gates.{n}"] for n in net.gates.family.initial(total, 0.9)}

    def closed(own: dict[str, jax.Array]) -> jax.Array:
        q: Any = net.gates.family.posterior(own)
        if family == "lognormal":
            return q.divergence().sum()
        return total * math.log(2) - q.entropy_of_opening().sum()

    exact = jax.grad(closed)(own)
    for name, slope in exact.items():
        np.testing.assert_allclose(slopes[f"gates.{name}"], slope, rtol=1e-5, atol=1e-6)
        assert (np.abs(slope).max() > 0.05) == (family not in ("magnitude", "random"))


def test_b11_a_network_without_gates_takes_any_objective() -> None:
    net = bayesian(guides.mean_field(), gated=False)
    assert np.isfinite(Trace_ELBO().loss(KEY, begun(net), net.model, net.guide, X, Y, net.no_context()))
