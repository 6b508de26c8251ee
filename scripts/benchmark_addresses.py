"""Wall time of address events against dense products: ``python scripts/benchmark_addresses.py [--batch 256]``.

One layer of N inputs and M neurons, data as sparse as MNIST's pixels: a dense product, and for each number of draws K
the whole of it (drawing included) and the gathers alone; medians of alternating repetitions in one process.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax

import dsnn
from dsnn.native import products
from dsnn.simulate import encode


def timed(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    log: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            jax.block_until_ready(run())
            if repeat:
                log[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(values) for name, values in log.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--shapes", default="784x1200,1200x1200,40000x256")
    parser.add_argument("--draws", default="16,32,64,128,256,512")
    parser.add_argument("--density", type=float, default=0.19)
    parser.add_argument("--repeats", type=int, default=31)
    options = parser.parse_args()
    dsnn.keep_memory()
    found = []
    for shape in options.shapes.split(","):
        inputs, neurons = map(int, shape.split("x"))
        one, two, three = jax.random.split(jax.random.key(0), 3)
        x = jax.random.uniform(one, (options.batch, inputs))
        x = x * (jax.random.uniform(two, x.shape) < options.density)
        weights = jax.random.normal(three, (inputs, neurons))
        dense = jax.jit(lambda x, w: x @ w)
        runs: dict[str, Callable[[], Any]] = {"dense": lambda d=dense, x=x, w=weights: d(x, w)}
        for draws in map(int, options.draws.split(",")):
            drawn = encode.address_events(x, draws, one, sampling="spread")
            gather = jax.jit(lambda i, v, w: products.gather(i, v, w))
            whole = jax.jit(
                lambda x, w, k, n=draws: products.gather(*encode.address_events(x, n, k, sampling="spread"), w)
            )
            runs[f"gather {draws}"] = lambda g=gather, e=drawn, w=weights: g(*e, w)
            runs[f"draw and gather {draws}"] = lambda g=whole, x=x, w=weights, k=one: g(x, w, k)
        times = timed(runs, options.repeats)
        row = {"shape": shape, "batch": options.batch, "compiled": products.problem() is None, "ms": times}
        found.append(row)
        print(f"{shape}, batch {options.batch}: dense {times['dense']:.2f} ms")
        for draws in map(int, options.draws.split(",")):
            alone, both = times[f"gather {draws}"], times[f"draw and gather {draws}"]
            print(f"  K = {draws:4d}: gather {alone:8.2f} ms ({times['dense'] / alone:6.2f} x), "
                  f"with drawing {both:8.2f} ms ({times['dense'] / both:6.2f} x)")  # fmt: skip
    print(json.dumps(found))


if __name__ == "__main__":
    main()
