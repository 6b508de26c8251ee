"""What a data set looks like before anything is learned of it: some examples of each class."""

import numpy as np
from jaxtyping import Shaped
from matplotlib.figure import Figure

from dsnn.plots.style import INK

SHOWN = 3
MANY = 512
"""Features from which on a line is drawn: a bar for each takes minutes."""


def examples(
    x: Shaped[np.ndarray, "example ..."],
    y: Shaped[np.ndarray, "example ..."],
    names: tuple[str, ...] = (),
    temporal: bool = False,
) -> Figure:
    """The first examples of up to eight classes: pictures, or channels against time, or bars of features.

    Args:
        x: Inputs, ``[n, ...]`` or, when temporal, ``[n, time, ...]``.
        y: Labels; those that are no class numbers are shown in the order of the file.
        names: One name per class, or empty.
        temporal: Whether the second axis is time.
    """
    stratified = y.ndim == 1 and np.issubdtype(y.dtype, np.integer)
    classes = [int(c) for c in np.unique(y)[:8]] if stratified else [0]
    figure = Figure(figsize=(2.0 * len(classes), 2.0 * SHOWN), layout="constrained")
    grid = figure.subplots(SHOWN, len(classes), squeeze=False)
    for column, label in enumerate(classes):
        rows = (np.flatnonzero(y == label) if stratified else np.arange(len(x)))[:SHOWN]
        for axis in grid[:, column]:
            axis.set_axis_off()
        for axis, row in zip(grid[:, column], rows, strict=False):
            _show(axis, np.asarray(x[row]), temporal)
        title = names[label] if stratified and label < len(names) else (str(label) if stratified else "examples")
        grid[0, column].set_title(title, color=INK, fontsize=9)
    return figure


def _show(axis: object, example: np.ndarray, temporal: bool) -> None:
    if temporal:
        picture = example.reshape(len(example), -1).T
    elif example.ndim >= 2:
        picture = example.reshape(*example.shape[:2], -1).mean(-1)
    elif example.size > MANY:
        axis.plot(example, color=INK, linewidth=0.5)  # type: ignore[attr-defined]
        return
    else:
        axis.bar(np.arange(len(example)), example, color=INK, width=1.0)  # type: ignore[attr-defined]
        return
    axis.imshow(picture, aspect="auto" if temporal else "equal", cmap="gray_r", interpolation="nearest")  # type: ignore[attr-defined]
