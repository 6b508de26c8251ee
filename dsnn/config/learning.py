"""How a run learns, and on what."""

from dataclasses import dataclass, field

from dsnn import resolve
from dsnn.config.checks import one_of
from dsnn.data import TRANSFORMS
from dsnn.learn.gradients import FPTT
from dsnn.learn.mesh import axes
from dsnn.simulate.sequential_images import Scan
from dsnn.simulate.simulator import ENCODINGS
from dsnn.simulate.unroll import SCHEDULES


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
        scan: how, see `dsnn.simulate.sequential_images.Scan`: order, permuted, threshold, window, units.
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
        transform: what changes the inputs of a training batch inside the compiled step, an augmentation: of images and
            frames "crop_flip", "crop" or "flip" (`dsnn.data.augment`), or a function of one's own,
            ``package.module:function``, called ``(x, key)``; "" changes nothing.
        checkpoint_s: seconds between checkpoints, taken at the end of an epoch.
        schedule: order of the time loop, see `dsnn.unroll`.
        memory: what the backward pass keeps, "full", "sqrt" or a number of steps.
    """

    epochs: int = 150
    updates_per_epoch: int = 0
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
        if self.updates_per_epoch < 0:
            raise ValueError(
                f"train.updates_per_epoch must be at least 1, or 0 for a pass over the data, got "
                f"{self.updates_per_epoch}."
            )
        if self.eval_every < 1:
            raise ValueError(f"train.eval_every must be at least 1, got {self.eval_every}.")
        resolve.check_name("train.encoding", self.encoding, ENCODINGS)
        one_of("train.schedule", self.schedule, SCHEDULES)
        one_of("train.loss", self.loss, ("final", "steps"))
        one_of("train.unlabelled", self.unlabelled, ("mask", "published"))
        one_of("train.class_weight", self.class_weight, ("none", "balanced"))
        if self.patience < 0:
            raise ValueError(f"train.patience must not be negative, got {self.patience}; 0 learns for all epochs.")
        if self.transform:
            resolve.check_name("train.transform", self.transform, TRANSFORMS)
        if self.skip < 0:
            raise ValueError(f"train.skip must not be negative, got {self.skip}.")
        if self.memory not in ("full", "sqrt") and not self.memory.isdigit():
            raise ValueError(f'train.memory must be "full", "sqrt" or a number of steps, got {self.memory!r}.')


@dataclass
class FpttConfig:
    """Forward propagation through time, see `dsnn.learn.gradients.FPTT`.

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
    """Truncated backpropagation through time with an update after every window, see `dsnn.learn.online.tbptt_learner`.

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
        one_of("population.mapped", self.mapped, ("auto", "scan", "vmap"))


@dataclass
class ComputeConfig:
    """On what the run is computed; the same numbers up to the order of sums, so no part of the run's name.

    Attributes:
        devices_per_job: accelerators that a process may see, whole or a share such as 0.5; 0 is all of them.
        memory_fraction: share of an accelerator's memory that a process takes; 0 leaves it to devices_per_job.
        cache: folder of compiled programs, "auto" (the user's cache folder) or "none".
        keep_memory: reuse freed memory instead of giving it back to the system, see `dsnn.keep_memory`.
        split: what is dealt out over the devices, "none", or some of "data" (the batch), "samples" (the particles of
            the objective and the draws of the predictive) and "model" (wide parameters and their optimiser's state)
            joined by "+", such as ``data:2+model``; a number says how many devices, none takes those that are left.
        host_devices: how many devices the CPU poses as; 0 is one, or one per core for a population.
        coordinator: host:port of the first of many processes, "auto" to ask the cluster, empty for one process.
        processes: how many processes compute this run.
        process: which of them this is, from 0.
        workers: processes that read streamed data; 0 reads in threads of the run's own.
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
    workers: int = 0

    def __post_init__(self) -> None:
        if self.devices_per_job < 0 or (self.devices_per_job > 1 and self.devices_per_job % 1):
            raise ValueError(
                f"compute.devices_per_job must be a whole number or a share below 1, got {self.devices_per_job}."
            )
        if not 0 <= self.memory_fraction <= 1:
            raise ValueError(f"compute.memory_fraction must be in [0, 1], got {self.memory_fraction}.")
        axes(self.split)
        if self.workers < 0:
            raise ValueError(f"compute.workers must not be negative, got {self.workers}; 0 reads in threads.")
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
