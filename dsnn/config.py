"""The configuration of a run: typed, with defaults here and nowhere else, checked before any work."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from dsnn import data, energy, initial, models, resolve, rules, track, typed
from dsnn.bayes import guides, priors
from dsnn.bayes.gates import FAMILIES
from dsnn.bayes.halting import FEATURES
from dsnn.convert.options import ConvertConfig
from dsnn.forward import ENCODINGS
from dsnn.gradients import FPTT
from dsnn.layers import READS
from dsnn.learn import SviConfig
from dsnn.optimize import OptimizerConfig
from dsnn.sampling import NutsConfig
from dsnn.sequences import Scan
from dsnn.unroll import SCHEDULES

LEARNERS = ("svi", "map", "nuts", "fptt", "tbptt", "convert")
ARCHITECTURES = ("mlp", "conv")
BASELINES = ("none", "linear", "full")
NOISES = ("logistic", "gaussian", "none")
SELECTS = ("last", "accuracy", "nll", "rmse")
PYTHON = "python"
"""The data set that a function of one's own reads."""

OWN = {  # data sets that data.path names
    "audio": "folder",
    "events": "folder or an h5 file",
    "images": "folder",
    "npy": "folder",
    "npz": "file",
    "table": "file",
}
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
}


@dataclass
class DataConfig:
    """Which data, and how much of the training part validates.

    Attributes:
        name: a data set, see ``python -m experiments.run --help``.
        root: folder with the published files; by default the environment's DSNN_DATA, else a user cache.
        path: file of ``npz`` data or of a ``table``; folder or file of ``events``; folder of ``npy``, ``audio`` or
            ``images``.
        source: function of one's own that reads the data of ``python``, ``package.module:function``, called as
            `dsnn.protocols.Source` says with the options.
        temporal: whether the second axis of ``npz`` or ``npy`` data is time.
        val_fraction: share of the training part that validates; -1 is the set's own choice.
        standardise: "auto" brings inputs to one scale, as the training part asks (`dsnn.data.standardised`; zeros of
            images, spikes and sparse data stay zero); "none" takes them as they are.
        limit: use only this many training examples, drawn by the seed, each class in proportion; 0 is all.
        ood: data sets on which the predictive must be unsure, scored by AUROC.
        options: further options of the data set's own loader, such as ``data.options.steps=50`` of ``events``.
    """

    name: str = "digits"
    root: str | None = None
    path: str | None = None
    source: str = ""
    temporal: bool = False
    val_fraction: float = -1.0
    standardise: str = "none"
    limit: int = 0
    ood: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.name, *self.ood):
            resolve.check_name("data.name", name, (*data.names(), PYTHON))
        if (self.name == PYTHON) != bool(self.source):
            raise ValueError(
                f"data={PYTHON} is what data.source=package.module:function gives, got data={self.name} and "
                f"data.source={self.source!r}; give both or neither."
            )
        if not (self.val_fraction == -1 or 0 <= self.val_fraction < 1):
            raise ValueError(f"data.val_fraction must be in [0, 1), or -1 for the set's own, got {self.val_fraction}.")
        _one_of("data.standardise", self.standardise, ("none", "auto"))
        if self.limit < 0:
            raise ValueError(f"data.limit must not be negative, got {self.limit}; 0 uses every example.")
        if self.name in OWN and not self.path:
            raise ValueError(f"data={self.name} needs a {OWN[self.name]}, got none; give data.path=PATH.")
        if self.temporal and self.name in ("table", "images"):
            raise ValueError(
                f"data.temporal is for arrays with an axis of time, got it with data={self.name}; give series as "
                f"data=npz or data=npy, [n, time, ...]."
            )


@dataclass
class ModelConfig:
    """The network.

    Attributes:
        architecture: "mlp", "conv" (LeNet-like: convolutions with 2 x 2 max pooling, then dense layers), or "auto":
            convolutions for images and frames of events of 16 x 16 and more, unless ``hidden`` is given by hand. A
            network of one's own is ``package.module:factory``, called ``(in_shape, classes, key=, cell=, **options)``
            with ``key`` and ``cell``, a function of the number of neurons, where it names them.
        hidden: neurons of each dense hidden layer.
        channels: channels of each convolution.
        recurrent: wires every dense hidden layer to itself.
        feedforward: neurons of each dense hidden layer after those of an "mlp", never wired to themselves.
        blocks: residual blocks after the dense hidden layers of an "mlp", as wide as the last of these.
        cell: "LIF", "ALIF", "CuBaLIF", "PLIF" (learnable beta), "IF", "RF", "BRF", "AdEx" or "Izhikevich" (in
            millivolts, silent below a ``gain`` of 10 or more), or "LTC" (whose neurons see their whole layer: without
            gates and halting only, and what is inside them stays a point); beta, threshold and reset
            apply to those that have them.
        beta: membrane decay per step.
        threshold: firing threshold.
        reset: "subtract", "zero" or "none".
        surrogate: named pseudo-derivative; empty is the density of the noise.
        noise: escape noise, "logistic", "gaussian" or "none".
        noise_width: its scale in units of the membrane.
        options: further options of the hidden cells, such as ``{tau: {normal: [20, 5]}, learnable: [tau]}``: numbers,
            names, or how a constant is drawn neuron by neuron (`dsnn.initial.constant`). What is given here takes the
            place of beta, threshold and reset.
        architecture_options: options of a network of one's own.
        gain: standard deviation of the initial kernels times sqrt(fan in).
        start: how kernels begin, "normal", "xavier", "joint_xavier", "orthogonal", "torch" or "zeros".
        recurrent_start: how recurrent kernels begin.
        bias: whether synapses have a bias.
        readout: how outputs become logits, "mean", "sum", "max", "last" or "vote", see `dsnn.models`.
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
        _one_of("model.products", self.products, ("float32", "bfloat16"))
        resolve.check_name("model.architecture", self.architecture, (*ARCHITECTURES, "auto"))
        resolve.check_name("model.cell", self.cell, CELLS)
        usual = ("beta", "threshold", "reset")
        for name in set(usual).difference(CELLS.get(self.cell, usual)):
            default, given = type(self).__dataclass_fields__[name].default, getattr(self, name)
            if given != default:
                raise ValueError(f"{self.cell} has no {name}, got model.{name}={given}; leave it out.")
        resolve.check_name("model.readout_cell", self.readout_cell, ("LI", *CELLS))
        _one_of("model.reads", self.reads, READS)
        for name in ("start", "recurrent_start"):
            _one_of(f"model.{name}", getattr(self, name), initial.KERNELS)
        for where in ("options", "readout_options"):
            for name, given in getattr(self, where).items():
                initial.check_constant(f"model.{where}.{name}", given)
        resolve.check_name("model.noise", self.noise, NOISES)
        if self.architecture_options and not resolve.is_foreign(self.architecture):
            raise ValueError(
                "model.architecture_options are for a network of one's own, got "
                f"{', '.join(map(str, self.architecture_options))} with model.architecture={self.architecture}; set "
                "model.hidden, model.channels and the like."
            )
        _one_of("model.readout", self.readout, models.READOUTS)
        _one_of("model.reset", self.reset, ("subtract", "zero", "none"))
        _fraction("model.beta", self.beta, closed=True)
        _fraction("model.readout_beta", self.readout_beta, closed=True)
        for name in ("threshold", "noise_width", "gain"):
            _positive(f"model.{name}", getattr(self, name))
        if self.blocks < 0 or (self.blocks and (self.architecture == "conv" or not self.hidden)):
            raise ValueError(f"model.blocks must be 0 or more, after the hidden layers of an mlp, got {self.blocks}.")
        for name in ("hidden", "channels", "feedforward"):
            if any(n < 1 for n in getattr(self, name)):
                raise ValueError(f"model.{name} must be positive numbers of neurons, got {getattr(self, name)}.")
            models.check_widths(getattr(self, name), self.blocks)
        if self.feedforward and self.architecture == "conv":
            raise ValueError(
                "model.feedforward is for an mlp, got model.architecture=conv; put its layers in model.hidden."
            )


@dataclass
class BayesConfig:
    """What is uncertain.

    Attributes:
        guide: family of posteriors over the weights: "point" (MAP), "mean_field", "low_rank", "last_layer", "rank1",
            "dropout", "aot", "ensemble" or "laplace", see `dsnn.bayes.guides`; or the name of one of NumPyro's own,
            such as "AutoLowRankMultivariateNormal", which then begins at the network's values.
        options: further options of the guide, by the names in its signature, such as ``bayes.options.rank=4``; they
            take the place of the ones below.
        prior: family of the kernels' prior, "normal", "laplace", "hierarchical" or "horseshoe".
        prior_scale: prior standard deviation of a kernel times sqrt(fan in).
        rare_inputs: how many times wider the prior of the weights of inputs that are rarely on may be than that of
            average ones; 1 makes no difference. For dense first layers.
        bias_scale: prior standard deviation of a bias.
        cells: whether learnable parameters of cells (of PLIF: beta) are uncertain too, with a Beta or LogNormal prior
            about their initial value.
        guide_scale: initial posterior standard deviation, of NumPyro's guides too.
        flipout: every example of a minibatch has its own draw of the weights, where the guide allows.
        rank: of the low-rank guide.
        rank1_scale: prior standard deviation of the rank-1 guide's factors.
        dropout: probability that a neuron's output is dropped, for dropout and aot.
        members: of the ensemble.
        samples: posterior draws of the predictive.
        noise: of numbers, "constant", or "input", whose standard deviation is an output of the network too.
        temperature: what class logits are divided by, and what the noise's standard deviation is multiplied by, once
            learning is over; -1 is fitted on the part that selects (`dsnn.tasks.calibration`).
        sources: whether the report splits epistemic uncertainty into weights, gates and firing.
        show: shell patterns of parameters with a prior, whose posterior the report draws; at most six entries.
    """

    guide: str = "mean_field"
    options: dict[str, Any] = field(default_factory=dict)
    prior: str = "normal"
    prior_scale: float = 1.0
    rare_inputs: float = 1.0
    bias_scale: float = 1.0
    cells: bool = False
    guide_scale: float = 0.01
    flipout: bool = False
    rank: int = 4
    rank1_scale: float = 0.1
    dropout: float = 0.1
    members: int = 5
    samples: int = 32
    noise: str = "constant"
    temperature: float = 1.0
    sources: bool = False
    show: list[str] = field(default_factory=lambda: ["*.cell.*", "readout.*"])

    def __post_init__(self) -> None:
        guides.check(self.guide, self.options)
        _one_of("bayes.prior", self.prior, priors.KERNELS)
        for name in ("prior_scale", "bias_scale", "guide_scale", "rank1_scale"):
            _positive(f"bayes.{name}", getattr(self, name))
        _one_of("bayes.noise", self.noise, ("constant", "input"))
        if not (self.temperature == -1 or 0 < self.temperature < float("inf")):
            raise ValueError(f"bayes.temperature must be positive, or -1 for automatic, got {self.temperature}.")
        if not 1 <= self.rare_inputs < float("inf"):
            raise ValueError(
                f"bayes.rare_inputs must be at least 1 and finite, got {self.rare_inputs}; 1 is no effect."
            )
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
        family: distribution of a gate, "hard_concrete", "concrete", "bernoulli" (summed over all settings of at most 8
            sites, ARM estimator for more), "lognormal" (multiplicative noise, a baseline without a price of energy) or
            "magnitude" (a baseline without inference: svi.budget_sites are kept by the size of their weights).
        input: whether inputs are sites.
        features: whether each value that the first dense layer reads of a convolution's feature map is a site too.
        time: whether time steps are sites, for temporal data; a closed step is skipped by the whole network.
        open_probability: initial probability that a site runs.
    """

    enabled: bool = True
    family: str = "hard_concrete"
    input: bool = True
    features: bool = False
    time: bool = False
    open_probability: float = 0.9

    def __post_init__(self) -> None:
        resolve.check_name("gates.family", self.family, FAMILIES)
        if not 0 < self.open_probability < 1:
            raise ValueError(f"gates.open_probability must be in (0, 1), got {self.open_probability}.")


@dataclass
class HaltingConfig:
    """When an example may stop.

    Attributes:
        enabled: whether there is a q(n | x) where an example has one class; otherwise, and for several labels, numbers
            and a label at every step, all steps run.
        feature: what it reads of the running logits, "margin", "entropy" or "learned" (a small network over both, the
            largest probabilities, their change and the step).
        fit: "held_out" learns the weights with all steps and fits q(n | x) afterwards, on the half of the validation
            part that selects (`dsnn.exit_calibration`), so that halting cannot harm learning; "training" learns
            q(n | x) with the weights, in one objective; "both" does that and then fits q(n | x) anew.
        price: of a step in nats, for a held-out fit; -1 is the λ E_step of training, and at least the share ``risk`` of
            H(y) over all steps.
        entropy: weight of H(q(n | x)) for a held-out fit; -1 is price / log T; any but 1 tempers the posterior over n.
        risk: largest share of errors that stopping early may add, certified on the other half of the validation part,
            which then chooses how early examples stop; -1 is 1 %, or the least that so many examples can certify
            (below 50 of them all steps run); 0 certifies nothing.
        risk_delta: probability that the bound may fail.
        quantile: where no risk is certified, an example stops once q(n | x) has stopped with this probability; 0.5 is
            the posterior median.
    """

    enabled: bool = True
    feature: str = "margin"
    fit: str = "held_out"
    price: float = -1.0
    entropy: float = -1.0
    risk: float = -1.0
    risk_delta: float = 0.1
    quantile: float = 0.5

    def __post_init__(self) -> None:
        _one_of("halting.feature", self.feature, FEATURES)
        _one_of("halting.fit", self.fit, ("held_out", "training", "both"))
        if self.price < 0 and self.price != -1:
            raise ValueError(f"halting.price must not be negative, or -1 for that of training, got {self.price}.")
        if self.entropy < 0 and self.entropy != -1:
            raise ValueError(f"halting.entropy must not be negative, or -1 for price / log T, got {self.entropy}.")
        if self.risk != -1 and not 0 <= self.risk < 1:
            raise ValueError(f"halting.risk must be in [0, 1), or -1 for what can be certified, got {self.risk}.")
        if not 0 < self.risk_delta < 1:
            raise ValueError(f"halting.risk_delta must be in (0, 1), got {self.risk_delta}.")
        if not 0 < self.quantile < 1:
            raise ValueError(f"halting.quantile must be in (0, 1), got {self.quantile}.")


@dataclass
class EnergyConfig:
    """How energy is priced.

    Attributes:
        profile: hardware whose prices the prior and the headline use, a name or a YAML file.
        accounting: "arithmetic", "updates" or "memory".
        also: further profiles for the cost table.
        engine: profile of the dense engine that each layer could run on instead; empty is ``profile``.
        pue: power usage effectiveness, a name or a number.
        intensity: grams CO2e per kWh, a name or a number.
    """

    profile: str = "45nm"
    accounting: str = "updates"
    also: list[str] = field(default_factory=list)
    engine: str = ""
    pue: str = "none"
    intensity: str = "world-2018"

    def __post_init__(self) -> None:
        _one_of("energy.accounting", self.accounting, energy.ACCOUNTINGS)
        for name in (self.profile, *self.also, *([self.engine] if self.engine else [])):
            energy.profile(name)


@dataclass
class TrainConfig:
    """How long and on what batches.

    Attributes:
        epochs: passes over the training part; 0 is automatic: 2 500 updates and 20 epochs
            at least, of convolutions 1 000 and 5.
        batch_size: examples per update; 0 is automatic, a twentieth of the examples between 8 and 128.
        steps: time steps T (ignored for temporal data, which have their own); 0 is automatic, 16, and 4 for
            convolutions.
        encoding: "direct", "rate" or "latency" for static data, or "scan", which shows an image bit by bit and has its
            own steps.
        scan: how, see `dsnn.sequences.Scan`: order, permuted, threshold, window, units.
        loss: what one label per example is held against: "final", the logits after the last step, or "steps", those of
            every step alike. With a label at every step every step counts.
        skip: first steps that do not count, in the loss and in the scores, where every step counts.
        unlabelled: what is learned of steps without a label: "mask", nothing, or "published", the class that the
            published labels give them.
        class_weight: "none", or "balanced", under which the examples of every class count alike together.
        select: which epoch's network is assessed: "last", or the best on validation by "accuracy", "nll", of numbers by
            "rmse", or by a score that a task of one's own names.
        watch_test: whether the history holds test scores too, for papers that selected on test; nothing is chosen by
            them.
        eval_every: epochs between validations.
        patience: validations without a better one (by NLL, of numbers by RMSE) after which learning ends, and all is
            assessed; 0 learns for all epochs. Use it with ``select``, which keeps the best epoch.
        transform: function of one's own that changes the inputs of a training batch, such as an augmentation,
            ``package.module:function``, called ``(x, key)`` inside the compiled step.
        checkpoint_s: seconds between checkpoints, taken at the end of an epoch.
        schedule: order of the time loop, see `dsnn.unroll`.
        memory: what the backward pass keeps, "full", "sqrt" or a number of steps.
    """

    epochs: int = 150
    batch_size: int = 64
    steps: int = 16
    encoding: str = "direct"
    scan: Scan = field(default_factory=Scan)
    loss: str = "final"
    skip: int = 0
    unlabelled: str = "mask"
    class_weight: str = "none"
    select: str = "last"
    watch_test: bool = False
    eval_every: int = 10
    patience: int = 0
    transform: str = ""
    checkpoint_s: float = 10.0
    schedule: str = "auto"
    memory: str = "full"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"train.{name} must be at least 1, or 0 for automatic, got {getattr(self, name)}.")
        if self.eval_every < 1:
            raise ValueError(f"train.eval_every must be at least 1, got {self.eval_every}.")
        resolve.check_name("train.encoding", self.encoding, ENCODINGS)
        _one_of("train.schedule", self.schedule, SCHEDULES)
        _one_of("train.loss", self.loss, ("final", "steps"))
        _one_of("train.unlabelled", self.unlabelled, ("mask", "published"))
        _one_of("train.class_weight", self.class_weight, ("none", "balanced"))
        if self.patience < 0:
            raise ValueError(f"train.patience must not be negative, got {self.patience}; 0 learns for all epochs.")
        if self.transform:
            resolve.check_name("train.transform", self.transform, ())
        if self.skip < 0:
            raise ValueError(f"train.skip must not be negative, got {self.skip}.")
        if self.memory not in ("full", "sqrt") and not self.memory.isdigit():
            raise ValueError(f'train.memory must be "full", "sqrt" or a number of steps, got {self.memory!r}.')


@dataclass
class FpttConfig:
    """Forward propagation through time, see `dsnn.gradients.FPTT`.

    Attributes:
        window: time steps between updates; memory grows with it, and not with time.
        alpha: strength of the pull to the running average of the parameters.
        beta: share of the new parameters in that average.
    """

    window: int = 1
    alpha: float = 0.1
    beta: float = 0.5

    def __post_init__(self) -> None:
        FPTT(self.window, self.alpha, self.beta)


@dataclass
class TbpttConfig:
    """Truncated backpropagation through time with an update after every window, see `dsnn.online.tbptt_learner`.

    Attributes:
        window: time steps between updates; gradients flow within them only.
    """

    window: int = 100

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"tbptt.window must be at least 1 step, got {self.window}.")


@dataclass
class PopulationConfig:
    """Many networks trained at once by one compiled program, each a run with a directory of its own.

    A list gives one value to each member. Seeds that are not given count up from ``seed`` when nothing else differs,
    and are all ``seed`` otherwise.

    Attributes:
        size: members; 1 is an ordinary run.
        seeds: the members' ``seed``.
        learning_rate: the members' ``optimizer.learning_rate``.
        lam: the members' ``svi.lam``.
        noise_width: the members' ``model.noise_width``.
        prior_scale: the members' ``bayes.prior_scale``.
        mapped: "scan" (one member after another on each device, in the single run's program; best on CPU), "vmap"
            (all at once; best on accelerators), or "auto".
    """

    size: int = 1
    seeds: list[int] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    lam: list[float] = field(default_factory=list)
    noise_width: list[float] = field(default_factory=list)
    prior_scale: list[float] = field(default_factory=list)
    mapped: str = "auto"

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"population.size must be at least 1, got {self.size}.")
        for name in ("seeds", "learning_rate", "lam", "noise_width", "prior_scale"):
            if (given := len(getattr(self, name))) not in (0, self.size):
                raise ValueError(
                    f"population.{name} must have one value for each of the {self.size} members, got {given}; "
                    f"set population.size={given}, or give {self.size} values."
                )
        if any(value < 0 for value in self.lam):
            raise ValueError(f"population.lam must not be negative, got {self.lam}; give every member a price.")
        _one_of("population.mapped", self.mapped, ("auto", "scan", "vmap"))


@dataclass
class ComputeConfig:
    """On what the run is computed; the same numbers up to the order of sums, so no part of the run's name.

    Attributes:
        devices_per_job: accelerators that a process may see, whole or a share such as 0.5; 0 is all of them.
        memory_fraction: share of an accelerator's memory that a process takes; 0 leaves it to devices_per_job.
        cache: folder of compiled programs, "auto" (the user's cache folder) or "none".
        keep_memory: reuse freed memory instead of giving it back to the system, see `dsnn.keep_memory`.
        split: what is spread over the devices, "none", "data" (the batch) or "samples" (the particles of the
            objective and the draws of the predictive).
        host_devices: how many devices the CPU poses as; 0 is one, or one per core for a population.
        coordinator: host:port of the first of many processes, "auto" to ask the cluster, empty for one process.
        processes: how many processes compute this run.
        process: which of them this is, from 0.
    """

    devices_per_job: float = 0.0
    memory_fraction: float = 0.0
    cache: str = "auto"
    keep_memory: bool = True
    split: str = "none"
    host_devices: int = 0
    coordinator: str = ""
    processes: int = 1
    process: int = 0

    def __post_init__(self) -> None:
        if self.devices_per_job < 0 or (self.devices_per_job > 1 and self.devices_per_job % 1):
            raise ValueError(
                f"compute.devices_per_job must be a whole number or a share below 1, got {self.devices_per_job}."
            )
        if not 0 <= self.memory_fraction <= 1:
            raise ValueError(f"compute.memory_fraction must be in [0, 1], got {self.memory_fraction}.")
        _one_of("compute.split", self.split, ("none", "data", "samples"))
        if self.host_devices < 0:
            raise ValueError(f"compute.host_devices must not be negative, got {self.host_devices}.")
        if not 0 <= self.process < self.processes:
            raise ValueError(
                f"compute.process must be in [0, {self.processes}), got {self.process}; the first process is 0."
            )
        if self.processes > 1 and not self.coordinator:
            raise ValueError(
                f"{self.processes} processes need to find each other, got no compute.coordinator; give host:port of "
                "the first, the same to all."
            )


@dataclass
class TrackConfig:
    """How the run is watched from outside.

    Attributes:
        tool: "wandb", "tensorboard" (files in the run's ``tensorboard`` folder) or "none".
        wandb: "offline" (files for ``wandb sync``), "online", "disabled", or "auto": the environment's WANDB_MODE,
            online for an agent of a W&B sweep, and else offline.
        checkpoint: whether the last checkpoint becomes a W&B artifact.
        project: W&B project; empty is the environment's WANDB_PROJECT, else dsnn.
        group: W&B group; by default the environment's WANDB_RUN_GROUP, else the sweep's or the experiment's.
        tags: W&B tags.
    """

    tool: str = "wandb"
    wandb: str = "auto"
    checkpoint: bool = False
    project: str = ""
    group: str | None = None
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        _one_of("track.tool", self.tool, track.TOOLS)
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
class ExportConfig:
    """What a finished run hands to other frameworks; not part of what names a run, so it may be asked for later.

    Attributes:
        nir: NIR file of the deployed network (posterior means, closed sites removed); empty writes none.
        dt: seconds that a time step stands for there; snnTorch's importer takes 1e-4, Norse's 1e-3 by default.
        method: "euler" (as snnTorch and Norse read it) or "exp".
    """

    nir: str = ""
    dt: float = 1e-4
    method: str = "euler"

    def __post_init__(self) -> None:
        _positive("export.dt", self.dt)
        _one_of("export.method", self.method, ("euler", "exp"))


@dataclass
class Config:
    """Everything of a run.

    Attributes:
        experiment: name of the experiment file that this run started from.
        learner: "svi" (Bayesian), "map" (its deterministic twin: point weights, no gates, all steps), "nuts" (draws of
            the exact posterior of a small network, without gates, halting and firing noise, see `dsnn.sampling`),
            "fptt" (point weights, learned as the sequence goes on, see `FpttConfig`), "tbptt" (the same, see
            `TbpttConfig`) or "convert" (a deep network is trained and converted, and that is all); or one's own,
            ``package.module:factory``, called ``(problem, **learner_options)``, see `dsnn.protocols.Problem`.
        learner_options: options of a learner of one's own.
        task: what is learned of the data: "auto" is what they say themselves (classes, labels, numbers or a class at
            every step); or one's own, ``package.module:attribute``, see `dsnn.protocols.Task`.
        task_options: options of a task of one's own.
        metrics: functions of a finished run, ``package.module:function``, whose numbers join metrics.json, the report
            and W&B, see `dsnn.protocols.Finished`.
        callbacks: functions that are called after every validation, see `dsnn.protocols.Progress`; one that returns
            True ends learning, and what was learned is assessed and kept.
        convert: a deep network to convert; with "svi" and "map", learning goes on from it.
        baseline: simpler models of the same data whose figures stand beside the network's: "none", "linear" (logistic
            or ridge regression), or "full" (that and the deterministic twin). A network for which the data have chosen
            the weights of divergences and energy is held to them: where it is worse on the part that selects, beyond
            chance, it is fitted again with less to spare (`dsnn.guard`).
        seed: root of every random stream.
        trust: whether pieces of one's own that a stored run names (``model.compacted``) may be imported although this
            command does not name them.
        resume: go on from the run directory's checkpoint; false sets the old directory aside and starts over.
    """

    experiment: str = "digits"
    learner: str = "svi"
    learner_options: dict[str, Any] = field(default_factory=dict)
    task: str = "auto"
    task_options: dict[str, Any] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)
    callbacks: list[str] = field(default_factory=list)
    baseline: str = "none"
    seed: int = 0
    resume: bool = True
    trust: bool = False
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    convert: ConvertConfig = field(default_factory=ConvertConfig)
    bayes: BayesConfig = field(default_factory=BayesConfig)
    gates: GatesConfig = field(default_factory=GatesConfig)
    halting: HaltingConfig = field(default_factory=HaltingConfig)
    svi: SviConfig = field(default_factory=SviConfig)
    nuts: NutsConfig = field(default_factory=NutsConfig)
    fptt: FpttConfig = field(default_factory=FpttConfig)
    tbptt: TbpttConfig = field(default_factory=TbpttConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    population: PopulationConfig = field(default_factory=PopulationConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    run: RunConfig = field(default_factory=RunConfig)
    export: ExportConfig = field(default_factory=ExportConfig)

    def __post_init__(self) -> None:
        resolve.check_name("learner", self.learner, LEARNERS)
        if self.learner_options and not resolve.is_foreign(self.learner):
            raise ValueError(
                f"learner_options are for a learner of one's own, got {', '.join(map(str, self.learner_options))} with "
                f"learner={self.learner}; its options are in svi, fptt or tbptt."
            )
        resolve.check_name("task", self.task, ("auto",))
        if self.task == "auto":
            _one_of("train.select", self.train.select, SELECTS)
            if self.task_options:
                raise ValueError(
                    f"task_options are for a task of one's own, got {', '.join(map(str, self.task_options))} with "
                    "task=auto; give task=package.module:attribute."
                )
        for option in ("metrics", "callbacks"):
            for name in getattr(self, option):
                resolve.check_name(option, name, ())
        _one_of("baseline", self.baseline, BASELINES)
        if self.seed < 0:
            raise ValueError(f"seed must be a non-negative integer, got {self.seed}.")
        rules.check(self)


def as_dict(config: Config) -> dict[str, Any]:
    """Returns the resolved configuration as plain nested dictionaries."""
    return dataclasses.asdict(config)


def from_dict(options: Any) -> Config:
    """Returns the configuration that `as_dict` gave, checked.

    Raises:
        ValueError: an option that this version does not know, or a value out of range.
    """
    made: Config = _from_dict(Config, options, "")
    return made


def _from_dict(kind: Any, options: Any, where: str) -> Any:
    if not isinstance(options, dict):
        raise ValueError(f"{where or 'a configuration'} must hold options by name, got {options!r}.")
    known = {one.name: one for one in dataclasses.fields(kind)}
    kinds = typed.hints(kind)
    if unknown := sorted(map(str, options.keys() - known.keys())):
        raise ValueError(f"{where}{unknown[0]} is no option of this version of dsnn; take the one that stored it.")
    values = {}
    for name, value in options.items():
        inner: Any = known[name].default_factory
        group = isinstance(inner, type) and dataclasses.is_dataclass(inner)
        plain = None if group else typed.checked(f"{where}{name}", kinds[name], value)
        values[name] = _from_dict(inner, value, f"{where}{name}.") if group else plain
    return kind(**values)


def _one_of(name: str, value: str, allowed: Any) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, got {value}.")


def _fraction(name: str, value: float, *, closed: bool = False) -> None:
    if not (0 <= value < 1 or (closed and value == 1)):
        raise ValueError(f"{name} must be in [0, 1{']' if closed else ')'}, got {value}.")
