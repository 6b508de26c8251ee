"""A NIR graph that is a chain of layers, as a stack that can be trained, gated, priced and compacted."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.layers import Conv, Dense, Layer, Pool
from dsnn.models import Stack
from dsnn.nir.fields import NIRError
from dsnn.nir.graph import Graph, first_shape, last
from dsnn.nir.neurons import Comparison, Neuron
from dsnn.nir.synapses import Convolution, Flat, Pooling, Product, Shape

SYNAPSE = (Product, Convolution)


def stack(graph: Graph, readout: str | None = None) -> Stack:
    """Returns the stack of layers that a graph describes, with equal outputs.

    Args:
        graph: a chain of Linear, Affine or Conv2d nodes, each followed by a neuron that may feed itself through one
            Linear node; pooling without padding and flattening in between.
        readout: how outputs become logits, "mean", "sum", "max" or "last"; None takes the file's note, else "mean".

    Raises:
        NIRError: a node that a stack of layers has no place for; the sentence names it.
    """
    follow: dict[str, list[str]] = {}
    for a, b in graph.edges:
        follow.setdefault(a, []).append(b)
    layers: dict[str, Layer] = {}
    before: list[Any] = []
    synapse: Any = None
    node, shape = _next(graph, follow, graph.inputs, ()), last(graph.shape)
    flat_from: Shape | None = None
    while node != graph.outputs:
        module = graph.nodes[node]
        skip: tuple[str, ...] = ()
        match module:
            case Pooling() if synapse is None:
                after = _next(graph, follow, node, ())
                either = isinstance(graph.nodes[after], Comparison) and not module.mean
                before.append(_pool(module, shape, either, node))
                node, shape = (after if either else node), before[-1].out_shape
            case Flat() if synapse is None and module.out_shape == (int(np.prod(shape)),):
                flat_from, shape = shape, module.out_shape
            case Product() if synapse is None:
                synapse, name = _dense(module, flat_from or shape), node
                shape, flat_from = synapse.out_shape, None
            case Convolution() if synapse is None and module.axes == 2:
                synapse, name = _conv(module, shape, node), node
                shape = synapse.out_shape
            case Neuron() if synapse is not None and module.synapse is None:
                label = name.removesuffix("_synapse").replace(".", "_")
                label = f"layer{label}" if not label.isidentifier() else label
                layer = Layer(synapse, _cell(module, node), before=tuple(before))
                skip = _recurrent(graph, follow, node)
                if skip:
                    layer.recurrent = nnx.data(nnx.Param(graph.nodes[skip[0]].weight[...].T))
                layers[label] = layer
                before, synapse = [], None
            case _:
                kind = type(module).__name__ if isinstance(module, Graph) else module.source.kind
                raise NIRError(f"node {node!r} of type {kind} has no place in a stack of layers here; use the graph.")
        node = _next(graph, follow, node, skip)
    if synapse is not None or not layers:
        raise NIRError(
            f"the chain must end with a neuron, got {name if layers or synapse else 'no layer'!r}; use the graph."
        )
    return Stack(readout or graph.source.notes.get("readout", "mean"), **layers)


def _next(graph: Graph, follow: dict[str, list[str]], node: str, skip: tuple[str, ...]) -> str:
    onward = [key for key in follow.get(node, []) if key not in skip]
    if len(onward) != 1:
        raise NIRError(f"node {node!r} must lead to one other in a stack of layers, got {onward}; use the graph.")
    into = [a for a, b in graph.edges if b == onward[0] and (a, b) not in graph.feedback]
    if len(into) != 1:
        raise NIRError(f"node {onward[0]!r} must follow one other in a stack of layers, got {into}; use the graph.")
    return onward[0]


def _recurrent(graph: Graph, follow: dict[str, list[str]], node: str) -> tuple[str, ...]:
    """Returns the Linear node through which a neuron feeds itself, or nothing."""
    own = [key for key in follow.get(node, []) if (key, node) in graph.edges]
    for key in own:
        module = graph.nodes[key]
        if not isinstance(module, Product) or module.bias is not None or follow.get(key) != [node]:
            raise NIRError(f"node {key!r} must be one Linear node to be a recurrent kernel here; use the graph.")
    return tuple(own)


def _pool(module: Pooling, shape: Shape, either: bool, name: str) -> Pool:
    if module.window != module.strides or any(sum(p) for p in module.padding) or not (either or module.mean):
        raise NIRError(f"node {name!r} must pool cells that do not overlap, by mean or any spike; use the graph.")
    height, width, channels = shape
    return Pool((height, width, channels), (module.window[0], module.window[1]), "max" if either else "mean")


def _dense(module: Product, shape: Shape) -> Dense:
    kernel = np.asarray(module.weight[...]).T
    if len(shape) > 1:
        order = np.moveaxis(np.arange(len(kernel)).reshape(first_shape(shape)), 0, -1).ravel()
        kernel = kernel[order]
    dense = Dense(shape, kernel.shape[1], key=jax.random.key(0), bias=module.bias is not None)
    dense.kernel = nnx.Param(jnp.asarray(kernel))
    if module.bias is not None:
        dense.bias = nnx.Param(module.bias[...])
    return dense


def _conv(module: Convolution, shape: Shape, name: str) -> Conv:
    height, width, channels = shape
    window = module.weight.shape[2:]
    padded = [sum(p) for p in module.padding]
    same = all(
        total == max((-(-n // s) - 1) * s + w - n, 0) and low == total // 2
        for total, (low, _), n, s, w in zip(padded, module.padding, shape[:2], module.strides, window, strict=True)
    )
    if module.groups != 1 or max(module.dilation) > 1 or (any(padded) and not same):
        raise NIRError(f"node {name!r} must pad all or nothing, without groups or dilation, in a stack; use the graph.")
    conv = Conv(
        (height, width, channels),
        module.out_shape[0],
        key=jax.random.key(0),
        window=(window[0], window[1]),
        strides=(module.strides[0], module.strides[1]),
        padding="SAME" if any(padded) else "VALID",
    )
    conv.kernel = nnx.Param(jnp.moveaxis(module.weight[...], (0, 1), (3, 2)))
    conv.bias = nnx.Param(module.bias[...])
    return conv


def _cell(module: Neuron, name: str) -> Any:
    plain = isinstance(module.gain, float) and abs(module.gain - 1) < 1e-6
    if not plain or not (isinstance(module.offset, float) and module.offset == 0):
        raise NIRError(
            f"node {name!r} must drive its membrane without a gain w_in or an offset v_leak in a stack; use the graph."
        )
    cell = nnx.clone(module.cell)
    if len(module.out_shape) == 1:
        return cell
    graphdef, state = nnx.split(cell)
    flat = [
        (path, v.replace(jnp.moveaxis(v[...], 0, -1)) if v[...].ndim == len(module.out_shape) else v)
        for path, v in nnx.to_flat_state(state)
    ]
    return nnx.merge(graphdef, nnx.from_flat_state(flat))
