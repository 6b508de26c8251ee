"""Figures a person would rather look at than read: functions from arrays to Matplotlib figures, no global state."""

from dsnn.plots.activity import gate_map, membrane_traces, raster, running_decision, steps_histogram
from dsnn.plots.beliefs import intervals, posterior, uncertainty_map
from dsnn.plots.boundary import boundary
from dsnn.plots.cost import (
    accuracy_energy,
    energy_bars,
    format_nj,
    front,
    parallel_coordinates,
    pareto_front,
    price_trace,
)
from dsnn.plots.exits import exit_curves
from dsnn.plots.frontier import best_of, frontier
from dsnn.plots.quality import (
    has_curves,
    learning_curves,
    overlaid_curves,
    reliability,
    risk_coverage,
    uncertainty_histogram,
)
from dsnn.plots.sequence import believed_sequence, detection, step_calibration
from dsnn.plots.style import ACCENT, INK, MUTED, PAPER, SERIES, TINT, save_png, to_svg

__all__ = [
    "ACCENT",
    "INK",
    "MUTED",
    "PAPER",
    "SERIES",
    "TINT",
    "accuracy_energy",
    "believed_sequence",
    "best_of",
    "boundary",
    "detection",
    "energy_bars",
    "exit_curves",
    "format_nj",
    "front",
    "frontier",
    "gate_map",
    "has_curves",
    "intervals",
    "learning_curves",
    "membrane_traces",
    "overlaid_curves",
    "parallel_coordinates",
    "pareto_front",
    "posterior",
    "price_trace",
    "raster",
    "reliability",
    "risk_coverage",
    "running_decision",
    "save_png",
    "step_calibration",
    "steps_histogram",
    "to_svg",
    "uncertainty_histogram",
    "uncertainty_map",
]
