"""Address events estimate x W without bias, with the variance that was derived, and by fetching only their rows."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsnn import convert, energy
from dsnn.cells import IF, LI
from dsnn.native import products
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack
from dsnn.simulate import encode
from dsnn.simulate.row_sampling import Rows, variance

KEY = jax.random.key(0)
TRIALS = 20_000


def problem(signed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    x = rng.exponential(size=(3, 12)) * (rng.random((3, 12)) < 0.7)
    x[2] = 0
    if signed:
        x *= rng.choice([-1, 1], x.shape)
    return x.astype(np.float32), rng.standard_normal((12, 4)).astype(np.float32)


def estimates(x: np.ndarray, weights: np.ndarray, draws: int, **options: object) -> np.ndarray:
    """Returns [trial, batch, neuron] independent estimates of x W."""
    keys = jax.random.split(KEY, TRIALS)
    one = jax.jit(jax.vmap(lambda k: encode.address_events(jnp.asarray(x), draws, k, **options)))(keys)
    rows = weights[np.asarray(one.address)]
    return (np.asarray(one.value)[..., None] * rows).sum(-2)


@pytest.mark.parametrize(
    ("sampling", "signed", "proposal"),
    [("independent", False, False), ("spread", True, True), ("independent", True, True), ("spread", False, False)],
)
def test_estimate_is_unbiased(sampling: str, signed: bool, proposal: bool) -> None:
    x, weights = problem(signed)
    factors = jnp.asarray(np.random.default_rng(1).uniform(0.3, 3, 12), jnp.float32) if proposal else None
    found = estimates(x, weights, 5, sampling=sampling, signed=signed, proposal=factors)
    bound = 5 * found.std(0) / TRIALS**0.5 + 1e-5  # five standard errors, measured on the same draws
    assert (np.abs(found.mean(0) - x @ weights) <= bound).all()
    assert (found[:, 2] == 0).all()  # an example of zeros


@pytest.mark.parametrize(("draws", "proposal"), [(1, False), (7, True)])
def test_variance_is_the_derived_one(draws: int, proposal: bool) -> None:
    x, weights = problem()
    factors = jnp.asarray(np.random.default_rng(1).uniform(0.3, 3, 12), jnp.float32) if proposal else None
    found = estimates(x, weights, draws, proposal=factors)
    expected = np.asarray(variance(jnp.asarray(x), jnp.asarray(weights), draws, factors))
    centred = found - found.mean(0)
    error = np.sqrt(((centred**4).mean(0) - found.var(0) ** 2) / TRIALS)  # standard error of a variance
    assert (np.abs(found.var(0) - expected) <= 5 * error + 1e-6).all()
    if not proposal:  # the formula as it is written in the module, term by term
        total = x.sum(1, keepdims=True)
        by_hand = total / draws * (x[:, :, None] * weights**2).sum(1) - (x @ weights) ** 2 / draws
        np.testing.assert_allclose(expected, by_hand, rtol=1e-4, atol=1e-4)


def test_spread_draws_have_less_variance_and_every_prefix_is_spread() -> None:
    x, weights = problem()
    assert (estimates(x, weights, 8, sampling="spread").var(0)[:2] < estimates(x, weights, 8).var(0)[:2]).all()
    # equal values and a power of two draws: each address is drawn equally often, also by the first half of the draws
    drawn = encode.address_events(jnp.ones((1, 4)), 8, KEY, sampling="spread").address[0]
    assert np.bincount(drawn, minlength=4).tolist() == [2, 2, 2, 2]
    assert np.bincount(drawn[:4], minlength=4).tolist() == [1, 1, 1, 1]


def test_the_best_proposal_has_less_variance() -> None:
    x, weights = problem()
    best = jnp.asarray(np.linalg.norm(weights, axis=1))
    x, weights = jnp.asarray(x), jnp.asarray(weights)
    assert (variance(x, weights, 4, best).sum(1)[:2] < variance(x, weights, 4).sum(1)[:2]).all()


@pytest.mark.parametrize("sampling", ["independent", "spread"])
def test_one_hot_vectors_are_exact(sampling: str) -> None:
    x = jnp.zeros((2, 9)).at[0, 4].set(2.5).at[1, 8].set(0.1)
    drawn = encode.address_events(x, 8, KEY, sampling=sampling)
    assert (drawn.address == jnp.array([[4], [8]])).all()
    np.testing.assert_allclose(drawn.value.sum(1), [2.5, 0.1], rtol=1e-6)


def test_zeros_have_no_events_and_zero_values_are_never_drawn() -> None:
    assert not encode.address_events(jnp.zeros((2, 5)), 3, KEY).value.any()
    x = jnp.array([[0.0, 1.0, 0.0, 2.0, 0.0]])
    assert set(np.unique(encode.address_events(x, 4000, KEY).address)) == {1, 3}


def test_signed_vectors_draw_a_train_for_each_sign() -> None:
    drawn = encode.address_events(jnp.array([[2.0, -1.0, 0.0, -3.0]]), 6, KEY, signed=True)
    assert (drawn.address[0, :6] == 0).all()
    assert set(np.unique(drawn.address[0, 6:])) <= {1, 3}
    np.testing.assert_allclose(drawn.value[0], [2 / 6] * 6 + [-4 / 6] * 6, rtol=1e-6)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        ([[1.0, 2.0]], {"draws": 0}, "at least 1, got 0"),
        ([[1.0, -2.0]], {"draws": 2}, "must not be negative, got -2; signed=True"),
        ([[1.0, float("nan")]], {"draws": 2}, "must be finite, got 1 NaN"),
        ([[1.0, float("inf")]], {"draws": 2, "signed": True}, "must be finite, got 1 NaN or infinite"),
        ([[1.0, 2.0]], {"draws": 2, "sampling": "sobol"}, "one of independent, spread, got 'sobol'"),
    ],
)
def test_what_is_no_distribution_gets_a_sentence(x, options, message) -> None:
    draws = options.pop("draws")
    with pytest.raises(ValueError, match=re.escape(message)):
        encode.address_events(jnp.asarray(x), draws, KEY, **options)


def test_in_compiled_code_nan_stays_nan_and_negative_counts_as_zero() -> None:
    drawn = jax.jit(lambda x: encode.address_events(x, 4, KEY))(jnp.array([[1.0, jnp.nan], [-5.0, 2.0]]))
    assert jnp.isnan(drawn.value[0]).all()
    assert (drawn.address[1] == 1).all()
    np.testing.assert_allclose(drawn.value[1].sum(), 2.0)


def test_sparse_rows_draw_what_dense_ones_draw() -> None:
    x, _ = problem()
    index = np.stack([np.argsort(row == 0, kind="stable")[:11] for row in x])  # nonzero features first, in order
    rows = Rows(jnp.asarray(index), jnp.asarray(np.take_along_axis(x, index, 1)))
    one, other = encode.address_events(rows, 6, KEY), encode.address_events(jnp.asarray(x), 6, KEY)
    assert (one.address[:2] == other.address[:2]).all()
    np.testing.assert_allclose(one.value, other.value, rtol=1e-6)


def test_trains_carry_the_vector_on_average_over_time() -> None:
    x, _ = problem(signed=True)
    spikes = encode.address_trains(jnp.asarray(x), 5, 10, KEY, signed=True)
    assert spikes.shape == (5, 3, 12)
    np.testing.assert_allclose(np.abs(spikes).sum((0, 2)) / 5, np.abs(x).sum(1), rtol=1e-5)  # mass is exact
    many = jax.vmap(lambda k: encode.address_trains(jnp.asarray(x), 5, 10, k, signed=True).mean(0))
    found = np.asarray(many(jax.random.split(KEY, 4000)))
    assert (np.abs(found.mean(0) - x) <= 5 * found.std(0) / 4000**0.5 + 1e-5).all()


def test_published_number_of_draws() -> None:
    assert encode.draws_for(784) == 3399  # 510 ln 784 = 3398.6
    assert encode.draws_for(784, k=10) == 67


@pytest.mark.parametrize("compiled", [True, False])
def test_gather_fetches_the_named_rows(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if compiled and products.problem() is not None:
        pytest.skip(f"event-driven products: {products.problem()}")
    if not compiled:
        monkeypatch.setattr(products, "problem", lambda: "there is no compiler here")
    rng = np.random.default_rng(0)
    index = jnp.asarray(rng.integers(0, 50, (37, 6)), jnp.int32)
    value = jnp.asarray(rng.integers(-3, 4, (37, 6)), jnp.float32)  # zeros among them
    weights = jnp.asarray(rng.integers(-8, 9, (50, 70)), jnp.float32)
    dense = np.zeros((37, 50))
    for row in range(37):
        np.add.at(dense[row], np.asarray(index)[row], np.asarray(value)[row])
    out, pullback = jax.vjp(lambda v, w: products.gather(index, v, w), value, weights)
    np.testing.assert_array_equal(out, dense @ np.float64(weights))
    grad = jnp.asarray(rng.integers(-4, 5, out.shape), jnp.float32)
    to_value, to_weights = pullback(grad)
    full = np.float64(grad) @ np.float64(weights).T
    np.testing.assert_array_equal(to_value, np.take_along_axis(full, np.asarray(index), 1))
    np.testing.assert_array_equal(to_weights, dense.T @ np.float64(grad))


def test_an_event_without_value_is_none_and_an_index_that_is_no_row_stops() -> None:
    weights = jnp.full((4, 64), jnp.inf)
    silent = products.gather(jnp.full((2, 3), 9, jnp.int32), jnp.zeros((2, 3)), weights)
    if products.problem() is None:
        assert not silent.any()
        with pytest.raises(Exception, match="no row of w"):
            jax.block_until_ready(products.gather(jnp.full((2, 3), 9, jnp.int32), jnp.ones((2, 3)), weights))


def test_compiled_code_holds_no_product_over_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """K draws from N = 5000 inputs: work and traffic grow with K, and neither dot nor array has N times the neurons."""
    monkeypatch.setattr(products, "problem", lambda: "the operations are to be seen by XLA")
    layer = Dense(5000, 16, key=KEY)

    def flops(draws: int) -> float:
        def run(x: jax.Array, key: jax.Array) -> jax.Array:
            return convert.gathered(layer, encode.address_events(x, draws, key))

        compiled = jax.jit(run).lower(jnp.ones((2, 5000)), KEY).compile()
        text = compiled.as_text()
        assert " dot(" not in text
        assert "5000,16]" in text  # the weights are there, as an operand
        return text.count("gather(")

    assert flops(8) >= 1
    dense = jax.jit(lambda x: layer(x)).lower(jnp.ones((2, 5000))).compile().as_text()
    assert " dot(" in dense or "dot_general" in dense or "custom-call" in dense


def two_layers(start: float = 0.5) -> Stack:
    first, second = jax.random.split(KEY)
    hidden = Layer(Dense(40, 30, key=first), IF(threshold=1.0, compare=">=", rest=start))
    return Stack("mean", hidden=hidden, readout=Layer(Dense(30, 5, key=second), LI(0.0)))


@pytest.mark.parametrize("order", ["first", "interleaved"])
def test_many_draws_give_the_network_without_sampling(order: str) -> None:
    stack, x = two_layers(), jax.random.uniform(KEY, (6, 40))
    steps, draws = 64, {"hidden": 64 * 256, "readout": 64 * 256}
    ran = convert.stochastic(stack, x, draws, KEY, steps=steps, order=order)
    rate = np.floor(np.clip(np.asarray(stack.hidden.synapse(x)), 0, 1) * steps + 0.5) / steps
    np.testing.assert_allclose(ran.rates["hidden"], rate, atol=2.5 / steps)
    np.testing.assert_allclose(ran.logits, stack.readout.synapse(jnp.asarray(rate, jnp.float32)), atol=0.1)


def test_stochastic_costs_are_counted_by_hand() -> None:
    stack, x = two_layers(), jax.random.uniform(KEY, (6, 40)).at[:, 10:].set(0)
    draws, steps = {"hidden": 12, "readout": 7}, 4
    ran = convert.stochastic(stack, x, draws, KEY, steps=steps)
    records = convert.address_records(stack, ran, draws, steps)
    counts = energy.count(records)
    busy = float((np.asarray(ran.rates["hidden"]).sum(1) > 0).mean())  # an example without spikes draws nothing more
    assert convert.gathered_rows(records) == pytest.approx(12 + 7 * busy)
    layers = {(layer.name, layer.weights > 0, layer.neurons > 0): layer for layer in counts.layers}
    assert layers["hidden", True, False].effective_acs == pytest.approx(12 * 30)
    assert layers["readout", True, False].effective_acs == pytest.approx(7 * 5 * busy)
    sampling = layers["hidden", False, False]
    assert sampling.effective_acs == pytest.approx(10)  # the sums over nonzero inputs
    assert sampling.update_compares == pytest.approx(12 * 4)  # 12 searches among 10
    assert sampling.effective_macs == 1  # spread: one random number
    independent = convert.address_records(stack, ran, draws, steps, "independent")
    assert energy.count(independent).layers[0].effective_macs == 12
    twin = energy.count(energy.ann_twin(records)).total
    assert twin.effective_macs == 40 * 30 + 30 * 5


def test_a_network_that_cannot_run_on_addresses_gets_a_sentence() -> None:
    with pytest.raises(ValueError, match="readout got none"):
        convert.stochastic(two_layers(), jnp.ones((1, 40)), {"hidden": 3}, KEY, steps=2)
    with pytest.raises(ValueError, match="one of interleaved, first"):
        convert.stochastic(two_layers(), jnp.ones((1, 40)), {"hidden": 3, "readout": 3}, KEY, steps=2, order="last")
