"""A NIR graph that is a chain of layers, as a stack that can be trained, gated, priced and compacted."""

import keyword
import re
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.networks.layers import Conv, Dense, Layer, Pool
from dsnn.networks.stack import READOUTS, Stack
from dsnn.nir.fields import NIRError
from dsnn.nir.graph import Edge, Graph, Port, first_shape, last
from dsnn.nir.neurons import Comparison, Neuron
from dsnn.nir.synapses import Convolution, Flat, Pooling, Product, Shape

RESERVED = {"self", "cls", "readout_kind", "names", "share"}
"""What a stack keeps beside its layers, and what its constructor calls itself."""


def stack(graph: Graph, readout: str | None = None) -> Stack:
    """Returns the stack of layers that a graph describes, with equal outputs.

    Args:
        graph: a chain of Linear, Affine or Conv2d nodes, each followed by a neuron that may feed itself through one
            Linear node; pooling without padding and flattening in between.
        readout: how outputs become logits, "mean", "sum", "max" or "last"; None takes the file's note, else "mean".

    Raises:
        NIRError: a node that a stack of layers has no place for; the sentence names it.
    """
    chain = _inlined(graph)
    layers: dict[str, Layer] = {}
    before: list[Any] = []
    synapse: Any = None
    node, shape = _next(chain, chain.inputs, ()), last(graph.shape)
    flat_from: Shape | None = None
    while node != chain.outputs:
        module = chain.nodes[node]
        skip: tuple[str, ...] = ()
        match module:
            case Port():  # of a graph within the graph
                pass
            case Pooling() if synapse is None:
                after = _next(chain, node, ())
                either = isinstance(chain.nodes[after], Comparison) and not module.mean
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
                skip = _recurrent(chain, node)
                layer = Layer(synapse, _cell(module, node), before=tuple(before))
                if skip:
                    _wire_back(layer, chain.nodes[skip[0]], skip[0])
                layers[_label(name, layers)] = layer
                before, synapse = [], None
            case _:
                raise NIRError(
                    f"node {node!r} of type {module.source.kind} has no place in a stack of layers here; use the graph."
                )
        node = _next(chain, node, skip)
    if synapse is not None or not layers:
        raise NIRError(
            f"the chain must end with a neuron, got {name if layers or synapse else 'no layer'!r}; use the graph."
        )
    kind = readout or graph.source.notes.get("readout", "mean")
    if kind not in READOUTS:
        raise NIRError(f"readout must be one of {', '.join(READOUTS)}, got {kind!r}.")
    return Stack(kind, **layers)


class _Chain(NamedTuple):
    """Nodes by their whole names, those of graphs within the graph among them, and what joins them."""

    nodes: dict[str, Any]
    edges: tuple[Edge, ...]
    feedback: tuple[Edge, ...]
    inputs: str
    outputs: str


def _inlined(graph: Graph, name: str = "") -> _Chain:
    """Returns a graph without graphs in it: an edge to one leads to its Input, one from it comes from its Output."""
    within = f"{name}/" if name else ""
    nodes: dict[str, Any] = {}
    edges: list[Edge] = []
    feedback: list[Edge] = []
    enter: dict[str, str] = {}
    leave: dict[str, str] = {}
    for key in graph.order:
        module = graph.node(key)
        if isinstance(module, Graph):
            inner = _inlined(module, within + key)
            nodes |= inner.nodes
            edges += inner.edges
            feedback += inner.feedback
            enter[key], leave[key] = inner.inputs, inner.outputs
        else:
            nodes[within + key] = module
            enter[key] = leave[key] = within + key
    edges += [(leave[a], enter[b]) for a, b in graph.edges]
    feedback += [(leave[a], enter[b]) for a, b in graph.feedback]
    return _Chain(nodes, tuple(edges), tuple(feedback), enter[graph.inputs], leave[graph.outputs])


def _label(name: str, taken: Collection[str]) -> str:
    """Returns what a layer is called: its synapse's name, in signs that a Python name may have and no other has."""
    label = re.sub(r"\W", "_", name.removesuffix("_synapse"))
    if not label.isidentifier() or keyword.iskeyword(label):
        label = f"layer{label}"
    while label in taken or hasattr(Stack, label) or label in RESERVED or label.startswith("_"):
        label = f"layer_{label}"
    return label


def _next(chain: _Chain, node: str, skip: tuple[str, ...]) -> str:
    onward = [b for a, b in chain.edges if a == node and b not in skip]
    if len(onward) != 1:
        raise NIRError(f"node {node!r} must lead to one other in a stack of layers, got {onward}; use the graph.")
    into = [a for a, b in chain.edges if b == onward[0] and (a, b) not in chain.feedback]
    if len(into) != 1:
        raise NIRError(f"node {onward[0]!r} must follow one other in a stack of layers, got {into}; use the graph.")
    return onward[0]


def _recurrent(chain: _Chain, node: str) -> tuple[str, ...]:
    """Returns the Linear or Affine node through which a neuron feeds itself, or nothing."""
    own = [b for a, b in chain.edges if a == node and (b, node) in chain.edges]
    for key in own:
        onward = [b for a, b in chain.edges if a == key]
        into = [a for a, b in chain.edges if b == key]
        if not isinstance(chain.nodes[key], Product) or onward != [node] or into != [node] or len(own) > 1:
            raise NIRError(
                f"node {key!r} must be one Linear or Affine node to be a recurrent kernel here; use the graph."
            )
    return tuple(own)


def _wire_back(layer: Layer, module: Product, name: str) -> None:
    """Gives a layer its recurrent kernel; a bias of it joins that of the synapse, since both come at every step."""
    layer.recurrent = nnx.data(nnx.Param(module.weight[...].T))
    if module.bias is None:
        return
    synapse = layer.synapse
    if not isinstance(synapse, Dense):
        raise NIRError(f"node {name!r} must have no bias to be wired back to a convolution here; use the graph.")
    bias = module.bias[...] if synapse.bias is None else synapse.bias[...] + module.bias[...]
    synapse.bias = nnx.Param(bias)


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
