"""Updates under the objectives that price spikes, beside the one that does not: frozen, differentiated, rate penalty.

    python scripts/benchmark_objective.py experiment=digits [--repeats 20] [--json FILE] [option=value ...]

A repeat is ten updates on one batch; the objectives take turns. Seconds of all threads are given too, which is what can
be compared where other processes use the machine.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import benchmark_turns
import jax
import jax.numpy as jnp

import dsnn
from dsnn.assembly.assemble import build
from dsnn.protocols import Batch
from dsnn.run import schema

UPDATES = 10
OBJECTIVES = {
    "frozen": ["energy.events=frozen"],
    "differentiated": ["energy.events=differentiated"],
    "rate penalty": ["energy.events=frozen", "svi.rate_penalty=0.001"],
}


def updates(options: list[str]) -> Callable[[], Any]:
    """Returns ten updates of a configuration, as one call that returns when they are done."""
    setup = build(schema.compose(["seed=0", *options]))
    learner, train = setup.family(setup.settings), setup.split.train
    size = setup.config.train.batch_size
    batch = Batch(jnp.asarray(train.x[:size]), jnp.asarray(train.y[:size]))
    begun = jax.jit(learner.init)()
    run = jax.jit(lambda state: jax.lax.fori_loop(0, UPDATES, lambda _, now: learner.step(now, batch)[0], state))
    return lambda: jax.block_until_ready(run(begun))


def main() -> None:
    """Prints milliseconds of an update, wall and of all threads, and their ratios to frozen events."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("options", nargs="*", help="of the run, as on dsnn's command line")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    dsnn.keep_memory()
    actions = {name: updates([*given.options, *more]) for name, more in OBJECTIVES.items()}
    found = benchmark_turns.measure(actions, given.repeats)
    for name, row in found.items():
        wall, threads = (1e3 * row[key] / UPDATES for key in ("median_s", "cpu_s"))
        ratio = row["cpu_s"] / found["frozen"]["cpu_s"]
        print(f"{name:16s} {wall:8.2f} ms an update, {threads:8.2f} ms of all threads, {ratio:.3f} of frozen")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
