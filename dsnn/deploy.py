"""The network that is put to use: posterior means, decided gates, physically smaller, stopping early, and timed.

Three things are told apart: what the mask says (training), what the compiled program saves (measured here in wall
time), and what a hardware profile would save (`dsnn.energy`).
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsnn.anytime import Decision, Rule, anytime
from dsnn.bayes import halting
from dsnn.bayes.lift import Lifted
from dsnn.compact import compact
from dsnn.models import Stack
from dsnn.parameters import Params
from dsnn.types import Array
from dsnn.unroll import unroll

FRACTION_BITS = 12


class Deployed(NamedTuple):
    """A decided network.

    Attributes:
        full: parameters of the ungated network.
        masked: parameters of the gated network at full size.
        gates: decided gates by group, empty without gates.
        small: the compacted network.
        run: compiled ``inputs -> Decision`` of the compacted network with early stopping.
    """

    full: Params
    masked: Params
    gates: dict[str, Array]
    small: Stack
    run: Callable[[Array], Decision]


def deploy(lifted: Lifted, params: dict[str, Array], quantile: float = 0.5) -> Deployed:
    """Returns the decided network of a guide's parameters.

    Kernels and biases are rounded to multiples of 2^-12, so that sums of spiking inputs are exact in any order and the
    compacted network fires exactly the spikes of the masked one.
    """
    draw = lifted.centre(params)
    full, masked = on_grid(draw.weights), on_grid(lifted.network(draw))
    gates = draw.gates or {}
    open_gates = {name: (z > 0).astype(jnp.float32) for name, z in gates.items()}
    small = compact(lifted.forward.template.build(masked), open_gates)
    head = None if lifted.feature is None else lifted.head(params)
    rule = never() if head is None else halting.rule(head, lifted.feature or "margin", quantile)
    run = jax.jit(anytime(small, rule, lifted.forward.steps, held=lifted.forward.held))
    return Deployed(full, masked, gates, small, run)


def on_grid(params: Params, bits: int = FRACTION_BITS) -> Params:
    """Returns kernels and biases rounded to multiples of 2^-bits; other parameters as they are."""
    grid = 2.0**bits
    return {
        name: jnp.round(value * grid) / grid if name.endswith(("kernel", "bias", "recurrent")) else value
        for name, value in params.items()
    }


def never() -> Rule:
    """Returns the rule that runs every step."""
    return Rule(lambda batch: jnp.zeros(batch), lambda state, logits, step: (state, jnp.zeros(len(state), bool)))


class Timing(NamedTuple):
    """Medians in milliseconds per batch, and their ratio."""

    full_ms: float
    deployed_ms: float
    speedup: float


def speed(lifted: Lifted, deployed: Deployed, inputs: Array, repeats: int = 21) -> Timing:
    """Returns the wall time of the full network over all steps against the deployed one, alternating, same batch."""
    model, steps = lifted.forward.template.build(deployed.full), lifted.forward.steps
    full = jax.jit(anytime(model, never(), steps, held=lifted.forward.held))
    layered = jax.jit(lambda x: _logits(lifted, deployed.full, x))
    runs: tuple[Callable[[Array], Any], ...] = (full, layered, deployed.run)
    times: list[list[float]] = [[], [], []]
    for repeat in range(repeats + 1):
        for log, run in zip(times, runs, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(run(inputs))
            if repeat:
                log.append(1e3 * (time.perf_counter() - start))
    # the full network is given its faster schedule
    full_ms = min(statistics.median(times[0]), statistics.median(times[1]))
    deployed_ms = statistics.median(times[2])
    return Timing(full_ms, deployed_ms, full_ms / deployed_ms)


def compaction_error(lifted: Lifted, deployed: Deployed, inputs: Array) -> float:
    """Returns the largest difference between the logits of the masked and the compacted network at any step."""
    masked = _logits(lifted, deployed.masked, inputs)
    small = _run(deployed.small, lifted, inputs)
    return float(np.abs(np.asarray(masked) - np.asarray(small)).max())


def _logits(lifted: Lifted, params: Params, inputs: Array) -> Any:
    return _run(lifted.forward.template.build(params), lifted, inputs)


def _run(model: Stack, lifted: Lifted, inputs: Array) -> Any:
    forward = lifted.forward
    outputs, _, _ = unroll(model, inputs, schedule=forward.schedule, steps=forward.steps if forward.held else None)
    return model.logits(outputs)
