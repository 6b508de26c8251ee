"""One program for this process's CPU, and one for everything else: chosen when a program is lowered, not when traced.

What is written in C runs on CPUs of a process that has compiled it. A program that is lowered for an accelerator, or
exported (`jax.export`) to be run by a process that has compiled nothing, holds the same in JAX. That it is being
exported is told by the parameters of its lowering, which `jax.lax.platform_dependent` does not look at.

`on_cuda` is for kernels that one kind of device alone runs: a program for any other is refused as it is lowered.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from dsnn.types import Array

__all__ = ["on_cuda", "on_this_cpu"]


def on_this_cpu(here: Callable[..., Any], elsewhere: Callable[..., Any], out: Any, *operands: Array) -> Any:
    """Returns ``here(*operands)`` in programs for this process's CPU, and ``elsewhere(*operands)`` in all others.

    Neither is differentiated, see `dsnn.native.derivatives`. Under `jax.vmap` mapped calls of ``here`` run one after
    another.

    Args:
        here: gives arrays like ``out``. Equal functions are compiled once, outside of `jax.jit` as well.
        elsewhere: gives arrays of the same shapes.
        out: shape and dtype of what they give, or a list of these.
        operands: arrays.
    """
    shapes = tuple(out) if isinstance(out, (list, tuple)) else (out,)
    given = _chosen.bind(*operands, here=here, elsewhere=elsewhere, shapes=tuple(_frozen(each) for each in shapes))
    return list(given) if isinstance(out, (list, tuple)) else given[0]


_chosen = Primitive("on_this_cpu")
_chosen.multiple_results = True


def _frozen(shape: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(tuple(shape.shape), jnp.dtype(shape.dtype))


def _listed(function: Callable[..., Any]) -> Callable[..., list[Any]]:
    """Returns a function that gives a list, also of one array."""

    def run(*operands: Any) -> list[Any]:
        out = function(*operands)
        return list(out) if isinstance(out, (list, tuple)) else [out]

    return run


@_chosen.def_abstract_eval
def _abstract(*_: Any, shapes: Any, **__: Any) -> list[Any]:
    return [jax.core.ShapedArray(each.shape, each.dtype) for each in shapes]


@functools.lru_cache(maxsize=256)
def _compiled(primitive: Any, **chosen: Any) -> Callable[..., Any]:
    return jax.jit(functools.partial(primitive.bind, **chosen))


def _run(primitive: Any, *operands: Any, **chosen: Any) -> Any:
    return _compiled(primitive, **chosen)(*operands)


_chosen.def_impl(functools.partial(_run, _chosen))


def _lowered_here(ctx: Any, *operands: Any, here: Any, elsewhere: Any, shapes: Any) -> Any:
    del shapes
    exported = ctx.module_context.lowering_parameters.for_export
    return mlir.lower_fun(_listed(elsewhere if exported else here), multiple_results=True)(ctx, *operands)


def _lowered_elsewhere(ctx: Any, *operands: Any, here: Any, elsewhere: Any, shapes: Any) -> Any:
    del here, shapes
    return mlir.lower_fun(_listed(elsewhere), multiple_results=True)(ctx, *operands)


@dataclass(frozen=True)
class _InTurn:
    """A function whose mapped calls run one after another; equal where the functions are."""

    function: Callable[..., Any]
    mapped: tuple[bool, ...]

    def __call__(self, *operands: Any) -> Any:
        """Returns what the function gives of each, stacked."""
        moving = [each for each, moves in zip(operands, self.mapped, strict=True) if moves]

        def one(moving: list[Any]) -> Any:
            rest = iter(moving)
            return self.function(
                *(next(rest) if moves else each for each, moves in zip(operands, self.mapped, strict=True))
            )

        return jax.lax.map(one, moving)


@dataclass(frozen=True)
class _AtOnce:
    """A function whose mapped calls run together; equal where the functions are."""

    function: Callable[..., Any]
    mapped: tuple[bool, ...]

    def __call__(self, *operands: Any) -> Any:
        """Returns what the function gives of each, stacked."""
        return jax.vmap(self.function, tuple(0 if moves else None for moves in self.mapped))(*operands)


def _batched(operands: Any, axes: Any, *, here: Any, elsewhere: Any, shapes: Any) -> Any:
    size, operands, mapped = _leading(operands, axes)
    out = _chosen.bind(
        *operands,
        here=_InTurn(here, mapped),
        elsewhere=_AtOnce(elsewhere, mapped),
        shapes=tuple(jax.ShapeDtypeStruct((size, *each.shape), each.dtype) for each in shapes),
    )
    return out, [0] * len(out)


def on_cuda(kernel: Callable[..., Any], refusal: str, out: Any, *operands: Array) -> Any:
    """Returns ``kernel(*operands)`` in programs for NVIDIA's devices; others are refused when they are lowered.

    It is not differentiated, see `dsnn.native.derivatives`; under `jax.vmap` the kernel is mapped.

    Args:
        kernel: gives arrays like ``out``. Equal functions are compiled once, outside of `jax.jit` as well.
        refusal: what the error says; ``{platform}`` stands for the other platform.
        out: shapes and dtypes of what it gives, a list.
        operands: arrays.

    Raises:
        ValueError: the program is lowered for another device.
    """
    return list(_cuda.bind(*operands, kernel=kernel, refusal=refusal, shapes=tuple(_frozen(each) for each in out)))


_cuda = Primitive("on_cuda")
_cuda.multiple_results = True
_cuda.def_abstract_eval(_abstract)


_cuda.def_impl(functools.partial(_run, _cuda))


def _lowered_kernel(ctx: Any, *operands: Any, kernel: Any, **_: Any) -> Any:
    return mlir.lower_fun(_listed(kernel), multiple_results=True)(ctx, *operands)


def _refused(ctx: Any, *_: Any, refusal: str, **__: Any) -> Any:
    others = [platform for platform in ctx.module_context.platforms if platform != "cuda"]
    raise ValueError(refusal.format(platform=", ".join(others)))


def _batched_kernel(operands: Any, axes: Any, *, kernel: Any, refusal: str, shapes: Any) -> Any:
    size, operands, mapped = _leading(operands, axes)
    more = [jax.ShapeDtypeStruct((size, *each.shape), each.dtype) for each in shapes]
    out = on_cuda(_AtOnce(kernel, mapped), refusal, more, *operands)
    return out, [0] * len(out)


def _leading(operands: Any, axes: Any) -> tuple[int, list[Any], tuple[bool, ...]]:
    """Returns the size of a mapped axis, the operands with it in front, and which of them have it."""
    size = next(each.shape[axis] for each, axis in zip(operands, axes, strict=True) if axis is not None)
    moved = [each if axis is None else jnp.moveaxis(each, axis, 0) for each, axis in zip(operands, axes, strict=True)]
    return size, moved, tuple(axis is not None for axis in axes)


mlir.register_lowering(_chosen, _lowered_elsewhere)
mlir.register_lowering(_chosen, _lowered_here, platform="cpu")
batching.primitive_batchers[_chosen] = _batched
mlir.register_lowering(_cuda, _refused)
mlir.register_lowering(_cuda, _lowered_kernel, platform="cuda")
batching.primitive_batchers[_cuda] = _batched_kernel
