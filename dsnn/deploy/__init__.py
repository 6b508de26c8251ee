"""The network that is put to use: decided, physically smaller, stopping early, timed."""

from dsnn.deploy.decided import (
    Deployed,
    Ran,
    Timing,
    at_kept_steps,
    compacted,
    compaction_error,
    deploy,
    never,
    on_grid,
    ran,
    running,
    running_ahead,
    speed,
    stopping,
)

__all__ = [
    "Deployed",
    "Ran",
    "Timing",
    "at_kept_steps",
    "compacted",
    "compaction_error",
    "deploy",
    "never",
    "on_grid",
    "ran",
    "running",
    "running_ahead",
    "speed",
    "stopping",
]
