"""A network of the zoo with the numbers of SpikingJelly's network of the same architecture."""

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.networks.layers import Conv, Layer
from dsnn.networks.norms import BatchNorm, TdBN
from dsnn.networks.spikingjelly.names import Source, sources
from dsnn.networks.spikingjelly.read import read_state
from dsnn.networks.step_norms import TEBN

__all__ = ["load"]

COUNTERS = "num_batches_tracked"
"""Last name of what PyTorch's norms count and nothing reads."""


def load(network: Any, state: Mapping[str, Any] | str | Path) -> Any:
    """Returns a network of the zoo with the weights of SpikingJelly's network of the same architecture.

    Kernels get their axes in the order height, width, input, output; the rows of a dense layer behind a feature map
    follow its places before its channels. The scale of "tdbn" is their weight over its threshold and alpha; that of
    "batch", and of a `dsnn.networks.TEBN` for their temporal effective norm, is their weight. Statistics are theirs as
    they stand, and a bias in front of a norm goes into its mean. Neurons, epsilon (1e-5 in both by default) and the
    reading of outputs are options of the network, and not in a state dict: make it with ``norm="batch"``,
    ``readout_beta=0.0`` and ``cell=lambda n: dsnn.cells.like("spikingjelly.IFNode", ...)``.

    Args:
        network: of `dsnn.networks.zoo`, with the sizes and options of theirs; it is not changed.
        state: tensors by name, or the path of a file for `read_state`.

    Raises:
        ValueError: a network that is not of the zoo, or a tensor that is missing, unknown, or of another shape.
        UntrustedError: a file that cannot be read as numbers.
        FileNotFoundError: there is nothing at the path.
    """
    new = nnx.clone(network)
    found = _Found(read_state(state) if isinstance(state, str | Path) else state)
    for source in sources(new):
        _fill(source, found)
    found.check_all_used()
    return new


class _Found:
    """Tensors by name, and which of them were asked for."""

    def __init__(self, state: Mapping[str, Any]):
        self.state, self.used = state, set[str]()

    def take(self, name: str, shape: tuple[int, ...], part: tuple[int, int] = (0, 1)) -> np.ndarray:
        """Returns the numbers of a name, of which a layer may have one of several equal parts of the first axis."""
        number, parts = part
        if name not in self.state:
            raise ValueError(f"the state must have a tensor {name}, got none of this name{self._near(name)}.")
        values = np.asarray(self.state[name])
        if values.dtype.kind != "f":
            raise ValueError(f"{name} must be floating-point numbers, got {values.dtype}.")
        whole = (parts * shape[0], *shape[1:])
        # their maps of tokens are convolutions of one axis
        same = values.shape == whole or (values.ndim == 3 and (*values.shape, 1) == whole)
        if not same:
            raise ValueError(
                f"{name} must have the shape {whole} for this network, got {values.shape}; make the network with the "
                "sizes and options of theirs."
            )
        self.used.add(name)
        return values.reshape(whole)[number * shape[0] : (number + 1) * shape[0]]

    def check_all_used(self) -> None:
        """Raises a ValueError for a tensor that no layer has a place for."""
        for name in self.state:
            if name not in self.used and name.rpartition(".")[2] != COUNTERS:
                raise ValueError(
                    f"the state must be that of this network alone, got a tensor {name} that it has no place for; make "
                    "the network with the sizes and options of theirs, or leave out what it is to do without."
                )

    def _near(self, name: str) -> str:
        near = difflib.get_close_matches(name, list(self.state), n=1)
        return f", the nearest is {near[0]}" if near else f" among {len(self.state)}"


def _fill(source: Source, found: _Found) -> None:
    """Puts its numbers into a layer, which is changed."""
    layer, name = source.layer, f"{source.product}.weight"
    kernel = layer.synapse.kernel
    if isinstance(layer.synapse, Conv):
        height, width, channels, features = kernel.shape
        weight = found.take(name, (features, channels, height, width), source.part)
        _set(kernel, weight.transpose(2, 3, 1, 0))
    else:
        _set(kernel, _rows(found.take(name, kernel.shape[::-1], source.part), layer))
    bias = _bias(source, found)
    if layer.norm is not None:
        _fill_norm(source, found, bias)


def _rows(weight: np.ndarray, layer: Layer) -> np.ndarray:
    """Returns the kernel of a dense layer: what it reads has channels last here, and there first."""
    shape = tuple(layer.synapse.in_shape)
    if len(shape) == 1:
        return weight.T
    *places, channels = shape
    by_channel = weight.reshape(len(weight), channels, *places)
    return np.moveaxis(by_channel, 1, -1).reshape(len(weight), math.prod(shape)).T


def _bias(source: Source, found: _Found) -> np.ndarray | None:
    """Returns their bias where it has to go into the norm; the layer's own is set."""
    name, own = f"{source.product}.bias", source.layer.synapse.bias
    if own is not None:
        _set(own, found.take(name, own.shape, source.part))
        return None
    if name not in found.state or source.layer.norm is None:
        return None
    return found.take(name, source.layer.norm.scale.shape[-1:], source.part)


def _fill_norm(source: Source, found: _Found, bias: np.ndarray | None) -> None:
    norm = source.layer.norm
    if not isinstance(norm, TdBN | BatchNorm | TEBN):
        raise ValueError(
            'a norm must be "tdbn", "batch" or a dsnn.networks.TEBN to take the batch normalisation of SpikingJelly, '
            f"got a {type(norm).__name__}."
        )
    names = {"scale": "weight", "shift": "bias", "mean": "running_mean", "variance": "running_var"}
    values = {
        ours: found.take(f"{source.norm}.{theirs}", getattr(norm, ours).shape, source.part)
        for ours, theirs in names.items()
    }
    if isinstance(norm, TdBN):
        values["scale"] = values["scale"] / (norm.alpha * norm.threshold)
    if isinstance(norm, TEBN):  # one number for each step, which all channels share
        values["by_step"] = found.take(f"{source.norm}.scale", (norm.steps,))[:, None]
    if bias is not None:
        values["mean"] = values["mean"] - bias
    for ours, value in values.items():
        _set(getattr(norm, ours), value)


def _set(variable: Any, values: np.ndarray) -> None:
    variable[...] = jnp.asarray(values, variable.dtype)
