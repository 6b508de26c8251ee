"""The time loop layer by layer: each synapse is applied to all time steps in one product, and only neurons are scanned.

Whole loops run in C where `dsnn.simulate.fused` takes them, in logarithmic depth where that is asked for and a cell
never resets (`dsnn.simulate.associative`), and as one kernel on an NVIDIA device where that is asked for
(`dsnn.simulate.fused_lif`).
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from dsnn.cells import LI
from dsnn.cells.firing import intervening
from dsnn.native.derivatives import both_ways
from dsnn.networks.graph import rows_of
from dsnn.networks.layers import Layer, LayerState
from dsnn.networks.leaves import integrates, multiplies
from dsnn.networks.plan import NEURONS, fires
from dsnn.networks.plan import read as read_by
from dsnn.networks.stack import Stack
from dsnn.networks.whole import INSIDE, OUTPUT, Whole
from dsnn.simulate import associative, fused, fused_images
from dsnn.simulate.scan import advanced, scan
from dsnn.types import Array, Float, Key


@dataclasses.dataclass(frozen=True)
class Course:
    """What all layers of one run have in common.

    Attributes:
        length: number of time steps.
        key: of the run; None is the deterministic network.
        memory: what the backward pass keeps, see `dsnn.unroll`.
        running: how far each step runs; None is all the way.
        begins: whether it starts from the initial state: in C and in logarithmic depth, all steps are run at once.
        recorded: whether the states of all steps are wanted.
        sends: whether what is sent at all steps is wanted.
        in_parallel: whether cells that never reset run in logarithmic depth.
        in_kernels: whether neurons run in one kernel each, on NVIDIA's devices (`dsnn.simulate.fused_lif`).
        statistics: in training, where what norms measure is put by name; they go by the batch. None: they go by the
            statistics that they have.
    """

    length: int
    key: Key[Array, ""] | None
    memory: str | int
    running: Float[Array, " time"] | None
    begins: bool
    recorded: bool
    sends: bool
    in_parallel: bool
    in_kernels: bool = False
    statistics: dict[str, Array] | None = None

    @property
    def times(self) -> Array:
        """Number of each step, from 0."""
        return jnp.arange(self.length)

    def key_at(self, t: Array, numbers: tuple[int, ...]) -> Key[Array, ""] | None:
        """Returns the key of one layer, known by its number in each container that it is in, at a step."""
        if self.key is None:
            return None
        key = jax.random.fold_in(self.key, t)
        for number in numbers:
            key = jax.random.fold_in(key, number)
        return key

    def currents(
        self, layer: Layer, signal: Array, held: bool, path: str, start: Array | None, done: int = 0
    ) -> tuple[Array, bool]:
        """Returns the normalised feed-forward currents of a layer, and whether they are held.

        They are those of all time steps, or of a signal that is held, if its norm does not treat each step by itself.

        Args:
            layer: synapse and norm.
            signal: its input.
            held: whether that is ``[batch, ...]``, held for all steps.
            path: of the layer's parameters.
            start: number of the first step, for such a norm.
            done: number of modules ``before`` that the signal has been through.
        """
        norm: Any = layer.norm
        trained = None if self.statistics is None else getattr(norm, "trained", None)
        if layer.norm_steps is None and trained is None:
            drive = partial(layer.drive, done=done)
            return (drive(signal) if held else fold(drive, signal)), held
        product = partial(layer.product, done=done)
        raw = product(signal) if held else fold(product, signal)
        steps = None
        if layer.norm_steps is not None:
            raw, steps = (raw[None] if held else raw), self.numbers(start)
        if trained is None or self.statistics is None:
            return norm(raw, steps), False
        found = trained(raw, None if held and steps is None else self.running, steps)
        self.statistics.update({f"{path}.norm.{name}": value for name, value in found.statistics.items()})
        return found.currents, held and steps is None

    def numbers(self, start: Array | None) -> Array:
        """Returns the number of each step among those that run, for a layer that has run ``start`` before."""
        ran = self.times
        if self.running is not None:
            ran = jnp.cumsum(self.running > 0) - (self.running > 0)
        return ran if start is None else start + ran

    def fuses(self, layer: Layer, currents: Array) -> bool:
        """Returns whether the neurons of a layer of images run in C (`dsnn.simulate.fused_images`)."""
        whole = self.begins and not self.recorded and self.memory == "full" and self.running is None
        whole = whole and not self.in_kernels
        return whole and currents.dtype == jnp.float32 and fused_images.supports(layer)

    def after(self, state: LayerState, final: LayerState) -> LayerState:
        """Returns a layer's final state with the number of steps that it has run, where its norm counts them."""
        return final._replace(step=None if state.step is None else state.step + self.length)

    def over_time(self, signal: Array) -> Array:
        """Returns a signal at every step, of one that has a single step."""
        return jnp.broadcast_to(signal, (self.length, *signal.shape[1:]))


def run_stack(
    model: Stack, state: dict[str, LayerState], xs: Array, held: bool, course: Course, record: Any
) -> tuple[Array, dict[str, LayerState], Any]:
    """Returns a stack's outputs ``[time, batch, ...]``, its final state and what was recorded."""
    final, states, spikes = {}, {}, {}
    signal, done = xs, 0
    layers = list(model.layers())
    for index, (name, layer) in enumerate(layers):
        currents, constant = course.currents(layer, signal, held and index == 0, name, state[name].step, done)
        reader = layers[index + 1][1] if index + 1 < len(layers) and not course.sends else None
        pool = reader.before[0] if reader is not None and reader.before and not layer.skip else None
        done = int(course.fuses(layer, currents) and fused_images.pools(pool))
        if done:  # only the next layer sees the spikes, and only what pooling leaves of them
            after, signal = fused_images.run(layer, currents[None] if constant else currents, course.length, pool)
            final[name] = course.after(state[name], after)
            continue
        final[name], spikes[name], states[name], _ = run_neurons(
            layer, state[name], currents, constant, (index,), course
        )
        signal = model.sent(name, signal, spikes[name])
    shared = by_share(spikes, course.running)
    if record is sending:
        return shared[model.names[-1]], final, spikes
    # a record sees one step at a time; what it does not keep is dead code to the compiler
    records = jax.vmap(record)(states, shared) if record else None
    return shared[model.names[-1]], final, records


def run_parts(model: Whole, state: Any, xs: Array, held: bool, course: Course, record: Any) -> tuple[Array, Any, Any]:
    """Returns the outputs, the final state and what was recorded, of a network of blocks; as `run_stack`."""
    read = model.drive(xs)[None] if held else fold(model.drive, xs)
    way = _All((), course, {}, {})
    final, out = model.network.run("", state, read, way)
    given = {**way.sent, OUTPUT: out}
    sent = by_share(given, course.running)
    if record is None:
        return course.over_time(sent[OUTPUT]), final, None
    if record is sending:
        return course.over_time(sent[OUTPUT]), final, {name: course.over_time(s) for name, s in given.items()}
    whole = {name: course.over_time(s) for name, s in sent.items()}
    return whole[OUTPUT], final, jax.vmap(record)(_nested(way.states), whole)


@dataclasses.dataclass(frozen=True)
class _All:
    """All time steps of the layers in a container (`dsnn.networks.graph.Way`); an input that is held has one step."""

    numbers: tuple[int, ...]
    course: Course
    sent: dict[str, Array]
    states: dict[str, Any]

    def inner(self, number: int) -> "_All":
        """Returns how the part of this number runs."""
        return dataclasses.replace(self, numbers=(*self.numbers, number))

    def layer(self, layer: Layer, path: str, state: LayerState, x: Array) -> tuple[LayerState, Array]:
        """Returns the final state and what the layer gives at every step."""
        if multiplies(layer):
            self.sent[path] = rows_of(layer, read_by(layer, x, 2), 2)
        held = x.shape[0] == 1 and self.course.length > 1
        signal, at = x[0] if held else x, INSIDE + path
        final, out, states, fired = run_layer(layer, state, signal, held, self.numbers, self.course, at)
        if fires(layer):
            self.sent[f"{path}{NEURONS}"] = out
        if states is not None:  # there is something to record
            self.states[path] = states
        if self.course.sends and layer.recurrent is not None and fired is not None:
            self.sent[f"{path}.recurrent"] = fired
        return final, out

    def send(self, wire: str, values: Array) -> None:
        """Keeps what goes over a wire that is no layer's."""
        self.sent[wire] = values


def _nested(states: dict[str, Any]) -> dict[str, Any]:
    """Returns states of layers by dotted path as containers nest them."""
    nested: dict[str, Any] = {}
    for path, state in states.items():
        *outer, name = path.split(".")
        inner = nested
        for one in outer:
            inner = inner.setdefault(one, {})
        inner[name] = state
    return nested


def run_layer(
    layer: Layer, state: LayerState, signal: Array, held: bool, numbers: tuple[int, ...], course: Course, path: str
) -> tuple[LayerState, Array, Any, Array | None]:
    """Returns a layer's final state, what it gives at every step, its states at all steps, and its spikes.

    States are there if they are wanted, and spikes too where the layer gives its membranes; else None.

    Args:
        layer: synapse and cell.
        state: where it starts.
        signal: its input, ``[time, batch, ...]``, or ``[batch, ...]`` that is held.
        held: whether the input is held, so that its product is computed once.
        numbers: of the layer in each container that it is in, which its noise goes by.
        course: the run.
        path: of the layer's parameters.
    """
    currents, held = course.currents(layer, signal, held, path, state.step)
    return run_neurons(layer, state, currents, held, numbers, course)


def run_neurons(
    layer: Layer, state: LayerState, currents: Array, held: bool, numbers: tuple[int, ...], course: Course
) -> tuple[LayerState, Array, Any, Array | None]:
    """Returns what `run_layer` does, from the layer's feed-forward currents: of all time steps, or held."""
    if not integrates(layer) and state.step is None:  # there is no state, and what is held is given once
        return state, currents[None] if held else currents, state if course.recorded else None, None
    at_once = course.in_parallel and course.begins and layer.recurrent is None and associative.reset_free(layer.cell)
    if held and (at_once or layer.recurrent is not None):
        currents, held = course.over_time(currents[None]), False
    if at_once:
        keys = None if course.key is None else jax.vmap(lambda t: course.key_at(t, numbers))(course.times)
        after, sent = associative.run(layer.cell, state.cell, currents, keys)
        states = _states(state, after, course)
        return jax.tree.map(lambda a: a[-1], states), sent, states, None
    if course.in_kernels and not isinstance(layer.cell, LI):
        return _run_kernel(layer, state, course.over_time(currents[None]) if held else currents, numbers, course)
    sequence = getattr(layer.cell, "sequence", None)
    if callable(sequence) and layer.recurrent is None and course.running is None and not intervening():
        currents = course.over_time(currents[None]) if held else currents
        keys = None if course.key is None else jax.vmap(lambda t: course.key_at(t, numbers))(course.times)
        after, sent = sequence(state.cell, currents, keys)
        states = _states(state, after, course)
        given = after.membrane if layer.reads == "membrane" else sent
        return jax.tree.map(lambda a: a[-1], states), given, states, sent
    if (
        course.begins
        and not course.recorded
        and course.memory == "full"
        and not held
        and not (course.sends and layer.recurrent is not None and layer.reads == "membrane")  # which hides its spikes
        and fused.supports(layer, currents)
    ):
        final, sent = fused.run(layer, currents)
        return course.after(state, final), sent, None, sent
    if course.fuses(layer, currents):
        final, sent = fused_images.run(layer, currents[None] if held else currents, course.length)
        return course.after(state, final), sent, None, None
    alone = layer.recurrent is None or course.running is not None
    one = partial(_scan, running=course.running) if alone else _scan_recurrent
    return one(layer, state, currents, held, course, course.times, numbers)


def _run_kernel(
    layer: Layer, state: LayerState, currents: Array, numbers: tuple[int, ...], course: Course
) -> tuple[LayerState, Array, Any, Array | None]:
    """Returns what `run_layer` does, by one kernel for all time steps.

    Raises:
        ValueError: neurons that it does not take.
    """
    from dsnn.simulate import fused_lif  # Pallas takes a moment to load

    problem = fused_lif.refusal(layer.cell, currents, course.key, recurrent=layer.recurrent is not None)
    if problem is not None:
        raise ValueError(problem)
    keys = None if course.key is None else jax.vmap(lambda t: course.key_at(t, numbers))(course.times)
    reads = layer.reads == "membrane"
    ran = fused_lif.run(layer.cell, state.cell, currents, keys, read=reads or course.recorded)
    states = None
    if course.recorded:
        states = _states(state, state.cell._replace(membrane=ran.membranes), course)
    final = course.after(state, LayerState(ran.state, None, None))
    return final, ran.membranes if reads and ran.membranes is not None else ran.spikes, states, ran.spikes


def _states(state: LayerState, after: Any, course: Course) -> LayerState:
    """Returns a layer's states after every step, of those of its cell; what nobody reads of them is dead code."""
    return LayerState(after, None, None if state.step is None else state.step + 1 + course.times)


def _scan(layer, state, currents, constant, course, times, numbers, running=None):  # type: ignore[no-untyped-def]
    """Returns what `run_layer` does, by a scan; its own spikes where it has a recurrent kernel, which reads them."""
    apart = layer.recurrent is not None and layer.reads == "membrane"

    def body(state, inputs):  # type: ignore[no-untyped-def]
        t, current, share = inputs
        new, out = layer.integrate(state, currents if constant else current, course.key_at(t, numbers))
        state = advanced(state, new, share)
        return state, (out, state if course.recorded else None, new.spikes if apart else None)

    steps = (times, None if constant else currents, running)
    final, (out, states, spikes) = scan(body, state, steps, course.length, course.memory)
    return final, out, states, spikes if apart else out


def _scan_recurrent(layer, state, currents, constant, course, times, numbers):  # type: ignore[no-untyped-def]
    """`_scan` whose backward pass adds up the gradient of the recurrent kernel in one product after the loop.

    Inside the loop it would be a product and an addition to the whole kernel at every step. What the loop gives is the
    gradient of the currents, and a recurrent current is one of them.
    """
    graph, weights = nnx.split(layer)

    def loop(kernel, weights, state, currents, fixed):  # type: ignore[no-untyped-def]
        inner = nnx.merge(graph, weights)
        inner.recurrent[...] = kernel
        key, times = fixed
        return _scan(inner, state, currents, constant, dataclasses.replace(course, key=key), times, numbers)

    def forward(kernel, weights, state, currents, fixed):  # type: ignore[no-untyped-def]
        out, pullback = jax.vjp(lambda *moving: loop(kernel, *moving, fixed), weights, state, currents)
        return out, (pullback, kernel, weights, jnp.concatenate([state.spikes[None], out[3][:-1]]))

    def backward(kept: Any, grad: Any) -> tuple[Array, Any, Any, Array, None]:
        pullback, kernel, weights, before = kept
        to_weights, to_state, to_currents = pullback(grad)
        rows = before.reshape(-1, before.shape[-1])
        inner = nnx.merge(graph, weights)
        product = jax.vjp(lambda kernel: inner.feed_back(rows, kernel), kernel)[1]
        back = to_currents.reshape(rows.shape).astype(jax.eval_shape(inner.feed_back, rows, kernel).dtype)
        return product(back)[0], to_weights, to_state, to_currents, None

    run = both_ways(forward, backward, loop, run=loop)
    return run(layer.recurrent[...], weights, state, currents, (course.key, times))


def fold(drive: Callable[[Array], Array], xs: Array) -> Array:
    """Applies what has no state to all time steps at once."""
    time, batch = xs.shape[:2]
    out = drive(xs.reshape(time * batch, *xs.shape[2:]))
    return out.reshape(time, batch, *out.shape[1:])


def sending(states: Any, sent: dict[str, Array]) -> dict[str, Array]:
    """Records what is sent at every step, whatever share of the step ran, and none of the states."""
    return sent


def by_share(sent: dict[str, Array], running: Float[Array, " time"] | None) -> dict[str, Array]:
    """Returns what was sent at every step by how far the step ran; None is all the way."""
    if running is None:
        return sent
    return {name: s * running.reshape(-1, *[1] * (s.ndim - 1)) for name, s in sent.items()}
