"""Which network a run makes."""

from dataclasses import dataclass, field
from typing import Any

from dsnn import resolve
from dsnn.config.checks import fraction, one_of, positive
from dsnn.networks import initializers, rivals, stack, zoo
from dsnn.networks.layers import READS

NAMED = {**dict.fromkeys(zoo.__all__, zoo), **dict.fromkeys(rivals.__all__, rivals)}
"""Networks with options of their own, and the room that each is in."""

ARCHITECTURES = ("mlp", "conv", *NAMED)
OFFERED = ("key", "cell", "readout", "readout_beta", "dtype")
"""What a network of the zoo gets of the configuration, where its signature names it."""
NOISES = ("logistic", "gaussian", "none")
# Which of beta, threshold and reset a cell takes; the others have parameters of their own, at their published values.
CELLS: dict[str, tuple[str, ...]] = {
    "LIF": ("beta", "threshold", "reset"),
    "ALIF": ("beta", "threshold", "reset"),
    "CuBaLIF": ("beta", "threshold", "reset"),
    "PLIF": ("beta", "threshold", "reset"),
    "IF": ("threshold", "reset"),
    "RF": ("threshold",),
    "BRF": ("threshold",),
    "AdEx": (),
    "Izhikevich": (),
    "LTC": (),
    "ReLU": (),
    "PSN": ("threshold",),
    "MaskedPSN": ("threshold",),
    "SlidingPSN": ("threshold",),
}
STEPPED = ("PSN", "MaskedPSN")
"""Cells with parameters for each time step: their option ``steps`` is that of the run, where nobody says otherwise."""

OF_STACKS = ("hidden", "channels", "recurrent", "feedforward", "blocks")
"""Options that a network of the zoo, or of rivals, does not read."""

STEPPED_NORMS = ("bntt", "tebn")
"""Norms of the zoo of which the same holds."""


@dataclass
class ModelConfig:
    """The network.

    Attributes:
        architecture: "mlp", "conv" (LeNet-like: convolutions with 2 x 2 max pooling, then dense layers), or "auto":
            convolutions for images and frames of events of 16 x 16 and more, unless ``hidden`` is given by hand. Or a
            name of `dsnn.networks.zoo`, such as "csnn" or "sew_resnet18", whose layers are its own: of the options
            below it takes those of cells, ``architecture_options``, ``readout``, ``readout_beta`` and ``products``. Or
            of `dsnn.networks.rivals`, networks of values: "gru", "delta_gru", "exits" (``train.steps`` are its layers)
            or "tconv" (with ``data.view=whole``), which take ``architecture_options`` alone. A network of
            one's own is ``package.module:factory``, called ``(in_shape, classes, key=, cell=, **options)`` with ``key``
            and ``cell``, a function of the number of neurons, where it names them.
        hidden: neurons of each dense hidden layer.
        channels: channels of each convolution.
        recurrent: wires every dense hidden layer to itself.
        feedforward: neurons of each dense hidden layer after those of an "mlp", never wired to themselves.
        blocks: residual blocks after the dense hidden layers of an "mlp", as wide as the last of these.
        cell: "LIF", "ALIF", "CuBaLIF", "PLIF" (learnable beta), "IF", "RF", "BRF", "AdEx" or "Izhikevich" (in
            millivolts, silent below a ``gain`` of 10 or more), or "LTC" (whose neurons see their whole layer: without
            gates and halting only, and what is inside them stays a point), or a parallel neuron: "PSN" (all steps at
            once, so that no example stops early), "MaskedPSN" or "SlidingPSN", whose ``options`` are ``order`` and
            ``steps`` (those of the run), or "ReLU" (values and no spikes, for the ANN twin of a network:
            ``train.steps=1``); beta, threshold and reset apply to those that have them.
        beta: membrane decay per step.
        threshold: firing threshold.
        reset: "subtract", "zero" or "none".
        surrogate: named pseudo-derivative; empty is the density of the noise.
        noise: escape noise, "logistic", "gaussian" or "none".
        noise_width: its scale in units of the membrane.
        options: further options of the hidden cells, such as ``{tau: {normal: [20, 5]}, learnable: [tau]}``: numbers,
            names, or how a constant is drawn neuron by neuron (`dsnn.networks.initializers.constant`). What is given
            here takes the place of beta, threshold and reset.
        architecture_options: options of a network of the zoo, such as ``{width: 32}``, or of one's own.
        gain: standard deviation of the initial kernels times sqrt(fan in).
        start: how kernels begin, "normal", "xavier", "joint_xavier", "orthogonal", "torch" or "zeros".
        recurrent_start: how recurrent kernels begin.
        bias: whether synapses have a bias.
        readout: how outputs become logits, "mean", "sum", "max", "last" or "vote", see `dsnn.networks.stack`.
        readout_beta: decay of the readout membrane per step.
        products: dtype of the matrix products, "float32" or "bfloat16" (faster on accelerators); membranes, weights and
            gradients stay float32.
        readout_cell: "LI", or a cell that spikes.
        readout_options: of that cell, as ``options``.
        reads: what a spiking readout gives, its "spikes" or its "membrane".
        compacted: directory of a finished run, ``SEED`` standing for the seed: learning goes on in that run's network,
            its closed sites removed, and the options above are that run's.
    """

    architecture: str = "mlp"
    hidden: list[int] = field(default_factory=lambda: [128, 128])
    channels: list[int] = field(default_factory=lambda: [20, 50])
    recurrent: bool = False
    feedforward: list[int] = field(default_factory=list)
    blocks: int = 0
    cell: str = "LIF"
    beta: float = 0.9
    threshold: float = 1.0
    reset: str = "subtract"
    surrogate: str = ""
    noise: str = "logistic"
    noise_width: float = 0.2
    options: dict[str, Any] = field(default_factory=dict)
    architecture_options: dict[str, Any] = field(default_factory=dict)
    gain: float = 1.0
    start: str = "normal"
    recurrent_start: str = "normal"
    bias: bool = True
    readout: str = "mean"
    readout_beta: float = 0.9
    products: str = "float32"
    readout_cell: str = "LI"
    readout_options: dict[str, Any] = field(default_factory=dict)
    reads: str = "spikes"
    compacted: str = ""

    def __post_init__(self) -> None:
        one_of("model.products", self.products, ("float32", "bfloat16"))
        resolve.check_name("model.architecture", self.architecture, (*ARCHITECTURES, "auto"))
        resolve.check_name("model.cell", self.cell, CELLS)
        usual = ("beta", "threshold", "reset")
        for name in set(usual).difference(CELLS.get(self.cell, usual)):
            default, given = type(self).__dataclass_fields__[name].default, getattr(self, name)
            if given != default:
                raise ValueError(f"{self.cell} has no {name}, got model.{name}={given}; leave it out.")
        resolve.check_name("model.readout_cell", self.readout_cell, ("LI", *CELLS))
        one_of("model.reads", self.reads, READS)
        for name in ("start", "recurrent_start"):
            one_of(f"model.{name}", getattr(self, name), initializers.KERNELS)
        for where in ("options", "readout_options"):
            for name, given in getattr(self, where).items():
                initializers.check_constant(f"model.{where}.{name}", given)
        resolve.check_name("model.noise", self.noise, NOISES)
        if self.architecture in NAMED:
            what, make = f"model.architecture={self.architecture}", named_network(self.architecture)
            resolve.arguments(what, make, dict.fromkeys(OFFERED), self.architecture_options, ((), 0))
        elif self.architecture_options and not resolve.is_foreign(self.architecture):
            raise ValueError(
                "model.architecture_options are for a network of the zoo or of one's own, got "
                f"{', '.join(map(str, self.architecture_options))} with model.architecture={self.architecture}; set "
                "model.hidden, model.channels and the like."
            )
        one_of("model.readout", self.readout, stack.READOUTS)
        one_of("model.reset", self.reset, ("subtract", "zero", "none"))
        fraction("model.beta", self.beta, closed=True)
        fraction("model.readout_beta", self.readout_beta, closed=True)
        for name in ("threshold", "noise_width", "gain"):
            positive(f"model.{name}", getattr(self, name))
        if self.blocks < 0 or (self.blocks and (self.architecture == "conv" or not self.hidden)):
            raise ValueError(f"model.blocks must be 0 or more, after the hidden layers of an mlp, got {self.blocks}.")
        for name in ("hidden", "channels", "feedforward"):
            if any(n < 1 for n in getattr(self, name)):
                raise ValueError(f"model.{name} must be positive numbers of neurons, got {getattr(self, name)}.")
            stack.check_widths(getattr(self, name), self.blocks)
        if self.feedforward and self.architecture == "conv":
            raise ValueError(
                "model.feedforward is for an mlp, got model.architecture=conv; put its layers in model.hidden."
            )


def named_network(architecture: str) -> Any:
    """Returns the factory of a network that has options of its own, one of `NAMED`."""
    return getattr(NAMED[architecture], architecture)


def reads_images(architecture: str) -> bool:
    """Returns whether a network is one of convolutions, of those that are named here."""
    return architecture == "conv" or architecture in zoo.__all__
