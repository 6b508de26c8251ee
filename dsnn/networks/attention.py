"""Attention between the places of a feature map, the tokens: heads of spikes, without a softmax.

Queries, keys and values are spikes, so that all products between them are additions of whole numbers. Each projection
works on one token at a time: it is a 1 x 1 convolution with a norm and neurons. A head is a site: its channels of
queries, keys and values, the neurons that it drives and the rows of the last projection that read them.
"""

import abc
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from dsnn.networks.graph import Part, Way, plan_part, run_part
from dsnn.networks.layers import Conv, Layer
from dsnn.networks.leaves import Current, Fire
from dsnn.networks.plan import Ends, Plan, Signal, fires
from dsnn.protocols import CellFactory, Wire
from dsnn.types import Array, Float, Key

__all__ = ["SelfAttention", "SpikeDrivenAttention"]

SHAPE = "a feature map has (height, width, channel), whose places are the tokens, got {}."


class _Attention(Part):
    """What both have: queries, keys and values by head, neurons that these drive, and a projection of their spikes."""

    def __init__(
        self,
        in_shape: tuple[int, ...],
        heads: int,
        *,
        key: Key[Array, ""],
        cell: CellFactory,
        attending: CellFactory | None = None,
        norm: Callable[[int], Any] | None = None,
        scale: float = 1.0,
        bias: tuple[bool, bool] = (False, False),
        neurons: bool = True,
        gain: float = 1.0,
        dtype: str | None = None,
    ):
        if len(in_shape) != 3:
            raise ValueError(SHAPE.format(tuple(in_shape)))
        width = in_shape[-1]
        if heads < 1 or width % heads:
            raise ValueError(
                f"heads share the channels evenly, so their number must divide the width, {width}, got {heads}; "
                f"take one of {', '.join(str(n) for n in range(1, width + 1) if width % n == 0)}."
            )
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive and finite, got {scale}.")
        self.head_width, self.scale = width // heads, scale
        keys = jax.random.split(key, 4)

        def projection(number: int, fired: bool = True) -> Layer:
            options: dict[str, Any] = {"bias": bias[number == 3], "gain": gain, "dtype": dtype}
            synapse = Conv(in_shape, width, key=keys[number], window=(1, 1), **options)
            own = None if norm is None else norm(width)
            return Layer(synapse, cell(width), norm=own) if fired else Current(synapse, own)

        self.query, self.key, self.value = (projection(number) for number in range(3))
        self.attending = Fire(self.attending_shape, (attending or cell)(width))
        self.project = projection(3, neurons)

    @property
    @abc.abstractmethod
    def attending_shape(self) -> tuple[int, int, int]:
        """Shape of the neurons that queries, keys and values drive together."""

    @abc.abstractmethod
    def attend(
        self, path: str, state: Any, fired: tuple[Array, Array, Array], way: Way
    ) -> tuple[Any, Float[Array, "..."]]:
        """Returns the state of these neurons, and what the projection reads."""

    @abc.abstractmethod
    def plan_attending(self, plan: Plan, path: str, made: tuple[Signal, Signal, Signal]) -> Signal:
        """Adds the products between queries, keys and values, and returns what the projection reads."""

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one input without the batch axis."""
        return tuple(self.query.in_shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one output without the batch axis."""
        return tuple(self.project.out_shape)

    @property
    def heads(self) -> int:
        """Number of heads."""
        return int(self.query.out_shape[-1]) // self.head_width

    def named(self) -> Iterator[tuple[str, Any]]:
        """Yields (name, part)."""
        return ((name, getattr(self, name)) for name in ("query", "key", "value", "attending", "project"))

    def keeps_channels(self) -> bool:
        """Returns whether what it gives are the channels that it reads."""
        return False

    def run(self, path: str, state: Any, x: Array, way: Way) -> tuple[Any, Array]:
        """Returns the state afterwards and the output."""
        new, fired = {}, []
        for number, name in enumerate(("query", "key", "value")):
            new[name], out = run_part(getattr(self, name), f"{path}{name}", state[name], x, way.inner(number))
            fired.append(out)
        query, key, value = fired
        new["attending"], reads = self.attend(path, state["attending"], (query, key, value), way)
        new["project"], out = run_part(self.project, f"{path}project", state["project"], reads, way.inner(4))
        return new, out

    def plan(self, plan: Plan, path: str, given: Signal, out: Ends | None) -> Signal:
        """Adds the projections and what is between them; each head is a site."""
        heads = plan.group(f"{path}heads", self.heads)
        ends = Ends(heads.group, np.repeat(heads.index, self.head_width))
        query, key, value = (
            plan_part(plan, getattr(self, name), f"{path}{name}", given, ends) for name in ("query", "key", "value")
        )
        reads = self.plan_attending(plan, path, (query, key, value))
        return plan_part(plan, self.project, f"{path}project", reads, out)


class SelfAttention(_Attention):
    """Spiking self-attention (SSA; Zhou et al. 2023, ICLR, "Spikformer", eq. 5 to 7).

        q, k, v = fire(norm(x W))    a = fire(scale q k^T v)    y = fire(norm(a W'))

    In each head the products are taken in the order that is cheaper, (q k^T) v or q (k^T v): by the first each spike of
    a key or a value meets every token, by the second each spike of a key or a query meets every channel of its head.
    Both give the same, since they add up whole numbers. Each of these meetings is an event that costs an addition, as
    at a weight, of spikes; where neurons give values, a multiplication.

    The published code has neurons of threshold 0.5 where all others have 1, with scale 0.125: that is scale 0.25 for
    neurons of threshold 1.

    Args:
        in_shape: (height, width, channel) of one input.
        heads: number of heads, a divisor of the channels.
        key: initialises the kernels; consumed.
        cell: neurons -> cell.
        attending: the same for the neurons that queries, keys and values drive together; None is ``cell``.
        norm: channels -> norm of a projection, such as `dsnn.networks.TdBN`; None is none.
        scale: of what queries, keys and values give together.
        bias: whether queries, keys and values have a bias, and whether the last projection has one.
        neurons: whether the last projection has neurons; without, it gives currents.
        gain: standard deviation of the kernels times sqrt(fan in).
        dtype: of the projections' products; None keeps the input's.

    Raises:
        ValueError: a shape without places, or heads that do not divide the channels.
    """

    @property
    def attending_shape(self) -> tuple[int, int, int]:
        """Shape of the neurons that queries, keys and values drive together: as many as queries."""
        height, width, channels = self.query.out_shape
        return height, width, channels

    @property
    def by_scores(self) -> bool:
        """Whether q k^T is computed first: there are fewer tokens than channels in a head."""
        return math.prod(self.query.out_shape[:-1]) < self.head_width

    def attend(
        self, path: str, state: Any, fired: tuple[Array, Array, Array], way: Way
    ) -> tuple[Any, Float[Array, "..."]]:
        """Returns the state of these neurons, and their spikes."""
        query, key, value = (self._by_head(one) for one in fired)
        if self.by_scores:
            way.send(f"{path}scores", fired[1])
            way.send(f"{path}mixed", fired[2])
            mixed = (query @ key.swapaxes(-1, -2)) @ value
        else:
            way.send(f"{path}context", fired[1])
            way.send(f"{path}mixed", fired[0])
            mixed = query @ (key.swapaxes(-1, -2) @ value)
        currents = self.scale * mixed.swapaxes(-2, -3).reshape(fired[0].shape)
        return run_part(self.attending, f"{path}attending", state, currents, way.inner(3))

    def plan_attending(self, plan: Plan, path: str, made: tuple[Signal, Signal, Signal]) -> Signal:
        """Adds both products and the neurons that they drive."""
        query, key, value = made
        tokens = math.prod(query.shape[:-1])
        if self.by_scores:
            first, sends, each = f"{path}scores", value, tokens
        else:
            first, sends, each = f"{path}context", query, self.head_width
        for name, signal in ((first, key), (f"{path}mixed", sends)):
            plan.wires.append(between(plan, name, signal, each))
        driven = Signal(query.shape, query.ends, "analog")
        return plan_part(plan, self.attending, f"{path}attending", driven, None)

    def _by_head(self, spikes: Float[Array, "... channel"]) -> Float[Array, "... head token each"]:
        """Returns heads before tokens: products of many small matrices in a row are twice as fast so."""
        *lead, height, width, channels = spikes.shape
        by_token = spikes.reshape(*lead, height * width, channels // self.head_width, self.head_width)
        return by_token.swapaxes(-2, -3)


class SpikeDrivenAttention(_Attention):
    """Spike-driven self-attention (SDSA; Yao et al. 2023, NeurIPS, "Spike-driven Transformer", eq. 8).

        q, k, v = fire(norm(x W))    g = fire(scale sum over tokens of q * k)    y = fire(norm((g * v) W'))

    Where a query and a key of one channel fire at one token, that is an event which costs an addition; g masks the
    channels of v, which costs nothing for spikes, and a multiplication for each value where neurons give values. The
    published code has neurons of threshold 0.5 for g where all others have 1: that is scale 2.

    Args:
        in_shape: (height, width, channel) of one input.
        heads: number of heads, a divisor of the channels; they share nothing but their site.
        key: initialises the kernels; consumed.
        cell: neurons -> cell.
        attending: the same for g; None is ``cell``.
        norm: channels -> norm of a projection, such as `dsnn.networks.TdBN`; None is none.
        scale: of the sums.
        bias: whether queries, keys and values have a bias, and whether the last projection has one.
        neurons: whether the last projection has neurons; without, it gives currents.
        gain: standard deviation of the kernels times sqrt(fan in).
        dtype: of the projections' products; None keeps the input's.

    Raises:
        ValueError: a shape without places, or heads that do not divide the channels.
    """

    @property
    def attending_shape(self) -> tuple[int, int, int]:
        """Shape of the neurons that queries and keys drive together: one for each channel."""
        return 1, 1, self.query.out_shape[-1]

    def attend(
        self, path: str, state: Any, fired: tuple[Array, Array, Array], way: Way
    ) -> tuple[Any, Float[Array, "..."]]:
        """Returns the state of these neurons, and the values that they let through."""
        query, key, value = fired
        both = query * key
        way.send(f"{path}columns", both)
        sums = self.scale * both.sum((-3, -2), keepdims=True)
        state, mask = run_part(self.attending, f"{path}attending", state, sums, way.inner(3))
        if not fires(self.value):
            way.send(f"{path}masked", value)
        return state, mask * value

    def plan_attending(self, plan: Plan, path: str, made: tuple[Signal, Signal, Signal]) -> Signal:
        """Adds the sums and the neurons that they drive."""
        query, _, value = made
        plan.wires.append(between(plan, f"{path}columns", query, 1))
        sums = Signal(self.attending_shape, query.ends, "analog")
        plan_part(plan, self.attending, f"{path}attending", sums, None)
        if value.values == "analog":
            plan.wires.append(between(plan, f"{path}masked", value, 1))
        return Signal(value.shape, value.ends, value.values)


def between(plan: Plan, name: str, sent: Signal, each: int) -> Wire:
    """Returns the wire of a product without weights, each of whose events reaches so many others.

    Args:
        plan: that it is for.
        name: of the wire.
        sent: what carries the events, in places.
        each: what an event reaches.
    """
    *places, channels = sent.shape
    return Wire(
        name,
        None,
        sent.ends.along(-1, channels),
        (),
        plan.within,
        fan=np.ones(places),
        values=sent.values,
        senders=channels,
        receivers=each,
    )
