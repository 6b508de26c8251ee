"""NUTS as a learner: against a closed form, through the runner, and what it refuses."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn import learn, rng
from dsnn.bayes import priors
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.likelihood import Gaussian
from dsnn.bayes.weight_posterior import WeightPosterior
from dsnn.cells import LI
from dsnn.config import Config, GatesConfig, HaltingConfig, ModelConfig, PopulationConfig, TrainConfig
from dsnn.learn import sampling
from dsnn.learn.sampling import NutsConfig
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack
from dsnn.parameters import split
from dsnn.simulate.simulator import Simulator

KEY, NOISE = jax.random.key(0), 0.3
OFF = {"gates": GatesConfig(enabled=False), "halting": HaltingConfig(enabled=False)}


def conjugate(learned: bool = False) -> tuple[Bayesian, learn.Batch, np.ndarray, np.ndarray]:
    """A readout that is linear in its weights; its exact posterior mean and covariance."""
    x = jax.random.normal(jax.random.key(8), (40, 2))
    template, params = split(Stack("last", readout=Layer(Dense((2,), 1, key=KEY), LI(beta=0.0))))
    y = (x @ jnp.asarray([0.8, -0.5]) + 0.2 + NOISE * jax.random.normal(jax.random.key(9), (40,)))[:, None]
    simulator = Simulator(template, 1, stochastic=False)
    weights = WeightPosterior(template, params, priors.default(template))
    net = Bayesian(simulator, weights, likelihood=Gaussian(NOISE, learned), data_size=40)
    design = np.concatenate([np.ones((40, 1)), np.asarray(x, float)], 1)  # bias first: names are sorted
    precision = design.T @ design / NOISE**2 + np.diag([1.0] + [2.0] * 2)
    covariance = np.linalg.inv(precision)
    mean = covariance @ design.T @ np.asarray(y[:, 0], float) / NOISE**2
    return net, learn.Batch(x, y), mean, covariance


def sampled(net: Bayesian, batch: learn.Batch, config: NutsConfig, start: int = 0, state=None):
    learner = sampling.nuts_learner(net, config, rng.root(0))
    state = learner.init() if state is None else state
    states = [state]
    how = {"epochs": config.epochs, "batch_size": len(batch.x), "root": rng.root(0), "start": start}
    return states + [jax.tree.map(jnp.copy, epoch.state) for epoch in learn.fit(learner, state, batch, **how)]


def test_nuts_learner_finds_the_conjugate_posterior_within_monte_carlo_error() -> None:
    net, batch, mean, covariance = conjugate()
    config = NutsConfig(warmup=300, samples=1500, chains=2, thin=1, chunk=600)
    state = sampled(net, batch, config)[-1]
    weights = dataclasses.replace(net.weights, guide=sampling.family(net.weights.initial, config))
    net = dataclasses.replace(net, weights=weights)
    params = sampling.nuts_params(net, config, state)
    draws = np.concatenate([np.asarray(params[f"{n}.point"], float).reshape(3000, -1) for n in net.weights.initial], 1)
    found = sampling.diagnostics(state)
    assert found["nuts/ess_min"] > 500
    assert found["nuts/r_hat_max"] < 1.02
    assert found["nuts/divergences"] == 0
    sd, size = np.sqrt(np.diag(covariance)), found["nuts/ess_min"]
    assert (np.abs(draws.mean(0) - mean) < 4.5 * sd / math.sqrt(size)).all()
    correlation = np.cov(draws.T) / np.outer(sd, sd)
    np.testing.assert_allclose(correlation, covariance / np.outer(sd, sd), atol=6 / math.sqrt(size))
    # the energy of a draw is its own, and the centre is the draw of the least
    best = net.centre(params).weights
    flat = np.concatenate([np.ravel(best[n]) for n in net.weights.initial])
    away = np.einsum("di,ij,dj->d", draws - mean, np.linalg.inv(covariance), draws - mean)
    np.testing.assert_allclose(flat, draws[away.argmin()], rtol=1e-5)
    np.testing.assert_allclose(
        params["draws.energy"] - params["draws.energy"].min(), (away - away.min()) / 2, atol=2e-2
    )


def test_the_noise_of_numbers_is_drawn_with_the_weights() -> None:
    net, batch, _, _ = conjugate(learned=True)
    config = NutsConfig(warmup=300, samples=600, chains=2, thin=1, chunk=900)
    params = sampling.nuts_params(net, config, sampled(net, batch, config)[-1])
    x, y = np.asarray(batch.x, float), np.asarray(batch.y[:, 0], float)
    design = np.concatenate([np.ones((40, 1)), x], 1)
    grid = np.linspace(0.1, 0.8, 2000)  # the weights integrated out, the noise enumerated
    logs = []
    for sd in grid:
        cov = sd**2 * np.eye(40) + design @ np.diag([1.0, 0.5, 0.5]) @ design.T
        logs.append(-0.5 * (np.linalg.slogdet(cov)[1] + y @ np.linalg.solve(cov, y)) - np.log(sd) - np.log(sd) ** 2 / 2)
    p = np.exp(np.asarray(logs) - max(logs))
    p /= p.sum()
    mean = p @ grid
    assert abs(float(params["likelihood.scale"]) - mean) < 5 * math.sqrt(p @ (grid - mean) ** 2 / 200)


def test_nuts_resumed_at_a_chunk_goes_on_bit_for_bit() -> None:
    net, batch, _, _ = conjugate()
    config = NutsConfig(warmup=20, samples=20, chains=2, thin=2, chunk=10)
    states = sampled(net, batch, config)
    assert len(states) == 5
    again = sampled(net, batch, config, start=2, state=states[2])[-1]
    for name, value in states[-1].draws.items():
        np.testing.assert_array_equal(value, again.draws[name])
    assert np.ptp(np.asarray(states[-1].draws["readout.synapse.bias"]), 1).min() > 0


def test_first_members_are_spread_over_chains_and_time() -> None:
    config = NutsConfig(samples=16, thin=2, chains=2)
    order = sampling.spread(config)
    assert sorted(order) == list(range(16))
    assert [int(k) for k in order[:8]] == [0, 8, 4, 12, 2, 10, 6, 14]
    values = np.arange(16)
    np.testing.assert_array_equal(sampling.by_chain(config, values[order]), values.reshape(2, 8))


def test_thinned_draws_are_every_so_manieth() -> None:
    net, batch, _, _ = conjugate()
    every = sampled(net, batch, NutsConfig(warmup=10, samples=12, chains=2, thin=1, chunk=11))[-1]
    third = sampled(net, batch, NutsConfig(warmup=10, samples=12, chains=2, thin=3, chunk=11))[-1]
    name = "readout.synapse.kernel"
    np.testing.assert_allclose(third.draws[name], every.draws[name][:, 2::3], rtol=1e-4)


@pytest.mark.slow
def test_nuts_by_fit_predicts_from_its_draws() -> None:
    x = np.asarray(jax.random.normal(KEY, (60, 2)), np.float32)
    y = (x[:, 0] + x[:, 1] > 0).astype(int)
    config = Config(
        learner="nuts",
        model=ModelConfig(hidden=[4]),
        train=TrainConfig(steps=4),
        nuts=NutsConfig(warmup=60, samples=40, chains=2, thin=4, chunk=50, tree_depth=5),
        **OFF,
    )
    fitted = dsnn.fit(x, y, config=config, baseline="none")
    made = dsnn.predict(fitted, x, samples=20)
    assert (made.probs.argmax(-1) == y).mean() > 0.85
    assert fitted.diagnostics["nuts/draws"] == 20
    assert fitted.params["hidden0.synapse.kernel.point"].shape == (20, 2, 4)
    # the predictive of as many samples as draws is the mean over exactly these, whatever the key
    np.testing.assert_allclose(made.probs, dsnn.predict(fitted, x, samples=20, seed=5).probs, rtol=1e-5)
    assert fitted.network() is not None
    assert "2 epochs" in repr(fitted)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "learner=nuts draws weights alone, got gates.enabled=true and halting.enabled=true"),
        ({**OFF, "halting": HaltingConfig()}, "weights alone, got gates.enabled=false and halting.enabled=true"),
        ({**OFF, "train": TrainConfig(encoding="rate")}, "likelihood without chance, got train.encoding=rate"),
        ({**OFF, "train": TrainConfig(select="nll")}, "predicts from all draws, got train.select=nll"),
        ({**OFF, "population": PopulationConfig(size=2)}, "chains in one process on one device, got population"),
    ],
)
def test_nuts_says_what_it_cannot_do(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(learner="nuts", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup": 0}, "nuts.warmup must be at least 1, got 0"),
        ({"target": 1.0}, "nuts.target must be in \\(0, 1\\), got 1.0"),
        ({"samples": 3, "thin": 2, "chains": 1}, "must keep two draws at least, got nuts.samples=3 of 1 chains"),
    ],
)
def test_nuts_options_are_checked(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NutsConfig(**options)


def test_nuts_says_what_a_large_network_would_cost() -> None:
    net, _, _, _ = conjugate()
    net = dataclasses.replace(net, data_size=6000)
    with pytest.raises(ValueError, match="at most 20000 weights and 5000 examples, got 3 and 6000, on which it may"):
        sampling.nuts_learner(net, NutsConfig(), rng.root(0))
    sampling.nuts_learner(net, NutsConfig(large=True), rng.root(0))
