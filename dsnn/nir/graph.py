"""A NIR graph that runs: nodes in an order that its edges allow, and what returns arrives one step later.

A graph may be a node of a graph, so that reading, ordering and running call each other: they are one file.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.nir.fields import Clock, NIRError, Source, check_shape, metadata_of, source, whole
from dsnn.nir.neurons import Comparison, Delayed, Neuron
from dsnn.nir.synapses import SYNAPSES, Convolution, Product, Shape
from dsnn.types import Array, Key

NEURONS: dict[str, Any] = {"Delay": Delayed, "Threshold": Comparison}
STATEFUL = (Neuron, Comparison, Delayed)
MEMORY = ("I", "LI", "IF", "LIF", "CubaLI", "CubaLIF", "Delay")
MAX_NODES, MAX_EDGES, MAX_DEPTH = 10_000, 100_000, 16
"""Nodes and edges of a graph, and graphs within each other."""

Edge = tuple[str, str]


class GraphState(NamedTuple):
    """States of the nodes by name, and the last outputs of those that send back."""

    nodes: dict[str, Any]
    sent: dict[str, Array]


class Graph(nnx.Module):
    """A network read from NIR; ``dsnn.unroll(graph, xs)`` runs it over ``[time, batch, ...]``, images channels-last.

    Several edges into a node add up. An edge that closes a cycle carries what was sent one step before, so a recurrent
    neuron hears its own last spikes; a cycle through a Delay of at least one step has that delay and no other.

    Attributes:
        clock: how continuous time became steps.
        in_shape: shape of one input, images channels-last.
        out_shape: shape of one output, images channels-last.
        edges: (from, to), as read.
        feedback: the edges that carry the step before.
        nodes: by name; one that a Python object cannot carry has another place there, see `node`.
    """

    def __init__(self, nodes: dict[str, Any], plan: "Plan", clock: Clock, edges: tuple[Edge, ...], origin: Source):
        self.clock, self.edges, self.source = clock, edges, origin
        self.order, self.feedback, self.inputs, self.outputs = plan
        self.places = _places(tuple(nodes))
        self.nodes = nnx.Dict({self.places[name]: node for name, node in nodes.items()})
        self.into = _into(edges)
        self.shape = nodes[self.inputs].out_shape
        self.in_shape, self.out_shape = last(self.shape), last(nodes[self.outputs].out_shape)

    def init(self, batch_shape: int | tuple[int, ...]) -> GraphState:
        """Returns the state at rest for a batch of this size, or for inputs of shape (batch,) or (batch, ...)."""
        batch = batch_shape if isinstance(batch_shape, int) else batch_shape[0]
        states: dict[str, Any] = {}
        for name in self.places:
            node = self.node(name)
            if isinstance(node, Graph):
                states[name] = node.init((batch,))
            elif isinstance(node, STATEFUL):
                states[name] = node.init(batch)
        return GraphState(states, self._at_rest(batch))

    def node(self, name: str) -> Any:
        """Returns a node by the name that the graph gives it."""
        return self.nodes[self.places[name]]

    def step(self, state: GraphState, x: Array, key: Key[Array, ""] | None = None) -> tuple[GraphState, Array]:
        """Returns the next state and the output for one input ``[batch, ...]``; a key is consumed."""
        if x.shape[1:] != self.in_shape and int(np.prod(x.shape[1:])) == int(np.prod(self.in_shape)):
            x = x.reshape(x.shape[0], *self.in_shape)
        if x.shape[1:] != self.in_shape:
            raise ValueError(f"the input must be [time, batch, ...] of shape {self.in_shape}, got {x.shape[1:]}.")
        new, out = self.advance(state, first(x), key)
        return new, back(out)

    def advance(self, state: GraphState, x: Array, key: Key[Array, ""] | None = None) -> tuple[GraphState, Array]:
        """Returns the next state and the output for one input, images channels-first."""
        states, out = dict(state.nodes), {self.inputs: x}
        late = [name for name in self.order if isinstance(self.node(name), Delayed) and self.node(name).strict]
        for index, name in enumerate(self.order):
            node = self.node(name)
            if name in late:
                out[name] = node.read(states[name])
                continue
            given = x if name == self.inputs else self._received(name, out, state.sent)
            match node:
                case Delayed():
                    out[name] = node.read(states[name], given)
                    states[name] = node.write(states[name], given)
                case Graph():
                    states[name], out[name] = node.advance(states[name], given, _key(key, index))
                case Neuron() | Comparison():
                    states[name], out[name] = node.step(states[name], given, _key(key, index))
                case _:
                    out[name] = node(given)
        for name in late:
            states[name] = self.node(name).write(states[name], self._received(name, out, state.sent))
        return GraphState(states, {name: out[name] for name in state.sent}), out[self.outputs]

    def to_dict(self) -> dict[str, Any]:
        """Returns the graph as `nir.NIRNode.to_dict` would; what nothing has changed has the bits that were read."""
        nodes: dict[str, Any] = {}
        for name in self.places:
            node = self.node(name)
            if isinstance(node, Graph):
                nodes[name] = node.to_dict()
            else:
                nodes[name] = {"type": node.source.kind, **node.fields(), "metadata": dict(node.source.metadata)}
        metadata = dict(self.source.metadata)
        return {"type": "NIRGraph", "nodes": nodes, "edges": list(self.edges), "metadata": metadata}

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        lines = [f"Graph {self.in_shape} -> {self.out_shape}, dt = {self.clock.dt} s, {self.clock.method}"]
        for name in self.order:
            node = self.node(name)
            kind = "NIRGraph" if isinstance(node, Graph) else node.source.kind
            late = {a for a, b in self.feedback if b == name}
            into = [a if a not in late else f"{a} (one step before)" for a in self.into.get(name, ())]
            lines.append(f"  {name}: {kind} {node.out_shape}{' <- ' + ', '.join(into) if into else ''}")
        return "\n".join(lines)

    def _received(self, name: str, out: dict[str, Array], sent: Mapping[str, Array]) -> Array:
        late = {a for a, b in self.feedback if b == name}
        terms = [sent[a] if a in late else out[a] for a in self.into[name]]
        return sum(terms[1:], start=terms[0])

    def _at_rest(self, batch: int) -> dict[str, Array]:
        """Returns what nodes send back before the first step: of no spikes, which an Affine answers with its bias."""
        sent = {
            name: jnp.zeros((batch, *channels_first(self.node(name)))) for name in sorted({a for a, _ in self.feedback})
        }
        if not any(
            isinstance(self.node(name), Product | Convolution) and self.node(name).bias is not None for name in sent
        ):
            return sent
        out: dict[str, Array] = {}
        for name in self.order:
            node = self.node(name)
            quiet = isinstance(node, (Graph, Port, *STATEFUL))
            silence = jnp.zeros((batch, *channels_first(node)))
            out[name] = silence if quiet else node(self._received(name, out, sent))
        return {name: out[name] for name in sent}


class Port(nnx.Module):
    """Input or Output: hands on what it gets.

    Args:
        source: the node.
        in_shape: its shape.
    """

    def __init__(self, source: Source, in_shape: Shape):
        self.source, self.out_shape = source, in_shape
        named = whole(source, "shape", source["shape"])
        if named != in_shape:
            raise NIRError(f"node {source.name!r} must have the shape {named} that it names, got {in_shape}.")

    def __call__(self, x: Array) -> Array:
        """Returns ``x``."""
        return x

    def fields(self) -> dict[str, Any]:
        """Returns the NIR fields."""
        return dict(self.source.fields)


class Plan(NamedTuple):
    """The order in which nodes run, the edges that carry the step before, and the names of Input and Output."""

    order: tuple[str, ...]
    feedback: tuple[Edge, ...]
    inputs: str
    outputs: str


def build(
    graph: Mapping[str, Any], clock: Clock, name: str = "", in_shape: Shape | None = None, depth: int = 0
) -> Graph:
    """Returns the network of a graph given as nested dictionaries.

    Args:
        graph: "nodes" and "edges" as `nir.NIRGraph.to_dict` gives them.
        clock: how continuous time becomes steps.
        name: of a graph within a graph.
        in_shape: what a graph within a graph receives.
        depth: how many graphs it lies in.

    Raises:
        NIRError: a node or an edge that is not understood; the sentence names it.
    """
    if depth > MAX_DEPTH:
        raise NIRError(f"graphs may be nested {MAX_DEPTH} deep, got more at {name!r}.")
    raw, edges = _parts(graph, name)
    into = _into(edges)
    places = {key: f"{name}/{key}" if name else key for key in raw}
    checked = {key: source(places[key], node) for key, node in raw.items() if _kind(node) != "NIRGraph"}
    plan = _plan(raw, checked, edges, clock, name)
    built: dict[str, Any] = {}
    for key in plan.order:
        shapes = {channels_first(built[a]) for a in into.get(key, ()) if a in built}
        if len(shapes) > 1:
            raise NIRError(f"edges into node {places[key]!r} must carry one shape, got {sorted(shapes)}.")
        if key not in checked:
            built[key] = build(raw[key], clock, places[key], shapes.pop() if shapes else None, depth + 1)
        else:
            shape = shapes.pop() if shapes else _own_shape(checked[key])
            if key == plan.inputs and in_shape not in (None, shape):
                raise NIRError(f"node {places[key]!r} takes shape {shape}, got {in_shape}; make them agree.")
            built[key] = _node(checked[key], check_shape(places[key], shape), clock)
            check_shape(places[key], built[key].out_shape)
    for a, b in edges:  # what an order cannot see: shapes that come back
        if channels_first(built[a]) != _takes(built[b]):
            raise NIRError(
                f"edge {a!r} to {b!r} must carry what {b!r} takes, {_takes(built[b])}, got {channels_first(built[a])}."
            )
    origin = Source(name or "graph", "NIRGraph", {}, metadata_of(name or "graph", graph))
    return Graph(built, plan, clock, edges, origin)


def _own_shape(checked: Source) -> Shape:
    """Returns the shape that a node names itself: an Input, or a Delay that answers before it is asked."""
    if checked.kind == "Delay":
        return checked["delay"].shape
    if "shape" not in checked.fields:
        raise NIRError(f"node {checked.name!r} of type {checked.kind} must be fed by a node before it, got none.")
    return whole(checked, "shape", checked["shape"])


def _node(checked: Source, shape: Shape, clock: Clock) -> Any:
    if checked.kind in ("Input", "Output"):
        return Port(checked, shape)
    if checked.kind in SYNAPSES:
        module: Any = SYNAPSES[checked.kind](checked, shape)
    else:
        module = NEURONS.get(checked.kind, Neuron)(checked, shape, clock)
    module.in_shape = shape
    return module


def _takes(node: Any) -> Shape:
    if isinstance(node, Graph):
        return node.shape
    return node.out_shape if isinstance(node, Port) else node.in_shape


def _parts(graph: Mapping[str, Any], name: str) -> tuple[dict[str, Any], tuple[Edge, ...]]:
    where = f"graph {name!r}" if name else "the graph"
    nodes = graph.get("nodes")
    if _kind(graph) not in ("NIRGraph", None) or not isinstance(nodes, Mapping) or not nodes:
        raise NIRError(f"{where} must be a NIRGraph with nodes, got type {_kind(graph)!r}.")
    if len(nodes) > MAX_NODES:
        raise NIRError(f"{where} may hold {MAX_NODES} nodes, got {len(nodes)}; it is too large.")
    if odd := [key for key in nodes if not isinstance(key, str) or not key]:
        raise NIRError(f"nodes of {where} must have names, got {odd[0]!r}.")
    edges = [_edge(edge, nodes, where) for edge in _listed(graph.get("edges", ()), where)]
    if len(set(edges)) < len(edges):
        twice = next(e for e in edges if edges.count(e) > 1)
        raise NIRError(f"edges of {where} must differ, got {twice[0]!r} to {twice[1]!r} twice.")
    return dict(nodes), tuple(edges)


def _listed(edges: Any, where: str) -> list[Any]:
    if isinstance(edges, str | bytes | Mapping) or not isinstance(edges, Iterable) or getattr(edges, "ndim", 1) == 0:
        raise NIRError(f"edges of {where} must be a list of pairs, got {type(edges).__name__}.")
    listed = list(edges)
    if len(listed) > MAX_EDGES:
        raise NIRError(f"{where} may have {MAX_EDGES} edges, got {len(listed)}; it is too large.")
    return listed


def _edge(edge: Any, nodes: Mapping, where: str) -> Edge:
    pair = list(edge) if isinstance(edge, list | tuple | np.ndarray) and np.ndim(edge) else [edge]
    ends = [end.decode("utf8", "replace") if isinstance(end, bytes) else end for end in pair]
    if len(ends) != 2 or not all(isinstance(end, str) and end in nodes for end in ends):
        lost = [end for end in ends if not isinstance(end, str) or end not in nodes][:2]
        raise NIRError(f"edges of {where} must join two of its nodes, got {ends[:3]}; {lost} is none.")
    return str(ends[0]), str(ends[1])


def _into(edges: tuple[Edge, ...]) -> dict[str, tuple[str, ...]]:
    """Returns the nodes that feed each node."""
    found: dict[str, list[str]] = {}
    for a, b in edges:
        found.setdefault(b, []).append(a)
    return {name: tuple(senders) for name, senders in found.items()}


def _places(names: tuple[str, ...]) -> dict[str, str]:
    """Returns where each node is kept: under its name, unless that means something to Python's objects."""
    places: dict[str, str] = {}
    plain = {name for name in names if not hasattr(nnx.Dict, name) and not name.startswith("_")}
    for name in names:
        place = name if name in plain else f"node_{name}"
        while name not in plain and place in plain | set(places.values()):
            place += "_"
        places[name] = place
    return places


def _kind(node: Any) -> str | None:
    kind = node.get("type") if isinstance(node, Mapping) else None
    kind = kind.decode("utf8", "replace") if isinstance(kind, bytes) else kind
    return kind if isinstance(kind, str) else None


def _plan(raw: Mapping, checked: Mapping[str, Source], edges: tuple[Edge, ...], clock: Clock, name: str) -> Plan:
    """Orders the nodes depth-first from the input; an edge to a node still open closes a cycle and is fed back."""
    where = f"graph {name!r}" if name else "the graph"
    ports = {}
    for kind in ("Input", "Output"):
        found = [key for key, node in checked.items() if node.kind == kind]
        if len(found) != 1:
            raise NIRError(f"{where} must have one {kind}, got {', '.join(found) or 'none'}.")
        ports[kind] = found[0]
    # a delay of a step or more answers before it is asked, so edges into it order nothing
    strict = [key for key, node in checked.items() if node.kind == "Delay" and _least_steps(node, clock) >= 1]
    following: dict[str, list[str]] = {key: [] for key in raw}
    for a, b in edges:
        following[a].append(b)
    _check_reached(following, edges, ports, where)
    state: dict[str, int] = {}
    finished: list[str] = []
    feedback: list[Edge] = []
    for start in (ports["Input"], *strict, *raw):
        path: list[str] = []
        rest, at = [], dict[str, int]()
        if start not in state:
            state[start] = 1
            path, rest, at = [start], [iter(following[start])], {start: 0}
        while path:
            key = next(rest[-1], None)
            if key is None:
                rest.pop()
                state[path[-1]] = 2
                finished.append(path.pop())
            elif key in strict or state.get(key) == 2:
                continue
            elif state.get(key) == 1:
                _check_cycle(path[at[key] :], raw, where)
                feedback.append((path[-1], key))
            else:
                state[key], at[key] = 1, len(path)
                path.append(key)
                rest.append(iter(following[key]))
    return Plan(tuple(finished[::-1]), tuple(feedback), ports["Input"], ports["Output"])


def _least_steps(node: Source, clock: Clock) -> float:
    return float(np.round(np.min(node["delay"], initial=np.inf) / clock.dt))


def _remembers(node: Any) -> bool:
    if _kind(node) == "NIRGraph":
        nodes = node.get("nodes")
        return isinstance(nodes, Mapping) and any(map(_remembers, nodes.values()))
    return _kind(node) in MEMORY


def _check_cycle(cycle: list[str], raw: Mapping, where: str) -> None:
    if not any(_remembers(raw[key]) for key in cycle):
        raise NIRError(
            f"a cycle of {where} must pass through a neuron or a delay, got {' -> '.join((*cycle, cycle[0]))}; its "
            "values would depend on themselves."
        )


def _check_reached(following: dict[str, list[str]], edges: tuple[Edge, ...], ports: dict[str, str], where: str) -> None:
    seen, left = {ports["Input"]}, [ports["Input"]]
    while left:
        for key in following[left.pop()]:
            if key not in seen:
                seen.add(key)
                left.append(key)
    if lost := [key for key in following if key not in seen]:
        raise NIRError(f"every node of {where} must be reached from {ports['Input']!r}, got {lost[0]!r} without input.")
    into = [a for a, b in edges if b == ports["Input"]]
    if into:
        raise NIRError(f"nothing may feed {ports['Input']!r} of {where}, got an edge from {into[0]!r}.")


def channels_first(node: Any) -> Shape:
    """Returns the shape of a node's output, images channels-first."""
    return first_shape(node.out_shape) if isinstance(node, Graph) else node.out_shape


def last(shape: Shape) -> Shape:
    """Returns a shape with its channels last; one with fewer than two axes as it is."""
    return (*shape[1:], shape[0]) if len(shape) > 1 else shape


def first_shape(shape: Shape) -> Shape:
    """Returns a channels-last shape with its channels first."""
    return (shape[-1], *shape[:-1]) if len(shape) > 1 else shape


def first(x: Array) -> Array:
    """Returns ``[batch, ..., channel]`` with its channels first."""
    return jnp.moveaxis(x, -1, 1) if x.ndim > 2 else x


def back(x: Array) -> Array:
    """Returns ``[batch, channel, ...]`` with its channels last."""
    return jnp.moveaxis(x, 1, -1) if x.ndim > 2 else x


def _key(key: Key[Array, ""] | None, index: int) -> Key[Array, ""] | None:
    return None if key is None else jax.random.fold_in(key, index)
