"""Where spikes win: the lines on which a spiking network and a rival that skips its zeros cost alike."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from dsnn.plots.style import ACCENT, INK, MUTED, SERIES, TINT, WIDTH_IN, new_figure, styled

LINES = {"pruned": ("full precision", MUTED), "pruned_quantised": ("quantised", SERIES[1])}
"""Rivals by name: what they are called, and their colour."""


@styled
def boundary(lines: Mapping[str, Mapping[str, tuple[float, float]]], own: float) -> Figure:
    """Draws spikes of a neuron over the rival's share of nonzero activations, a panel for each accounting.

    Args:
        lines: By accounting and rival, the spikes of a hidden neuron and inference at which both cost alike, where none
            and where all of the rival's activations are nonzero.
        own: What this network's hidden neurons send.
    """
    figure = new_figure(2.5, WIDTH_IN)
    won = {name for of in lines.values() for name, ends in of.items() if max(ends) > 0}
    panels = figure.subplots(1, len(lines), sharey=True, squeeze=False)[0]
    top = 1.25 * max([own, 1e-3, *(end for of in lines.values() for ends in of.values() for end in ends)])
    for axes, (accounting, rivals) in zip(panels, lines.items(), strict=True):
        for name, (none, every) in rivals.items():
            said, colour = LINES.get(name, (name, INK))
            said = f"as dear as values, {said}" if name in won else f"values, {said}: always cheaper"
            axes.plot([0, 1], [none, every], color=colour, linewidth=1.8, label=said)
        share = np.linspace(0, 1, 101)
        lowest = np.min([np.interp(share, (0, 1), ends) for ends in rivals.values()], axis=0)
        axes.fill_between(share, 0, np.maximum(lowest, 0), color=TINT, linewidth=0, zorder=0)
        axes.axhline(own, color=ACCENT, linewidth=1.8, label="this network")
        axes.set(xlim=(0, 1), ylim=(0, top), xticks=[0, 0.5, 1])
        axes.set_title(accounting)
    panels[0].set_ylabel("spikes a neuron")
    figure.supxlabel("share of the rival's activations that are not zero", color=MUTED, size=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=1 if len(labels) > 2 else 2)
    return figure
