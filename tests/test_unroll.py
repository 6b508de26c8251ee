import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn import escape
from dsnn.cells import ALIF, BRF, LI, LIF, RF, CuBaLIF
from dsnn.networks.layers import Conv, Dense, Layer, Pool
from dsnn.networks.stack import Stack, convnet, mlp, running_logits
from dsnn.parameters import split
from dsnn.simulate import associative

KEY = jax.random.key(0)
unroll_module = importlib.import_module("dsnn.simulate.unroll")  # the package's name for it is the function


def noisy(neurons: int) -> LIF:
    return LIF(beta=0.8, noise=escape.Logistic(0.3))


def networks() -> dict[str, tuple[Stack, tuple[int, ...]]]:
    return {
        "mlp": (mlp((6,), (7, 5), 3, key=KEY, cell=noisy, gain=2.0), (6,)),
        "recurrent": (mlp((6,), (7,), 3, key=KEY, cell=noisy, gain=2.0, recurrent=True), (6,)),
        "conv": (convnet((8, 8, 1), (3,), (5,), 3, key=KEY, cell=noisy, gain=3.0, window=(3, 3)), (8, 8, 1)),
    }


@pytest.mark.parametrize("name", networks())
@pytest.mark.parametrize("key", [None, KEY])
def test_both_schedules_give_the_same_numbers(name: str, key: jax.Array | None) -> None:
    model, shape = networks()[name]
    xs = jax.random.uniform(jax.random.key(1), (9, 4, *shape))
    record = lambda states, spikes: (spikes, {n: s.cell.membrane for n, s in states.items()})  # noqa: E731
    ours = dsnn.unroll(model, xs, key, record, "layer")
    theirs = dsnn.unroll(model, xs, key, record, "step")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), ours, theirs)
    spikes = ours[2][0][model.names[0]]
    assert 0.02 < float(spikes.mean()) < 0.98, "a silent or saturated network would agree by accident"


@pytest.mark.parametrize("name", networks())
def test_a_python_loop_gives_the_same_numbers(name: str) -> None:
    model, shape = networks()[name]
    xs = jax.random.uniform(jax.random.key(1), (5, 2, *shape))
    outputs, final, _ = dsnn.unroll(model, xs, KEY)
    state = model.init((2,))
    for t in range(5):
        state, out = model.step(state, xs[t], jax.random.fold_in(KEY, t))
        np.testing.assert_allclose(out, outputs[t], atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state, final)


@pytest.mark.parametrize("schedule", ["layer", "step", "associative"])
@pytest.mark.parametrize("name", ["mlp", "recurrent", "adaptive"])
def test_a_run_goes_on_from_the_state_that_another_left(name: str, schedule: str) -> None:
    """The adaptive layer is one that C runs from its initial state, and the readout one that never resets."""
    adaptive = mlp((6,), (7,), 3, key=KEY, gain=3.0, recurrent=True, cell=lambda n: ALIF(beta=0.8, reset_timing="next"))
    model, shape = {**networks(), "adaptive": (adaptive, (6,))}[name]
    xs = jax.random.uniform(jax.random.key(1), (9, 4, *shape))
    whole, final, _ = dsnn.unroll(model, xs, schedule=schedule)
    first, state, _ = dsnn.unroll(model, xs[:5], schedule=schedule)
    second, last, _ = dsnn.unroll(model, xs[5:], schedule=schedule, state=state)
    np.testing.assert_allclose(jnp.concatenate([first, second]), whole, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), last, final)
    begun = dsnn.unroll(model, xs[5:], schedule=schedule)[0]
    assert float(jnp.abs(begun - second).max()) > 0.01, "the state makes a difference"


def test_a_cell_goes_on_from_a_state() -> None:
    cell, currents = LIF(beta=0.9), jnp.full((8, 2, 3), 0.3)
    state = dsnn.unroll(cell, currents[:3])[1]
    np.testing.assert_array_equal(dsnn.unroll(cell, currents[3:], state=state)[0], dsnn.unroll(cell, currents)[0][3:])


@pytest.mark.parametrize("schedule", ["layer", "step"])
def test_a_held_input_is_that_input_repeated(schedule: str) -> None:
    model, shape = networks()["conv"]
    x = jax.random.uniform(jax.random.key(1), (2, *shape))
    held, *_ = dsnn.unroll(model, x, KEY, schedule=schedule, steps=6)
    repeated, *_ = dsnn.unroll(model, jnp.broadcast_to(x, (6, *x.shape)), KEY, schedule=schedule)
    np.testing.assert_allclose(held, repeated, atol=1e-5)


@pytest.mark.parametrize("memory", ["sqrt", 1, 3, 4, 100])
@pytest.mark.parametrize("schedule", ["layer", "step"])
def test_rematerialisation_changes_no_gradient(memory: str | int, schedule: str) -> None:
    model, shape = networks()["recurrent"]
    template, params = split(model)
    xs = jax.random.uniform(jax.random.key(1), (10, 2, *shape))

    def loss(params: dict, memory: str | int) -> jax.Array:
        return dsnn.unroll(template.build(params), xs, KEY, schedule=schedule, memory=memory)[0][-1].sum()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    full, other = gradient(params, "full"), gradient(params, memory)
    assert max(float(jnp.abs(g).max()) for g in full.values()) > 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), full, other)


def test_a_cell_alone_records_its_membrane() -> None:
    xs = jnp.full((4, 1, 1), 0.6)
    outputs, final, (membrane, spikes) = dsnn.unroll(
        LIF(beta=0.5), xs, record=lambda state, spikes: (state.membrane, spikes)
    )
    # u' = .6, .9, 1.05 (spike, minus 1), .05 / 2 + .6
    np.testing.assert_allclose(membrane[:, 0, 0], [0.6, 0.9, 0.05, 0.625], atol=1e-6)
    assert outputs[:, 0, 0].tolist() == spikes[:, 0, 0].tolist() == [0, 0, 1, 0]
    np.testing.assert_allclose(final.membrane, membrane[-1])


def test_running_readouts_by_hand() -> None:
    outputs = jnp.asarray([1.0, 3.0, 2.0]).reshape(3, 1, 1)
    expected = {"mean": [1, 2, 2], "sum": [1, 4, 6], "max": [1, 3, 3], "last": [1, 3, 2]}
    for readout, values in expected.items():
        assert running_logits(outputs, readout)[:, 0, 0].tolist() == values
    with pytest.raises(ValueError, match="got 'median'"):
        running_logits(outputs, "median")


def test_pooling_and_convolution_shapes_and_values() -> None:
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    assert Pool((4, 4, 1))(x)[0, :, :, 0].tolist() == [[5, 7], [13, 15]]
    assert Pool((4, 4, 1), kind="mean")(x)[0, :, :, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert Pool((5, 5, 1))(jnp.ones((1, 5, 5, 1))).shape == (1, 2, 2, 1)
    for padding in ("SAME", "VALID"):
        for stride in (1, 2, 3):
            conv = Conv((7, 6, 2), 3, key=KEY, window=(3, 2), strides=(stride, stride), padding=padding)
            assert conv(jnp.ones((5, 7, 6, 2))).shape == (5, *conv.out_shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: dsnn.unroll(m, jnp.ones((3, 2, 5))), "must be"),
        (lambda m: dsnn.unroll(m, jnp.ones((3, 2, 6)), schedule="layers"), "schedule must be one of"),
        (lambda m: dsnn.unroll(m, jnp.ones((2, 6)), steps=0), "at least 1, got 0"),
        (lambda m: dsnn.unroll(m, jnp.ones((3, 2, 6)), memory="half"), "memory must be"),
        (lambda m: Stack(), "at least one layer"),
        (lambda m: Stack("mode", a=Layer(Dense(3, 3, key=KEY), LI())), "readout must be one of"),
        (lambda m: Stack(a=Layer(Dense(3, 4, key=KEY), LIF()), b=Layer(Dense(5, 2, key=KEY), LI())), "must take what"),
        (lambda m: Dense(3, 0, key=KEY), "features must be a positive"),
        (lambda m: Conv((3, 3, 1), 2, key=KEY, padding="FULL"), "padding must be"),
        (lambda m: Pool((1, 4, 1)), "must fit"),
    ],
)
def test_mistakes_get_a_sentence(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(networks()["mlp"][0])


RESET_FREE = {
    "LI": (lambda: LI(beta=0.8), None),
    "LIF": (lambda: LIF(beta=0.8, reset="none", rest=-0.2), None),
    "LIF noise next": (lambda: LIF(beta=0.8, reset="none", reset_timing="next", noise=escape.Logistic(0.3)), KEY),
    "CuBaLIF": (lambda: CuBaLIF(0.8, 0.6, reset="none", input_scale="decay", noise=escape.Gaussian(0.3)), KEY),
    "RF": (lambda: RF(10.0, 2.0, dt=0.05, threshold=0.1), None),
}


@pytest.mark.parametrize("name", RESET_FREE)
def test_an_associative_scan_gives_the_same_spikes_states_and_gradients(name: str) -> None:
    build, key = RESET_FREE[name]
    layers = {n: Layer(Dense(5, 5, key=jax.random.key(i), gain=2.0), build()) for i, n in enumerate(("first", "last"))}
    template, params = split(Stack(**layers))
    xs = jax.random.normal(KEY, (17, 4, 5))

    def run(params: dict[str, jax.Array], schedule: str):  # type: ignore[no-untyped-def]
        out, state, records = dsnn.unroll(
            template.build(params), xs, key, lambda states, spikes: (states, spikes), schedule
        )
        return (out * jnp.arange(17.0)[:, None, None]).sum(), (out, state, records)

    (_, ours), grads = jax.jit(jax.value_and_grad(run, has_aux=True), static_argnums=1)(params, "associative")
    (_, theirs), reference = jax.jit(jax.value_and_grad(run, has_aux=True), static_argnums=1)(params, "layer")
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves((ours, grads)), jax.tree.leaves((theirs, reference)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    assert len(np.unique(theirs[0])) > 1
    assert all(jnp.abs(g).max() > 0.01 for g in reference.values())


def test_cells_that_reset_are_stepped_by_every_schedule() -> None:
    cells = [LIF(0.9), LIF(0.9, reset="none", refractory=2.0), CuBaLIF(0.9), BRF(), ALIF(0.9)]
    cells += [LIF(0.9, reset="none", noise=escape.ThresholdJitter(0.5)), RF(noise=escape.ThresholdJitter(0.5))]
    assert not any(associative.reset_free(cell) for cell in cells)
    model, shape = networks()["recurrent"]
    xs = jax.random.uniform(jax.random.key(1), (9, 4, *shape))
    np.testing.assert_allclose(
        dsnn.unroll(model, xs, KEY, schedule="associative")[0], dsnn.unroll(model, xs, KEY)[0], atol=1e-5
    )


@pytest.mark.parametrize(("memory", "held"), [("full", False), (3, True)])
def test_a_recurrent_kernel_gets_the_same_gradient_after_the_loop_as_inside(memory: str | int, held: bool) -> None:
    model = mlp((6,), (7, 5), 3, key=KEY, cell=noisy, gain=2.0, recurrent=True)
    template, params = split(model)
    xs = jax.random.uniform(jax.random.key(1), (4, 6) if held else (10, 4, 6))

    def loss(params: dict, order: str) -> jax.Array:
        out = dsnn.unroll(template.build(params), xs, KEY, schedule=order, memory=memory, steps=10 if held else None)[0]
        return (out * jnp.sin(jnp.arange(out.size)).reshape(out.shape)).sum()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    inside, after = (gradient(params, order) for order in ("step", "layer"))
    for name in params:
        np.testing.assert_allclose(after[name], inside[name], rtol=1e-4, atol=1e-5, err_msg=name)
    assert jnp.abs(inside["hidden1.recurrent"]).max() > 0.05


def test_a_recurrent_layer_is_mapped_over_weights_and_over_noise_widths() -> None:
    xs = jax.random.uniform(jax.random.key(1), (6, 4, 6))

    def gradient(scale: jax.Array, width: jax.Array) -> dict[str, jax.Array]:
        cell = lambda neurons: LIF(beta=0.8, noise=escape.Logistic(width))  # noqa: E731
        template, params = split(mlp((6,), (7,), 3, key=KEY, cell=cell, gain=2.0, recurrent=True))
        params = {name: scale * value for name, value in params.items()}
        return jax.grad(lambda p: dsnn.unroll(template.build(p), xs, KEY)[0].sum())(params)

    scales, widths = jnp.asarray([1.0, 1.5]), jnp.asarray([0.2, 0.4])
    mapped = jax.jit(jax.vmap(gradient))(scales, widths)
    for name, value in jax.jit(gradient)(scales[1], widths[1]).items():
        np.testing.assert_allclose(mapped[name][1], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_schedule_follows_size_batch_and_wiring(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = unroll_module.LARGE_BYTES // (4 * 64 * 512)  # of a batch of 64 whose currents just fit
    for recurrent, batch, length, expected in (
        (False, 64, steps, "layer"),
        (False, 64, steps + 1, "step"),
        (False, 63, 2 * steps, "layer"),
        (True, 64, 2 * steps, "layer"),
    ):
        model = mlp((6,), (512, 5), 3, key=KEY, recurrent=recurrent)
        layers = [layer for _, layer in model.layers()]
        assert unroll_module._schedule(layers, length, batch, "full") == expected
        assert unroll_module._schedule(layers, length, batch, "sqrt") == "step"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    layers = [layer for _, layer in mlp((6,), (512, 5), 3, key=KEY).layers()]
    assert unroll_module._schedule(layers, 2 * steps, 64, "full") == "layer"


def test_narrow_products_round_their_operands_and_sum_in_float32() -> None:
    """1 + 2^-9 rounds to 1 in bfloat16, which holds no odd number between 256 and 512."""
    dense = Dense(301, 2, key=KEY, bias=False, dtype="bfloat16")
    template, _ = split(dense)
    kernel = jnp.full((301, 2), 1 + 2.0**-9)
    out, pullback = jax.vjp(lambda kernel, x: template.build({"kernel": kernel})(x), kernel, jnp.ones((301, 301)))
    to_kernel, to_x = pullback(jnp.full(out.shape, 1 + 2.0**-9))
    for array in (out, to_kernel):
        assert array.dtype == jnp.float32
        np.testing.assert_array_equal(array, 301.0)
    np.testing.assert_array_equal(to_x, 2.0)


def test_narrow_products_leave_membranes_in_float32() -> None:
    layer = Layer(Dense(6, 7, key=KEY, gain=2.0, dtype="bfloat16"), LIF(0.9), recurrent_key=jax.random.key(2))
    wide = Layer(Dense(6, 7, key=KEY, gain=2.0), LIF(0.9), recurrent_key=jax.random.key(2))
    xs = jax.random.uniform(jax.random.key(1), (10, 4, 6))
    record = lambda states, spikes: states["only"].cell.membrane  # noqa: E731
    membranes, reference = (dsnn.unroll(Stack(only=one), xs, record=record)[2] for one in (layer, wide))
    assert membranes.dtype == jnp.float32
    assert 1e-5 < jnp.abs(membranes[0] - reference[0]).max() < 0.05
    assert "bf16[7,7]" in str(jax.make_jaxpr(lambda xs: dsnn.unroll(Stack(only=layer), xs)[0])(xs))
