"""Draws go where the answer depends on them, the fewer the dearer they are, and proposals lower the noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsnn import convert, energy
from dsnn.bayes.allocate import allocate, surrogate_logits
from dsnn.cells import IF, LI
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack
from dsnn.simulate.row_sampling import variance

KEY = jax.random.key(0)


def network() -> tuple[Stack, jax.Array, jax.Array]:
    """A network whose class is the larger of two groups of inputs; half of the inputs have large, useless weights."""
    first, second = jax.random.split(KEY)
    hidden = Layer(Dense(16, 8, key=first, bias=False), IF(threshold=1.0, compare=">=", rest=0.5))
    readout = Layer(Dense(8, 2, key=second, bias=False), LI(0.0))
    kernel = np.zeros((16, 8), np.float32)
    kernel[:4, :4], kernel[4:8, 4:] = 0.3, 0.3
    out = np.zeros((8, 2), np.float32)
    out[:4, 0], out[4:, 1] = 4.0, 4.0
    hidden.synapse.kernel[...], readout.synapse.kernel[...] = jnp.asarray(kernel), jnp.asarray(out)
    x = jax.random.uniform(jax.random.key(1), (512, 16))
    y = (x[:, 4:8].sum(1) > x[:, :4].sum(1)).astype(jnp.int32)
    return Stack("mean", hidden=hidden, readout=readout), x, y


def test_surrogate_has_the_moments_of_address_events() -> None:
    stack, x, _ = network()
    draws = {"hidden": jnp.asarray(40.0), "readout": jnp.asarray(1e9)}
    keys = jax.random.split(KEY, 4000)
    found = jax.vmap(lambda k: surrogate_logits(stack, x[:2], draws, k))(keys)
    one = Stack("mean", readout=stack.hidden)  # a single layer, so that no clipping comes between
    single = jax.vmap(lambda k: surrogate_logits(one, x[:2], {"readout": jnp.asarray(40.0)}, k))(keys)
    expected = variance(x[:2], stack.hidden.synapse.kernel[...], 40)
    np.testing.assert_allclose(single.var(0), expected, rtol=5 * (2 / 4000) ** 0.5)
    assert np.isfinite(found).all()


@pytest.mark.slow
def test_dearer_draws_are_fewer_and_proposals_leave_useless_inputs_alone() -> None:
    stack, x, y = network()
    prices = energy.profile("45nm")
    cheap, dear = (allocate(stack, x, y, lam, prices, KEY, updates=300, learning_rate=0.05) for lam in (0.03, 3.0))
    assert dear.draws["hidden"] < cheap.draws["hidden"]
    assert dear.energy_nj < cheap.energy_nj
    assert cheap.low["hidden"] < cheap.draws["hidden"] < cheap.high["hidden"]
    r = cheap.proposals["hidden"]
    assert r[:8].min() > 1.5 * r[8:].max()
    assert float(jnp.log(r).mean()) == pytest.approx(0, abs=1e-4)
    weights, signal = stack.hidden.synapse.kernel[...], x[:50]
    assert variance(signal, weights, 10, r).sum() < 0.8 * variance(signal, weights, 10).sum()
    assert cheap.losses[-20:].mean() < cheap.losses[:20].mean()


def test_what_was_allocated_runs_and_stays_unbiased() -> None:
    stack, x, y = network()
    found = allocate(stack, x, y, 0.3, energy.profile("45nm"), KEY, updates=20)
    ran = convert.stochastic(stack, x, found.draws, KEY, steps=32, proposals=found.proposals, sampling="independent")
    assert ran.logits.shape == (512, 2)
    plain = convert.stochastic(stack, x, dict.fromkeys(found.draws, 4096), KEY, steps=32)
    many = convert.stochastic(stack, x, dict.fromkeys(found.draws, 4096), KEY, steps=32, proposals=found.proposals)
    np.testing.assert_allclose(many.logits, plain.logits, atol=0.6)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"lam": 0.0}, "lam must be positive, got 0.0"), ({"lam": 1.0, "least": 9.0, "most": 3.0}, "got 9.0 to 3.0")],
)
def test_options_get_a_sentence(options: dict, message: str) -> None:
    stack, x, y = network()
    with pytest.raises(ValueError, match=message):
        allocate(stack, x, y, prices=energy.profile("45nm"), key=KEY, **options)
