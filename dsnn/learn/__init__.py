"""Learning: pairs of pure functions (init, step), and the loop that runs any of them over epochs.

Rules that update within a sequence are in `dsnn.learn.online`, optimisers in `dsnn.learn.optimizer`.
"""

from dsnn.learn.fit import (
    Epoch,
    LearnerOf,
    Program,
    Settings,
    beginning,
    compiled,
    epoch_program,
    fit,
    fit_program,
    require_finite,
    starting,
)
from dsnn.learn.learner import Info, Learner, TrainingError, info_of
from dsnn.learn.map import MapState, map_learner, map_params, natural, unconstrained
from dsnn.learn.pricing import Pricing
from dsnn.learn.streaming import StreamedEpoch
from dsnn.learn.svi import SviInfo, svi_learner
from dsnn.learn.svi_config import SviConfig, decided_from
from dsnn.learn.svi_state import SviState, svi_params
from dsnn.protocols import Batch

__all__ = [
    "Batch",
    "Epoch",
    "Info",
    "Learner",
    "LearnerOf",
    "MapState",
    "Pricing",
    "Program",
    "Settings",
    "StreamedEpoch",
    "SviConfig",
    "SviInfo",
    "SviState",
    "TrainingError",
    "beginning",
    "compiled",
    "decided_from",
    "epoch_program",
    "fit",
    "fit_program",
    "info_of",
    "map_learner",
    "map_params",
    "natural",
    "require_finite",
    "starting",
    "svi_learner",
    "svi_params",
    "unconstrained",
]
