"""The time loop: one scan, in two orders that give the same numbers.

``schedule="layer"`` applies each synapse to all time steps in one product and scans only its neurons; ``"step"`` runs
the whole stack inside one scan, so that currents stay in the cache. Keys are derived inside the scan, since noise drawn
ahead has to be written to memory and read back. For the backward pass a step keeps what is dear (`KEPT`: currents or
membranes, and draws) and computes spikes and surrogate derivatives again, which costs less than to store them.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn import loops
from dsnn.cells import parallel
from dsnn.derivatives import both_ways
from dsnn.layers import LayerState
from dsnn.models import Stack, layer_key
from dsnn.networks.whole import Runnable, as_network, is_network
from dsnn.rng import typed
from dsnn.types import Array, Float, Key, UInt32

SCHEDULES = ("auto", "layer", "step", "associative")
KEPT = ("current", "membrane", "noise")
"""Names (see `jax.ad_checkpoint.checkpoint_name`) of what a step keeps for its backward pass, besides products."""

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
    """Runs a cell, a layer or a stack over time.

    Args:
        model: a cell, a layer or a stack, or anything with ``init(batch_shape)`` and ``step(state, x, key)``; or a
            network of one's own (`dsnn.protocols.Network`), which runs by steps whatever the schedule. Its records
            see what it sent by wire.
        xs: inputs ``[time, batch, ...]``; with ``steps``, one input ``[batch, ...]`` held for that many steps, whose
            first product is then computed once.
        key: drives stochastic firing and is consumed, of `jax.random.key` or `jax.random.PRNGKey`; None is the
            deterministic network.
        record: ``record(states, spikes)`` of one step says what to keep. For a stack both are dictionaries by layer
            name, for a cell the cell's own state and spikes.
        schedule: "layer", "step", "associative" (by layers, and cells that never reset in logarithmic depth, which
            rounds differently, see `dsnn.cells.parallel`) or "auto": by layers, but by steps to save ``memory``, and
            on a CPU if the network is feed-forward, `FEWEST_ROWS` examples run at once and the currents of some layer
            over all time steps exceed `LARGE_BYTES`. A synapse that differs from step to step (``every_step``, as in
            `dsnn.bayes.guides.aot`) has to see all of them at once: "auto" is by layers then, and "step" is refused.
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


def _unroll(model, xs, key, record, schedule, steps, memory, running, state):  # type: ignore[no-untyped-def]
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}.")
    length = xs.shape[0] if steps is None else steps
    if length < 1:
        raise ValueError(f"the number of time steps must be at least 1, got {length}.")
    held = steps is not None
    if running is not None and running.shape != (length,):
        raise ValueError(f"running must have one value per time step, {length}, got shape {running.shape}.")
    if is_network(model):
        model = as_network(model, "what runs")
        _check_input(model, xs, held)
        return _unroll_steps(model, xs, key, record, length, held, memory, running, state)
    if not isinstance(model, Stack):
        if running is not None:
            raise ValueError(f"running is for stacks, got {type(model).__name__}; leave it out.")
        return _unroll_one(model, xs, key, record, length, held, memory, state)
    _check_input(model, xs, held)
    batch = xs.shape[0] if held else xs.shape[1]
    varying = [name for name, layer in model.layers() if getattr(layer.synapse, "every_step", False)]
    if schedule == "auto":
        schedule = "layer" if varying else _schedule(model, length, batch, memory)
    if schedule == "step":
        if varying:
            raise ValueError(
                f'masks that change with every step need the schedule "layer", got "step" with such masks in '
                f'{varying[0]!r}; set schedule="layer", or use dropout, whose masks hold for all steps.'
            )
        return _unroll_steps(model, xs, key, record, length, held, memory, running, state)
    return _unroll_layers(model, xs, key, record, length, held, memory, schedule == "associative", running, state)


def scan(body: Callable, carry: Any, xs: Any, length: int, memory: str | int = "full") -> tuple[Any, Any]:
    """`jax.lax.scan` that keeps only every k-th carry for the backward pass and recomputes between them.

    Args:
        body: ``(carry, x) -> (carry, y)``.
        carry: initial carry.
        xs: inputs with leading time, or None.
        length: number of steps.
        memory: "full", "sqrt" or k.
    """
    match memory:
        case "full":
            return jax.lax.scan(_light(body), carry, xs, length)
        case "sqrt":
            chunk = max(1, round(length**0.5))
        case int() if memory >= 1:
            chunk = min(memory, length)
        case _:
            raise ValueError(f'memory must be "full", "sqrt" or a number of steps >= 1, got {memory!r}.')
    whole = length - length % chunk

    @jax.checkpoint
    def inner(carry: Any, piece: Any) -> tuple[Any, Any]:
        return jax.lax.scan(_light(body), carry, piece, chunk)

    pieces = jax.tree.map(lambda a: a[:whole].reshape(-1, chunk, *a.shape[1:]), xs)
    carry, ys = jax.lax.scan(inner, carry, pieces, whole // chunk)
    ys = jax.tree.map(lambda a: a.reshape(whole, *a.shape[2:]), ys)
    if whole == length:
        return carry, ys
    rest = jax.tree.map(lambda a: a[whole:], xs)
    carry, last = jax.checkpoint(lambda c, r: jax.lax.scan(_light(body), c, r, length - whole))(carry, rest)
    return carry, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, last)


def _light(body: Callable) -> Callable:
    """Returns ``body`` with its backward pass keeping products and `KEPT` and computing the rest again."""
    policies = jax.checkpoint_policies
    policy = policies.save_from_both_policies(policies.dots_saveable, policies.save_only_these_names(*KEPT))
    return jax.checkpoint(body, policy=policy, prevent_cse=False)


def _schedule(model: Runnable, length: int, batch: int, memory: str | int) -> str:
    if memory != "full":
        return "step"  # by layers, the currents of all steps would be kept whatever is kept of the states
    layers = [layer for _, layer in model.layers()]
    # by layers, a recurrent kernel's gradient is one product: see `_scan_recurrent`
    if jax.default_backend() != "cpu" or batch < FEWEST_ROWS or any(layer.recurrent is not None for layer in layers):
        return "layer"
    largest = max(math.prod(layer.out_shape) for layer in layers)
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
    state = _initial(model, xs.shape if held else xs.shape[1:], xs, key, held) if state is None else state

    def body(state, inputs):  # type: ignore[no-untyped-def]
        t, x = inputs
        state, out = model.step(state, xs if held else x, _time_key(key, t))
        return state, (out, record(state, out) if record else None)

    state, (outputs, records) = scan(body, state, (jnp.arange(length), None if held else xs), length, memory)
    return outputs, state, records


def _unroll_steps(model, xs, key, record, length, held, memory, running, state):  # type: ignore[no-untyped-def]
    state = _initial(model, (xs.shape[0] if held else xs.shape[1],), xs, key, held) if state is None else state
    constant = model.drive(xs) if held else None

    def body(state, inputs):  # type: ignore[no-untyped-def]
        t, x, share = inputs
        new, spikes = model.advance(state, model.drive(x) if constant is None else constant, _time_key(key, t))
        state = _advanced(state, new, share)
        sent = spikes if share is None else {name: share * s for name, s in spikes.items()}
        return state, (sent[model.names[-1]], record(state, sent) if record else None)

    steps = (jnp.arange(length), None if held else xs, running)
    state, (outputs, records) = scan(body, state, steps, length, memory)
    return outputs, state, records


def _unroll_layers(model, xs, key, record, length, held, memory, associative, running, state):  # type: ignore[no-untyped-def]
    times = jnp.arange(length)
    whole = (
        state is None and running is None
    )  # in C or in logarithmic depth, all steps are run at once from the initial state
    state = _initial(model, (xs.shape[0] if held else xs.shape[1],), xs, key, held) if state is None else state
    final, states, spikes = {}, {}, {}
    signal = xs
    for index, (name, layer) in enumerate(model.layers()):
        constant = held and index == 0
        currents = layer.drive(signal) if constant else _fold(layer.drive, signal)
        at_once = associative and whole and layer.recurrent is None and parallel.reset_free(layer.cell)
        if constant and (at_once or layer.recurrent is not None):
            currents, constant = jnp.broadcast_to(currents, (length, *currents.shape)), False
        if at_once:
            keys = None if key is None else jax.vmap(lambda t, index=index: layer_key(_time_key(key, t), index))(times)
            after, sent = parallel.run(layer.cell, state[name].cell, currents, keys)
            final[name], states[name] = LayerState(jax.tree.map(lambda a: a[-1], after), None), LayerState(after, None)
        elif whole and record is None and memory == "full" and not constant and loops.supports(layer, currents):
            final[name], sent = loops.run(layer, currents)
        else:
            plain = layer.recurrent is None or running is not None
            one = partial(_scan_layer, running=running) if plain else _scan_recurrent
            final[name], sent, states[name] = one(
                layer, state[name], currents, constant, key, times, index, memory, record
            )
        spikes[name] = sent
        signal = model.sent(name, signal, sent)
    if running is not None:
        spikes = {name: s * running.reshape(-1, *[1] * (s.ndim - 1)) for name, s in spikes.items()}
    # a record sees one step at a time; what it does not keep is dead code to the compiler
    records = jax.vmap(record)(states, spikes) if record else None
    return spikes[model.names[-1]], final, records


def _scan_layer(layer, state, currents, constant, key, times, index, memory, record, running=None):  # type: ignore[no-untyped-def]
    """Returns the last state of one layer, its spikes, and its states at all steps if there is something to record."""

    def body(state, inputs):  # type: ignore[no-untyped-def]
        t, current, share = inputs
        new, out = layer.advance(state, currents if constant else current, layer_key(_time_key(key, t), index))
        state = _advanced(state, new, share)
        return state, (out, state if record else None)

    steps = (times, None if constant else currents, running)
    final, (spikes, states) = scan(body, state, steps, len(times), memory)
    return final, spikes, states


def _scan_recurrent(layer, state, currents, constant, key, times, index, memory, record):  # type: ignore[no-untyped-def]
    """`_scan_layer` whose backward pass adds up the gradient of the recurrent kernel in one product after the loop.

    Inside the loop it would be a product and an addition to the whole kernel at every step. What the loop gives is the
    gradient of the currents, and a recurrent current is one of them.
    """
    graph, weights = nnx.split(layer)

    def loop(kernel, weights, state, currents, fixed):  # type: ignore[no-untyped-def]
        inner = nnx.merge(graph, weights)
        inner.recurrent[...] = kernel
        return _scan_layer(inner, state, currents, constant, *fixed, index, memory, record)

    def forward(kernel, weights, state, currents, fixed):  # type: ignore[no-untyped-def]
        out, pullback = jax.vjp(lambda *moving: loop(kernel, *moving, fixed), weights, state, currents)
        return out, (pullback, kernel, weights, jnp.concatenate([state.spikes[None], out[1][:-1]]))

    def backward(kept: Any, grad: Any) -> tuple[Array, Any, Any, Array, None]:
        pullback, kernel, weights, before = kept
        to_weights, to_state, to_currents = pullback(grad)
        rows = before.reshape(-1, before.shape[-1])
        inner = nnx.merge(graph, weights)
        product = jax.vjp(lambda kernel: inner.feed_back(rows, kernel), kernel)[1]
        back = to_currents.reshape(rows.shape).astype(jax.eval_shape(inner.feed_back, rows, kernel).dtype)
        return product(back)[0], to_weights, to_state, to_currents, None

    run = both_ways(forward, backward, loop, run=loop)
    return run(layer.recurrent[...], weights, state, currents, (key, times))


def _advanced(old: Any, new: Any, share: Any) -> Any:
    """The state after a step of which only a share ran."""
    return new if share is None else jax.tree.map(lambda a, b: (share * a + (1 - share) * b).astype(a.dtype), new, old)


def _fold(drive: Callable[[Array], Array], xs: Array) -> Array:
    """Applies a stateless product to all time steps at once."""
    time, batch = xs.shape[:2]
    out = drive(xs.reshape(time * batch, *xs.shape[2:]))
    return out.reshape(time, batch, *out.shape[1:])
