"""How early exit is learned, fitted and certified."""

from dataclasses import dataclass

from dsnn.bayes.halting import FEATURES

FITS = ("held_out", "training", "both")


@dataclass
class HaltingConfig:
    """When an example may stop.

    Attributes:
        enabled: whether there is a q(n | x) where an example has one class; otherwise, and for several labels, numbers
            and a label at every step, all steps run.
        feature: what it reads of the running logits, "margin", "entropy" or "learned" (a small network over both, the
            largest probabilities, their change and the step).
        fit: "held_out" learns the weights with all steps and fits q(n | x) afterwards, on the half of the validation
            part that selects (`dsnn.deploy.exit_calibration`), so that halting cannot harm learning; "training" learns
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
        for name, value, allowed in (("feature", self.feature, FEATURES), ("fit", self.fit, FITS)):
            if value not in allowed:
                raise ValueError(f"halting.{name} must be one of {', '.join(allowed)}, got {value!r}.")
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
