"""The old names of `dsnn.bayes.bayesian`."""

from dsnn.bayes.bayesian import Bayesian as Lifted
from dsnn.bayes.bayesian import Context, Draw
from dsnn.bayes.halting_posterior import SHARPNESS, TEMPERATURE
from dsnn.bayes.weight_posterior import ANSWERS

__all__ = ["ANSWERS", "SHARPNESS", "TEMPERATURE", "Context", "Draw", "Lifted"]
