"""Derivatives of programs that JAX cannot differentiate: backward by a program given, forward through one in JAX.

`jax.custom_vjp` takes a backward pass of one's own and then refuses forward mode: no `jax.jvp`, no `jax.hessian`. Here
both work, in any order and nesting. The derivative of a function is a linear map, and that is a primitive with two
programs: what it does to tangents, computed through the JAX version, and what its transpose does to cotangents.

`jax.custom_jvp` gives a function another derivative than its own, such as a surrogate's to a spike, but where a scan is
differentiated backward and then again, JAX forgets it for the second derivative. A primitive's rule is never forgotten.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

__all__ = ["both_ways", "elementwise"]

Leaves = list[Any]


def elementwise(name: str, value: Callable[..., Any], tangent: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function of arrays of one shape whose derivative is the one given, also inside scans and twice.

    Args:
        name: what it is called where programs are printed.
        value: ``(*operands, **static) -> array`` of the shape and dtype of the first operand, number by number.
        tangent: ``(operands, tangents, **static) -> tangent`` of that value, linear in the tangents; a tangent that is
            zero is None.
    """
    primitive = Primitive(name)

    def jvp(operands: Any, tangents: Any, **static: Any) -> Any:
        moves = [None if type(each) is ad.Zero else each for each in tangents]
        out, change = primitive.bind(*operands, **static), tangent(operands, moves, **static)
        return out, _zero(out) if change is None else change.astype(out.dtype)

    def batch(operands: Any, axes: Any, **static: Any) -> Any:
        size = next(each.shape[axis] for each, axis in zip(operands, axes, strict=True) if axis is not None)
        rows = (
            jnp.broadcast_to(each, (size, *each.shape)) if axis is None else jnp.moveaxis(each, axis, 0)
            for each, axis in zip(operands, axes, strict=True)
        )
        return primitive.bind(*rows, **static), 0

    primitive.def_impl(value)
    primitive.def_abstract_eval(lambda first, *_, **__: first.update(weak_type=False))
    ad.primitive_jvps[primitive] = jvp
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(value, multiple_results=False))
    return primitive.bind


def _zero(like: Any) -> Any:
    """Returns the tangent of an array that does not move."""
    zero: Any = ad.Zero
    return zero.from_primal_value(like)


def both_ways(
    forward: Callable[..., tuple[Any, Any]],
    backward: Callable[[Any, Any], tuple[Any, ...]],
    plain: Callable[..., Any],
    run: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """Returns what ``forward`` gives, with derivatives in both modes.

    None of these functions may close over traced arrays: all that is traced is an operand.

    Args:
        forward: ``(*operands) -> (out, kept)``, as `jax.custom_vjp.defvjp` takes it; operands and results are trees of
            arrays. Whole numbers among the results, such as counts of steps, have no derivative.
        backward: ``(kept, cotangents) -> cotangents``, a tuple of one for each operand; None is zero.
        plain: the same results in operations that JAX differentiates, from which forward mode and second derivatives
            come.
        run: what runs where nothing is differentiated; None is ``forward``, whose kept parts are then dead code.
    """

    @jax.custom_jvp
    def keeping(*operands: Any) -> tuple[Any, Any]:
        return forward(*operands)

    def _keeping(operands: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
        out, kept = keeping(*operands)
        # second derivatives reach what is kept through the operands alone, see `smooth_pull`
        return (out, kept), (_pushed(plain, backward, operands, out, kept, tangents), jax.tree.map(_no_tangent, kept))

    @jax.custom_jvp
    def function(*operands: Any) -> Any:
        return forward(*operands)[0] if run is None else run(*operands)

    def _function(operands: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
        out, kept = keeping(*operands)
        return out, _pushed(plain, backward, operands, out, kept, tangents)

    keeping.defjvp(_keeping, symbolic_zeros=True)
    function.defjvp(_function, symbolic_zeros=True)
    return function


def _pushed(
    plain: Callable[..., Any],
    backward: Callable[[Any, Any], tuple[Any, ...]],
    operands: tuple[Any, ...],
    out: Any,
    kept: Any,
    tangents: tuple[Any, ...],
) -> Any:
    """Returns the tangents of what ``plain`` gives: a linear map of those that are not zero."""
    leaves, tree = jax.tree.flatten(operands)
    changes = jax.tree.leaves(tangents, is_leaf=lambda leaf: isinstance(leaf, SymbolicZero))
    moving = [not isinstance(change, SymbolicZero) and change.dtype != jax.dtypes.float0 for change in changes]
    saved, saved_tree = jax.tree.flatten(kept)
    outs, out_tree = jax.tree.flatten(out)
    shapes = _shapes(outs)

    # what follows lives as long as the program does, so it may hold shapes, and no traced arrays
    count, like = len(leaves), jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), operands)

    def along(point: Leaves) -> tuple[Callable[..., Leaves], tuple[Any, ...]]:
        """Returns ``plain`` as a function of the leaves that move, and where they are."""

        def function(*values: Any) -> Leaves:
            given = iter(values)
            placed = [next(given) if moves else leaf for leaf, moves in zip(point, moving, strict=True)]
            return [leaf for leaf in jax.tree.leaves(plain(*jax.tree.unflatten(tree, placed))) if _floats(leaf)]

        return function, tuple(leaf for leaf, moves in zip(point, moving, strict=True) if moves)

    def push(residuals: Leaves, vector: Leaves) -> Leaves:
        function, at = along(residuals[:count])
        return jax.jvp(function, at, tuple(vector))[1]

    def pull(residuals: Leaves, cotangents: Leaves) -> Leaves:
        given = backward(jax.tree.unflatten(saved_tree, residuals[count:]), _filled(out_tree, shapes, cotangents))
        back = [leaf for each, operand in zip(given, like, strict=True) for leaf in _leaves(each, operand)]
        placed = zip(back, jax.tree.leaves(like), moving, strict=True)
        return [leaf.astype(operand.dtype) for leaf, operand, moves in placed if moves]

    def smooth_pull(residuals: Leaves, cotangents: Leaves) -> Leaves:
        function, at = along(residuals[:count])
        return list(jax.vjp(function, *at)[1](cotangents))

    vector = [change for change, moves in zip(changes, moving, strict=True) if moves]
    real = [shape for shape in shapes if _floats(shape)]
    there, back = _Map(push, push, tuple(real)), _Map(pull, smooth_pull, _shapes(vector))
    residuals = [*leaves, *saved]
    pushed = _linear.bind(*residuals, *vector, fixed=len(residuals), there=there, back=back)
    return _filled(out_tree, shapes, pushed)


def _filled(tree: Any, shapes: tuple[jax.ShapeDtypeStruct, ...], floats: Leaves) -> Any:
    """Returns tangents of all results, of those that are floats; whole numbers have none."""
    given = iter(floats)
    leaves = [next(given) if _floats(shape) else np.zeros(shape.shape, jax.dtypes.float0) for shape in shapes]
    return jax.tree.unflatten(tree, leaves)


def _leaves(cotangent: Any, operand: Any) -> Leaves:
    """Returns the cotangents of an operand's leaves; of None, zeros."""
    if cotangent is None:
        return [jnp.zeros(leaf.shape, leaf.dtype) if _floats(leaf) else None for leaf in jax.tree.leaves(operand)]
    return jax.tree.leaves(cotangent)


def _floats(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _no_tangent(leaf: Any) -> Any:
    return jnp.zeros_like(leaf) if _floats(leaf) else np.zeros(leaf.shape, jax.dtypes.float0)


def _shapes(leaves: Leaves) -> tuple[jax.ShapeDtypeStruct, ...]:
    return tuple(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves)


class _Map(NamedTuple):
    """A map that is linear in its second argument.

    Attributes:
        run: ``(residuals, vector) -> image``, lists of arrays.
        smooth: the same in operations that JAX differentiates.
        shapes: of the image.
    """

    run: Callable[[Leaves, Leaves], Leaves]
    smooth: Callable[[Leaves, Leaves], Leaves]
    shapes: tuple[jax.ShapeDtypeStruct, ...]

    def mapped(self, axes: Leaves, size: int) -> "_Map":
        """Returns the map of a batch of vectors, of residuals with these axes."""
        shapes = tuple(jax.ShapeDtypeStruct((size, *each.shape), each.dtype) for each in self.shapes)
        run, smooth = (jax.vmap(function, (axes, 0)) for function in (self.run, self.smooth))
        return _Map(run, smooth, shapes)


_linear = Primitive("linear_map")
_linear.multiple_results = True


@_linear.def_impl
def _run(*operands: Any, fixed: int, there: _Map, back: _Map) -> Leaves:
    del back
    return list(there.run(list(operands[:fixed]), list(operands[fixed:])))


@_linear.def_abstract_eval
def _abstract(*_: Any, fixed: int, there: _Map, back: _Map) -> Leaves:
    del fixed, back
    return [jax.core.ShapedArray(each.shape, each.dtype) for each in there.shapes]


def _jvp(operands: Any, tangents: Any, *, fixed: int, there: _Map, back: _Map) -> Any:
    operands = list(operands)
    out = _linear.bind(*operands, fixed=fixed, there=there, back=back)
    parts: list[Leaves] = []
    if any(type(each) is not ad.Zero for each in tangents[fixed:]):
        vector = map(ad.instantiate_zeros, tangents[fixed:])
        parts.append(_linear.bind(*operands[:fixed], *vector, fixed=fixed, there=there, back=back))
    moving = [i for i in range(fixed) if type(tangents[i]) is not ad.Zero and _floats(operands[i])]
    if moving:

        def of(*values: Any) -> Leaves:
            residuals = operands[:fixed]
            for i, value in zip(moving, values, strict=True):
                residuals[i] = value
            return there.smooth(residuals, operands[fixed:])

        parts.append(jax.jvp(of, tuple(operands[i] for i in moving), tuple(tangents[i] for i in moving))[1])
    if not parts:
        return out, [_zero(each) for each in out]
    return out, parts[0] if len(parts) == 1 else [a + b for a, b in zip(*parts, strict=True)]


def _transpose(cotangents: Any, *operands: Any, fixed: int, there: _Map, back: _Map) -> Leaves:
    given = (ad.instantiate_zeros(each) for each in cotangents)
    out = _linear.bind(*operands[:fixed], *given, fixed=fixed, there=back, back=there)
    sought = (ad.is_undefined_primal(each) for each in operands[fixed:])
    return [None] * fixed + [each if wanted else None for each, wanted in zip(out, sought, strict=True)]


def _batch(operands: Any, axes: Any, *, fixed: int, there: _Map, back: _Map) -> Any:
    size = next(each.shape[axis] for each, axis in zip(operands, axes, strict=True) if axis is not None)
    first = [each if axis is None else jnp.moveaxis(each, axis, 0) for each, axis in zip(operands, axes, strict=True)]
    vector = [
        jnp.broadcast_to(each, (size, *each.shape)) if axis is None else each
        for each, axis in zip(first[fixed:], axes[fixed:], strict=True)
    ]
    mapped = [None if axis is None else 0 for axis in axes[:fixed]]
    there, back = there.mapped(mapped, size), back.mapped(mapped, size)
    out = _linear.bind(*first[:fixed], *vector, fixed=fixed, there=there, back=back)
    return out, [0] * len(out)


ad.primitive_jvps[_linear] = _jvp
ad.primitive_transposes[_linear] = _transpose
batching.primitive_batchers[_linear] = _batch
mlir.register_lowering(_linear, mlir.lower_fun(_run, multiple_results=True))
