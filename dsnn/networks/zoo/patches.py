"""What spiking transformers begin with: an image becomes tokens by four convolutions, some of them pooled.

Spiking patch splitting (SPS; Zhou et al. 2023, ICLR, section 3.2), with the convolution that tells tokens where they
are (relative position embedding) beside what it reads; and the same of currents (Yao et al. 2023, NeurIPS).
"""

from collections.abc import Sequence
from typing import Any

from dsnn.networks.graph import Chain, Residual
from dsnn.networks.layers import Pool
from dsnn.networks.leaves import Fire, Pooled
from dsnn.networks.zoo.pieces import check
from dsnn.networks.zoo.residual import Made
from dsnn.suggest import did_you_mean

__all__ = ["POOLED", "POOLS", "embedded"]

STAGES = 4

POOLED = {"cifar": (3, 4), "imagenet": (1, 2, 3, 4)}
"""Stages behind which each stem pools: images of 32 x 32 become 8 x 8 tokens, and of 224 x 224 14 x 14."""

POOLS = ("overlapping", "cells", "currents")
"""How stages are pooled, by maxima: 3 x 3 at steps of 2; cells of 2 x 2; or currents as the first, before neurons."""


def embedded(
    name: str,
    made: Made,
    in_shape: tuple[int, ...],
    width: int,
    stem: str | Sequence[int],
    *,
    pool: str = "overlapping",
    currents: bool = False,
) -> dict[str, Any]:
    """Returns the parts that make tokens of an image: stage1 to stage4, of width / 8, / 4, / 2 and all, and position.

    Args:
        name: of the network, for sentences.
        made: makes the layers.
        in_shape: (height, width, channel) of one image.
        width: channels of a token, a multiple of 8.
        stem: a name of `POOLED`, or the numbers of the stages, from 1, behind which is pooled.
        pool: a name of `POOLS`.
        currents: whether the last stage gives currents, to which those of the position are added, and no spikes.

    Raises:
        ValueError: an unknown stem or pool, no image, one that is too small, or a width that is no multiple of 8.
    """
    pooled = _pooled(name, stem)
    shape = check(name, in_shape, 2 ** len(pooled), width=width)
    if width % 8:
        raise ValueError(f"width of {name} must be a multiple of 8, whose eighth the first stage has, got {width}.")
    if pool not in POOLS:
        hint = did_you_mean(pool, POOLS, "overlapping is the published one.", most=1)
        raise ValueError(f"pool of {name} must be one of {', '.join(POOLS)}, got {pool!r}; {hint}")
    parts: dict[str, Any] = {}
    for stage in range(1, STAGES + 1):
        last = currents and stage == STAGES
        fires = pool == "currents" and stage in pooled and not last
        make = made.current if last or fires else made.layer
        parts[f"stage{stage}"] = make(shape, width * 2**stage // 16)
        shape = parts[f"stage{stage}"].out_shape
        if stage in pooled:
            apart = Pool(shape) if pool == "cells" else Pool(shape, (3, 3), strides=(2, 2), padding=1)
            parts[f"pool{stage}"] = Pooled(apart)
            shape = parts[f"pool{stage}"].out_shape
        if fires:
            parts[f"fire{stage}"] = Fire(shape, made.cell(shape[-1]))
    if not currents:
        return parts | {"position": Residual(made.layer(shape, width))}
    return parts | {"position": Residual(Chain(fire=Fire(shape, made.cell(width)), only=made.current(shape, width)))}


def _pooled(name: str, stem: str | Sequence[int]) -> tuple[int, ...]:
    if isinstance(stem, str):
        if stem not in POOLED:
            hint = did_you_mean(stem, POOLED, "cifar is for small images.", most=1)
            raise ValueError(f"stem of {name} must be one of {', '.join(POOLED)}, or stages, got {stem!r}; {hint}")
        return POOLED[stem]
    stages = tuple(stem)
    if sorted(set(stages)) != list(stages) or not set(stages) <= set(range(1, STAGES + 1)):
        raise ValueError(
            f"stem of {name} must be the stages, from 1 to {STAGES} and in order, behind which is pooled, got "
            f"{list(stages)}; [3, 4] is that for images of 32 x 32."
        )
    return stages
