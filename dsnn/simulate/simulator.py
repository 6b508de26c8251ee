"""From a batch of examples to running logits: encoding, the time loop and the readout in one pure function."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dsnn import resolve
from dsnn.parameters import STATISTICS, Params, Template
from dsnn.rng import stream
from dsnn.simulate import encode
from dsnn.simulate.sequential_images import Scan
from dsnn.simulate.unroll import unroll, unroll_sent, unroll_trained
from dsnn.types import Array, Float, Key, Shaped

RUNNING = "time.running"
"""Name among a network's parameters of how far each step runs (see `dsnn.unroll`); absent where every step does."""

SITES = "sites."
"""What the names of gates that a network opens and closes itself begin with, among its parameters."""

ENCODINGS = ("direct", "rate", "latency", "temporal", "scan")


class Pass(NamedTuple):
    """A batch in training, with what its energy is counted on.

    Attributes:
        logits: running.
        statistics: of norms after it, as of `Simulator.trained`.
        model: the network that ran.
        inputs: what it was given, encoded.
        sent: what went out at every step, as `dsnn.simulate.unroll.unroll_sent` gives it.
        running: how far each step ran, None: every step.
    """

    logits: Float[Array, "time batch class"]
    statistics: Params
    model: Any
    inputs: Array
    sent: dict[str, Array]
    running: Float[Array, " time"] | None


@dataclasses.dataclass(frozen=True)
class Simulator:
    """How examples run through a network of given parameters.

    Attributes:
        template: the network without its parameters, see `dsnn.parameters.split`.
        steps: number of time steps T (for "temporal" data their own).
        encoding: "direct" holds the input for all steps, "rate" draws Bernoulli spikes, "latency" one spike per input,
            "temporal" takes ``[batch, time, ...]`` as it is, "scan" shows an image row by row or pixel by pixel;
            ``package.module:function`` is called ``(x, steps=, key=)`` and gives ``[time, batch, ...]``.
        schedule: see `dsnn.unroll`.
        memory: see `dsnn.unroll`.
        scan: how images become sequences, for "scan".
        stochastic: whether keys reach the neurons; without, firing is deterministic.
    """

    template: Template
    steps: int
    encoding: str = "direct"
    schedule: str = "auto"
    memory: str | int = "full"
    scan: Scan = dataclasses.field(default_factory=Scan)
    stochastic: bool = True

    def __post_init__(self) -> None:
        resolve.check_name("encoding", self.encoding, ENCODINGS)
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}.")

    @property
    def held(self) -> bool:
        """Whether the first product is computed once per inference."""
        return self.encoding == "direct"

    @property
    def analog(self) -> bool:
        """Whether inputs carry values and not spikes."""
        whole = self.encoding == "direct" or resolve.is_foreign(self.encoding)
        return whole or (self.encoding == "scan" and self.scan.analog)

    def example(self, params: Params) -> Float[Array, "1 ..."]:
        """Returns a batch of one blank example."""
        shape = self.template.build(params).in_shape
        if self.encoding == "scan":
            # an image with one pixel a feature has the shape that matters, as many steps and features
            return jnp.zeros((1, *self.scan.blank(self.steps, shape[0])))
        return jnp.zeros((1, self.steps, *shape) if self.encoding == "temporal" else (1, *shape))

    def encode(self, x: Shaped[Array, "batch ..."], key: Key[Array, ""] | None) -> Array:
        """Returns the network's inputs: held ``[batch, ...]`` or ``[time, batch, ...]``; a key is consumed.

        Events that are stored as bytes become numbers here, a batch at a time.
        """
        if x.dtype == jnp.uint8:
            x = x.astype(jnp.float32)
        match self.encoding:
            case "direct":
                return x
            case "rate":
                if key is None:
                    raise ValueError("rate encoding needs a key, got None; use direct or latency encoding without one.")
                return encode.rate(x, self.steps, key)
            case "latency":
                return encode.latency(x, self.steps)
            case "scan":
                return self.scan(x)
            case own if resolve.is_foreign(own):
                return resolve.called("train.encoding", own, {"steps": self.steps, "key": key}, {}, given=(x,))
            case _:
                return jnp.swapaxes(x, 0, 1)

    def run(
        self,
        params: Params,
        x: Shaped[Array, "batch ..."],
        key: Key[Array, ""] | None = None,
        record: Callable[[Any, Any], Any] | None = None,
        adapt: Callable[[Any], Any] | None = None,
    ) -> tuple[Float[Array, "time batch class"], Array, Any]:
        """Returns the running logits, the encoded inputs and what ``record`` kept; a key is consumed.

        ``adapt`` changes the built network first, for example to drop the inputs of its synapses by chance.
        """
        model, inputs, noise, running = self._prepared(params, x, key, adapt)
        schedule, options = self._ahead(adapt), self._options(running)
        outputs, _, records = unroll(model, inputs, noise, record, schedule, **options)
        return model.logits(outputs, running), inputs, records

    def trained(
        self,
        params: Params,
        x: Shaped[Array, "batch ..."],
        key: Key[Array, ""] | None = None,
        adapt: Callable[[Any], Any] | None = None,
    ) -> tuple[Float[Array, "time batch class"], Params]:
        """Returns the running logits of a batch in training, and the normalisation statistics after it.

        Norms go by this batch; the statistics are those of ``params`` (`dsnn.parameters.STATISTICS`) moved on. A key is
        consumed. Without norms the logits are those of `logits`, and there are no statistics.

        Raises:
            ValueError: one number a channel, or the schedule "step": see `dsnn.networks.norms.TdBN`.
        """
        if not self.template.statistics:
            return self.logits(params, x, key, adapt), {}
        model, inputs, noise, running = self._prepared(params, x, key, adapt)
        outputs, new = unroll_trained(model, inputs, noise, self.schedule, **self._options(running))
        return model.logits(outputs, running), self._after(params, new)

    def observed(
        self,
        params: Params,
        x: Shaped[Array, "batch ..."],
        key: Key[Array, ""] | None = None,
        adapt: Callable[[Any], Any] | None = None,
    ) -> Pass:
        """Returns what `trained` does with what the network sent on its way; a key is consumed."""
        model, inputs, noise, running = self._prepared(params, x, key, adapt)
        normed, options = bool(self.template.statistics), self._options(running)
        schedule = self.schedule if normed else self._ahead(adapt)
        outputs, sent, new = unroll_sent(model, inputs, noise, schedule, trained=normed, **options)
        return Pass(model.logits(outputs, running), self._after(params, new), model, inputs, sent, running)

    def _ahead(self, adapt: Any) -> str:
        """Returns the schedule: what draws masks for every time step has to see all steps at once."""
        return "layer" if adapt is not None and self.schedule == "auto" else self.schedule

    def _options(self, running: Array | None) -> dict[str, Any]:
        return {"steps": self.steps if self.held else None, "memory": self.memory, "running": running}

    def _after(self, params: Params, new: dict[str, Array]) -> Params:
        """Returns the statistics among parameters after a batch that gave new ones."""
        kept = {name: params.get(name, value) for name, value in self.template.statistics.items()}
        return kept | {STATISTICS + name: value for name, value in new.items()}

    def _prepared(self, params: Params, x: Array, key: Any, adapt: Any) -> tuple[Any, Array, Any, Array | None]:
        """Returns the network, its inputs, the key of its noise, and how far each step runs; a key is consumed."""
        model, running = self.built(params)
        model = model if adapt is None else adapt(model)
        inputs = self.encode(x, None if key is None else stream(key, "data"))
        noise = None if key is None or not self.stochastic else stream(key, "noise")
        return model, inputs, noise, running

    def built(self, params: Params) -> tuple[Any, Array | None]:
        """Returns the network of these parameters, and how far each step runs (None: every step)."""
        switches = {name.removeprefix(SITES): value for name, value in params.items() if name.startswith(SITES)}
        own = {name: params[name] for name in params if name != RUNNING and not name.startswith(SITES)}
        model = self.template.build(own)
        return model.with_gates(switches) if switches else model, params.get(RUNNING)

    def logits(
        self,
        params: Params,
        x: Shaped[Array, "batch ..."],
        key: Key[Array, ""] | None = None,
        adapt: Callable[[Any], Any] | None = None,
    ) -> Float[Array, "time batch class"]:
        """Returns the running logits; a key is consumed."""
        return self.run(params, x, key, adapt=adapt)[0]


def keep_spikes(states: Any, spikes: dict[str, Array]) -> dict[str, Array]:
    """Records every layer's output."""
    return spikes


def keep_traces(states: Any, spikes: dict[str, Array]) -> dict[str, tuple[Array | None, Array]]:
    """Records every layer's membrane, None where the state of its cells has no such field, and its output."""

    def membrane(name: str) -> Array | None:
        state = states.get(name) if isinstance(states, dict) else None
        return getattr(getattr(state, "cell", None), "membrane", None)

    return {name: (membrane(name), spikes[name]) for name in spikes}


def log_likelihood(logits: Float[Array, "*axes batch class"], y: Array) -> Float[Array, "*axes batch"]:
    """Returns log p(y | logits) of class labels."""
    log_p = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(log_p, jnp.broadcast_to(y, log_p.shape[:-1])[..., None], -1)[..., 0]


def __getattr__(name: str) -> object:
    if name == "Forward":
        raise ImportError("Forward is Simulator since dsnn 0.2.0; import dsnn.simulate.simulator.Simulator.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
