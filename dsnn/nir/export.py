"""Writes a stack of layers as NIR, and says in sentences what NIR has no words for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np

from dsnn.cells import LI, LIF, CuBaLIF
from dsnn.escape import Gaussian, Logistic
from dsnn.escape.parameters import value
from dsnn.networks.compact import Select
from dsnn.networks.layers import Conv, Dense, Layer, Pool
from dsnn.networks.stack import Stack
from dsnn.nir.fields import NOTES, Clock, NIRError, seconds
from dsnn.nir.graph import Graph, first_shape
from dsnn.nir.synapses import Shape
from dsnn.parameters import folded


def save(
    model: Stack | Graph,
    path: str | Path,
    *,
    dt: SupportsFloat | None = None,
    method: str = "euler",
    notes: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Writes a network as a NIR file and returns, in sentences, what other readers of it will not see.

    Args:
        model: a stack, whose norms are folded into its kernels, or a graph that was read.
        path: of the file; an existing one is replaced.
        dt: length of a step in seconds; None takes that of the cells (1 ms unless they say otherwise). snnTorch's
            importer takes a step for 1e-4.
        method: "euler" (what snnTorch and Norse read) or "exp" (for readers that solve a step exactly); time constants
            are written such that this discretisation gives the network's own decays.
        notes: goes into the graph's metadata, JSON values by name.

    Raises:
        NIRError: a layer or cell that NIR cannot express, or no package `nir`.
    """
    nir = _nir()
    graph, sentences = _dictionary(model, dt, method, notes)
    place = Path(path).expanduser()
    place.parent.mkdir(parents=True, exist_ok=True)
    nir.write(str(place), _node(nir, graph))
    return sentences


def to_nir(
    model: Stack | Graph,
    *,
    dt: SupportsFloat | None = None,
    method: str = "euler",
    notes: Mapping[str, Any] | None = None,
) -> Any:
    """Returns a network as a `nir.NIRGraph`; arguments and errors as in `save`."""
    return _node(_nir(), _dictionary(model, dt, method, notes)[0])


def _nir() -> Any:
    try:
        import nir
    except ImportError as error:
        raise NIRError(
            "writing NIR needs the package nir, which is not installed; pip install nir, or set DSNN_EXTRAS=nir."
        ) from error
    return nir


def _node(nir: Any, graph: Mapping[str, Any]) -> Any:
    """Returns the node of a dictionary; shapes were checked here, where nir 1.0 takes every kernel for a square."""
    plain = {key: a[()] if isinstance(a, np.ndarray) and a.ndim == 0 else a for key, a in graph.items()}
    if graph["type"] != "NIRGraph":
        return nir.dict2NIRNode(plain)
    nodes = {name: _node(nir, node) for name, node in graph["nodes"].items()}
    return nir.NIRGraph(nodes, graph["edges"], metadata=dict(graph["metadata"]), type_check=False)


def _dictionary(
    model: Stack | Graph, dt: SupportsFloat | None, method: str, notes: Mapping[str, Any] | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    dt = None if dt is None else seconds(dt)
    if isinstance(model, Graph):
        if dt not in (None, model.clock.dt):
            raise NIRError(f"a graph that was read keeps its seconds, got dt={dt}; load it with that dt instead.")
        graph = model.to_dict()
        return (graph | {"metadata": graph["metadata"] | _noted(notes)}) if notes else graph, ()
    model = _plain(model)
    if model.blocks:
        raise NIRError(f"only a chain of layers can be written, got the residual blocks {', '.join(model.blocks)}.")
    cells: list[Any] = [layer.cell for _, layer in model.layers() if isinstance(layer.cell, (LI, LIF, CuBaLIF))]
    steps = {1e-3 * float(cell.dt) for cell in cells}
    if dt is None and len(steps) > 1:
        raise NIRError(f"cells of one network must share a step, got dt = {sorted(steps)} seconds; give dt.")
    writer = _Writer(Clock(steps.pop() if dt is None and steps else dt or 1e-3, method), model.in_shape)
    for name, layer in model.layers():
        writer.layer(name, layer)
    if model.readout_kind != "last":
        writer.sentences.append(
            f"the logits are the {model.readout_kind} over time of the outputs; NIR has the outputs."
        )
    every = {"dt": writer.clock.dt, "method": method, "readout": model.readout_kind, **(notes or {})}
    return writer.graph(every), tuple(writer.sentences)


def _plain(model: Stack) -> Stack:
    """Returns the stack without norms: NIR has none."""
    plain: Stack = folded(model)
    return plain


def _noted(notes: Mapping[str, Any] | None) -> dict[str, str]:
    return {NOTES: json.dumps(dict(notes), sort_keys=True)} if notes else {}


class _Writer:
    """Collects nodes and edges from the input on; shapes are channels-last, as the layers have them."""

    def __init__(self, clock: Clock, in_shape: Shape):
        self.clock, self.shape = clock, in_shape
        self.nodes: dict[str, Any] = {"input": {"type": "Input", "shape": np.array(first_shape(in_shape))}}
        self.edges: list[tuple[str, str]] = []
        self.sentences: list[str] = []
        self.end = "input"

    def graph(self, notes: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the whole graph."""
        self.add("output", {"type": "Output", "shape": np.array(first_shape(self.shape))})
        return {"type": "NIRGraph", "nodes": self.nodes, "edges": self.edges, "metadata": _noted(notes)}

    def add(self, name: str, node: dict[str, Any]) -> None:
        """Appends a node to the chain."""
        self.nodes[name] = node
        self.edges.append((self.end, name))
        self.end = name

    def layer(self, name: str, layer: Layer) -> None:
        """Appends pooling, synapse, cell and recurrent wires of one layer."""
        kept: Any = None
        for index, module in enumerate(layer.before):
            match module:
                case Select():
                    kept = np.asarray(module.keep[...])
                case Pool():
                    self.pool(f"{name}_pool{index}", module)
                case _:
                    raise NIRError(
                        f"layer {name!r} begins with {type(module).__name__}, which NIR has not; leave it out."
                    )
        if layer.norm is not None:
            raise NIRError(
                f"layer {name!r} has a {type(layer.norm).__name__}, which no kernel holds and NIR has not; train with "
                "BatchNorm or TdBN."
            )
        match layer.synapse:
            case Dense():
                self.dense(name, layer.synapse, kept)
            case Conv():
                self.conv(name, layer.synapse, kept)
            case other:
                raise NIRError(f"layer {name!r} has the synapse {type(other).__name__}, which NIR has not; use Dense.")
        if layer.reads == "membrane":
            raise NIRError(f"layer {name!r} gives the membrane of a spiking cell, which NIR has not; read its spikes.")
        self.shape = layer.out_shape
        self.add(f"{name}_cell", self.cell(name, layer.cell))
        if layer.recurrent is not None:
            weight = np.asarray(layer.recurrent[...]).T.copy()
            self.nodes[f"{name}_recurrent"] = {"type": "Linear", "weight": weight}
            self.edges += [(f"{name}_cell", f"{name}_recurrent"), (f"{name}_recurrent", f"{name}_cell")]

    def pool(self, name: str, module: Pool) -> None:
        """Appends pooling; the maximum of spikes is written as their sum that exceeds one half."""
        if module.strides != module.window or module.padding != "VALID":
            raise NIRError(f"{name!r} pools cells that overlap or are padded, which is not written; use strides.")
        window, shape = np.array(module.window), first_shape(module.out_shape)
        kind = "SumPool2d" if module.kind == "max" else "AvgPool2d"
        self.add(name, {"type": kind, "kernel_size": window, "stride": window, "padding": np.zeros(2, np.int64)})
        if module.kind == "max":
            self.add(f"{name}_any", {"type": "Threshold", "threshold": np.full(shape, 0.5, np.float32)})
        self.shape = module.out_shape

    def dense(self, name: str, synapse: Dense, kept: Any) -> None:
        """Appends a product, its columns in the order of channels-first inputs and silent where nothing is read."""
        kernel = np.asarray(synapse.kernel[...])
        if kept is not None:
            whole = np.zeros((int(np.prod(self.shape)), kernel.shape[1]), kernel.dtype)
            whole[kept] = kernel
            kernel = whole
        if len(self.shape) > 1:
            order = np.arange(len(kernel)).reshape(self.shape)
            kernel = kernel[np.moveaxis(order, -1, 0).ravel()]
            flat = {"start_dim": 0, "end_dim": -1, "input_type": np.array(first_shape(self.shape))}
            self.add(f"{name}_flatten", {"type": "Flatten", **flat})
        node: dict[str, Any] = {"type": "Linear", "weight": kernel.T.copy()}
        if synapse.bias is not None:
            node |= {"type": "Affine", "bias": np.asarray(synapse.bias[...])}
        self.add(f"{name}_synapse", node)

    def conv(self, name: str, synapse: Conv, kept: Any) -> None:
        """Appends a convolution, its kernel channels-first."""
        kernel = np.moveaxis(np.asarray(synapse.kernel[...]), (3, 2), (0, 1))
        if kept is not None and synapse.groups > 1:
            raise NIRError(f"layer {name!r} groups some of its inputs, which NIR cannot say; keep all of them.")
        if kept is not None:
            whole = np.zeros((len(kernel), self.shape[-1], *kernel.shape[2:]), kernel.dtype)
            whole[:, kept] = kernel
            kernel = whole
        sizes, wide = np.array(self.shape[:2]), (np.array(synapse.window) - 1) * synapse.dilation + 1
        reach = (-(-sizes // synapse.strides) - 1) * synapse.strides + wide - sizes
        spare = np.maximum(reach, 0) * (synapse.padding == "SAME")
        if not isinstance(synapse.padding, str):
            if any(low != high for low, high in synapse.padding):
                raise NIRError(f"layer {name!r} pads {synapse.padding} unevenly, which NIR cannot say.")
            spare = np.array([low + high for low, high in synapse.padding])
        if (spare % 2).any() and max(synapse.strides) > 1:
            raise NIRError(f"layer {name!r} pads {spare} pixels unevenly, which NIR cannot say; use an odd window.")
        bias = np.zeros(len(kernel), np.float32) if synapse.bias is None else np.asarray(synapse.bias[...])
        node = {
            "type": "Conv2d",
            "input_shape": sizes,
            "weight": np.ascontiguousarray(kernel),
            "stride": np.array(synapse.strides),
            "padding": "same" if (spare % 2).any() else spare // 2,
            "dilation": np.array(synapse.dilation, np.int64),
            "groups": synapse.groups,
            "bias": bias,
        }
        self.add(f"{name}_synapse", node)

    def cell(self, name: str, cell: Any) -> dict[str, Any]:
        """Returns the node of a cell."""
        if type(cell) not in (LI, LIF, CuBaLIF):
            raise NIRError(
                f"layer {name!r} has a {type(cell).__name__} cell, which NIR has not; LI, LIF and CuBaLIF are."
            )
        beta = _single(_decay(cell, "beta"))
        k, node = _scale(cell), dict[str, Any]()
        one = bool((beta == 1).all())
        if not one and (beta == 1).any():
            raise NIRError(f"beta of layer {name!r} must be 1 for all neurons or for none, got a mixture.")
        if one:
            node = {"type": "I" if isinstance(cell, LI) else "IF", "r": _narrow(k / self.clock.dt, k, self.clock.dt)}
            if isinstance(cell, CuBaLIF) or np.any(np.asarray(value(getattr(cell, "rest", 0.0)))):
                raise NIRError(
                    f"layer {name!r} does not leak (beta = 1), which NIR has only for IF at rest 0; use 0.999."
                )
        else:
            cuba = isinstance(cell, CuBaLIF)
            tau, decay = self.tau(name, beta)
            node = {
                "type": "CubaLIF" if cuba else type(cell).__name__,
                "tau_mem" if cuba else "tau": tau,
                "r": _narrow(k / (1 - decay), k, 1 - decay),
                "v_leak": np.asarray(value(getattr(cell, "rest", 0.0)), np.float32),
            }
            if isinstance(cell, CuBaLIF):
                slow = _single(_decay(cell, "alpha"))
                if (slow == 1).any():
                    raise NIRError(
                        f"the synapse of layer {name!r} does not leak (alpha = 1), which NIR has not; use 0.999."
                    )
                node["tau_syn"], slow = self.tau(name, slow)
                node["w_in"] = _narrow(1 / (1 - slow), np.ones(()), 1 - slow)
        notes: dict[str, Any] = {}
        if not isinstance(cell, LI):
            node["v_threshold"] = np.asarray(value(cell.threshold), np.float32)
            node["v_reset"] = np.asarray(0.0 if isinstance(cell.reset, str) else value(cell.reset), np.float32)
            notes = self.notes(name, cell)
        filled = {key: field if key == "type" else _filled(field, self.shape) for key, field in node.items()}
        return filled | ({"metadata": _noted(notes)} if notes else {})

    def tau(self, name: str, decay: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the time constant in seconds that gives a decay, and the decay that it gives, in double precision."""
        if self.clock.method == "exp" and (decay == 0).any():
            raise NIRError(f'layer {name!r} forgets at once (decay 0), which method="exp" cannot say; use "euler".')
        dt = self.clock.dt
        tau = np.asarray(dt / (1 - decay) if self.clock.method == "euler" else -dt / np.log(decay))
        for dtype in (np.float32, np.float64):
            kept = tau.astype(dtype)
            wide = kept.astype(np.float64)
            given = np.maximum(1 - dt / wide, 0) if self.clock.method == "euler" else np.exp(-dt / wide)
            if np.array_equal(given.astype(np.float32), decay.astype(np.float32)):
                break
        return kept, np.asarray(given)

    def notes(self, name: str, cell: Any) -> dict[str, Any]:
        """Returns what NIR has no field for, and says so."""
        notes: dict[str, Any] = {}
        if cell.reset in ("subtract", "none"):
            notes["reset"] = cell.reset
            does = "is reset by subtraction" if cell.reset == "subtract" else "is not reset"
            self.sentences.append(f"{name}: the membrane {does}, which NIR cannot say; other readers reset it to 0.")
        if cell.reset_timing == "next":
            notes["reset_timing"] = "next"
            self.sentences.append(f"{name}: the reset comes a step late, which NIR cannot say.")
        if cell.compare != ">":
            notes["compare"] = cell.compare
            self.sentences.append(f"{name}: a membrane at the threshold spikes; NIR says above the threshold.")
        if cell.refractory:
            notes["refractory"] = 1e3 * self.clock.dt * cell.refractory
            self.sentences.append(f"{name}: the refractory time of {notes['refractory']:g} ms is left out.")
        if cell.detach_reset:
            notes["detach_reset"] = True
        if isinstance(cell.noise, (Logistic, Gaussian)) and np.ndim(value(cell.noise.width)) == 0:
            notes["noise"] = {"kind": type(cell.noise).__name__, "width": float(value(cell.noise.width))}
        if cell.noise is not None:
            kind = type(cell.noise).__name__
            self.sentences.append(f"{name}: the {kind} noise is left out; other readers fire at its median.")
        if cell.surrogate is not None:
            notes["surrogate"] = [cell.surrogate.name, dict(cell.surrogate.parameters)]
        return notes


def _decay(cell: Any, name: str) -> np.ndarray:
    from dsnn.cells.decay import per_step

    return np.asarray(per_step(cell, name, "tau" if name == "beta" else "tau_syn"), np.float64)


def _single(decay: np.ndarray) -> np.ndarray:
    """Returns a decay with the value that it has in single precision, where neurons run."""
    return decay.astype(np.float32).astype(np.float64) if decay.ndim else decay


def _scale(cell: Any) -> np.ndarray:
    match cell.input_scale:
        case "one":
            return np.ones(())
        case "decay":
            return np.asarray(1 - _decay(cell, "beta"))
        case "dt_over_tau":
            return np.asarray(cell.dt / np.asarray(value(cell.tau), np.float64))
    return np.asarray(value(cell.input_scale), np.float64)


def _narrow(number: Any, product: Any, factor: Any) -> np.ndarray:
    """Returns a number in single precision if it still gives ``product`` times ``factor`` there, else in double."""
    for dtype in (np.float32, np.float64):
        kept = np.asarray(number).astype(dtype)
        if np.array_equal(
            (kept.astype(np.float64) * factor).astype(np.float32), np.float32(product) + 0 * kept.astype(np.float32)
        ):
            break
    return kept


def _filled(field: np.ndarray, shape: Shape) -> np.ndarray:
    """Returns a number or an array over the last axes at full size, channels first."""
    whole = np.broadcast_to(np.asarray(field), shape)
    return np.ascontiguousarray(np.moveaxis(whole, -1, 0))
