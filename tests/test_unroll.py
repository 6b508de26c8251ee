import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn import escape
from dsnn.cells import LI, LIF
from dsnn.layers import Conv, Dense, Layer, Pool
from dsnn.models import Stack, convnet, mlp, running_logits
from dsnn.parameters import split

KEY = jax.random.key(0)


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

    full, other = jax.grad(loss)(params, "full"), jax.grad(loss)(params, memory)
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


@pytest.mark.parametrize("held", [False, True])
def test_an_associative_scan_gives_the_same_readout_and_gradient(held: bool) -> None:
    model = mlp((6,), (5,), 3, key=KEY, readout_beta=0.8)
    template, params = split(model)
    xs = jax.random.normal(KEY, (4, 6) if held else (17, 4, 6))

    def run(params: dict[str, jax.Array], schedule: str):  # type: ignore[no-untyped-def]
        out, state, records = dsnn.unroll(
            template.build(params),
            xs,
            KEY,
            lambda states, spikes: states["readout"].cell.membrane,
            schedule,
            steps=17 if held else None,
        )
        return (out * jnp.arange(17.0)[:, None, None]).sum(), (out, state["readout"].cell.membrane, records)

    (_, ours), grads = jax.value_and_grad(run, has_aux=True)(params, "associative")
    (_, theirs), reference = jax.value_and_grad(run, has_aux=True)(params, "layer")
    for a, b in zip(jax.tree.leaves((ours, grads)), jax.tree.leaves((theirs, reference)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert jnp.abs(theirs[0]).max() > 0.1
