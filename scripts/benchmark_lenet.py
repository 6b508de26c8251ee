"""Times a convolutional network against its compacted form: the 20-50-500 LeNet and what L0 regularisation left of it.

    python scripts/benchmark_lenet.py [--json FILE] [--repeats 30]

The whole has 20 and 50 channels and 500 neurons, the compacted one 9 and 18 channels, 65 places of the map that is read
and 25 neurons (Louizos et al. 2018). Both run all four steps on the same held images in every form that we have, in
turn: as one loop over steps, layer by layer, and in the fused program (`dsnn.deploy.fused_inference`), which is what
ships. Each network is given its fastest form at each batch size. Weights are drawn and sites are closed at random; the
spike rates are printed. Of a finished run, ``dsnn speed run=DIR`` measures the same. Images are MNIST's test images
where `DSNN_DATA` has them, else drawn with as many pixels that are not zero.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import dsnn
from dsnn import data, parameters
from dsnn.cells import LIF
from dsnn.deploy import fused_inference
from dsnn.deploy.decided import never, on_grid
from dsnn.networks.compact import compact
from dsnn.networks.stack import Stack, convnet
from dsnn.simulate.early_exit import anytime

STEPS, COUNT = 4, 256
WHOLE = {"channels": (20, 50), "hidden": (500,)}
KEPT = {"conv0": 9, "conv1": 18, "features": 65, "hidden0": 25}
CALLS = {1: 256, 256: 8}


def networks(seed: int) -> dict[str, Stack]:
    """Returns the whole network and the compacted one; kernels lie on a grid, as all decided networks' do."""
    key, rng = jax.random.key(seed), np.random.default_rng(seed)
    model = convnet((28, 28, 1), **WHOLE, classes=10, key=key, gain=3.0, cell=lambda n: LIF(beta=0.9))
    template, params = parameters.split(model)
    whole = template.build(on_grid(params))
    gates = {}
    for name, sites in (("conv0", 20), ("conv1", 50), ("hidden0", 500)):
        gates[name] = np.isin(np.arange(sites), rng.permutation(sites)[: KEPT[name]])
    places = np.flatnonzero(np.tile(gates["conv1"], 16))  # of channels that stay
    gates["features"] = np.isin(np.arange(800), rng.permutation(places)[: KEPT["features"]])
    small = compact(whole, {name: jnp.asarray(gate, jnp.float32) for name, gate in gates.items()})
    return {"whole": whole, "compacted": small}


def images(seed: int) -> tuple[np.ndarray, str]:
    """Returns images in [0, 1] and where they are from."""
    if os.environ.get("DSNN_DATA"):
        try:
            return np.asarray(data.load("mnist").test.x[:COUNT], np.float32).reshape(-1, 28, 28, 1), "mnist"
        except (data.DataError, FileNotFoundError):
            pass
    rng = np.random.default_rng(seed)
    drawn = rng.random((COUNT, 28, 28, 1)) * (rng.random((COUNT, 28, 28, 1)) < 0.19)
    return drawn.astype(np.float32), "drawn"


def forms(model: Stack) -> dict[str, Callable[[Any], Any]]:
    """Returns the programs of a network; each gives the logits after the last step."""
    found: dict[str, Callable[[Any], Any]] = {
        "one loop": jax.jit(anytime(model, never(), STEPS)),
        "by layers": jax.jit(lambda x: model.logits(dsnn.unroll(model, x, steps=STEPS, schedule="layer")[0])[-1]),
    }
    if fused_inference.supports(model):
        packed = fused_inference.packed(model, STEPS)
        found["fused"] = lambda x: fused_inference.decision(packed, x).logits
    return found


def timed(programs: dict[str, dict[str, Callable]], x: np.ndarray, batch: int, repeats: int) -> dict[str, Any]:
    """Returns microseconds per example, medians over turns, of every form of every network, and the ratio."""
    pieces = [jnp.asarray(x[i * batch : (i + 1) * batch]) for i in range(max(1, len(x) // batch))]
    pieces = (pieces * CALLS[batch])[: CALLS[batch]]
    seconds: dict[tuple[str, str], list[float]] = {(n, f): [] for n, own in programs.items() for f in own}
    for repeat in range(repeats + 1):
        for (name, form), log in seconds.items():
            began = time.perf_counter()
            for piece in pieces:
                jax.block_until_ready(programs[name][form](piece))
            if repeat:
                log.append(time.perf_counter() - began)
    examples = batch * len(pieces)
    us = {
        name: {f: 1e6 * statistics.median(seconds[name, f]) / examples for f in own} for name, own in programs.items()
    }
    best = {name: min(own, key=own.__getitem__) for name, own in us.items()}
    pairs = zip(seconds["whole", best["whole"]], seconds["compacted", best["compacted"]], strict=True)
    return {"us_per_example": us, "best": best, "ratio": statistics.median(a / b for a, b in pairs)}


def main() -> None:
    """Prints a table and the ratio at each batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    dsnn.keep_memory()
    models = networks(given.seed)
    x, source = images(given.seed)
    rates = {}
    for name, model in models.items():
        spikes = dsnn.unroll(model, jnp.asarray(x), steps=STEPS, record=lambda _, spikes: spikes)[2]
        rates[name] = {layer: float(s.mean()) for layer, s in spikes.items() if layer != "readout"}
    table: dict[str, Any] = {"images": source, "steps": STEPS, "spike_rates": rates}
    programs = {name: forms(model) for name, model in models.items()}
    print(f"images: {source}; spikes a neuron and step: {rates}")
    for batch in CALLS:
        found = table[f"batch {batch}"] = timed(programs, x, batch, given.repeats)
        for name, own in found["us_per_example"].items():
            print(f"batch {batch:3d} {name:9s}", ", ".join(f"{form} {us:.1f} us" for form, us in own.items()))
        print(f"batch {batch:3d} compacted {found['ratio']:.2f} x as fast ({found['best']})")
    if given.json:
        given.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
