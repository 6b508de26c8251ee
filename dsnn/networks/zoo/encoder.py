"""What spiking transformers have in common behind their tokens: blocks, with tokens that leave before some of them."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from dsnn.networks.graph import Chain
from dsnn.networks.tokens import TokenExit, tokens_left
from dsnn.types import Array, Key

__all__ = ["encoded"]


def encoded(
    name: str,
    shape: tuple[int, ...],
    depth: int,
    make: Callable[[tuple[int, ...]], Chain],
    share: Any,
    *,
    key: Key[Array, ""],
    score: str = "learned",
    rejoin: bool = False,
) -> dict[str, Any]:
    """Returns the parts block1, block2, ...; where the share of the tokens falls, the rest stands inside of an exit.

    Args:
        name: of the network, for sentences.
        shape: of all tokens, (height, width, channel).
        depth: number of blocks.
        make: returns a block for tokens of a shape.
        share: of the tokens that each block is computed for, in (0, 1], or one for all.
        key: begins random choices; consumed.
        score: by what tokens go on, see `dsnn.networks.TokenExit`.
        rejoin: whether tokens that left stand in the output.

    Raises:
        ValueError: a share out of its range, not one for each block, or one that grows.
    """
    if isinstance(share, str) or not all(isinstance(one, int | float) for one in np.atleast_1d(share).tolist()):
        raise ValueError(f"token_share of {name} must be a number in (0, 1], or one for each block, got {share!r}.")
    shares = (float(share),) * depth if isinstance(share, int | float) else tuple(map(float, share))
    if len(shares) != depth:
        raise ValueError(f"token_share of {name} must be one number, or one for each of {depth} blocks, got {shares}.")
    if any(later > earlier for earlier, later in itertools.pairwise(shares)):
        raise ValueError(f"token_share of {name} must not grow, since tokens that left are gone, got {shares}.")
    shapes = [tuple(shape) if part == 1 else tokens_left(shape, part) for part in shares]

    def rest(number: int, given: tuple[int, ...]) -> dict[str, Any]:
        """Returns the blocks from this number on, of what tokens there are."""
        if number == depth:
            return {}
        if (own := shapes[number]) == given:
            return {f"block{number + 1}": make(given), **rest(number + 1, given)}
        inner = Chain(**{f"block{number + 1}": make(own), **rest(number + 1, own)})
        return {f"exit{number + 1}": TokenExit(given, inner, key=key, score=score, rejoin=rejoin)}

    return rest(0, tuple(shape))
