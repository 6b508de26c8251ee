"""Bayesian stochastic deep spiking networks: spiking cells in JAX, Flax models, NumPyro inference over computation."""

from dsnn.unroll import unroll

__version__ = "0.1.0"
__all__ = ["unroll"]
