"""Sites, the closed-form energy and compaction, against brute force and hand counts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn import escape
from dsnn.bayes.energy import expected_energy
from dsnn.bayes.sites import gate, magnitudes, measure, sites
from dsnn.cells import ALIF, LIF
from dsnn.deploy.activity import records
from dsnn.energy import count, price, profile
from dsnn.networks.compact import compact
from dsnn.networks.stack import Stack, convnet, mlp
from dsnn.parameters import split
from dsnn.simulate.simulator import keep_spikes

KEY = jax.random.key(0)


class Prices:
    """Distinct primes, so that no two mistakes cancel."""

    def event_nj(self, source: str, accounting: str) -> float:
        return {"analog": 7.0, "spikes": 3.0}[source]

    def update_nj(self, kind: str, accounting: str) -> float:
        return {"LIF": 11.0, "LI": 13.0}[kind]


def brute_force(model: Stack, z: dict[str, np.ndarray], events: dict[str, np.ndarray], steps: float) -> float:
    """Counts connection by connection which of them carry how many events."""
    total, names = 0.0, list(model.names)
    for index, name in enumerate(names):
        before = z["input"] if index == 0 else z[names[index - 1]]
        after = z.get(name, np.ones(getattr(model, name).out_shape[-1]))
        cost, times = (7.0, 1.0) if index == 0 else (3.0, steps)
        for i, j in itertools.product(range(len(before)), range(len(after))):
            total += before[i] * after[j] * events[name][i] * cost * times
        if getattr(model, name).recurrent is not None:
            for i, j in itertools.product(range(len(after)), repeat=2):
                total += after[i] * after[j] * events[f"{name}.recurrent"][i] * 3.0 * (steps - 1)
        total += after.sum() * (11.0 if name != "readout" else 13.0) * steps
    return total


@pytest.mark.parametrize("recurrent", [False, True])
def test_expected_energy_is_the_mean_over_all_gate_settings(recurrent: bool) -> None:
    model = mlp((2,), (3, 2), 2, key=KEY, recurrent=recurrent)
    where = sites(model)
    rng = np.random.default_rng(0)
    events = {w.name: jnp.asarray(rng.uniform(size=w.pre_sites)) for w in where.wires}
    open_probability = {n: rng.uniform(size=s) for n, s in where.groups.items()}
    flat = np.concatenate(list(open_probability.values()))
    exact = 0.0
    for bits in itertools.product((0, 1), repeat=len(flat)):
        z = {n: np.asarray(a) for n, a in where.unflatten(jnp.asarray(bits, float)).items()}
        weight = np.prod(np.where(bits, flat, 1 - flat))
        exact += weight * brute_force(model, z, {k: np.asarray(v) for k, v in events.items()}, 4.0)
    ours = expected_energy(where, {n: jnp.asarray(p) for n, p in open_probability.items()}, events, Prices())
    np.testing.assert_allclose(ours.total(4.0), exact, rtol=1e-5)


def test_expected_energy_equals_the_counted_energy_of_the_same_network() -> None:
    """Two roads to one number: the prior's closed form and `dsnn.energy` on what really ran."""
    model = convnet((8, 8, 2), (4,), (6,), 3, key=KEY, gain=4.0, window=(3, 3))
    x = jax.random.uniform(jax.random.key(1), (5, 8, 8, 2))
    _, _, spikes = dsnn.unroll(model, x, None, keep_spikes, steps=7)
    assert float(spikes["conv0"].mean()) > 0.01
    where = sites(model)
    events = measure(where, model, x, spikes, held=True)
    everything = {n: jnp.ones(s) for n, s in where.groups.items()}
    hardware = profile("45nm")
    ours = expected_energy(where, everything, events, hardware).total(7.0)
    ran = records(model, x, spikes, held=True, analog=True)
    counted = price(count(ran), hardware, "updates").total_nj
    np.testing.assert_allclose(ours, counted, rtol=1e-5)


@pytest.mark.parametrize("gate_features", [False, True])
def test_everything_from_everywhere_is_what_is_measured_of_ones(gate_features: bool) -> None:
    model = convnet((12, 12, 2), (4, 3), (6,), 3, key=KEY, window=(3, 3))
    _, _, spikes = dsnn.unroll(model, jnp.ones((2, 12, 12, 2)), None, keep_spikes, steps=3)
    where = sites(model, gate_features=gate_features)
    ones = {name: jnp.ones_like(sent) for name, sent in spikes.items()}
    measured = measure(where, model, jnp.ones((2, 12, 12, 2)), ones, held=True)
    assert measured.keys() == {wire.name for wire in where.wires}
    for wire in where.wires:
        np.testing.assert_allclose(wire.ceaseless(), measured[wire.name], rtol=1e-5, err_msg=wire.name)


def test_dense_energy_agrees_exactly_with_the_count() -> None:
    model = mlp((6,), (8, 5), 3, key=KEY, gain=3.0)
    x = jax.random.bernoulli(jax.random.key(1), 0.5, (5, 6)) * 1.0
    _, _, spikes = dsnn.unroll(model, x, None, keep_spikes, steps=7)
    where = sites(model)
    events = measure(where, model, x, spikes, held=True)
    everything = {n: jnp.ones(s) for n, s in where.groups.items()}
    for accounting in ("arithmetic", "updates"):
        ours = expected_energy(where, everything, events, profile("45nm"), accounting).total(7.0)
        ran = records(model, x, spikes, held=True, analog=True)
        np.testing.assert_allclose(ours, price(count(ran), profile("45nm"), accounting).total_nj, rtol=1e-5)


def gated_networks() -> dict[str, tuple[Stack, tuple[int, ...]]]:
    def cell(neurons: int) -> LIF:
        return LIF(beta=0.8, threshold=jnp.linspace(0.5, 1.0, neurons))

    def adaptive(neurons: int) -> ALIF:
        return ALIF(beta=0.8, learnable=("threshold",), shape=(neurons,))

    return {
        "mlp": (mlp((6,), (9, 7), 3, key=KEY, gain=3.0, cell=cell), (6,)),
        "recurrent": (mlp((6,), (9,), 3, key=KEY, gain=3.0, recurrent=True, cell=adaptive), (6,)),
        "conv": (convnet((12, 12, 2), (4, 5), (6,), 3, key=KEY, gain=5.0, window=(3, 3), cell=cell), (12, 12, 2)),
    }


def lenet() -> Stack:
    """A feature map of 2 x 2 places and 2 channels between a convolution and a dense layer, few enough to enumerate."""
    cell = lambda neurons: LIF(beta=0.8, threshold=jnp.linspace(0.5, 1.0, neurons))  # noqa: E731
    return convnet((6, 6, 1), (2,), (2,), 2, key=KEY, gain=5.0, window=(3, 3), cell=cell)


def test_expected_energy_of_features_is_the_mean_over_all_gate_settings() -> None:
    """A feature sends where its own gate and that of its channel are open; channels are last."""
    where = sites(lenet(), gate_features=True)
    assert where.groups == {"conv0": 2, "features": 8, "hidden0": 2}
    rng = np.random.default_rng(0)
    events = {w.name: rng.uniform(size=w.pre_sites) for w in where.wires}
    p = {n: rng.uniform(size=s) for n, s in where.groups.items()}
    flat, exact = np.concatenate(list(p.values())), 0.0
    fan = 16 * 9 / 36  # of 6 x 6 pixels under a window of 3 x 3
    for bits in itertools.product((0, 1), repeat=len(flat)):
        z = {n: np.asarray(a) for n, a in where.unflatten(jnp.asarray(bits, float)).items()}
        c, f, h = (z[n] for n in ("conv0", "features", "hidden0"))
        once = 7.0 * fan * events["conv0"].sum() * c.sum()
        reads = sum(f[2 * place + k] * c[k] * events["hidden0"][2 * place + k] for place in range(4) for k in range(2))
        step = 3.0 * reads * h.sum() + 11.0 * (16 * c.sum() + h.sum())
        step += 3.0 * (h * events["readout"]).sum() * 2 + 13.0 * 2
        exact += np.prod(np.where(bits, flat, 1 - flat)) * (once + 3.0 * step)
    p_given, e_given = ({n: jnp.asarray(v) for n, v in given.items()} for given in (p, events))
    np.testing.assert_allclose(expected_energy(where, p_given, e_given, Prices()).total(3.0), exact, rtol=1e-5)


def test_closed_features_and_channels_leave_the_network_and_its_outputs_stay() -> None:
    model = lenet()
    where = sites(model, gate_features=True)
    z = {
        "conv0": jnp.asarray([0.7, 0.0]),
        "features": jnp.asarray([0.0, 1.0, 0.5, 0.0, 1.0, 1.0, 0.0, 0.0]),
        "hidden0": jnp.asarray([1.0, 0.6]),
    }
    template, params = split(model)
    masked, small, padded = template.build(gate(where, params, z)), compact(model, z), compact(model, z, multiple=2)
    xs = jax.random.uniform(jax.random.key(1), (6, 4, 6, 6, 1))
    ours, _, spikes = dsnn.unroll(masked, xs, None, keep_spikes)
    assert min(float(spikes[name].mean()) for name in ("conv0", "hidden0")) > 0
    np.testing.assert_allclose(ours, dsnn.unroll(small, xs)[0], atol=1e-5)
    np.testing.assert_allclose(ours, dsnn.unroll(padded, xs)[0], atol=1e-5)
    assert small.hidden0.synapse.in_shape == (2,)  # of the open channel's places 0 to 3: 1 and 2
    assert small.conv0.out_shape == (4, 4, 1)
    # the closed channel's places are open in vain
    np.testing.assert_array_equal(where.reachable(z)["features"], [0, 0, 0.5, 0, 1, 0, 0, 0])
    events = measure(where, model, xs, spikes, held=False)
    assert events["hidden0"].shape == (8,)
    with pytest.raises(ValueError, match="one per value that is read, 8, got 3"):
        compact(model, {"features": jnp.ones(3)})


def test_a_network_thinned_before_has_no_sites_where_it_reads_in_part() -> None:
    small = compact(lenet(), {"features": jnp.asarray([0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0])})
    where = sites(small)
    assert where.groups == {"hidden0": 2}
    wire = next(w for w in where.wires if w.name == "hidden0")
    assert (wire.senders, wire.pre_sites, [ends.group for ends in wire.receivers]) == ((), 5, ["hidden0"])
    x = jax.random.uniform(jax.random.key(1), (4, 6, 6, 1))
    spikes = dsnn.unroll(small, x, None, keep_spikes, steps=3)[2]
    assert measure(where, small, x, spikes, held=True)["hidden0"].shape == (5,)
    with pytest.raises(ValueError, match="'hidden0' reads has been thinned before"):
        compact(small, {"conv0": jnp.asarray([1.0, 0.0])})
    few = compact(mlp((6,), (4,), 2, key=KEY), {"input": jnp.asarray([1.0, 0, 1, 1, 0, 0])})
    assert sites(few).groups == {"hidden0": 4}


def test_a_feature_runs_where_its_channel_does() -> None:
    where = sites(lenet(), gate_features=True)
    p = {"conv0": jnp.asarray([0.5, 0.25]), "features": jnp.full(8, 0.8), "hidden0": jnp.ones(2)}
    np.testing.assert_allclose(where.running(p)["features"], [0.4, 0.2] * 4, rtol=1e-6)
    chosen = {name: jnp.arange(size) > 0 for name, size in where.groups.items()}  # sites to keep, as a mask
    np.testing.assert_array_equal(where.reachable(chosen)["features"], [False, True] * 4)


def test_magnitudes_of_features_and_of_their_channels() -> None:
    model = lenet()
    where = sites(model, gate_features=True)
    params = split(model)[1]
    events = {w.name: jnp.arange(1.0, w.pre_sites + 1) for w in where.wires}
    scores = magnitudes(where, params, events)
    squares = (np.asarray(params["hidden0.synapse.kernel"]) ** 2).sum(1) * np.arange(1.0, 9.0)
    np.testing.assert_allclose(scores["features"], np.sqrt(squares), rtol=1e-6)
    np.testing.assert_allclose(scores["conv0"], np.sqrt([squares[::2].sum(), squares[1::2].sum()]), rtol=1e-6)


def test_features_need_a_feature_map() -> None:
    with pytest.raises(ValueError, match=r"has none, got the layers hidden0, readout; set gates\.features=false"):
        sites(mlp((3,), (4,), 2, key=KEY), gate_features=True)


@pytest.mark.parametrize("name", gated_networks())
def test_compacted_outputs_equal_the_masked_networks(name: str) -> None:
    model, shape = gated_networks()[name]
    where = sites(model)
    rng = np.random.default_rng(1)
    z = {
        n: jnp.asarray(rng.choice([0.0, 0.7, 1.0], size=s).clip(0.7 if s == 2 else 0)) for n, s in where.groups.items()
    }
    if "input" in z:
        z["input"] = z["input"].at[0].set(0.0)
    template, params = split(model)
    masked = template.build(gate(where, params, z))
    small = compact(model, z)
    xs = jax.random.uniform(jax.random.key(1), (6, 4, *shape))
    ours, _, spikes = dsnn.unroll(masked, xs, None, keep_spikes)
    theirs, *_ = dsnn.unroll(small, xs)
    assert min(float(s.mean()) for s in spikes.values() if s.ndim) != 0
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    sizes = {n: int((np.asarray(g) > 0).sum()) for n, g in z.items()}
    padded = compact(model, z, multiple=4)
    np.testing.assert_allclose(ours, dsnn.unroll(padded, xs)[0], atol=1e-5)
    for layer in model.names[:-1]:
        assert getattr(small, layer).out_shape[-1] == sizes[layer]
        whole = getattr(model, layer).out_shape[-1]
        assert getattr(padded, layer).out_shape[-1] == min(-(-sizes[layer] // 4) * 4, whole)
    assert sum(p.size for p in split(small)[1].values()) < sum(p.size for p in params.values())


def test_a_layer_without_open_sites_keeps_a_silent_one() -> None:
    model = mlp((3,), (4,), 2, key=KEY, gain=3.0)
    small = compact(model, {"hidden0": jnp.zeros(4)})
    assert small.hidden0.out_shape == (1,)
    outputs, *_ = dsnn.unroll(small, jnp.ones((5, 1, 3)))
    np.testing.assert_allclose(outputs, 0.0)


def test_compaction_refuses_unknown_groups() -> None:
    with pytest.raises(ValueError, match="readout"):
        compact(mlp((3,), (4,), 2, key=KEY), {"readout": jnp.ones(2)})
    with pytest.raises(ValueError, match="one per neuron, 4, got 3"):
        compact(mlp((3,), (4,), 2, key=KEY), {"hidden0": jnp.ones(3)})


def test_records_count_only_the_steps_that_ran() -> None:
    model = mlp((3,), (4,), 2, key=KEY, gain=4.0, cell=lambda n: LIF(beta=0.9, noise=escape.Logistic(0.1)))
    x = jnp.ones((2, 3))
    _, _, spikes = dsnn.unroll(model, x, None, keep_spikes, steps=6)
    ran = {r.name + type(r).__name__: r for r in records(model, x, spikes, np.asarray([2, 6]), held=True, analog=True)}
    fired = np.asarray(spikes["hidden0"])
    by_hand = (fired[:2, 0].sum() + fired[:6, 1].sum()) / 2
    assert by_hand > 0
    np.testing.assert_allclose(ran["readoutSynapseRecord"].events.sum(), by_hand)
    assert ran["hidden0SynapseRecord"].executions == 1
    np.testing.assert_allclose(ran["hidden0SynapseRecord"].events, 1.0)
    assert ran["hidden0NeuronRecord"].updates == 4
