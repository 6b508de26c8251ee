"""The configuration of a run: typed, with defaults here and nowhere else, checked before any work."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dsnn import cells, data, energy, escape, models, parameters, rng, track
from dsnn.bayes import guides, priors
from dsnn.bayes.halting import FEATURES
from dsnn.forward import ENCODINGS
from dsnn.train import OptimizerConfig, SviConfig
from dsnn.types import Array, Key

LEARNERS = ("svi", "map")
ARCHITECTURES = ("mlp", "conv")
NOISES = ("logistic", "gaussian", "none")
CELLS = ("LIF", "ALIF", "CuBaLIF")
GUIDES = ("point", "mean_field", "low_rank", "last_layer", "rank1", "dropout", "aot", "ensemble", "laplace")


@dataclass
class DataConfig:
    """Which data, and how much of the training part validates.

    Attributes:
        name: a data set, see ``python -m experiments.run --help``.
        root: folder with the published files; by default the environment's DSNN_DATA, else a user cache.
        path: file of ``npz`` data.
        temporal: whether the second axis of ``npz`` data is time.
        val_fraction: share of the training part that validates; -1 is the set's own choice.
        limit: use only this many training examples; 0 is all.
        ood: data sets on which the predictive must be unsure, scored by AUROC.
    """

    name: str = "digits"
    root: str | None = None
    path: str | None = None
    temporal: bool = False
    val_fraction: float = -1.0
    limit: int = 0
    ood: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in (self.name, *self.ood):
            _one_of("data.name", name, data.names())
        if not (self.val_fraction == -1 or 0 <= self.val_fraction < 1):
            raise ValueError(f"data.val_fraction must be in [0, 1), or -1 for the set's own, got {self.val_fraction}.")
        if self.limit < 0:
            raise ValueError(f"data.limit must not be negative, got {self.limit}; 0 uses every example.")
        if self.name == "npz" and not self.path:
            raise ValueError("data=npz needs a file, got none; give data.path=FILE.")


@dataclass
class ModelConfig:
    """The network.

    Attributes:
        architecture: "mlp" or "conv" (LeNet-like: convolutions with 2 x 2 max pooling, then dense layers).
        hidden: neurons of each dense hidden layer.
        channels: channels of each convolution.
        recurrent: wires every dense hidden layer to itself.
        cell: "LIF", "ALIF" or "CuBaLIF".
        beta: membrane decay per step.
        threshold: firing threshold.
        reset: "subtract", "zero" or "none".
        surrogate: named pseudo-derivative; empty is the density of the noise.
        noise: escape noise, "logistic", "gaussian" or "none".
        noise_width: its scale in units of the membrane.
        gain: standard deviation of the initial kernels times sqrt(fan in).
        readout: how outputs become logits, "mean", "sum", "max", "last" or "vote", see `dsnn.models`.
        readout_beta: decay of the readout membrane per step.
    """

    architecture: str = "mlp"
    hidden: list[int] = field(default_factory=lambda: [128, 128])
    channels: list[int] = field(default_factory=lambda: [20, 50])
    recurrent: bool = False
    cell: str = "LIF"
    beta: float = 0.9
    threshold: float = 1.0
    reset: str = "subtract"
    surrogate: str = ""
    noise: str = "logistic"
    noise_width: float = 0.2
    gain: float = 1.0
    readout: str = "mean"
    readout_beta: float = 0.9

    def __post_init__(self) -> None:
        _one_of("model.architecture", self.architecture, ARCHITECTURES)
        _one_of("model.cell", self.cell, CELLS)
        _one_of("model.noise", self.noise, NOISES)
        _one_of("model.readout", self.readout, models.READOUTS)
        _one_of("model.reset", self.reset, ("subtract", "zero", "none"))
        _fraction("model.beta", self.beta, closed=True)
        _fraction("model.readout_beta", self.readout_beta, closed=True)
        for name in ("threshold", "noise_width", "gain"):
            _positive(f"model.{name}", getattr(self, name))
        if any(n < 1 for n in (*self.hidden, *self.channels)):
            raise ValueError(f"model.hidden and model.channels must be positive, got {self.hidden}, {self.channels}.")


@dataclass
class BayesConfig:
    """What is uncertain.

    Attributes:
        guide: family of posteriors over the weights: "point" (MAP), "mean_field", "low_rank", "last_layer", "rank1",
            "dropout", "aot", "ensemble" or "laplace", see `dsnn.bayes.guides`.
        prior: family of the kernels' prior, "normal", "laplace", "hierarchical" or "horseshoe".
        prior_scale: prior standard deviation of a kernel times sqrt(fan in).
        bias_scale: prior standard deviation of a bias.
        guide_scale: initial posterior standard deviation.
        flipout: every example of a minibatch has its own draw of the weights, where the guide allows.
        rank: of the low-rank guide.
        rank1_scale: prior standard deviation of the rank-1 guide's factors.
        dropout: probability that a neuron's output is dropped, for dropout and aot.
        members: of the ensemble.
        samples: posterior draws of the predictive.
    """

    guide: str = "mean_field"
    prior: str = "normal"
    prior_scale: float = 1.0
    bias_scale: float = 1.0
    guide_scale: float = 0.01
    flipout: bool = False
    rank: int = 4
    rank1_scale: float = 0.1
    dropout: float = 0.1
    members: int = 5
    samples: int = 32

    def __post_init__(self) -> None:
        _one_of("bayes.guide", self.guide, GUIDES)
        _one_of("bayes.prior", self.prior, priors.KERNELS)
        for name in ("prior_scale", "bias_scale", "guide_scale", "rank1_scale"):
            _positive(f"bayes.{name}", getattr(self, name))
        if self.rank < 1:
            raise ValueError(f"bayes.rank must be at least 1, got {self.rank}.")
        if not 0 < self.dropout < 1:
            raise ValueError(f"bayes.dropout must be in (0, 1), got {self.dropout}.")
        if self.members < 2:
            raise ValueError(f"bayes.members must be at least 2, got {self.members}; guide=point is one network.")
        if self.samples < 1:
            raise ValueError(f"bayes.samples must be at least 1, got {self.samples}.")


@dataclass
class GatesConfig:
    """Where computation may be spared.

    Attributes:
        enabled: whether sites have gates at all.
        input: whether inputs are sites.
        open_probability: initial probability that a site runs.
    """

    enabled: bool = True
    input: bool = True
    open_probability: float = 0.9

    def __post_init__(self) -> None:
        if not 0 < self.open_probability < 1:
            raise ValueError(f"gates.open_probability must be in (0, 1), got {self.open_probability}.")


@dataclass
class HaltingConfig:
    """When an example may stop.

    Attributes:
        enabled: whether q(n | x) is learned; otherwise every example runs all steps.
        feature: what it reads, "margin" or "entropy" of the running logits.
        quantile: an example stops once q(n | x) has stopped with this probability; 0.5 is the posterior median.
    """

    enabled: bool = True
    feature: str = "margin"
    quantile: float = 0.5

    def __post_init__(self) -> None:
        _one_of("halting.feature", self.feature, FEATURES)
        if not 0 < self.quantile < 1:
            raise ValueError(f"halting.quantile must be in (0, 1), got {self.quantile}.")


@dataclass
class EnergyConfig:
    """How energy is priced.

    Attributes:
        profile: hardware whose prices the prior and the headline use, a name or a YAML file.
        accounting: "arithmetic", "updates" or "memory".
        also: further profiles for the cost table.
        pue: power usage effectiveness, a name or a number.
        intensity: grams CO2e per kWh, a name or a number.
    """

    profile: str = "45nm"
    accounting: str = "updates"
    also: list[str] = field(default_factory=list)
    pue: str = "none"
    intensity: str = "world-2018"

    def __post_init__(self) -> None:
        _one_of("energy.accounting", self.accounting, energy.ACCOUNTINGS)
        for name in (self.profile, *self.also):
            energy.profile(name)


@dataclass
class TrainConfig:
    """How long and on what batches.

    Attributes:
        epochs: passes over the training part.
        batch_size: examples per update.
        steps: time steps T (ignored for temporal data, which have their own).
        encoding: "direct", "rate" or "latency" for static data.
        eval_every: epochs between validations.
        checkpoint_s: seconds between checkpoints, taken at the end of an epoch.
        schedule: order of the time loop, see `dsnn.unroll`.
        memory: what the backward pass keeps, "full", "sqrt" or a number of steps.
    """

    epochs: int = 150
    batch_size: int = 64
    steps: int = 16
    encoding: str = "direct"
    eval_every: int = 10
    checkpoint_s: float = 10.0
    schedule: str = "auto"
    memory: str = "full"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "steps", "eval_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} must be at least 1, got {getattr(self, name)}.")
        _one_of("train.encoding", self.encoding, ENCODINGS)
        if self.memory not in ("full", "sqrt") and not self.memory.isdigit():
            raise ValueError(f'train.memory must be "full", "sqrt" or a number of steps, got {self.memory!r}.')


@dataclass
class TrackConfig:
    """How the run is watched from outside.

    Attributes:
        wandb: "offline" (files for ``wandb sync``), "online" or "disabled".
        project: W&B project.
        group: W&B group; a sweep has its own by default.
        tags: W&B tags.
    """

    wandb: str = "offline"
    project: str = "dsnn"
    group: str | None = None
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        _one_of("track.wandb", self.wandb, track.MODES)


@dataclass
class RunConfig:
    """Where the run lives.

    Attributes:
        root: folder of runs that are named by their configuration.
        dir: folder of this run; None names it by its configuration.
        report: whether report.html and figures are written.
    """

    root: str = "outputs"
    dir: str | None = None
    report: bool = True


@dataclass
class Config:
    """Everything of a run.

    Attributes:
        experiment: name of the experiment file that this run started from.
        learner: "svi" (Bayesian) or "map" (its deterministic twin: point weights, no gates, all steps).
        seed: root of every random stream.
        resume: go on from the run directory's checkpoint; false sets the old directory aside and starts over.
    """

    experiment: str = "digits"
    learner: str = "svi"
    seed: int = 0
    resume: bool = True
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    bayes: BayesConfig = field(default_factory=BayesConfig)
    gates: GatesConfig = field(default_factory=GatesConfig)
    halting: HaltingConfig = field(default_factory=HaltingConfig)
    svi: SviConfig = field(default_factory=SviConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        _one_of("learner", self.learner, LEARNERS)
        if self.seed < 0:
            raise ValueError(f"seed must be a non-negative integer, got {self.seed}.")
        if self.train.encoding == "temporal" and not self.data.temporal and self.data.name == "npz":
            raise ValueError("train.encoding=temporal needs temporal data, got static npz; set data.temporal=true.")
        if self.bayes.guide == "aot" and self.train.schedule == "step":
            raise ValueError("bayes.guide=aot needs a mask for every step, got train.schedule=step; use layer.")


def as_dict(config: Config) -> dict[str, Any]:
    """Returns the resolved configuration as plain nested dictionaries."""
    return dataclasses.asdict(config)


def load_data(config: Config) -> data.Split:
    """Returns the data set of a configuration, checked."""
    c = config.data
    options: dict[str, Any] = {"path": c.path, "temporal": c.temporal} if c.name == "npz" else {}
    split = data.load(
        c.name, root=c.root, seed=config.seed, val_fraction=None if c.val_fraction < 0 else c.val_fraction, **options
    )
    data.require_training(split)
    _check_trainable(split, config)
    for name in c.ood:
        other = data.input_shape(data.load(name, root=c.root))
        if other != data.input_shape(split):
            raise ValueError(
                f"data.ood must have the shape of the data, {data.input_shape(split)}, {name} has {other}."
            )
    if c.limit:
        split = split._replace(train=data.Arrays(split.train.x[: c.limit], split.train.y[: c.limit]))
    if config.train.batch_size > len(split.train.x):
        raise ValueError(
            f"train.batch_size must be at most the {len(split.train.x)} training examples, got "
            f"{config.train.batch_size}; lower it."
        )
    return split


def _check_trainable(split: data.Split, config: Config) -> None:
    """Says in one sentence which data sets load but cannot be trained on by a run yet."""
    if data.per_step(split):
        raise ValueError(
            f"a run learns one target per example, {split.name} has one label per time step; use dsnn.unroll and "
            "dsnn.train instead."
        )
    if split.task == "regression":
        if config.learner != "svi":
            raise ValueError(
                f"numbers are learned with learner=svi, got {config.learner} on {split.name}; bayes.guide=point is MAP."
            )
        if config.halting.enabled:
            raise ValueError(
                f"halting reads the certainty of a class decision, {split.name} has numbers; set halting.enabled=false."
            )
        if config.data.ood:
            raise ValueError(f"data.ood is scored for classes, {split.name} has numbers; leave it empty.")
    if not isinstance(split.train.x, np.ndarray):
        raise ValueError(
            f"a run needs dense arrays, {split.name} has sparse rows; give a dense part of it as data=npz."
        )


def build_model(config: ModelConfig, in_shape: tuple[int, ...], classes: int, key: Key[Array, ""]) -> models.Stack:
    """Returns the network of a configuration; the key is consumed."""

    def cell(neurons: int) -> Any:
        noise = {
            "logistic": lambda: escape.Logistic(config.noise_width),
            "gaussian": lambda: escape.Gaussian(config.noise_width),
            "none": lambda: None,
        }[config.noise]()
        options: dict[str, Any] = {
            "threshold": config.threshold,
            "reset": config.reset,
            "surrogate": config.surrogate or None,
            "noise": noise,
        }
        return getattr(cells, config.cell)(beta=config.beta, **options)

    common: dict[str, Any] = {
        "key": key,
        "cell": cell,
        "gain": config.gain,
        "readout": config.readout,
        "readout_beta": config.readout_beta,
    }
    if config.architecture == "conv":
        if len(in_shape) != 3:
            raise ValueError(f"model.architecture=conv needs images [height, width, channel], got {in_shape}.")
        return models.convnet(in_shape, tuple(config.channels), tuple(config.hidden), classes, **common)
    return models.mlp(in_shape, tuple(config.hidden), classes, recurrent=config.recurrent, **common)


def build_guide(config: Config, in_shape: tuple[int, ...], classes: int, key: Key[Array, ""]) -> guides.Guide:
    """Returns the posterior family of a configuration; the key initialises an ensemble's members and is consumed."""
    c = config.bayes
    match c.guide:
        case "point":
            return guides.point()
        case "mean_field":
            return guides.mean_field(c.guide_scale)
        case "low_rank":
            return guides.low_rank(c.rank, c.guide_scale)
        case "last_layer":
            return guides.last_layer(c.guide_scale)
        case "rank1":
            return guides.rank1(c.guide_scale, c.rank1_scale)
        case "dropout":
            return guides.dropout(c.dropout)
        case "aot":
            return guides.aot(c.dropout)
        case "laplace":
            return guides.laplace()
    keys = [rng.stream(key, "init", member) for member in range(c.members)]
    members = [parameters.split(build_model(config.model, in_shape, classes, k))[1] for k in keys]
    return guides.ensemble(guides.stacked(members))


def _one_of(name: str, value: str, allowed: Any) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {value}.")


def _fraction(name: str, value: float, *, closed: bool = False) -> None:
    if not (0 <= value < 1 or (closed and value == 1)):
        raise ValueError(f"{name} must be in [0, 1{']' if closed else ')'}, got {value}.")
