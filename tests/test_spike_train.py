"""The likelihood of recorded spikes: enumeration, sampling, and calibration of what is inferred from them."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from dsnn import escape
from dsnn.bayes import sbc
from dsnn.bayes.spike_train import SpikeTrain
from dsnn.cells import ALIF, LIF, CuBaLIF
from dsnn.parameters import split
from experiments import recorded_lif

KEY = jax.random.key(0)
CURRENT = jnp.asarray([0.9, 0.1, 1.4, 0.6, 0.8, 0.2, 1.1, 0.7])
CELLS = {
    "LIF": lambda: LIF(tau=8.0, learnable=("tau",), noise=escape.Logistic(0.3, learnable=("width",))),
    "LIF zero, next": lambda: LIF(beta=0.8, reset="zero", reset_timing="next", noise=escape.Gaussian(0.3)),
    "LIF refractory": lambda: LIF(beta=0.8, refractory=2, noise=escape.Logistic(0.3)),
    "ALIF": lambda: ALIF(beta=0.8, noise=escape.Logistic(0.3)),
    "CuBaLIF": lambda: CuBaLIF(noise=escape.Gaussian(0.3)),
}


@pytest.mark.parametrize("name", CELLS)
def test_probabilities_of_all_trains_sum_to_one_and_are_those_of_the_running_neuron(name: str) -> None:
    template, params = split(CELLS[name]())
    train = SpikeTrain(template, params, CURRENT)
    every = jnp.asarray(list(itertools.product((0.0, 1.0), repeat=len(CURRENT))))
    log_p = jax.jit(train.log_prob)(every)
    p = np.exp(np.asarray(log_p, float))
    np.testing.assert_allclose(p.sum(), 1.0, atol=1e-4)
    n = 40_000
    drawn = np.asarray(jax.jit(lambda k: train.sample(k, (n,)))(KEY)) @ 2 ** np.arange(len(CURRENT))[::-1]
    found = np.bincount(drawn.astype(int), minlength=len(p)) / n
    assert (np.abs(found - p) < 5 * np.sqrt(p * (1 - p) / n) + 3e-4).all()


def test_one_train_by_hand() -> None:
    """u_t = beta u + I, P(s) = sigmoid((u - 1) / width), u falls by 1 after a spike."""
    template, params = split(LIF(beta=0.5, noise=escape.Logistic(0.25)))
    value, u, total = [0.0, 1.0, 0.0], 0.0, 0.0
    for current, s in zip((0.8, 0.9, 0.4), value, strict=True):
        u = 0.5 * u + current
        p = 1 / (1 + math.exp(-(u - 1) / 0.25))
        total += math.log(p if s else 1 - p)
        u -= s
    train = SpikeTrain(template, params, jnp.asarray([0.8, 0.9, 0.4]))
    np.testing.assert_allclose(train.log_prob(jnp.asarray(value)), total, rtol=1e-5)


def test_trains_of_many_neurons_and_samples_keep_their_axes() -> None:
    template, params = split(CELLS["LIF"]())
    current = jnp.stack([CURRENT, 1.3 * CURRENT], 1)
    both = SpikeTrain(template, params, current)
    drawn = both.sample(KEY, (3,))
    assert drawn.shape == (3, 8, 2)
    one_by_one = [SpikeTrain(template, params, current[:, i]).log_prob(drawn[..., i]) for i in range(2)]
    np.testing.assert_allclose(both.log_prob(drawn), sum(one_by_one), rtol=1e-5)


def test_gradients_are_those_of_the_likelihood() -> None:
    template, params = split(CELLS["LIF"]())
    spikes = SpikeTrain(template, params, CURRENT).sample(KEY)

    def log_prob(tau: jax.Array) -> jax.Array:
        return SpikeTrain(template, params | {"tau": tau}, CURRENT).log_prob(spikes)

    tau = jnp.asarray(8.0)
    numeric = (log_prob(tau + 0.05) - log_prob(tau - 0.05)) / 0.1
    np.testing.assert_allclose(jax.grad(log_prob)(tau), numeric, rtol=2e-2)


def test_a_neuron_without_a_likelihood_is_refused() -> None:
    template, params = split(LIF(beta=0.9))
    with pytest.raises(ValueError, match="only under escape noise, got noise=NoneType"):
        SpikeTrain(template, params, CURRENT)


@pytest.mark.slow
def test_calibration_passes_an_exact_posterior_and_fails_a_wrong_one() -> None:
    """Normal mean with known noise; the wrong one believes in a third of the noise."""

    def model(data: jax.Array | None = None, *, believed: float = 1.0) -> None:
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        scale = 1.0 if data is None else believed
        numpyro.sample("y", dist.Normal(mean, scale).expand((4,)).to_event(1), obs=data)

    right = sbc.calibrate(model, "y", KEY, replicates=200, warmup=200, draws=19, thinning=5, tree_depth=3)
    wrong = sbc.calibrate(
        lambda data=None: model(data, believed=0.33), "y", KEY, replicates=200, warmup=200, draws=19, thinning=5,
        tree_depth=3,
    )  # fmt: skip
    assert right.p_value("mean", 10) > 0.01
    assert 0.83 <= right.coverage("mean") <= 0.97, "3.3 standard errors of 200 replicates"
    assert wrong.p_value("mean", 10) < 1e-6
    assert wrong.coverage("mean") < 0.7


@pytest.mark.slow
def test_lif_parameters_from_recorded_spikes_are_calibrated() -> None:
    """200 replicates: ranks uniform at 1 %, 90 % intervals that cover 85 to 95 %."""
    found = sbc.calibrate(recorded_lif.model(), "spikes", KEY, replicates=200)
    for name in recorded_lif.PRIORS:
        assert found.p_value(name) > 0.01, name
        assert 0.85 <= found.coverage(name) <= 0.95, name
