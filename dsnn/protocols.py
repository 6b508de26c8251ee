"""Every extension point on one page: what a piece of one's own has to be, wherever an option names one.

A piece is named ``package.module:attribute``, see `dsnn.resolve`. What a protocol calls optional may be left out; what
is lost then is said in one sentence and never by a traceback.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from dsnn.types import Array, Key

if TYPE_CHECKING:
    import optax

    from dsnn.data import Split, Stream
    from dsnn.parameters import Params


class Cell(Protocol):
    """A layer of neurons: ``model.cell``, ``model.readout_cell``.

    What is named is a class or a factory. It is called with those of ``neurons``, ``beta``, ``threshold``, ``reset``,
    ``noise``, ``surrogate``, ``key`` that its signature names, and with ``model.options``. Learnable constants are
    `nnx.Param`, fixed ones Python floats.

    Optional: ``cost() -> dsnn.energy.NeuronCost``, what an update costs; without, it is priced as an LIF, and the
    report says so. ``cut(index) -> Cell``, the cell of some of its neurons, for arrays that are no `nnx.Variable` with
    the neurons last. A field ``membrane`` of the state is drawn in the report, with a ``threshold`` of the cell.
    ``shared``: True where all neurons have the same constants, so that no array of the cell is cut with them.
    ``sequence(state, currents, keys=None) -> (states, spikes)``, all time steps at once: currents ``[time, batch,
    ...]`` and a key for each step (None: deterministic) to the states after every step, time first, and the spikes;
    networks that run layer by layer take it, and it gives the numbers of ``step`` up to rounding. ``at_once``: True
    where it alone runs and ``step`` raises. ``steps``: number of time steps that the cell has parameters for.
    """

    def init(self, shape: tuple[int, ...]) -> Any:
        """Returns the state at rest, any pytree, for currents of a shape ``(batch, *neurons)``."""
        ...

    def step(self, state: Any, current: Array, key: Key[Array, ""] | None = None) -> tuple[Any, Array]:
        """Returns the next state and the spikes; a key is consumed, None is the deterministic neuron."""
        ...


class Normalised(NamedTuple):
    """What a norm makes of the currents of a batch in training.

    Attributes:
        currents: normalised by the batch.
        statistics: the norm's own after it, by the names of its `nnx.BatchStat`; the learner keeps them.
    """

    currents: Array
    statistics: dict[str, Array]


@runtime_checkable
class Norm(Protocol):
    """What normalises the feed-forward current on its way to the cell: ``dsnn.networks.Layer(norm=)``.

    A `flax.nnx.Module`; what is learned is an `nnx.Param`, which has no prior. Arrays whose last axis is as long as
    ``scale``'s have a number for each channel, and are cut with the channels.

    Optional:

    - ``trained(currents, weights=None, steps=None) -> Normalised`` and ``momentum``, of a norm with statistics
      (`nnx.BatchStat`): what it does in training, all time steps at once, ``[time, batch, ..., channel]``; of an input
      that is held time is one long, or left out without ``steps``. ``weights`` ``[time]`` is how far each step runs,
      and ``steps`` ``[time]`` the number of each, for a norm that has ``steps``. ``momentum`` is the share of the old
      statistics in the new ones, and is set to zero when those of the decided network are measured: a ``variance``
      beside a ``mean`` is pooled over batches then, any other statistic is averaged.
    - ``steps``: number of time steps, of a norm that treats each by itself; it is told the number of the step then. One
      without treats all alike, so that a held input is normalised once.
    - ``folded(synapse) -> (synapse, norm)``: the synapse that does the norm's work, as far as it can, and the norm that
      is left, with parameters of other names, or None. Deployment and compaction ask for it; a norm without stays.
    - ``cost() -> dsnn.energy.NeuronCost``: operations for each current once all that can be is folded; without, it is
      priced as nothing.
    - ``mixes``: True where a channel depends on others of its place. No gate closes such channels: the current of a
      closed one would still be needed.

    Attributes:
        scale: ``[..., channel]``, to which what it gives, but for a ``shift``, is proportional.
    """

    scale: Any

    def __call__(self, currents: Array, steps: Array | None = None) -> Array:
        """Returns normalised currents, by the statistics that it has.

        Args:
            currents: ``[..., channel]``.
            steps: the number of the step, from 0, for a norm that has ``steps``; or ``[time]`` numbers of the steps
                along the first axis of currents, which is one long where the same currents meet every step.
        """
        ...


CellFactory = Callable[[int], Any]
"""A cell for a number of neurons, as a network's factory gets it."""

NetworkFactory = Callable[..., Any]
"""``model.architecture``: ``(in_shape, classes, key=, cell=, **model.architecture_options) -> Network``.

It gets ``key`` and ``cell``, a `CellFactory`, where it names them.
"""


class Output(NamedTuple):
    """What a network gives at one step.

    Attributes:
        out: its output ``[batch, *out_shape]``.
        sent: what goes over each wire of its wiring, by the wire's name, before the gate: ``[batch, ...]``. What nobody
            records is dead code to the compiler.
        stats: new normalisation statistics by the path of each `nnx.BatchStat`, in training; the learner keeps them.
    """

    out: Array
    sent: dict[str, Array] = {}  # noqa: RUF012 - never changed
    stats: dict[str, Array] = {}  # noqa: RUF012 - never changed


@runtime_checkable
class Network(Protocol):
    """A network: what a `NetworkFactory` gives, or ``dsnn.fit(network=)`` takes. Any `nnx.Module` without Rngs.

    It reads its widths from its kernels, and keeps no membrane: states are what `init` and `step` return.

    Optional: ``logits(outputs, running=None) -> [time, batch, class]``, the decision after each step from the outputs
    ``[time, batch, *out_shape]`` of all, for which all steps run; or ``readout_kind``, a name of
    `dsnn.networks.stack.running_logits`; without, the running mean. ``wiring()``, see `Gateable`; without it nothing
    is gated and no energy is counted. ``shrink(keep)``, see `Shrinkable`.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    def init(self, batch: int) -> Any:
        """Returns the state before the first step, any pytree of arrays."""
        ...

    def step(self, state: Any, x: Array, key: Key[Array, ""] | None = None) -> "tuple[Any, Output | Array]":
        """Returns the next state and the output for one input; a bare array has sent nothing. A key is consumed."""
        ...


@runtime_checkable
class Sequence(Protocol):
    """A network that runs all time steps at once: parallel neurons, norms over time, delays, one product for all steps.

    `dsnn.unroll` takes this form where there is one and the schedule is not "step". A `Network` that has both forms
    gives the same numbers in both; one without ``step`` runs all steps of every example. Where ``train`` is among the
    arguments it is True in training: norms go by the batch then, and new statistics are in `Output.stats`.
    """

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]

    def init(self, batch: int) -> Any:
        """Returns the state before the first step, any pytree of arrays."""
        ...

    def sequence(
        self, state: Any, xs: Array, keys: Key[Array, " time"] | None = None, *, running: Array | None = None
    ) -> "tuple[Any, Output | Array]":
        """Returns the final state and the outputs.

        Args:
            state: before the first step.
            xs: ``[time, batch, ...]``.
            keys: one for each step, consumed, which `step` would get at that step; None is the deterministic network.
            running: ``[time]``, how far each step runs, in [0, 1]: a step of zero leaves states as they were. None is
                all the way. What is given and sent at a step is multiplied by it outside.

        Returns:
            the final state, and the outputs ``[time, batch, *out_shape]`` with what was sent, ``[time, batch, ...]``.
        """
        ...


class Axis(NamedTuple):
    """Which compute site each position along an axis is.

    Attributes:
        group: of sites.
        axis: of the kernel, or of what is sent over a wire without one.
        index: number of the site of each position; -1 is a position that no gate closes.
    """

    group: str
    axis: int
    index: np.ndarray  # type: ignore[assignment]  # the field's name, of a tuple's method


class Wire(NamedTuple):
    """One product of a network: events of senders, each of which reaches every receiver.

    Attributes:
        name: unique; what is sent over it stands under this name in `Output.sent`, with the senders as its last axis,
            or flattened where the kernel has rows for all of it.
        kernel: dotted path of its weights, whose rows gates scale; None for a product without weights.
        pre: the senders' sites: axes whose gates must all be open. Empty: never gated.
        post: the receivers' sites.
        within: sites ``group:i`` that must run too, such as a block or a head.
        fan: targets of an event for each receiver: 1, or by place for what is sent in places (a convolution).
        values: "spikes", or "analog" where each event costs a multiplication.
        once: reads the input, and is computed once an inference where that is held.
        senders: how many; read from the kernel where there is one.
        receivers: how many.
        recurrent: what is sent is read a step later.
        joined: sites ``group:i`` whose spikes are added to what is sent; where one of them runs, events are sums, which
            carry values.
        features: each sender is one place of a feature map, and may be a site of its own (``gates.features``), which
            ``shrink`` is told of as ``features``; `dsnn.networks.cut` does that to what a `dsnn.networks.Layer` reads.
        strides: of a convolution, whose kernel is [*window, channel, channel out]: weights that are zero are then left
            out of what an event costs place by place, and not as a mean.
        padding: of a convolution, "SAME", "VALID", or (before, behind) for each axis of places.
        dilation: of a convolution, places from one row or column of its window to the next; empty is one.
        groups: of a convolution: senders and receivers are split into so many, in order, and reach those of their own
            group alone. The kernel's axis of senders has those of one group, ``pre`` a site for each of all.
        at: the only step at which this is computed, from 0, or -1 for an example's last; None is every step. At the
            others nothing is sent, or what is sent is not read. The energy prior charges what is computed at a first
            step evenly over all, which is exact where all of them run.
        input: reads the input, whose values are those of the data; known where ``pre`` has the group ``input``.
    """

    name: str
    kernel: str | None
    pre: tuple[Axis, ...] = ()
    post: tuple[Axis, ...] = ()
    within: tuple[str, ...] = ()
    fan: Any = 1.0
    values: str = "spikes"
    once: bool = False
    senders: int = 0
    receivers: int = 0
    recurrent: bool = False
    joined: tuple[str, ...] = ()
    features: bool = False
    strides: tuple[int, ...] = ()
    padding: str | tuple[tuple[int, int], ...] = "VALID"
    dilation: tuple[int, ...] = ()
    groups: int = 1
    at: int | None = None
    input: bool = False


class NeuronGroup(NamedTuple):
    """Neurons that are updated at every step, or a norm of their currents that is.

    Attributes:
        name: unique.
        site: the sites of their last axis; None where nothing closes them.
        count: neurons, all places counted.
        cost: of an update, a `dsnn.energy.NeuronCost`; or the cell that is updated: one of `dsnn.cells`, or with
            ``cost()``, else it is priced as an LIF.
        arrays: dotted path of what holds a number for each, and the axis that is cut with them.
        within: sites ``group:i`` that must run too.
        norm: of what normalises currents and is no neuron: "token" if networks without time steps have it too, "step"
            if these have it in their kernels; empty for neurons.
        once: of a norm, that it is computed once an inference where the input is held.
        at: the only step at which they are updated, as of `Wire`.
    """

    name: str
    site: Axis | None
    count: int  # type: ignore[assignment]  # the field's name, of a tuple's method
    cost: Any
    arrays: dict[str, int] = {}  # noqa: RUF012 - never changed
    within: tuple[str, ...] = ()
    norm: str = ""
    once: bool = False
    at: int | None = None


class Wiring(NamedTuple):
    """What of a network could be spared, from shapes alone: groups of sites, the products between them, the neurons.

    Attributes:
        groups: number of sites by name; ``input`` are those of the inputs. What shares a shortcut shares a group.
        wires: every product.
        neurons: every group of neurons.
    """

    groups: dict[str, int]
    wires: tuple[Wire, ...]
    neurons: tuple[NeuronGroup, ...]


class Gateable(Network, Protocol):
    """A network that says what of it could be spared.

    Optional: ``with_gates(gates) -> Network``, by group ``[site]``, for sites that are no senders of a wire with a
    kernel, such as blocks: the network with that share of what they give.
    """

    def wiring(self) -> Wiring:
        """Returns its sites, wires and neurons."""
        ...


class Shrinkable(Gateable, Protocol):
    """A network that can be made smaller."""

    def shrink(self, keep: dict[str, np.ndarray]) -> Network:
        """Returns the network of the sites that are kept, by group; `dsnn.networks.cut` does most of it."""
        ...


class Guide(Protocol):
    """A family of posteriors over the weights: ``bayes.guide``, an object, or what a class or factory gives.

    A class of NumPyro's ``AutoGuide`` will do as well; it begins at the network's values. Both sides run inside
    NumPyro's model and guide. ``weights`` is a `dsnn.bayes.guides.Weights`: the ``initial`` parameters of the
    network by name, and ``of(name)``, the prior of one, None for a point.

    Optional: ``means``, ``noise``, ``members``, ``finish``, ``redraw``, see `dsnn.bayes.guides.Guide`.
    """

    def prior(self, weights: Any, kl_weight: Array) -> "Params":
        """Samples the latents from their prior, scaled by ``kl_weight``, and returns the weights by name."""
        ...

    def posterior(self, weights: Any, kl_weight: Array, key: Key[Array, ""]) -> "Params":
        """Samples the latents from their posterior, scaled alike; the key is consumed."""
        ...

    def centre(self, weights: Any, params: "Params") -> "Params":
        """Returns the deterministic network of the guide's parameters."""
        ...

    def constraints(self, weights: Any) -> dict[str, Any]:
        """Returns the supports of the guide's own parameters, where they are not the real line."""
        ...


class GateFamily(Protocol):
    """A distribution over gates: ``gates.family``, an object or a class that is made without arguments.

    Optional: ``discrete``, ``shut``, ``by_magnitude``, see `dsnn.bayes.gates.Family`.
    """

    def initial(self, sites: int, open_probability: float) -> "Params":
        """Returns parameters by name, each ``[site]`` on the real line."""
        ...

    def posterior(self, params: "Params") -> Any:
        """Returns the distribution over ``[site]`` values in [0, 1], see `dsnn.bayes.gates.Gates`."""
        ...

    def base(self, sites: int) -> Any:
        """Returns the base measure, as a rule `dsnn.bayes.gates.OpenOrClosed`."""
        ...

    def decided(self, opened: Array) -> "Params":
        """Returns parameters at which these sites surely run, and all others surely do not."""
        ...


@runtime_checkable
class Simulates(Protocol):
    """What a learner of one's own asks of the simulator, a `dsnn.simulate.simulator.Simulator`."""

    def logits(self, params: "Params", x: Array, key: Key[Array, ""] | None = None) -> Array:
        """Returns the running logits ``[time, batch, class]`` of inputs ``[batch, ...]``; a key is consumed."""
        ...


@runtime_checkable
class Evidence(Protocol):
    """What a learner of one's own asks of the likelihood, a `dsnn.bayes.likelihood.Likelihood`."""

    def of_sequence(self, parameters: "Params", logits: Array, y: Array) -> Array:
        """Returns log p(y | x) of each example, ``[batch]``, from running logits ``[time, batch, class]``."""
        ...


class Problem(NamedTuple):
    """What a learner of one's own gets to solve.

    Attributes:
        simulator: runs examples through the network: ``simulator.logits(params, x, key)``, ``[time, batch, class]``.
        params: where learning starts, by name.
        likelihood: ``likelihood.of_sequence({}, logits, y)`` is log p(y | x) of each example.
        optimizer: Optax, with the schedule of the run.
        updates: that there will be.
        root: key of the run, see `dsnn.rng.stream`.
    """

    simulator: Simulates
    params: "Params"
    likelihood: Evidence
    optimizer: "optax.GradientTransformation"
    updates: int
    root: Key[Array, ""]

    @property
    def forward(self) -> Simulates:
        """The simulator by its name of before 0.2.0."""
        return self.simulator


class Batch(NamedTuple):
    """A minibatch: inputs ``[batch, ...]`` and labels ``[batch]``."""

    x: Array
    y: Array


class Learner(Protocol):
    """A learning rule: ``learner``, made by a factory ``(problem, **learner_options)``. All three are traced by JAX."""

    def init(self) -> Any:
        """Returns the first state, a pytree of arrays."""
        ...

    def step(self, state: Any, batch: Batch) -> tuple[Any, dict[str, Array]]:
        """Returns the next state, and what is worth seeing, by name; ``loss``, in nats an example, is among it."""
        ...

    def params(self, state: Any) -> "Params":
        """Returns the network's parameters by name."""
        ...


class Source(Protocol):
    """Data: ``data=python data.source=package.module:function``, with ``data.options``."""

    def __call__(self, root: Path, seed: int, val_fraction: float | None, **options: Any) -> "Split | Stream":
        """Returns the data, as arrays or as examples that are read when they are used.

        Args:
            root: the folder of published data sets.
            seed: of draws, such as that of a validation part.
            val_fraction: that the user wants, None where nobody said.
            **options: of the source.
        """
        ...


@runtime_checkable
class Observed(Protocol):
    """What is observed given the outputs, of a task of one's own."""

    def log_prob(self, own: "Params", outputs: Array, y: Array) -> Array:
        """Returns log p(y | outputs) of each example, ``[batch]``.

        Args:
            own: its own positive parameters, learned as points; empty without ``parameters``.
            outputs: ``[batch, output]``.
            y: targets as they came.
        """
        ...


@runtime_checkable
class Task(Protocol):
    """What is learned of targets: ``task``, or ``dsnn.fit(task=)``; an object, or a class or factory of its options.

    Targets come as they are, ``[n, ...]`` of numbers, as `dsnn.fit` or a data source with ``Split(task="own")`` gives
    them; the network has as many outputs as an example has targets. All steps run.

    Optional: ``outputs(classes) -> int``, how many outputs that takes; ``check(y)``, which raises ValueError in one
    sentence; ``best``, a dictionary of scores that may select an epoch and whether more is better; ``losses(prediction,
    y) -> (error, nll)`` ``[n]`` each, for the comparison with the deterministic twin; ``deployed(outputs, y) -> dict``,
    scores of the decided network's outputs ``[n, output]``; ``nats(y) -> float``, what a target carries;
    ``draw(own, outputs, key) -> y`` for `Fitted.to_arviz`. A run says in one sentence what is left out.
    """

    def likelihood(self) -> "Observed":
        """Returns log p(y | outputs), and whatever a `dsnn.bayes.likelihood.Likelihood` has besides.

        Without, it has no ``parameters``, the outputs of the last step count, and the guide "laplace" is not for it.
        """
        ...

    def predict(self, bayesian: Any, params: "Params", x: Array, key: Key[Array, ""], samples: int) -> Any:
        """Returns what the posterior predicts of a batch of examples; traced by JAX.

        Args:
            bayesian: the network with its posterior; `dsnn.tasks.outputs` gives its outputs under each draw.
            params: of the guide.
            x: a batch.
            key: of all draws.
            samples: posterior draws.

        Returns:
            Arrays whose first axis are the examples, in a named tuple or a dictionary.
        """
        ...

    def scores(self, prediction: Any, y: np.ndarray) -> dict[str, float]:
        """Returns numbers by name, as metrics.json will hold them after ``test/``; of NumPy arrays of all examples."""
        ...


Encoder = Callable[..., Array]
"""``train.encoding``: ``(x, steps=, key=) -> [time, batch, ...]`` of static inputs ``[batch, ...]``."""


@runtime_checkable
class Learned(Protocol):
    """What metrics and callbacks may ask of a network that was learned, a `dsnn.api.Fitted`.

    Attributes:
        setup: data, model and learner.
        params: of the posterior, by name.
        losses: mean training loss of every epoch, per example in nats.
    """

    setup: Any
    params: dict[str, Any]
    losses: list[float]

    @property
    def classes(self) -> tuple[str, ...]:
        """What the columns of probabilities are called."""
        ...

    @property
    def gates(self) -> dict[str, np.ndarray]:
        """Probability that each site runs, by group; empty without gates."""
        ...

    def network(self) -> Any:
        """Returns the network to put to use."""
        ...


class Finished(NamedTuple):
    """A run that is assessed.

    Attributes:
        directory: of the run, None for a fit of a notebook.
        config: with every choice made, a `dsnn.config.Config`.
        split: the data as the network saw them.
        metrics: by name, as metrics.json will hold them.
        fitted: what was learned.
    """

    directory: Path | None
    config: Any
    split: "Split"
    metrics: dict[str, Any]
    fitted: Learned


class Progress(NamedTuple):
    """A run after a validation.

    Attributes:
        epoch: epochs done.
        epochs: of the whole run.
        metrics: of this validation, by name.
        fitted: what has been learned so far.
    """

    epoch: int
    epochs: int
    metrics: dict[str, float]
    fitted: Learned


Metric = Callable[[Finished], dict[str, float]]
"""``metrics=[package.module:function]``: numbers by name, which join metrics.json, the report and W&B."""

Callback = Callable[[Progress], bool | None]
"""``callbacks=[package.module:function]``: called after every validation; True ends learning, and all is assessed."""
