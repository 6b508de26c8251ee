"""The time loop, its parallel and compiled forms, encoders and early exit."""
