"""Neurons of images in C, with the pooling that reads them: the spikes of the scan bit for bit, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn import parameters, surrogate
from dsnn.cells import LIF
from dsnn.escape import Logistic
from dsnn.native.library import problem
from dsnn.networks.layers import Conv, Dense, Layer, Pool
from dsnn.networks.stack import Stack
from dsnn.simulate import fused_images

pytestmark = pytest.mark.skipif(problem() is not None, reason=f"nothing in C: {problem()}")
KEY = jax.random.key(0)
STEPS = 5


def network(channels: int = 9, window: tuple[int, int] = (2, 2), pool: bool = True, **options: object) -> Stack:
    """Two convolutions of odd sizes, so that pooling leaves neurons out, and a dense layer."""
    first = Conv((7, 9, 2), channels, key=KEY, gain=3.0)
    before = (Pool(first.out_shape, window),) if pool else ()
    second = Conv(before[0].out_shape if pool else first.out_shape, 4, key=KEY, gain=4.0)
    cell = LIF(**{"beta": 0.8, **options})
    last = Dense(second.out_shape, 3, key=KEY)
    layers = (Layer(first, cell), Layer(second, cell, before=before), Layer(last, LIF(0.9, noise=None)))
    return Stack(one=layers[0], two=layers[1], readout=layers[2])


def results(model: Stack, x: jax.Array, schedule: str, held: bool) -> tuple:
    """What it gives, its final state, and the gradients of both in input and parameters."""
    template, params = parameters.split(model)
    steps = STEPS if held else None

    def run(params: dict, x: jax.Array) -> tuple:
        out, state, _ = dsnn.unroll(template.build(params), x, schedule=schedule, steps=steps)
        weights = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
        membranes = {name: layer.cell.membrane for name, layer in state.items()}
        more = sum((0.1 * membrane**2).sum() for membrane in membranes.values())
        return (weights * out).sum() + more, (out, membranes)

    (_, out), grads = jax.jit(jax.value_and_grad(run, (0, 1), has_aux=True))(params, x)
    return out, grads


def images(held: bool) -> jax.Array:
    x = jax.random.uniform(jax.random.key(1), (4, 7, 9, 2) if held else (STEPS, 4, 7, 9, 2))
    return jnp.round(x * 16) / 16


KINDS = {
    "plain": {},
    "reset to zero": {"reset": "zero"},
    "no reset": {"reset": "none", "threshold": 2.5},
    "at the threshold": {"compare": ">=", "beta": 0.5},
    "detached": {"detach_reset": True},
    "detached zero": {"detach_reset": True, "reset": "zero"},
    "time constant": {"beta": None, "tau": 3.0, "input_scale": "decay", "threshold": 0.3},
    **{
        name: {"surrogate": surrogate.get(name)}
        for name in ("arctan", "fast_sigmoid", "superspike", "triangle", "boxcar", "straight_through")
    },
}


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_spikes_states_and_gradients_are_those_of_the_scan(kind: str, held: bool) -> None:
    model, x = network(**KINDS[kind]), images(held)
    assert all(fused_images.supports(layer) for _, layer in list(model.layers())[:2])
    (ours, states), grads = results(model, x, "layer", held)
    (theirs, expected), their_grads = results(model, x, "step", held)
    np.testing.assert_array_equal(ours, theirs)
    assert 0.02 < float(ours.mean()) < 0.98
    jax.tree.map(np.testing.assert_array_equal, states, expected)
    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(their_grads), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * float(jnp.abs(other).max()))


@pytest.mark.parametrize("channels", [1, 16, 17, 40])
@pytest.mark.parametrize("window", [None, (2, 2), (3, 2), (7, 9)])
def test_channels_and_windows_of_any_size(channels: int, window: tuple[int, int] | None) -> None:
    model, x = network(channels, window or (2, 2), pool=window is not None), images(True)
    (ours, _), grads = results(model, x, "layer", True)
    (theirs, _), their_grads = results(model, x, "step", True)
    np.testing.assert_array_equal(ours, theirs)
    for one, other in zip(jax.tree.leaves(grads), jax.tree.leaves(their_grads), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * float(jnp.abs(other).max()))


def test_it_runs_in_c_and_pooling_is_part_of_it() -> None:
    template, params = parameters.split(network())

    def loss(params: dict, x: jax.Array) -> jax.Array:
        return dsnn.unroll(template.build(params), x, steps=STEPS)[0].sum()

    program = jax.jit(jax.grad(loss)).lower(params, images(True)).compile().as_text()
    assert program.count('custom_call_target="dsnn_membranes"') == 2
    assert program.count('custom_call_target="dsnn_membranes_back"') == 2
    assert 'custom_call_target="dsnn_membranes_last"' not in program  # nobody reads the state
    assert "f32[5,4,7,9,9]" not in program  # the spikes before pooling of all steps


def test_mapped_over_draws_and_differentiated_forward() -> None:
    template, params = parameters.split(network())
    both = jax.tree.map(lambda a: jnp.stack([a, 1.2 * a]), params)
    x = images(True)

    def loss(schedule: str, params: dict) -> jax.Array:
        out = dsnn.unroll(template.build(params), x, steps=STEPS, schedule=schedule)[0]
        return (jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape) * out).sum()

    for schedule in ("layer", "step"):
        mapped = jax.jit(jax.vmap(jax.grad(lambda p, s=schedule: loss(s, p))))(both)
        forward = jax.jvp(lambda p, s=schedule: loss(s, p), (params,), (params,))[1]
        if schedule == "layer":
            expected, along = mapped, forward
    for one, other in zip(jax.tree.leaves(mapped), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * float(jnp.abs(other).max()))
    np.testing.assert_allclose(forward, along, rtol=1e-4)


def test_programs_for_other_devices_are_scans() -> None:
    template, params = parameters.split(network())

    def loss(params: dict, x: jax.Array) -> jax.Array:
        return dsnn.unroll(template.build(params), x, steps=STEPS, schedule="layer")[0].sum()

    gradient, x = jax.jit(jax.grad(loss)), images(True)
    exported = jax.export.export(gradient, platforms=["cpu"])(params, x)
    assert "dsnn_" not in exported.mlir_module()
    for one, other in zip(jax.tree.leaves(exported.call(params, x)), jax.tree.leaves(gradient(params, x)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_what_it_does_not_take() -> None:
    for options in (
        {"noise": Logistic(0.1)},
        {"reset_timing": "next"},
        {"refractory": 1.0},
        {"rest": 0.1},
        {"reset": -0.2},
        {"surrogate": "gaussian"},
        {"learnable": ("beta",)},
    ):
        assert not fused_images.supports(dict(network(**options).layers())["one"])
    assert not fused_images.supports(dict(network().layers())["readout"])  # which has no image


def test_records_see_spikes_before_pooling() -> None:
    model, x = network(), images(True)
    outs = [
        dsnn.unroll(model, x, record=lambda states, spikes: spikes, steps=STEPS, schedule=s)[2]["one"]
        for s in ("layer", "step")
    ]
    assert outs[0].shape == (STEPS, 4, 7, 9, 9)
    np.testing.assert_array_equal(*outs)
