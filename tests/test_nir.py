"""NIR both ways: every node bit for bit and trace for trace, files that cannot be trusted, and other frameworks."""

import json
import os
import subprocess
from pathlib import Path

import h5py
import jax
import jax.numpy as jnp
import nir as official
import numpy as np
import pytest

import dsnn
from dsnn import nir, parameters
from dsnn.cells import LI, LIF, AdEx, CuBaLIF
from dsnn.networks.compact import compact
from dsnn.networks.layers import Conv, Dense, Layer
from dsnn.networks.stack import Stack, convnet, mlp
from dsnn.nir.load import read

DT = 1e-3
RNG = np.random.default_rng(0)
HERE = Path(__file__).parent


def arrays(*names, shape=(6,), **ranges):
    return {name: RNG.uniform(*ranges.get(name, (0.5, 1.5)), shape) for name in names}


TAU = {"tau": (0.004, 0.02), "tau_mem": (0.004, 0.02), "tau_syn": (0.002, 0.01), "v_leak": (-0.1, 0.1)}
NODES = {
    "Linear": official.Linear(RNG.normal(size=(4, 6))),
    "Affine": official.Affine(RNG.normal(size=(4, 6)), RNG.normal(size=4)),
    "Scale": official.Scale(RNG.normal(size=6)),
    "Threshold": official.Threshold(RNG.normal(size=6)),
    "Delay": official.Delay(np.array([0.0, 1, 2, 3, 1, 0]) * DT),
    "I": official.I(RNG.uniform(1, 50, 6)),
    "LI": official.LI(**arrays("tau", "r", "v_leak", **TAU)),
    "IF": official.IF(np.full(6, 300.0), **arrays("v_threshold", "v_reset", v_reset=(-0.3, 0.3))),
    "LIF": official.LIF(
        **arrays("tau", "r", "v_leak", "v_threshold", "v_reset", **TAU, v_threshold=(0.2, 0.5), v_reset=(-0.3, 0.1))
    ),
    "CubaLI": official.CubaLI(**arrays("tau_syn", "tau_mem", "r", "v_leak", "w_in", **TAU)),
    "CubaLIF": official.CubaLIF(
        **arrays(
            "tau_syn",
            "tau_mem",
            "r",
            "v_leak",
            "v_threshold",
            "v_reset",
            "w_in",
            **TAU,
            v_threshold=(0.1, 0.3),
            v_reset=(-0.3, 0.1),
        )
    ),
    "Conv1d": official.Conv1d(7, RNG.normal(size=(4, 1, 3)), 2, 1, 2, 2, RNG.normal(size=4)),
    "Conv2d": official.Conv2d((8, 7), RNG.normal(size=(4, 1, 3, 2)), (2, 1), (1, 2), (1, 2), 2, RNG.normal(size=4)),
    "Conv2d same": official.Conv2d(
        (8, 7), RNG.normal(size=(3, 2, 2, 3)), (1, 1), "same", (1, 1), 1, RNG.normal(size=3)
    ),
    "SumPool2d": official.SumPool2d(np.array([2, 3]), np.array([2, 1]), np.array([1, 0])),
    "AvgPool2d": official.AvgPool2d(np.array([3, 3]), np.array([2, 2]), np.array([1, 1])),
    "Flatten": official.Flatten({"input": np.array([2, 8, 7])}, 0, -1),
}
SHAPES = {
    "Conv1d": (2, 7),
    "Conv2d": (2, 8, 7),
    "Conv2d same": (2, 8, 7),
    "SumPool2d": (2, 8, 7),
    "AvgPool2d": (2, 8, 7),
    "Flatten": (2, 8, 7),
}


def graph(name, node):
    shape = SHAPES.get(name, (6,))
    return official.NIRGraph(
        {
            "in": official.Input(np.array(shape)),
            "it": node,
            "out": official.Output(np.array(result(name, node, np.zeros((1, *shape))).shape[1:])),
        },
        [("in", "it"), ("it", "out")],
        type_check=False,  # nir 1.0 forgets groups and takes every kernel for a square
    )


def convolve(x, w, b, stride, padding, dilation, groups):
    """Returns a convolution of one example by its definition, in any number of axes."""
    axes = w.ndim - 2
    stride, dilation = (np.broadcast_to(n, axes) for n in (stride, dilation))
    if isinstance(padding, str):
        spare = dilation * (np.array(w.shape[2:]) - 1)
        pads = [(n // 2, n - n // 2) for n in spare]
    else:
        pads = [(n, n) for n in np.broadcast_to(padding, axes)]
    x = np.pad(x, [(0, 0), *pads])
    size = (np.array(x.shape[1:]) - dilation * (np.array(w.shape[2:]) - 1) - 1) // stride + 1
    out = np.zeros((len(w), *size))
    per = len(w) // groups
    for o in range(len(w)):
        block = x[(o // per) * w.shape[1] : (o // per + 1) * w.shape[1]]
        for place in np.ndindex(*size):
            spots = [p * s + d * np.arange(n) for p, s, d, n in zip(place, stride, dilation, w.shape[2:], strict=True)]
            out[(o, *place)] = (block[np.ix_(range(len(block)), *spots)] * w[o]).sum() + b[o]
    return out


def pool(x, node):
    x = np.pad(x, [(0, 0), *((p, p) for p in node.padding)])
    size = (np.array(x.shape[1:]) - node.kernel_size) // node.stride + 1
    out = np.zeros((len(x), *size))
    for i, j in np.ndindex(*size):
        y, z = np.array([i, j]) * node.stride
        out[:, i, j] = x[:, y : y + node.kernel_size[0], z : z + node.kernel_size[1]].sum((1, 2))
    return out / np.prod(node.kernel_size) if isinstance(node, official.AvgPool2d) else out


def result(name, node, xs, dt=DT, method="euler"):
    """Returns the outputs of one node for one example ``[time, ...]``, channels-first, in double precision."""

    def moved(tau):
        return dt / tau if method == "euler" else 1 - np.exp(-dt / tau)

    v, i, outs = np.zeros(xs.shape[1:]), np.zeros(xs.shape[1:]), []
    if name in ("LIF", "CubaLIF", "LI", "CubaLI"):
        v = v + node.v_leak
    for t, x in enumerate(xs):
        match type(node).__name__:
            case "Linear":
                out = node.weight @ x
            case "Affine":
                out = node.weight @ x + node.bias
            case "Scale":
                out = node.scale * x
            case "Threshold":
                out = np.float64(x > node.threshold)
            case "Delay":
                steps = np.round(node.delay / dt).astype(int)
                out = np.array([xs[t - s, n] if t >= s else 0.0 for n, s in enumerate(steps)])
            case "Conv1d" | "Conv2d":
                out = convolve(x, node.weight, node.bias, node.stride, node.padding, node.dilation, node.groups)
            case "SumPool2d" | "AvgPool2d":
                out = pool(x, node)
            case "Flatten":
                out = x.reshape(-1)
            case "I":
                out = v = v + dt * node.r * x
            case "LI":
                out = v = v + moved(node.tau) * (node.v_leak - v + node.r * x)
            case "CubaLI":
                i = i + moved(node.tau_syn) * (node.w_in * x - i)
                out = v = v + moved(node.tau_mem) * (node.v_leak - v + node.r * i)
            case kind:
                if kind == "IF":
                    v = v + dt * node.r * x
                elif kind == "LIF":
                    v = v + moved(node.tau) * (node.v_leak - v + node.r * x)
                else:
                    i = i + moved(node.tau_syn) * (node.w_in * x - i)
                    v = v + moved(node.tau_mem) * (node.v_leak - v + node.r * i)
                out = np.float64(v > node.v_threshold)
                v = np.where(out > 0, node.v_reset, v)
        outs.append(out)
    return np.stack(outs)


def to_last(a, lead):
    return np.moveaxis(a, lead, -1) if a.ndim > lead + 1 else a


def same(one, two):
    """Asserts that two nested dictionaries hold the same bits."""
    assert type(one) is type(two) or not isinstance(one, dict)
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            same(one[key], two[key])
    elif isinstance(one, list):
        assert sorted(map(tuple, one)) == sorted(map(tuple, two))
    else:
        a, b = np.asarray(one), np.asarray(two)
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)


@pytest.mark.parametrize("method", ["euler", "exp"])
@pytest.mark.parametrize("name", NODES)
def test_every_node_round_trips_and_runs_as_its_equation_says(name, method, tmp_path):
    node = NODES[name]
    official.write(tmp_path / "a.nir", graph(name, node))
    loaded = nir.load(tmp_path / "a.nir", dt=DT, method=method)
    assert nir.save(loaded, tmp_path / "b.nir") == ()
    same(read(tmp_path / "a.nir"), read(tmp_path / "b.nir"))
    again = nir.load(tmp_path / "b.nir", dt=DT, method=method)
    xs = 2 * np.random.default_rng(1).normal(size=(40, 3, *SHAPES.get(name, (6,)))).astype(np.float32)
    inputs = jnp.asarray(to_last(xs, 2))
    out = dsnn.unroll(loaded, inputs)[0]
    assert np.array_equal(out, dsnn.unroll(again, inputs)[0])
    expected = np.stack([result(name, node, xs[:, n].astype(np.float64), DT, method) for n in range(3)], 1)
    if name in ("IF", "LIF", "CubaLIF"):
        assert 0.01 < expected.mean() < 0.9
    np.testing.assert_allclose(out, to_last(expected, 2), rtol=1e-4, atol=1e-5)


def test_a_changed_weight_is_written_and_the_others_keep_their_bits(tmp_path):
    loaded = nir.from_nir(graph("Affine", NODES["Affine"]), dt=DT)
    loaded.nodes["it"].weight[...] = loaded.nodes["it"].weight[...] * 2
    written = nir.to_nir(loaded).nodes["it"]
    np.testing.assert_allclose(written.weight, 2 * NODES["Affine"].weight, rtol=1e-6)
    assert written.weight.dtype == np.float64
    assert np.array_equal(written.bias, NODES["Affine"].bias)


# --- the published neuron


def test_published_reference_spikes():
    """NIR, paper/01_lif: one LIF neuron, dt = 1e-4, and the spikes that all simulators there agree on."""
    gaps = [6, 15, 4, 3, 0, 2, 1, 2, 0, 1, *[0] * 10, 13, *[0] * 11, 5, 0, 14]
    train = np.concatenate([np.r_[np.zeros(gap), 1] for gap in gaps])[:100]
    xs = np.zeros((1000, 1, 1), np.float32)
    xs[::10, 0, 0] = train
    one = np.ones(1, np.float32)
    lif = official.LIF(one * np.float32(0.0025), one, 0 * one, one * np.float32(0.1))
    published = official.NIRGraph.from_list(official.Affine(one[None], 0 * one), lif)
    for method in ("euler", "exp"):
        out = dsnn.unroll(nir.from_nir(published, dt=1e-4, method=method), jnp.asarray(xs))[0]
        assert np.flatnonzero(out).tolist() == [460, 510, 710, 760]


# --- graphs


def recurrent(delay=None, nested=False):
    """Returns input -> cell <-> weights -> output as a dictionary, by a Delay and in a subgraph where asked for."""
    rng = np.random.default_rng(3)
    lif = NODES["LIF"]
    nodes = {"cell": lif, "back": official.Linear(rng.normal(size=(6, 6)) * 2)}
    edges = [("cell", "back"), ("back", "cell")]
    if delay is not None:
        nodes["late"] = official.Delay(np.full(6, delay))
        edges = [("cell", "late"), ("late", "back"), ("back", "cell")]
    ends = {"input": official.Input(np.array([6])), "output": official.Output(np.array([6]))}
    if not nested:
        every = [("input", "cell"), ("cell", "output"), *edges]
        return official.NIRGraph({**ends, **nodes}, every, type_check=False)
    inner = official.NIRGraph(
        {"i": official.Input(np.array([6])), "o": official.Output(np.array([6])), **nodes},
        [("i", "cell"), ("cell", "o"), *edges],
        type_check=False,
    )
    return official.NIRGraph({**ends, "block": inner}, [("input", "block"), ("block", "output")], type_check=False)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("steps", [None, 1, 3])
def test_recurrent_graphs_hear_their_spikes_when_the_delay_says(nested, steps, tmp_path):
    given = recurrent(None if steps is None else steps * DT, nested)
    official.write(tmp_path / "a.nir", given)
    loaded = nir.load(tmp_path / "a.nir", dt=DT)
    nir.save(loaded, tmp_path / "b.nir")
    same(read(tmp_path / "a.nir"), read(tmp_path / "b.nir"))
    xs = 3 * np.random.default_rng(4).normal(size=(60, 6)).astype(np.float32)
    inner = given.nodes["block"].nodes if nested else given.nodes
    cell, weight = inner["cell"], inner["back"].weight
    v, sent, expected = np.array(cell.v_leak), [np.zeros(6)] * (steps or 1), []
    for x in xs:
        drive = x + weight @ sent[-(steps or 1)]
        v = v + DT / cell.tau * (cell.v_leak - v + cell.r * drive)
        spikes = np.float64(v > cell.v_threshold)
        v = np.where(spikes > 0, cell.v_reset, v)
        sent.append(spikes)
        expected.append(spikes)
    out = dsnn.unroll(loaded, jnp.asarray(xs)[:, None])[0][:, 0]
    assert 0.02 < np.mean(expected) < 0.9
    assert np.array_equal(out, expected)


def test_branches_add_up():
    ones = official.Scale(np.array([2.0, 3.0])), official.Scale(np.array([10.0, 20.0]))
    nodes = {"in": official.Input(np.array([2])), "a": ones[0], "b": ones[1], "out": official.Output(np.array([2]))}
    both = official.NIRGraph(nodes, [("in", "a"), ("in", "b"), ("a", "out"), ("b", "out")])
    out = dsnn.unroll(nir.from_nir(both, dt=DT), jnp.ones((1, 1, 2)))[0]
    assert out.ravel().tolist() == [12, 23]


def test_a_graph_jits_and_has_gradients():
    loaded = nir.from_nir(recurrent(), dt=DT)
    template, params = parameters.split(loaded)
    assert list(params) == ["nodes.back.weight"]
    xs = jnp.asarray(RNG.normal(size=(20, 3, 6)), jnp.float32)
    slope = jax.jit(jax.grad(lambda p: dsnn.unroll(template.build(p), xs)[0].mean()))(params)
    assert np.isfinite(slope["nodes.back.weight"]).all()
    assert np.abs(slope["nodes.back.weight"]).max() > 0
    assert "cell: LIF" in repr(loaded)
    assert "one step before" in repr(loaded)


# --- stacks


def stacks():
    key = jax.random.key(0)
    yield "mlp", mlp((12,), (9, 8), 3, key=key, gain=3.0)
    yield (
        "euler",
        mlp(
            (12,),
            (9,),
            3,
            key=key,
            gain=9.0,
            cell=lambda n: LIF(tau=8.0, method="euler", input_scale="decay", reset="zero"),
        ),
    )
    yield (
        "heterogeneous",
        mlp(
            (12,),
            (9,),
            3,
            key=key,
            gain=3.0,
            cell=lambda n: LIF(np.linspace(0.3, 0.99, n), reset="zero", threshold=np.linspace(0.5, 1, n)),
        ),
    )
    yield "cuba", mlp((12,), (9, 8), 3, key=key, gain=2.0, cell=lambda n: CuBaLIF(0.9, 0.7, reset=-0.2, rest=-0.1))
    yield "recurrent", mlp((12,), (9,), 3, key=key, gain=3.0, recurrent=True)
    yield "perfect", mlp((12,), (9,), 3, key=key, gain=3.0, cell=lambda n: LIF(1.0), readout_beta=1.0)
    yield "memoryless", mlp((12,), (9,), 3, key=key, gain=3.0, cell=lambda n: LIF(0.0))
    yield (
        "late",
        mlp(
            (12,),
            (9,),
            3,
            key=key,
            gain=3.0,
            cell=lambda n: LIF(0.9, reset_timing="next", compare=">=", noise=dsnn.escape.Logistic(0.1)),
        ),
    )
    yield "silent", mlp((12,), (9,), 3, key=key, gain=5.0, cell=lambda n: LIF(0.9, refractory=2))
    yield "conv", convnet((9, 8, 2), (3, 4), (7,), 3, key=key, gain=3.0, window=(3, 3), padding="SAME")
    yield "image mlp", mlp((3, 4, 2), (9,), 3, key=key, gain=3.0)
    strided = Conv((7, 6, 2), 3, key=key, window=(3, 2), strides=(2, 1), padding="VALID", gain=3.0, bias=False)
    even = Conv(strided.out_shape, 3, key=key, window=(2, 2), gain=3.0)
    yield (
        "windows",
        Stack(
            "last",
            a=Layer(strided, LIF(0.8)),
            b=Layer(even, LIF(np.linspace(0.5, 0.9, 3))),
            c=Layer(Dense(even.out_shape, 2, key=key, bias=False), LI(0.9)),
        ),
    )


STACKS = dict(stacks())


@pytest.mark.parametrize("method", ["euler", "exp"])
@pytest.mark.parametrize("name", STACKS)
def test_a_stack_comes_back_with_the_same_outputs(name, method, tmp_path):
    model = STACKS[name]
    if name == "memoryless" and method == "exp":
        with pytest.raises(nir.NIRError, match="forgets at once"):
            nir.save(model, tmp_path / "a.nir", method=method)
        return
    sentences = nir.save(model, tmp_path / "a.nir", method=method)
    loaded = nir.load(tmp_path / "a.nir")
    assert (loaded.clock.dt, loaded.clock.method) == (1e-3, method)
    xs = jnp.asarray(np.random.default_rng(5).random((50, 4, *model.in_shape)) < 0.3, jnp.float32)
    expected = dsnn.unroll(model, xs)[0]
    assert len(np.unique(expected)) > 5
    np.testing.assert_allclose(dsnn.unroll(loaded, xs)[0], expected, rtol=1e-5, atol=1e-5)
    rebuilt = nir.stack(loaded)
    assert rebuilt.names == model.names
    assert rebuilt.readout_kind == model.readout_kind
    assert np.array_equal(dsnn.unroll(rebuilt, xs)[0], expected)
    ours, theirs = (parameters.split(m)[1] for m in (model, rebuilt))
    assert all(np.array_equal(ours[k], theirs[k]) for k in ours)
    official.read(tmp_path / "a.nir", type_check=name not in ("recurrent", "windows"))
    said = " ".join(sentences)
    assert ("subtraction" in said) == (name not in ("euler", "heterogeneous", "cuba"))
    assert ("Logistic noise is left out" in said) == (name == "late")
    assert ("refractory time of 2 ms" in said) == (name == "silent")


def test_noise_of_our_own_file_comes_back():
    loaded = nir.stack(nir.from_nir(nir.to_nir(STACKS["late"])))
    xs, key = jnp.ones((20, 2, 12)) * 0.2, jax.random.key(1)
    assert np.array_equal(dsnn.unroll(loaded, xs, key)[0], dsnn.unroll(STACKS["late"], xs, key)[0])


@pytest.mark.parametrize("name", ["mlp", "conv", "image mlp", "recurrent"])
def test_a_compacted_network_takes_the_whole_input(name):
    model = STACKS[name]
    rng = np.random.default_rng(6)
    inputs = model.in_shape[-1] if name == "conv" else int(np.prod(model.in_shape))
    gates = {"input": jnp.asarray(np.arange(inputs) % 2 == 0, jnp.float32)}
    for layer, module in list(model.layers())[:-1]:
        gates[layer] = jnp.asarray(rng.random(module.out_shape[-1]) < 0.6, jnp.float32)
    small = compact(model, gates)
    loaded = nir.from_nir(nir.to_nir(small))
    assert loaded.in_shape == model.in_shape
    xs = jnp.asarray(rng.random((30, 3, *model.in_shape)) < 0.4, jnp.float32)
    np.testing.assert_allclose(dsnn.unroll(loaded, xs)[0], dsnn.unroll(small, xs)[0], rtol=1e-4, atol=1e-4)


def test_what_nir_has_not_is_a_sentence():
    key = jax.random.key(0)
    for cell, words in ((AdEx(), "AdEx cell"), (CuBaLIF(1.0, 0.5), "beta = 1"), (CuBaLIF(0.5, 1.0), "alpha = 1")):
        with pytest.raises(nir.NIRError, match=words):
            nir.to_nir(mlp((4,), (3,), 2, key=key, cell=lambda n, cell=cell: cell))
    with pytest.raises(nir.NIRError, match="mixture"):
        nir.to_nir(mlp((4,), (2,), 2, key=key, cell=lambda n: LIF(np.array([0.5, 1.0]))))
    branch = official.NIRGraph(
        {"in": official.Input(np.array([6])), "a": NODES["Scale"], "out": official.Output(np.array([6]))},
        [("in", "a"), ("in", "out"), ("a", "out")],
    )
    with pytest.raises(nir.NIRError, match="'in' must lead to one other"):
        nir.stack(nir.from_nir(branch, dt=DT))
    with pytest.raises(nir.NIRError, match="'it' of type Scale has no place"):
        nir.stack(nir.from_nir(graph("Scale", NODES["Scale"]), dt=DT))


# --- files that cannot be trusted


def planted(change, tmp_path):
    path = tmp_path / "bad.nir"
    official.write(path, recurrent())
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replaced(file, name, value):
    del file[name]
    file[name] = value


def cyclic(file):
    del file["node/nodes/cell"]
    group = file.create_group("node/nodes/cell")
    group["type"] = "Scale"
    group["scale"] = np.ones(6)


def virtual(file):
    layout = h5py.VirtualLayout((6, 6), "f8")
    layout[:] = h5py.VirtualSource("other.h5", "weight", (6, 6))
    del file["node/nodes/back/weight"]
    file["node/nodes/back"].create_virtual_dataset("weight", layout)


def huge(file):
    del file["node/nodes/back/weight"]
    file["node/nodes/back"].create_dataset("weight", shape=(1 << 20, 1 << 20), dtype="f4", chunks=(1024, 1024))


BAD = {
    "unknown type": (lambda f: replaced(f, "node/nodes/back/type", "Backdoor"), ["'back'", "'Backdoor'"]),
    "missing field": (lambda f: f.__delitem__("node/nodes/cell/tau"), ["'cell'", "lacks tau"]),
    "unknown field": (lambda f: f.__setitem__("node/nodes/cell/extra", 1.0), ["'cell'", "'extra'"]),
    "nan": (lambda f: replaced(f, "node/nodes/cell/tau", np.full(6, np.nan)), ["tau", "'cell'", "finite"]),
    "negative tau": (lambda f: replaced(f, "node/nodes/cell/tau", np.full(6, -1.0)), ["tau", "'cell'", "positive"]),
    "short tau": (lambda f: replaced(f, "node/nodes/cell/tau", np.full(6, 1e-5)), ["tau", "'cell'", "at least dt"]),
    "text": (lambda f: replaced(f, "node/nodes/back/weight", "many"), ["weight", "'back'", "'many'"]),
    "shape": (lambda f: replaced(f, "node/nodes/back/weight", np.ones((6, 5))), ["'back'", "5 values"]),
    "rank": (lambda f: replaced(f, "node/nodes/back/weight", np.ones(6)), ["'back'", "2 axes"]),
    "neuron shape": (lambda f: replaced(f, "node/nodes/cell/r", np.ones(5)), ["'cell'", "(5,)"]),
    "edge": (lambda f: replaced(f, "node/edges", [["input", "nowhere"]]), ["nowhere"]),
    "twice": (lambda f: replaced(f, "node/edges", [["input", "cell"]] * 2), ["twice"]),
    "no input": (lambda f: f.__delitem__("node/nodes/input"), ["input"]),
    "lost": (lambda f: replaced(f, "node/edges", [["input", "cell"], ["cell", "output"]]), ["'back'", "without input"]),
    "cycle": (cyclic, ["cell", "back", "depend on themselves"]),
    "no graph": (lambda f: f.__delitem__("node/nodes"), ["NIRGraph with nodes"]),
    "no node": (lambda f: f.__delitem__("node"), ["group 'node'"]),
    "soft link": (
        lambda f: replaced(f, "node/nodes/back/weight", h5py.SoftLink("/node/nodes/cell/r")),
        ["weight", "link"],
    ),
    "external link": (
        lambda f: replaced(f, "node/nodes/back/weight", h5py.ExternalLink("/etc/passwd", "/")),
        ["weight", "link"],
    ),
    "virtual": (virtual, ["weight", "another file"]),
    "huge": (huge, ["back/weight", "max_values"]),
    "itself": (lambda f: f["node/nodes"].__setitem__("again", f["node/nodes"]), ["nested", "itself"]),
    "notes": (lambda f: f.create_group("node/nodes/cell/metadata").__setitem__("dsnn", "{"), ["'cell'", "JSON"]),
    "note": (
        lambda f: f.create_group("node/nodes/cell/metadata").__setitem__("dsnn", '{"__class__": "os"}'),
        ["'cell'", "__class__"],
    ),
    "reset": (
        lambda f: f.create_group("node/nodes/cell/metadata").__setitem__("dsnn", '{"reset": "run"}'),
        ["reset", "'run'"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_gets_a_sentence_that_names_the_node(name, tmp_path):
    change, words = BAD[name]
    with pytest.raises(nir.NIRError) as said:
        nir.load(planted(change, tmp_path), dt=DT)
    assert all(word in str(said.value) for word in words), said.value
    assert "\n" not in str(said.value)


def test_what_is_no_nir_file_gets_a_sentence(tmp_path):
    (tmp_path / "text.nir").write_text("hello")
    for path in (tmp_path / "text.nir", tmp_path / "absent.nir", tmp_path):
        with pytest.raises(nir.NIRError, match="must be a NIR file in HDF5"):
            nir.load(path, dt=DT)
    whole = tmp_path / "whole.nir"
    official.write(whole, recurrent())
    whole.write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(nir.NIRError, match="must be a NIR file"):
        nir.load(whole, dt=DT)


def test_options_that_do_not_fit_get_a_sentence():
    given = recurrent()
    for options, words in (({}, "dt must be given"), ({"dt": 0}, "positive"), ({"dt": DT, "method": "rk4"}, "rk4")):
        with pytest.raises(ValueError, match=words):
            nir.from_nir(given, **options)
    with pytest.raises(
        nir.NIRError, match=r"delay of node 'late' must be a multiple of dt = 0.001 seconds, got 0.0015"
    ):
        nir.from_nir(recurrent(1.5e-3), dt=DT)
    assert nir.from_nir(recurrent(1.6e-3), dt=DT, round_delays=True).nodes["late"].longest == 2


# --- other frameworks, by their own importers


def peer_python():
    given = os.environ.get("DSNN_PEERS_PYTHON")
    if not given:
        pytest.skip("set DSNN_PEERS_PYTHON to an interpreter with snnTorch, Norse and nir")
    return given


def zero_lif(beta):
    """An LIF that both importers express: Euler decay, input weighted by 1 - beta (r = 1), reset to 0."""
    return lambda n: LIF(beta, input_scale="decay", reset="zero")


def peer_networks():
    key = jax.random.key(7)
    spiking = lambda size: CuBaLIF(0.9, 0.8, reset="zero")  # noqa: E731
    first, second = Dense(20, 30, key=key, gain=1.0), Dense(30, 10, key=jax.random.key(8), gain=1.0)
    yield "cuba", Stack("sum", a=Layer(first, spiking(30)), b=Layer(second, spiking(10)))
    a = Conv((12, 12, 2), 6, key=key, window=(3, 3), gain=12.0)
    b = Conv(a.out_shape, 8, key=jax.random.key(9), window=(3, 3), strides=(2, 2), padding="VALID", gain=16.0)
    c = Dense(b.out_shape, 10, key=jax.random.key(10), gain=16.0)
    cell = zero_lif(0.9)
    slow = lambda n: LIF(0.9, reset_timing="next")  # noqa: E731
    yield "leaky", Stack("sum", a=Layer(first, slow(30)), b=Layer(second, slow(10)))
    yield "conv", Stack("sum", a=Layer(a, cell(6)), b=Layer(b, cell(8)), c=Layer(c, cell(10)))


PAIRS = [(network, peer) for peer in ("snntorch", "norse", "spikingjelly") for network in ("cuba", "conv")]
LATE = {"spyx": 2}  # a layer of Spyx puts out the spike of its previous membrane


def in_peer(framework, network, xs, tmp_path):
    """Returns the spikes of another framework; of "native", which writes the network, as of those that read it."""
    np.savez(tmp_path / "in.npz", xs=np.moveaxis(xs, -1, 2) if xs.ndim > 3 else xs)
    command = [peer_python(), str(HERE / "peer_nir.py"), framework, network, tmp_path / "in.npz", tmp_path / "out.npz"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(tmp_path / "out.npz")["spikes"]


def compared(name, framework, ours, theirs):
    """Prints and asserts that spikes are equal."""
    late = LATE.get(framework, 0)
    ours, theirs = np.asarray(ours)[: len(ours) - late], theirs[late:]
    assert 0.02 < ours.mean() < 0.7
    said = {"network": name, "framework": framework, "rate": float(ours.mean()), "differ": int((ours != theirs).sum())}
    print(json.dumps(said | {"of": ours.size}))
    assert np.array_equal(ours, theirs)


@pytest.mark.peers
@pytest.mark.parametrize(("name", "framework"), [*PAIRS, ("leaky", "spyx")])
def test_spikes_equal_other_frameworks_on_a_hundred_inputs(name, framework, tmp_path):
    model = dict(peer_networks())[name]
    # kernels on a grid, so that sums of spikes are the same in any order; the neuron is what is compared
    for _, layer in model.layers():
        layer.synapse.kernel[...] = jnp.round(layer.synapse.kernel[...] * 256) / 256
    nir.save(model, tmp_path / "net.nir", dt=1e-4)
    xs = np.float32(np.random.default_rng(11).random((40, 100, *model.in_shape)) < 0.3)
    theirs = in_peer(framework, tmp_path / "net.nir", xs, tmp_path)
    if (name, framework) == ("conv", "spikingjelly"):
        # its LIFNode adds (x - v) / tau, which rounds otherwise than beta v + (1 - beta) x; the preset does as it does
        (tau,) = {
            float(v) for n in nir.load(tmp_path / "net.nir").nodes.values() for v in np.ravel(n.fields().get("tau", ()))
        }
        preset = dsnn.cells.like("spikingjelly.LIFNode", tau=tau / 1e-4)
        model = Stack(
            "sum", **{layer: Layer(made.synapse, preset, before=tuple(made.before)) for layer, made in model.layers()}
        )
        compared("conv as spikingjelly.LIFNode", framework, dsnn.unroll(model, jnp.asarray(xs))[0], theirs)
        return
    compared(name, framework, dsnn.unroll(model, jnp.asarray(xs))[0], theirs)
    read_back = dsnn.unroll(nir.load(tmp_path / "net.nir"), jnp.asarray(xs))[0]
    compared(f"{name}, read back", framework, read_back, theirs)


@pytest.mark.peers
def test_a_network_of_another_framework_fires_the_same_spikes_here(tmp_path):
    xs = np.float32(np.random.default_rng(11).random((40, 100, 20)) < 0.3)
    theirs = in_peer("native", tmp_path / "net.nir", xs, tmp_path)
    compared(
        "SpikingJelly's", "native", dsnn.unroll(nir.load(tmp_path / "net.nir", dt=1e-4), jnp.asarray(xs))[0], theirs
    )
