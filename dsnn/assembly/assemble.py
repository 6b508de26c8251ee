"""What a configuration builds: data, network, NumPyro model and learner, put together in one place."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsnn import data, learn, parameters, resolve, tasks
from dsnn.assembly import automatic
from dsnn.assembly.automatic import Choice
from dsnn.assembly.bayesian import network, reads_values, settings_of, with_network
from dsnn.assembly.loading import check_trainable, load_data, prepared, task_of
from dsnn.bayes import sites
from dsnn.bayes.bayesian import Bayesian
from dsnn.cells.quantised_relu import STEP
from dsnn.config import Config, as_dict
from dsnn.data import streams
from dsnn.data.feed import Feed
from dsnn.learn import mesh, online, optimizer, sampling
from dsnn.learn.gradients import FPTT
from dsnn.learn.shrinking import Kept
from dsnn.native.programs import Program, shared
from dsnn.networks.whole import is_own
from dsnn.protocols import Problem
from dsnn.simulate.unroll import steps_alone

MOST_SHARED_BYTES = 1 << 28
"""Data up to this size are kept with the programs of a job for the next one that is like it."""

FREE = (
    "seed",
    "experiment",
    "resume",
    "trust",
    "run",
    "track",
    "data",
    "compute",
    "population",
    "energy.also",
    "energy.pue",
    "energy.intensity",
    "baseline",
    "export",
    "metrics",
    "callbacks",
    "train.eval_every",
    "train.patience",
    "train.checkpoint_s",
    "train.watch_test",
    "optimizer.learning_rate",
    "svi.lam",
    "bayes.prior_scale",
    "bayes.temperature",
)
"""Options that programs do not depend on, or that they take as arguments."""


@dataclasses.dataclass
class Setup:
    """What a configuration builds; ``automatic`` names the choices that were left to the data, which `config` holds.

    ``begin`` are parameters of the guide that learning starts from, where it goes on; ``start`` are a network's.
    ``programs`` are those of an assessment by name, where they are compiled ahead. ``keep`` are the sites that are left
    of the network while it learns, and ``left_nj`` the energy of an inference that left with the others.
    """

    config: Config
    split: data.Split
    bayesian: Bayesian
    sites: sites.Sites
    settings: learn.Settings
    spread: mesh.Spread | None = None
    start: parameters.Params | None = None
    automatic: dict[str, Choice] = dataclasses.field(default_factory=dict)
    programs: dict[str, Program] = dataclasses.field(default_factory=dict, compare=False, repr=False)
    begin: parameters.Params | None = None
    keep: Kept | None = None
    left_nj: float = 0.0

    def __post_init__(self) -> None:
        self.programs = self.programs or shared(self.likeness and ("assessing", self.likeness), dict)

    @functools.cached_property
    def likeness(self) -> tuple[Any, ...] | None:
        """What the programs of a run depend on: equal for jobs that differ in settings and in values of data alone.

        None where a program holds more of the data or of the seed than can be seen here, or where keeping the data
        for the next job would take much memory.
        """
        config, split = self.config, self.split
        special = (
            config.convert.method
            or config.model.compacted
            or self.start is not None
            or self.spread is not None
            or self.begin is not None
            or self.keep is not None
        )
        drawn = config.model.options or config.model.readout_options or config.bayes.rare_inputs != 1
        drawn = drawn or any(name.endswith(STEP) for name in self.bayesian.simulator.template.names)
        if special or drawn or config.train.class_weight != "none" or config.bayes.guide == "ensemble":
            return None
        parts = [(name, part) for name in ("train", "val", "test", "certify") if (part := getattr(split, name))]
        shapes = []
        for name, (x, y) in parts:
            if not isinstance(x, np.ndarray | jax.Array):
                return None
            shapes.append((name, x.shape, str(x.dtype), np.shape(y), str(y.dtype)))
        if sum(part.x.nbytes for _, part in parts) > MOST_SHARED_BYTES:
            return None
        kept = without(as_dict(config), FREE)
        own = tuple(resolve.Piece(resolve.piece("a piece", name)) for name in resolve.foreign_names(kept))
        facts = (split.name, split.task, split.classes, split.temporal, reads_values(self.bayesian.simulator, split))
        return (repr(kept), own, facts, tuple(shapes), str(jnp.zeros(()).dtype), jax.default_backend())

    @functools.cached_property
    def task(self) -> tasks.Task:
        """What is learned: classes, labels, numbers, a class at every step, or a task of one's own."""
        return task_of(self.split, self.config)

    @property
    def transform(self) -> Any:
        """What changes the inputs of a training batch, ``(x, key) -> x``; None changes nothing."""
        name = self.config.train.transform
        if not name:
            return None
        return data.TRANSFORMS[name] if name in data.TRANSFORMS else resolve.piece("train.transform", name)

    @property
    def root(self) -> Any:
        """Root key of the run."""
        return self.settings.root

    @property
    def updates(self) -> int:
        """Updates of an epoch: those of a pass over the training part, or as many as `train.updates_per_epoch` says."""
        return self.config.train.updates_per_epoch or data.size(self.split.train) // self.config.train.batch_size

    @property
    def passes(self) -> float:
        """Passes over the training part in an epoch."""
        own = self.config.train
        return own.updates_per_epoch * own.batch_size / data.size(self.split.train) if own.updates_per_epoch else 1.0

    @property
    def streamed(self) -> bool:
        """Whether training examples are read as they are used."""
        return streams.is_streamed(self.split)

    def epoch(
        self, family: learn.LearnerOf | None = None, place: Any = lambda batch: batch, put: Any = jax.device_put
    ) -> Any:
        """Returns the compiled epoch, ``(settings, state, examples, epoch) -> (state, infos)``.

        Args:
            family: of the learner; None is that of these settings.
            place: says where a batch is computed.
            put: brings streamed batches ``[batches, batch, ...]`` to the devices.
        """
        own = self.config.train
        how = (family or self.family, own.batch_size, place, self.transform, own.updates_per_epoch)
        return learn.StreamedEpoch(*how, put) if self.streamed else learn.compiled(learn.epoch_program(*how))

    def examples(self, put: Any = lambda arrays: arrays, part: tuple[int, int] = (0, 1)) -> Any:
        """Returns the training examples as `epoch` takes them.

        Args:
            put: brings arrays to the devices.
            part: of every streamed batch that this process reads, and of how many.
        """
        x, y = self.split.train
        mesh.require_alike(len(y), "training examples")
        if isinstance(x, data.Streamed):
            return Feed(x, np.asarray(y), self.config.compute.workers, part)
        return put(learn.Batch(*jax.tree.map(jnp.asarray, (x, y))))  # sparse rows stay so

    @property
    def learner(self) -> learn.Learner:
        """The learner of these very settings."""
        return self.family(self.settings, traced=False)

    def family(self, settings: learn.Settings, *, traced: bool = True) -> learn.Learner:
        """Returns the learner of settings of the same program; see `network`."""
        config = self.config
        bayesian, _ = network(config, self.split, settings, traced=traced, start=self.start, keep=self.keep)
        total = config.train.epochs * self.updates
        if config.learner == "nuts":
            return sampling.nuts_learner(bayesian, config.nuts, settings.root, self._targets)
        variational = config.learner == "svi"
        decided = learn.decided_from(config.svi, total) if variational else None
        window = self._window
        updates = total * -(-bayesian.simulator.steps // window) if window else total
        tx = optimizer.optimizer(config.optimizer, updates, settings.learning_rate, config.train.epochs, decided)
        if self._by_svi:
            # on a CPU one particle after another is faster, and takes the memory of one
            together = self.spread.particles if self.spread else jax.default_backend() != "cpu"
            how = config.svi if variational else learn.SviConfig()
            lam = settings.lam if variational else None
            whole = None if self.keep is None else learn.Pricing(self.bayesian, how, total, lam)
            return learn.svi_learner(
                bayesian, how, tx, total, settings.root, lam, together, self.begin, self._targets, whole, self.left_nj
            )
        simulator = bayesian.simulator
        begin = bayesian.weights.initial if self.begin is None else self.begin
        common = simulator, begin, bayesian.likelihood, tx
        if config.learner == "fptt":
            return online.fptt_learner(*common, FPTT(**vars(config.fptt)), settings.root)
        if config.learner == "tbptt":
            return online.tbptt_learner(*common, window, settings.root)
        if resolve.is_foreign(config.learner):
            return self._own(bayesian, tx, updates, settings.root)

        def loss(values: Any, batch: learn.Batch, key: Any) -> Any:
            logits, statistics = simulator.trained(values, batch.x, key)
            value = -bayesian.likelihood.of_sequence({}, logits, batch.y).mean()
            return (value, statistics) if statistics else value

        return learn.map_learner(loss, simulator.template, begin, tx, settings.root)

    @property
    def _targets(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of one example's target."""
        y = self.split.train.y
        return jax.ShapeDtypeStruct(np.shape(y)[1:], jnp.asarray(y[:0]).dtype)

    def _own(self, bayesian: Bayesian, tx: Any, updates: int, root: Any) -> learn.Learner:
        """Returns a learner of one's own."""
        problem = Problem(bayesian.simulator, bayesian.weights.initial, bayesian.likelihood, tx, updates, root)
        made = resolve.called("learner", self.config.learner, {}, self.config.learner_options, given=(problem,))
        for method in ("init", "step", "params"):
            if not callable(getattr(made, method, None)):
                raise ValueError(
                    f"learner must give init(), step(state, batch) and params(state), got a {type(made).__name__} "
                    f"without {method} from {self.config.learner}; see dsnn.protocols.Learner."
                )

        def step(state: Any, batch: learn.Batch) -> tuple[Any, learn.Info]:
            new, info = made.step(state, batch)
            return new, learn.info_of(info)

        return learn.Learner(made.init, step, made.params)

    @property
    def _by_svi(self) -> bool:
        """Whether NumPyro learns: a posterior, or points together with a likelihood's own parameters."""
        return self.config.learner == "svi" or (
            self.config.learner == "map" and bool(self.bayesian.likelihood.parameters())
        )

    @property
    def _window(self) -> int:
        """Steps between updates of a rule that updates within a sequence; 0 updates once in each."""
        windows = {"fptt": self.config.fptt.window, "tbptt": self.config.tbptt.window}
        return windows.get(self.config.learner, 0)

    def params(self, state: Any) -> dict[str, Any]:
        """Returns the natural parameters of a learner's state."""
        if resolve.is_foreign(self.config.learner):
            params: dict[str, Any] = self.learner.params(state)
            return params
        if self.config.learner == "nuts":
            return sampling.nuts_params(self.bayesian, self.config.nuts, state)
        if not self._by_svi:
            return learn.map_params(self.bayesian.simulator.template, state)
        return learn.svi_params(self.bayesian, state)

    def diagnostics(self, state: Any) -> dict[str, float]:
        """Returns what a learner says of its own work, by the names of metrics; nothing but for NUTS."""
        return sampling.diagnostics(state) if self.config.learner == "nuts" else {}


def without(config: dict[str, Any], options: tuple[str, ...]) -> dict[str, Any]:
    """Returns nested options without those of these dotted names."""
    inner = {first: rest for first, _, rest in (name.partition(".") for name in options) if not rest}
    below: dict[str, list[str]] = {}
    for first, _, rest in (name.partition(".") for name in options):
        if rest:
            below.setdefault(first, []).append(rest)
    return {
        name: without(value, tuple(below[name])) if name in below else value
        for name, value in config.items()
        if name not in inner
    }


def build(config: Config, split: data.Split | None = None, start: parameters.Params | None = None) -> Setup:
    """Returns data, network, model and learner of a configuration.

    Args:
        config: of the run.
        split: data in place of those that the configuration names.
        start: parameters of a converted network, where learning starts and the prior has its centre.
    """
    config = _whole(config)
    split = load_data(config) if split is None else check_trainable(split, config)
    split = prepared(split, config)
    config = _whole(config, data.size(split.train))
    shaped, split = with_network(config, split)
    timed = automatic.schedule(shaped.config, split)
    bayesian, every_site = network(timed.config, split, settings_of(timed.config), traced=False, start=start)
    if timed.config.gates.enabled and not every_site.total and is_own(bayesian.simulator.template.names):
        timed = automatic.ungated(timed)
        bayesian, every_site = network(timed.config, split, settings_of(timed.config), traced=False, start=start)
    if timed.config.halting.enabled and not _has_step(bayesian):
        timed = automatic.waiting(timed)
        bayesian, every_site = network(timed.config, split, settings_of(timed.config), traced=False, start=start)
    task = task_of(split, timed.config)
    weighed = automatic.weights(timed.config, split, bayesian.weights.priors, bayesian.weights.initial, task)
    chosen = shaped.chosen | timed.chosen | (weighed.chosen if config.learner == "svi" else {})
    config = weighed.config
    settings = settings_of(config)
    spread = mesh.spread(config.compute.split, batch_size=config.train.batch_size, particles=config.svi.particles)
    if spread is not None and spread.over(mesh.MODEL):
        bayesian = _at_the_host(bayesian)
    return Setup(config, split, bayesian, every_site, settings, spread, start, chosen)


def _at_the_host(bayesian: Bayesian) -> Bayesian:
    """Returns a network whose first parameters take no device's memory; learning draws its own, dealt out."""
    weights = dataclasses.replace(bayesian.weights, initial=jax.device_get(bayesian.weights.initial))
    return dataclasses.replace(bayesian, weights=weights)


def _has_step(bayesian: Bayesian) -> bool:
    """Returns whether a network runs one time step after another, so that an example may stop."""
    return steps_alone(bayesian.simulator.template.build(bayesian.weights.initial))


def _whole(config: Config, examples: int = 1) -> Config:
    """Returns the configuration of a learner that sees all examples at once: the batch is all of them.

    Args:
        config: of the run.
        examples: that train; a batch of one passes for any number of them until it is known.
    """
    if config.learner != "nuts":
        return config
    own = dataclasses.replace(config.train, batch_size=examples, epochs=config.nuts.epochs)
    return dataclasses.replace(config, train=own)
