"""Weights of SpikingJelly's networks in those of `dsnn.networks.zoo`, as numbers only: nothing pickled is read."""

from dsnn.networks.spikingjelly.fill import load
from dsnn.networks.spikingjelly.read import read_state

__all__ = ["load", "read_state"]
