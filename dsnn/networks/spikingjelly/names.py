"""Where a layer of the zoo finds its numbers among those of SpikingJelly's network of the same architecture.

Names are those of SpikingJelly 2.0.0: ``activation_based.model.sew_resnet``, ``ms_resnet``, ``spiking_vgg``,
``spikformer``, ``spike_driven_transformer``, and ``CSNN`` of ``examples.conv_fashion_mnist``.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from dsnn.networks.graph import Chain
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack
from dsnn.networks.tokens import TokenExit

__all__ = ["Source", "sources"]

ASKED = (
    "a network must be one of dsnn.networks.zoo that SpikingJelly has, with all of its blocks (csnn, vgg11, "
    "sew_resnet18, sew_resnet34, ms_resnet18, spikformer_4_256, sdt_2_256), got {}; make it anew by the zoo's function."
)


class Source(NamedTuple):
    """A layer and where its numbers are.

    Attributes:
        layer: of a network of the zoo.
        product: name of their convolution or linear map.
        norm: name of the batch normalisation behind it; "" is none.
        part: which of how many equal parts along the channels that it gives.
    """

    layer: Layer
    product: str
    norm: str = ""
    part: tuple[int, int] = (0, 1)


def sources(network: Any) -> Iterator[Source]:
    """Yields the layers of a network of the zoo and where their numbers are.

    Raises:
        ValueError: another network, or one that was compacted.
    """
    if not isinstance(network, Stack | Chain):
        raise ValueError(ASKED.format(f"a {type(network).__name__}"))
    parts = dict(network.layers() if isinstance(network, Stack) else network.named())
    for named, layout in LAYOUTS:
        if named <= set(parts):
            return layout(parts)
    raise ValueError(ASKED.format(f"one of the parts {', '.join(parts)}"))


def _csnn(parts: dict[str, Any]) -> Iterator[Source]:
    """Yields those of one ``Sequential``: convolution, norm, neurons and pool, twice, and two linear maps."""
    place = 0
    for layer in parts.values():
        # what stands between: a pool before each later convolution, a pool and a flattening before a linear map
        place += len(layer.before) + (len(layer.before) > 0 and isinstance(layer.synapse, Dense))
        yield Source(layer, f"conv_fc.{place}", f"conv_fc.{place + 1}" if layer.norm is not None else "")
        place += 2 + (layer.norm is not None)


def _vgg(parts: dict[str, Any]) -> Iterator[Source]:
    """Yields those of ``features``, with pools between, and of ``classifier``, with neurons and dropout between."""
    place = 0
    for layer in (layer for name, layer in parts.items() if name.startswith("conv")):
        place += len(layer.before)
        yield Source(layer, f"features.{place}", f"features.{place + 1}" if layer.norm is not None else "")
        place += 2 + (layer.norm is not None)
    for number, name in enumerate(("hidden0", "hidden1", "readout")):
        yield Source(parts[name], f"classifier.{3 * number}")


def _sew_resnet(parts: dict[str, Any]) -> Iterator[Source]:
    yield Source(parts["stem"], "conv1", "bn1")
    yield from _blocks(parts)
    yield Source(parts["readout"], "fc")


def _ms_resnet(parts: dict[str, Any]) -> Iterator[Source]:
    yield Source(parts["stem"], "stem.0", "stem.1")
    yield from _blocks(parts)
    yield Source(parts["readout"], "head")


def _blocks(parts: dict[str, Any]) -> Iterator[Source]:
    for name, block in parts.items():
        if not name.startswith("stage"):
            continue
        stage, number = (int(word.lstrip("stageblock")) for word in name.split("_"))
        theirs = f"layer{stage}.{number - 1}"
        yield Source(_at(block, "body", "first"), f"{theirs}.conv1", f"{theirs}.bn1")
        yield Source(_at(block, "body", "second"), f"{theirs}.conv2", f"{theirs}.bn2")
        if (beside := block.shortcut) is not None:
            if not isinstance(beside, Layer):
                raise ValueError(
                    'shortcut of ms_resnet must be "currents" for weights of SpikingJelly, whose shortcuts read '
                    'currents, got "spikes".'
                )
            yield Source(beside, f"{theirs}.downsample.0", f"{theirs}.downsample.1")


def _spikformer(parts: dict[str, Any]) -> Iterator[Source]:
    for number in range(4):
        theirs = f"patch_embed.stages.{number}.conv_bn.block"
        yield Source(parts[f"stage{number + 1}"], f"{theirs}.0", f"{theirs}.1")
    theirs = "patch_embed.positional_encoding.conv_bn.block"
    yield Source(_at(parts["position"], "body"), f"{theirs}.0", f"{theirs}.1")
    for number, block in enumerate(_encoder(parts)):
        attention, theirs = _at(block, "attention", "body"), f"blocks.{number}"
        for part, name in enumerate(("query", "key", "value")):
            yield Source(
                _at(attention, name), f"{theirs}.attn.qkv_conv_bn.0", f"{theirs}.attn.qkv_conv_bn.1", (part, 3)
            )
        yield Source(_at(attention, "project"), f"{theirs}.attn.proj_conv_bn.0", f"{theirs}.attn.proj_conv_bn.1")
        for name, fully in (("expand", "fc1"), ("contract", "fc2")):
            yield Source(_at(block, "mlp", "body", name), f"{theirs}.mlp.{fully}.0", f"{theirs}.mlp.{fully}.1")
    yield Source(parts["readout"], "head")


def _spike_driven(parts: dict[str, Any]) -> Iterator[Source]:
    for number in range(3):
        theirs = f"patch_embed.stages.{number}"
        yield Source(parts[f"stage{number + 1}"], f"{theirs}.0", f"{theirs}.1")
    yield Source(parts["stage4"], "patch_embed.final_stage.0", "patch_embed.final_stage.1")
    yield Source(_at(parts["position"], "body", "only"), "patch_embed.rpe_conv", "patch_embed.rpe_bn")
    for number, block in enumerate(_encoder(parts)):
        attention, theirs = _at(block, "attention", "body", "inner"), f"blocks.{number}"
        # in their program what is summed over tokens is k * v, and what it masks is q
        for ours, name in (("query", "k"), ("key", "v"), ("value", "q"), ("project", "proj")):
            yield Source(_at(attention, ours), f"{theirs}.attn.{name}_conv", f"{theirs}.attn.{name}_bn")
        for ours, number in (("expand", 1), ("contract", 2)):
            yield Source(_at(block, "mlp", "body", ours), f"{theirs}.mlp.fc{number}", f"{theirs}.mlp.bn{number}")
    yield Source(parts["readout"], "head")


def _encoder(parts: dict[str, Any]) -> Iterator[Chain]:
    """Yields the blocks of a spiking transformer, those inside of exits of tokens too."""
    for name, part in parts.items():
        if isinstance(part, TokenExit):
            yield from _encoder(dict(_at(part, "body").named()))
        elif name.startswith("block"):
            yield part


def _at(part: Any, *names: str) -> Any:
    """Returns what is inside of a container."""
    for name in names:
        inner = {} if isinstance(part, Layer) else dict(part.named())
        if name not in inner:
            raise ValueError(ASKED.format(f"one without {'.'.join(names)} in a block"))
        part = inner[name]
    return part


LAYOUTS: tuple[tuple[set[str], Callable[[dict[str, Any]], Iterator[Source]]], ...] = (
    ({"conv0", "hidden0", "hidden1", "readout"}, _vgg),
    ({"conv0", "hidden0", "readout"}, _csnn),
    ({"stem", "stage1_block1", "fire", "readout"}, _ms_resnet),
    ({"stem", "stage1_block1", "readout"}, _sew_resnet),
    ({"stage1", "stage4", "position", "fire", "readout"}, _spike_driven),
    ({"stage1", "stage4", "position", "readout"}, _spikformer),
)
"""What the parts of a network are called, and where their numbers are; the first that fits."""
