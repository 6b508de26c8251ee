"""NIR, the Neuromorphic Intermediate Representation (Pedersen et al. 2024): networks of other frameworks and chips.

``load`` makes a `Graph` of any NIR file, which `dsnn.unroll` runs; ``stack`` turns one that is a chain of layers into
a `dsnn.networks.stack.Stack`, which can be trained, gated and compacted; ``save`` writes a stack or a graph.

NIR describes neurons in continuous time and in seconds, so a step ``dt`` and a discretisation are chosen here. The
default, forward Euler, is what the importers of snnTorch and Norse do:

    v' = v + dt/tau (v_leak - v + r x)

with a spike where v' > v_threshold and then v = v_reset. A current-based neuron moves its synapse first and its
membrane sees the new current. ``method="exp"`` has exp(-dt/tau) in place of 1 - dt/tau, which is exact for inputs that
are constant over a step. Images are channels-last here and channels-first in NIR; both directions convert.
"""

from dsnn.nir.export import save, to_nir
from dsnn.nir.fields import NIRError
from dsnn.nir.graph import Graph, build
from dsnn.nir.load import from_nir, load
from dsnn.nir.to_stack import stack

__all__ = ["Graph", "NIRError", "build", "from_nir", "load", "save", "stack", "to_nir"]
