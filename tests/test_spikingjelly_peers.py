"""Networks of the zoo against SpikingJelly's: equal weights give equal outputs at every step.

Needs an interpreter that has SpikingJelly: ``DSNN_PEERS_PYTHON=/path/to/python pytest -m peers FILE``. Neurons are
`dsnn.cells.like`, whose recurrences are theirs bit for bit, so that spikes are compared as spikes. What is left is the
order of sums in products, which may differ in the last bits of currents.
"""

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsnn
from dsnn.cells import like
from dsnn.networks import TEBN, TdBN, as_network, spikingjelly, zoo
from dsnn.parameters import split
from dsnn.simulate.unroll import unroll_trained

pytestmark = pytest.mark.peers

KEY = jax.random.key(0)
IF, LIF, SOFT, FAST = (
    ("IFNode", {}),
    ("LIFNode", {}),
    ("LIFNode", {"v_reset": None}),
    ("LIFNode", {"tau": 1.5, "decay_input": False}),
)
MEMBRANE = ("LIFNode", {"tau": 4 / 3, "v_threshold": 0.5, "decay_input": False})
"""Of their MS-ResNet."""


def cell(neurons: tuple[str, dict[str, Any]]) -> Callable[[int], Any]:
    """Returns a factory of their neurons."""
    kind, options = neurons
    return lambda _: like(f"spikingjelly.{kind}", **options)


class Case(NamedTuple):
    """One network of theirs, and how it is made here."""

    name: str
    make: str
    options: dict[str, Any]
    ours: Callable[[], Any]
    asked: Mapping[str, Any] = MappingProxyType({})


def csnn() -> Any:
    model = zoo.csnn((8, 8, 1), 5, key=KEY, cell=cell(IF), width=4, norm="batch", readout_beta=0.0)
    model.readout.cell = like("spikingjelly.IFNode")  # their outputs are spikes
    return model


def vgg(norm: str) -> Any:
    return zoo.vgg11((64, 64, 3), 5, key=KEY, cell=cell(IF), width=4, hidden=16, norm=norm, readout_beta=0.0)


def sew(connect: str, neurons: Any, stem: str, places: int, norm: str = "tdbn") -> Any:
    return zoo.sew_resnet18(
        (places, places, 3), 5, key=KEY, cell=cell(neurons), blocks=(1, 1, 1, 1), connect=connect, stem=stem,
        norm=norm, readout_beta=0.0,
    )  # fmt: skip


def learning() -> Any:
    return sew("add", LIF, "cifar", 8, "batch")


def ms() -> Any:
    options = {"blocks": (1, 2, 1), "width": 4, "stem": "imagenet"}
    return zoo.ms_resnet18((32, 32, 3), 5, key=KEY, cell=cell(MEMBRANE), readout_beta=0.0, **options)


SIZES: dict[str, Any] = {"width": 16, "heads": 2, "mlp_ratio": 2}


def spikformer() -> Any:
    options = SIZES | {"depth": 2, "pool": "currents"}
    return zoo.spikformer_4_256((8, 8, 3), 5, key=KEY, cell=cell(LIF), norm="batch", readout_beta=0.0, **options)


def sdt(stem: tuple[int, ...]) -> Any:
    options = SIZES | {"depth": 1, "pool": "overlapping", "stem": stem}
    return zoo.sdt_2_256((8, 8, 3), 5, key=KEY, cell=cell(LIF), readout_beta=0.0, **options)


def sewn(connect: str, neurons: Any, stem: str, places: int, drive: float) -> Case:
    theirs = {"blocks": [1, 1, 1, 1], "connect": connect, "neurons": neurons, "classes": 5, "places": places}
    asked = {"watch": ["layer1.0", "layer2.0"], "drive": drive}
    name = f"sew_{connect.lower()}"
    return Case(name, "sew_net", theirs | {"stem": stem}, lambda: sew(connect.lower(), neurons, stem, places), asked)


SMALL = {"blocks": [1, 1, 1, 1], "connect": "ADD", "classes": 5, "places": 8, "stem": "cifar"}
CSNN = {"channels": 4, "places": 8, "classes": 5}
VGG = {"width": 4, "hidden": 16, "classes": 5, "places": 64}
DEEP = SIZES | {"classes": 5, "places": 8}
CASES = [
    Case("csnn", "csnn", CSNN, csnn),
    Case("csnn_training", "csnn", CSNN, csnn, {"training": True}),
    Case("vgg", "vgg", VGG | {"batch_norm": False}, lambda: vgg("none"), {"drive": 2.0}),
    Case("vgg_bn", "vgg", VGG | {"batch_norm": True}, lambda: vgg("tdbn")),
    sewn("ADD", IF, "imagenet", 32, 1.0),
    sewn("AND", SOFT, "cifar", 8, 4.0),
    sewn("IAND", FAST, "cifar", 8, 1.0),
    Case("learning", "sew_net", SMALL | {"neurons": LIF}, learning, {"training": True}),
    Case("ms", "ms_net", {"blocks": [1, 2, 1], "base_channels": 4, "classes": 5, "places": 32}, ms,
         {"watch": ["layer1.0", "layer2.1"]}),
    Case("spikformer", "spikformer_net", DEEP | {"depth": 2}, spikformer, {"drive": 3.0, "watch": ["blocks.0"]}),
    Case("sdt_0110", "sdt_net", DEEP | {"depth": 1, "pooling": "0110"}, lambda: sdt((2, 3)), {"drive": 2.0}),
    Case("sdt_0011", "sdt_net", DEEP | {"depth": 1, "pooling": "0011"}, lambda: sdt((3, 4)), {"drive": 2.0}),
]  # fmt: skip
NORM = {"alpha": 0.7, "threshold": 0.3, "channels": 6, "places": 3}
STEPWISE = {"steps": 4, "channels": 6, "places": 3}
NORMS = [
    {"name": f"{make}_{training}", "make": make, "options": options, "training": training}
    for make, options in (("tdbn", NORM), ("tebn", STEPWISE))
    for training in (True, False)
]


class Theirs(NamedTuple):
    """What their own code gives: arrays by name, and the folder of its files."""

    arrays: dict[str, np.ndarray]
    folder: Path


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Theirs:
    """Runs their networks once, in their interpreter."""
    python = os.environ.get("DSNN_PEERS_PYTHON", "")
    if not python:
        pytest.skip("needs DSNN_PEERS_PYTHON, an interpreter with spikingjelly")
    folder = tmp_path_factory.mktemp("networks")
    request = [{"name": case.name, "make": case.make, "options": case.options} | case.asked for case in CASES] + NORMS
    (folder / "request.json").write_text(json.dumps(request))
    script = Path(__file__).with_name("peer_networks.py")
    files = [folder / "request.json", folder / "output.npz"]
    subprocess.run([python, script, *files], check=True, capture_output=True, cwd=folder)
    with np.load(files[-1]) as archive:
        return Theirs(dict(archive), folder)


def of(theirs: Theirs, name: str, kind: str = "state") -> dict[str, np.ndarray]:
    """Returns the tensors of a network by their names."""
    prefix = f"{name}/{kind}/"
    return {key.removeprefix(prefix): value for key, value in theirs.arrays.items() if key.startswith(prefix)}


def last(channels_first: np.ndarray) -> np.ndarray:
    """Returns ``[time, batch, ...]`` with channels last."""
    return np.moveaxis(channels_first, 2, -1)


def varied(values: np.ndarray) -> bool:
    """Returns whether there is something to compare: values that differ over time and between examples."""
    return bool(values.std(0).max() > 0 and values.std(1).max() > 0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_equal_weights_give_equal_outputs_at_every_step(case: Case, theirs: Theirs) -> None:
    xs, ys = theirs.arrays[f"{case.name}/xs"], theirs.arrays[f"{case.name}/ys"]
    assert varied(ys)
    model = spikingjelly.load(case.ours(), of(theirs, case.name))
    if case.asked.get("training"):
        outputs, _ = unroll_trained(as_network(model, "a test"), jnp.asarray(last(xs)))
    else:
        outputs, _, _ = dsnn.unroll(model, last(xs))
    np.testing.assert_allclose(outputs, ys, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "module", "part"),
    [
        (f"sew_{connect}", f"layer{stage}.0", f"stage{stage}_block1")
        for connect in ("add", "and", "iand")
        for stage in (1, 2)
    ]
    + [("spikformer", "blocks.0", "block1")],
)
def test_a_block_sends_the_same_spikes(name: str, module: str, part: str, theirs: Theirs) -> None:
    """Of equal spikes, with the shortcut that a block has: none, or one that halves and widens."""
    xs, ys = theirs.arrays[f"{name}/{module}/xs"], theirs.arrays[f"{name}/{module}/ys"]
    assert varied(ys)
    case = next(case for case in CASES if case.name == name)
    model = spikingjelly.load(case.ours(), of(theirs, name))
    outputs, _, _ = dsnn.unroll(getattr(model, part), last(xs))
    np.testing.assert_array_equal(outputs, last(ys))


@pytest.mark.parametrize(("module", "part"), [("layer1.0", "stage1_block1"), ("layer2.1", "stage2_block2")])
def test_a_block_of_currents_gives_the_same_currents(module: str, part: str, theirs: Theirs) -> None:
    xs, ys = theirs.arrays[f"ms/{module}/xs"], theirs.arrays[f"ms/{module}/ys"]
    assert varied(ys)
    model = spikingjelly.load(ms(), of(theirs, "ms"))
    outputs, _, _ = dsnn.unroll(getattr(model, part), last(xs))
    np.testing.assert_allclose(outputs, last(ys), atol=1e-5)


def normed(make: str, state: dict[str, np.ndarray]) -> Any:
    """Returns our norm with the numbers of theirs."""
    if make == "tebn":
        norm: Any = TEBN(STEPWISE["channels"], STEPWISE["steps"])
        norm.by_step[...], norm.scale[...] = jnp.asarray(state["scale"])[:, None], jnp.asarray(state["weight"])
    else:
        norm = TdBN(NORM["channels"], NORM["threshold"], NORM["alpha"])
        norm.scale[...] = jnp.asarray(state["weight"] / (NORM["alpha"] * NORM["threshold"]))
    norm.shift[...] = jnp.asarray(state["bias"])
    norm.mean[...], norm.variance[...] = jnp.asarray(state["running_mean"]), jnp.asarray(state["running_var"])
    return norm


@pytest.mark.parametrize("make", ["tdbn", "tebn"])
@pytest.mark.parametrize("training", [True, False])
def test_norms_are_theirs(make: str, training: bool, theirs: Theirs) -> None:
    """By the statistics of a batch, and by stored ones; afterwards theirs have n / (n - 1) in the variance."""
    name = f"{make}_{training}"
    before, currents = of(theirs, name), jnp.asarray(last(theirs.arrays[f"{name}/xs"]))
    norm, ys = normed(make, before), last(theirs.arrays[f"{name}/ys"])
    if not training:
        np.testing.assert_allclose(norm(currents, jnp.arange(len(currents))), ys, atol=1e-5)
        return
    found, after = norm.trained(currents), of(theirs, name, "after")
    np.testing.assert_allclose(found.currents, ys, atol=1e-5)
    np.testing.assert_allclose(found.statistics["mean"], after["running_mean"], atol=1e-6)
    count = currents.size // currents.shape[-1]
    of_batch = (after["running_var"] - 0.9 * before["running_var"]) * (count - 1) / count
    np.testing.assert_allclose(found.statistics["variance"], 0.9 * before["running_var"] + of_batch, atol=1e-6)


def learned(model: Any, xs: Any) -> tuple[Any, Any]:
    """Returns gradients of the sum of squared means over time, and statistics afterwards, by their names."""
    template, weights = split(as_network(model, "a test"))

    def loss(weights: Any) -> tuple[Any, Any]:
        outputs, statistics = unroll_trained(template.build(weights), xs)
        return jnp.sum(jnp.square(outputs.mean(0))), statistics

    return jax.jit(jax.grad(loss, has_aux=True))(weights)


@pytest.mark.parametrize("name", ["learning", "csnn_training"])
def test_training_is_theirs(name: str, theirs: Theirs) -> None:
    """Statistics after a batch, by the unbiased variance, and gradients of every weight, by their surrogate.

    Where spikes are pooled, many of them are the largest: theirs sends all of a gradient to the first, and here each
    gets its share. So what is in front of a pool has other gradients, and is not compared.
    """
    make, state = next(case.ours for case in CASES if case.name == name), of(theirs, name)
    gradients, statistics = learned(spikingjelly.load(make(), state), jnp.asarray(last(theirs.arrays[f"{name}/xs"])))
    # gradients by their names, as if they were weights, have the axes that ours have
    _, expected = split(as_network(spikingjelly.load(make(), state | of(theirs, name, "gradient")), "a test"))
    assert gradients.keys() == expected.keys()
    compared = [path for path in expected if "conv" not in path]
    assert len(compared) >= 2
    for path in compared:
        largest = np.abs(expected[path]).max()
        assert largest > 0, path
        np.testing.assert_allclose(gradients[path], expected[path], rtol=1e-3, atol=1e-4 * largest, err_msg=path)
    after, _ = split(as_network(spikingjelly.load(make(), of(theirs, name, "after")), "a test"))
    assert statistics.keys() == after.measured.keys()
    for path, (_, wanted) in after.measured.items():
        np.testing.assert_allclose(statistics[path], wanted[...], rtol=1e-5, atol=1e-6, err_msg=path)


def test_files_of_the_library_itself_are_read(theirs: Theirs) -> None:
    """With counters of batches, which are integers and no weights."""
    path = theirs.folder / "output_csnn.safetensors"
    if not path.exists():
        pytest.skip("safetensors is not installed there")
    state = of(theirs, "csnn")
    read = spikingjelly.read_state(path)
    assert set(read) == set(state)
    for name, value in state.items():
        assert read[name].dtype == value.dtype
        np.testing.assert_array_equal(read[name], value)
    spikingjelly.load(csnn(), path)
