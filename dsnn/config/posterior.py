"""What a posterior is over, and what its energy prior counts."""

from dataclasses import dataclass, field
from typing import Any

from dsnn import energy, resolve
from dsnn.bayes import guides, priors
from dsnn.bayes.gates import FAMILIES
from dsnn.config.checks import one_of, positive

EVENTS = ("frozen", "differentiated")


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
        one_of("bayes.prior", self.prior, priors.KERNELS)
        for name in ("prior_scale", "bias_scale", "guide_scale", "rank1_scale"):
            positive(f"bayes.{name}", getattr(self, name))
        one_of("bayes.noise", self.noise, ("constant", "input"))
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
            sites, ARM estimator for more), "lognormal" (multiplicative noise, a baseline without a price of energy), or
            a control without inference, under which every site runs until some are decided: "magnitude" keeps those
            whose weights are largest, "random" any. How many are kept say svi.budget_sites, a budget of energy, or
            ``like``.
        like: directory of a finished run, ``SEED`` standing for the seed: as many sites of each group are kept as that
            run kept, so that gates.family=random gates.like=DIR is its random control.
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
    like: str = ""

    def __post_init__(self) -> None:
        resolve.check_name("gates.family", self.family, FAMILIES)
        if not 0 < self.open_probability < 1:
            raise ValueError(f"gates.open_probability must be in (0, 1), got {self.open_probability}.")


@dataclass
class EnergyConfig:
    """How energy is priced.

    Attributes:
        profile: hardware whose prices the prior and the headline use, a name or a YAML file.
        accounting: "arithmetic", "updates" or "memory".
        events: of the objective's energy, "frozen" (measured every ``svi.measure_every`` updates, constants in between:
            energy moves gates and steps alone) or "differentiated" (those of the pass that gives the likelihood, with
            the gradient of its spikes, so that svi.lam moves weights, thresholds and time constants too, also without
            gates and halting: a penalty on behaviour). Of values those that are not zero are events, with the gradient
            of their L1 norm in units of a usual value.
        also: further profiles for the cost table.
        engine: profile of the dense engine that each layer could run on instead; empty is ``profile``.
        pue: power usage effectiveness, a name or a number.
        intensity: grams CO2e per kWh, a name or a number.
    """

    profile: str = "45nm"
    accounting: str = "updates"
    events: str = "frozen"
    also: list[str] = field(default_factory=list)
    engine: str = ""
    pue: str = "none"
    intensity: str = "world-2018"

    def __post_init__(self) -> None:
        one_of("energy.accounting", self.accounting, energy.ACCOUNTINGS)
        one_of("energy.events", self.events, EVENTS)
        for name in (self.profile, *self.also, *([self.engine] if self.engine else [])):
            energy.profile(name)
