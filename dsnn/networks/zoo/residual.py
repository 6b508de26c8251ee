"""What residual networks of the zoo have in common: stages of blocks, convolutions with norms, and stems."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from dsnn.networks.layers import Conv, Layer, Pool
from dsnn.networks.leaves import Current, Pooled
from dsnn.networks.stack import check_widths
from dsnn.networks.zoo.pieces import Normed, check
from dsnn.suggest import did_you_mean

__all__ = ["BRANCH", "STEMS", "Made", "Stage", "stages", "start"]

BRANCH = 0.5**0.5
"""Deviation in thresholds of each of two currents that are added up (Zheng et al. 2021, section 4)."""

STEMS = {"cifar": 8, "imagenet": 32}
"""How a network begins, and the pixels that it needs: a 3 x 3 convolution, or a 7 x 7 one that halves and a pool."""


class Stage(NamedTuple):
    """One block: its name, its channels, and the steps of its first convolution."""

    name: str
    features: int
    stride: int


def stages(name: str, blocks: Any, width: int, first: int = 1) -> Iterator[Stage]:
    """Yields the blocks of all stages: channels double from stage to stage, and places halve.

    Args:
        name: of the network, for sentences.
        blocks: number of blocks of each stage.
        width: channels of the first stage.
        first: steps of the very first block.

    Raises:
        ValueError: no stage, or one without blocks.
    """
    blocks = tuple(blocks)
    if not blocks or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in blocks):
        raise ValueError(f"blocks of {name} must be positive numbers, one for each stage, got {blocks}; (2, 2, 2, 2).")
    check_widths([width * 2**stage for stage in range(len(blocks))], sum(blocks))
    for stage, count in enumerate(blocks):
        for block in range(count):
            stride = 1 if block else first if stage == 0 else 2
            yield Stage(f"stage{stage + 1}_block{block + 1}", width * 2**stage, stride)


@dataclasses.dataclass(frozen=True)
class Made:
    """Makes the parts of one residual network.

    Attributes:
        cell: a function of the number of neurons.
        norms: makes its norms.
        keys: of its kernels.
        dtype: of the products.
    """

    cell: Callable[[int], Any]
    norms: Normed
    keys: Iterator[Any]
    dtype: str | None

    def conv(self, shape: Any, features: int, window: int = 3, stride: int = 1) -> Conv:
        """Returns a square convolution without bias."""
        return Conv(
            tuple(shape), features, key=next(self.keys), window=(window, window), strides=(stride, stride),
            padding=window // 2, bias=False, gain=self.norms.gain, dtype=self.dtype,
        )  # fmt: skip

    def layer(self, shape: Any, features: int, window: int = 3, stride: int = 1, alpha: float = 1.0) -> Layer:
        """Returns convolution, norm and neurons."""
        conv = self.conv(shape, features, window, stride)
        return Layer(conv, self.cell(features), norm=self.norms(features, alpha))

    def current(self, shape: Any, features: int, window: int = 3, stride: int = 1, alpha: float = 1.0) -> Layer:
        """Returns convolution and norm."""
        return Current(self.conv(shape, features, window, stride), self.norms(features, alpha))


def start(
    name: str, stem: str, in_shape: tuple[int, ...], width: int, make: Callable[..., Layer], *, pooled: bool = True
) -> dict[str, Any]:
    """Returns the parts that a residual network begins with.

    Args:
        name: of the network, for sentences.
        stem: a name of `STEMS`.
        in_shape: of one input.
        width: channels.
        make: of a shape, channels, a window and a stride.
        pooled: whether max pooling stands behind the stem "imagenet".

    Raises:
        ValueError: an unknown stem, no image, or one that is too small for all stages.
    """
    if stem not in STEMS:
        hint = did_you_mean(stem, STEMS, "cifar is for small images.", most=1)
        raise ValueError(f"stem of {name} must be one of {', '.join(STEMS)}, got {stem!r}; {hint}")
    shape = check(name, in_shape, STEMS[stem], width=width)
    if stem == "cifar":
        return {"stem": make(shape, width)}
    first = make(shape, width, 7, 2)
    pool = Pool(first.synapse.out_shape, (3, 3), strides=(2, 2), padding=1)
    return {"stem": first} | ({"pool": Pooled(pool)} if pooled else {})
