"""A network of one's own as the framework runs it: with the first product apart, and what each wire carries by name."""

import inspect
import math
from typing import Any

import jax.numpy as jnp
from flax import nnx

from dsnn.networks.layers import Layer
from dsnn.networks.stack import Stack, running_logits
from dsnn.protocols import Output
from dsnn.types import Array, Float, Key

OUTPUT = "output"
"""Name of what the network gives, beside the names of its wires."""

INSIDE = "network."
"""What the names of its parameters begin with."""


class Whole(nnx.Module):
    """A `dsnn.protocols.Network` with the methods by which loops run a `Stack`.

    It has no layers to whoever looks for them.

    Args:
        network: any module with ``in_shape``, ``out_shape``, ``init(batch)`` and ``step(state, x, key)`` or
            ``sequence(state, xs, keys)``.
        kept_inputs: numbers of the inputs that it still reads; None is all.
        given_shape: shape of the inputs before that.
        flat: whether these are numbers of all inputs in a row, and not along the last axis.
    """

    names = (OUTPUT,)
    blocks: tuple[str, ...] = ()

    def __init__(self, network: Any, kept_inputs: Any = None, given_shape: tuple[int, ...] = (), *, flat: bool = False):
        self.network, self.given_shape, self.flat = network, tuple(given_shape), flat
        self.kept_inputs = None if kept_inputs is None else nnx.Variable(jnp.asarray(kept_inputs, jnp.int32))
        self.scaling: Any = None

    def __repr__(self) -> str:
        said = f"{type(self.network).__name__}: inputs {self.in_shape}, outputs {self.out_shape}"
        inside = getattr(self.network, "summary", None)
        return f"{said}\n{inside()}" if callable(inside) else said

    __str__ = __repr__

    def layers(self) -> tuple[()]:
        """Returns nothing: what is inside is the network's own business."""
        return ()

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of one input without the batch axis."""
        return self.given_shape or tuple(self.network.in_shape)

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of one output without the batch axis."""
        return tuple(self.network.out_shape)

    def wiring(self) -> Any:
        """Returns what of it could be spared, or None where it does not say."""
        own = getattr(self.network, "wiring", None)
        return own() if callable(own) else None

    def carried(self, inputs: Array, sent: dict[str, Array], *, held: bool) -> dict[str, Array]:
        """Returns what went over each wire: what the network says it sent."""
        return sent

    def around(self, network: Any) -> "Whole":
        """Returns another network that reads the same of its inputs."""
        kept = None if self.kept_inputs is None else self.kept_inputs[...]
        new = Whole(network, kept, self.given_shape, flat=self.flat)
        return new if self.scaling is None else new.scaled(*(part[...] for part in self.scaling))

    def scaled(self, shift: Any, scale: Any) -> "Whole":
        """Returns the network that takes inputs as they come, and does with (x - shift) / scale what this one does."""
        new = nnx.clone(self)
        new.scaling = nnx.data([nnx.Variable(jnp.asarray(part, jnp.float32)) for part in (shift, scale)])
        return new

    def with_gates(self, gates: dict[str, Array]) -> "Whole":
        """Returns the network with the gates that it opens and closes itself."""
        new = nnx.clone(self)
        new.network = new.network.with_gates(gates)
        return new

    def init(self, batch_shape: int | tuple[int, ...]) -> Any:
        """Returns the state before the first step."""
        return self.network.init(batch_shape if isinstance(batch_shape, int) else math.prod(batch_shape))

    def drive(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """Returns what the network reads of an input."""
        if self.scaling is not None:
            x = (x - self.scaling[0][...]) / self.scaling[1][...]
        if self.kept_inputs is None:
            return x
        rows = x.reshape(x.shape[0], math.prod(x.shape[1:])) if self.flat else x
        return jnp.take(rows, self.kept_inputs[...], axis=-1)

    def advance(self, state: Any, x: Array, key: Key[Array, ""] | None = None) -> tuple[Any, dict[str, Array]]:
        """Returns the next state, and by name what was sent and the output; a key is consumed."""
        state, output = self.network.step(state, x, key)
        given = output if isinstance(output, Output) else Output(output)
        return state, {**given.sent, OUTPUT: given.out}

    @property
    def has_sequence(self) -> bool:
        """Whether it can run all time steps at once."""
        return callable(getattr(self.network, "sequence", None))

    @property
    def has_step(self) -> bool:
        """Whether it can run one time step after another, so that an example may stop."""
        return callable(getattr(self.network, "step", None))

    def sequence(
        self,
        state: Any,
        xs: Float[Array, "time batch ..."],
        keys: Key[Array, " time"] | None = None,
        *,
        running: Float[Array, " time"] | None = None,
        statistics: dict[str, Array] | None = None,
    ) -> tuple[Any, dict[str, Array]]:
        """Returns the final state, and by name what was sent at every step and the outputs; keys are consumed.

        With ``statistics`` it is in training, where the network has such a form (``sequence`` takes ``train``); those
        that it gives are put there by the names of its parameters.
        """
        sequence = self.network.sequence
        trains = statistics is not None and "train" in inspect.signature(sequence).parameters
        state, output = sequence(state, xs, keys, running=running, **({"train": True} if trains else {}))
        given = output if isinstance(output, Output) else Output(output)
        if statistics is not None:
            statistics.update({INSIDE + name: value for name, value in given.stats.items()})
        return state, {**given.sent, OUTPUT: given.out}

    def step(self, state: Any, x: Array, key: Key[Array, ""] | None = None) -> tuple[Any, Array]:
        """Returns the next state and the output; a key is consumed."""
        state, given = self.advance(state, self.drive(x), key)
        return state, given[OUTPUT]

    @property
    def readout_kind(self) -> str:
        """How outputs become decisions: "own" where the network computes them, else as it names, else "mean"."""
        return (
            "own" if callable(getattr(self.network, "logits", None)) else getattr(self.network, "readout_kind", "mean")
        )

    def logits(
        self, outputs: Float[Array, "time batch class"], running: Float[Array, " time"] | None = None
    ) -> Float[Array, "time batch class"]:
        """Returns the decision after each step: the network's own, or the running mean of its outputs."""
        if self.readout_kind == "own":
            return self.network.logits(outputs, running)
        return running_logits(outputs, self.readout_kind, running)


def is_own(names: tuple[str, ...]) -> bool:
    """Returns whether these are the names of parameters of a network that is no stack."""
    return bool(names) and names[0].startswith(INSIDE)


def is_weight(name: str) -> bool:
    """Returns whether a parameter of such a network is a weight, and no constant of a cell."""
    return name.startswith(INSIDE) and ".cell." not in name


Runnable = Stack | Whole
"""A network as loops run it."""


def is_network(module: Any) -> bool:
    """Returns whether a module is a network that is no stack, and not a layer or a cell."""
    if isinstance(module, Stack | Layer):
        return False
    return isinstance(module, Whole) or not _lacking(module)


def _lacking(module: Any) -> list[str]:
    """Returns what a module has not that a network has."""
    lacking = [name for name in ("in_shape", "out_shape", "init") if not hasattr(module, name)]
    return lacking + ["step"] * (not hasattr(module, "step") and not hasattr(module, "sequence"))


def as_network(made: Any, what: str) -> Any:
    """Returns what a factory or a user gave as a network that loops can run.

    Args:
        made: a `Stack`, or what is a `dsnn.protocols.Network`.
        what: where it is from, for messages.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(made, Stack | Whole):
        return made
    lacking = _lacking(made)
    if not isinstance(made, nnx.Module) or lacking:
        says = f"without {lacking[0]}" if lacking else "that is no flax.nnx.Module"
        raise ValueError(
            f"{what} must give a network, a flax.nnx.Module with in_shape, out_shape, init(batch) and step(state, x, "
            f"key) or sequence(state, xs, keys), got a {type(made).__name__} {says}; see dsnn.protocols.Network."
        )
    return Whole(made)
