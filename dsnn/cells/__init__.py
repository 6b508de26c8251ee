"""Spiking cells: pure functions of a state, with parameters that a learner or a prior can take hold of.

``cell.init(batch_shape)`` gives the state for currents of shape ``batch_shape`` (batch and features of one step), and
``cell.step(state, current, key)`` the next state and the spikes. Without a key the neuron is deterministic.
"""

from dsnn.cells.adex import AdEx, AdExState
from dsnn.cells.alif import ALIF, ALIFState
from dsnn.cells.cubalif import CuBaLIF, CuBaLIFState
from dsnn.cells.fixed_point import kind
from dsnn.cells.izhikevich import Izhikevich, IzhikevichState
from dsnn.cells.li import LI, LIState
from dsnn.cells.lif import IF, LIF, PLIF, LIFState
from dsnn.cells.ltc import LTC, LTCState
from dsnn.cells.noisy import Noisy, NoisyState
from dsnn.cells.presets import like, presets
from dsnn.cells.psn import PSN, MaskedPSN, PSNState, SlidingPSN
from dsnn.cells.quantised_relu import QuantisedReLU
from dsnn.cells.relu import ReLU, ReLUState
from dsnn.cells.resonate import BRF, RF, BRFState, RFState
from dsnn.cells.signed import SignedIF, SignedIFState

__all__ = [
    "ALIF",
    "BRF",
    "IF",
    "LI",
    "LIF",
    "LTC",
    "PLIF",
    "PSN",
    "RF",
    "ALIFState",
    "AdEx",
    "AdExState",
    "BRFState",
    "CuBaLIF",
    "CuBaLIFState",
    "Izhikevich",
    "IzhikevichState",
    "LIFState",
    "LIState",
    "LTCState",
    "MaskedPSN",
    "Noisy",
    "NoisyState",
    "PSNState",
    "QuantisedReLU",
    "RFState",
    "ReLU",
    "ReLUState",
    "SignedIF",
    "SignedIFState",
    "SlidingPSN",
    "kind",
    "like",
    "presets",
]
