"""What pages and tables call things: the posterior of a run, its two networks, and the rivals that are priced."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

RIVALS = {
    "dense": "dense, unpruned",
    "dense_skipping": "dense, zeros skipped",
    "pruned": "dense, pruned alike",
    "quantised": "dense, {bits} bits",
    "pruned_quantised": "dense, pruned alike, {bits} bits",
    "lstm": "LSTM of the same width",
    "gru": "GRU of the same width",
}
"""The rivals of ``energy/<profile>/<accounting>/rival/<name>_nj``, in the order in which they are shown."""

OURS = {"snn_nj": "this network", "ungated_nj": "ours, all sites and steps"}
"""What is ours among the quantities of ``energy/<profile>/<accounting>/``."""

DEPLOYED = "deployed network, one pass"
CONVERTED = "converted network"
UNTRAINED = "priced, not trained"


class Belief(NamedTuple):
    """What a run holds about its weights, and how its predictive is drawn from it.

    Attributes:
        noun: "posterior", "tempered posterior", "point estimate", "trained weights" or "converted network".
        note: by how much it is tempered; empty where it is not.
        draws: draws of the predictive; 0 where the run does not say.
    """

    noun: str
    note: str
    draws: int

    @property
    def whole(self) -> str:
        """The noun with its note."""
        return f"{self.noun}, {self.note}" if self.note else self.noun

    @property
    def predictive(self) -> str:
        """The name of what the predictive's figures are of; a converted network has none and is that itself."""
        if self.noun == CONVERTED:
            return self.noun
        kind = f"{self.noun} predictive" if self.noun.endswith("posterior") else f"predictive of the {self.noun}"
        return ", ".join([kind, *([self.note] if self.note else []), *([f"{self.draws} draws"] if self.draws else [])])


def belief(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> Belief:
    """What to call the posterior of a run: it is tempered where its KL term has another weight than 1.

    Args:
        config: of the run, nested; what it does not say is taken as not being there.
        metrics: of the run, which hold the weight where the configuration left it to the data.
    """
    bayes, svi = _part(config, "bayes"), _part(config, "svi")
    draws = int(bayes.get("samples") or 0)
    if config.get("learner") == "convert":
        return Belief(CONVERTED, "", 0)
    if config.get("learner") == "nuts":
        return Belief("posterior", "NUTS", draws)
    if config.get("learner") != "svi":
        return Belief("trained weights", "", draws)
    if bayes.get("guide") in ("point", "AutoDelta"):
        return Belief("point estimate", "", draws)
    weight = float(metrics.get("automatic/svi.kl_weight", svi.get("kl_weight", 1.0)))
    if weight == 1.0:
        return Belief("posterior", "", draws)
    return Belief("tempered posterior", f"KL weight {weight:g}", draws)


def own_task(config: Mapping[str, Any]) -> str:
    """A sentence on the scores of a task of one's own; empty where the run has none."""
    name = str(config.get("task", ""))
    return f"The scores are those of {name}: figures of its answers are its own business." if ":" in name else ""


def own_scores(config: Mapping[str, Any], metrics: Mapping[str, Any], part: str) -> dict[str, str]:
    """Names of the metrics of a part that a task of one's own has scored, and what they are called."""
    found = [name for name in metrics if name.startswith(f"{part}/") and name.count("/") == 1]
    return {name: name.removeprefix(f"{part}/") for name in found} if own_task(config) else {}


def rival(name: str, metrics: Mapping[str, Any]) -> str:
    """What a rival is called, with its bits where the run says them."""
    bits = metrics.get(f"rival/{name}/bits")
    return RIVALS[name].format(bits="few" if bits is None else f"{bits:g}")


def is_trained(name: str, metrics: Mapping[str, Any]) -> bool:
    """Whether a rival was trained; one that was not has a price and no accuracy."""
    return bool(metrics.get(f"rival/{name}/trained", 0))


def assumption(metrics: Mapping[str, Any]) -> str:
    """What was counted and what assumed where zeros are skipped, in a sentence; empty where the run does not say."""
    inputs = metrics.get("rival/dense_skipping/nonzero_inputs")
    hidden = metrics.get("rival/dense_skipping/nonzero_hidden_assumed")
    if inputs is None:
        return ""
    if "rival/lstm/trained" in metrics:
        units = "hidden tanh units are never zero. Recurrent rivals that are pruned alike also stop as early"
    elif hidden is None:
        units = "nothing had to be assumed"
    else:
        units = f"of hidden ReLU activations {100 * float(hidden):.3g} %, as assumed"
    return f"Where zeros are skipped, {100 * float(inputs):.3g} % of the inputs are nonzero, as counted; {units}."


def unpriced(metrics: Mapping[str, Any]) -> str:
    """Which neurons do not say what an update costs, in a sentence; empty where all do."""
    names = metrics.get("energy/priced_as_lif")
    return f"Updates of {names} are priced as an LIF's: cost() of the cell would say what they cost." if names else ""


def degenerate(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """What makes the figures of a network say little, in a sentence; empty where it computes and fires."""
    if why := metrics.get("energy/uncounted"):
        return f"Nothing is gated and no energy is counted: {why}, see dsnn.protocols.Gateable."
    if why := metrics.get("compute/uncompacted"):
        return (
            "What is closed is masked, but stays in the network that runs, and its energy is counted with it: "
            f"{why}, see dsnn.networks.cut."
        )
    if metrics.get("gates/total") and not metrics.get("gates/kept", 1):
        return "Every compute site is closed: the network answers from its biases; a smaller svi.lam closes fewer."
    model = _part(config, "model")
    has_hidden = bool(model.get("hidden", True)) or model.get("architecture", "mlp") != "mlp"
    if has_hidden and metrics.get("compute/spike_rate") == 0 and model.get("cell") != "ReLU":
        return (
            "No hidden neuron fired in the test examples that were measured: every answer is that of a silent network."
        )
    if not has_hidden:
        return "The network has no hidden neurons: its readout sees the inputs, and nothing spikes."
    return ""


WITHIN = 1.02
"""What a network may spend of a budget that it keeps: sites are whole, and test examples others."""


def budget(config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """What a budget of energy was and what the deployed network spends, in a sentence; empty without a budget."""
    svi, priced = _part(config, "svi"), _part(config, "energy")
    share, most = float(svi.get("budget_fraction") or 0), float(svi.get("budget_nj") or 0)
    where = f"energy/{PurePath(str(priced.get('profile', ''))).stem}/{priced.get('accounting', '')}"
    spent, whole = metrics.get(f"{where}/snn_nj"), metrics.get(f"{where}/ungated_nj")
    if not (share or most) or spent is None or whole is None:
        return ""
    allowed = most or share * float(whole)
    asked = f"{most:.4g} nJ" if most else f"{share:.0%} of all sites and steps, {allowed:.4g} nJ"
    kept = "within" if float(spent) <= WITHIN * allowed else "above"
    return f"The budget was {asked}; the deployed network spends {float(spent):.4g} nJ, {kept} it."


def even(metrics: Mapping[str, Any], profile: str, accounting: str) -> str:
    """At which spike rate this network would cost what a rival of its own shape costs, in a sentence; or empty."""
    prefix = f"energy/{profile}/{accounting}/rival"
    named = {name: metrics.get(f"{prefix}/{name}_break_even_rate") for name in ("pruned", "pruned_quantised")}
    rates = {rival(name, metrics): float(rate) for name, rate in named.items() if rate is not None}
    measured = metrics.get("compute/spike_rate")
    if not rates or measured is None:
        return ""
    said = [f"at {rate:.3g} with the rival {name}" if rate else f"never with {name}" for name, rate in rates.items()]
    return (
        f"In {accounting} it would break even, by spikes per input and step, {' and '.join(said)}; it sends "
        f"{float(measured):.3g}."
    )


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return part if isinstance(part, Mapping) else {}
