"""A neuron has one meaning: whatever form runs it gives the bits of its cell, step by step, on whatever it is given."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn.cells import ALIF, BRF, LI, LIF, RF, CuBaLIF
from dsnn.deploy import fused_inference
from dsnn.deploy.decided import never
from dsnn.native import products
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack
from dsnn.simulate import associative, fused
from dsnn.simulate.early_exit import anytime

STEPS, BATCH, NEURONS = 12, 4, 5
KEY = jax.random.key(0)
in_c = pytest.mark.skipif(products.problem() is not None, reason=f"nothing in C: {products.problem()}")

CELLS: dict[str, Callable[[], Any]] = {
    "lif": lambda: LIF(0.75, threshold=0.5),
    "lif tau": lambda: LIF(tau=4.0, threshold=0.25, input_scale="decay"),
    "lif next": lambda: LIF(0.75, threshold=0.5, reset_timing="next"),
    "lif each": lambda: LIF(jnp.linspace(0.25, 0.95, NEURONS), threshold=jnp.linspace(0.25, 0.75, NEURONS)),
    "alif": lambda: ALIF(0.75, threshold=0.25, strength=0.5, rho=0.9),
    "alif next": lambda: ALIF(0.75, threshold=0.25, reset_timing="next"),
    "brf": lambda: BRF(8.0, 0.5, dt=0.1, threshold=0.05),
}


def odd_currents() -> jax.Array:
    """Ordinary currents, and in one example each: zeros of both signs, the smallest numbers, infinity, not a number.

    Minus infinity is left out: products that are rounded before they are added (`dsnn.cells.rounding`) end at the
    lowest number, and programs in C need no such device.
    """
    currents = np.array(jax.random.normal(KEY, (STEPS, BATCH, NEURONS)) * 2)
    currents[:, 1] = np.where(np.arange(STEPS)[:, None] % 2, -0.0, 0.0)
    currents[::3, 2] = np.float32(1e-45)
    currents[4, 3, 0], currents[4, 3, 1] = np.nan, np.inf
    return jnp.asarray(currents)


def stepped(cell: Any, currents: jax.Array) -> tuple[Any, jax.Array]:
    """What the cell means: its own step, one after another, each compiled alone."""
    state, spikes = cell.init(currents.shape[1:]), []
    step = jax.jit(lambda state, current: cell.step(state, current))
    for current in currents:
        state, out = step(state, current)
        spikes.append(out)
    return state, jnp.stack(spikes)


def same(ours: Any, theirs: Any, *, exact: bool = True) -> None:
    """Equal numbers, and not a number in the same places; zeros of either sign are one number to a neuron."""
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
        if exact:
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@in_c
@pytest.mark.parametrize("name", CELLS)
def test_a_loop_in_c_is_the_cell(name: str) -> None:
    cell, currents = CELLS[name](), odd_currents()
    layer = Layer(Dense(3, NEURONS, key=KEY), cell)
    assert fused.supports(layer, currents)
    state, spikes = jax.jit(lambda currents: fused.run(layer, currents))(currents)
    expected, sent = stepped(cell, currents)
    assert 0 < float(sent[:, 0].mean()) < 1
    same(spikes, sent)
    # an adaptive threshold and an oscillator have products that XLA fuses with sums, and C does not
    same(state.cell, expected, exact=name.startswith("lif"))


@pytest.mark.parametrize("name", CELLS)
def test_a_scan_is_the_cell(name: str) -> None:
    cell, currents = CELLS[name](), odd_currents()
    sent, state, _ = jax.jit(lambda currents: dsnn.unroll(cell, currents))(currents)
    expected, spikes = stepped(cell, currents)
    same(sent, spikes)
    same(state, expected)


@pytest.mark.parametrize(
    "cell",
    [LI(0.75), LIF(0.75, reset="none"), CuBaLIF(0.75, 0.5, reset="none"), RF(8.0, 0.5, dt=0.1)],
    ids=lambda cell: type(cell).__name__,
)
def test_an_associative_scan_is_the_cell_up_to_rounding(cell: Any) -> None:
    assert associative.reset_free(cell)
    currents = odd_currents()[:, :3]  # what is not finite reaches other steps by other sums
    after, out = associative.run(cell, cell.init(currents.shape[1:]), currents)
    expected, sent = stepped(cell, currents)
    same(jax.tree.map(lambda leaf: leaf[-1], after), expected, exact=False)
    if isinstance(cell, LI):
        same(out, sent, exact=False)
    else:
        assert float((out == sent).mean()) > 0.98  # a membrane at its threshold may fall on either side


@in_c
@pytest.mark.parametrize(
    "options", [{}, {"reset": "zero"}, {"reset": "none"}, {"compare": ">="}, {"input_scale": "decay"}]
)
def test_a_decision_in_c_is_the_network(options: dict[str, Any]) -> None:
    cell = LIF(tau=4.0, threshold=0.5, **options) if "input_scale" in options else LIF(0.75, threshold=0.5, **options)
    first, last = jax.random.split(KEY)
    model = Stack(
        hidden=Layer(Dense(NEURONS, 16, key=first, gain=2.0), cell), readout=Layer(Dense(16, 3, key=last), LI(0.9))
    )
    assert fused_inference.supports(model)
    x = jnp.concatenate(
        [odd_currents()[0, :1], jnp.zeros((1, NEURONS)), -jnp.zeros((1, NEURONS)), jnp.full((1, NEURONS), 1e-45)]
    )
    expected = jax.jit(anytime(model, never(), STEPS))(x, None)
    found = fused_inference.decision(fused_inference.packed(model, STEPS), x)
    np.testing.assert_array_equal(found.steps, expected.steps)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    outputs = jnp.stack([stepped_network(model, x)[t] for t in range(STEPS)])
    np.testing.assert_allclose(found.logits, outputs.mean(0), atol=1e-5)


def stepped_network(model: Stack, x: jax.Array) -> list[jax.Array]:
    state, outputs = model.init((len(x),)), []
    for _ in range(STEPS):
        state, out = model.step(state, x)
        outputs.append(out)
    return outputs
