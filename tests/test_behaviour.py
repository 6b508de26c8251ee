"""Energy that is differentiated through the spikes: closed forms, enumeration, planted neurons, and what is refused."""

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from flax import nnx
from numpyro import handlers
from numpyro.infer import TraceMeanField_ELBO

from dsnn import learn
from dsnn.assembly.guard import twin_of
from dsnn.bayes import gate_posterior, guides, priors, sites
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.behaviour import hidden_spikes
from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.bayes.events import counted, differentiable, valued
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.gates import BERNOULLI
from dsnn.bayes.halting_posterior import HaltingPosterior
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.cells import LI, LIF, ReLU
from dsnn.config import Config, EnergyConfig
from dsnn.escape import ExponentialHazard, Gaussian, Logistic
from dsnn.learn.svi_config import SviConfig
from dsnn.networks import Chain, Layer, Residual, SelfAttention, TdBN
from dsnn.networks.layers import Conv, Dense, Pool
from dsnn.networks.stack import Stack, mlp
from dsnn.networks.whole import Whole
from dsnn.parameters import split
from dsnn.protocols import Axis, Batch, NeuronGroup, Output, Wire, Wiring
from dsnn.report.run import behaviour as said
from dsnn.simulate.simulator import Simulator, keep_spikes
from experiments import event_bias

KEY = jax.random.key(0)
X = jax.random.uniform(jax.random.key(1), (6, 3), minval=-0.5, maxval=1.5)
Y = jnp.arange(6) % 2


class Prices:
    """Primes, so that no two mistakes cancel."""

    def event_nj(self, source: str, accounting: str) -> float:
        return {"analog": 7.0, "spikes": 3.0}[source]

    def update_nj(self, kind: str, accounting: str) -> float:
        return 0.0


def bayesian(model: Any, steps: int, differentiated: bool = True, simulator: Any = None, **parts: Any) -> Bayesian:
    template, params = split(model)
    where = parts.pop("where", None) or sites.sites(model)
    energy = EnergyPrior(where, Prices(), "arithmetic", differentiated=differentiated)
    weights = WeightPosterior(template, params, priors.point, guides.point())
    return Bayesian(simulator or Simulator(template, steps), weights, energy=energy, data_size=6, **parts)


def paid(made: Bayesian, params: Any, key: Any = KEY, site: str = "energy", x: Any = X, **context: Any) -> Any:
    """Returns what a factor of the model takes off, for one example."""
    given = made.no_context()._replace(**context)
    model = handlers.seed(handlers.substitute(made.model, data=params), key)
    with handlers.block():
        trace = handlers.trace(model).get_trace(x, jnp.zeros(len(x), jnp.int32), given)
    return -trace[site]["fn"].log_factor / made.data_size


def pass_key() -> Any:
    """Returns the key of the pass that `paid` prices."""
    return handlers.seed(numpyro.prng_key, KEY)()


ONE = {"lam": jnp.ones(())}


def one_layer(noise: Any, steps: int, **options: Any) -> Stack:
    def cell(neurons: int) -> LIF:
        learnable = ("threshold", "beta")
        return LIF(0.8, noise=noise, learnable=learnable, shape=(neurons,), **options)

    return mlp((3,), (4,), 2, key=KEY, gain=2.0, cell=cell)


CHANCES = {
    "logistic": (Logistic(0.2), lambda u: jax.nn.sigmoid(u / 0.2)),
    "gaussian": (Gaussian(0.3), lambda u: jax.scipy.stats.norm.cdf(u / 0.3)),
    "hazard": (ExponentialHazard(0.7, 0.25), lambda u: 1 - jnp.exp(-0.7 * jnp.exp(u / 0.25))),
}


@pytest.mark.parametrize(("name", "steps"), [("logistic", 1), ("logistic", 2), ("gaussian", 2), ("hazard", 1)])
def test_without_a_reset_the_gradient_is_that_of_the_closed_form(name: str, steps: int) -> None:
    """E = 7 inputs + 3 nJ at two readers times the sum of F(u_t - threshold), u_2 = beta u_1 + w x: no draw enters."""
    noise, chance = CHANCES[name]
    made = bayesian(one_layer(noise, steps, reset="none"), steps)

    def exact(params: Any) -> Any:
        cell = {key: params[f"hidden0.cell.{key}"] for key in ("beta", "threshold")}
        drive = X @ params["hidden0.synapse.kernel"] + params["hidden0.synapse.bias"]
        u, total = 0.0, 0.0
        for _ in range(steps):
            u = cell["beta"] * u + drive
            total = total + 3.0 * 2 * chance(u - cell["threshold"]).sum(1).mean()
        return total

    params = made.weights.initial
    truth, found = jax.jit(jax.grad(exact))(params), jax.jit(jax.grad(lambda p: paid(made, p, **ONE)))(params)
    for part in ("synapse.kernel", "synapse.bias", "cell.threshold", "cell.beta"):
        if steps == 1 and part == "cell.beta":
            continue
        np.testing.assert_allclose(found[f"hidden0.{part}"], truth[f"hidden0.{part}"], rtol=1e-3, atol=1e-6)
    assert float(abs(found["readout.synapse.kernel"]).max()) == 0
    many = paid(made, params, x=jnp.tile(X, (500, 1)), **ONE)
    np.testing.assert_allclose(many, 7.0 * 3 * 4 + exact(params), rtol=0.02)


@pytest.mark.parametrize("neurons", ["reset by subtraction", "reset to zero", "fires once"])
def test_gradients_of_two_layers_point_along_the_enumerated_one(neurons: str) -> None:
    for seed in (0, 1):
        row = event_bias.measure(event_bias.CASES[neurons], seed, draws=8)
        assert abs(row["energy"] - row["exact energy"]) < 0.03 * row["exact energy"]
        assert row["cosine"] > 0.9


def test_a_neuron_that_fires_once_has_the_gradient_of_firing_at_all() -> None:
    """E = 6 (1 - prod of silences), of membranes that no spike resets: unbiased, component by component."""
    made = bayesian(one_layer(Logistic(0.4), 3, refractory=math.inf), 3)

    def exact(params: Any) -> Any:
        drive = X @ params["hidden0.synapse.kernel"] + params["hidden0.synapse.bias"]
        u, silent = 0.0, 1.0
        for _ in range(3):
            u = params["hidden0.cell.beta"] * u + drive
            silent = silent * (1 - jax.nn.sigmoid((u - params["hidden0.cell.threshold"]) / 0.4))
        return 6.0 * (1 - silent).sum(1).mean()

    params = made.weights.initial
    many = jnp.tile(X, (60, 1))

    def one(key: Any) -> Any:
        return jax.grad(lambda p: paid(made, p, key, x=many, **ONE))(params)

    drawn = jax.jit(lambda keys: jax.lax.map(one, keys))(jax.random.split(KEY, 60))
    truth = jax.jit(jax.grad(exact))(params)
    for part in ("synapse.kernel", "synapse.bias", "cell.threshold", "cell.beta"):
        rows = np.asarray(drawn[f"hidden0.{part}"])
        error = rows.std(0) / math.sqrt(len(rows))
        assert (np.abs(rows.mean(0) - truth[f"hidden0.{part}"]) < 4.5 * error + 1e-3).all()


# --- Events of the pass are those that are measured


def cell(neurons: int) -> LIF:
    return LIF(0.8, noise=Logistic(0.3))


def attends() -> Any:
    shape = (2, 2, 4)
    stem = Layer(Conv((4, 4, 1), 4, key=KEY, window=2, strides=2, gain=2.0), cell(4))
    inner = SelfAttention(shape, 2, key=jax.random.key(2), cell=cell, gain=2.0)
    block, last = Residual(inner), Layer(Dense(shape, 2, key=jax.random.key(3)), LI(0.9))
    return Whole(Chain(stem=stem, block=block, readout=last))


def pooled() -> Stack:
    conv = Conv((6, 6, 1), 3, key=KEY, window=3, padding="VALID", gain=4.0)
    pool = Pool(conv.out_shape)
    dense = Layer(Dense(pool.out_shape, 4, key=jax.random.key(2), gain=2.0), cell(4), before=(pool,))
    return Stack(conv=Layer(conv, LIF(0.8)), hidden=dense, readout=Layer(Dense(4, 2, key=KEY), LI(0.9)))


def blocks() -> Stack:
    inner = Layer(Dense(4, 4, key=jax.random.key(4), gain=2.0), cell(4), recurrent_key=KEY, skip=True)
    first = Layer(Dense(3, 4, key=KEY, gain=3.0), cell(4), recurrent_key=jax.random.key(5))
    return Stack(hidden0=first, block0=inner, readout=Layer(Dense(4, 2, key=KEY), LI(0.9)))


def normed() -> Stack:
    first = Layer(Dense(3, 4, key=KEY, gain=3.0), cell(4), norm=TdBN(4))
    return Stack(hidden0=first, readout=Layer(Dense(4, 2, key=KEY), LI(0.9)))


@pytest.mark.parametrize(
    ("make", "encoding", "options"),
    [
        (blocks, "direct", {}),
        (blocks, "temporal", {"schedule": "step"}),
        (blocks, "temporal", {"timed": True}),
        (blocks, "temporal", {"timed": True, "schedule": "step"}),
        (pooled, "rate", {}),
        (pooled, "direct", {}),
        (attends, "direct", {}),
        (attends, "direct", {"schedule": "step"}),
    ],
)
def test_events_of_the_pass_are_those_that_are_measured(make: Any, encoding: str, options: dict[str, Any]) -> None:
    model, steps, options = make(), 4, dict(options)
    timed, held = options.pop("timed", False), encoding == "direct"
    template, params = split(model)
    where = sites.sites(model, held_input=held, analog_input=held, time_steps=steps if timed else 0)
    simulator = Simulator(template, steps, encoding, **options)
    energy = EnergyPrior(where, Prices(), differentiated=True)
    z = {name: jnp.where(jnp.arange(size) % 3 == 1, 0.4, 1.0) for name, size in where.groups.items()}
    z |= {"time": jnp.asarray([1.0, 0.0, 0.5, 1.0])} if timed else {}
    gated = sites.gate(where, params, z)
    x = jax.random.uniform(KEY, (5, *((steps, 3) if encoding == "temporal" else model.in_shape)))
    logits, inputs, spikes = simulator.run(gated, x, KEY, keep_spikes)
    built, running = simulator.built(gated)
    truth = energy.measured(built, inputs, spikes, held=held, seen=5 * steps, running=running)
    ran = simulator.observed(gated, x, KEY)
    found = energy.events_of(ran, None, held=held)
    assert (ran.logits == logits).all()
    assert found.keys() == truth.keys()
    for name in truth:
        np.testing.assert_allclose(found[name], truth[name], rtol=1e-6)
    assert any(float(v.max()) > 0.5 / 20 for v in found.values())

    def total(params: Any) -> Any:
        ran = simulator.observed(sites.gate(where, params, z), x, KEY)
        return sum(e.sum() for e in energy.events_of(ran, None, held=held).values())

    slopes = jax.grad(total)(params)
    assert all(np.isfinite(leaf).all() for leaf in slopes.values())
    first = next(iter(slopes))
    assert float(abs(slopes[first]).max()) > 0


def test_norms_go_by_the_batch_and_keep_their_statistics_with_events_as_without() -> None:
    losses = []
    for differentiated in (False, True):
        made = bayesian(normed(), 4, differentiated)
        context = made.no_context()._replace(statistics=made.simulator.template.statistics)
        loss = TraceMeanField_ELBO().loss

        def value(statistics: Any, made: Bayesian = made, context: Any = context, loss: Any = loss) -> Any:
            return loss(
                KEY, made.weights.initial, made.model, made.guide, X, Y, context._replace(statistics=statistics)
            )

        losses.append(jax.value_and_grad(value)(context.statistics))
    for one, other in zip(*map(jax.tree.leaves, losses), strict=True):
        assert (one == other).all()


def test_an_event_is_a_number_that_knows_what_one_more_spike_would_do() -> None:
    x = jnp.asarray([0.0, 1.0, -1.0, 2.0, 0.3])
    np.testing.assert_array_equal(differentiable(x), counted(x))
    np.testing.assert_array_equal(jax.vmap(jax.grad(differentiable))(x), [1.0, 1.0, -1.0, 0.0, 1.0])


def values(steps: int = 1, **parts: Any) -> Bayesian:
    return bayesian(mlp((3,), (4, 3), 2, key=KEY, gain=2.0, cell=lambda neurons: ReLU()), steps, **parts)


def by_layer(params: Any) -> list[Any]:
    """What two layers of ReLU give, by hand."""
    found, x = [], X
    for name in ("hidden0", "hidden1"):
        x = jnp.maximum(x @ params[f"{name}.synapse.kernel"] + params[f"{name}.synapse.bias"], 0)
        found.append(x)
    return found


@pytest.mark.parametrize("steps", [1, 3])
def test_values_that_are_not_zero_are_paid_for_with_the_gradient_of_their_scaled_norm(steps: int) -> None:
    made = values(steps)
    params = made.weights.initial
    given = by_layer(params)
    assert all(0 < float((a == 0).mean()) < 1 for a in given)
    found, slope = jax.value_and_grad(lambda p: paid(made, p, **ONE))(params)
    counts = [float(jnp.maximum((a != 0).mean(0), 0.5 / (6 * steps)).sum()) for a in given]  # the silent ones' least
    # three inputs meet four targets once, values three and two at every step, each at the price of a value
    assert float((X != 0).mean()) == 1
    np.testing.assert_allclose(found, 7 * (3 * 4 + steps * (counts[0] * 3 + counts[1] * 2)), rtol=1e-5)
    means = [float(a.sum() / (a != 0).sum()) for a in given]

    def closed(p: Any) -> Any:
        each = [7 * targets * a.sum(1).mean() / m for a, m, targets in zip(by_layer(p), means, (3, 2), strict=True)]
        return steps * sum(each)

    for name, by_hand in jax.grad(closed)(params).items():
        np.testing.assert_allclose(slope[name], by_hand, rtol=1e-4, atol=1e-6)
    assert float(abs(slope["hidden0.synapse.kernel"]).max()) > 0


def test_a_rate_penalty_of_values_is_their_norm() -> None:
    made, price = values(differentiated=False), jnp.asarray(0.25)
    params = made.weights.initial
    found, slope = jax.value_and_grad(lambda p: paid(made, p, site="spikes", spike_price=price))(params)
    by_hand, closed = jax.value_and_grad(lambda p: 0.25 * sum(a.sum() for a in by_layer(p)) / len(X))(params)
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)
    for name, value in closed.items():
        np.testing.assert_allclose(slope[name], value, rtol=1e-5, atol=1e-7)
    assert float(by_hand) > 0.1


def test_values_of_any_scale_are_events_of_one_unit() -> None:
    x = jnp.asarray([0.0, 3.0, -1.0, 2.0])
    for scale in (1.0, 1e-3):
        np.testing.assert_array_equal(valued(scale * x), counted(x))
        np.testing.assert_allclose(jax.grad(lambda y: valued(y).sum())(scale * x) * scale, [0.5, 0.5, -0.5, 0.5])
    np.testing.assert_array_equal(valued(jnp.zeros(3)), jnp.zeros(3))
    assert np.isfinite(jax.grad(lambda y: valued(y).sum())(jnp.zeros(3))).all()


def test_events_count_as_far_as_each_example_reaches_a_step() -> None:
    """A head that stops surely, by hand: what is paid for is what each example fires up to its own step."""
    halting = HaltingPosterior(4, joint=True)
    made = bayesian(mlp((3,), (4,), 2, key=KEY, gain=3.0, cell=cell, recurrent=True), 4, halting=halting)
    params = made.weights.initial | {"halting.bias": jnp.asarray(-1.0), "halting.drift": jnp.asarray(0.6)}
    given = {f"halting.{name}": params.get(f"halting.{name}", v) for name, v in halting.head({}).items()}
    many = jnp.tile(X, (200, 1))  # among which no neuron is silent, so that none has a least count
    found = paid(made, params | given, x=many, **ONE)
    ran = made.simulator.observed(made.weights.initial, many, pass_key())
    reached = np.asarray(halting.reached(halting.head(params | given), ran.logits))
    assert 0.01 < reached[1:].min() < 0.9
    fired = np.asarray(ran.sent["hidden0"])
    read = (reached * fired.sum(2)).sum(0).mean() * 2 + (reached[1:] * fired[:-1].sum(2)).sum(0).mean() * 4
    np.testing.assert_allclose(found, 7.0 * 3 * 4 + 3.0 * read, rtol=1e-4)


# --- Gates


def test_many_discrete_gates_estimate_the_gradient_that_few_have_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream gates change what later neurons fire: ARM has to see that energy, as the sum over settings does."""
    model = mlp((2,), (2,), 2, key=jax.random.key(3), gain=3.0, cell=lambda n: LIF(0.8))
    where = sites.sites(model, gate_input=True)
    made = bayesian(model, 2, where=where, gates=GatePosterior(where, BERNOULLI, 0.6))
    context = made.no_context()._replace(lam=jnp.asarray(0.5))
    loss = TraceMeanField_ELBO().loss

    def slope(key: Any) -> Any:
        given = {**made.weights.initial, "gates.logit": jnp.full(where.total, 0.4)}
        return jax.grad(lambda p: loss(key, p, made.model, made.guide, X[:, :2], Y, context))(given)["gates.logit"]

    truth = slope(KEY)
    monkeypatch.setattr(gate_posterior, "ENUMERATED", 0)
    drawn = np.asarray(jax.jit(jax.vmap(slope))(jax.random.split(KEY, 2000)))
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert (np.abs(drawn.mean(0) - truth) < 4.5 * error + 1e-4).all()


def test_gates_and_the_events_that_depend_on_them_are_of_one_setting() -> None:
    """Of a recurrent network: E[z_i z_j e(z)] is no product of expectations."""
    model = mlp((1,), (2,), 2, key=KEY, gain=6.0, recurrent=True, cell=lambda n: LIF(0.9))
    where = sites.sites(model, gate_input=False)
    made = bayesian(model, 5, where=where, gates=GatePosterior(where, BERNOULLI, 0.5))
    weights = made.weights.initial | {"hidden0.synapse.kernel": jnp.asarray([[0.6, 0.4]])}
    weights |= {"hidden0.recurrent": jnp.asarray([[0.3, 0.8], [-0.9, 0.5]])}
    params, x = weights | {"gates.logit": jnp.zeros(2)}, jnp.ones((6, 1))
    exact = apart = 0.0
    for setting in itertools.product((0.0, 1.0), repeat=2):
        z = {"hidden0": jnp.asarray(setting)}
        ran = made.simulator.observed(made.gates.fold(weights, z), x, None)
        events = made.energy.events_of(ran, None, held=True)
        exact += 0.25 * float(made.energy.spent(z, jnp.ones(5), events))
        apart += 0.25 * float(made.energy.spent({"hidden0": jnp.full(2, 0.5)}, jnp.ones(5), events))
    assert abs(exact - apart) > 1e-3 * exact, "the network tells both apart"
    np.testing.assert_allclose(paid(made, params, x=x, **ONE), exact, rtol=1e-6)


# --- The objective without a price, and with one


def losses(differentiated: bool, lam: float, **options: Any) -> tuple[list[float], Any]:
    """Returns the losses of six updates and the parameters after them."""
    model = mlp((3,), (5,), 2, key=KEY, gain=2.0, cell=lambda n: LIF(0.9, noise=Logistic(0.3)))
    template, params = split(model)
    where = sites.sites(model)
    weights = WeightPosterior(template, params, priors.default(template), guides.mean_field(0.05))
    energy = EnergyPrior(where, Prices(), differentiated=differentiated)
    made = Bayesian(Simulator(template, 3), weights, GatePosterior(where), energy=energy, data_size=6)
    learner = learn.svi_learner(made, SviConfig(lam=lam, **options), optax.adam(0.01), 6, KEY)
    state, step, found = learner.init(), jax.jit(learner.step), []
    for _ in range(6):
        state, info = step(state, Batch(X, Y))
        found.append(float(info.loss))
    return found, learn.svi_params(made, state)


@pytest.mark.slow
def test_without_a_price_differentiated_events_change_nothing() -> None:
    (ours, after), (theirs, before) = losses(True, 0.0), losses(False, 0.0)
    assert ours == theirs
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])
    (ours, after), (theirs, before) = losses(True, 0.05), losses(False, 0.05)
    assert ours != theirs
    assert (after["hidden0.synapse.kernel.loc"] != before["hidden0.synapse.kernel.loc"]).any()


def test_spikes_are_free_as_long_as_every_site_runs() -> None:
    options = {"ungated_fraction": 0.5, "rate_penalty": 1.0}
    ours, theirs = losses(True, 0.05, **options)[0], losses(True, 0.0, ungated_fraction=0.5)[0]
    assert ours[:3] == theirs[:3]
    assert ours[3] != theirs[3]


def test_a_rate_penalty_counts_hidden_spikes_whatever_they_cost() -> None:
    made = bayesian(mlp((3,), (4, 3), 2, key=KEY, gain=3.0, cell=cell), 3, False)
    params, price = made.weights.initial, jnp.asarray(0.25)
    found, slope = jax.value_and_grad(lambda p: paid(made, p, site="spikes", spike_price=price))(params)
    sent = made.simulator.observed(params, X, pass_key()).sent
    by_hand = 0.25 * sum(float(sent[name].sum()) for name in ("hidden0", "hidden1")) / len(X)
    np.testing.assert_allclose(found, by_hand, rtol=1e-6)
    assert by_hand > 0.5
    assert float(abs(slope["hidden0.synapse.kernel"]).max()) > 0
    assert float(abs(slope["readout.synapse.kernel"]).max()) == 0
    alone = dataclasses.replace(made, energy=None)
    np.testing.assert_allclose(paid(alone, params, site="spikes", spike_price=price), by_hand, rtol=1e-6)


# --- Planted neurons


class Wasteful(nnx.Module):
    """Eight neurons, of which a readout reads four; what the others fire goes to two targets that answer nothing."""

    def __init__(self) -> None:
        self.in_shape, self.out_shape = (4,), (2,)
        self.hidden = nnx.Param(1.2 * jax.random.normal(KEY, (4, 8)))
        self.bias = nnx.Param(jnp.full(8, 0.6))
        self.readout = nnx.Param(0.7 * jax.random.normal(jax.random.key(2), (4, 2)))
        self.cell = LIF(0.8, noise=Logistic(0.2))

    def init(self, batch: int) -> Any:
        return self.cell.init((batch, 8))

    def step(self, state: Any, x: Any, key: Any = None) -> Any:
        state, spikes = self.cell.step(state, x @ self.hidden[...] + self.bias[...], key)
        used, wasted = jnp.split(spikes, 2, -1)
        return state, Output(used @ self.readout[...], {"reads": x, "used": used, "wasted": wasted})

    def wiring(self) -> Wiring:
        lower, upper = np.arange(4), np.arange(4, 8)
        neurons = np.arange(8)
        return Wiring(
            {"input": 4, "neurons": 8},
            (
                Wire("reads", "hidden", (Axis("input", -2, lower),), (Axis("neurons", -1, neurons),), once=True),
                Wire("used", "readout", (Axis("neurons", -2, lower),)),
                Wire("wasted", None, (Axis("neurons", -1, upper),), senders=4, receivers=2),
            ),
            (NeuronGroup("fired", Axis("neurons", 0, neurons), 8, self.cell),),
        )

    def with_gates(self, gates: Any) -> Any:
        return self


@pytest.mark.parametrize("differentiated", [False, True])
def test_planted_useless_neurons_fall_silent_and_useful_ones_go_on(differentiated: bool) -> None:
    x = jax.random.uniform(KEY, (256, 4))
    y = (x[:, 0] > x[:, 1]).astype(jnp.int32)
    model = Whole(Wasteful())
    template, params = split(model)
    where = sites.sites(model)
    energy = EnergyPrior(where, Prices(), "arithmetic", differentiated=differentiated)
    weights = WeightPosterior(template, params, priors.point, guides.point())
    made = Bayesian(Simulator(template, 6), weights, energy=energy, data_size=256)
    learner = learn.svi_learner(made, SviConfig(lam=0.002), optax.adam(0.02), 400, KEY)

    @jax.jit
    def run(state: Any) -> Any:
        return jax.lax.scan(lambda s, _: (learner.step(s, Batch(x, y))[0], None), state, None, 400)[0]

    after = learn.svi_params(made, run(learner.init()))

    def looked(params: Any) -> tuple[float, float, float]:
        ran = made.simulator.observed(params, x, jax.random.key(9))
        right = (ran.logits[-1].argmax(-1) == y).mean()
        return float(ran.sent["used"].mean()), float(ran.sent["wasted"].mean()), float(right)

    began, (used, wasted, right) = looked(params), looked(after)
    assert began[1] > 0.2
    assert right > 0.9
    assert used > 0.02
    if differentiated:
        assert wasted < 0.02
    else:
        np.testing.assert_allclose(wasted, began[1], atol=0.02)


def test_what_says_nothing_of_its_wires_or_neurons_gets_a_sentence() -> None:
    class Bare(Wasteful):
        wiring = None

    model = Whole(Bare())
    with pytest.raises(ValueError, match="says what goes over its wires"):
        EnergyPrior(sites.sites(model), Prices(), differentiated=True)
    template, params = split(model)
    ran = Simulator(template, 2).observed(params, jax.random.uniform(KEY, (3, 4)), KEY)
    with pytest.raises(ValueError, match=r"set svi\.rate_penalty=0"):
        hidden_spikes(ran, None, held=True)


# --- Learned thresholds


def test_a_price_raises_learned_thresholds() -> None:
    model = one_layer(Logistic(0.3), 3)
    made = bayesian(model, 3)
    params = made.weights.initial
    slope = jax.grad(lambda p: paid(made, p, **ONE))(params)["hidden0.cell.threshold"]
    assert (slope < 0).all()  # energy falls as they rise


def test_a_share_of_the_energy_is_of_what_was_spent_before_it_had_a_price() -> None:
    """Measured at every update, of which the first two are free: later ones change what is spent, and not the share."""
    made = bayesian(one_layer(Logistic(0.3), 3), 3)
    options = {"budget_fraction": 0.1, "ungated_fraction": 0.25, "budget_fall_fraction": 0.0, "measure_every": 1}
    learner = learn.svi_learner(made, SviConfig(**options, memory=0.0), optax.sgd(0.05), 8, KEY)
    state, step, budgets, spent = learner.init(), jax.jit(learner.step), [], []
    for _ in range(8):
        state, info = step(state, Batch(X, Y))
        budgets.append(float(info.budget_nj))
        spent.append(float(info.energy_nj))
    assert len(set(budgets[2:])) == 1
    np.testing.assert_allclose(budgets[2], 0.1 * spent[2], rtol=1e-5)
    assert len(set(spent[2:])) > 1


# --- Options


def test_options_are_checked_and_what_learned_is_said() -> None:
    with pytest.raises(ValueError, match=r"energy\.events must be one of"):
        EnergyConfig(events="differentiate")
    with pytest.raises(ValueError, match="rate_penalty must not be negative"):
        SviConfig(rate_penalty=-1.0)
    with pytest.raises(ValueError, match="set learner=svi"):
        Config(learner="map", energy=EnergyConfig(events="differentiated"))
    config = Config(energy=EnergyConfig(events="differentiated"), svi=SviConfig(rate_penalty=0.1))
    assert twin_of(config).energy.events == "frozen"
    given = dataclasses.asdict(config)
    assert "energy.events=differentiated" in said(given)
    assert "0.1 nats" in said(given)
    assert "energy.events=frozen" in said(dataclasses.asdict(Config()))
    assert said({}) == ""


def test_a_budget_may_be_kept_by_spikes_alone() -> None:
    model = one_layer(Logistic(0.3), 3)
    config = SviConfig(budget_nj=1.0)
    learn.svi_learner(bayesian(model, 3), config, optax.adam(0.01), 5, KEY)
    with pytest.raises(ValueError, match=r"energy\.events=differentiated"):
        learn.svi_learner(bayesian(model, 3, False), config, optax.adam(0.01), 5, KEY)


def test_every_pattern_of_the_oracle_is_counted_once() -> None:
    """Where biases alone drive neurons and nothing resets them, the enumeration of the study is a sum of chances."""
    biases = {"hidden0": jnp.asarray([0.3, 0.6]), "hidden1": jnp.asarray([0.45, 0.9])}
    given = {f"{name}.synapse.kernel": jnp.zeros((2, 2)) for name in biases}
    given |= {f"{name}.synapse.bias": bias for name, bias in biases.items()}
    every = event_bias.exact(given, jnp.zeros((1, 2)), {"reset": "none"})
    fans = {"hidden0": event_bias.HIDDEN[1], "hidden1": event_bias.CLASSES}
    total = 0.0
    for name, bias in biases.items():
        for step in range(event_bias.STEPS):
            leaked = sum(event_bias.BETA**k for k in range(step + 1))
            total += fans[name] * float(jax.nn.sigmoid((leaked * bias - 1.0) / event_bias.WIDTH).sum())
    np.testing.assert_allclose(every, total, rtol=1e-5)
