"""Times event-driven products against dense ones: ``python scripts/benchmark_events.py [--json FILE]``.

For each size of a layer, number of rows and fraction of nonzero inputs: how many times as fast the event-driven
product is, forward (x W) and for the weight gradient (x^T G), and `dsnn.native.products.product`, which chooses at run
time. Medians, each waited for, dense and sparse in turn.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from benchmark_ours import machine
from benchmark_turns import measure

import dsnn
from dsnn.native import products

SIZES = ((128, 128), (512, 20), (512, 512), (700, 512), (784, 300), (2048, 32), (2048, 2048))
ROWS = (1, 16, 128, 2048)
DENSITIES = (0.01, 0.03, 0.1, 0.2, 0.4)


def time_products(inputs: int, neurons: int, rows: int, repeats: int) -> dict[str, float]:
    """Returns seconds of every product by name, such as ``forward dense`` and ``weight 0.1``."""
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.standard_normal((inputs, neurons), np.float32))
    grad = jnp.asarray(rng.standard_normal((rows, neurons), np.float32))

    def spikes(density: float) -> jax.Array:
        return jnp.asarray(rng.random((rows, inputs), np.float32) < density, jnp.float32)

    def action(function: Callable, *operands: Any) -> Callable[[], Any]:
        compiled = jax.jit(function)
        return lambda: jax.block_until_ready(compiled(*operands))

    def both(x: jax.Array, weights: jax.Array, grad: jax.Array) -> Any:
        return jax.vjp(lambda w: products.drive(x, w), weights)[1](grad)[0]

    def chosen_weight(x: jax.Array, weights: jax.Array, grad: jax.Array) -> Any:
        return jax.vjp(lambda w: products.product(x, w), weights)[1](grad)[0]

    x = spikes(0.1)
    actions = {
        "forward dense": action(lambda x, w: x @ w, x, weights),
        "weight dense": action(lambda x, g: x.T @ g, x, grad),
    }
    for density in DENSITIES:
        x = spikes(density)
        actions[f"forward {density}"] = action(products.drive, x, weights)
        actions[f"weight {density}"] = action(both, x, weights, grad)
        actions[f"forward chosen {density}"] = action(products.product, x, weights)
        actions[f"weight chosen {density}"] = action(chosen_weight, x, weights, grad)
    return {name: timed["median_s"] for name, timed in measure(actions, repeats).items()}


def main(arguments: list[str] | None = None) -> int:
    """Prints a table; returns 1 where event-driven products are not available."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write everything that was measured")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(arguments)
    if (reason := products.problem()) is not None:
        print(f"event-driven products are not available, since {reason}.", file=sys.stderr)
        return 1
    dsnn.keep_memory()
    table: dict[str, Any] = {"machine": machine("cpu"), "break_even": products.BREAK_EVEN, "results": []}
    heads = [f"{part} {density:g}" for part in ("forward", "weight") for density in DENSITIES]
    print(f"dense / event-driven, and in brackets dense / chosen at run time; {table['machine']}\n")
    print("| layer | rows | " + " | ".join(heads) + " |\n|" + "---|" * (len(heads) + 2))
    for inputs, neurons in SIZES:
        for rows in ROWS:
            seconds = time_products(inputs, neurons, rows, options.repeats)
            table["results"].append({"inputs": inputs, "neurons": neurons, "rows": rows, "seconds": seconds})
            cells = []
            for part in ("forward", "weight"):
                dense = seconds[f"{part} dense"]
                for density in DENSITIES:
                    sparse, chosen = seconds[f"{part} {density}"], seconds[f"{part} chosen {density}"]
                    cells.append(f"{dense / sparse:.1f} ({dense / chosen:.1f})")
            print(f"| {inputs} x {neurons} | {rows} | " + " | ".join(cells) + " |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
