"""A frontier of many contenders: accuracy over energy in each accounting, and what more trials would have brought."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from dsnn.plots.cost import format_nj, pareto_front
from dsnn.plots.style import SERIES, new_figure, styled

MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "h", "p")
"""Told apart by these where there are more contenders than colours."""

Points = Sequence[tuple[float, float]]
"""(energy in nJ, accuracy) of each network."""


def _look(index: int) -> dict[str, Any]:
    return {"color": SERIES[index % len(SERIES)], "marker": MARKS[index % len(MARKS)]}


@styled
def frontier(panels: Mapping[str, Mapping[str, Points]], ours: str) -> Figure:
    """Accuracy over energy, a panel for each accounting; each contender's front as steps, ours drawn thicker.

    Args:
        panels: by what a panel is called, points by contender; contenders have one look in all panels.
        ours: the contender that is held against all others.
    """
    names = list(dict.fromkeys(name for points in panels.values() for name in points))
    figure = new_figure(3.5, 3.0 * max(len(panels), 2))
    for axes, (title, points) in zip(
        np.atleast_1d(figure.subplots(1, len(panels), sharey=True)), panels.items(), strict=True
    ):
        for name, those in points.items():
            if those:
                _steps(axes, np.asarray(those), name, _look(names.index(name)), thick=name == ours)
        axes.set(title=title, xlabel="energy per inference")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_major_formatter(lambda value, _: format_nj(value))
        axes.margins(x=0.1, y=0.08)
        axes.grid()
    figure.axes[0].set_ylabel("accuracy, %")
    _legend(figure, names)
    return figure


def _steps(axes: Axes, those: np.ndarray, name: str, look: dict[str, Any], *, thick: bool) -> None:
    energy, accuracy = np.maximum(those[:, 0], 1e-9), 100 * those[:, 1]
    front = pareto_front(energy, accuracy)
    axes.scatter(energy, accuracy, s=20, alpha=0.5, linewidths=0, color=look["color"], marker=look["marker"])
    width, size = (2.4, 6) if thick else (1.2, 4.5)
    axes.plot(
        energy[front], accuracy[front], drawstyle="steps-post", linewidth=width, ms=size, label=name, zorder=3, **look
    )


def _legend(figure: Figure, names: Sequence[str]) -> None:
    found = dict(zip(*reversed(figure.axes[0].get_legend_handles_labels()), strict=True))
    for axes in figure.axes[1:]:
        found = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True)) | found
    shown = [name for name in names if name in found]
    if not shown:
        return
    figure.legend(
        [found[name] for name in shown], shown, loc="outside lower center", ncols=min(len(shown), 6), columnspacing=1.2
    )


@styled
def best_of(curves: Mapping[str, Sequence[float]], ours: str, names: Sequence[str] = ()) -> Figure:
    """The most accurate of k trials that one may expect, on the part that selects.

    Args:
        curves: by contender, for k = 1 and on.
        ours: drawn thicker.
        names: every contender in the order that gives it its look; empty is that of the curves.
    """
    figure = new_figure(3.2)
    axes = figure.subplots()
    order = list(names or curves)
    for name, values in curves.items():
        ks = np.arange(1, len(values) + 1)
        width, look = 2.4 if name == ours else 1.2, _look(order.index(name))
        axes.plot(ks, 100 * np.asarray(values), linewidth=width, ms=4, label=name, **look)
    axes.set(xlabel="trials", ylabel="expected best accuracy, %")
    if not curves:
        return figure
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.08)
    axes.grid()
    figure.legend(loc="outside lower center", ncols=min(len(curves), 4), columnspacing=1.2)
    return figure
