"""The network that is put to use: posterior means, decided gates, physically smaller, stopping early, and timed.

Three things are told apart: what the mask says (training), what the compiled program saves (measured here in wall
time), and what a hardware profile would save (`dsnn.energy`).
"""

import functools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.bayes import halting, norm_statistics
from dsnn.bayes.bayesian import Bayesian
from dsnn.bayes.objective import Draw
from dsnn.bayes.sites import TIME
from dsnn.data import require_finite
from dsnn.deploy import fused_inference
from dsnn.deploy.fixed_point import FixedFormats, in_fixed_point
from dsnn.native.programs import Program, quickly
from dsnn.networks.compact import compact, kept
from dsnn.networks.whole import Runnable, is_weight
from dsnn.parameters import Params
from dsnn.rng import stream
from dsnn.simulate.early_exit import Clock, Decision, Rule, anytime
from dsnn.simulate.simulator import Simulator, keep_spikes
from dsnn.simulate.unroll import unroll
from dsnn.tasks.batching import first_batch, in_batches
from dsnn.types import Array, Float, Key

FRACTION_BITS = 12
VECTOR = 16
"""Widths of the network that runs are rounded up to a multiple of it: single-precision numbers in the widest
vector register."""


class Deployed(NamedTuple):
    """A decided network.

    Attributes:
        full: parameters of the ungated network, norms folded into its kernels.
        masked: parameters of the gated network at full size, likewise.
        gates: decided gates by group, empty without gates.
        kept_steps: indices of the time steps that run, None for all of them.
        small: the compacted network.
        simulator: how examples run through networks of these parameters: with bits, those in fixed point.
        padded: the same with widths rounded up to whole vector registers, but for convolutions that run in the fused
            program, which fills them otherwise.
        run: compiled ``inputs -> Decision`` of the padded network with early stopping; inputs must be finite.
        widths: decided bits of each kernel's units, by kernel; empty without bits.
        fixed: fixed-point formats that the network runs in; None without bits.
    """

    full: Params
    masked: Params
    gates: dict[str, Array]
    kept_steps: Any
    small: Runnable
    padded: Runnable
    run: Callable[[Array], Decision]
    simulator: Simulator
    widths: dict[str, Array] = {}  # noqa: RUF012 - never changed
    fixed: FixedFormats | None = None

    def executed(self, stop: Any) -> np.ndarray:
        """Returns how many steps run of an example that stops at these steps of the clock."""
        if self.kept_steps is None:
            return np.asarray(stop)
        return np.searchsorted(np.asarray(self.kept_steps) + 1, np.asarray(stop), side="right")


def deploy(bayesian: Bayesian, params: dict[str, Array], threshold: float = math.inf) -> Deployed:
    """Returns the decided network of a guide's parameters.

    An example stops where the log odds of q having stopped reach ``threshold``; by default every step runs. Kernels and
    biases are rounded to multiples of 2^-12, so that sums of spiking inputs are exact in any order and the compacted
    network fires exactly the spikes of the masked one. Norms are folded before, by the statistics that
    were measured of this network when learning ended, and those of the whole network by its own (`Bayesian.finish`), or
    else by the learner's. Kernels with bits are on their own grids, and everything runs in fixed point then
    (`dsnn.deploy.fixed_point`).
    """
    draw, gated = _centre(bayesian, params)
    simulator, fixed, widths = bayesian.simulator, None, {}
    if bayesian.bits is None or draw.bits is None:
        pair = (draw.weights | norm_statistics.whole(params), gated)
        full, masked = (on_grid(simulator.template.fold(own)) for own in pair)
    else:
        simulator, fixed, full, masked = in_fixed_point(bayesian, params, draw, gated)
        widths = bayesian.bits.widths_of(draw.bits)
    gates = draw.gates or {}
    steps = kept(gates[TIME]) if TIME in gates else None
    small = compacted(simulator, masked, gates)
    # of images the fused program computes what is read alone, so that filling registers would be work
    whole = simulator.held and fused_inference.pictures(small)
    padded = small if whole else compacted(simulator, masked, gates, multiple=VECTOR)
    halting, head, temperature = bayesian.halting, None, None
    if halting is not None and threshold != math.inf:
        head, temperature = halting.head(params), halting.temperature(params)
    run = stopping(bayesian, padded, head, threshold, steps, temperature)
    return Deployed(full, masked, gates, steps, small, padded, run, simulator, widths, fixed)


def _centre(bayesian: Bayesian, params: dict[str, Array]) -> tuple[Draw, Params]:
    """Returns the decided draw and the parameters of its gated network: one small program, which runs once."""

    def both(params: dict[str, Array]) -> tuple[Draw, Params]:
        draw = bayesian.centre(params)
        return draw, bayesian.network(draw)

    return jax.jit(both, compiler_options=quickly())(params)


def compacted(simulator: Simulator, masked: Params, gates: dict[str, Array], *, multiple: int = 1) -> Runnable:
    """Returns the smaller network of gated parameters, on the grid, under their decided gates (none: the whole)."""
    open_gates = {
        name: jnp.asarray((np.asarray(z) > 0).astype(np.float32)) for name, z in gates.items() if name != TIME
    }
    return compact(simulator.built(masked)[0], open_gates, multiple=multiple)


def running(bayesian: Bayesian, deployed: Deployed, x: Any, root: Key[Array, ""], batch_size: int = 500) -> np.ndarray:
    """Returns the decided network's logits after every step, ``[time, n, class]``, without stopping early.

    Args:
        bayesian: the network.
        deployed: decided; its masked form runs, whose spikes are those of the compacted one.
        x: examples.
        root: root key of the run, for encodings that draw.
        batch_size: examples at a time.

    Raises:
        DataError: an input that is not finite.
    """
    model, runs = deployed.simulator.built(deployed.masked)
    if not len(x):
        return np.zeros((bayesian.simulator.steps, 0, *model.out_shape), np.float32)

    def run(batch: Array) -> Array:
        inputs = bayesian.simulator.encode(batch, stream(root, "data"))
        return ran(bayesian.simulator, model, inputs, None, runs).logits

    made: np.ndarray = in_batches(run, x, batch_size, axes=1)
    return made


def running_ahead(bayesian: Bayesian, x: Any, root: Key[Array, ""], batch_size: int = 500) -> None:
    """Begins to compile what `running` will need for examples of this shape, whatever is decided."""
    if len(x) and bayesian.bits is None:  # of fixed point nothing is known before its formats
        inputs = bayesian.simulator.encode(first_batch(x, batch_size), stream(root, "data"))
        model, runs = bayesian.simulator.built(bayesian.simulator.template.fold(bayesian.weights.initial))
        graph, state = nnx.split(model)
        _running(graph, bayesian.simulator.schedule, _held_steps(bayesian.simulator), None).ahead(state, inputs, runs)


def on_grid(params: Params, bits: int = FRACTION_BITS) -> Params:
    """Returns kernels and biases rounded to multiples of 2^-bits; other parameters as they are.

    So are those of norms that stay: each current is multiplied by itself, whatever else is cut.
    """
    grid, ends = np.float32(2.0**bits), ("kernel", "bias", "recurrent")

    def rounded(value: Array) -> Array:
        if isinstance(value, jax.core.Tracer):
            return jnp.round(value * grid) / grid
        return jnp.asarray(np.round(np.asarray(value) * grid) / grid)  # in NumPy: nothing to compile for each shape

    return {
        name: rounded(value) if name.endswith(ends) or (is_weight(name) and ".norm." not in name) else value
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


def speed(bayesian: Bayesian, deployed: Deployed, inputs: Array, repeats: int = 21) -> Timing:
    """Returns the wall time of the full network over all steps against the deployed one, alternating, same batch."""
    model = deployed.simulator.template.build(deployed.full)
    graph, state = nnx.split(model)
    full = stopping(bayesian, model, None)
    layered = functools.partial(
        _running(graph, bayesian.simulator.schedule, _held_steps(bayesian.simulator), None), state
    )
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


class Ran(NamedTuple):
    """What a deterministic network did over all steps: running logits ``[time, batch, class]``, and what was kept."""

    logits: Array
    kept: Any


def ran(
    simulator: Simulator,
    model: Runnable,
    inputs: Array,
    record: Callable[[Any, Any], Any] | None = keep_spikes,
    running: Array | None = None,
) -> Ran:
    """Returns what a network does with encoded inputs; networks of one shape share the compiled program.

    Args:
        simulator: says how it runs.
        model: the network.
        inputs: held ``[batch, ...]`` or ``[time, batch, ...]``.
        record: what to keep of each step, see `dsnn.unroll`.
        running: how far each step runs, see `dsnn.unroll`; None is all of them.
    """
    graph, state = nnx.split(model)
    return _running(graph, simulator.schedule, _held_steps(simulator), record)(state, inputs, running)


def compaction_error(masked: Ran, small: Ran, kept_steps: Any = None) -> float:
    """Returns the largest difference between the logits of the masked and the compacted network at any step it kept."""
    at = slice(None) if kept_steps is None else kept_steps
    return float(np.abs(np.asarray(masked.logits)[at] - np.asarray(small.logits)).max())


def at_kept_steps(inputs: Array, steps: Any) -> Array:
    """Returns the inputs ``[time, ...]`` of the steps that run; all of them where ``steps`` is None."""
    return inputs if steps is None else inputs[steps]


def _held_steps(simulator: Simulator) -> int | None:
    return simulator.steps if simulator.held else None


def stopping(
    bayesian: Bayesian,
    model: Runnable,
    head: dict[str, Array] | None = None,
    threshold: float = 0.0,
    kept_steps: Any = None,
    temperature: Float[Array, " time"] | None = None,
) -> Callable[[Array], Decision]:
    """Returns compiled inference of a network, each example until its own stop.

    Called with arrays it is one call into C where `dsnn.deploy.fused_inference` takes the network. As part of a larger
    program, such as one that is exported, it is the same in JAX, which every device runs.

    Where time steps are left out the rule still sees them pass: it reads the clock, as in training.

    Args:
        bayesian: says how it runs.
        model: the network.
        head: of the stopping rule; None runs all steps.
        threshold: log odds of having stopped at which to stop.
        kept_steps: indices of the time steps that run, None for all of them.
        temperature: what the logits of an answer after each step are divided by; None is 1.
    """
    feature = "" if head is None or bayesian.halting is None else bayesian.halting.feature
    steps = bayesian.simulator.steps if kept_steps is None else len(kept_steps)
    # the least single-precision number that is not below it: rounding must not stop anything earlier
    enough = np.float32(threshold)
    enough = np.nextafter(enough, np.float32(np.inf)) if float(enough) < threshold else enough
    fused = None
    if bayesian.simulator.held and fused_inference.supports(model):
        fused = fused_inference.packed(model, steps, head, feature, enough)
    graph, state = nnx.split(model)
    leaves, tree = jax.tree.flatten(state)  # taking a state apart at every call would take longer than a small network
    clock = None if kept_steps is None else Clock(tuple(int(k) + 1 for k in kept_steps), bayesian.simulator.steps)
    run = functools.partial(
        _deciding(graph, tree, steps, bayesian.simulator.held, feature, clock),
        leaves,
        head,
        jnp.asarray(enough),
        temperature,
    )

    def decide(inputs: Array | np.ndarray) -> Decision:
        if fused is not None and not isinstance(inputs, jax.core.Tracer):
            return fused_inference.decision(fused, jnp.asarray(require_finite(inputs)), temperature)
        # part of a larger program, which may be lowered for any device
        return run(at_kept_steps(jnp.asarray(require_finite(inputs)), kept_steps))

    return decide


# One program serves all networks of one shape: parameters are its arguments and not constants in it. It is looked up
# once and not at every call, since hashing a network takes as long as a small one runs.
@functools.lru_cache(maxsize=64)
def _deciding(
    graph: Any, tree: Any, steps: int, held: bool, feature: str, clock: Clock | None
) -> Callable[..., Decision]:
    def run(leaves: Any, head: Any, threshold: Array, temperature: Array | None, inputs: Array) -> Decision:
        rule = halting.rule(head, feature, threshold) if feature else never()
        model = nnx.merge(graph, jax.tree.unflatten(tree, leaves))
        return anytime(model, rule, steps, held=held, clock=clock)(inputs, None).at(temperature)

    return jax.jit(run)


@functools.lru_cache(maxsize=64)
def _running(graph: Any, schedule: str, steps: int | None, record: Any) -> Program:
    def run(state: Any, inputs: Array, running: Any = None) -> Ran:
        model = nnx.merge(graph, state)
        outputs, _, kept = unroll(model, inputs, None, record, schedule, steps=steps, running=running)
        return Ran(model.logits(outputs, running), kept)

    return Program(run)
