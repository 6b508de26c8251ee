"""The decided network in fixed point: rounded weights, membranes, leaks and inputs, simulated exactly in float32.

Units are powers of two. A layer's membrane unit is the smallest with which no membrane of the decided network can leave
its range, but at most a sixteenth of the threshold: where that is too little, membranes saturate. Sums are exact as
long as they stay below 2^24 units of the finest grid (`FixedFormats.exact`); beyond, float32 rounds where the integers
of `dsnn.deploy.integer` do not.

A ReLU has what a neuron's membrane is before the reset, in the same width, and gives it rounded to its own step and cut
off at the largest integer of its bits (`dsnn.cells.quantised_relu`). Its unit is at most a sixteenth of that step,
where all values are within reach of that.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.bit_posterior import INPUTS
from dsnn.bayes.objective import Draw
from dsnn.cells import LIF
from dsnn.cells.decay import per_step
from dsnn.cells.fixed_point import FixedPoint, Format, check, kind, value_step
from dsnn.cells.quantised_relu import QuantisedReLU
from dsnn.escape.parameters import value
from dsnn.networks.layers import Conv, Dense, Layer
from dsnn.networks.rounded import Rounded
from dsnn.networks.stack import Stack
from dsnn.parameters import Params, split
from dsnn.simulate.simulator import RUNNING, SITES, Simulator

__all__ = ["MOST_EXACT", "FixedFormats", "check_network", "formats", "grid_of", "in_fixed_point"]

MOST_EXACT = 2.0**24
"""Integers up to here are exact in float32."""

LEVELS = 16
"""Units to the lowest threshold, or to a step of values, at least."""

KINDS = ("select", "max", "rounded")
"""What may stand before a product: what leaves integers integers of the same grid."""


@dataclasses.dataclass(frozen=True)
class FixedFormats:
    """Fixed-point formats of a network.

    Attributes:
        layers: of membranes and biases, by layer.
        inputs: ``(step, low, high)`` of rounded inputs; None where these are spikes.
        exact: whether float32 holds every sum that can occur.
        saturates: layers whose membranes could leave their range.
    """

    layers: dict[str, Format]
    inputs: tuple[float, int, int] | None
    exact: bool
    saturates: tuple[str, ...]

    def applied(self, stack: Stack) -> Stack:
        """Returns a network of these layers in fixed point, its kernels as they are."""
        new = nnx.clone(stack)
        for name, layer in new.layers():
            form = self.layers[name]
            if (bias := layer.synapse.bias) is not None:
                layer.synapse.bias = nnx.Param(form.rounded(bias[...]))
            layer.cell = FixedPoint(layer.cell, form)
        if self.inputs is not None:
            first = getattr(new, new.names[0])
            first.before = nnx.List([Rounded(new.in_shape, *self.inputs), *first.before])
        return new


def check_network(stack: Any) -> None:
    """Checks that a network can run on integers.

    Raises:
        ValueError: it cannot.
    """
    if not isinstance(stack, Stack):
        raise ValueError(
            f"bits are of the kernels of a stack of layers, got {type(stack).__name__}; take model.architecture=mlp or "
            "conv, or set bits.enabled=false."
        )
    if stack.readout_kind == "vote":
        raise ValueError("an integer network sums outputs, got model.readout=vote, which needs logarithms; take mean.")
    for name, layer in stack.layers():
        if layer.norm is not None or layer.folds:
            raise ValueError(
                f"bits are of kernels that run as they are, got a norm in {name!r}; go on from a decided run, whose "
                "norms are folded (model.compacted), or leave norms out."
            )
        if type(layer.synapse) not in (Dense, Conv) or layer.reads != "spikes":
            raise ValueError(
                f"an integer network has Dense and Conv layers that give spikes, got {name!r} with "
                f"{type(layer.synapse).__name__} that gives its {layer.reads}; set bits.enabled=false."
            )
        if odd := [module.kind for module in layer.before if module.kind not in KINDS]:
            raise ValueError(f"an integer network pools by maxima, got {odd[0]!r} before {name!r}; take max pooling.")
        check(layer.cell)
        if kind(layer.cell) == "ReLU" and (layer.skip or layer.recurrent is not None):
            raise ValueError(
                "integers of values have a step for each layer, got a ReLU in a residual block or with recurrent "
                f"weights, {name!r}; leave these out, or set bits.enabled=false."
            )


class Drive(NamedTuple):
    """What drives a layer in fixed point.

    Attributes:
        name: of the layer.
        layer: with kernels on grids of powers of two.
        grids: of its product and of its recurrent one, if there is one.
        most: largest sum of a neuron, its bias included.
    """

    name: str
    layer: Layer
    grids: tuple[float, ...]
    most: float

    @property
    def finest(self) -> float:
        """The grid on which all its sums lie."""
        return min(self.grids)


def drives(stack: Stack, grid: float, most: float) -> Iterator[Drive]:
    """Yields what drives each layer, first to last.

    Args:
        stack: in fixed point, or to be.
        grid: of its inputs.
        most: largest input.
    """
    for name, layer in stack.layers():
        kernel = np.asarray(layer.synapse.kernel[...], np.float64)
        grids, driven = [grid * grid_of(kernel)], most * np.abs(kernel).reshape(-1, kernel.shape[-1]).sum(0)
        if layer.recurrent is not None:
            loop = np.asarray(layer.recurrent[...], np.float64)
            grids, driven = [*grids, grid_of(loop)], driven + np.abs(loop).sum(0)
        if layer.synapse.bias is not None:
            driven = driven + np.abs(np.asarray(layer.synapse.bias[...], np.float64))
        yield Drive(name, layer, tuple(grids), float(driven.max()))
        if (step := _values(layer.cell)) is not None:
            grid, most = step[0], step[0] * step[1]
        else:
            grid, most = 1.0, most + 1 if layer.skip else 1.0


def formats(
    stack: Stack, input_range: tuple[float, float] | None, steps: int, *, membrane: int, leak: int, inputs: int
) -> FixedFormats:
    """Returns the fixed-point formats of a network whose kernels are on grids of powers of two.

    Args:
        stack: decided, every site there.
        input_range: least and largest input; None where inputs are spikes.
        steps: time steps, after which no membrane grows further.
        membrane: bits of membranes, thresholds and biases.
        leak: bits of a leak's multiplier.
        inputs: bits of inputs that are values.
    """
    rounding = None if input_range is None else _input_grid(*input_range, inputs)
    most, grid = (1.0, 1.0) if rounding is None else (rounding[0] * max(-rounding[1], rounding[2]), rounding[0])
    if rounding is not None and getattr(stack, stack.names[0]).skip:
        raise ValueError(
            f"integers add spikes to spikes, got a skip over {stack.names[0]!r}, which reads values; put a layer "
            "before it."
        )
    layers, exact, saturates = {}, True, []
    for drive in drives(stack, grid, most):
        form, fits = _format(drive.layer, drive.most, steps, membrane, leak)
        layers[drive.name] = form
        saturates += [] if fits else [drive.name]
        exact &= drive.most / min(drive.finest, form.unit / 2) < MOST_EXACT
        exact &= steps * form.high / form.unit < MOST_EXACT or drive.name != stack.names[-1]
    return FixedFormats(layers, rounding, bool(exact), tuple(saturates))


def in_fixed_point(
    bayesian: Bayesian, params: Params, draw: Draw, gated: Params
) -> tuple[Simulator, FixedFormats, Params, Params]:
    """Returns how a decided network runs in fixed point, its formats, and its parameters ungated and gated.

    Args:
        bayesian: with bits.
        params: of the guide, with the range of the inputs.
        draw: decided.
        gated: parameters of its gated network, rounded.
    """
    bits, simulator = bayesian.bits, bayesian.simulator
    assert bits is not None
    assert draw.bits is not None
    model = simulator.template.build(bits.fold(draw.weights, draw.bits))
    low, high = np.asarray(params[INPUTS]).tolist()
    fixed = formats(
        model,
        (low, high) if bits.reads_values else None,
        simulator.steps,
        membrane=bits.membrane,
        leak=bits.leak,
        inputs=bits.inputs,
    )
    switches = {name: value for name, value in gated.items() if name == RUNNING or name.startswith(SITES)}
    own = {name: value for name, value in gated.items() if name not in switches}
    template, full = split(fixed.applied(model))
    masked = split(fixed.applied(simulator.template.build(own)))[1] | switches
    return dataclasses.replace(simulator, template=template), fixed, full, masked


def grid_of(values: np.ndarray) -> float:
    """Returns the largest power of two of which all values are multiples; 1 of zeros."""
    mantissa, exponent = np.frexp(np.abs(np.asarray(values, np.float64))[np.asarray(values) != 0])
    if not mantissa.size:
        return 1.0
    whole = (mantissa * 2.0**53).astype(np.int64)
    trailing = np.round(np.log2((whole & -whole).astype(np.float64))).astype(int)
    return float(2.0 ** int((exponent - 53 + trailing).min()))


def _values(cell: Any) -> tuple[float, int] | None:
    """Returns the step and the largest integer of the values that a cell gives; None of spikes and membranes."""
    if isinstance(cell, QuantisedReLU):
        return value_step(cell), cell.top
    return (cell.value_step, cell.top) if isinstance(cell, FixedPoint) and cell.rectifies else None


def _format(layer: Layer, driven: float, steps: int, bits: int, leak: int) -> tuple[Format, bool]:
    """Returns the format of a layer's membranes, and whether none of these can leave it."""
    form = Format(1.0, bits, leak)
    cell: Any = layer.cell
    if isinstance(cell, QuantisedReLU):
        step, most = value_step(cell), 2 ** (bits - 1) - 1
        wanted = _above(driven / most) if driven else 2.0**-12
        # what lies beyond the largest value is cut off anyway
        needed = _above(min(driven, cell.top * step) / most) if driven else wanted
        return form._replace(unit=max(needed, min(wanted, step / LEVELS))), True
    beta = float(np.max(form.multiplier(per_step(cell)))) / 2**leak
    most = driven * (steps if beta >= 1 else (1 - beta**steps) / (1 - beta))
    wanted = _above(most / (2 ** (bits - 1) - 1)) if most else 2.0**-12
    if not isinstance(cell, LIF):
        return form._replace(unit=wanted), True
    allowed = 2.0 ** math.floor(math.log2(float(np.min(np.asarray(value(cell.threshold)))) / LEVELS))
    return form._replace(unit=min(wanted, allowed)), wanted <= allowed


def _input_grid(low: float, high: float, bits: int) -> tuple[float, int, int]:
    """Returns step, smallest and largest integer of inputs, which have a sign where one of them is negative."""
    signed = low < 0
    top = 2 ** (bits - signed) - 1
    largest = max(-low, high)
    # where the largest lies half a step beyond the last integer it saturates: bytes over 255 keep all their digits
    step = _above(largest / (top + 1)) if largest else 1.0
    return step, -top - 1 if signed else 0, top


def _above(x: float) -> float:
    """Returns the least power of two that is not below a positive number."""
    return 2.0 ** math.ceil(math.log2(x) - 1e-9)
