"""Noise of a neuron: firing by chance, with the probability and the likelihood of what was fired, and other sources.

Escape noise (`Logistic`, `Gaussian`, `ExponentialHazard`) has ``spike(u, key, surrogate, compare)``,
``probability(u)`` and ``log_prob(u, s)``, where u is the membrane minus the threshold, and goes to a cell as
``noise=``; so do `Concrete`, which wraps one of them for its gradient, and `ThresholdJitter`. `OrnsteinUhlenbeck` and
`ReleaseFailure` go to `dsnn.cells.Noisy`. Each of them is counted once: nothing is added both to the membrane and to
the threshold.
"""

from dsnn.escape.concrete import Concrete
from dsnn.escape.current import OrnsteinUhlenbeck
from dsnn.escape.gaussian import Gaussian
from dsnn.escape.hazard import ExponentialHazard
from dsnn.escape.jitter import ThresholdJitter
from dsnn.escape.logistic import Logistic
from dsnn.escape.release import ReleaseFailure

__all__ = [
    "Concrete",
    "ExponentialHazard",
    "Gaussian",
    "Logistic",
    "OrnsteinUhlenbeck",
    "ReleaseFailure",
    "ThresholdJitter",
]
