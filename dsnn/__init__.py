"""Bayesian stochastic deep spiking networks: spiking cells in JAX, Flax models, NumPyro inference over computation."""

from dsnn import cells, encode, escape, surrogate
from dsnn.anytime import anytime
from dsnn.compact import compact
from dsnn.unroll import unroll

__version__ = "0.1.0"
__all__ = ["anytime", "cells", "compact", "encode", "escape", "surrogate", "unroll"]
