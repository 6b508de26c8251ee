"""The runner: configurations composed, one run from data to report, sweeps, searches, and their command lines."""
