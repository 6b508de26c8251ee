"""Spiking cells: pure functions of a state, with parameters that a learner or a prior can take hold of.

``cell.init(batch_shape)`` gives the state for currents of shape ``batch_shape`` (batch and features of one step), and
``cell.step(state, current, key)`` the next state and the spikes. Without a key the neuron is deterministic.
"""

from dsnn.cells.alif import ALIF, ALIFState
from dsnn.cells.cubalif import CuBaLIF, CuBaLIFState
from dsnn.cells.li import LI, LIState
from dsnn.cells.lif import IF, LIF, LIFState

__all__ = ["ALIF", "IF", "LI", "LIF", "ALIFState", "CuBaLIF", "CuBaLIFState", "LIFState", "LIState"]
