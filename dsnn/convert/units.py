"""A deep network read as weighted units: batch norm folded away, pooling and residual paths noted."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.convert.ann import Flatten, Residual, is_activation, unknown
from dsnn.networks.layers import Pool


@dataclasses.dataclass
class Unit:
    """One product with what stands before and after it.

    Attributes:
        kernel: ``[input, neuron]`` or ``[height, width, channel, neuron]``, batch norm folded in.
        bias: ``[neuron]``.
        strides: of a convolution, else ().
        padding: "SAME" or "VALID".
        before: pooling of its input.
        activation: the module after it; None for outputs, and within a residual sum until the sum's is known.
        opens: it is the first unit of a residual body.
        shortcut: kernel of the path that joins here, "identity", or None where nothing joins.
        shortcut_bias: bias of that path.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strides: tuple[int, ...]
    padding: str
    before: tuple[Pool, ...] = ()
    activation: Any = None
    opens: bool = False
    shortcut: Any = None
    shortcut_bias: Any = 0.0

    @property
    def dense(self) -> bool:
        """Whether it is fully connected."""
        return self.kernel.ndim == 2


def read(model: nnx.Sequential) -> list[Unit]:
    """Returns the units of a deep network, first to last.

    Raises:
        ValueError: a module, or an order of modules, that has no spiking counterpart.
    """
    units = _read(model, inside=False)
    if not units:
        raise ValueError("a network to convert needs a Linear or Conv, got none.")
    for unit in units[:-1]:
        if unit.activation is None:
            raise ValueError("every layer but the last must be followed by relu or ClipFloor, got one that is not.")
    if units[-1].activation is not None:
        raise ValueError("the last layer gives logits, got one with an activation; end with a Linear or Conv.")
    return units


def _read(model: nnx.Sequential, inside: bool) -> list[Unit]:
    units: list[Unit] = []
    pools: list[Pool] = []
    for module in model.layers:
        if isinstance(module, nnx.Linear | nnx.Conv):
            units.append(_unit(module, tuple(pools)))
            pools = []
        elif isinstance(module, nnx.BatchNorm):
            if not units or pools or units[-1].activation is not None:
                raise ValueError("batch norm is folded into the layer right before it, got one that follows none.")
            units[-1] = _folded(units[-1], module)
        elif isinstance(module, Residual):
            units += _joined(module, tuple(pools))
            pools = []
        elif isinstance(module, Pool):
            if inside:
                raise ValueError("a residual body must not pool, got a Pool; pool before it or use strides.")
            pools.append(module)
        elif is_activation(module):
            if not units or pools:
                raise ValueError("an activation must follow its layer before any pooling, got one that does not.")
            units[-1].activation = module
        elif not isinstance(module, Flatten | nnx.Dropout):
            raise ValueError(unknown(module))
    if pools:
        raise ValueError("pooling must be followed by a layer, got a network that ends with it.")
    return units


def _unit(module: Any, before: tuple[Pool, ...]) -> Unit:
    kernel = np.asarray(module.kernel[...])
    bias = np.zeros(kernel.shape[-1], np.float32) if module.bias is None else np.asarray(module.bias[...])
    if isinstance(module, nnx.Linear):
        return Unit(kernel, bias, (), "VALID", before)
    strides = module.strides if isinstance(module.strides, tuple) else (module.strides or 1,) * 2
    plain = module.padding in ("SAME", "VALID") and module.feature_group_count == 1
    if kernel.ndim != 4 or not plain or _not_one(module.input_dilation) or _not_one(module.kernel_dilation):
        raise ValueError("a convolution must be two-dimensional, SAME or VALID, without groups or dilation.")
    return Unit(kernel, bias, tuple(strides), module.padding, before)


def _not_one(value: Any) -> bool:
    return value is not None and bool(np.any(np.asarray(value) != 1))


def _folded(unit: Unit, norm: nnx.BatchNorm) -> Unit:
    """Returns the unit with (y - mean) / sqrt(var + eps) * scale + bias folded in (Rueckauer et al. 2017, eq. 8)."""
    factor = 1 / np.sqrt(np.asarray(norm.var[...]) + norm.epsilon)
    if norm.scale is not None:
        factor = factor * np.asarray(norm.scale[...])
    bias = (unit.bias - np.asarray(norm.mean[...])) * factor
    if norm.bias is not None:
        bias = bias + np.asarray(norm.bias[...])
    return dataclasses.replace(unit, kernel=unit.kernel * factor, bias=bias)


def _joined(module: Residual, before: tuple[Pool, ...]) -> list[Unit]:
    body = _read(module.body, inside=True)
    if not body or body[-1].activation is not None or any(u.activation is None for u in body[:-1]):
        raise ValueError("a residual body needs an activation between its layers and none after the last.")
    if any(u.opens or u.shortcut is not None for u in body):
        raise ValueError("a residual body must not hold another one; put them one after another.")
    stride = np.prod([u.strides or (1, 1) for u in body], axis=0)
    last = body[-1]
    if module.shortcut is None:
        if (stride != 1).any():
            raise ValueError(f"an identity shortcut needs a body without strides, got {tuple(stride)}; give a Conv.")
        last.shortcut = "identity"
    else:
        path = _unit(module.shortcut, ())
        if not path.dense and (path.kernel.shape[:2] != (1, 1) or (np.asarray(path.strides) != stride).any()):
            raise ValueError(
                f"a shortcut must be a 1 x 1 convolution with the body's strides {tuple(int(s) for s in stride)}, got "
                f"{path.kernel.shape[:2]} with {path.strides}."
            )
        last.shortcut, last.shortcut_bias = path.kernel.reshape(path.kernel.shape[-2:]), path.bias
    if not last.dense and any(u.padding != "SAME" for u in body):
        raise ValueError("the convolutions of a residual body must have padding SAME, got VALID.")
    body[0] = dataclasses.replace(body[0], before=before, opens=True)
    return body


def limit_of(unit: Unit) -> Any:
    """Returns the learned limit of a unit's `ClipFloor`, None for another activation."""
    limit = getattr(unit.activation, "limit", None)
    return None if limit is None else float(jnp.abs(limit[...]))
