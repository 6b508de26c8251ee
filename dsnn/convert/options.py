"""Options of a conversion: the deep network, how it becomes a spiking one, and how that is run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flax import nnx

from dsnn.convert.ann import deep_conv, deep_mlp
from dsnn.convert.stochastic import ORDERS
from dsnn.simulate.row_sampling import SAMPLINGS
from dsnn.types import Key

METHODS = ("max", "running_max", "percentile", "qcfs", "calibrated")
HALF = "+half"


@dataclass
class ConvertConfig:
    """A deep network that is trained, then converted.

    Its shape is that of the model (``model.architecture``, ``hidden``, ``channels``); convolutions are 3 x 3 with batch
    norm, pooled, and followed by the answer alone.

    Attributes:
        method: "max", "running_max", "percentile", "qcfs" or "calibrated"; empty converts nothing.
        percentile: of the activations.
        fraction: of that value, or of the largest.
        levels: L of "qcfs".
        signed_neurons: whether neurons may take a spike back (`dsnn.cells.SignedIF`).
        calibrate: corrects the biases layer by layer at each number of steps that is tested, as "calibrated" does.
        pool: "mean" or "max".
        padding: "SAME" or "VALID", of convolutions.
        epochs: of the deep network's training.
        batch_size: of it.
        learning_rate: of it.
        weight_decay: of it, decoupled (AdamW).
        l2: of it, the other kind: this times every parameter is added to its gradient, as PyTorch's Adam does.
        dropout: of hidden values while it learns.
        input_dropout: of inputs while it learns.
        examples: training examples that limits and calibration are taken from; 0 is all.
        steps: at which the converted network is tested; empty is train.steps alone.
        methods: further conversions of the same deep network to test, "max", "running_max" or "percentile", or a
            fraction of the largest activation such as "0.5"; "max+half" begins with membranes at half the threshold.
        match: steps at which rates are compared with activations; 0 compares nothing.
        draws: numbers of address events, one for each layer; empty runs no address events.
        sweep: factors on ``draws`` to test on validation examples.
        sampling: "spread" or "independent" draws.
        order: "first" or "interleaved", see `dsnn.convert.stochastic`.
        signed: whether inputs have two signs.
        lam: prices of energy, nats per nJ, at which the draws of each layer and the proposals are learned; empty learns
            none. See `dsnn.bayes.allocate`.
        runs: how often the stochastic networks are tested, with keys of their own.
    """

    method: str = ""
    percentile: float = 99.9
    fraction: float = 1.0
    levels: int = 4
    signed_neurons: bool = False
    calibrate: bool = False
    pool: str = "mean"
    padding: str = "SAME"
    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    l2: float = 0.0
    dropout: float = 0.0
    input_dropout: float = 0.0
    examples: int = 5000
    steps: list[int] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    match: int = 0
    draws: list[int] = field(default_factory=list)
    sweep: list[float] = field(default_factory=list)
    sampling: str = "spread"
    order: str = "first"
    signed: bool = False
    lam: list[float] = field(default_factory=list)
    runs: int = 1

    def __post_init__(self) -> None:
        for name, allowed in (
            ("method", ("", *METHODS)),
            ("pool", ("mean", "max")),
            ("padding", ("SAME", "VALID")),
            ("sampling", SAMPLINGS),
            ("order", ORDERS),
        ):
            if getattr(self, name) not in allowed:
                shown = ", ".join(filter(None, allowed))
                raise ValueError(f"convert.{name} must be one of {shown}, got {getattr(self, name)!r}.")
        for name in ("levels", "epochs", "batch_size", "runs"):
            if getattr(self, name) < 1:
                raise ValueError(f"convert.{name} must be at least 1, got {getattr(self, name)}.")
        if not self.learning_rate > 0 or min(self.weight_decay, self.l2, self.examples, self.match) < 0:
            raise ValueError(
                "convert.learning_rate must be positive, and weight_decay, l2, examples and match not negative."
            )
        if not 0 <= self.dropout < 1 or not 0 <= self.input_dropout < 1:
            raise ValueError(
                f"convert.dropout must be in [0, 1), got {self.dropout} and {self.input_dropout} of inputs."
            )
        if any(n < 1 for n in (*self.steps, *self.draws)) or any(not f > 0 for f in (*self.sweep, *self.lam)):
            raise ValueError("convert.steps and draws must be at least 1, and factors of the sweep and lam positive.")
        for method in self.methods:
            entry(method)


class Entry(NamedTuple):
    """An entry of ``methods``: the method, the fraction of its limits, and the first membrane (None: its own)."""

    method: str
    fraction: float
    start: float | None


def entry(name: str) -> Entry:
    """Returns an entry of ``methods`` read.

    Raises:
        ValueError: it is none.
    """
    method, start = name.removesuffix(HALF), 0.5 if name.endswith(HALF) else None
    if method in ("max", "running_max", "percentile"):
        return Entry(method, 1.0, start)
    try:
        fraction = float(method)
    except ValueError:
        fraction = 0.0
    if not 0 < fraction <= 1:
        raise ValueError(
            f'convert.methods are "max", "running_max", "percentile" or a fraction in (0, 1], got {method!r}.'
        )
    return Entry("max", fraction, start)


def deep_network(
    config: ConvertConfig,
    architecture: str,
    in_shape: tuple[int, ...],
    hidden: Sequence[int],
    channels: Sequence[int],
    classes: int,
    key: Key[Any, ""],
) -> nnx.Sequential:
    """Returns the untrained deep network of these options; the key is consumed.

    Args:
        config: options.
        architecture: "mlp" or "conv".
        in_shape: shape of one input.
        hidden: units of each hidden layer of "mlp".
        channels: of each convolution of "conv".
        classes: number of outputs.
        key: initialises.

    Raises:
        ValueError: images are needed and others came.
    """
    kind = "clip_floor" if config.method == "qcfs" else "relu"
    if architecture == "mlp":
        inputs = 1
        for n in in_shape:
            inputs *= n
        return deep_mlp(
            inputs,
            tuple(hidden),
            classes,
            key=key,
            kind=kind,
            levels=config.levels,
            dropout=config.dropout,
            input_dropout=config.input_dropout,
        )
    if len(in_shape) != 3:
        raise ValueError(f"model.architecture=conv needs images [height, width, channel], got {in_shape}.")
    return deep_conv(
        in_shape,
        tuple(channels),
        classes,
        key=key,
        kind=kind,
        levels=config.levels,
        pool=config.pool,
        padding=config.padding,
    )
