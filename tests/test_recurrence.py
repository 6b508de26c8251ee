"""The recurrent layer's own backward pass: the numbers of the plain scan, for every cell, and what two biases are."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dsnn import cells, escape, parameters, unroll
from dsnn.native import products
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack
from dsnn.simulate import fused
from dsnn.simulate.simulator import keep_traces

KEYS = jax.random.split(jax.random.key(0), 6)
XS = (jax.random.uniform(KEYS[0], (15, 3, 4)) < 0.4).astype(jnp.float32)
TARGET = jax.random.normal(KEYS[1], (15, 3, 2))
TAU = jnp.linspace(3.0, 8.0, 5)
CELLS = {
    "alif": lambda: cells.ALIF(
        tau=TAU, tau_adp=2 * TAU, threshold=0.1, reset_timing="next", input_scale="decay",
        surrogate="multi_gaussian", learnable=("tau", "tau_adp"),
    ),
    "lif": lambda: cells.LIF(0.8, threshold=0.3, surrogate="multi_gaussian", learnable=("beta", "threshold")),
    "brf": lambda: cells.BRF(TAU, 0.5, dt=0.1, threshold=0.05, learnable=("omega", "damping"), shape=(5,)),
    "ltc": lambda: cells.LTC(5, key=KEYS[4]),
}  # fmt: skip


def network(name: str) -> Stack:
    hidden = Layer(Dense(4, 5, key=KEYS[2], gain=2.0), CELLS[name](), recurrent_key=KEYS[3])
    last = cells.LI(tau=5.0, input_scale="decay", learnable=("tau",), shape=(2,))
    return Stack("last", hidden=hidden, readout=Layer(Dense(5, 2, key=KEYS[5]), last))


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["alif", pytest.param("lif", marks=SLOW), pytest.param("brf", marks=SLOW), pytest.param("ltc", marks=SLOW)]
)
def test_gradients_equal_those_of_the_plain_scan(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template, params = parameters.split(network(name))

    def loss(params, schedule):
        outputs, _, _ = unroll(template.build(params), XS, schedule=schedule)
        return ((outputs - TARGET) ** 2).sum(), outputs

    monkeypatch.setattr(fused, "supports", lambda layer, currents: False)
    (_, outputs), grads = jax.value_and_grad(loss, has_aux=True)(params, "layer")
    (_, plain), expected = jax.value_and_grad(loss, has_aux=True)(params, "step")
    np.testing.assert_array_equal(outputs, plain)
    assert np.abs(expected["hidden.recurrent"]).max() > 1e-3
    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-5)


GRID = 2.0**8
LOOPS = {
    "lif": lambda: cells.LIF(
        0.75, threshold=0.5, surrogate="multi_gaussian", learnable=("beta", "threshold"), shape=(5,)
    ),
    "lif next": lambda: cells.LIF(
        tau=TAU, threshold=0.25, reset_timing="next", input_scale="decay", surrogate="atan", learnable=("tau",)
    ),
    "alif": lambda: cells.ALIF(
        tau=TAU, tau_adp=2 * TAU, threshold=0.1, strength=0.7, input_scale="decay", surrogate="multi_gaussian",
        learnable=("tau", "tau_adp", "threshold", "strength"), shape=(5,),
    ),
    "alif next": CELLS["alif"],
    "brf": lambda: cells.BRF(
        TAU, 0.5, dt=0.1, threshold=0.05, learnable=("omega", "damping", "gamma", "threshold"), shape=(5,)
    ),
}  # fmt: skip


@pytest.mark.skipif(products.problem() is not None, reason="needs a C compiler and a CPU")
@pytest.mark.parametrize("recurrent", [True, pytest.param(False, marks=SLOW)])
@pytest.mark.parametrize(
    "name", [n if n in ("alif", "lif next", "brf") else pytest.param(n, marks=SLOW) for n in LOOPS]
)
def test_loops_in_c_give_the_numbers_of_the_plain_scan(name: str, recurrent: bool) -> None:
    cell = LOOPS[name]()
    hidden = Layer(Dense(4, 5, key=KEYS[2], gain=2.0), cell, recurrent_key=KEYS[3] if recurrent else None)
    hidden.reads = "membrane" if name in ("lif next", "brf") else "spikes"
    assert fused.supports(hidden, jnp.zeros((15, 3, 5)))
    template, params = parameters.split(Stack("last", hidden=hidden))
    # on a grid every sum is exact in any order
    params = {n: jnp.round(p * GRID) / GRID if n.endswith(("kernel", "recurrent")) else p for n, p in params.items()}
    target = jax.random.normal(KEYS[1], (15, 3, 5))

    def loss(params, xs, schedule):
        outputs, final, _ = unroll(template.build(params), xs, schedule=schedule)
        state = final["hidden"].cell  # whatever the final state is used for has its gradient too
        more = sum((leaf * target[k]).sum() for k, leaf in enumerate(jax.tree.leaves(state)))
        return ((outputs - target) ** 2).sum() + more, (outputs, final)

    (_, ours), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, XS, "layer")
    (_, plain), expected = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, XS, "step")
    assert float((ours[0] != 0).mean()) > 0
    assert jax.tree.structure(ours) == jax.tree.structure(plain)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, plain)
    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(expected), strict=True):
        assert np.abs(other).max() > 1e-4
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(products.problem() is not None, reason="needs a C compiler and a CPU")
def test_loops_in_c_map_over_networks_and_take_any_width() -> None:
    for neurons in (1, 70):
        hidden = Layer(Dense(4, neurons, key=KEYS[2], gain=2.0), cells.ALIF(0.8, threshold=0.3), recurrent_key=KEYS[3])
        template, params = parameters.split(Stack("last", hidden=hidden))
        params = {n: jnp.round(p * GRID) / GRID for n, p in params.items()}
        both = jax.tree.map(lambda a: jnp.stack([a, a / 2]), params)

        def grads(params, schedule, template=template):
            return jax.grad(lambda these: (unroll(template.build(these), XS, schedule=schedule)[0] ** 2).sum())(params)

        mapped, plain = (jax.vmap(partial(grads, schedule=schedule))(both) for schedule in ("layer", "step"))
        for one, other in zip(jax.tree.leaves(mapped), jax.tree.leaves(plain), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_stochastic_firing_maps_and_records_as_the_plain_scan_does() -> None:
    hidden = Layer(Dense(4, 5, key=KEYS[2]), cells.LIF(0.8, noise=escape.Logistic(0.3)), recurrent_key=KEYS[3])
    template, params = parameters.split(
        Stack("last", hidden=hidden, readout=Layer(Dense(5, 2, key=KEYS[5]), cells.LI()))
    )

    def run(params, key, schedule):
        return unroll(template.build(params), XS, key, keep_traces, schedule)

    batched = jax.tree.map(lambda a: jnp.stack([a, 1.1 * a]), params)
    keys = jax.random.split(jax.random.key(7), 2)
    mapped = jax.vmap(lambda p, k: run(p, k, "layer"))(batched, keys)
    plain = jax.vmap(lambda p, k: run(p, k, "step"))(batched, keys)
    jax.tree.map(np.testing.assert_array_equal, mapped, plain)
    assert 0 < float(mapped[2]["hidden"][1].mean()) < 1

    def energy(params, key):
        return (run(params, key, "layer")[0] ** 2).sum()

    grads = jax.vmap(jax.grad(energy))(batched, keys)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))


def test_two_biases_of_one_current_are_one_that_learns_twice_as_fast() -> None:
    x, y = jax.random.normal(KEYS[0], (20,)), jnp.linspace(-1, 1, 20)

    def learned(biases: int, rate: float) -> jax.Array:
        tx = optax.adam(rate)
        params = jnp.zeros(biases)
        state = tx.init(params)
        for _ in range(50):
            grads = jax.grad(lambda b: jnp.mean((jnp.tanh(x + b.sum()) - y) ** 2))(params)
            updates, state = tx.update(grads, state)
            params = params + updates
        return params.sum()

    assert float(learned(2, 0.01)) == pytest.approx(float(learned(1, 0.02)), rel=1e-4)
    assert abs(float(learned(1, 0.01)) - float(learned(1, 0.02))) > 1e-2


def test_a_readout_may_give_the_membrane_of_its_spiking_cell() -> None:
    cell = cells.ALIF(tau=20.0, tau_adp=100.0, threshold=0.01, reset_timing="next", input_scale="decay")
    reading = Stack("last", out=Layer(Dense(4, 2, key=KEYS[2]), cell, reads="membrane"))
    outputs, _, states = unroll(reading, XS, record=lambda state, out: state["out"].cell)
    spikes, _, _ = unroll(Stack("last", out=Layer(Dense(4, 2, key=KEYS[2]), cell)), XS)
    assert 0 < float(spikes.mean()) < 1
    np.testing.assert_array_equal(outputs, states.membrane)
    np.testing.assert_array_equal(spikes, states.spikes)
    with pytest.raises(ValueError, match="got reads='voltage'"):
        Layer(Dense(4, 2, key=KEYS[2]), cell, reads="voltage")
