"""What a user would deploy instead of a spiking network, by name: ``model.architecture=gru``, ``rivals.gru(...)``.

Each is called ``(in_shape, classes, *, key, **options)`` and gives a network with a wiring, so that its inputs and
units have gates, its energy is counted and its closed sites leave like those of any other.
"""

from dsnn.networks.rivals.delta_gru import delta_gru
from dsnn.networks.rivals.exits import exits
from dsnn.networks.rivals.gru import gru
from dsnn.networks.rivals.tconv import tconv

__all__ = ["delta_gru", "exits", "gru", "tconv"]
