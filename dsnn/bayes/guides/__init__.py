"""Guides: families of posteriors over the weights, one contract (`Guide`), one idea a file."""

from dsnn.bayes.guides.auto import auto
from dsnn.bayes.guides.contract import Guide, Weights
from dsnn.bayes.guides.draws import ENERGY, draws
from dsnn.bayes.guides.dropout import aot, dropout
from dsnn.bayes.guides.ensemble import ensemble, stacked
from dsnn.bayes.guides.factorised import factorised, last_layer, mean_field, point
from dsnn.bayes.guides.laplace import laplace
from dsnn.bayes.guides.low_rank import low_rank
from dsnn.bayes.guides.named import ENSEMBLE, check, family, made, numpyro_guides
from dsnn.bayes.guides.rank1 import rank1

__all__ = [
    "ENERGY",
    "ENSEMBLE",
    "Guide",
    "Weights",
    "aot",
    "auto",
    "check",
    "draws",
    "dropout",
    "ensemble",
    "factorised",
    "family",
    "laplace",
    "last_layer",
    "low_rank",
    "made",
    "mean_field",
    "numpyro_guides",
    "point",
    "rank1",
    "stacked",
]
