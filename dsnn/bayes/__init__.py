"""Inference: priors, gates, halting, the lifted model, and what its posterior predicts."""
