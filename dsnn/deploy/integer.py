"""The decided network on integers alone: what a chip without floating point would run, in int32.

Weights are integers on their kernel's grid, spikes 0 or 1, sums int32; a sum becomes a membrane's drive by a shift that
rounds halves up. Membranes are integers that saturate in two's complement, and decay by m / 2^k: a product, half of
2^k, a shift. Values of a ReLU are membranes shifted, rounded and cut off. The readout stays an integer; its unit, a
power of two, makes logits of it. Every network in fixed point (`dsnn.deploy.fixed_point`) has such a one, whose spikes
and logits are the same bits where float32 is exact.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from dsnn.cells.fixed_point import FixedPoint
from dsnn.deploy.fixed_point import Drive, drives, grid_of
from dsnn.escape.parameters import value
from dsnn.networks.layers import Conv, Layer
from dsnn.networks.rounded import Rounded
from dsnn.networks.stack import Stack
from dsnn.types import Array, Float, Int

__all__ = ["IntegerLayer", "IntegerNetwork", "IntegerRun", "integer_network"]

LARGEST = 2.0**31


class IntegerRun(NamedTuple):
    """What an integer network did: running logits ``[time, batch, class]``, and what each layer gave."""

    logits: Float[Array, "time batch class"]
    given: dict[str, Int[Array, "time batch ..."]]


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerLayer:
    """A layer of integers.

    Attributes:
        layer: in fixed point, for its shape and the order of its steps.
        kernel: of the product.
        recurrent: of its own last spikes, or None.
        bias: added to every drive.
        shifts: to the left, of the product and of the recurrent one, on their common grid.
        right: that grid to the membrane's unit: a shift to the right that rounds, or to the left where negative.
        multiplier: m of the decay m / 2^leak; 0 where nothing is kept.
        threshold: of the membrane; 0 of an integrator.
        reset: membrane after a spike, where it is a value.
    """

    layer: Any
    kernel: np.ndarray
    recurrent: np.ndarray | None
    bias: np.ndarray
    shifts: tuple[int, int]
    right: int
    multiplier: np.ndarray
    threshold: np.ndarray
    reset: np.ndarray

    def product(self, x: Int[Array, "batch ..."]) -> Int[Array, "batch ..."]:
        """Returns the sums of weights."""
        synapse, kernel = self.layer.synapse, jnp.asarray(self.kernel)
        if not isinstance(synapse, Conv):
            return x.reshape(x.shape[0], -1) @ kernel
        return lax.conv_general_dilated(
            x,
            kernel,
            synapse.strides,
            synapse.padding,
            rhs_dilation=synapse.dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=synapse.groups,
            preferred_element_type=jnp.int32,
        )

    def drive(self, sums: Int[Array, "batch ..."], last: Int[Array, "batch ..."]) -> Int[Array, "batch ..."]:
        """Returns what is added to membranes, of the sums and the last spikes."""
        both = sums << self.shifts[0]
        if self.recurrent is not None:
            both = both + ((last @ jnp.asarray(self.recurrent)) << self.shifts[1])
        return _shifted(both, self.right) + self.bias

    def step(
        self, membrane: Int[Array, "batch ..."], last: Int[Array, "batch ..."], drive: Int[Array, "batch ..."]
    ) -> tuple[Int[Array, "batch ..."], Int[Array, "batch ..."]]:
        """Returns the next membranes, and the spikes, values or, of an integrator, these membranes."""
        cell = self.layer.cell
        if cell.rectifies:
            right = _log2(cell.value_step / cell.format.unit)
            return membrane, jnp.clip(_shifted(self.saturated(drive), right), 0, cell.top)
        if not cell.fires:
            membrane = self.saturated(self.leaked(membrane) + drive)
            return membrane, membrane
        if cell.reset_timing == "same":
            membrane = self.saturated(self.leaked(membrane) + drive)
        elif cell.reset == "subtract":
            membrane = self.saturated(self.leaked(membrane) + drive - last * self.threshold)
        else:
            membrane = self.saturated(self.leaked(self.after(membrane, last)) + drive)
        above = membrane > self.threshold if cell.compare == ">" else membrane >= self.threshold
        spikes = above.astype(jnp.int32)
        return membrane if cell.reset_timing == "next" else self.after(membrane, spikes), spikes

    def leaked(self, membrane: Int[Array, "batch ..."]) -> Int[Array, "batch ..."]:
        """Returns what is left of membranes after a step."""
        return _shifted(membrane * self.multiplier, self.layer.cell.format.leak)

    def saturated(self, membrane: Int[Array, "batch ..."]) -> Int[Array, "batch ..."]:
        """Returns membranes within what two's complement of their width holds."""
        top = 2 ** (self.layer.cell.format.bits - 1)
        return jnp.clip(membrane, -top, top - 1)

    def after(self, membrane: Int[Array, "batch ..."], spikes: Int[Array, "batch ..."]) -> Int[Array, "batch ..."]:
        """Returns membranes after the reset where they spiked."""
        match self.layer.cell.reset:
            case "subtract":
                return membrane - spikes * self.threshold
            case "none":
                return membrane
            case "zero":
                return membrane * (1 - spikes)
        return membrane * (1 - spikes) + spikes * self.reset


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """Layers of integers by name, and the stack in fixed point that they are of."""

    stack: Stack
    layers: dict[str, IntegerLayer]

    def run(self, inputs: Float[Array, "..."], steps: int | None = None) -> IntegerRun:
        """Returns what it does.

        Args:
            inputs: ``[time, batch, ...]``, or held ``[batch, ...]`` for ``steps``.
            steps: of a held input; None takes what there are.
        """
        run: IntegerRun = self._compiled(jnp.asarray(inputs), steps)
        return run

    def unit(self, name: str) -> float:
        """Returns what one of what a layer gives stands for: a spike, a value's step, or a membrane's unit."""
        return float(self.layers[name].layer.cell.unit)

    @functools.cached_property
    def _compiled(self) -> Any:
        return jax.jit(self._run, static_argnums=1)

    def _run(self, inputs: Array, steps: int | None) -> IntegerRun:
        layers = list(self.layers.items())
        first, held = layers[0][1], steps is not None
        batch = inputs.shape[0] if held else inputs.shape[1]
        shapes = {name: (batch, *one.layer.out_shape) for name, one in layers}
        begin = {name: (jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.int32)) for name, shape in shapes.items()}
        entered = _entered(first.layer, inputs) if held else None
        once = None if entered is None else first.product(entered)

        def step(states: Any, x: Any) -> tuple[Any, dict[str, Array]]:
            new, given = {}, {}
            signal: Any = entered
            for number, (name, one) in enumerate(layers):
                if number or once is None:
                    signal = _read(one.layer, signal) if number else _entered(one.layer, x)
                sums = once if once is not None and not number else one.product(signal)
                membrane, last = states[name]
                membrane, spikes = one.step(membrane, last, one.drive(sums, last))
                new[name], given[name] = (membrane, spikes), spikes
                signal = signal + spikes if one.layer.skip else spikes
            return new, given

        _, spikes = lax.scan(step, begin, None if held else inputs, steps)
        return IntegerRun(self._logits(spikes[layers[-1][0]]), spikes)

    def _logits(self, outputs: Int[Array, "time batch class"]) -> Float[Array, "time batch class"]:
        """Returns the running logits: sums and maxima of integers, times their unit."""
        kind, unit = self.stack.readout_kind, self.unit(self.stack.names[-1])
        summed = {"max": lax.cummax, "last": lambda x: x}.get(kind, lambda x: jnp.cumsum(x, 0))(outputs)
        real = summed.astype(jnp.float32) * unit
        return real / jnp.arange(1, len(real) + 1, dtype=jnp.float32)[:, None, None] if kind == "mean" else real


def integer_network(stack: Stack) -> IntegerNetwork:
    """Returns the integers of a network in fixed point.

    Raises:
        ValueError: sums that 32 bits do not hold.
    """
    layers, grid, most = {}, 1.0, 1.0
    for rounding in getattr(stack, stack.names[0]).before:
        if isinstance(rounding, Rounded):
            grid, most = rounding.step, rounding.step * max(-rounding.low, rounding.high)
    for drive in drives(stack, grid, most):
        layers[drive.name] = _layer(drive)
    return IntegerNetwork(stack, layers)


def _layer(drive: Drive) -> IntegerLayer:
    layer, cell, finest = drive.layer, drive.layer.cell, drive.finest
    assert isinstance(cell, FixedPoint)
    unit, kernel = cell.format.unit, np.asarray(layer.synapse.kernel[...], np.float64)
    if (sums := drive.most / min(finest, unit)) >= LARGEST:
        raise ValueError(
            f"sums of an integer network must fit into 32 bits, got {math.log2(sums) + 1:.0f} bits in {drive.name!r}; "
            "take fewer bits.inputs or bits.widths."
        )
    bias = np.zeros(1) if layer.synapse.bias is None else np.asarray(layer.synapse.bias[...], np.float64)
    back, fires = layer.recurrent, cell.fires
    return IntegerLayer(
        layer,
        _whole(kernel, grid_of(kernel)),
        None if back is None else _whole(np.asarray(back[...], np.float64), drive.grids[1]),
        _whole(bias, unit),
        (_log2(drive.grids[0] / finest), _log2(drive.grids[-1] / finest)),
        _log2(unit / finest),
        _whole(0.0 if cell.rectifies else value(cell.multiplier), 1.0),
        _whole(value(cell.threshold) if fires else 0.0, unit),
        _whole(0.0 if not fires or isinstance(cell.reset, str) else value(cell.reset), unit),
    )


def _whole(values: Any, unit: float) -> np.ndarray:
    """Returns values in units, which are whole numbers."""
    return np.asarray(np.round(np.asarray(values, np.float64) / unit), np.int32)


def _log2(power: float) -> int:
    return round(math.log2(power))


def _shifted(x: Array, right: int) -> Array:
    """Returns integers shifted to the right, halves rounded up, or to the left."""
    return x << -right if right <= 0 else (x + (1 << (right - 1))) >> right


def _entered(layer: Layer, x: Array) -> Array:
    """Returns the integers that the first layer's product reads of inputs."""
    step = 1.0
    for module in layer.before:
        x = module(x)
        step = module.step if isinstance(module, Rounded) else step
    return (x / step).astype(jnp.int32)


def _read(layer: Layer, x: Array) -> Array:
    """Returns what a layer's product reads of integers: their maxima, or some of them."""
    for module in layer.before:
        x = module(x.astype(jnp.float32)).astype(jnp.int32)
    return x
