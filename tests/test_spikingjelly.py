"""Weights of SpikingJelly's networks: axes, norms, files, and what does not fit. Against itself: *_peers.py."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import dsnn
from dsnn.cells import LIF, like
from dsnn.networks import BNTT, TEBN, Chain, mlp, spikingjelly, zoo
from dsnn.networks.spikingjelly.names import sources

KEY = jax.random.key(0)
EPSILON = 1e-5


def csnn(**options: Any) -> Any:
    cell = lambda _: like("spikingjelly.IFNode")  # noqa: E731
    return zoo.csnn((4, 8, 1), 3, key=KEY, **{"cell": cell, "width": 2, "readout_beta": 0.0} | options)


def drawn() -> dict[str, np.ndarray]:
    """Numbers for the tutorial's network of two channels, for images of 4 x 8, by their names and with their axes."""
    draw = np.random.default_rng(0)
    shapes = {"0.weight": (2, 1, 3, 3), "4.weight": (2, 2, 3, 3), "9.weight": (32, 4), "11.weight": (3, 32)}
    state = {name: 2 * draw.normal(size=shape) / np.prod(shape[1:]) ** 0.5 for name, shape in shapes.items()}
    for norm in ("1", "5"):
        state[f"{norm}.weight"], state[f"{norm}.running_var"] = draw.uniform(0.5, 2.0, (2, 2))
        state[f"{norm}.bias"], state[f"{norm}.running_mean"] = draw.uniform(-0.3, 0.5, (2, 2))
    counted = {f"conv_fc.{norm}.num_batches_tracked": np.array(7) for norm in ("1", "5")}
    return {f"conv_fc.{name}": value.astype(np.float32) for name, value in state.items()} | counted


def theirs(state: dict[str, np.ndarray], xs: np.ndarray) -> np.ndarray:
    """Returns the last currents by loops over channels first, with neurons that integrate, fire and begin again."""
    state = {name.removeprefix("conv_fc."): value.astype(float) for name, value in state.items()}
    membranes: dict[str, Any] = {}

    def fired(name: str, current: np.ndarray) -> np.ndarray:
        h = membranes.get(name, 0.0) + current
        membranes[name] = np.where(h >= 1, 0.0, h)
        return (h >= 1).astype(float)

    def block(number: int, x: np.ndarray, t: int) -> np.ndarray:
        kernel, around = state[f"{number}.weight"], np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        current = np.zeros((len(x), len(kernel), *x.shape[2:]))
        for i, j in np.ndindex(x.shape[2:]):
            current[:, :, i, j] = np.einsum("ncij,ocij->no", around[:, :, i : i + 3, j : j + 3], kernel)
        current += state.get(f"{number}.bias", np.zeros(2))[:, None, None]
        weight, bias, mean, variance = (
            state[f"{number + 1}.{name}"][:, None, None] for name in ("weight", "bias", "running_mean", "running_var")
        )
        factor = state.get(f"{number + 1}.scale", np.ones(len(xs)))[t]
        spikes = fired(str(number), factor * (weight * (current - mean) / np.sqrt(variance + EPSILON) + bias))
        n, channels, height, width = spikes.shape
        return spikes.reshape(n, channels, height // 2, 2, width // 2, 2).max((3, 5))

    outputs = []
    for t, x in enumerate(xs):
        flat = block(4, block(0, x, t), t).reshape(len(x), -1)  # channels before places
        outputs.append(fired("9", flat @ state["9.weight"].T) @ state["11.weight"].T)
    return np.stack(outputs)


@pytest.mark.parametrize("norm", ["tdbn", "batch", lambda features: TEBN(features, steps=5)])
@pytest.mark.parametrize("biased", [False, True])
def test_axes_norms_and_biases_are_where_their_equations_have_them(norm: Any, biased: bool) -> None:
    state = drawn()
    if callable(norm):  # theirs has a number for each step
        state |= {
            f"conv_fc.{n}.scale": np.linspace(0.5, 1.5, 5, dtype=np.float32)[::step] for n, step in ((1, 1), (5, -1))
        }
    if biased:  # in front of a norm, where this network has no bias
        state["conv_fc.0.bias"] = np.array([0.4, -0.2], np.float32)
    xs = np.random.default_rng(1).normal(0.0, 2.0, (5, 6, 1, 4, 8)).astype(np.float32)
    expected = theirs(state, xs)
    assert expected.std(0).max() > 0.1
    assert expected.std(1).max() > 0.1
    outputs, _, _ = dsnn.unroll(spikingjelly.load(csnn(norm=norm), state), np.moveaxis(xs, 2, -1))
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_a_norm_has_their_weight_whatever_it_begins_at() -> None:
    """tdBN's own factor, alpha times the threshold, is taken out of the scale."""
    state = drawn()
    model = spikingjelly.load(csnn(cell=lambda _: LIF(beta=0.5, threshold=0.25)), state)
    norm = model.conv1.norm
    np.testing.assert_allclose(norm.scale[...] * 0.25, state["conv_fc.5.weight"], rtol=1e-6)
    np.testing.assert_array_equal(norm.variance[...], state["conv_fc.5.running_var"])
    batch = spikingjelly.load(csnn(norm="batch"), state).conv1.norm
    np.testing.assert_array_equal(batch.scale[...], state["conv_fc.5.weight"])


def test_the_network_that_is_given_stays_as_it_is() -> None:
    model = csnn()
    before = np.array(model.conv0.synapse.kernel[...])
    spikingjelly.load(model, drawn())
    np.testing.assert_array_equal(model.conv0.synapse.kernel[...], before)


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda state: state.pop(name)


def put(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda state: state.update({name: value})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("conv_fc.9.weight"), r"must have a tensor conv_fc.9.weight, got none of this name, the nearest is"),
        (without("conv_fc.5.running_var"), "must have a tensor conv_fc.5.running_var"),
        (put("conv_fc.12.w", np.zeros(3, np.float32)), r"got a tensor conv_fc.12.w that it has no place for"),
        (put("conv_fc.9.bias", np.zeros(32, np.float32)), r"got a tensor conv_fc.9.bias that it has no place for"),
        (put("conv_fc.4.weight", np.zeros((4, 2, 3, 3), np.float32)),
         r"conv_fc.4.weight must have the shape \(2, 2, 3, 3\) for this network, got \(4, 2, 3, 3\)"),
        (put("conv_fc.1.bias", np.zeros(3, np.float32)), r"conv_fc.1.bias must have the shape \(2,\)"),
        (put("conv_fc.0.weight", np.zeros((2, 1, 3, 3), int)), "must be floating-point numbers, got int64"),
        (put("conv_fc.0.weight", "a name"), "must be floating-point numbers"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_named(change: Any, sentence: str) -> None:
    state = drawn()
    change(state)
    with pytest.raises(ValueError, match=sentence):
        spikingjelly.load(csnn(), state)


def test_networks_of_another_kind_are_refused() -> None:
    sentence = "must be one of dsnn.networks.zoo that SpikingJelly has"
    with pytest.raises(ValueError, match=sentence):
        spikingjelly.load(mlp((4,), (3,), 2, key=KEY), {})
    with pytest.raises(ValueError, match=f"{sentence}.*got a dict"):
        spikingjelly.load({}, {})
    sew = zoo.sew_resnet18((8, 8, 1), 3, key=KEY, blocks=(1,), width=4)
    sew.stage1_block1.body = None  # as compaction leaves a block that is closed
    with pytest.raises(ValueError, match=f"{sentence}.*got one without body.first in a block"):
        list(sources(sew))
    with pytest.raises(ValueError, match=f"{sentence}.*got one of the parts body"):
        list(sources(Chain(body=sew.stem)))
    spikes = zoo.ms_resnet18((8, 8, 1), 3, key=KEY, blocks=(1, 1), width=4, shortcut="spikes")
    with pytest.raises(ValueError, match='must be "currents" for weights of SpikingJelly'):
        list(sources(spikes))
    plain = csnn(norm=lambda features: BNTT(features, steps=4))
    with pytest.raises(ValueError, match=r'must be "tdbn", "batch" or .*, got a BNTT'):
        spikingjelly.load(plain, drawn())


def test_blocks_are_found_behind_exits_of_tokens() -> None:
    """Tokens may leave a network whose weights were learned without."""
    options = {"depth": 3, "width": 8, "heads": 2, "mlp_ratio": 1}
    whole, leaves = (
        zoo.spikformer_4_256((8, 8, 1), 3, key=KEY, token_share=share, **options) for share in (1.0, [1.0, 0.5, 0.25])
    )
    assert len(list(sources(whole))) == 5 + 3 * 6 + 1
    for one, other in zip(sources(whole), sources(leaves), strict=True):
        assert one[1:] == other[1:]
        assert one.layer.synapse.kernel.shape == other.layer.synapse.kernel.shape


def test_files_of_numbers_give_the_same_network(tmp_path: Path) -> None:
    state = drawn()
    np.savez(tmp_path / "a.npz", **state)
    header, numbers = {}, b""
    for name, value in state.items():
        kind = "F32" if value.dtype == np.float32 else "I64"
        place = [len(numbers), len(numbers) + value.nbytes]
        header[name] = {"dtype": kind, "shape": value.shape, "data_offsets": place}
        numbers += value.tobytes()
    said = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(len(said).to_bytes(8, "little") + said + numbers)
    loaded = [
        spikingjelly.load(csnn(), given) for given in (state, tmp_path / "a.npz", str(tmp_path / "a.safetensors"))
    ]
    for other in loaded[1:]:
        for mine, its in zip(sources(loaded[0]), sources(other), strict=True):
            np.testing.assert_array_equal(mine.layer.synapse.kernel[...], its.layer.synapse.kernel[...])


@pytest.mark.parametrize("name", ["net.pt", "net.pth", "NET.PTH", "pytorch_model.bin", "last.ckpt"])
def test_pickles_are_not_opened(name: str, tmp_path: Path) -> None:
    """A file that is not there is refused by its name: nothing of it was read."""
    with pytest.raises(ValueError, match=r"is a pickle, which is not read here .* weights_only=True.*savez") as caught:
        spikingjelly.load(csnn(), tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"must end in \.safetensors or \.npz, got '\.h5'"):
        spikingjelly.read_state(tmp_path / "net.h5")
    with pytest.raises(FileNotFoundError):
        spikingjelly.read_state(tmp_path / "absent.npz")
