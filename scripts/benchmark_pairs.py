"""Training steps of two checkouts, in pairs: W1 and W3 of `benchmark`, epochs of digits and of a convolutional net.

    python scripts/benchmark_pairs.py OLD NEW [--json FILE] [--pairs 20]

OLD and NEW are folders of checkouts, run by this interpreter in a process each that stays; the two of a pair run one
after the other, and take turns in being first. The ratio is the median of the pairs' ratios;
its 95 % interval is that of a median by ranks.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

from scipy.stats import binom

CHILD = r"""
import dataclasses, sys, time
tree = sys.argv[1]
sys.path[:0] = [tree, f"{tree}/scripts"]
import jax, jax.numpy as jnp
import benchmark, benchmark_ours, dsnn
assert dsnn.__file__.startswith(tree), dsnn.__file__
dsnn.keep_memory()
try:
    from dsnn import learn
except ImportError:  # an older checkout
    from dsnn import train as learn
try:
    from dsnn.assembly.assemble import build
except ImportError:
    from dsnn.assemble import build
try:
    from dsnn.run import schema
except ImportError:
    from experiments import schema

def timed(call):
    began = time.perf_counter()
    jax.block_until_ready(jax.tree.leaves(call()))
    return time.perf_counter() - began

actions = {}
for name in ("W1", "W3"):
    workload = benchmark.WORKLOADS[name]
    data, spec = benchmark.arrays(workload, 0), {**dataclasses.asdict(workload), "dtype": "float32"}
    *_, step, state = benchmark_ours.programs(spec, data, benchmark_ours.parse_variant("dsnn"))
    given = state, jnp.asarray(data["x"], jnp.float32), jnp.asarray(data["y"]), jax.random.key(0)
    actions[name] = lambda step=jax.jit(step), given=given: timed(lambda: step(*given))
def learning(*options):
    setup = build(schema.compose(["seed=0", *options]))
    epoch = learn.compiled(learn.epoch_program(setup.family, setup.config.train.batch_size))
    begin = jax.jit(lambda settings: setup.family(settings).init())
    batch = learn.Batch(jnp.asarray(setup.split.train.x), jnp.asarray(setup.split.train.y))

    def run():
        state = begin(setup.settings)
        jax.block_until_ready(jax.tree.leaves(state))
        return timed(lambda: epoch(setup.settings, state, batch, jnp.asarray(0)))

    return run

actions["digits"] = learning()
try:  # four batches of the published files, where they are
    actions["conv"] = learning("experiment=mnist_conv_structure", "data.limit=512", "train.batch_size=128")
except FileNotFoundError as missing:
    print(missing, file=sys.stderr)
for action in actions.values():
    for _ in range(3):
        action()
print("ready", flush=True)
for line in sys.stdin:
    name = line.strip()
    print(actions[name]() if name in actions else "nan", flush=True)
"""
WORKLOADS = ("W1", "W3", "digits", "conv")


def started(tree: str) -> Any:
    """Returns the process of a checkout, once its programs are compiled."""
    command = [sys.executable, "-P", "-c", CHILD, str(Path(tree).resolve())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    while (said := process.stdout.readline()).strip() != "ready":  # type: ignore[union-attr]
        if not said:
            raise SystemExit(f"{tree} could not be measured, see above.")
    return process


def asked(process: Any, name: str) -> float:
    """Returns the seconds that a process takes for a workload."""
    told: IO[str] = process.stdin
    told.write(f"{name}\n")
    told.flush()
    return float(process.stdout.readline())


def main() -> None:
    """Prints a row a workload, and writes every pair where it is asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--pairs", type=int, default=20)
    given = parser.parse_args()
    processes = [started(given.old), started(given.new)]
    found = {}
    for name in WORKLOADS:
        pairs = []
        for turn in range(given.pairs):
            order = (0, 1) if turn % 2 == 0 else (1, 0)
            seconds = {which: asked(processes[which], name) for which in order}
            pairs.append((1e3 * seconds[0], 1e3 * seconds[1]))
        ratios = sorted(new / old for old, new in pairs)
        low = max(int(binom.ppf(0.025, given.pairs, 0.5)) - 1, 0)
        found[name] = {
            "old_ms": statistics.median(old for old, _ in pairs),
            "new_ms": statistics.median(new for _, new in pairs),
            "ratio": statistics.median(ratios),
            "low": ratios[low],
            "high": ratios[-1 - low],
            "pairs": pairs,
        }
        print(name, {key: round(value, 4) for key, value in found[name].items() if key != "pairs"}, flush=True)
    for process in processes:
        process.kill()
    if given.json:
        given.json.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
