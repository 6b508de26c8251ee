"""Networks of blocks: layers one after another, beside a shortcut, and beside each other, nested as one likes.

Each says by itself what of it could be spared. What is added up is one group of channels, whichever branch they come
from; a residual block is a site of its own; and what a closed block holds is neither run nor paid.
"""

import abc
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.cells import kind
from dsnn.layers import Conv, Dense, Layer
from dsnn.models import READOUTS
from dsnn.networks.reach import reach
from dsnn.networks.shrink import INPUT, cut
from dsnn.protocols import Axis, NeuronGroup, Output, Wire, Wiring
from dsnn.types import Array, Key

__all__ = ["RESIDUAL", "Chain", "Concatenate", "Parallel", "Residual"]

RESIDUAL = "residual"
"""Group of the residual blocks, in the order in which they stand."""


class _Ends(NamedTuple):
    """The site of each channel; without a group nothing closes them."""

    group: str
    index: np.ndarray  # type: ignore[assignment]  # the field's name, of a tuple's method

    def along(self, axis: int, length: int) -> tuple[Axis, ...]:
        """Returns the sites of an axis; channels come last, so what is flattened repeats them."""
        if not self.group:
            return ()
        return (Axis(self.group, axis, np.tile(self.index, length // max(len(self.index), 1))),)


class _Signal(NamedTuple):
    """What goes from one part to the next."""

    shape: tuple[int, ...]
    ends: _Ends
    values: str
    once: bool = False
    joined: tuple[str, ...] = ()


class _Plan:
    """Collects groups, wires and neurons while the parts are walked."""

    def __init__(self) -> None:
        self.groups: dict[str, int] = {}
        self.wires: list[Wire] = []
        self.neurons: list[NeuronGroup] = []
        self.within: tuple[str, ...] = ()
        self.blocks = 0

    def group(self, name: str, size: int) -> _Ends:
        """Returns the ends of a new group."""
        if name in self.groups or name == RESIDUAL:
            raise ValueError(f"a part must have a name of its own, got {name!r}, which is a group of sites; rename it.")
        self.groups[name] = size
        return _Ends(name, np.arange(size))


class _Part(nnx.Module):
    """What all containers have: a state by the names of their parts, a plan, and what they send."""

    @abc.abstractmethod
    def named(self) -> Iterator[tuple[str, Any]]:
        """Yields (name, part)."""

    @abc.abstractmethod
    def run(self, path: str, state: Any, x: Array, key: Any, sent: dict[str, Array]) -> tuple[Any, Array]:
        """Returns the next state and the output; what is sent is added to ``sent``."""

    @abc.abstractmethod
    def plan(self, plan: _Plan, path: str, given: _Signal, out: _Ends | None) -> _Signal:
        """Adds the parts to a plan and returns what they give, at the sites ``out`` if these are named."""

    def init(self, batch: int | tuple[int, ...]) -> dict[str, Any]:
        """Returns the state before the first step."""
        return {name: part.init(batch) for name, part in self.named()}

    def step(self, state: Any, x: Array, key: Key[Array, ""] | None = None) -> tuple[Any, Output]:
        """Returns the next state, the output and what was sent; a key is consumed."""
        sent: dict[str, Array] = {}
        state, out = self.run("", state, x, key, sent)
        return state, Output(out, sent)

    def wiring(self) -> Wiring:
        """Returns the sites, wires and neurons; the last layers answer and cannot be spared."""
        own: Any = self
        plan, shape = _Plan(), tuple(own.in_shape)
        size = shape[-1] if _reads_places(self) else math.prod(shape)
        nowhere = _Ends("", np.arange(0))
        read = plan.group(INPUT, size) if size > 1 else nowhere
        self.plan(plan, "", _Signal(shape, read, "spikes", once=True), nowhere)
        if plan.blocks:
            plan.groups[RESIDUAL] = plan.blocks
        return Wiring(plan.groups, tuple(plan.wires), tuple(plan.neurons))

    def with_gates(self, gates: dict[str, Array]) -> "_Part":
        """Returns the network with a share in [0, 1] of what each residual block adds."""
        new = nnx.clone(self)
        for share, block in zip(gates[RESIDUAL], residuals(new), strict=True):
            block.share = nnx.data(share)
        return new

    def shrink(self, keep: dict[str, np.ndarray]) -> "_Part":
        """Returns the network of the sites that are kept; closed residual blocks go as a whole."""
        small = cut(self, {name: sites for name, sites in keep.items() if name != RESIDUAL})
        for number, block in enumerate(list(residuals(small))):
            if RESIDUAL in keep:  # what stays runs, and what goes is gone
                block.share = None
                block.body = block.body if number in keep[RESIDUAL] else None
        return small


class Chain(_Part):
    """Layers and blocks one after another.

    ``Chain(stem=Layer(...), block=Residual(Chain(a=Layer(...), b=Layer(...))), readout=Layer(...))``

    Args:
        readout_kind: how the outputs become logits, see `dsnn.models.running_logits`.
        parts: name = `Layer` or another container, first to last.

    Raises:
        ValueError: no part, or one that does not take what the one before gives.
    """

    def __init__(self, readout_kind: str = "mean", /, **parts: Any):
        if not parts:
            raise ValueError("a chain needs at least one part, got none; give name=Layer(...).")
        if readout_kind not in READOUTS:
            raise ValueError(f"readout must be one of {', '.join(READOUTS)}, got {readout_kind!r}.")
        _check_parts(parts)
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

    def run(self, path: str, state: Any, x: Array, key: Any, sent: dict[str, Array]) -> tuple[Any, Array]:
        """Returns the next state and the output; what is sent is added to ``sent``."""
        new = {}
        for number, (name, part) in enumerate(self.named()):
            new[name], x = _run(part, f"{path}{name}", state[name], x, _own(key, number), sent)
        return new, x

    def plan(self, plan: _Plan, path: str, given: _Signal, out: _Ends | None) -> _Signal:
        """Adds the parts to a plan and returns what the last of them gives, at the sites ``out`` if these are named."""
        for name, part in self.named():
            given = _plan(plan, part, f"{path}{name}", given, out if name == self.names[-1] else None)
        return given


class Residual(_Part):
    """A block beside a shortcut: shortcut(x) + body(x); spikes are added (Fang et al. 2021, "SEW", ADD).

    Args:
        body: `Layer` or container.
        shortcut: the same, for a body that changes the shape; None passes the input on.

    Raises:
        ValueError: the two do not give the same shape.
    """

    def __init__(self, body: Any, shortcut: Any = None):
        beside = tuple(body.in_shape if shortcut is None else shortcut.out_shape)
        if tuple(body.out_shape) != beside:
            raise ValueError(
                f"a residual block must give the shape of its shortcut, {beside}, got {tuple(body.out_shape)}; give a "
                "shortcut that changes it alike."
            )
        _check_parts({"body": body} | ({} if shortcut is None else {"shortcut": shortcut}))
        self.body, self.shortcut, self.share = body, shortcut, None
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

    def run(self, path: str, state: Any, x: Array, key: Any, sent: dict[str, Array]) -> tuple[Any, Array]:
        """Returns the next state and the sum."""
        new, total = {}, x
        if self.shortcut is not None:
            new["shortcut"], total = _run(self.shortcut, f"{path}shortcut", state["shortcut"], x, _own(key, 1), sent)
        if self.body is not None:
            new["body"], added = _run(self.body, f"{path}body", state["body"], x, _own(key, 0), sent)
            total = total + (added if self.share is None else self.share * added)
        return new, total

    def plan(self, plan: _Plan, path: str, given: _Signal, out: _Ends | None) -> _Signal:
        """Adds both ways; their sum is one group of channels."""
        number, beside = plan.blocks, given
        plan.blocks += self.body is not None
        if self.shortcut is None:
            if out is not None:
                raise ValueError(
                    f"what a residual block without a shortcut gives are the channels that it takes, so {path[:-1]!r} "
                    "cannot be the last part of a network or of a branch that is added to others; put a layer after it."
                )
            ends = given.ends
        else:
            ends = plan.group(path.rstrip("."), self.out_shape[-1]) if out is None else out
        if self.body is not None:
            outside, plan.within = plan.within, (*plan.within, f"{RESIDUAL}:{number}")
            _plan(plan, self.body, f"{path}body", given, ends)
            plan.within = outside
        if self.shortcut is not None:
            beside = _plan(plan, self.shortcut, f"{path}shortcut", given, ends)
        # an event of a sum carries a value where both ways can send
        joined = () if self.body is None else (f"{RESIDUAL}:{number}",)
        return _Signal(self.out_shape, ends, beside.values, joined=(*beside.joined, *joined))


class _Branches(_Part):
    """What stands beside each other has in common: parts by name, which read the same input."""

    def __init__(self, **parts: Any):
        _check_branches(parts, self.fitting)
        self.names = tuple(parts)
        for name, part in parts.items():
            setattr(self, name, part)

    @staticmethod
    @abc.abstractmethod
    def fitting(part: Any) -> tuple[int, ...]:
        """Returns what of their outputs' shapes has to agree."""

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one input without the batch axis."""
        return tuple(getattr(self, self.names[0]).in_shape)

    def named(self) -> Iterator[tuple[str, Any]]:
        """Yields (name, branch)."""
        return ((name, getattr(self, name)) for name in self.names)

    def outputs(self, path: str, state: Any, x: Array, key: Any, sent: dict[str, Array]) -> tuple[Any, list[Array]]:
        """Returns the next state and what each branch gives."""
        new, given = {}, []
        for number, (name, branch) in enumerate(self.named()):
            new[name], out = _run(branch, f"{path}{name}", state[name], x, _own(key, number), sent)
            given.append(out)
        return new, given


class Parallel(_Branches):
    """Branches that read the same input, and whose outputs are added up.

    Args:
        parts: name = `Layer` or container.

    Raises:
        ValueError: fewer than two, or branches of different shapes.
    """

    @staticmethod
    def fitting(part: Any) -> tuple[int, ...]:
        """Returns the shape of a branch's output, which all have."""
        return tuple(part.out_shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one output without the batch axis."""
        return tuple(getattr(self, self.names[0]).out_shape)

    def run(self, path: str, state: Any, x: Array, key: Any, sent: dict[str, Array]) -> tuple[Any, Array]:
        """Returns the next state and the sum."""
        new, given = self.outputs(path, state, x, key, sent)
        return new, sum(given[1:], start=given[0])

    def plan(self, plan: _Plan, path: str, given: _Signal, out: _Ends | None) -> _Signal:
        """Adds the branches; their sum is one group of channels."""
        ends = plan.group(path.rstrip("."), self.out_shape[-1]) if out is None else out
        for name, part in self.named():
            _plan(plan, part, f"{path}{name}", given, ends)
        return _Signal(self.out_shape, ends, "analog")


class Concatenate(_Branches):
    """Branches that read the same input, and whose outputs stand beside each other along the last axis.

    Args:
        parts: name = `Layer` or container.

    Raises:
        ValueError: fewer than two, or branches whose outputs differ in more than the last axis.
    """

    @staticmethod
    def fitting(part: Any) -> tuple[int, ...]:
        """Returns all of an output's shape but its last axis."""
        return tuple(part.out_shape)[:-1]

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one output without the batch axis."""
        shapes = [tuple(part.out_shape) for _, part in self.named()]
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))

    def run(self, path: str, state: Any, x: Array, key: Any, sent: dict[str, Array]) -> tuple[Any, Array]:
        """Returns the next state and all outputs."""
        new, given = self.outputs(path, state, x, key, sent)
        return new, jnp.concatenate(given, -1)

    def plan(self, plan: _Plan, path: str, given: _Signal, out: _Ends | None) -> _Signal:
        """Adds the branches; all their channels are one group."""
        ends = plan.group(path.rstrip("."), self.out_shape[-1]) if out is None else out
        start, values = 0, "spikes"
        joined: list[str] = []
        for name, part in self.named():
            end = start + part.out_shape[-1]
            made = _plan(plan, part, f"{path}{name}", given, _Ends(ends.group, ends.index[start:end]))
            start, values = end, "analog" if made.values == "analog" else values
            joined += made.joined
        return _Signal(self.out_shape, ends, values, joined=tuple(joined))


def residuals(part: Any) -> Iterator[Residual]:
    """Yields the residual blocks that a network still has, outer ones first, in the order of their sites."""
    if isinstance(part, Residual) and part.body is not None:
        yield part
    if isinstance(part, _Part):
        for _, inner in part.named():
            yield from residuals(inner)


def _check_parts(parts: dict[str, Any]) -> None:
    """Raises a ValueError for what is no layer or container, and for a name that means something here."""
    taken = {name for kind_of in (Chain, Residual) for name in dir(kind_of)} | {"names", "share"}
    for name, part in parts.items():
        if not isinstance(part, Layer | _Part):
            raise ValueError(
                f"a part must be a Layer, Chain, Residual, Parallel or Concatenate, got a {type(part).__name__} as "
                f"{name!r}; a stack's layers go into a Chain."
            )
        if isinstance(part, Layer) and not isinstance(part.synapse, Dense | Conv):
            raise ValueError(f"a layer here must have a Dense or Conv synapse, got {type(part.synapse).__name__}.")
        if name in taken and name not in ("body", "shortcut"):
            raise ValueError(f"a part must not be called as something that parts have, got {name!r}; rename it.")


def _check_branches(parts: dict[str, Any], shape: Any) -> None:
    _check_parts(parts)
    if len(parts) < 2:
        raise ValueError(f"branches must be two or more, got {len(parts)}; one alone needs no container.")
    shapes = {name: shape(part) for name, part in parts.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"branches must give shapes that fit each other, got {shapes}.")
    sizes = {name: math.prod(part.in_shape) for name, part in parts.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"branches read one input, got branches that take {sizes} numbers.")


def _own(key: Key[Array, ""] | None, number: int) -> Key[Array, ""] | None:
    return None if key is None else jax.random.fold_in(key, number)


def _run(part: Any, path: str, state: Any, x: Array, key: Any, sent: dict[str, Array]) -> tuple[Any, Array]:
    if not isinstance(part, Layer):
        return part.run(f"{path}.", state, x, key, sent)
    read = x
    for module in part.before:
        read = module(read)
    sent[path] = read if isinstance(part.synapse, Conv) else read.reshape(len(read), math.prod(read.shape[1:]))
    state, out = part.step(state, x, key)
    if part.reads == "spikes" and kind(part.cell) != "LI":
        sent[f"{path}.neurons"] = out
    if part.recurrent is not None:
        sent[f"{path}.recurrent"] = state.spikes
    return state, out


def _plan(plan: _Plan, part: Any, path: str, given: _Signal, out: _Ends | None) -> _Signal:
    if not isinstance(part, Layer):
        return part.plan(plan, f"{path}.", given, out)
    if part.skip:
        raise ValueError(f"a residual layer in a network of blocks is Residual(layer), got skip=True in {path!r}.")
    synapse, features = part.synapse, part.out_shape[-1]
    ends = plan.group(path, features) if out is None else out
    kernel = synapse.kernel.shape
    analog = given.values == "analog" or any(module.kind == "mean" for module in part.before)
    receivers = ends.along(-1, features)
    plan.wires.append(
        Wire(
            path,
            f"{path}.synapse.kernel",
            given.ends.along(-2, kernel[-2]),
            receivers,
            within=plan.within,
            fan=reach(synapse) if isinstance(synapse, Conv) else 1.0,
            values="analog" if analog else "spikes",
            once=given.once,
            joined=given.joined,
        )
    )
    if part.recurrent is not None:
        senders = ends.along(-2, features)
        plan.wires.append(
            Wire(f"{path}.recurrent", f"{path}.recurrent", senders, receivers, within=plan.within, recurrent=True)
        )
    arrays = {} if synapse.bias is None else {f"{path}.synapse.bias": 0}
    for name, variable in nnx.to_flat_state(nnx.state(part.cell)) if isinstance(part.cell, nnx.Module) else ():
        shape = variable[...].shape
        if shape and shape[-1] == features:
            arrays[".".join((path, "cell", *map(str, name)))] = len(shape) - 1
    site = ends.along(0, features)
    count = math.prod(part.out_shape)
    neurons = NeuronGroup(f"{path}.neurons", site[0] if site else None, count, part.cell, arrays, plan.within)
    plan.neurons.append(neurons)
    fires = part.reads == "spikes" and kind(part.cell) != "LI"
    return _Signal(tuple(part.out_shape), ends, "spikes" if fires else "analog")


def _reads_places(part: Any) -> bool:
    """Returns whether a convolution reads the input, so that its sites are channels."""
    if isinstance(part, Layer):
        return isinstance(part.synapse, Conv)
    inner = [one for _, one in part.named()]
    return any(map(_reads_places, inner[:1] if isinstance(part, Chain) else inner))
