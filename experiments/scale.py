"""What a step of learning takes of each device: ``python -m experiments.scale [option=value ...] [epochs=2]``.

Prints a row of `experiments/studies/scale.md`: memory as XLA plans it for a device, what devices send each other, and
the wall time of a step. Options are those of ``dsnn run``; in many processes each runs the same command.
"""

import re
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.learn import mesh
from dsnn.run import job, machine, population, schema

EPOCHS = "epochs="
SENDS = re.compile(r" = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
SHAPE = re.compile(r"\b(pred|[fsu]\d+|bf16)\[([\d,]*)\]")


def main() -> int:
    """Compiles the epoch of a configuration, runs it, and prints what it took."""
    words = [word for word in sys.argv[1:] if not word.startswith(EPOCHS)]
    epochs = next((int(word.removeprefix(EPOCHS)) for word in sys.argv[1:] if word.startswith(EPOCHS)), 2)
    config = schema.compose(words)
    machine.prepare(config)
    setup = job.build(config)
    together = population.together([setup], setup.spread)
    state = together.init()
    spread = setup.spread or mesh.Spread(jax.make_mesh((1,), ("data",)))
    held = spread.held(state)
    arguments = (together.settings, state, together.arrays, jnp.asarray(0))
    compiled = together.run.jitted.lower(*arguments).compile()  # type: ignore[attr-defined]
    planned: Any = compiled.memory_analysis()
    sent = sent_bytes(compiled.as_text())
    seconds = []
    for epoch in range(epochs):
        began = time.perf_counter()
        state, info = compiled(together.settings, state, together.arrays, jnp.asarray(epoch))
        losses = np.asarray(jax.device_get(together.of(info.loss, 0)))
        seconds.append((time.perf_counter() - began) / len(losses))
    if mesh.leads():
        parts = {
            "state of all, MB": held.all,
            "state of each, MB": held.each,
            "arguments of each, MB": planned.argument_size_in_bytes,
            "work space of each, MB": planned.temp_size_in_bytes,
            **{f"{name} a step, MB": size for name, size in sorted(sent.items())},
        }
        print(f"devices {jax.device_count()}, processes {jax.process_count()}, split {config.compute.split}")
        for name, size in parts.items():
            print(f"{name}: {size / 1e6:.3f}")
        print(f"a step, ms: {1e3 * min(seconds):.1f}; loss {losses[-1]:.5f}")
    return 0


def sent_bytes(program: str) -> dict[str, int]:
    """Returns the bytes of what a compiled program's collectives give, by kind; what a loop repeats counts once."""
    found: dict[str, int] = {}
    for line in program.splitlines():
        if match := SENDS.search(line):
            size = sum(_bytes(kind, shape) for kind, shape in SHAPE.findall(match[1]))
            found[match[2]] = found.get(match[2], 0) + size
    return found


def _bytes(kind: str, shape: str) -> int:
    entries = int(np.prod([int(n) for n in shape.split(",") if n], initial=1))
    return entries * (1 if kind == "pred" else 2 if kind == "bf16" else int(kind[1:]) // 8)


if __name__ == "__main__":
    sys.exit(main())
