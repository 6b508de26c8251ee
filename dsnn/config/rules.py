"""Rules across the parts of a configuration, in one table; a rule about one part lives with that part."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from dsnn import energy
from dsnn.bayes.bits_config import POSTERIOR_WIDTH
from dsnn.config.model import NAMED
from dsnn.learn.mesh import SAMPLES, axes
from dsnn.learn.online import RESUMED
from dsnn.resolve import is_foreign

if TYPE_CHECKING:
    from dsnn.config import Config


class Rule(NamedTuple):
    """What two parts of a configuration may not say together.

    Attributes:
        broken: whether a configuration breaks it.
        sentence: the rule, the value received and the fix.
    """

    broken: Callable[["Config"], object]
    sentence: Callable[["Config"], str]


def check(config: "Config") -> None:
    """Checks a configuration against every rule.

    Raises:
        ValueError: the sentence of the first rule that it breaks.
    """
    for rule in (*RULES, *(BITS if config.bits.enabled else ())):
        if rule.broken(config):
            raise ValueError(rule.sentence(config))


def _gated(config: "Config", family: str) -> bool:
    return config.gates.enabled and config.gates.family == family


def _control(config: "Config") -> bool:
    return _gated(config, "magnitude") or _gated(config, "random")


def _counted(config: "Config") -> object:
    svi = config.svi
    return svi.budget_sites or svi.budgeted or config.gates.like


def _priced(config: "Config") -> object:
    svi = config.svi
    return svi.lam or svi.budgeted or svi.budget_sites


def _behaves(config: "Config") -> object:
    return config.energy.events == "differentiated" or config.svi.rate_penalty


BITS: tuple[Rule, ...] = (
    Rule(
        lambda c: c.learner != "svi",
        lambda c: f"bits are part of a posterior, got learner={c.learner}; set learner=svi, or bits.enabled=false.",
    ),
    Rule(
        lambda c: not energy.profile(c.energy.profile).multiply_pj,
        lambda c: (
            "bits are priced where a profile says what of a multiply-accumulate multiplies, multiply_pj, got "
            f"energy.profile={c.energy.profile} without; take 45nm-int32, or bits.enabled=false."
        ),
    ),
    Rule(
        lambda c: not energy.profile(c.energy.profile).integer,
        lambda c: (
            "bits are those of integers, got the floating point of energy.profile="
            f"{c.energy.profile}; set energy.profile=45nm-int32."
        ),
    ),
    Rule(
        lambda c: c.bayes.flipout,
        lambda c: (
            "bits round a draw of the weights, and bayes.flipout turns each example's about their mean, got both; set "
            "bayes.flipout=false."
        ),
    ),
    Rule(
        lambda c: c.bayes.temperature not in (1, -1),
        lambda c: (
            f"bits leave a network its own logits, got bayes.temperature={c.bayes.temperature:g}, which would take "
            "its readout's weights off their grid; set bayes.temperature=1."
        ),
    ),
    Rule(
        lambda c: c.model.products != "float32",
        lambda c: f"bits need exact sums, got model.products={c.model.products}; set model.products=float32.",
    ),
    Rule(
        lambda c: c.bits.family == POSTERIOR_WIDTH and c.bayes.guide != "mean_field",
        lambda c: (
            f"bits.family={POSTERIOR_WIDTH} reads the standard deviation of each weight, got bayes.guide="
            f"{c.bayes.guide}; take mean_field."
        ),
    ),
    Rule(
        lambda c: c.svi.shrink_epochs,
        lambda c: (
            "bits keep the grids of the whole network, got svi.shrink_epochs, which makes it smaller; leave "
            "svi.shrink_epochs out."
        ),
    ),
    Rule(
        lambda c: c.convert.method,
        lambda c: "bits are learned from a network's own start, got convert.method; leave one of them out.",
    ),
    Rule(
        lambda c: c.export.nir,
        lambda c: "NIR has no numbers in fixed point, got export.nir with bits; leave one of them out.",
    ),
)
"""Rules of configurations with bits."""


RULES: tuple[Rule, ...] = (
    Rule(
        lambda c: c.train.encoding == "temporal" and not c.data.temporal and c.data.name == "npz",
        lambda c: "train.encoding=temporal needs temporal data, got static npz; set data.temporal=true.",
    ),
    Rule(
        lambda c: c.bayes.guide == "aot" and c.train.schedule == "step",
        lambda c: "bayes.guide=aot needs a mask for every step, got train.schedule=step; use layer.",
    ),
    Rule(
        lambda c: c.learner == "tbptt" and c.train.loss != "final",
        lambda c: (
            "learner=tbptt holds the label against the output so far of every window, got train.loss="
            f"{c.train.loss}; leave it out."
        ),
    ),
    Rule(
        lambda c: c.learner == "tbptt" and c.model.readout not in RESUMED,
        lambda c: (
            f"learner=tbptt updates before a sequence ends, got model.readout={c.model.readout}; set model.readout to "
            f"one of {', '.join(RESUMED)}."
        ),
    ),
    Rule(
        lambda c: c.learner == "fptt" and c.model.readout != "last",
        lambda c: (
            f"learner=fptt answers at every step from that step's output, got model.readout={c.model.readout}; set "
            "model.readout=last."
        ),
    ),
    Rule(
        lambda c: _control(c) and not (_counted(c) and c.svi.decide_fraction),
        lambda c: (
            f"gates.family={c.gates.family} needs to know how many sites to keep and when, got no number or no "
            "svi.decide_fraction; give svi.budget_sites, a budget of energy or gates.like=DIR, and for example "
            "svi.decide_fraction=0.5."
        ),
    ),
    Rule(
        lambda c: (
            c.learner == "svi"
            and c.gates.enabled
            and not _control(c)
            and c.svi.decide_fraction
            and c.svi.ungated_fraction + c.svi.decide_fraction >= 1
        ),
        lambda c: (
            "gates learn between svi.ungated_fraction and svi.decide_fraction, which must come to less than 1, got "
            f"{c.svi.ungated_fraction:g} and {c.svi.decide_fraction:g}; lower one of them."
        ),
    ),
    Rule(
        lambda c: c.gates.like and (c.svi.budget_sites or c.svi.budgeted),
        lambda c: (
            f"gates.like takes the numbers of sites from a run, got {c.gates.like} and a budget as well; leave one of "
            "them out."
        ),
    ),
    Rule(
        lambda c: c.gates.like and not c.svi.decide_fraction,
        lambda c: "gates.like says how many sites are kept once gates are decided, got svi.decide_fraction=0; set 0.5.",
    ),
    Rule(
        lambda c: c.model.compacted and (c.gates.enabled or c.population.size > 1),
        lambda c: (
            "model.compacted goes on in a network whose sites are decided, one run at a time, got gates or a "
            "population; set gates.enabled=false and leave population out."
        ),
    ),
    Rule(
        lambda c: _gated(c, "lognormal") and _priced(c),
        lambda c: (
            "gates.family=lognormal closes sites by its own divergence, got a price or a budget as well; set svi.lam=0 "
            "and no budget."
        ),
    ),
    Rule(
        lambda c: c.svi.shrink_epochs and not (c.learner == "svi" and c.gates.enabled),
        lambda c: (
            "svi.shrink_epochs lets sites leave whose gates have closed, got no gates; set gates.enabled=true with "
            "learner=svi, or leave svi.shrink_epochs out."
        ),
    ),
    Rule(
        lambda c: (
            c.svi.shrink_epochs and (c.population.size > 1 or c.compute.split != "none" or c.compute.processes > 1)
        ),
        lambda c: (
            "svi.shrink_epochs makes the network of one run on one device smaller, got a population, compute.split or "
            "compute.processes as well; leave one of them out."
        ),
    ),
    Rule(
        lambda c: 0 < c.train.epochs <= max(c.svi.shrink_epochs, default=0),
        lambda c: (
            f"svi.shrink_epochs must lie before the last of train.epochs={c.train.epochs}, got "
            f"{max(c.svi.shrink_epochs)}; what leaves then saves nothing, so leave it out."
        ),
    ),
    Rule(
        lambda c: c.svi.shrink_epochs and c.convert.method,
        lambda c: (
            "svi.shrink_epochs is for a network that learns from its own start, got convert.method; leave it out."
        ),
    ),
    Rule(
        lambda c: _behaves(c) and c.learner != "svi" and not is_foreign(c.learner),
        lambda c: (
            f"energy.events=differentiated and svi.rate_penalty are prices of variational inference, got learner="
            f"{c.learner}; set learner=svi (bayes.guide=point learns points), or leave them out."
        ),
    ),
    Rule(
        lambda c: SAMPLES in axes(c.compute.split) and (c.learner != "svi" or c.svi.particles == 1),
        lambda c: (
            f"compute.split=samples spreads the particles of variational inference, got learner={c.learner} with "
            f"svi.particles={c.svi.particles}; set svi.particles to a multiple of the devices, or take "
            "compute.split=data."
        ),
    ),
    Rule(
        lambda c: c.population.size > 1 and (c.compute.split != "none" or c.compute.processes > 1),
        lambda c: (
            "a population fills the devices with its members, got compute.split or compute.processes as well; leave "
            "them out, or set population.size=1."
        ),
    ),
    Rule(
        lambda c: c.learner == "convert" and not c.convert.method,
        lambda c: "learner=convert needs a conversion, got no convert.method; max, percentile, ... are.",
    ),
    Rule(
        lambda c: c.convert.draws and (c.convert.signed_neurons or c.convert.calibrate),
        lambda c: (
            "address events run plain neurons with the biases of the deep network, got convert.draws with "
            "signed_neurons or calibrate; leave one of them out."
        ),
    ),
    Rule(
        lambda c: c.convert.signed_neurons and c.learner != "convert",
        lambda c: (
            f"signed neurons are deterministic and for learner=convert, got learner={c.learner}; set "
            "convert.signed_neurons=false."
        ),
    ),
    Rule(
        lambda c: c.convert.method and (c.population.size > 1 or c.compute.processes > 1),
        lambda c: "a conversion is one network in one process, got more of them; sweep seeds with -m instead.",
    ),
    Rule(
        lambda c: c.convert.method and c.model.architecture in NAMED,
        lambda c: (
            f"a conversion makes an mlp or a conv network, got model.architecture={c.model.architecture}; set "
            "model.architecture=conv."
        ),
    ),
    Rule(
        lambda c: c.convert.draws and c.learner != "convert",
        lambda c: f"convert.draws are for learner=convert, got learner={c.learner}; leave them out.",
    ),
    Rule(
        lambda c: c.learner == "nuts" and (c.gates.enabled or c.halting.enabled),
        lambda c: (
            f"learner=nuts draws weights alone, got gates.enabled={str(c.gates.enabled).lower()} and halting.enabled="
            f"{str(c.halting.enabled).lower()}; set gates.enabled=false and halting.enabled=false."
        ),
    ),
    Rule(
        lambda c: c.learner == "nuts" and c.train.encoding == "rate",
        lambda c: "learner=nuts needs a likelihood without chance, got train.encoding=rate; set direct or latency.",
    ),
    Rule(
        lambda c: c.learner == "nuts" and c.train.select != "last",
        lambda c: f"learner=nuts predicts from all draws, got train.select={c.train.select}; leave it out.",
    ),
    Rule(
        lambda c: (
            c.learner == "nuts" and (c.population.size > 1 or c.compute.split != "none" or c.compute.processes > 1)
        ),
        lambda c: (
            "learner=nuts runs its chains in one process on one device, got population, compute.split or "
            "compute.processes as well; leave them out, and sweep seeds with -m."
        ),
    ),
)
