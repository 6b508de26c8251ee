"""The fused scan: the spikes of the scan from the same key, its gradients, and a program for NVIDIA's devices alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lowered import calls, lowered

import dsnn
from dsnn import surrogate
from dsnn.cells import ALIF, LI, LIF
from dsnn.escape import Gaussian, Logistic, ThresholdJitter
from dsnn.escape.draw import uniform16
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack
from dsnn.parameters import split
from dsnn.simulate import fused_kernel, fused_lif

KEY, STEPS = jax.random.key(0), 9
SMALL, WIDE = (5, 27), (2, 301)
"""Batch and neurons: less than a tile, and more than one; neither fills whole blocks of the generator."""

CASES: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "deterministic": ({}, SMALL),
    "zero": ({"reset": "zero", "surrogate": "fast_sigmoid", "compare": ">="}, SMALL),
    "detached": ({"detach_reset": True, "reset": "zero"}, SMALL),
    "learnable": ({"learnable": ("beta", "threshold"), "shape": (27,)}, SMALL),
    "logistic": ({"noise": lambda: Logistic(0.2)}, WIDE),
    "logistic zero": ({"noise": lambda: Logistic(0.2, learnable=("width",)), "reset": "zero"}, SMALL),
    "logistic surrogate": (
        {"noise": lambda: Logistic(0.2, learnable=("width",)), "surrogate": "triangle", "learnable": ("threshold",)},
        SMALL,
    ),
    "gaussian": ({"noise": lambda: Gaussian(0.3, learnable=("width",)), "reset": "none"}, SMALL),
}


def cell_of(options: dict[str, Any]) -> LIF:
    noise = options.get("noise")
    return LIF(0.9, **({"threshold": 0.6} | options | ({"noise": noise()} if noise else {})))


def both(options: dict[str, Any], shape: tuple[int, int], key: Any) -> tuple[Any, Any]:
    """Spikes, membranes, final state and gradients of every parameter, current and start, by scan and by kernel."""
    template, params = split(cell_of(options))
    currents = 0.3 * jax.random.normal(jax.random.key(1), (STEPS, *shape)) + 0.2
    start = 0.1 * jax.random.normal(jax.random.key(2), shape)
    weigh = jax.random.normal(jax.random.key(3), (2 * STEPS + 1, *shape))

    def loss(params: Any, currents: Any, start: Any, schedule: str) -> Any:
        cell = template.build(params)
        state = cell.init(shape)._replace(membrane=start)
        spikes, final, membranes = dsnn.unroll(
            cell, currents, key, lambda state, _: state.membrane, schedule, state=state
        )
        seen = jnp.concatenate([spikes, membranes, final.membrane[None]])
        return (seen * weigh).sum(), seen

    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True), static_argnums=3)
    with fused_lif.interpreted():
        fused = run(params, currents, start, "fused")
    return run(params, currents, start, "layer"), fused


@pytest.mark.parametrize(
    ("name", "drawn"), [(name, drawn) for name in CASES for drawn in (False, True)[: 1 + ("noise" in CASES[name][0])]]
)
def test_spikes_are_those_of_the_scan_and_gradients_too(name: str, drawn: bool) -> None:
    options, shape = CASES[name]
    ((_, seen), grads), ((_, ours), own) = both(options, shape, KEY if drawn else None)
    np.testing.assert_array_equal(ours, seen)
    assert 0.05 < float(seen[:STEPS].mean()) < 0.6
    for one, other in zip(jax.tree.leaves(own), jax.tree.leaves(grads), strict=True):
        assert float(jnp.abs(other).max()) > 0 or (name == "logistic surrogate" and not drawn)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * float(jnp.abs(other).max()))


def test_a_draw_in_the_kernel_is_the_generators_number_of_the_neuron() -> None:
    cell, currents = LIF(0.0, threshold=1.0, noise=Logistic(0.5), reset="none"), jnp.linspace(-1, 3, 3 * 11 * 7)
    currents = currents.reshape(3, 11, 7)
    with fused_lif.interpreted():
        spikes = dsnn.unroll(cell, currents, KEY, schedule="fused")[0]
    rank = jnp.stack([uniform16(jax.random.fold_in(KEY, t), (11, 7)) for t in range(3)])
    np.testing.assert_array_equal(spikes, jax.nn.sigmoid((currents - 1) / 0.5) > rank)


def network(**options: Any) -> Stack:
    hidden = Layer(Dense(6, 37, key=KEY, gain=2.0), LIF(0.9, noise=Logistic(0.2), **options))
    return Stack(hidden=hidden, readout=Layer(Dense(37, 3, key=jax.random.key(1)), LI(0.9)))


def test_a_network_of_it_is_that_by_layers_also_mapped_over_samples() -> None:
    template, params = split(network())
    xs = (jax.random.uniform(jax.random.key(2), (STEPS, 5, 6)) < 0.4) * 1.0
    keys = jax.random.split(KEY, 2)

    def loss(params: Any, key: Any, schedule: str) -> Any:
        outputs, final, records = dsnn.unroll(template.build(params), xs, key, lambda _, s: s["hidden"], schedule)
        return (outputs**2).sum() + final["hidden"].cell.membrane.sum(), records

    def run(params: Any, schedule: str) -> Any:
        return jax.vmap(lambda key: jax.grad(loss, has_aux=True)(params, key, schedule))(keys)

    expected, spikes = jax.jit(run, static_argnums=1)(params, "layer")
    with fused_lif.interpreted():
        grads, ours = jax.jit(run, static_argnums=1)(params, "fused")
    np.testing.assert_array_equal(ours, spikes)
    assert bool((spikes[0] != spikes[1]).any())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), grads, expected)


@pytest.mark.parametrize("noise", [None, Logistic(0.2), Gaussian(0.3)], ids=["none", "logistic", "gaussian"])
def test_forward_mode_goes_through_the_scan(noise: Any) -> None:
    cell, currents = LIF(0.9, noise=noise), jnp.full((STEPS, 1, 3), 0.3)

    def total(currents: Any, schedule: str) -> Any:
        return dsnn.unroll(cell, currents, KEY, schedule=schedule)[0].sum()

    with fused_lif.interpreted():
        tangent = jax.jvp(lambda c: total(c, "fused"), (currents,), (jnp.ones_like(currents),))
    expected = jax.jvp(lambda c: total(c, "layer"), (currents,), (jnp.ones_like(currents),))
    np.testing.assert_allclose(tangent, expected, rtol=1e-5)


def gradient(cell: Any, key: Any) -> Any:
    """The gradient by the kernels, of a cell that need not have parameters."""
    return jax.grad(lambda c: (dsnn.unroll(cell, c, key, schedule="fused")[0] ** 2).sum())


@pytest.mark.parametrize("noise", [None, Logistic(0.2), Gaussian(0.3)], ids=["none", "logistic", "gaussian"])
def test_it_is_lowered_for_cuda_forward_and_backward(noise: Any) -> None:
    cell, currents = LIF(0.9, noise=noise), jnp.ones((4, 3, 200))
    module = lowered(gradient(cell, KEY), currents, platforms=("cuda",))
    assert module.count("mosaic_gpu") >= 2, "a kernel forward and one backward"
    assert calls(module) == set()
    mapped = jax.vmap(lambda key, c: gradient(cell, key)(c), (0, None))
    several = lowered(mapped, jax.random.split(KEY, 2), currents, platforms=("cuda",))
    assert several.count("mosaic_gpu") >= 2


@pytest.mark.slow
def test_every_surrogate_is_lowered_or_refused() -> None:
    for name in surrogate.names():
        cell = LIF(0.9, surrogate=name)
        refused = name in fused_lif.NOT_IN_KERNELS
        assert (fused_lif.refusal(cell, jnp.zeros(1)) is not None) == refused
        if not refused:
            assert "mosaic_gpu" in lowered(gradient(cell, None), jnp.ones((1, 1, 128)), platforms=("cuda",))


@pytest.mark.parametrize("platform", ["cpu", "rocm", "tpu"])
def test_another_device_is_refused_with_a_sentence(platform: str) -> None:
    with pytest.raises(ValueError, match=f"a kernel for NVIDIA devices .*, got a program for {platform}; leave"):
        lowered(gradient(LIF(0.9), None), jnp.ones((4, 1, 5)), platforms=(platform,))


def test_this_process_is_refused_too_where_it_has_no_such_device() -> None:
    if jax.default_backend() == "gpu":
        pytest.skip("there is one")
    with pytest.raises(ValueError, match="got a program for cpu"):
        dsnn.unroll(network(), jnp.ones((2, 1, 6)), schedule="fused")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (ALIF(0.9), "takes LIF neurons, got a ALIF"),
        (LIF(0.9, reset_timing="next"), 'takes reset_timing="same", got "next"'),
        (LIF(0.9, reset=0.1), "got a value"),
        (LIF(0.9, refractory=2), "got refractory=2"),
        (LIF(0.9, rest=0.1), "at rest at 0"),
        (LIF(0.9, noise=ThresholdJitter(0.1)), "got a ThresholdJitter"),
        (LIF(0.9, noise=Gaussian(0.3), surrogate="atan"), "Gaussian noise with its density"),
        (LIF(0.9, surrogate="tanh"), "got surrogate='tanh'"),
    ],
)
def test_what_it_does_not_take_gets_a_sentence(cell: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f'schedule="fused" .*{message}.*; leave the schedule out'):
        dsnn.unroll(cell, jnp.ones((2, 1, 3)), schedule="fused")


def test_runs_and_keys_that_it_does_not_take_get_a_sentence() -> None:
    xs = jnp.ones((2, 1, 6))
    with pytest.raises(ValueError, match=r"keeps all membranes and runs all steps, got memory='sqrt'"):
        dsnn.unroll(network(), xs, schedule="fused", memory="sqrt")
    with pytest.raises(ValueError, match="runs all steps"):
        dsnn.unroll(network(), xs, schedule="fused", running=jnp.ones(2))
    with pytest.raises(ValueError, match="keys of threefry2x32"):
        dsnn.unroll(network(), xs, jax.random.key(0, impl="rbg"), schedule="fused")
    looped = Stack(hidden=Layer(Dense(6, 4, key=KEY), LIF(0.9), recurrent_key=KEY))
    with pytest.raises(ValueError, match="without a recurrent kernel"):
        dsnn.unroll(looped, xs, schedule="fused")


@pytest.mark.parametrize("neurons", [1, 5, 511, 512, 513])
def test_what_is_laid_out_comes_back(neurons: int) -> None:
    values = jnp.arange(2.0 * neurons).reshape(2, neurons)
    tiles = fused_kernel.laid_out(values)
    assert tiles.shape[:2] == (2, 4)
    assert tiles.shape[2] % fused_kernel.LANES == 0
    np.testing.assert_array_equal(fused_kernel.flat(tiles, neurons), values)
