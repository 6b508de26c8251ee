"""Branches beside each other, which read the same input: added up, or joined along the last axis."""

import abc
import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

from dsnn.networks.graph import Part, Way, check_parts, plan_part, run_part
from dsnn.networks.plan import Ends, Plan, Signal
from dsnn.types import Array

__all__ = ["Concatenate", "Parallel"]


class _Branches(Part):
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

    def keeps_channels(self) -> bool:
        """Returns whether what it gives are the channels that it reads."""
        return False

    def outputs(self, path: str, state: Any, x: Array, way: Way) -> tuple[Any, list[Array]]:
        """Returns the state afterwards and what each branch gives."""
        new, given = {}, []
        for number, (name, branch) in enumerate(self.named()):
            new[name], out = run_part(branch, f"{path}{name}", state[name], x, way.inner(number))
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

    def run(self, path: str, state: Any, x: Array, way: Way) -> tuple[Any, Array]:
        """Returns the state afterwards and the sum."""
        new, given = self.outputs(path, state, x, way)
        return new, sum(given[1:], start=given[0])

    def plan(self, plan: Plan, path: str, given: Signal, out: Ends | None) -> Signal:
        """Adds the branches; their sum is one group of channels."""
        ends = plan.group(path.rstrip("."), self.out_shape[-1]) if out is None else out
        for name, part in self.named():
            plan_part(plan, part, f"{path}{name}", given, ends)
        return Signal(self.out_shape, ends, "analog")


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

    def run(self, path: str, state: Any, x: Array, way: Way) -> tuple[Any, Array]:
        """Returns the state afterwards and all outputs."""
        new, given = self.outputs(path, state, x, way)
        lead = jnp.broadcast_shapes(*(out.shape[:-1] for out in given))  # an input that is held has one step
        return new, jnp.concatenate([jnp.broadcast_to(out, (*lead, out.shape[-1])) for out in given], -1)

    def plan(self, plan: Plan, path: str, given: Signal, out: Ends | None) -> Signal:
        """Adds the branches; all their channels are one group."""
        ends = plan.group(path.rstrip("."), self.out_shape[-1]) if out is None else out
        start, values = 0, "spikes"
        joined: list[str] = []
        for name, part in self.named():
            end = start + part.out_shape[-1]
            made = plan_part(plan, part, f"{path}{name}", given, Ends(ends.group, ends.index[start:end]))
            start, values = end, "analog" if made.values == "analog" else values
            joined += made.joined
        return Signal(self.out_shape, ends, values, joined=tuple(joined))


def _check_branches(parts: dict[str, Any], shape: Any) -> None:
    check_parts(parts)
    if len(parts) < 2:
        raise ValueError(f"branches must be two or more, got {len(parts)}; one alone needs no container.")
    shapes = {name: shape(part) for name, part in parts.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"branches must give shapes that fit each other, got {shapes}.")
    sizes = {name: math.prod(part.in_shape) for name, part in parts.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"branches read one input, got branches that take {sizes} numbers.")
