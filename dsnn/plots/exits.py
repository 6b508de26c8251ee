"""What stopping early costs: accuracy against mean steps, a curve per rule."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from dsnn.plots.style import INK, MUTED, SERIES, new_figure, styled

RULES = {
    "variational": "q(n | x)",
    "variational_price": "q(n | x), price swept",
    "dt_snn": "entropy (DT-SNN)",
    "seenn": "confidence (SEENN-I)",
    "fixed": "same step for all",
}
_STYLES = {"fixed": (MUTED, ":"), "variational": (SERIES[0], "-"), "variational_price": (SERIES[2], "-")}
_STYLES |= {"dt_snn": (SERIES[1], "--"), "seenn": (SERIES[3], "-.")}


@styled
def exit_curves(
    curves: Mapping[str, tuple[Float[np.ndarray, " point"], Float[np.ndarray, " point"]]],
    total: int,
    point: tuple[float, float] | None = None,
) -> Figure:
    """Accuracy against the mean number of steps, as each rule's threshold is swept.

    Args:
        curves: Per rule its mean steps and accuracies; known names are those of `RULES`.
        total: T; the dashed line is the accuracy of all steps.
        point: Mean steps and accuracy of the deployed network.
    """
    figure = new_figure(3.2)
    axes = figure.subplots()
    reached = [accuracy[np.argmax(steps)] for steps, accuracy in curves.values() if len(steps)]
    for index, (name, (steps, accuracy)) in enumerate(curves.items()):
        colour, line = _STYLES.get(name, (SERIES[index % len(SERIES)], "-"))
        order = np.argsort(steps, kind="stable")
        axes.plot(steps[order], accuracy[order], line, color=colour, linewidth=1.7, label=RULES.get(name, name))
    if reached:
        axes.axhline(max(reached), color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axes.set_title(f"dashed: all {total} steps", loc="right", color=MUTED, weight="normal", size=8.5)
    if point is not None:
        axes.plot(*point, "o", color=INK, markersize=6, label="as deployed", zorder=4)
    axes.set_xscale("log")  # most examples stop within the first steps
    ticks = [2**power for power in range(total.bit_length()) if 2**power < 0.8 * total] + [total]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="mean steps until the answer", ylabel="accuracy", xlim=(0.96, max(total, 2) * 1.04))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))
    figure.legend(loc="outside lower left", ncols=3, columnspacing=1.2)  # curves reach every corner
    return figure
