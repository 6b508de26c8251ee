"""A converted network is the deep one: exactly where theory says so, else within what rates over T steps can say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import dsnn
from dsnn import convert, data, rng
from dsnn.convert import ClipFloor, Flatten, Residual, learning
from dsnn.convert.limits import from_data
from dsnn.convert.options import entry
from dsnn.convert.units import read
from dsnn.escape import Logistic
from dsnn.networks.layers import Pool

KEY = jax.random.key(0)
IMAGE = (8, 8, 2)


def images(count: int = 20, seed: int = 0, shape: tuple[int, ...] = IMAGE) -> np.ndarray:
    return np.random.default_rng(seed).random((count, *shape), np.float32)


def noisy_norms(model: nnx.Sequential) -> nnx.Sequential:
    """Gives every batch norm statistics and parameters as training would."""
    rng = np.random.default_rng(1)

    def visit(modules: list) -> None:
        for module in modules:
            if isinstance(module, nnx.BatchNorm):
                size = module.mean[...].shape
                module.mean[...] = jnp.asarray(rng.normal(0, 0.2, size), jnp.float32)
                module.var[...] = jnp.asarray(rng.uniform(0.5, 2, size), jnp.float32)
                module.scale[...] = jnp.asarray(rng.uniform(0.5, 1.5, size), jnp.float32)
                module.bias[...] = jnp.asarray(rng.normal(0, 0.2, size), jnp.float32)
            elif isinstance(module, Residual):
                visit(module.body.layers)

    visit(model.layers)
    return model


def residual(strided: bool) -> nnx.Sequential:
    rngs, stride = nnx.Rngs(3), 2 if strided else 1
    body = nnx.Sequential(
        nnx.Conv(6, 5, (3, 3), strides=stride, rngs=rngs),
        nnx.BatchNorm(5, rngs=rngs),
        jax.nn.relu,
        nnx.Conv(5, 9 if strided else 6, (3, 3), rngs=rngs),
        nnx.BatchNorm(9 if strided else 6, rngs=rngs),
    )
    shortcut = nnx.Conv(6, 9, (1, 1), strides=2, rngs=rngs) if strided else None
    size = 4 * 4 * 9 if strided else 8 * 8 * 6
    return noisy_norms(
        nnx.Sequential(
            nnx.Conv(2, 6, (3, 3), rngs=rngs),
            jax.nn.relu,
            Residual(body, shortcut),
            jax.nn.relu,
            Flatten(),
            nnx.Linear(size, 4, rngs=rngs),
        )
    )


NETWORKS = {
    "dense": lambda: convert.deep_mlp(128, (20, 15), 4, key=KEY, dropout=0.5),
    "conv": lambda: noisy_norms(convert.deep_conv(IMAGE, (5, 6), 4, key=KEY)),
    "residual": lambda: residual(False),
    "strided residual": lambda: residual(True),
    "dense residual": lambda: nnx.Sequential(
        Flatten(),
        nnx.Linear(128, 10, rngs=nnx.Rngs(0)),
        jax.nn.relu,
        Residual(nnx.Sequential(nnx.Linear(10, 7, rngs=nnx.Rngs(1)), jax.nn.relu, nnx.Linear(7, 10, rngs=nnx.Rngs(2)))),
        jax.nn.relu,
        nnx.Linear(10, 4, rngs=nnx.Rngs(4)),
    ),
    "one layer residual": lambda: nnx.Sequential(
        Flatten(),
        nnx.Linear(128, 10, rngs=nnx.Rngs(0)),
        jax.nn.relu,
        Residual(nnx.Sequential(nnx.Linear(10, 6, rngs=nnx.Rngs(1))), nnx.Linear(10, 6, rngs=nnx.Rngs(2))),
        jax.nn.relu,
        nnx.Linear(6, 4, rngs=nnx.Rngs(4)),
    ),
}


QUICK = ("strided residual", "dense residual")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NETWORKS])
def test_rates_are_the_activations_up_to_a_few_spikes(name: str) -> None:
    model, x = NETWORKS[name](), images()
    made = convert.convert(model, x, "max")
    rows = convert.match_layers(model, made.stack, made.limits, x, 256)
    assert [row.name for row in rows] == [*made.limits, "readout"]
    for row in rows:
        assert row.correlation > 0.99
        assert row.clipped == 0
        if row.name != "readout":
            assert row.error < 4 / 256 * len(rows)  # each layer passes on at most a few spikes' worth of error


@pytest.mark.parametrize("levels", [2, pytest.param(4, marks=pytest.mark.slow), 8])
def test_clip_floor_is_exactly_what_a_neuron_sends_in_as_many_steps(levels: int) -> None:
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(128, 30, rngs=rngs), ClipFloor(levels, 0.75), nnx.Linear(30, 4, rngs=rngs))
    x = images(50, shape=(128,))
    made = convert.convert(model, x, "qcfs")
    assert made.limits == {"hidden0": 0.75}
    spikes = dsnn.unroll(made.stack, jnp.asarray(x), steps=levels, record=lambda _, s: s["hidden0"])[2]
    a = model.layers[1](model.layers[0](jnp.asarray(x)))
    near = np.abs((np.asarray(model.layers[0](jnp.asarray(x))) * levels / 0.75 + 0.5) % 1)
    sure = (near > 1e-4) & (near < 1 - 1e-4)  # not on the edge between two levels, where rounding decides
    np.testing.assert_allclose(np.asarray(spikes.mean(0) * 0.75)[sure], np.asarray(a)[sure], atol=1e-6)
    assert sure.mean() > 0.99


def test_clip_floor_passes_gradients_to_inputs_inside_and_to_its_limit_outside() -> None:
    act = ClipFloor(4, 2.0)
    np.testing.assert_allclose(act(jnp.array([-1.0, 0.2, 0.3, 1.1, 5.0])), [0, 0, 0.5, 1.0, 2.0], atol=1e-6)
    slope = jax.vmap(jax.grad(lambda x: act(x)))(jnp.array([-1.0, 0.6, 5.0]))
    np.testing.assert_allclose(slope, [0, 1, 0], atol=1e-6)
    grads = nnx.grad(lambda a: a(jnp.array([5.0])).sum())(act)
    assert float(grads["limit"][...]) == pytest.approx(1.0)


def test_batch_norm_is_folded_without_a_trace() -> None:
    model, x = NETWORKS["conv"](), jnp.asarray(images())
    units = read(model)
    y = jax.lax.conv_general_dilated(
        x, jnp.asarray(units[0].kernel, jnp.float32), (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    folded = jax.nn.relu(y + units[0].bias)
    np.testing.assert_allclose(folded, convert.forward(model, x).activations[0], atol=1e-5)


def test_limits_are_percentiles_of_all_values() -> None:
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(1, 1, rngs=rngs), jax.nn.relu, nnx.Linear(1, 2, rngs=rngs))
    model.layers[0].kernel[...], model.layers[0].bias[...] = jnp.ones((1, 1)), jnp.zeros(1)
    x = np.random.default_rng(0).permutation(np.arange(1000, dtype=np.float32))[:, None]
    assert from_data(model, x) == [999]
    assert from_data(model, x, fraction=0.5) == [499.5]
    assert from_data(model, x, percentile=99.0, batch=30) == [989]  # ten values lie above
    with pytest.raises(ValueError, match="must exceed 0 somewhere"):
        from_data(model, -x)


def test_the_running_largest_activation_is_the_average_of_batches() -> None:
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(nnx.Linear(1, 1, rngs=rngs), jax.nn.relu, nnx.Linear(1, 2, rngs=rngs))
    model.layers[0].kernel[...], model.layers[0].bias[...] = jnp.ones((1, 1)), jnp.zeros(1)
    x = np.array([[1.0], [3.0], [10.0], [2.0], [5.0]], np.float32)
    assert convert.running_largest(model, x, batch=2) == pytest.approx([(0.9 * 3 + 1) * 0.9 + 0.5])
    assert convert.convert(model, x, "running_max").limits["hidden0"] == pytest.approx(10.0)  # one batch of a hundred


def test_an_entry_of_the_methods_is_read() -> None:
    assert entry("max+half") == ("max", 1.0, 0.5)
    assert entry("running_max") == ("running_max", 1.0, None)
    assert entry("0.25+half") == ("max", 0.25, 0.5)


def test_signed_neurons_send_what_the_deep_network_says_where_others_send_too_much() -> None:
    model = nnx.Sequential(
        nnx.Linear(16, 24, rngs=nnx.Rngs(1)), ClipFloor(8, 0.6), nnx.Linear(24, 24, rngs=nnx.Rngs(2)),
        ClipFloor(8, 0.6), nnx.Linear(24, 4, rngs=nnx.Rngs(3)),
    )  # fmt: skip
    x = images(60, shape=(16,))
    errors = {}
    for signed in (False, True):
        made = convert.convert(model, x, "qcfs", signed_neurons=signed)
        errors[signed] = [row.error for row in convert.match_layers(model, made.stack, made.limits, x, 8)]
    assert errors[True][0] == pytest.approx(errors[False][0])  # constant currents are sent alike
    assert errors[True][1] < 0.5 * errors[False][1]


def test_windows_that_do_not_pad_lose_the_border() -> None:
    units = read(convert.deep_conv((10, 10, 1), (5, 6), 4, key=KEY, padding="VALID"))
    assert units[-1].kernel.shape == (1 * 1 * 6, 4)  # 10 - 2 = 8, 4, 4 - 2 = 2, 1
    assert {unit.padding for unit in units[:-1]} == {"VALID"}


@pytest.mark.slow
def test_calibration_makes_mean_rates_those_of_the_activations() -> None:
    model, x = NETWORKS["conv"](), images(40)
    plain = convert.convert(model, x, "percentile", percentile=99.0)
    for potential in (False, True):
        made = convert.convert(model, x, "calibrated", percentile=99.0, steps=8, potential=potential)
        before = convert.match_layers(model, plain.stack, plain.limits, x, 8)
        after = convert.match_layers(model, made.stack, made.limits, x, 8)
        assert all(abs(b.bias) < 0.5 * abs(a.bias) for a, b in zip(before[:-1], after[:-1], strict=True))


@pytest.mark.parametrize("kind", ["rate", pytest.param("latency", marks=pytest.mark.slow), "address"])
def test_every_kind_of_input_carries_the_image(kind: str) -> None:
    model, x = NETWORKS["dense"](), images()
    made = convert.convert(model, x, "max")
    rows = convert.match_layers(model, made.stack, made.limits, x, 256, kind=kind, key=KEY, draws=256 * 32)
    # a latency code delivers each value in one step, and a neuron sends at most one spike for it
    assert rows[0].correlation > (0.3 if kind == "latency" else 0.95)


@pytest.mark.slow
def test_max_pooling_is_exact_by_neurons_and_too_large_by_the_logical_or() -> None:
    model, x = noisy_norms(convert.deep_conv(IMAGE, (5, 6), 4, key=KEY, pool="max")), images()
    exact, cheap = (convert.convert(model, x, "max", max_pool=kind) for kind in ("exact", "or"))
    assert list(exact.limits) == list(cheap.limits) == ["conv0", "conv1"]
    assert exact.stack.names == ("conv0", "pool1_pairs", "pool1_max", "conv1", "pool2_pairs", "pool2_max", "readout")
    one, other = (convert.match_layers(model, made.stack, made.limits, x, 256) for made in (exact, cheap))
    assert min(row.correlation for row in one) > 0.99
    assert abs(one[1].bias) < 0.2 * abs(other[1].bias)
    with pytest.raises(ValueError, match="one of exact, or, got 'soft'"):
        convert.convert(model, x, "max", max_pool="soft")


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ((nnx.Linear(4, 3, rngs=nnx.Rngs(0)), jax.nn.gelu, nnx.Linear(3, 2, rngs=nnx.Rngs(0))), "got gelu"),
        ((nnx.Linear(4, 3, rngs=nnx.Rngs(0)), jax.nn.relu), "the last layer gives logits"),
        ((nnx.Linear(4, 3, rngs=nnx.Rngs(0)), nnx.Linear(3, 2, rngs=nnx.Rngs(0))), "followed by relu"),
        ((nnx.BatchNorm(4, rngs=nnx.Rngs(0)), nnx.Linear(4, 2, rngs=nnx.Rngs(0))), "right before it"),
        ((Flatten(),), "needs a Linear or Conv"),
        ((nnx.Conv(1, 2, (3, 3), feature_group_count=1, kernel_dilation=2, rngs=nnx.Rngs(0)),), "dilation"),
    ],
)
def test_a_network_without_a_spiking_counterpart_gets_a_sentence(modules: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(nnx.Sequential(*modules))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "one of max, running_max, percentile, qcfs, calibrated, got 'magic'"),
        ({"method": "qcfs"}, "ClipFloor activations, got a network with relu"),
        ({"method": "max", "fraction": 0.0}, "fraction in"),
        ({"method": "max", "signed_neurons": True, "noise": Logistic(0.2)}, "signed neurons are deterministic"),
    ],
)
def test_options_of_conversion_get_a_sentence(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert.convert(NETWORKS["dense"](), images(), **options)


def test_a_residual_that_cannot_be_joined_gets_a_sentence() -> None:
    rngs = nnx.Rngs(0)
    body = nnx.Sequential(nnx.Conv(2, 2, (3, 3), strides=2, rngs=rngs))
    with pytest.raises(ValueError, match="without strides"):
        read(nnx.Sequential(Residual(body), jax.nn.relu, Flatten(), nnx.Linear(32, 2, rngs=rngs)))
    with pytest.raises(ValueError, match="1 x 1"):
        read(nnx.Sequential(Residual(body, nnx.Conv(2, 2, (3, 3), strides=2, rngs=rngs)), jax.nn.relu))


@pytest.mark.parametrize("sparse", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_deep_network_learns_from_dense_and_from_sparse_rows(sparse: bool) -> None:
    from scipy.sparse import csr_array

    split = data.load("digits")
    x = split.train.x.reshape(len(split.train.x), -1)
    arrays = data.Arrays(csr_array(x) if sparse else x, split.train.y)
    model = convert.deep_mlp(64, (32,), 10, key=KEY, dropout=0.1)
    *_, (epoch, learned, _, _) = learning.fit_deep(
        model, arrays, epochs=6, batch_size=64, root=rng.root(0), learning_rate=2e-2
    )
    assert epoch == 6
    assert learning.accuracy(learned, arrays) > 0.92
    assert learning.accuracy(model, arrays) < 0.5  # the network passed in is as it was


@pytest.mark.slow
def test_batch_norm_learns_its_statistics() -> None:
    split = data.load("digits")
    arrays = data.Arrays(split.train.x.reshape(-1, 8, 8, 1), split.train.y)
    model = convert.deep_conv((8, 8, 1), (8,), 10, key=KEY)
    *_, (_, learned, _, _) = learning.fit_deep(
        model, arrays, epochs=4, batch_size=64, root=rng.root(0), learning_rate=1e-2
    )
    assert learning.accuracy(learned, arrays) > 0.9
    assert np.abs(learned.layers[1].mean[...]).max() > 0.01
    made = convert.convert(learned, arrays.x[:200], "percentile")
    rows = convert.match_layers(learned, made.stack, made.limits, arrays.x[:100], 256)
    assert min(row.correlation for row in rows) > 0.99


def test_a_pool_counts_among_the_layers_of_a_network() -> None:
    units = read(convert.deep_conv(IMAGE, (5,), 4, key=KEY))
    assert [len(unit.before) for unit in units] == [0, 1]
    assert isinstance(units[1].before[0], Pool)


@pytest.mark.parametrize("sparse", [pytest.param(False, marks=pytest.mark.slow), True])
def test_rate_coded_runs_are_those_of_the_time_loop(sparse: bool) -> None:
    from scipy.sparse import csr_array

    model = convert.deep_mlp(128, (20,), 4, key=KEY)
    x = (images(12, shape=(128,)) < 0.1).astype(np.float32)  # ones spike at every step: nothing is left to chance
    made = convert.convert(model, x, "max")
    given = convert.sparse_rows(csr_array(x)) if sparse else jnp.asarray(x)
    ran = convert.rate_coded(made.stack, given, 6, KEY)
    outputs, _, spikes = dsnn.unroll(made.stack, jnp.asarray(x), steps=6, record=lambda _, s: s)
    np.testing.assert_allclose(ran.logits, made.stack.logits(outputs), atol=1e-5)
    np.testing.assert_allclose(ran.events["hidden0"], np.tile(x.mean(0), (6, 1)), atol=1e-6)
    np.testing.assert_allclose(ran.events["readout"], spikes["hidden0"].mean(1), atol=1e-6)
    records = convert.rate_records(made.stack, ran.events, 3)
    assert records[0].events.sum() == pytest.approx(3 * x.sum() / 12, rel=1e-5)
    assert records[1].kind == "IF"


def test_sparse_rows_hold_every_value_once() -> None:
    from scipy.sparse import csr_array

    dense = np.array([[0, 2, 0, 3, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 4]], np.float32)
    rows = convert.sparse_rows(csr_array(dense))
    back = np.zeros_like(dense)
    np.add.at(back, (np.arange(3)[:, None], np.asarray(rows.address)), np.asarray(rows.value))
    np.testing.assert_array_equal(back, dense)
    assert rows.value.shape == (3, 2)
    with pytest.raises(ValueError, match="longest row, 2 nonzero values, got 1"):
        convert.sparse_rows(csr_array(dense), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "snn"}, "convert.method must be one of max, running_max, percentile, qcfs, calibrated, got 'snn'"),
        ({"sampling": "sobol"}, "convert.sampling must be one of independent, spread"),
        ({"levels": 0}, "convert.levels must be at least 1, got 0"),
        ({"dropout": 1.0}, "convert.dropout must be in"),
        ({"draws": [0]}, "at least 1"),
        ({"methods": ["median"]}, "a fraction in"),
        ({"methods": ["median+half"]}, "got 'median'"),
        ({"padding": "FULL"}, "one of SAME, VALID, got 'FULL'"),
        ({"l2": -1.0}, "l2, examples and match not negative"),
    ],
)
def test_settings_get_a_sentence(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert.ConvertConfig(**options)


def test_prior_is_centred_on_the_converted_network() -> None:
    from dsnn import parameters
    from dsnn.bayes import priors

    made = convert.convert(NETWORKS["dense"](), images(), "max")
    template, params = parameters.split(made.stack)
    prior = priors.centred(template, params, 0.5, 0.1)
    kernel = prior("hidden1.synapse.kernel", params["hidden1.synapse.kernel"].shape)
    np.testing.assert_array_equal(kernel.mean, params["hidden1.synapse.kernel"])
    np.testing.assert_allclose(kernel.variance, 0.25 / 20, rtol=1e-5)
    bias = prior("hidden1.synapse.bias", params["hidden1.synapse.bias"].shape)
    np.testing.assert_allclose(bias.variance, 0.01, rtol=1e-5)
