"""How many bits weights may have: what a configuration says of it."""

import dataclasses

from dsnn import resolve
from dsnn.bayes.gates import FAMILIES

__all__ = ["POSTERIOR_WIDTH", "WIDTHS", "BitsConfig"]

WIDTHS = (2, 4, 8, 16)
POSTERIOR_WIDTH = "posterior_width"
PER = ("kernel", "channel")


@dataclasses.dataclass
class BitsConfig:
    """How precisely weights are stored, as the posterior chooses under a price of energy (`dsnn.bayes.bit_posterior`).

    What is judged then (deployed/..., energy/...) is the decided integer network alone: weights of the widths that
    were chosen, membranes in fixed point, inputs rounded (`dsnn.deploy.fixed_point`). A network of values
    (``model.cell=ReLU``) learns with its activations rounded (`dsnn.cells.quantised_relu`).

    Attributes:
        enabled: whether kernels have bit gates, or are trained at a fixed width. Without a price all bits stay.
        per: what has a width of its own, a "kernel" or each output "channel" of one.
        widths: that may be chosen, of 2, 4, 8 and 16.
        zero: whether a kernel or channel may have no bit at all, which closes it: then none of its weights is read.
        family: of the nested gates, a gate family with an inferred posterior ("hard_concrete", "concrete", "bernoulli"
            for at most 8 gates), or "posterior_width", a control: weights learn in float32, and each kernel then gets
            the fewest bits whose step is no longer than its posterior's standard deviation.
        open_probability: of each gate, at the start.
        fixed: one width for every kernel, without gates: quantisation-aware training; 0 is none.
        membrane: width of membranes, thresholds and biases in fixed point, and of what a ReLU compares with zero.
        leak: bits of a leak's multiplier m / 2^bits.
        inputs: width of inputs that are values.
        activations: width of the values that a ReLU gives, which have no sign; their step is learned.
    """

    enabled: bool = False
    per: str = "kernel"
    widths: list[int] = dataclasses.field(default_factory=lambda: list(WIDTHS))
    zero: bool = True
    family: str = "hard_concrete"
    open_probability: float = 0.98
    fixed: int = 0
    membrane: int = 16
    leak: int = 8
    inputs: int = 8
    activations: int = 8

    def __post_init__(self) -> None:
        if self.per not in PER:
            raise ValueError(f"bits.per must be one of {', '.join(PER)}, got {self.per!r}.")
        if not self.widths or self.widths != sorted(set(self.widths) & set(WIDTHS)):
            raise ValueError(f"bits.widths must be some of {', '.join(map(str, WIDTHS))} in order, got {self.widths}.")
        if self.fixed not in (0, *WIDTHS):
            raise ValueError(f"bits.fixed must be one of {', '.join(map(str, WIDTHS))}, or 0, got {self.fixed}.")
        inferred = [name for name, family in FAMILIES.items() if family.inferred and name != "lognormal"]
        resolve.check_name("bits.family", self.family, (*inferred, POSTERIOR_WIDTH))
        if self.fixed and self.family == POSTERIOR_WIDTH:
            raise ValueError(
                f"bits.fixed trains at one width and bits.family={POSTERIOR_WIDTH} chooses one afterwards, got both; "
                "leave one of them out."
            )
        if not 0.9 <= self.open_probability < 1:
            raise ValueError(
                "bits.open_probability must be in [0.9, 1), so that learning begins where all bits are likelier than "
                f"fewer, got {self.open_probability}; 0.98 is usual."
            )
        for name, least in (("inputs", 2), ("activations", 1)):
            if not least <= (width := getattr(self, name)) <= 16:
                raise ValueError(f"bits.{name} must be from {least} to 16, got {width}; 8 is a byte.")
        if not 6 <= self.membrane <= 24 or not 2 <= self.leak <= 16 or self.membrane - 1 + self.leak > 24:
            raise ValueError(
                "bits.membrane must be from 6 to 24, bits.leak from 2 to 16, and their sum at most 25, beyond which "
                f"float32 is not exact, got {self.membrane} and {self.leak}; 16 and 8 are usual."
            )
