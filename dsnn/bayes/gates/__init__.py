"""Gate families: distributions over z in [0, 1] per compute site, under one contract (`Family`, `Gates`)."""

from dsnn.bayes.gates.bernoulli import BERNOULLI, CONCRETE, ENUMERATED, Bernoulli, Concrete, antithetic, every_setting
from dsnn.bayes.gates.contract import Family, Gates, OpenOrClosed, bernoulli_entropy
from dsnn.bayes.gates.hard_concrete import HARD_CONCRETE, MAGNITUDE, RANDOM, HardConcrete, log_alpha_for
from dsnn.bayes.gates.lognormal import LOG_NORMAL, LogNormalNoise, TruncatedLogUniform
from dsnn.bayes.gates.own import family

FAMILIES: dict[str, Family] = {f.name: f for f in (HARD_CONCRETE, CONCRETE, BERNOULLI, LOG_NORMAL, MAGNITUDE, RANDOM)}

__all__ = [
    "BERNOULLI",
    "CONCRETE",
    "ENUMERATED",
    "FAMILIES",
    "HARD_CONCRETE",
    "LOG_NORMAL",
    "MAGNITUDE",
    "RANDOM",
    "Bernoulli",
    "Concrete",
    "Family",
    "Gates",
    "HardConcrete",
    "LogNormalNoise",
    "OpenOrClosed",
    "TruncatedLogUniform",
    "antithetic",
    "bernoulli_entropy",
    "every_setting",
    "family",
    "log_alpha_for",
]
