"""The time loop, in two orders that give the same numbers.

``schedule="layer"`` applies each synapse to all time steps in one product and scans only its neurons (see
`dsnn.simulate.by_layer`); ``"step"`` runs the whole network inside one scan, so that currents stay in the cache. Keys
are derived inside the scan, since noise drawn ahead has to be written to memory and read back.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn.networks.graph import Part
from dsnn.networks.layers import Layer
from dsnn.networks.stack import Stack
from dsnn.networks.whole import OUTPUT, Runnable, Whole, as_network, is_network
from dsnn.rng import typed
from dsnn.simulate import fused_images
from dsnn.simulate.by_layer import Course, by_share, fold, run_parts, run_stack, sending
from dsnn.simulate.scan import advanced, scan
from dsnn.types import Array, Float, Key, UInt32

SCHEDULES = ("auto", "layer", "step", "associative", "fused")

LARGE_BYTES = 2**26
"""Size of a layer's currents over all time steps above which larger products are not worth the memory."""

FEWEST_ROWS = 64
"""Examples below which the products of a single step are too small to be fast."""

Record = Callable[[Any, Any], Any]


def unroll(
    model: Any,
    xs: Array | np.ndarray,
    key: Key[Array, ""] | UInt32[Array, " word"] | None = None,
    record: Record | None = None,
    schedule: str = "auto",
    *,
    steps: int | None = None,
    memory: str | int = "full",
    running: Float[Array, " time"] | None = None,
    state: Any = None,
) -> tuple[Array, Any, Any]:
    """Runs a cell, a layer or a network over time.

    Args:
        model: a cell, a layer or a stack, or anything with ``init(batch_shape)`` and ``step(state, x, key)``; or a
            network of one's own (`dsnn.protocols.Network`), which runs by steps, or at once where it has ``sequence``.
            Its records see what it sent by wire, and of ``sequence`` no states.
        xs: inputs ``[time, batch, ...]``; with ``steps``, one input ``[batch, ...]`` held for that many steps, whose
            first product is then computed once.
        key: drives stochastic firing and is consumed, of `jax.random.key` or `jax.random.PRNGKey`; None is the
            deterministic network.
        record: ``record(states, spikes)`` of one step says what to keep. For a stack both are dictionaries by layer
            name, for a cell the cell's own state and spikes.
        schedule: "layer", "step", "associative" (by layers, and cells that never reset in logarithmic depth, which
            rounds differently, see `dsnn.simulate.associative`), "fused" (by layers, and LIF neurons as one kernel
            each, on NVIDIA devices alone, see `dsnn.simulate.fused_lif`) or "auto": by layers, but by steps to save
            ``memory``, and on a CPU if the network is feed-forward, `FEWEST_ROWS` examples run at once and the currents
            of some layer over all time steps exceed `LARGE_BYTES` (layers of images whose neurons run in C,
            `dsnn.simulate.fused_images`, do not count). A synapse that differs from step to step
            (``every_step``, as in `dsnn.bayes.guides.aot`) has to see all of them at once: "auto" is by layers then,
            and "step" is refused.
        steps: number of time steps of a held input.
        running: how far each step of a stack runs, in [0, 1]: one is an ordinary step, and zero a step that is skipped,
            whose input is not read, which leaves every state as it was and gives the output zero; None is all ones.
        memory: what the backward pass keeps: "full" (membranes of all steps), "sqrt" (states at every sqrt(T)-th step,
            the rest computed again) or the number of steps between kept states.
        state: where it starts, the final state of earlier steps; None is the initial state.

    Returns:
        outputs ``[time, batch, ...]``, the final state, and what was recorded with time leading (None without record).

    Raises:
        ValueError: unknown schedule or memory, no time steps, an input that does not fit the network, or the schedule
            "step" with a synapse that has to see all steps at once.
    """
    xs, key = _native(xs), typed(key)
    with jax.numpy_rank_promotion("allow"):  # constants of a neuron each meet batches of membranes
        return _unroll(model, xs, key, record, schedule, steps, memory, running, state)


def unroll_trained(
    model: Runnable, xs: Array, key: Key[Array, ""] | None = None, schedule: str = "auto", **options: Any
) -> tuple[Array, dict[str, Array]]:
    """Runs a network whose norms normalise by the statistics of this batch; arguments as of `unroll_sent`.

    Returns:
        outputs ``[time, batch, ...]``, and the statistics of every norm after this batch, by name. A network of one's
        own without layers gives those of its `dsnn.protocols.Output`, where its ``sequence`` takes ``train``.

    Raises:
        ValueError: the schedule "step", or memory that asks for it: statistics over time need all steps at once.
    """
    statistics: dict[str, Array] = {}
    return _run(model, xs, key, schedule, None, statistics, **options)[0], statistics


def unroll_sent(
    model: Runnable,
    xs: Array,
    key: Key[Array, ""] | None = None,
    schedule: str = "auto",
    *,
    trained: bool = False,
    steps: int | None = None,
    memory: str | int = "full",
    running: Float[Array, " time"] | None = None,
) -> tuple[Array, dict[str, Array], dict[str, Array]]:
    """Runs a network as `unroll` does, or `unroll_trained`, by the same programs; no state is kept for what it sends.

    Args:
        model: the network.
        xs: see `unroll`, and so are the others.
        key: consumed.
        schedule: order of the loops.
        trained: whether norms go by the statistics of this batch.
        steps: of a held input.
        memory: what the backward pass keeps.
        running: how far each step runs.

    Returns:
        outputs ``[time, batch, ...]``, what every layer gave, or a network of one's own sent, at every step,
        ``[time, batch, ...]``, whatever share of it ran, and the statistics of `unroll_trained`.
    """
    statistics: dict[str, Array] | None = {} if trained else None
    options: dict[str, Any] = {"steps": steps, "memory": memory, "running": running}
    outputs, sent = _run(model, xs, key, schedule, sending, statistics, **options)
    return outputs, sent, statistics or {}


def _run(model, xs, key, schedule, record, statistics, *, steps=None, memory="full", running=None):  # type: ignore[no-untyped-def]
    """Returns the outputs and what was recorded; norms go by the batch if statistics are to be filled in."""
    if statistics is not None and (schedule == "step" or memory != "full"):
        raise ValueError(
            'a norm in training needs all time steps at once, which schedule="layer" and memory="full" have, got '
            f'schedule="{schedule}" and memory="{memory}"; leave both out.'
        )
    ahead = "layer" if schedule == "auto" and statistics is not None else schedule
    with jax.numpy_rank_promotion("allow"):
        run = _unroll(model, _native(xs), typed(key), record, ahead, steps, memory, running, None, statistics)
    return run[0], run[2]


def _unroll(model, xs, key, record, schedule, steps, memory, running, state, statistics=None):  # type: ignore[no-untyped-def]
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}.")
    length = xs.shape[0] if steps is None else steps
    if length < 1:
        raise ValueError(f"the number of time steps must be at least 1, got {length}.")
    held = steps is not None
    if schedule == "fused" and (memory != "full" or running is not None):
        raise ValueError(
            f'schedule="fused" keeps all membranes and runs all steps, got memory={memory!r} and running='
            f"{'None' if running is None else 'an array'}; leave both out, or the schedule."
        )
    if running is not None and running.shape != (length,):
        raise ValueError(f"running must have one value per time step, {length}, got shape {running.shape}.")
    if is_network(model):
        model = as_network(model, "what runs")
        _check_input(model, xs, held)
        check_steps(model, length)
        if isinstance(model.network, Part):
            return _unroll_blocks(model, xs, key, record, length, held, memory, running, state, schedule, statistics)
        if _by_sequence(model, schedule, memory):
            return _unroll_sequence(model, xs, key, record, length, held, running, state, statistics)
        return _unroll_steps(model, xs, key, record, length, held, memory, running, state)
    if not isinstance(model, Stack):
        if running is not None:
            raise ValueError(f"running is for stacks, got {type(model).__name__}; leave it out.")
        if schedule == "fused":
            return _unroll_kernel(model, xs, key, record, length, held, state)
        return _unroll_one(model, xs, key, record, length, held, memory, state)
    _check_input(model, xs, held)
    check_steps(model, length)
    batch = xs.shape[0] if held else xs.shape[1]
    varying = [name for name, layer in model.layers() if getattr(layer.synapse, "every_step", False)]
    if schedule == "auto":
        schedule = "layer" if varying else _schedule([layer for _, layer in model.layers()], length, batch, memory)
    if schedule == "step":
        if varying:
            raise ValueError(
                f'masks that change with every step need the schedule "layer", got "step" with such masks in '
                f'{varying[0]!r}; set schedule="layer", or use dropout, whose masks hold for all steps.'
            )
        return _unroll_steps(model, xs, key, record, length, held, memory, running, state)
    course = _course(length, key, memory, running, state, record, schedule, statistics)
    state = _initial(model, (batch,), xs, key, held) if state is None else state
    return run_stack(model, state, xs, held, course, record)


def _unroll_blocks(model, xs, key, record, length, held, memory, running, state, schedule, statistics):  # type: ignore[no-untyped-def]
    batch = xs.shape[0] if held else xs.shape[1]
    layers = [module for _, module in nnx.iter_modules(model.network) if isinstance(module, Layer)]
    if (_schedule(layers, length, batch, memory) if schedule == "auto" else schedule) == "step":
        return _unroll_steps(model, xs, key, record, length, held, memory, running, state)
    course = _course(length, key, memory, running, state, record, schedule, statistics)
    state = _initial(model, (batch,), xs, key, held) if state is None else state
    return run_parts(model, state, xs, held, course, record)


def steps_alone(model: Runnable) -> bool:
    """Returns whether a network can run one step after another, so that an example may stop."""
    if isinstance(model, Whole) and not model.has_step:
        return False
    return not any(isinstance(layer, Layer) and layer.at_once for _, layer in nnx.iter_modules(model))


def check_steps(model: Runnable, steps: int) -> None:
    """Checks that every norm and cell with parameters for each step has enough of them.

    Args:
        model: the network.
        steps: how many are to run from its initial state on.

    Raises:
        ValueError: it has fewer.
    """
    for _, layer in nnx.iter_modules(model):
        for part in (layer.norm, layer.cell) if isinstance(layer, Layer) else ():
            most = getattr(part, "steps", None)
            if isinstance(most, int) and steps > most:
                raise ValueError(
                    f"parameters for each time step must be there for every step, got {steps} steps and {most} in a "
                    f"{type(part).__name__}; run at most {most}, or learn with more."
                )


def _course(length, key, memory, running, state, record, schedule, statistics):  # type: ignore[no-untyped-def]
    begins, sends = state is None and running is None, record is not None
    recorded = sends and record is not sending
    return Course(
        length,
        key,
        memory,
        running,
        begins,
        recorded,
        sends,
        schedule == "associative",
        schedule == "fused",
        statistics,
    )


def _schedule(layers: list[Layer], length: int, batch: int, memory: str | int) -> str:
    if any(layer.at_once for layer in layers):
        return "layer"
    if memory != "full":
        return "step"  # by layers, the currents of all steps would be kept whatever is kept of the states
    # by layers, a recurrent kernel's gradient is one product: see `_scan_recurrent`
    if jax.default_backend() != "cpu" or batch < FEWEST_ROWS or any(layer.recurrent is not None for layer in layers):
        return "layer"
    # neurons of images that run in C read their currents once, however many these are
    sizes = [math.prod(layer.out_shape) for layer in layers if not fused_images.supports(layer)]
    largest = max(sizes, default=0)
    return "step" if 4 * length * batch * largest > LARGE_BYTES else "layer"


def _check_input(model: Runnable, xs: Any, held: bool) -> None:
    lead = 1 if held else 2
    features, expected = 1, 1
    for n in xs.shape[lead:]:
        features *= n
    for n in model.in_shape:
        expected *= n
    if xs.ndim < lead + 1 or features != expected:
        axes = "[batch, ...]" if held else "[time, batch, ...]"
        raise ValueError(f"the input must be {axes} with {model.in_shape} features, got shape {tuple(xs.shape)}.")


def _native(xs: Any) -> Any:
    """Returns an array of JAX's; one of NumPy's in another order of bytes it would read as other numbers."""
    return jnp.asarray(xs.astype(xs.dtype.newbyteorder("="))) if isinstance(xs, np.ndarray) else xs


def _initial(model: Any, batch_shape: tuple[int, ...], xs: Any, key: Any, held: bool) -> Any:
    """Returns the state before the first step, in the dtypes that a step gives: of parameters or inputs in others."""
    state = jax.tree.map(jnp.asarray, model.init(batch_shape))
    own = jax.tree.leaves(nnx.state(model)) if isinstance(model, nnx.Module) else []
    arrays = (leaf for leaf in (xs, *own, *jax.tree.leaves(state)) if hasattr(leaf, "dtype"))
    if all(leaf.dtype == jnp.float32 for leaf in arrays if jnp.issubdtype(leaf.dtype, jnp.floating)):
        return state
    # with x64 on, zeros are wider than anything asks for
    state = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.float64 else leaf, state)
    for _ in range(3):  # a wider adaptation widens the membrane a step later
        after = jax.eval_shape(lambda state: model.step(state, xs if held else xs[0], key)[0], state)
        dtypes = [leaf.dtype for leaf in jax.tree.leaves(after)]
        if dtypes == [leaf.dtype for leaf in jax.tree.leaves(state)]:
            break
        state = jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), state, after)
    return state


def _time_key(key: Key[Array, ""] | None, t: Array) -> Key[Array, ""] | None:
    return None if key is None else jax.random.fold_in(key, t)


def _unroll_one(model, xs, key, record, length, held, memory, state):  # type: ignore[no-untyped-def]
    if getattr(model, "at_once", False) and not isinstance(model, Layer):
        currents = jnp.broadcast_to(xs, (length, *xs.shape)) if held else xs
        keys = None if key is None else jax.vmap(lambda t: _time_key(key, t))(jnp.arange(length))
        states, outputs = model.sequence(model.init(currents.shape[1:]), currents, keys)
        records = jax.vmap(record)(states, outputs) if record else None
        return outputs, jax.tree.map(lambda a: a[-1], states), records
    state = _initial(model, xs.shape if held else xs.shape[1:], xs, key, held) if state is None else state

    def body(state, inputs):  # type: ignore[no-untyped-def]
        t, x = inputs
        state, out = model.step(state, xs if held else x, _time_key(key, t))
        return state, (out, record(state, out) if record else None)

    state, (outputs, records) = scan(body, state, (jnp.arange(length), None if held else xs), length, memory)
    return outputs, state, records


def _unroll_kernel(model, xs, key, record, length, held, state):  # type: ignore[no-untyped-def]
    from dsnn.simulate import fused_lif  # Pallas takes a moment to load

    if (problem := fused_lif.refusal(model, xs, key)) is not None:
        raise ValueError(problem)
    currents = jnp.broadcast_to(xs, (length, *xs.shape)) if held else xs
    keys = None if key is None else jax.vmap(lambda t: _time_key(key, t))(jnp.arange(length))
    state = _initial(model, currents.shape[1:], xs, key, held) if state is None else state
    ran = fused_lif.run(model, state, currents, keys, read=record is not None)
    records = jax.vmap(record)(state._replace(membrane=ran.membranes), ran.spikes) if record else None
    return ran.spikes, ran.state, records


def _unroll_steps(model, xs, key, record, length, held, memory, running, state):  # type: ignore[no-untyped-def]
    state = _initial(model, (xs.shape[0] if held else xs.shape[1],), xs, key, held) if state is None else state
    constant = model.drive(xs) if held else None

    def body(state, inputs):  # type: ignore[no-untyped-def]
        t, x, share = inputs
        new, spikes = model.advance(state, model.drive(x) if constant is None else constant, _time_key(key, t))
        state = advanced(state, new, share)
        sent = spikes if share is None else {name: share * s for name, s in spikes.items()}
        kept = record(state, spikes if record is sending else sent) if record else None
        return state, (sent[model.names[-1]], kept)

    steps = (jnp.arange(length), None if held else xs, running)
    state, (outputs, records) = scan(body, state, steps, length, memory)
    return outputs, state, records


def _by_sequence(model: Whole, schedule: str, memory: str | int) -> bool:
    """Returns whether a network of one's own runs all time steps at once, where it can.

    Raises:
        ValueError: it is to run by steps, and has no step.
    """
    by_step, at_once = model.has_step, model.has_sequence
    if schedule == "step" and not by_step:
        raise ValueError(
            f'the schedule "step" needs a network with step(state, x, key), got {model} with sequence() alone; leave '
            "the schedule out."
        )
    return at_once and (not by_step or (schedule != "step" and memory == "full"))


def _unroll_sequence(model, xs, key, record, length, held, running, state, statistics):  # type: ignore[no-untyped-def]
    batch = xs.shape[0] if held else xs.shape[1]
    if state is None:
        state = _initial(model, (batch,), xs, key, held) if model.has_step else model.init(batch)
    read = model.drive(xs) if held else fold(model.drive, xs)
    read = jnp.broadcast_to(read, (length, *read.shape)) if held else read
    keys = None if key is None else jax.vmap(lambda t: _time_key(key, t))(jnp.arange(length))
    state, sent = model.sequence(state, read, keys, running=running, statistics=statistics)
    if sent[OUTPUT].shape[:1] != (length,):
        raise ValueError(
            f"sequence must give an output for each of the {length} time steps, got shape {sent[OUTPUT].shape} from "
            f"{model}."
        )
    shared = by_share(sent, running)
    if record is sending:
        return shared[OUTPUT], state, sent
    records = jax.vmap(lambda one: record(None, one))(shared) if record else None
    return shared[OUTPUT], state, records
