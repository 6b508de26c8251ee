"""Array aliases and the axis vocabulary of every signature in the package.

Axes are named ``time batch neuron class sample``: time leads, then batch, then features (images channels last);
posterior samples stand in front of everything. Nothing else lives here.
"""

from jaxtyping import Array, Bool, Float, Int, Key, Shaped, UInt32

__all__ = ["Array", "Bool", "Float", "Int", "Key", "Shaped", "UInt32"]
