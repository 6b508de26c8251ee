"""Networks of blocks: layers one after another and beside a shortcut, nested as one likes (`dsnn.networks.branches`).

Each says by itself what of it could be spared. What is added up is one group of channels, whichever branch they come
from; a residual block is a site of its own; and what a closed block holds is neither run nor paid.
"""

import abc
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from flax import nnx

from dsnn.networks.describe import described
from dsnn.networks.layers import Conv, Dense, Layer, LayerState
from dsnn.networks.leaves import Identity, multiplies
from dsnn.networks.plan import NEURONS, NOWHERE, Ends, Plan, Signal, fires, read
from dsnn.networks.shrink import cut
from dsnn.networks.stack import READOUTS
from dsnn.protocols import Output, Wiring
from dsnn.suggest import did_you_mean
from dsnn.types import Array, Key

__all__ = ["CONNECTIONS", "RESIDUAL", "Chain", "Residual"]

CONNECTIONS = ("add", "and", "iand")
"""How a residual block joins what it gives to its shortcut."""

RESIDUAL = "residual"
"""Group of the residual blocks, in the order in which they stand."""


class Part(nnx.Module):
    """What all containers have: a state by the names of their parts, a plan, and what they send."""

    @abc.abstractmethod
    def named(self) -> Iterator[tuple[str, Any]]:
        """Yields (name, part)."""

    @abc.abstractmethod
    def keeps_channels(self) -> bool:
        """Returns whether what it gives are the channels that it reads, so that these are named before it."""

    @abc.abstractmethod
    def run(self, path: str, state: Any, x: Array, way: "Way") -> tuple[Any, Array]:
        """Returns the state afterwards and the output, of one step or of all of them as ``way`` has it."""

    @abc.abstractmethod
    def plan(self, plan: Plan, path: str, given: Signal, out: Ends | None) -> Signal:
        """Adds the parts to a plan and returns what they give, at the sites ``out`` if these are named."""

    def summary(self) -> str:
        """Returns a table of its layers: synapses, outputs, cells, parameters and products."""
        return described(leaves(self), getattr(self, "readout_kind", ""))

    def init(self, batch: int | tuple[int, ...]) -> dict[str, Any]:
        """Returns the state before the first step."""
        return {name: part.init(batch) for name, part in self.named()}

    def step(self, state: Any, x: Array, key: Key[Array, ""] | None = None) -> tuple[Any, Output]:
        """Returns the next state, the output and what was sent; a key is consumed."""
        sent: dict[str, Array] = {}
        state, out = self.run("", state, x, _Step(key, sent))
        return state, Output(out, sent)

    def wiring(self) -> Wiring:
        """Returns the sites, wires and neurons; the last layers answer and cannot be spared."""
        own: Any = self
        plan = Plan(RESIDUAL)
        self.plan(plan, "", plan.input(tuple(own.in_shape), channels=_reads_places(self)), NOWHERE)
        return plan.done()

    def with_gates(self, gates: dict[str, Array]) -> "Part":
        """Returns the network with a share in [0, 1] of what each residual block adds."""
        new = nnx.clone(self)
        for share, block in zip(gates[RESIDUAL], residuals(new), strict=True):
            block.share = nnx.data(share)
        return new

    def shrink(self, keep: dict[str, np.ndarray]) -> "Part":
        """Returns the network of the sites that are kept; closed residual blocks go as a whole."""
        small = cut(self, {name: sites for name, sites in keep.items() if name != RESIDUAL})
        return with_blocks(small, keep.get(RESIDUAL))


class Chain(Part):
    """Layers and blocks one after another.

    ``Chain(stem=Layer(...), block=Residual(Chain(a=Layer(...), b=Layer(...))), readout=Layer(...))``

    Args:
        readout_kind: how the outputs become logits, see `dsnn.networks.stack.running_logits`.
        parts: name = `Layer` or another container, first to last.

    Raises:
        ValueError: no part, or one that does not take what the one before gives.
    """

    def __init__(self, readout_kind: str = "mean", /, **parts: Any):
        if not parts:
            raise ValueError("a chain needs at least one part, got none; give name=Layer(...).")
        if readout_kind not in READOUTS:
            raise ValueError(f"readout must be one of {', '.join(READOUTS)}, got {readout_kind!r}.")
        check_parts(parts)
        self.readout_kind, self.names = readout_kind, tuple(parts)
        for (first, one), (second, other) in itertools.pairwise(parts.items()):
            if math.prod(one.out_shape) != math.prod(other.in_shape):
                raise ValueError(
                    f"{second!r} must take what {first!r} gives, {one.out_shape}, got in_shape {other.in_shape}."
                )
        for name, part in parts.items():
            setattr(self, name, part)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one input without the batch axis."""
        return tuple(getattr(self, self.names[0]).in_shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one output without the batch axis."""
        return tuple(getattr(self, self.names[-1]).out_shape)

    def named(self) -> Iterator[tuple[str, Any]]:
        """Yields (name, part), first to last."""
        return ((name, getattr(self, name)) for name in self.names)

    def keeps_channels(self) -> bool:
        """Returns whether what it gives are the channels that it reads."""
        return all(keeps(part) for _, part in self.named())

    def run(self, path: str, state: Any, x: Array, way: "Way") -> tuple[Any, Array]:
        """Returns the state afterwards and what the last part gives."""
        new = {}
        for number, (name, part) in enumerate(self.named()):
            new[name], x = run_part(part, f"{path}{name}", state[name], x, way.inner(number))
        return new, x

    def plan(self, plan: Plan, path: str, given: Signal, out: Ends | None) -> Signal:
        """Adds the parts to a plan and returns what the last of them gives, at the sites ``out`` if these are named."""
        # neurons and pooling without a product have the sites of what they read, so these are named before them
        last = next((name for name in reversed(self.names) if not keeps(getattr(self, name))), self.names[-1])
        for name, part in self.named():
            given = plan_part(plan, part, f"{path}{name}", given, out if name == last else None)
        return given


class Residual(Part):
    """A block beside a shortcut, O = g(A(S), S) with the body A (Fang et al. 2021, "SEW", eq. 8 and table 1).

        add     O = S + z A            of spikes, or of currents (Hu et al. 2021, "MS-ResNet")
        and     O = S (1 - z + z A)
        iand    O = S (1 - z A)

    The share z of the block is its gate. An open block is the published one, and a closed one leaves its shortcut S
    as it is, whatever g: so what a closed gate does is what is left once the body is gone. (A body that is silent
    leaves S under "add" and "iand", but under "and" nothing at all, so the gate does more there than silence.)

    Sums are no spikes: each event of one costs a multiplication where the block runs. "and" and "iand" take spikes and
    give spikes.

    Args:
        body: `Layer` or container.
        shortcut: the same, for a body that changes the shape; None passes the input on.
        connect: "add", "and" or "iand".

    Raises:
        ValueError: the two do not give the same shape, or an unknown connection.
    """

    def __init__(self, body: Any, shortcut: Any = None, connect: str = "add"):
        if connect not in CONNECTIONS:
            hint = did_you_mean(connect, CONNECTIONS, "add is the usual one.", most=1)
            raise ValueError(f"connect must be one of {', '.join(CONNECTIONS)}, got {connect!r}; {hint}")
        check_parts({"body": body} | ({} if shortcut is None else {"shortcut": shortcut}))
        beside = tuple(body.in_shape if shortcut is None else shortcut.out_shape)
        if tuple(body.out_shape) != beside:
            raise ValueError(
                f"a residual block must give the shape of its shortcut, {beside}, got {tuple(body.out_shape)}; give a "
                "shortcut that changes it alike."
            )
        self.body, self.shortcut, self.connect, self.share = body, shortcut, connect, None
        self.given_shape = tuple(body.in_shape)

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one input without the batch axis."""
        found = self.shortcut if self.body is None else self.body
        return self.given_shape if found is None else tuple(found.in_shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one output without the batch axis."""
        found = self.shortcut if self.body is None else self.body
        return self.in_shape if found is None else tuple(found.out_shape)

    def named(self) -> Iterator[tuple[str, Any]]:
        """Yields (name, part)."""
        parts = (("body", self.body), ("shortcut", self.shortcut))
        return ((name, part) for name, part in parts if part is not None)

    def keeps_channels(self) -> bool:
        """Returns whether what it gives are the channels that it reads: a block beside these."""
        return self.shortcut is None or keeps(self.shortcut)

    def run(self, path: str, state: Any, x: Array, way: "Way") -> tuple[Any, Array]:
        """Returns the state afterwards and what the two ways make together."""
        new, beside = {}, x
        if self.shortcut is not None:
            new["shortcut"], beside = run_part(self.shortcut, f"{path}shortcut", state["shortcut"], x, way.inner(1))
        if self.body is None:
            return new, beside
        new["body"], given = run_part(self.body, f"{path}body", state["body"], x, way.inner(0))
        return new, self.joined(beside, given)

    def joined(self, beside: Array, given: Array) -> Array:
        """Returns what shortcut and body make together."""
        share = self.share
        if self.connect == "add":
            return beside + (given if share is None else share * given)
        if self.connect == "and":
            return beside * (given if share is None else 1.0 - share + share * given)
        return beside * (1.0 - (given if share is None else share * given))

    def plan(self, plan: Plan, path: str, given: Signal, out: Ends | None) -> Signal:
        """Adds both ways; what they make together is one group of channels."""
        site, beside, made = None if self.body is None else plan.block(), given, None
        if self.keeps_channels():
            if out is not None and not out.same(given.ends):
                raise ValueError(
                    f"what a residual block without a shortcut gives are the channels that it takes, so {path[:-1]!r} "
                    "cannot be the last part of a network or of a branch that is added to others; put a layer after it."
                )
            ends = given.ends
        else:
            ends = plan.group(path.rstrip("."), self.out_shape[-1]) if out is None else out
        if self.body is not None and site is not None:
            outside, plan.within = plan.within, (*plan.within, site)
            made = plan_part(plan, self.body, f"{path}body", given, ends)
            plan.within = outside
        if self.shortcut is not None:
            beside = plan_part(plan, self.shortcut, f"{path}shortcut", given, ends)
        if self.connect != "add":
            _check_spikes(self.connect, path, beside, made)
            return Signal(self.out_shape, ends, beside.values, joined=beside.joined)
        # an event of a sum carries a value where both ways can send
        joined = () if site is None else (site,)
        return Signal(self.out_shape, ends, beside.values, joined=(*beside.joined, *joined))


def with_blocks(part: Any, numbers: np.ndarray | None) -> Any:
    """Returns a network, which is changed, with those of its residual blocks that have these numbers; None is all."""
    for number, block in enumerate(list(residuals(part))):
        if numbers is not None:  # what stays runs, and what goes is gone
            block.share, block.given_shape = None, tuple(block.body.in_shape)
            block.body = block.body if number in numbers else None
    return part


def _check_spikes(connect: str, path: str, *signals: Signal | None) -> None:
    """Raises a ValueError where what is combined by a logical operation are no spikes."""
    for signal in signals:
        if signal is not None and (signal.values != "spikes" or signal.joined):
            what = "sums of spikes" if signal.values == "spikes" else "analog values"
            raise ValueError(
                f'connect="{connect}" must combine spikes, got {what} in {path[:-1]!r}; let neurons read them before, '
                'or set connect="add".'
            )


def keeps(part: Any) -> bool:
    """Returns whether what a layer or a container gives are the channels that it reads, see `Part.keeps_channels`."""
    return not multiplies(part) if isinstance(part, Layer) else bool(part.keeps_channels())


def leaves(part: Any, path: str = "") -> Iterator[tuple[str, Layer]]:
    """Yields (name, layer) of what is in a container, first to last."""
    if isinstance(part, Layer):
        yield path.removesuffix("."), part
    if isinstance(part, Part):
        for name, inner in part.named():
            yield from leaves(inner, f"{path}{name}.")


def residuals(part: Any) -> Iterator[Residual]:
    """Yields the residual blocks that a network still has, outer ones first, in the order of their sites."""
    if isinstance(part, Residual) and part.body is not None:
        yield part
    if isinstance(part, Part):
        for _, inner in part.named():
            yield from residuals(inner)


def check_parts(parts: dict[str, Any]) -> None:
    """Raises a ValueError for what is no layer or container, and for a name that means something here."""
    taken = {name for kind_of in (Part, *_kinds(Part)) for name in dir(kind_of)} | {"names", "share"}
    for name, part in parts.items():
        if not isinstance(part, Layer | Part):
            raise ValueError(
                f"a part must be a Layer, Chain, Residual, Parallel or Concatenate, got a {type(part).__name__} as "
                f"{name!r}; a stack's layers go into a Chain, and pooling into Pooled."
            )
        if isinstance(part, Layer) and not isinstance(part.synapse, Dense | Conv | Identity):
            raise ValueError(f"a layer here must have a Dense or Conv synapse, got {type(part.synapse).__name__}.")
        if name in taken and name not in ("body", "shortcut"):
            raise ValueError(f"a part must not be called as something that parts have, got {name!r}; rename it.")
        if "." in name:
            raise ValueError(f"a part's name must be without dots, which stand between names, got {name!r}; rename it.")


def _kinds(kind_of: type) -> Iterator[type]:
    """Yields what is derived from a class."""
    derived: list[type] = kind_of.__subclasses__()
    for own in derived:
        yield own
        yield from _kinds(own)


@runtime_checkable
class Way(Protocol):
    """How the layers in a container run: one step, or all of them (`dsnn.simulate.by_layer`)."""

    def inner(self, number: int) -> "Way":
        """Returns how the part of this number runs, with random numbers of its own."""
        ...

    def layer(self, layer: Layer, path: str, state: LayerState, x: Array) -> tuple[LayerState, Array]:
        """Returns the state afterwards and what the layer gives; what is sent is kept by its name."""
        ...

    def send(self, wire: str, values: Array) -> None:
        """Keeps what goes over a wire that is no layer's."""
        ...


class _Step(NamedTuple):
    """One step: what is sent is added to ``sent``."""

    key: Key[Array, ""] | None
    sent: dict[str, Array]

    def inner(self, number: int) -> "_Step":
        """Returns how the part of this number runs."""
        return _Step(None if self.key is None else jax.random.fold_in(self.key, number), self.sent)

    def layer(self, layer: Layer, path: str, state: LayerState, x: Array) -> tuple[LayerState, Array]:
        """Returns the next state and what the layer gives."""
        if multiplies(layer):
            self.sent[path] = rows_of(layer, read(layer, x))
        state, out = layer.step(state, x, self.key)
        if fires(layer):
            self.sent[f"{path}{NEURONS}"] = out
        if state.spikes is not None:
            self.sent[f"{path}.recurrent"] = state.spikes
        return state, out

    def send(self, wire: str, values: Array) -> None:
        """Keeps what goes over a wire that is no layer's."""
        self.sent[wire] = values


def rows_of(layer: Layer, reads: Array, lead: int = 1) -> Array:
    """Returns what a layer's synapse reads, as its kernel has rows for it: in a row where it is dense."""
    if isinstance(layer.synapse, Conv):
        return reads
    return reads.reshape(*reads.shape[:lead], math.prod(reads.shape[lead:]))


def run_part(part: Any, path: str, state: Any, x: Array, way: Way) -> tuple[Any, Array]:
    """Returns the state afterwards and the output of a layer or a container."""
    if isinstance(part, Layer):
        return way.layer(part, path, state, x)
    return part.run(f"{path}.", state, x, way)


def plan_part(plan: Plan, part: Any, path: str, given: Signal, out: Ends | None) -> Signal:
    """Adds a layer or a container to a plan and returns what it gives, at the sites ``out`` if these are named."""
    if not isinstance(part, Layer):
        return part.plan(plan, f"{path}.", given, out)
    if part.skip:
        raise ValueError(f"a residual layer in a network of blocks is Residual(layer), got skip=True in {path!r}.")
    return plan.layer(path, part, given, out)


def _reads_places(part: Any) -> bool:
    """Returns whether a convolution reads the input, so that its sites are channels."""
    if isinstance(part, Layer):
        return isinstance(part.synapse, Conv) or (not multiplies(part) and len(part.in_shape) == 3)
    inner = [one for _, one in part.named()]
    return any(map(_reads_places, inner[:1] if isinstance(part, Chain) else inner))
