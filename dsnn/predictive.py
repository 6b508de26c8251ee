"""The compiled predictive of a task: of numbers, of a class at every step, or of classes and labels once."""

from typing import Any

from dsnn import data
from dsnn.bayes.lift import Lifted
from dsnn.bayes.predict import predictor
from dsnn.bayes.regress import regressor
from dsnn.bayes.sequence import sequencer


def predictive(lifted: Lifted, split: data.Split, devices: int = 1) -> Any:
    """Returns what predicts the targets of a split, see `predictor`, `sequencer` and `regressor` of `dsnn.bayes`.

    Args:
        lifted: the network.
        split: says which task it is.
        devices: of this process that share the draws of classes.
    """
    if split.task == "regression":
        return regressor(lifted)
    return sequencer(lifted) if data.per_step(split) else predictor(lifted, devices)
