"""NIR's nodes with memory, each a cell of `dsnn.cells` in the step order that the package states."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from dsnn import escape
from dsnn.cells import LI, LIF, CuBaLIF
from dsnn.nir.fields import LARGEST, MAX_VALUES, Clock, NIRError, Source
from dsnn.nir.synapses import Shape, fitting
from dsnn.store.untrusted import one_line
from dsnn.surrogate import get, heaviside
from dsnn.types import Array, Key

NOISES = {"Logistic": escape.Logistic, "Gaussian": escape.Gaussian}
NOTED = ("reset", "reset_timing", "compare", "refractory", "detach_reset")


class Neuron(nnx.Module):
    """I, LI, IF, LIF, CubaLI or CubaLIF over one input shape.

    The input is scaled by ``gain`` and, for CubaLI, filtered by ``synapse`` first; ``offset`` is the resting membrane
    of an integrator that does not fire.

    Args:
        source: the node.
        in_shape: shape of one input.
        clock: how continuous time becomes steps.
    """

    def __init__(self, source: Source, in_shape: Shape, clock: Clock):
        self.source, self.out_shape = source, in_shape
        for field in source.fields:
            fitting(source, field, in_shape)
        try:
            with np.errstate(all="ignore"):
                self.gain, self.synapse, self.cell, self.offset = _parts(source, clock)
        except NIRError:
            raise
        except (ValueError, TypeError, OverflowError, AttributeError) as error:
            raise NIRError(f"node {source.name!r} of type {source.kind} is out of range: {one_line(error)}.") from None

    def init(self, batch: int) -> tuple[Any, Any]:
        """Returns the states at rest of the synapse (None without one of its own) and of the cell."""
        shape = (batch, *self.out_shape)
        return None if self.synapse is None else self.synapse.init(shape), self.cell.init(shape)

    def step(self, state: tuple[Any, Any], x: Array, key: Key[Array, ""] | None = None) -> tuple[Any, Array]:
        """Returns the next state, and spikes or membranes; a key is consumed."""
        synapse, cell = state
        x = x if isinstance(self.gain, float) and self.gain == 1 else x * _value(self.gain)
        if self.synapse is not None:
            synapse, x = self.synapse.step(synapse, x)
        cell, out = self.cell.step(cell, x, key)
        offset = _value(self.offset)
        return (synapse, cell), out if isinstance(offset, float) and offset == 0 else out + offset

    def fields(self) -> dict[str, Any]:
        """Returns the NIR fields."""
        return dict(self.source.fields)


def _parts(source: Source, clock: Clock) -> tuple[Any, Any, Any, Any]:
    """Returns gain, synapse, cell and offset of a neuron."""
    r, dt, rest = _double(source, "r"), clock.dt, _double(source, "v_leak", 0.0)
    cuba = source.kind in ("CubaLI", "CubaLIF")
    if source.kind in ("I", "IF"):
        decay, k = np.ones(()), r * dt
    else:
        decay = _decay(source, "tau_mem" if cuba else "tau", clock)
        k = (1 - decay) * r
    slow = _decay(source, "tau_syn", clock) if cuba else np.zeros(())
    drive = (1 - slow) * _double(source, "w_in", 1.0)
    if not all(np.abs(value).max(initial=0.0) <= LARGEST for value in (decay, k, slow, drive)):
        raise NIRError(f"node {source.name!r} of type {source.kind} leaves single precision with dt = {dt} seconds.")
    options: dict[str, Any] = {"beta": _plain(decay), "input_scale": _plain(k)}
    match source.kind:
        case "I" | "LI":
            return 1.0, None, LI(**options), _array(rest)
        case "CubaLI":
            return 1.0, LI(beta=_plain(slow), input_scale=_plain(drive)), LI(**options), _array(rest)
    options |= {"rest": _plain(rest), **_spiking(source, dt)}
    if source.kind == "CubaLIF":
        return _array(drive), None, CuBaLIF(alpha=_plain(slow), **options), 0.0
    return 1.0, None, LIF(**options), 0.0


class Comparison(nnx.Module):
    """Threshold: a spike where the input exceeds the threshold.

    Args:
        source: the node.
        in_shape: shape of one input.
        clock: not used.
    """

    def __init__(self, source: Source, in_shape: Shape, clock: Clock):
        self.source, self.out_shape = source, fitting(source, "threshold", in_shape)
        self.threshold, self.surrogate = _array(_double(source, "threshold")), get("atan")

    def init(self, batch: int) -> None:
        """Returns None; a comparison has no state."""

    def step(self, state: None, x: Array, key: Key[Array, ""] | None = None) -> tuple[None, Array]:
        """Returns no state and the spikes; a key is accepted and not used."""
        return None, heaviside(x - _value(self.threshold), self.surrogate)

    def fields(self) -> dict[str, Any]:
        """Returns the NIR fields."""
        return dict(self.source.fields)


class DelayState(NamedTuple):
    """The last inputs, newest first."""

    past: Array


class Delayed(nnx.Module):
    """Delay, y(t) = x(t - tau), in whole steps per element; before the first input y is 0.

    Args:
        source: the node.
        in_shape: shape of one input.
        clock: how seconds become steps.
    """

    def __init__(self, source: Source, in_shape: Shape, clock: Clock):
        self.source, self.out_shape = source, fitting(source, "delay", in_shape)
        seconds = np.broadcast_to(_double(source, "delay"), in_shape)
        with np.errstate(over="ignore"):
            counted = np.round(seconds / clock.dt)
        if np.abs(counted).max(initial=0) > MAX_STEPS:
            raise NIRError(
                f"delay of node {source.name!r} must be at most {MAX_STEPS} steps, got {np.abs(counted).max():g}."
            )
        steps = counted.astype(np.int64)
        if steps.min(initial=0) < 0:
            raise NIRError(f"delay of node {source.name!r} must not be negative, got {seconds.min()} seconds.")
        if not clock.round_delays and (np.abs(steps * clock.dt - seconds) > 1e-3 * clock.dt).any():
            odd = seconds[np.abs(steps * clock.dt - seconds) > 1e-3 * clock.dt].flat[0]
            raise NIRError(
                f"delay of node {source.name!r} must be a multiple of dt = {clock.dt} seconds, got {odd}; choose "
                "another dt or set round_delays=True."
            )
        self.longest = int(steps.max(initial=0))
        if self.longest * steps.size > MAX_VALUES:
            raise NIRError(
                f"node {source.name!r} may remember {MAX_VALUES} values, got {self.longest} steps of {steps.size}."
            )
        self.steps = nnx.Variable(jnp.asarray(steps, jnp.int32))
        self.strict = bool(steps.min(initial=1) >= 1)

    def init(self, batch: int) -> DelayState:
        """Returns silence."""
        return DelayState(jnp.zeros((self.longest, batch, *self.out_shape)))

    def read(self, state: DelayState, x: Array | None = None) -> Array:
        """Returns the output of this step; the input is needed only where a delay is 0."""
        now = jnp.zeros_like(state.past[:1]) if x is None else x[None]
        recent = jnp.concatenate([now, state.past])
        return jnp.take_along_axis(recent, self.steps[...][None, None], axis=0)[0]

    def write(self, state: DelayState, x: Array) -> DelayState:
        """Returns the state with this step's input."""
        return DelayState(jnp.concatenate([x[None], state.past])[: self.longest])

    def fields(self) -> dict[str, Any]:
        """Returns the NIR fields."""
        return dict(self.source.fields)


MAX_STEPS = 100_000


def _double(source: Source, field: str, default: float | None = None) -> np.ndarray:
    if default is not None and field not in source.fields:
        return np.asarray(default, np.float64)
    return np.asarray(source[field], np.float64)


def _decay(source: Source, field: str, clock: Clock) -> np.ndarray:
    tau = _double(source, field)
    if clock.method == "exp":
        return np.asarray(np.exp(-clock.dt / tau))
    if (tau < clock.dt * (1 - 1e-12)).any():
        raise NIRError(
            f"{field} of node {source.name!r} must be at least dt = {clock.dt} seconds, got {tau.min()}; choose a "
            'smaller dt or method="exp".'
        )
    return np.asarray(np.maximum(1 - clock.dt / tau, 0))


def _plain(array: np.ndarray | np.floating) -> Any:
    """Returns equal values as one number, which a compiler can fold, and others as an array."""
    array = np.asarray(array)
    return float(array.flat[0]) if array.size and (array == array.flat[0]).all() else array


def _array(array: np.ndarray | np.floating) -> Any:
    plain = _plain(array)
    return plain if isinstance(plain, float) else nnx.Variable(jnp.asarray(plain, jnp.float32))


def _value(parameter: Any) -> Any:
    return parameter[...] if isinstance(parameter, nnx.Variable) else parameter


def _spiking(source: Source, dt: float | int) -> dict[str, Any]:
    """Returns threshold, reset and, where this library wrote the file, what NIR has no field for."""
    notes = source.notes
    if unknown := notes.keys() - {*NOTED, "noise", "surrogate", "cell"}:
        raise NIRError(f"metadata of node {source.name!r} has the unknown entry {sorted(unknown)[0]!r}.")
    options: dict[str, Any] = {
        "threshold": _plain(_double(source, "v_threshold")),
        "reset": _plain(_double(source, "v_reset", 0.0)),
        "dt": 1e3 * dt,
    }
    options |= {name: notes[name] for name in NOTED if name in notes}
    try:
        if "surrogate" in notes:
            options["surrogate"] = get(notes["surrogate"][0], **dict(notes["surrogate"][1]))
        return options | ({"noise": _noise(source, notes["noise"])} if notes.get("noise") else {})
    except (TypeError, IndexError, KeyError, ValueError, AttributeError, OverflowError) as error:
        raise NIRError(f"metadata of node {source.name!r} is not what dsnn writes: {one_line(error)}.") from None


def _noise(source: Source, noted: Any) -> Any:
    if not isinstance(noted, Mapping) or noted.get("kind") not in NOISES:
        raise NIRError(f"noise of node {source.name!r} must be one of {', '.join(NOISES)}, got {noted!r}.")
    return NOISES[noted["kind"]](float(noted["width"]))
