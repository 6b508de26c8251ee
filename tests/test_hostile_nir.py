"""NIR files and graphs of others: what is odd is read as it is meant, what is hostile gets one sentence."""

import itertools
import resource
import time

import h5py
import jax.numpy as jnp
import nir as official
import numpy as np
import pytest

import dsnn
from dsnn import nir

DT = 1e-4
RNG = np.random.default_rng(0)


def chain(nodes, inputs, outputs):
    """Returns a chain of nodes by name, between an Input and an Output of these shapes."""
    every = {"input": official.Input(np.array(inputs)), **nodes, "output": official.Output(np.array(outputs))}
    names = list(every)
    return official.NIRGraph(every, list(itertools.pairwise(names)), type_check=False)


def lif(size, threshold=0.3):
    one = np.ones(size)
    return official.LIF(5e-3 * one, one, 0 * one, threshold * one)


WEIGHT = RNG.normal(size=(5, 6))


@pytest.mark.parametrize("depth", [1, 3])
def test_f8_a_leading_axis_of_one_is_a_batch(depth):
    lead = [1] * 1
    plain = chain({"a": official.Linear(WEIGHT), "b": lif(5)}, [6], [5])
    traced = chain({"a": official.Linear(WEIGHT), "b": lif(5)}, [*lead, 6], [*lead, 5])
    traced.nodes["b"].tau = traced.nodes["b"].tau[None]
    for _ in range(depth - 1):
        traced = chain({"inner": traced}, [1, 6], [1, 5])
    xs = jnp.asarray(10 * RNG.normal(size=(30, 2, 6)), jnp.float32)
    read, meant = nir.from_nir(traced, dt=DT), nir.from_nir(plain, dt=DT)
    assert read.in_shape == (6,)
    out = dsnn.unroll(read, xs)[0]
    assert np.array_equal(out, dsnn.unroll(meant, xs)[0])
    assert 0 < out.mean() < 1


def test_f8_one_channel_stays_a_channel_where_it_is_one():
    convolution = official.Conv1d(6, RNG.normal(size=(2, 1, 3)), 1, 0, 1, 1, np.zeros(2))
    assert nir.from_nir(chain({"a": convolution}, [1, 6], [2, 4]), dt=DT).in_shape == (6, 1)
    image = official.Conv2d((5, 5), RNG.normal(size=(2, 1, 3, 3)), 1, 0, 1, 1, np.zeros(2))
    assert nir.from_nir(chain({"a": image}, [1, 1, 5, 5], [1, 2, 3, 3]), dt=DT).in_shape == (5, 5, 1)
    with pytest.raises(nir.NIRError, match=r"'a' must get 6 values, got shape \(2, 6\)"):
        nir.from_nir(chain({"a": official.Linear(WEIGHT)}, [2, 6], [5]), dt=DT)


NAMES = (
    "items",
    "__class__",
    "keys",
    "_pytree__state",
    "a/b",
    "node_items",
    "update",
    "1",
    "self",
    "in_shape",
    "class",
)


def test_f18_nodes_have_any_name(tmp_path):
    sizes = np.linspace(6, 4, len(NAMES) + 1).astype(int)
    kernels = [RNG.normal(size=(b, a)) for a, b in itertools.pairwise(sizes)]
    plain, odd = {}, {}
    for n, (name, kernel) in enumerate(zip(NAMES, kernels, strict=True)):
        plain |= {f"w{n}": official.Linear(kernel), f"n{n}": lif(len(kernel))}
        odd |= {name: official.Linear(kernel), f"{name} cell": lif(len(kernel))}
    one, two = (nir.from_nir(chain(nodes, [6], [4]), dt=DT) for nodes in (plain, odd))
    xs = jnp.asarray(20 * RNG.normal(size=(40, 2, 6)), jnp.float32)
    assert np.array_equal(dsnn.unroll(one, xs)[0], dsnn.unroll(two, xs)[0])
    assert list(two.to_dict()["nodes"]) == [*two.order]
    assert "items: Linear" in repr(two)
    stacks = nir.stack(one), nir.stack(two)
    assert np.array_equal(*(dsnn.unroll(stack, xs)[0] for stack in stacks))
    assert len(stacks[1].names) == len(NAMES)
    inner = [n for n in NAMES if "/" not in n][:2]
    short = nir.from_nir(chain({inner[0]: official.Linear(WEIGHT), inner[1]: lif(5)}, [6], [5]), dt=DT)
    nir.save(short, tmp_path / "a.nir")
    again = nir.load(tmp_path / "a.nir", dt=DT)
    assert np.array_equal(dsnn.unroll(again, xs)[0], dsnn.unroll(short, xs)[0])


@pytest.mark.parametrize("dt", [np.float32(1), np.float64(1e-3), np.array(1e-3), jnp.float32(1e-3), np.int64(1), 1])
def test_f18_a_step_of_any_library(dt):
    slow = official.LIF(np.full(6, 20.0), np.ones(6), np.zeros(6), np.ones(6))
    read = nir.from_nir(chain({"b": slow}, [6], [6]), dt=dt)
    assert read.clock.dt == float(dt)
    assert nir.to_nir(read).nodes["b"].tau[0] == 20.0


@pytest.mark.parametrize("dt", [True, 0, -1.0, np.nan, np.inf, 10**400, None])
def test_f18_what_is_no_step_gets_a_sentence(dt):
    with pytest.raises(nir.NIRError, match=r"dt must be .*\.$"):
        nir.from_nir(chain({"b": lif(6)}, [6], [6]), dt=dt)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_f18_a_recurrent_affine_becomes_a_stack(nested, bias):
    """What snnTorch writes of an RSynaptic whose recurrent product has a bias, against its recurrence by hand."""
    one, back, shift = np.ones(5), 0.3 * RNG.normal(size=(5, 5)), 0.2 * RNG.random(5) + 0.1
    alpha, beta = 0.8, 0.9
    cell = official.CubaLIF(
        DT / (1 - alpha) * one,
        DT / (1 - beta) * one,
        1 / (1 - beta) * one,
        0 * one,
        0.7 * one,
        w_in=1 / (1 - alpha) * one,
    )
    wires = official.Affine(back, shift) if bias else official.Linear(back)
    inner = {"lif": cell, "w_rec": wires}
    loop = [("lif", "w_rec"), ("w_rec", "lif")]
    front = official.Affine(WEIGHT, 0.1 * RNG.normal(size=5))
    if nested:
        ends = {"input": official.Input(np.array([5])), "output": official.Output(np.array([5]))}
        block = official.NIRGraph({**ends, **inner}, [("input", "lif"), *loop, ("lif", "output")], type_check=False)
        graph = chain({"0": front, "1": block}, [6], [5])
    else:
        graph = chain({"0": front, "lif": cell}, [6], [5])
        graph.nodes["w_rec"] = wires
        graph.edges += loop
    read = nir.from_nir(graph, dt=DT)
    xs = RNG.normal(size=(50, 6)).astype(np.float32)
    current, v, s, expected = np.zeros(5), np.zeros(5), np.zeros(5), []
    for x in xs:
        current = alpha * current + front.weight @ x + front.bias + back @ s + shift * bias
        v = beta * v + current
        s = np.float64(v > 0.7)
        v = np.where(s > 0, 0.0, v)
        expected.append(s)
    assert 0.05 < np.mean(expected) < 0.95
    assert np.array_equal(dsnn.unroll(read, jnp.asarray(xs)[:, None])[0][:, 0], expected)
    stack = nir.stack(read)
    assert np.array_equal(dsnn.unroll(stack, jnp.asarray(xs)[:, None])[0][:, 0], expected)
    assert dict(stack.layers())["layer0"].recurrent is not None


# --- files


def planted(change, tmp_path):
    path = tmp_path / "bad.nir"
    official.write(path, chain({"a": official.Affine(WEIGHT, np.zeros(5)), "b": lif(5)}, [6], [5]))
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def put(name, value, **options):
    def change(file):
        if name in file:
            del file[name]
        if options:
            file.create_dataset(name, **{"data": value, **options} if value is not None else options)
        else:
            file[name] = value

    return change


def referred(file):
    put("node/nodes/a/weight", np.array([file["node"].ref], dtype=h5py.ref_dtype))(file)


def many(file):
    group = file.create_group("node/nodes/a/metadata")
    for n in range(30_000):
        group[f"{n}"] = file["node/type"]


def doubling(file):
    below = file["node/nodes/a"]
    for n in range(20):
        group = file.create_group(f"level{n}")
        group["one"] = group["two"] = below
        below = group
    file["node/nodes/c"] = below


N = "node/nodes/"
HOSTILE = {
    "node is a number": put("node", 3.0),
    "nodes is a number": put("node/nodes", 3.0),
    "a node is a number": put(N + "a", 3.0),
    "a node is text": put(N + "a", "LIF"),
    "edges are a number": put("node/edges", 3.0),
    "edges are numbers": put("node/edges", np.ones((3, 2))),
    "edges are text": put("node/edges", "ab"),
    "edges of three": put("node/edges", [["input", "a", "b"]]),
    "edges are a group": lambda f: (
        put("node/edges", "x")(f),
        f.__delitem__("node/edges"),
        f.create_group("node/edges"),
    ),
    "type is a number": put(N + "a/type", 3),
    "type is a list": put(N + "a/type", ["Affine", "LIF"]),
    "metadata is a number": put(N + "a/metadata", 3.0),
    "metadata of the graph is text": put("node/metadata", "x"),
    "text of half a gigabyte": put(N + "a/type", None, shape=(4,), dtype="S536870912", chunks=(1,)),
    "one text of half a gigabyte": put(N + "a/type", None, shape=(), dtype="S536870912"),
    "many wide texts": put("node/edges", None, shape=(1 << 20, 2), dtype="S65536", chunks=(1, 1)),
    "a long text": put(N + "a/type", "x" * 70_000),
    "huge": put(N + "a/weight", None, shape=(1 << 20, 1 << 20), dtype="f4", chunks=(64, 64)),
    "a huge chunk": put(
        N + "a/weight", None, shape=(5, 6), maxshape=(None, None), dtype="f4", chunks=(1 << 15, 1 << 14)
    ),
    "an empty data set": put(N + "a/weight", h5py.Empty("f4")),
    "no values": put(N + "a/weight", np.zeros((0, 6))),
    "references": referred,
    "records": put(N + "a/weight", np.zeros(3, [("a", "f4")])),
    "complex": put(N + "a/weight", np.ones((5, 6), complex)),
    "beyond single precision": put(N + "a/weight", np.full((5, 6), 1e300)),
    "external storage": put(N + "a/weight", None, shape=(20,), dtype="u1", external=[("/etc/passwd", 0, 20)]),
    "a plug-in": put(
        N + "a/weight", None, shape=(8,), dtype="u1", chunks=(8,), compression=32_015, allow_unknown_filter=True
    ),
    "a soft link to a node": put(N + "a", h5py.SoftLink("/node/nodes/b")),
    "a link above": lambda f: (f.move("node/nodes", "elsewhere"), put("node/nodes", h5py.SoftLink("/elsewhere"))(f)),
    "node is a link": lambda f: (f.move("node", "elsewhere"), put("node", h5py.ExternalLink("/etc/passwd", "/"))(f)),
    "a type": lambda f: f.__setitem__(N + "a/extra", np.dtype("f4")),
    "many": many,
    "doubling groups": doubling,
    "an input of a trillion": put(N + "input/shape", np.array([1 << 40])),
    "an input of 2^31": put(N + "input/shape", np.array([1 << 30, 4])),
    "an input of none": put(N + "input/shape", np.array([0])),
    "a negative input": put(N + "input/shape", np.array([-6])),
    "half an input": put(N + "input/shape", np.array([6.5])),
    "an input of two axes": put(N + "input/shape", np.array([[6, 1], [1, 1]])),
    "an empty name": lambda f: None,
}
EXPECTED = {"node is a number": "group 'node'", "a node is a number": "'a'", "text of half a gigabyte": "width"}


@pytest.mark.parametrize("name", [n for n in HOSTILE if n != "an empty name"])
def test_r15_a_hostile_nir_file_gets_a_sentence_soon_and_in_little_memory(name, tmp_path):
    path = planted(HOSTILE[name], tmp_path)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(nir.NIRError) as said:
        nir.load(path, dt=DT)
    assert str(said.value).endswith(".")
    assert str(said.value).isprintable()
    assert EXPECTED.get(name, "") in str(said.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"type": "Delay", "delay": np.full(6, 1e30)}, "at most 100000 steps"),
        ({"type": "Flatten", "start_dim": np.array([0, 1]), "end_dim": 0}, "one number"),
        ({"type": "Flatten", "start_dim": 0.5, "end_dim": 0}, "integers"),
        ({"type": "Scale", "scale": [[1.0], [1.0, 2.0]]}, "must be numbers"),
        (
            {"type": "LIF", "tau": 1.0, "r": 1.0, "v_leak": 0.0, "v_threshold": 1.0, "metadata": {"dsnn": "[" * 5000}},
            "nested",
        ),
        ({"type": "LIF", "tau": 1.0, "r": 3e38, "v_leak": 0.0, "v_threshold": -1.0, "metadata": []}, "given by name"),
        ({"type": "LI", "tau": 1e-310, "r": 1.0, "v_leak": 0.0}, "at least dt"),
        (
            {
                "type": "LIF",
                "tau": 1.0,
                "r": 1.0,
                "v_leak": 0.0,
                "v_threshold": 1.0,
                "metadata": {"dsnn": '{"refractory": []}'},
            },
            "'it'",
        ),
        (
            {
                "type": "LIF",
                "tau": 1.0,
                "r": 1.0,
                "v_leak": 0.0,
                "v_threshold": 1.0,
                "metadata": {"dsnn": '{"surrogate": 3}'},
            },
            "'it'",
        ),
        ({"type": "NIRGraph", "nodes": 3}, "with nodes"),
        ({"type": ["LIF"]}, "unknown type"),
        (None, "by name"),
        ("LIF", "by name"),
    ],
)
def test_r15_a_node_that_makes_no_sense_gets_a_sentence(node, words):
    nodes = {"in": {"type": "Input", "shape": [6]}, "it": node, "out": {"type": "Output", "shape": [6]}}
    graph = {"type": "NIRGraph", "nodes": nodes, "edges": [("in", "it"), ("it", "out")]}
    with pytest.raises(nir.NIRError, match=words) as said:
        nir.from_nir(graph, dt=1e-3)
    assert str(said.value).isprintable()


def test_r15_graphs_of_ten_thousand_nodes_are_ordered_soon():
    nodes = {"in": {"type": "Input", "shape": [1]}, "out": {"type": "Output", "shape": [1]}}
    names = [f"n{n}" for n in range(9000)]
    nodes |= {name: {"type": "Flatten", "start_dim": 0, "end_dim": 0} for name in names}
    edges = list(zip(["in", *names], [*names, "out"], strict=True)) + [(name, "n0") for name in names[1:]]
    start = time.perf_counter()
    with pytest.raises(nir.NIRError, match="must pass through a neuron or a delay"):
        nir.from_nir({"nodes": nodes, "edges": edges}, dt=1.0)
    assert time.perf_counter() - start < 10
