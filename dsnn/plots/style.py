"""One look for every figure: palette, type size, and the two ways out (PNG, SVG).

The first four series colours follow Okabe & Ito (2008), told apart under every common colour blindness, moved to a
middle lightness so that they stand on white and on near-black alike; where more are used, something else tells them
apart too. Ink, muted, tint and paper are exact hexadecimal values
that occur nowhere else, so that a page can exchange them for its own theme.
"""

import functools
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

INK = "#1b2027"
MUTED = "#68707c"
TINT = "#e7eaee"
PAPER = "#fffffe"
SERIES = ("#2878c8", "#e1701a", "#0b7a55", "#d0699f", "#b58a00", "#4fa9dd", "#8a7264", "#7a6fd0")
ACCENT = SERIES[0]
WIDTH_IN = 4.6

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.color": TINT,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.handlelength": 1.4,
    "svg.fonttype": "none",
    "svg.hashsalt": "dsnn",
    "image.interpolation": "none",
}

_Args = ParamSpec("_Args")


def styled(draw: Callable[_Args, Figure]) -> Callable[_Args, Figure]:
    """Draws in the house style and leaves Matplotlib's own settings as they were."""

    @functools.wraps(draw)
    def wrapper(*args: _Args.args, **kwargs: _Args.kwargs) -> Figure:
        with mpl.rc_context(_STYLE):
            figure = draw(*args, **kwargs)
            if (layout := figure.get_layout_engine()) is not None:
                layout.execute(figure)  # once; each way out would do it again
                figure.set_layout_engine("none")
            return figure

    return wrapper


def new_figure(height_in: float, width_in: float = WIDTH_IN) -> Figure:
    """An empty figure with its own Agg canvas."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_png(figure: Figure, path: str | Path, dpi: int = 160) -> Path:
    """Writes the figure on white paper and returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        figure.savefig(path, format="png", dpi=dpi, facecolor="white")
    return path


def to_svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element for a page: text stays text, the paper is transparent, sizes are relative."""
    buffer = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)[ >].*?</\1>\s*", "", svg, flags=re.DOTALL)  # a page's style would reach its text
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return f"{head}>{rest}"


def opaque(mask: Float[np.ndarray, "row column"], colour: str = ACCENT) -> Float[np.ndarray, "row column 4"]:
    """An image of one colour whose opacity is `mask`, clear where it is zero or NaN."""
    image = np.empty((*mask.shape, 4))
    image[..., :3] = to_rgb(colour)
    image[..., 3] = np.clip(np.nan_to_num(mask), 0.0, 1.0)
    return image


def from_zero(axes: Axes, *values: Float[np.ndarray, "..."]) -> None:
    """Shows zero and all of the values, with room above the largest.

    Matplotlib's own upper end leaves room in proportion to the spread of the values: none above a curve that hardly
    moves, and half of its line is cut away.
    """
    top = max((float(part[np.isfinite(part)].max(initial=0.0)) for part in map(np.asarray, values)), default=0.0)
    axes.set_ylim(0, 1.08 * top if top > 0 else 1.0)


def bare(axes: Axes) -> None:
    """Removes ticks and frame."""
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
