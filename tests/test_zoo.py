"""Networks by name: published sizes, channels that share a shortcut, and what cannot be meant."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_blocks import STEPS, Ran

import dsnn
from dsnn import energy, resolve
from dsnn.assembly.network import build_model
from dsnn.bayes.energy import expected_energy
from dsnn.bayes.sites import sites
from dsnn.cells import LIF
from dsnn.config import Config, ModelConfig
from dsnn.convert import ConvertConfig
from dsnn.networks import Conv, Layer, SelfAttention, TdBN, as_network, zoo
from dsnn.networks.whole import Whole
from dsnn.networks.wiring import of_run
from dsnn.parameters import split
from dsnn.run import job, schema
from dsnn.simulate.unroll import unroll_trained

KEY = jax.random.key(0)
IMAGENET = ((224, 224, 3), 1000)
DEEP = {"stem": "imagenet"}


def shaped(name: str, in_shape: tuple[int, ...], classes: int, **options: Any) -> Any:
    """A network without its numbers, which nobody has to hold."""
    return nnx.eval_shape(lambda: getattr(zoo, name)(in_shape, classes, key=KEY, **options))


def parameters(model: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def products(model: Any) -> int:
    """Multiply-accumulates of one pass over an image that nothing closes: entries of a kernel times places it is at.

    That counts what a border pads as well, as published numbers do, and neither norms nor pooling.
    """
    layers = {".".join(map(str, path)): one for path, one in nnx.iter_modules(model) if isinstance(one, Layer)}
    total = 0
    for wire in model.wiring().wires:
        if wire.kernel is None:  # signals multiplied: what meets what, wherever it is
            total += wire.senders * wire.receivers * np.size(wire.fan)
            continue
        layer = layers[str(wire.kernel).removesuffix(".synapse.kernel")]
        total += math.prod(layer.synapse.kernel.shape) * math.prod(layer.out_shape[:-1])
    return total


# by hand: 14 x 14 tokens, behind four convolutions which halve, and one for their position; blocks of four projections,
# a perceptron four times as wide, and two products by which each spike meets the 32 channels of its head
TOKENS = 14 * 14
STEM = 9 * (224**2 * 3 * 32 + 112**2 * 32 * 64 + 56**2 * 64 * 128 + 28**2 * 128 * 256 + TOKENS * 256**2)
SPIKFORMER = STEM + 4 * TOKENS * ((4 + 8) * 256**2 + 2 * 256 * 32) + 256 * 1000
# the same of 8 x 8 tokens, where each query meets its own key alone
DVS = 9 * (128**2 * 2 * 32 + 64**2 * 32 * 64 + 32**2 * 64 * 128 + 16**2 * 128 * 256 + 64 * 256**2)
SDT = DVS + 2 * 64 * (12 * 256**2 + 256) + 256 * 11

# name, shape and classes, options, parameters, multiply-accumulates
PUBLISHED = [
    # by hand: 28² 9 C + 14² 9 C² + 49 C 16 C + 16 C 10 with C = 128
    ("csnn", ((28, 28, 1), 10), {}, 13_014_656, 42_670_080),
    ("vgg11", IMAGENET, {}, 132_868_840, 7_609_090_048),
    ("sew_resnet18", IMAGENET, DEEP, 11_689_512, 1_814_073_344),
    ("sew_resnet34", IMAGENET, DEEP, 21_797_672, 3_663_761_408),
    # more than ResNet18 by a 1 x 1 convolution and its norm: the first stage halves, and nothing is pooled
    ("ms_resnet18", IMAGENET, DEEP, 11_689_512 + 64 * 64 + 2 * 64, 1_814_073_344 + 56 * 56 * 64 * 64),
    ("spikformer_4_256", IMAGENET, DEEP, 4_400_392, SPIKFORMER),
    ("spikformer_4_256", IMAGENET, DEEP | {"width": 384, "heads": 12, "depth": 6}, 13_244_824, None),
    ("spikformer_4_256", ((32, 32, 3), 10), {"width": 384, "heads": 12}, 9_310_906, None),
    # printed as 2.57 M, and 10.28 M: with 64 weights a block that their program never uses
    ("sdt_2_256", ((128, 128, 2), 11), DEEP, 2_567_051 - 2 * 64, SDT),
    ("sdt_2_256", ((32, 32, 3), 100), {"width": 512}, 10_279_716 - 2 * 64, None),
]


@pytest.mark.parametrize(
    ("name", "task", "options", "expected", "macs"), PUBLISHED, ids=[f"{p[0]}-{p[3]}" for p in PUBLISHED]
)
def test_parameters_and_products_are_the_published_ones(
    name: str, task: tuple[Any, int], options: dict[str, Any], expected: int, macs: int | None
) -> None:
    model = shaped(name, *task, **options)
    assert parameters(model) == expected
    assert macs is None or products(model) == macs


def test_every_network_of_the_zoo_has_a_published_size() -> None:
    assert {name for name, *_ in PUBLISHED} == set(zoo.__all__)


# --- Sites, cuts and prices

SMALL = {"width": 3, "blocks": (2, 1), "identity": False}
TRANSFORMER = {"width": 8, "depth": 1, "heads": 2, "mlp_ratio": 1, "stem": [1, 2]}
TINY: dict[str, tuple[str, tuple[int, ...], dict[str, Any]]] = {
    "csnn": ("csnn", (8, 8, 2), {"width": 3}),
    "add": ("sew_resnet18", (8, 8, 2), SMALL),
    "and": ("sew_resnet18", (8, 8, 2), SMALL | {"connect": "and"}),
    "iand": ("sew_resnet18", (8, 8, 2), SMALL | {"connect": "iand"}),
    "currents": ("ms_resnet18", (8, 8, 2), SMALL),
    "spikes": ("ms_resnet18", (8, 8, 2), SMALL | {"shortcut": "spikes"}),
    "spikformer": ("spikformer_4_256", (8, 8, 2), TRANSFORMER),
    "tokens": ("spikformer_4_256", (8, 8, 2), TRANSFORMER | {"token_share": 0.5, "token_rejoin": True}),
    "dropped": ("spikformer_4_256", (8, 8, 2), TRANSFORMER | {"token_share": 0.5}),
    "cells": ("spikformer_4_256", (8, 8, 2), TRANSFORMER | {"pool": "cells"}),
    "pooled": ("spikformer_4_256", (8, 8, 2), TRANSFORMER | {"pool": "currents"}),
    "driven": ("sdt_2_256", (8, 8, 2), TRANSFORMER | {"token_share": [1.0, 0.25], "depth": 2, "pool": "cells"}),
}


def lively(tiny: str) -> Any:
    """A tiny network whose convolutions make neurons fire through all of its depth."""
    name, shape, options = TINY[tiny]
    model = getattr(zoo, name)(shape, 3, key=KEY, cell=lambda n: LIF(beta=0.75), **options)
    for _, module in nnx.iter_modules(model):
        if isinstance(module, Conv):
            module.kernel[...] = 4.0 * module.kernel[...]
        if isinstance(module, TdBN):
            module.shift[...] = jnp.full_like(module.shift[...], 0.25)
    return model


def test_all_that_share_a_shortcut_share_their_channels() -> None:
    for tiny in ("add", "currents"):
        wiring = lively(tiny).wiring()
        assert wiring.groups == {
            "input": 2, "stem": 3, "stage1_block1.body.first": 3, "stage1_block2.body.first": 3, "stage2_block1": 6,
            "stage2_block1.body.first": 6, "residual": 3,
        }  # fmt: skip
        reads = {w.name for w in wiring.wires if any(axis.group == "stem" for axis in w.pre)}
        assert reads == {
            "stage1_block1.body.first", "stage1_block2.body.first", "stage2_block1.body.first", "stage2_block1.shortcut"
        }  # fmt: skip
        adds = {w.name for w in wiring.wires if any(axis.group == "stem" for axis in w.post)}
        assert adds == {"stem", "stage1_block1.body.second", "stage1_block2.body.second"}


@pytest.mark.parametrize("tiny", TINY)
def test_what_shares_a_shortcut_is_cut_together_and_the_rest_is_the_masked_network(tiny: str) -> None:
    """Bit for bit; and the prior's closed form is the counted energy of what is left."""
    whole = Ran(lively(tiny))
    z = whole.drawn(1, 0.6)
    if "residual" in z:
        z["residual"] = (jnp.arange(len(z["residual"])) % 2 < 1).astype(jnp.float32)
    ran = Ran(lively(tiny), z)
    small, logits, kept = ran.compacted()
    np.testing.assert_array_equal(logits, ran.logits)
    assert float(jnp.abs(logits - whole.logits).max()) > 1e-3
    sizes = {name: int(values.sum()) for name, values in z.items()}
    assert all(sizes[group] == size for group, size in sites(small).groups.items())
    hardware = energy.profile("45nm")
    ours = expected_energy(ran.sites, z, ran.events, hardware, "updates").total(float(STEPS))
    np.testing.assert_allclose(ours, energy.price(energy.count(kept), hardware, "updates").total_nj, rtol=1e-4)


@pytest.mark.parametrize("tiny", TINY)
def test_every_group_of_channels_and_every_block_counts(tiny: str) -> None:
    whole = Ran(lively(tiny))
    for group, size in whole.sites.groups.items():
        closed = Ran(lively(tiny), whole.z | {group: jnp.zeros(size)})
        assert float(jnp.abs(closed.logits - whole.logits).max()) > 1e-3, group


@pytest.mark.parametrize("tiny", ["csnn", "add", "currents"])
def test_learning_reaches_every_parameter(tiny: str) -> None:
    template, params = split(as_network(lively(tiny), "a test"))
    x = jax.random.uniform(KEY, (6, 8, 8, 2))

    def loss(params: Any) -> Any:
        outputs, statistics = unroll_trained(template.build(params), x, steps=3)
        return (outputs[-1] * jnp.linspace(-1.0, 1.0, 18).reshape(6, 3)).sum(), statistics

    slopes, statistics = jax.jit(jax.grad(loss, has_aux=True))(params)
    for name, slope in slopes.items():
        assert np.all(np.isfinite(slope)), name
        assert np.any(slope != 0), name
    assert statistics.keys() == template.measured.keys()


@pytest.mark.parametrize("connect", ["add", "and", "iand"])
def test_blocks_that_begin_as_their_shortcut_add_nothing(connect: str) -> None:
    x = jax.random.uniform(KEY, (4, 8, 8, 1))

    def logits(blocks: tuple[int, ...]) -> Any:
        model = zoo.sew_resnet18((8, 8, 1), 3, key=KEY, width=4, blocks=blocks, connect=connect, identity=True)
        for name, part in model.named():
            if name == "readout":  # keys differ behind more blocks
                part.synapse.kernel[...] = jnp.linspace(-1, 1, part.synapse.kernel.size).reshape(-1, 3)
        return dsnn.unroll(model, x, steps=3)[0]

    np.testing.assert_array_equal(logits((1,)), logits((3,)))
    assert float(jnp.abs(logits((1,))).max()) > 1e-3


# --- By name


def test_options_of_a_run_reach_the_network() -> None:
    config = ModelConfig(
        architecture="csnn", architecture_options={"width": 4, "norm": "none"}, readout="max", beta=0.5
    )
    model = build_model(config, (8, 8, 1), 5, KEY)
    assert model.conv0.out_shape == (8, 8, 4)
    assert model.conv0.norm is None
    assert model.readout_kind == "max"
    assert model.hidden0.cell.beta == 0.5
    assert model.out_shape == (5,)
    own = ModelConfig(architecture="csnn", architecture_options={"norm": "dsnn.networks:TdBN"})
    resolve.trust("dsnn.networks:TdBN")
    assert isinstance(build_model(own, (8, 8, 1), 5, KEY).conv1.norm, TdBN)


def test_a_norm_begins_by_the_threshold_of_its_neurons() -> None:
    model = zoo.ms_resnet18((8, 8, 1), 2, key=KEY, cell=lambda n: LIF(threshold=0.5), width=2, blocks=(1, 1))
    norms = {".".join(map(str, path)): one for path, one in nnx.iter_modules(model) if isinstance(one, TdBN)}
    assert {norm.threshold for norm in norms.values()} == {0.5}
    halves = {name for name, norm in norms.items() if norm.alpha == pytest.approx(0.5**0.5)}
    assert halves == {f"stage{n}_block1.body.second.norm" for n in (1, 2)} | {"stage2_block1.shortcut.norm"}


@pytest.mark.parametrize(
    ("name", "shape", "options", "sentence"),
    [
        ("csnn", (8, 8, 1), {"width": 0}, "width of csnn must be a positive integer, got 0"),
        ("csnn", (64,), {}, r"csnn needs images \[height, width, channel\], got inputs of shape \(64,\)"),
        ("csnn", (3, 8, 1), {}, "needs 4 x 4 pixels at least, got 3 x 8; enlarge the images"),
        (
            "vgg11",
            (28, 28, 1),
            {},
            "vgg11 halves an image again and again and needs 32 x 32 pixels at least, got 28 x 28",
        ),
        ("sew_resnet18", (16, 16, 3), {"stem": "imagenet"}, "needs 32 x 32 pixels at least, got 16 x 16"),
        ("sew_resnet18", (8, 8, 3), {"connect": "andd"}, "connect must be one of add, and, iand, got 'andd'; did you"),
        (
            "sew_resnet34",
            (8, 8, 3),
            {"stem": "cifer"},
            "stem of sew_resnet must be one of cifar, imagenet, got 'cifer'",
        ),
        ("sew_resnet18", (8, 8, 3), {"blocks": ()}, "blocks of sew_resnet must be positive numbers"),
        ("ms_resnet18", (8, 8, 3), {"blocks": (1, 0)}, r"blocks of ms_resnet must be positive numbers.*got \(1, 0\)"),
        ("ms_resnet18", (8, 8, 3), {"shortcut": "spike"}, "shortcut of ms_resnet must be one of currents, spikes"),
        (
            "ms_resnet18",
            (8, 8, 3),
            {"norm": "tbdn"},
            "norm must be one of tdbn, batch, bntt, .* got 'tbdn'; did you mean",
        ),
        ("csnn", (8, 8, 3), {"readout": "men"}, "readout must be one of mean"),
    ],
)
def test_what_cannot_be_meant_gets_a_sentence(name: str, shape: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        getattr(zoo, name)(shape, 3, key=KEY, **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"architecture": "csn"}, "got 'csn'; did you mean 'csnn'"),
        (
            {"architecture": "csnn", "architecture_options": {"widht": 3}},
            "takes the options .*got 'widht'; did you mean",
        ),
        ({"architecture": "mlp", "architecture_options": {"width": 3}}, "for a network of the zoo or of one's own"),
    ],
)
def test_a_configuration_that_names_no_such_network_gets_a_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ModelConfig(**options)


def test_a_conversion_is_no_network_of_the_zoo() -> None:
    with pytest.raises(ValueError, match=r"a conversion makes an mlp or a conv network, got model\.architecture=csnn"):
        Config(convert=ConvertConfig(method="max"), model=ModelConfig(architecture="csnn"), learner="convert")


def squares(count: int, size: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Grey images of a bright square in one of the corners, which is the class."""
    draw, y = np.random.default_rng(0), np.arange(count) % 4
    x = draw.normal(0.0, 0.3, (count, size, size)).astype(np.float32)
    for image, corner in zip(x, y, strict=True):
        row, column = (size - 4) * (corner // 2) + 1, (size - 4) * (corner % 2) + 1
        image[row : row + 2, column : column + 2] += 2.0
    return x, y


FITTED = {
    "sew_resnet18": (
        {"width": 3, "blocks": [1, 1]},
        {"stem": 3, "stage1_block1.body.first": 3, "stage2_block1": 6, "stage2_block1.body.first": 6, "residual": 2},
    ),
    "spikformer_4_256": (
        TRANSFORMER | {"token_share": 0.5},
        {"stage1": 1, "stage2": 2, "stage3": 4, "stage4": 8, "exit1.body.block1.attention.body.heads": 2,
         "exit1.body.block1.mlp.body.expand": 8, "residual": 3},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if "former" in name else ()) for name in FITTED]
)
def test_a_notebook_fits_a_network_of_the_zoo_by_its_name(name: str, tmp_path: Any) -> None:
    (x, y), (options, groups) = squares(80), FITTED[name]
    fitted = dsnn.fit(x, y, network=name, network_options=options, baseline="none", epochs=2, steps=2, halting=False)
    assert {group: len(p) for group, p in fitted.gates.items()} == groups
    probs = dsnn.predict(fitted, x[:4]).probs
    fitted.save(tmp_path / "kept")
    np.testing.assert_array_equal(dsnn.predict(dsnn.load(tmp_path / "kept"), x[:4]).probs, probs)


# --- Transformers


@pytest.mark.parametrize(("share", "names"), [
    (1.0, ["block1", "block2", "block3"]), (0.5, ["exit1"]), ([1.0, 0.5, 0.5], ["block1", "exit2"]),
    ([1, 0.5, 0.25], ["block1", "exit2"])
])  # fmt: skip
def test_tokens_leave_where_their_share_falls(share: Any, names: list[str]) -> None:
    options = TRANSFORMER | {"depth": 3, "token_share": share}
    model = zoo.spikformer_4_256((8, 8, 1), 3, key=KEY, **options)
    ours = [name for name, _ in model.named() if name.startswith(("block", "exit"))]
    assert ours == names
    shares = [share] * 3 if isinstance(share, float) else share
    queries = [m.query.in_shape for _, m in nnx.iter_modules(model) if isinstance(m, SelfAttention)]
    assert sorted((shape[0] * shape[1] for shape in queries), reverse=True) == [math.ceil(4 * s) for s in shares]
    assert math.prod(model.readout.in_shape[:2]) == math.ceil(4 * shares[-1])
    rejoined = zoo.spikformer_4_256((8, 8, 1), 3, key=KEY, **options | {"token_rejoin": True})
    assert rejoined.readout.in_shape == (2, 2, 8), "those that left count as they were"


def test_a_stem_pools_what_it_says() -> None:
    """By hand: a spike at place 3 is in cell 1 of 2, and in windows 1 and 2 of those at steps of two."""
    image = jnp.zeros((1, 8, 8, 1)).at[0, 3, 3, 0].set(1.0)
    cells, overlapping = (
        dict(zoo.sdt_2_256((8, 8, 1), 3, key=KEY, **TRANSFORMER | {"pool": pool}).named())["pool1"].before[0]
        for pool in ("cells", "overlapping")
    )
    assert cells.out_shape == overlapping.out_shape
    seen = [np.argwhere(np.asarray(pool(image)[0, :, :, 0])).tolist() for pool in (cells, overlapping)]
    assert seen == [[[1, 1]], [[1, 1], [1, 2], [2, 1], [2, 2]]]
    currents = zoo.spikformer_4_256((8, 8, 1), 3, key=KEY, **TRANSFORMER | {"pool": "currents"})
    assert [name for name, _ in currents.named()][:6] == ["stage1", "pool1", "fire1", "stage2", "pool2", "fire2"]


@pytest.mark.parametrize("name", ["spikformer_4_256", "sdt_2_256"])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"heads": 3}, "must divide the width, 8, got 3; take one of 1, 2, 4, 8"),
        ({"width": 12}, "must be a multiple of 8, whose eighth the first stage has, got 12"),
        ({"stem": "cifer"}, r"must be one of cifar, imagenet, or stages, got 'cifer'; did you mean 'cifar'"),
        ({"stem": [2, 5]}, r"must be the stages, from 1 to 4 and in order, behind which is pooled, got \[2, 5\]"),
        ({"pool": "cell"}, "pool of .* must be one of overlapping, cells, currents, got 'cell'; did you mean 'cells'"),
        ({"stem": "imagenet"}, "needs 16 x 16 pixels at least, got 8 x 8"),
        ({"token_share": 0.0}, r"must be in \(0, 1\], got 0.0; without any there is nothing to compute"),
        ({"token_share": [0.5, 1.0], "depth": 2}, r"token_share of \w+ must not grow, .* got \(0.5, 1.0\)"),
        ({"token_share": [0.5]}, r"must be one number, or one for each of 2 blocks, got \(0.5,\)"),
        ({"token_score": "loudest"}, "score must be one of learned, random, got 'loudest'"),
    ],
)
def test_a_transformer_that_cannot_be_meant_gets_a_sentence(name: str, options: dict[str, Any], sentence: str) -> None:
    usual = TRANSFORMER | {"depth": 2, "token_share": 0.5}
    with pytest.raises(ValueError, match=sentence):
        getattr(zoo, name)((8, 8, 1), 3, key=KEY, **usual | options)


def test_the_twin_of_values_is_the_same_network_with_another_cell() -> None:
    """One override: the same parameters, values in place of spikes, each of which costs a multiplication."""
    options = {"architecture": "spikformer_4_256", "architecture_options": TRANSFORMER, "noise": "none"}
    spiking, values = (build_model(ModelConfig(cell=cell, **options), (8, 8, 1), 3, KEY) for cell in ("LIF", "ReLU"))
    ours, theirs = (nnx.to_flat_state(nnx.state(model, nnx.Param)) for model in (spiking, values))
    assert [path for path, _ in ours] == [path for path, _ in theirs]
    for (_, one), (_, other) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one[...], other[...])
    ours, theirs = (
        {wire.name: wire.values for wire in of_run(model.wiring(), analog_input=True).wires}
        for model in (spiking, values)
    )
    assert set(theirs.values()) == {"analog"}
    assert {name for name, what in ours.items() if what == "analog"} == {"stage1", "readout"}, "pixels, and a mean"
    out = dsnn.unroll(values, jax.random.uniform(KEY, (4, 8, 8, 1)), steps=1)[0]
    assert float(jnp.abs(out).max()) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["csnn", "sew_resnet18", "ms_resnet18"])
def test_a_run_learns_gates_compacts_and_reports_it(name: str, tmp_path: Any) -> None:
    """About three minutes each, of which most compile."""
    own = {"csnn": "", "sew_resnet18": ", blocks: [1, 1]", "ms_resnet18": ", blocks: [1, 1], shortcut: spikes"}
    options = f"{{width: 8{own[name]}}}"
    words = [
        "data=digits", f"model.architecture={name}", f"model.architecture_options={options}", "train.steps=4",
        "train.epochs=30", "optimizer.learning_rate=0.006", "svi.lam=-1", "svi.kl_weight=-1", "svi.gates_weight=-1",
        "svi.budget_fraction=0.5", "svi.ungated_fraction=0.3", "svi.decide_fraction=0.25", "halting.enabled=false",
        "gates.open_probability=0.95", "bayes.samples=2", "baseline=none", "track.tool=none", f"run.dir={tmp_path}",
    ]  # fmt: skip
    directory, found = job.run(schema.compose(words))
    assert found["deployed/accuracy"] > 0.8
    assert 0 < found["gates/kept"] < found["gates/total"]
    assert found["compute/parameters_kept"] < found["compute/parameters"]
    assert found["compute/compaction_error"] == 0
    assert found["energy/45nm/updates/snn_nj"] < 0.6 * found["energy/45nm/updates/ungated_nj"]
    groups = {key.split("/")[1] for key in found if key.startswith("gates/") and key.endswith("/total")}
    assert ("residual" in groups) == (name != "csnn")
    assert (directory / "report.html").exists()


def test_a_network_of_blocks_prints_its_layers() -> None:
    options = {"depth": 1, "width": 16, "heads": 2, "stem": [1, 2], "token_share": 0.5}
    network = zoo.spikformer_4_256((8, 8, 1), 3, key=jax.random.key(0), **options)
    said = repr(Whole(network)).splitlines()
    assert said[0] == "Chain: inputs (8, 8, 1), outputs (3,)"
    names = [line.split()[0] for line in said[2:-1]]
    assert (names[0], names[-1]) == ("stage1", "readout")
    assert "exit1.body.block1.mlp.body.expand" in names
    own = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
    assert said[-1].split()[-2] == str(own), "biases of places among them"
