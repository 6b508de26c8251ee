"""Inference: priors, gates, halting, the Bayesian network of them, and what its posterior predicts."""
