"""What a network says of itself when it is printed: layers, shapes, cells, parameters and products."""

import math
from collections.abc import Iterable
from typing import Any

import jax
from flax import nnx


def described(layers: Iterable[tuple[str, Any]], readout: str) -> str:
    """Returns a table of named layers: synapse, output, cell, parameters, and products that one dense step would cost.

    Args:
        layers: (name, layer), first to last.
        readout: how the outputs become logits.
    """
    rows: list[tuple[str, ...]] = [("layer", "synapse", "output", "cell", "parameters", "products a step")]
    total = cost = 0
    shape: tuple[int, ...] = ()
    for name, layer in layers:
        shape = shape or layer.in_shape
        count = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layer, nnx.Param)))
        places = math.prod(layer.out_shape[:-1])
        kernel = getattr(layer.synapse, "kernel", None)  # pooling and neurons that stand alone have none
        products = 0 if kernel is None else math.prod(kernel.shape) * places
        products += 0 if layer.recurrent is None else layer.out_shape[0] ** 2
        synapse = type(layer.synapse).__name__ + ("" if layer.norm is None else f", {type(layer.norm).__name__}")
        synapse += "" if layer.recurrent is None else ", recurrent"
        rows.append((name, synapse, _shown(layer.out_shape), type(layer.cell).__name__, f"{count}", f"{products}"))
        total, cost = total + count, cost + products
    rows.append((f"input {_shown(shape)}", "", "", f"readout {readout}" if readout else "", f"{total}", f"{cost}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _shown(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
