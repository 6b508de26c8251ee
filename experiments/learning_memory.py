"""What a learning step keeps in memory as sequences grow: ``python -m experiments.learning_memory [steps ...]``.

Compiles the training step of a 4-36-6 adaptive network, batch 64, under backpropagation through time, the same with
checkpoints at every sqrt(T)-th step, and forward propagation through time, and prints the bytes of working memory that
the compiler reports, without running anything.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dsnn import cells, parameters, unroll
from dsnn.bayes.likelihood import Stepwise
from dsnn.learn.gradients import FPTT, fptt
from dsnn.networks.layers import Dense, Layer
from dsnn.networks.stack import Stack
from dsnn.run.console import console

BATCH, CHANNELS, CLASSES = 64, 4, 6
LEARNERS: dict[str, dict[str, Any]] = {
    "BPTT": {},
    "BPTT, checkpoints": {"memory": "sqrt"},
    "FPTT, window 1": {"window": 1},
    "FPTT, window 50": {"window": 50},
}


def working_bytes(steps: int, *, window: int = 0, memory: str = "full") -> int:
    """Returns the bytes of temporary memory of one compiled training step; sequences and labels are not counted.

    Args:
        steps: length of the sequences.
        window: of forward propagation through time; 0 is backpropagation.
        memory: what backpropagation keeps, see `dsnn.unroll`.
    """
    feed, back, read = jax.random.split(jax.random.key(0), 3)
    cell = cells.LIF(tau=20.0, threshold=0.01, reset_timing="next", input_scale="decay", surrogate="multi_gaussian")
    hidden = Layer(Dense(CHANNELS, 36, key=feed), cell, recurrent_key=back)
    readout = Layer(Dense(36, CLASSES, key=read), cells.LI(tau=20.0, input_scale="decay"))
    template, params = parameters.split(Stack("last", hidden=hidden, readout=readout))
    xs, y = jax.ShapeDtypeStruct((steps, BATCH, CHANNELS), jnp.float32), jax.ShapeDtypeStruct((steps, BATCH), jnp.int32)
    observed, tx = Stepwise(), optax.adam(0.01)

    def loss(outputs: Any, t: Any, y: Any) -> Any:
        return -observed.log_prob({}, outputs, y[t])

    def update(params: Any, state: Any, xs: Any, y: Any) -> Any:
        def total(params: Any) -> Any:
            outputs = unroll(template.build(params), xs, schedule="step", memory=memory)[0]
            return -observed.of_sequence({}, outputs, y.T).mean()

        grads = jax.grad(total)(params)
        changes, state = tx.update(grads, state, params)
        return optax.apply_updates(params, changes), state

    if window:
        init, step = fptt(template.build, loss, tx, FPTT(window))
        compiled = jax.jit(step).lower(jax.eval_shape(init, params), xs, y).compile()
    else:
        compiled = jax.jit(update).lower(params, jax.eval_shape(tx.init, params), xs, y).compile()
    analysis: Any = compiled.memory_analysis()
    return int(analysis.temp_size_in_bytes)


def main(arguments: list[str] | None = None) -> int:
    """Prints the table."""
    lengths = [int(a) for a in (sys.argv[1:] if arguments is None else arguments)] or [250, 1000, 4000]
    console.print("| learning rule | " + " | ".join(f"T = {steps}" for steps in lengths) + " |", markup=False)
    console.print("|---|" + "---|" * len(lengths))
    for name, options in LEARNERS.items():
        sizes = [f"{working_bytes(steps, **options) / 2**20:.2f} MiB" for steps in lengths]
        console.print(f"| {name} | " + " | ".join(sizes) + " |", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
