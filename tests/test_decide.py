"""The decided network in C gives what `dsnn.anytime` gives, example by example."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsnn import parameters
from dsnn.bayes import halting
from dsnn.cells import ALIF, LI, LIF
from dsnn.deploy import fused_inference
from dsnn.deploy.decided import never, on_grid
from dsnn.escape import Logistic
from dsnn.native import library
from dsnn.networks.compact import compact
from dsnn.networks.layers import Conv, Dense, Layer, Pool
from dsnn.networks.stack import Stack, convnet, mlp
from dsnn.simulate.early_exit import anytime

pytestmark = pytest.mark.skipif(library.problem() is not None, reason=f"no decisions in C: {library.problem()}")
KEY = jax.random.key(0)
STEPS, CLASSES = 6, 4


def network(**options: object) -> Stack:
    cell = lambda neurons: LIF(beta=0.8, noise=Logistic(0.2), **options)  # noqa: E731
    model = mlp((5, 7), (33, 18), CLASSES, key=KEY, cell=cell, gain=2.5)
    template, params = parameters.split(model)
    drawn = {
        n: v + 0.1 * jax.random.normal(jax.random.fold_in(KEY, i), v.shape) for i, (n, v) in enumerate(params.items())
    }
    whole = template.build(on_grid(drawn))
    rng = np.random.default_rng(0)
    gates = {"input": rng.random(35) < 0.7, "hidden0": rng.random(33) < 0.6, "hidden1": rng.random(18) < 0.7}
    return compact(whole, {name: jnp.asarray(z, jnp.float32) for name, z in gates.items()})


def images(count: int) -> jax.Array:
    x = np.random.default_rng(1).random((count, 5, 7)).astype(np.float32)
    return jnp.asarray(np.where(x < 0.5, 0.0, np.round(x * 64) / 64))  # sums are exact in any order


def head_of(feature: str) -> dict:
    head = halting.initial_head(STEPS, feature)
    head |= {"bias": jnp.asarray(-3.0 if feature == "learned" else -2.0), "slope": jnp.asarray(0.6)}
    if feature == "learned":
        outer = 0.3 * jax.random.normal(KEY, head["outer"].shape)
        head |= {"growth": jnp.asarray(0.4), "outer": outer, "shift": 0.1 * jnp.arange(16.0)}
    return head


@pytest.mark.parametrize("feature", ["", "margin", "entropy", "learned"])
@pytest.mark.parametrize("batch", [1, 5, 200])
def test_examples_stop_where_the_compiled_cascade_stops_them(feature: str, batch: int) -> None:
    model, x = network(), images(batch)
    assert fused_inference.supports(model)
    head = head_of(feature) if feature else None
    rule = halting.rule(head, feature, 0.4) if head else never()
    expected = jax.jit(anytime(model, rule, STEPS))(x, None)
    arrays = fused_inference.packed(model, STEPS, head, feature, 0.4)
    found = fused_inference.decision(arrays, x)
    np.testing.assert_array_equal(found.steps, expected.steps)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    if batch == 200 and feature:
        assert len(set(found.steps.tolist())) > 2, "a rule that always stops at one step would pass by accident"


@pytest.mark.parametrize("options", [{"reset": "zero"}, {"reset": "none"}, {"compare": ">="}, {"input_scale": "decay"}])
def test_other_neurons(options: dict) -> None:
    model, x = network(**options), images(50)
    assert fused_inference.supports(model)
    expected = jax.jit(anytime(model, never(), STEPS))(x, None)
    found = fused_inference.decision(fused_inference.packed(model, STEPS), x)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    assert float(jnp.abs(expected.logits).max()) > 0.1


def test_what_it_does_not_take() -> None:
    def made(cell: object, **options: object) -> Stack:
        return mlp((6,), (5,), 3, key=KEY, cell=lambda neurons: cell, **options)

    assert fused_inference.supports(made(LIF(0.9)))
    for other in (
        ALIF(0.9),
        LIF(0.9, reset_timing="next"),
        LIF(0.9, refractory=1.0),
        LIF(0.9, rest=0.1),
        LIF(0.9, reset=-0.2),
    ):
        assert not fused_inference.supports(made(other))
    assert not fused_inference.supports(made(LIF(0.9), readout="last"))
    assert not fused_inference.supports(convnet((12, 12, 1), (2,), (), 3, key=KEY, dtype="bfloat16"))
    assert not fused_inference.supports(pictured(pool="mean"))
    small = compact(pictured((6, 6, 3)), {"input": jnp.asarray([1.0, 0.0, 1.0])})
    assert not fused_inference.supports(small)  # which takes channels from its images


def pictured(
    shape: tuple[int, int, int] = (13, 12, 2),
    features: tuple[int, int] = (9, 18),
    strides: tuple[int, int] = (1, 1),
    padding: str = "SAME",
    window: tuple[int, int] = (2, 2),
    pool: str = "max",
) -> Stack:
    """Two convolutions of odd sizes with pooling after each, one dense layer and a readout; sums are exact."""
    cell = lambda neurons: LIF(beta=0.8, noise=Logistic(0.2))  # noqa: E731
    first = Conv(shape, features[0], key=KEY, gain=2.5, padding=padding, window=(3, 2))
    one = Pool(first.out_shape, window, pool)
    second = Conv(one.out_shape, features[1], key=KEY, gain=4.0, padding=padding, strides=strides)
    two = Pool(second.out_shape, window, pool)
    third = Dense(two.out_shape, 19, key=KEY, gain=3.0)
    model = Stack(
        conv0=Layer(first, cell(features[0])),
        conv1=Layer(second, cell(features[1]), before=(one,)),
        hidden=Layer(third, cell(19), before=(two,)),
        readout=Layer(Dense(19, CLASSES, key=KEY), LI(beta=0.9)),
    )
    template, params = parameters.split(model)
    drawn = {
        n: v + 0.1 * jax.random.normal(jax.random.fold_in(KEY, i), v.shape) for i, (n, v) in enumerate(params.items())
    }
    return template.build(on_grid(drawn))


def pictures(shape: tuple[int, ...], count: int) -> jax.Array:
    x = np.random.default_rng(1).random((count, *shape)).astype(np.float32)
    return jnp.asarray(np.where(x < 0.5, 0.0, np.round(x * 64) / 64))


def check_pictures(model: Stack, head: dict | None = None, count: int = 40) -> None:
    assert fused_inference.supports(model)
    x = pictures(model.in_shape, count)
    rule = halting.rule(head, "margin", 0.4) if head else never()
    expected = jax.jit(anytime(model, rule, STEPS))(x, None)
    found = fused_inference.decision(fused_inference.packed(model, STEPS, head, "margin" if head else "", 0.4), x)
    np.testing.assert_array_equal(found.steps, expected.steps)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    assert float(jnp.abs(expected.logits).max()) > 0.1
    assert not head or len(set(found.steps.tolist())) > 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "VALID"},
        {"strides": (2, 2)},
        {"window": (1, 1), "features": (17, 5)},
        {"window": (3, 2)},
        {"features": (3, 40)},
        {"shape": (9, 9, 1), "features": (16, 130)},
        {"window": (4, 4), "shape": (20, 17, 1)},
    ],
    ids=str,
)
def test_convolutions_fire_as_in_the_compiled_cascade(options: dict) -> None:
    check_pictures(pictured(**options))


@pytest.mark.parametrize("count", [1, 33])
def test_convolutions_stop_where_the_compiled_cascade_stops_them(count: int) -> None:
    head = halting.initial_head(STEPS, "margin") | {"bias": jnp.asarray(-2.0), "slope": jnp.asarray(0.6)}
    model = pictured()
    if count == 1:
        check_pictures(model, None, 1)
    else:
        check_pictures(model, head, count)


@pytest.mark.parametrize("share", [0.03, 0.25, 0.9])
@pytest.mark.parametrize("options", [{}, {"strides": (2, 1)}, {"window": (1, 1), "padding": "VALID"}], ids=str)
def test_only_what_is_read_of_a_map_is_computed(options: dict, share: float) -> None:
    rng = np.random.default_rng(3)
    model = pictured((15, 13, 2), **options)
    two = model.hidden.before[0].out_shape
    gates = {
        "conv0": rng.random(9) < 0.6,
        "conv1": rng.random(18) < 0.6,
        "features": rng.random(two[0] * two[1] * two[2]) < share,
        "hidden": rng.random(19) < 0.7,
    }
    small = compact(model, {name: jnp.asarray(z, jnp.float32) for name, z in gates.items()})
    check_pictures(small)
    own = fused_inference.packed(small, STEPS)[8][7]  # of the plan of the second layer
    assert bool(own) == (share < 0.5 or "window" in options)  # where it costs less than whole places
