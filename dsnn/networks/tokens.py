"""Tokens that leave a network early: exits in space, for each example its own.

Which tokens of an example go on is state of the forward pass and not a gate: it is decided at the first step that runs,
and holds for all later ones, so that a neuron behind it sees one token all along, and one step after the other gives
what all of them at once do. Later parts are really smaller: what left is not computed, and sends no events.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from dsnn.energy import NeuronCost
from dsnn.networks.graph import Part, Way, check_parts, plan_part, run_part
from dsnn.networks.layers import Conv, Layer
from dsnn.networks.plan import NOWHERE, Ends, Plan, Signal
from dsnn.types import Array, Float, Int, Key

__all__ = ["TokenExit", "tokens_left"]

SCORES = ("learned", "random")


def tokens_left(in_shape: tuple[int, ...], share: float) -> tuple[int, int, int]:
    """Returns the shape of the tokens that go on, in a row: (ceil(share x height x width), 1, channel).

    Args:
        in_shape: (height, width, channel) of the feature map whose places are the tokens.
        share: of the tokens that go on, in (0, 1].

    Raises:
        ValueError: a share out of its range, or a shape without places.
    """
    if len(in_shape) != 3:
        raise ValueError(f"tokens are the places of a feature map (height, width, channel), got {tuple(in_shape)}.")
    if not 0 < share <= 1:
        raise ValueError(
            f"the share of the tokens that go on must be in (0, 1], got {share}; without any there is nothing to "
            "compute, and a network without the blocks behind is what is meant."
        )
    # a share of 0.6 of 5 tokens are 3, whatever 0.6 rounds to
    return max(math.ceil(round(share * math.prod(in_shape[:2]), 6)), 1), 1, in_shape[2]


class HoldState(NamedTuple):
    """What was read first, and how far that step ran; 0 is not yet."""

    held: Float[Array, "..."]
    begun: Float[Array, "..."]


class Hold(nnx.Module):
    """Gives what it read at the first step that ran, at every step (sample and hold), and a learned number per place.

    Args:
        shape: of one input, (height, width, 1).
    """

    def __init__(self, shape: tuple[int, ...]):
        self.place = nnx.Param(jnp.zeros(shape))

    def cost(self) -> NeuronCost:
        """Returns what an update costs: a comparison, an addition and the value that is kept."""
        return NeuronCost(macs=0, acs=1, compares=1, states=1, fires=False)

    def init(self, shape: tuple[int, ...]) -> HoldState:
        """Returns the state before anything was read."""
        return HoldState(jnp.zeros(shape), jnp.zeros(shape))

    def step(
        self, state: HoldState, current: Float[Array, "..."], key: Key[Array, ""] | None = None
    ) -> tuple[HoldState, Float[Array, "..."]]:
        """Returns the next state and what is held; a key is accepted and not used."""
        del key
        held = jnp.where(state.begun > 0, state.held, current)
        return HoldState(held, jnp.where(state.begun > 0, state.begun, 1.0)), held + self.place[...]


class TokenExit(Part):
    """Tokens with the least scores leave, and the rest go through a body which is built for so many.

        score = x w + b        the k tokens of the largest scores go on        y = body of these

    ``TokenExit((7, 7, 64), block(tokens_left((7, 7, 64), 0.6)), key=key)``

    The score is a linear head with a bias for each place; it starts as the number of spikes of a token, and places may
    come to matter whatever is there. It learns by a straight-through gradient:
    a token that goes on, or where tokens rejoin what the body adds to it, counts 1 going forward, and the logistic
    function of its score over that of the last token that went on going back (as weighs the router of Raposo et al.
    2024, "Mixture-of-Depths"). Other rules of what a token is worth are in Rao et al. 2021 ("DynamicViT").

    Args:
        in_shape: (height, width, channel) of one input.
        body: `Layer` or container of as many tokens as go on, in a row, (k, 1, channel), as `tokens_left` gives them.
        key: begins a random choice; consumed.
        score: "learned", or "random": the same places for every example, drawn once, which is the control.
        rejoin: whether tokens that left stand among those that went on, as they were when they left, y = x; else they
            are gone, and the output is as small as the body's.

    Raises:
        ValueError: a body of other channels or more tokens, or one that gives another shape than it takes where tokens
            rejoin, or an unknown score.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        body: Any,
        *,
        key: Key[Array, ""],
        score: str = "learned",
        rejoin: bool = False,
    ):
        if len(in_shape) != 3:
            raise ValueError(f"tokens are the places of a feature map (height, width, channel), got {tuple(in_shape)}.")
        check_parts({"body": body})
        height, width, channels = in_shape
        tokens = height * width
        reads = tuple(body.in_shape)
        if len(reads) != 3 or reads[1:] != (1, channels) or not 0 < reads[0] <= tokens:
            raise ValueError(
                f"the body of a token exit takes (k, 1, {channels}) with k from 1 to {tokens}, as tokens_left says, "
                f"got {reads}."
            )
        if rejoin and tuple(body.out_shape) != reads:
            raise ValueError(
                f"tokens rejoin those that went through a body of one shape, {reads}, got out_shape "
                f"{tuple(body.out_shape)}; set rejoin=False."
            )
        if score not in SCORES:
            raise ValueError(f"score must be one of {', '.join(SCORES)}, got {score!r}.")
        self.places, self.rejoin = (height, width), rejoin
        self.drawn = nnx.Variable(jax.random.uniform(key, (tokens,)))
        synapse = Conv((height, width, channels), 1, key=key, window=(1, 1), bias=False)
        synapse.kernel[...] = jnp.full(synapse.kernel.shape, channels**-0.5)
        self.body, self.score = body, Layer(synapse, Hold((height, width, 1))) if score == "learned" else None

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one input without the batch axis."""
        return (*self.places, tuple(self.body.in_shape)[-1])

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one output without the batch axis."""
        return (*self.places, tuple(self.body.out_shape)[-1]) if self.rejoin else tuple(self.body.out_shape)

    @property
    def kept(self) -> int:
        """How many tokens go on."""
        return int(self.body.in_shape[0])

    def named(self) -> Iterator[tuple[str, Any]]:
        """Yields (name, part)."""
        parts = (("score", self.score), ("body", self.body))
        return ((name, part) for name, part in parts if part is not None)

    def keeps_channels(self) -> bool:
        """Returns whether what it gives are the channels that it reads: those that rejoin are those that left."""
        return self.rejoin

    def run(self, path: str, state: Any, x: Array, way: Way) -> tuple[Any, Array]:
        """Returns the state afterwards and the output."""
        new, scores = {}, jnp.broadcast_to(self.drawn[...], (x.shape[-4], *self.drawn.shape))
        if self.score is not None:
            new["score"], held = run_part(self.score, f"{path}score", state["score"], x, way.inner(0))
            # of all steps the last one: by then it surely is decided
            scores = held.reshape(-1, *scores.shape)[-1]
        chosen, shares = choice(scores, self.kept)
        given = taken(x, chosen)
        # one going forward, whose gradient is that of the share
        weight = 1.0 + (shares - jax.lax.stop_gradient(shares))[..., None, None]
        if not self.rejoin:
            new["body"], out = run_part(self.body, f"{path}body", state["body"], weight * given, way.inner(1))
            return new, out
        new["body"], out = run_part(self.body, f"{path}body", state["body"], given, way.inner(1))
        return new, returned(x, chosen, out + (weight - 1.0) * (out - given))

    def plan(self, plan: Plan, path: str, given: Signal, out: Ends | None) -> Signal:
        """Adds the score and the body, which has fewer places."""
        if self.rejoin and out is not None and not out.same(given.ends):
            raise ValueError(
                f"what a token exit whose tokens rejoin gives are the channels that it reads, so {path[:-1]!r} cannot "
                "be the whole of a network or of a branch that is added to others; put a layer before or behind it."
            )
        if self.score is not None:
            plan_part(plan, self.score, f"{path}score", given, NOWHERE)
        inner = given._replace(shape=tuple(self.body.in_shape))
        made = plan_part(plan, self.body, f"{path}body", inner, None if self.rejoin else out)
        if not self.rejoin:
            return made
        if not made.ends.same(given.ends):
            raise ValueError(
                "tokens rejoin those that went on where their channels are the same, behind blocks that add to what "
                f"they read (Residual without a shortcut), got {path[:-1]!r} without; set rejoin=False."
            )
        values = "analog" if "analog" in (given.values, made.values) else "spikes"
        return Signal(self.out_shape, given.ends, values, joined=tuple(dict.fromkeys((*given.joined, *made.joined))))


def choice(
    scores: Float[Array, "batch token"], kept: int
) -> tuple[Int[Array, "batch kept"], Float[Array, "batch kept"]]:
    """Returns the numbers of the tokens of the largest scores, in the order of their places, and the share of each.

    Of equal scores the first token goes on. The share is the logistic function of a token's score over the least score
    that goes on.

    Args:
        scores: of every token.
        kept: how many go on.
    """
    best, chosen = jax.lax.top_k(scores, kept)
    chosen = jnp.sort(chosen, -1)
    own = jnp.take_along_axis(scores, chosen, -1)
    return chosen, jax.nn.sigmoid(own - jax.lax.stop_gradient(best[:, -1:]))


def taken(
    x: Float[Array, "*lead batch height width channel"], chosen: Int[Array, "batch kept"]
) -> Float[Array, "*lead batch kept 1 channel"]:
    """Returns the tokens of these numbers, in a row."""
    tokens = x.reshape(*x.shape[:-3], -1, x.shape[-1])
    at = jnp.broadcast_to(chosen[..., None], (*x.shape[:-3], chosen.shape[-1], 1))
    return jnp.take_along_axis(tokens, at, -2)[..., None, :]


def returned(
    x: Float[Array, "*lead batch height width channel"],
    chosen: Int[Array, "batch kept"],
    out: Float[Array, "*steps batch kept 1 channel"],
) -> Float[Array, "*steps batch height width channel"]:
    """Returns a feature map in which tokens stand at their places again; an input that is held has one step."""
    kept, steps = chosen.shape[-1], out.shape[:-4]
    height, width, channels = x.shape[-3:]
    every = jnp.broadcast_to(x, (*steps, *x.shape[-4:])).reshape(*out.shape[:-3], height * width, channels)
    rows = jnp.concatenate([every, out[..., 0, :]], -2)
    # each place reads its own token, or the one that comes back to it
    own = jnp.broadcast_to(jnp.arange(height * width), (len(chosen), height * width))
    at = own.at[jnp.arange(len(chosen))[:, None], chosen].set(height * width + jnp.arange(kept))
    at = jnp.broadcast_to(at[..., None], (*rows.shape[:-2], height * width, 1))
    return jnp.take_along_axis(rows, at, -2).reshape(*rows.shape[:-2], height, width, channels)
