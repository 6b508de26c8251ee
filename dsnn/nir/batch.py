"""NIR of networks traced with a batch of one example, whose axis stands in every shape that the file names."""

from collections.abc import Mapping
from typing import Any

import numpy as np

SHAPES = ("shape", "input_type", "input_shape")
PORTS = ("Input", "Output")


def batched(graph: Mapping[str, Any]) -> bool:
    """Returns whether an input or output of a graph has a first axis of one and others."""
    return any(
        _kind(node) in PORTS and (shape := _shape(node)) is not None and len(shape) > 1 and shape[0] == 1
        for node in _nodes(graph).values()
    )


def unbatched(graph: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the graph without that axis."""
    nodes = {name: _without(node) for name, node in _nodes(graph).items()}
    return {**graph, "nodes": nodes}


def _without(node: Any) -> Any:
    if not isinstance(node, Mapping):
        return node
    if _kind(node) == "NIRGraph":
        return unbatched(node)
    fields = {key: _shorter(value) if key in SHAPES else value for key, value in node.items()}
    if _kind(node) in ("I", "LI", "IF", "LIF", "CubaLI", "CubaLIF", "Threshold", "Scale", "Delay"):
        fields = {key: _first(value) for key, value in fields.items()}
    return fields


def _shorter(shape: Any) -> Any:
    array = np.asarray(shape)
    return array[1:] if array.ndim == 1 and len(array) > 1 and array[0] == 1 else shape


def _first(value: Any) -> Any:
    numbers = isinstance(value, np.ndarray) and value.dtype.kind in "biuf"
    return value[0] if numbers and value.ndim > 1 and len(value) == 1 else value


def _shape(node: Mapping[str, Any]) -> np.ndarray | None:
    shape = node.get("shape")
    array = np.asarray(shape) if isinstance(shape, np.ndarray | list | tuple) else None
    return array if array is not None and array.ndim == 1 and array.dtype.kind in "biuf" else None


def _nodes(graph: Any) -> Mapping[str, Any]:
    nodes = graph.get("nodes") if isinstance(graph, Mapping) else None
    return nodes if isinstance(nodes, Mapping) else {}


def _kind(node: Any) -> str | None:
    kind = node.get("type") if isinstance(node, Mapping) else None
    kind = kind.decode("utf8", "replace") if isinstance(kind, bytes) else kind
    return kind if isinstance(kind, str) else None
