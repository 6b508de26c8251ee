"""Tasks: classes, labels, numbers, a class at every step, and one's own: likelihood, prediction and scores of each."""

from dsnn.data.split import OWN
from dsnn.tasks.batching import EVAL_BATCH, averaged, drawn, first_batch, in_batches, outputs
from dsnn.tasks.calibration import calibrated
from dsnn.tasks.classes import Classes
from dsnn.tasks.labels import Labels
from dsnn.tasks.numbers import Numbers, Regression, regressor
from dsnn.tasks.own import Own
from dsnn.tasks.pick import AUTO, Choice, guess, of
from dsnn.tasks.probabilities import Predict, Prediction, Predictor, predictor
from dsnn.tasks.sources import Sources, by_source
from dsnn.tasks.steps import Labelled, Sequence, Steps, sequencer
from dsnn.tasks.task import Ask, Decided, Facts, Losses, Task, Temper, patient_by, refuse, scored

__all__ = [
    "AUTO",
    "EVAL_BATCH",
    "OWN",
    "Ask",
    "Choice",
    "Classes",
    "Decided",
    "Facts",
    "Labelled",
    "Labels",
    "Losses",
    "Numbers",
    "Own",
    "Predict",
    "Prediction",
    "Predictor",
    "Regression",
    "Sequence",
    "Sources",
    "Steps",
    "Task",
    "Temper",
    "averaged",
    "by_source",
    "calibrated",
    "drawn",
    "first_batch",
    "guess",
    "in_batches",
    "of",
    "outputs",
    "patient_by",
    "predictor",
    "refuse",
    "regressor",
    "scored",
    "sequencer",
]
