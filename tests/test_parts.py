"""Each part of a Bayesian network alone in plain NumPyro, against closed forms and enumeration."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.distributions import kl_divergence
from numpyro.infer import TraceMeanField_ELBO

from dsnn.bayes import guides, priors, sites
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.energy_prior import EnergyPrior
from dsnn.bayes.gate_posterior import GatePosterior
from dsnn.bayes.gates import BERNOULLI, CONCRETE, HARD_CONCRETE, Family
from dsnn.bayes.halting_posterior import HaltingPosterior
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.networks.stack import mlp
from dsnn.parameters import split
from dsnn.simulate.simulator import Simulator

KEY = jax.random.key(0)
NETWORK = mlp((2,), (3,), 2, key=KEY, gain=2.0, recurrent=True)
TEMPLATE, INITIAL = split(NETWORK)
WHERE = sites.sites(NETWORK)


class Prices:
    """Distinct primes, so that no two mistakes cancel."""

    def event_nj(self, source: str, accounting: str) -> float:
        return {"analog": 7.0, "spikes": 3.0}[source]

    def update_nj(self, kind: str, accounting: str) -> float:
        return {"LIF": 11.0, "LI": 13.0}[kind]


# --- Weights


@pytest.mark.parametrize("kl_weight", [1.0, 0.3])
def test_weights_alone_pay_their_divergence_in_closed_form(kl_weight: float) -> None:
    weights = WeightPosterior(TEMPLATE, INITIAL, priors.default(TEMPLATE), guides.mean_field(0.2))
    model, guide = lambda: weights.prior(kl_weight), lambda: weights.posterior(kl_weight)
    trace = handlers.trace(handlers.seed(guide, KEY)).get_trace()
    params = {name: site["value"] for name, site in trace.items() if site["type"] == "param"}
    paid = TraceMeanField_ELBO().loss(KEY, params, model, guide)
    exact = 0.0
    for name, value in INITIAL.items():
        p, q = weights.of(name).base_dist, dist.Normal(value, 0.2)  # type: ignore[union-attr]
        exact += float(kl_divergence(q, p).sum())
    np.testing.assert_allclose(paid, kl_weight * exact, rtol=1e-5)


def test_weights_alone_are_drawn_as_the_guide_draws_them() -> None:
    weights = WeightPosterior(TEMPLATE, INITIAL, priors.default(TEMPLATE), guides.mean_field(0.2))
    params = {f"{name}.{part}": a for name, v in INITIAL.items() for part, a in (("loc", v), ("scale", 0 * v + 0.2))}
    with handlers.block():
        sampled = handlers.substitute(handlers.seed(weights.posterior, KEY), params)()
    drawn = jax.vmap(lambda key: weights.draw(params, key))(jax.random.split(KEY, 4000))
    for name, value in weights.draw(params, KEY).items():
        np.testing.assert_array_equal(value, sampled[name])
        np.testing.assert_allclose(drawn[name].mean(0), INITIAL[name], atol=5 * 0.2 / math.sqrt(4000))
        np.testing.assert_allclose(drawn[name].std(0), 0.2, rtol=0.08)
        np.testing.assert_array_equal(weights.centre(params)[name], INITIAL[name])


# --- Gates


@pytest.mark.parametrize("family", [HARD_CONCRETE, CONCRETE, BERNOULLI])
@pytest.mark.parametrize("weight", [None, 0.3])
def test_gates_alone_pay_their_divergence_in_closed_form(family: Family, weight: float | None) -> None:
    gates = GatePosterior(WHERE, family, 0.8)
    own = None if weight is None else jnp.asarray(weight)
    (name,) = family.initial(1, 0.5)
    params = {f"gates.{name}": jnp.linspace(-2.0, 3.0, WHERE.total)}
    paid = TraceMeanField_ELBO().loss(KEY, params, lambda: gates.prior(own), lambda: gates.posterior(weight=own))
    p = np.asarray(gates.of(params).open_probability, float)
    entropy = -(p * np.log(p) + (1 - p) * np.log1p(-p)).sum()
    np.testing.assert_allclose(paid, (weight or 1.0) * (WHERE.total * math.log(2) - entropy), rtol=1e-5)
    np.testing.assert_allclose(np.concatenate([*gates.probabilities(params).values()]), p, rtol=1e-6)


def test_few_discrete_gates_alone_are_summed_out_with_their_exact_gradient() -> None:
    """E[f(z)] of a function that is no sum over sites, and its slope, by all settings."""
    gates, logit = GatePosterior(WHERE, BERNOULLI), jnp.linspace(-1.0, 1.5, WHERE.total)

    def f(z: jax.Array) -> jax.Array:
        return jnp.sin(z @ jnp.arange(1.0, WHERE.total + 1))

    def model(logit: jax.Array) -> jax.Array:
        with handlers.block(), handlers.seed(rng_seed=0), handlers.substitute(data={"gates.logit": logit}):
            terms = lambda z: (f(z)[None], 2 * f(z))  # noqa: E731
            worth = lambda evidence, _: evidence.sum()  # noqa: E731
            found, twice = gates.averaged(gates.learned(), gates.prior(), terms, worth, numpyro.prng_key())
        return found.sum() + twice

    def exact(logit: jax.Array) -> jax.Array:
        p, total = jax.nn.sigmoid(logit), 0.0
        for setting in itertools.product((0.0, 1.0), repeat=WHERE.total):
            z = jnp.asarray(setting)
            total += 3 * jnp.where(z > 0, p, 1 - p).prod() * f(z)
        return total

    for ours, right in zip(jax.value_and_grad(model)(logit), jax.value_and_grad(exact)(logit), strict=True):
        np.testing.assert_allclose(ours, right, rtol=1e-4, atol=1e-5)


def test_gates_alone_that_are_decided_are_those_sites_and_no_others() -> None:
    gates = GatePosterior(WHERE)
    opened = jnp.arange(WHERE.total) % 2 == 0
    params = gates.decide({"gates.log_alpha": jnp.zeros(WHERE.total)}, opened)
    drawn, decided = (jnp.concatenate([*z.values()]) for z in (gates.draw(params, KEY), gates.decision(params)))
    np.testing.assert_array_equal(drawn, opened)
    np.testing.assert_array_equal(decided, opened)
    folded = gates.fold(INITIAL, gates.decision(params))
    kept = np.asarray(opened)[:2, None]
    np.testing.assert_array_equal(folded["hidden0.synapse.kernel"], kept * INITIAL["hidden0.synapse.kernel"])


# --- Halting


@pytest.mark.parametrize("feature", ["margin", "entropy", "learned"])
def test_halting_alone_is_a_distribution_whose_sums_are_those_over_all_stops(feature: str) -> None:
    steps, batch = 5, 4
    halting = HaltingPosterior(steps, feature)
    logits = 2 * jax.random.normal(KEY, (steps, batch, 3))
    seen = -jax.random.uniform(jax.random.key(1), (steps, batch))
    with handlers.seed(rng_seed=0), handlers.trace() as trace:
        head = halting.learned()
    params = {name: site["value"] for name, site in trace.items()}
    assert head.keys() == halting.head(params).keys() == {name.removeprefix("halting.") for name in params}
    h = np.asarray(jax.nn.sigmoid(halting.hazards(head, logits)), float)
    h[-1] = 1.0
    q = np.stack([h[n] * np.prod(1 - h[:n], 0) for n in range(steps)])  # stops at n, and nowhere before
    np.testing.assert_allclose(q.sum(0), 1.0, rtol=1e-12)
    np.testing.assert_allclose(jnp.exp(halting.log_q(head, logits)), q, rtol=1e-4)
    evidence, reached = halting.expectation(head, logits, seen)
    right = sum(q[n] * (np.asarray(seen[n], float) - np.log(q[n])) for n in range(steps))
    np.testing.assert_allclose(evidence, right, rtol=1e-4)
    np.testing.assert_allclose(reached, [q[n:].sum(0).mean() for n in range(steps)], rtol=1e-4)
    expected = sum((n + 1) * q[n] for n in range(steps)).mean()
    np.testing.assert_allclose(halting.mean_steps(params, logits), expected, rtol=1e-5)
    np.testing.assert_allclose(reached.sum(), expected, rtol=1e-5)


# --- Energy


def counted(z: np.ndarray, events: dict[str, np.ndarray], steps: float) -> float:
    """The energy of a network of open and closed sites, an operation after the other."""
    inputs, hidden = z[:2], z[2:]
    once = sum(7.0 * events["hidden0"][i] * inputs[i] * hidden[j] for i in range(2) for j in range(3))
    step = back = 0.0
    for i in range(3):
        step += 11.0 * hidden[i]
        step += sum(3.0 * events["readout"][i] * hidden[i] for _ in range(2))
        back += sum(3.0 * events["hidden0.recurrent"][i] * hidden[i] * hidden[j] for j in range(3))
    return once + steps * (step + 2 * 13.0) + (steps - 1) * back


def test_energy_alone_is_the_mean_over_all_settings_of_what_is_counted() -> None:
    energy = EnergyPrior(WHERE, Prices())
    events = {wire.name: np.linspace(0.2, 0.9, wire.pre_sites) for wire in WHERE.wires}
    p = np.linspace(0.1, 0.95, WHERE.total)
    right = 0.0
    for setting in itertools.product((0.0, 1.0), repeat=WHERE.total):
        z = np.asarray(setting)
        right += np.where(z > 0, p, 1 - p).prod() * counted(z, events, 4.0)
    given = {name: jnp.asarray(e) for name, e in events.items()}
    opened = WHERE.unflatten(jnp.asarray(p))
    np.testing.assert_allclose(energy.expected(opened, given).total(4.0), right, rtol=1e-5)
    np.testing.assert_allclose(energy.expected({}, given).total(4.0), counted(np.ones(5), events, 4.0), rtol=1e-5)
    np.testing.assert_allclose(energy.spent(opened, jnp.asarray([1.0, 1.0, 1.0, 0.6, 0.4]), given), right, rtol=1e-5)
    with handlers.trace() as trace:
        energy.factor(0.3, energy.spent(opened, jnp.ones(4), given))
    np.testing.assert_allclose(trace["energy"]["fn"].log_factor, -0.3 * right, rtol=1e-5)


def test_sites_that_were_silent_are_counted_as_half_an_event() -> None:
    energy = EnergyPrior(WHERE, Prices())
    spikes = {"hidden0": jnp.zeros((4, 6, 3)).at[:, :, 0].set(1.0), "readout": jnp.zeros((4, 6, 2))}
    events = energy.measured(NETWORK, jnp.ones((6, 2)), spikes, held=True, seen=24)
    np.testing.assert_allclose(events["readout"], [1.0, 0.5 / 24, 0.5 / 24], rtol=1e-6)
    np.testing.assert_array_equal(energy.silent()["readout"], np.zeros(3))


# --- Together


def test_parts_that_do_not_belong_together_get_a_sentence() -> None:
    weights = WeightPosterior(TEMPLATE, INITIAL, priors.default(TEMPLATE))
    whole = Bayesian(Simulator(TEMPLATE, 4), weights, GatePosterior(WHERE), HaltingPosterior(4), data_size=8)
    other = split(mlp((2,), (3,), 2, key=KEY))[0]
    with pytest.raises(ValueError, match=r"those of the simulator's network, these differ: hidden0\.recurrent"):
        dataclasses.replace(whole, simulator=Simulator(other, 4))
    with pytest.raises(ValueError, match="must have the simulator's 4 steps, got 5"):
        dataclasses.replace(whole, halting=HaltingPosterior(5))
    with pytest.raises(ValueError, match="must have the same sites, got groups"):
        dataclasses.replace(whole, energy=EnergyPrior(sites.sites(NETWORK, gate_input=False), Prices()))
    with pytest.raises(ValueError, match="a halting feature must be one of entropy, margin, learned, got 'size'"):
        HaltingPosterior(4, "size")
    with pytest.raises(ValueError, match="events are measured where energy has a price, got energy=None"):
        whole.measure({}, jnp.zeros((1, 2)), KEY)
