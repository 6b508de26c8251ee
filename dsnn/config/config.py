"""Everything that a run is told, and how it is read from plain dictionaries."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from dsnn import resolve
from dsnn.bayes.bits_config import BitsConfig
from dsnn.config import rules, typed
from dsnn.config.checks import one_of
from dsnn.config.data import DataConfig
from dsnn.config.learning import ComputeConfig, FpttConfig, PopulationConfig, TbpttConfig, TrainConfig
from dsnn.config.model import ModelConfig
from dsnn.config.outputs import ExportConfig, RunConfig, TrackConfig
from dsnn.config.posterior import BayesConfig, EnergyConfig, GatesConfig
from dsnn.convert.options import ConvertConfig
from dsnn.deploy.exit_options import HaltingConfig
from dsnn.learn import SviConfig
from dsnn.learn.optimizer import OptimizerConfig
from dsnn.learn.sampling import NutsConfig

LEARNERS = ("svi", "map", "nuts", "fptt", "tbptt", "convert")
BASELINES = ("none", "linear", "full")
SELECTS = ("last", "accuracy", "nll", "rmse")


@dataclass
class Config:
    """Everything of a run.

    Attributes:
        experiment: name of the experiment file that this run started from.
        learner: "svi" (Bayesian), "map" (its deterministic twin: point weights, no gates, all steps), "nuts" (draws of
            the exact posterior of a small network, without gates, halting and firing noise, see `dsnn.learn.sampling`),
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
            chance, it is fitted again with less to spare (`dsnn.assembly.guard`).
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
    bits: BitsConfig = field(default_factory=BitsConfig)
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
            one_of("train.select", self.train.select, SELECTS)
            if self.task_options:
                raise ValueError(
                    f"task_options are for a task of one's own, got {', '.join(map(str, self.task_options))} with "
                    "task=auto; give task=package.module:attribute."
                )
        for option in ("metrics", "callbacks"):
            for name in getattr(self, option):
                resolve.check_name(option, name, ())
        one_of("baseline", self.baseline, BASELINES)
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
