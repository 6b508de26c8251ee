"""From figures and numbers to one HTML file: drawing safely, theming, number formats, the template."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from matplotlib.figure import Figure

from dsnn import plots, store

_THEME = {plots.INK: "--ink", plots.MUTED: "--muted", plots.TINT: "--tint", plots.PAPER: "--paper"}


class Picture(NamedTuple):
    """A figure of a page.

    Args:
        svg: The drawing; empty when it could not be made.
        caption: What one sees in it.
        trouble: Why it could not be drawn; empty when it could.
        wide: Whether it needs more than half of a wide page.
    """

    svg: str
    caption: str
    trouble: str = ""
    wide: bool = False


def draw(directory: Path, name: str, caption: str, figure: Callable[[], Figure]) -> Picture:
    """Draws one figure for the page and saves it as ``figures/<name>.png``; a failure is told in its place.

    A report closes a run that is already paid for, so one odd array must not take the rest of the page with it.
    """
    try:
        drawn = figure()
        plots.save_png(drawn, directory / "figures" / f"{name}.png")
        return Picture(themed(plots.to_svg(drawn)), caption, wide=drawn.get_figwidth() > 5)
    except Exception as error:  # what an odd array makes a drawing raise depends on the drawing
        return Picture("", caption, f"{name} could not be drawn: {type(error).__name__}: {error}")


def themed(svg: str) -> str:
    """The figure in the page's colours, light or dark; Matplotlib has escaped its text."""
    for colour, variable in _THEME.items():
        svg = svg.replace(colour, f"var({variable})")
    used = set(re.findall(r"#([\w.-]+)", svg))
    return re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)


def render(template: str, path: Path, values: Mapping[str, Any]) -> Path:
    """Renders a template of this package, with every text escaped, and writes the page atomically."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, percent=percent, energy=energy)
    page = environment.get_template(template).render(values)
    # JSON and the names of files may hold halves of characters, which no file of text can
    return store.write_text(path.parent, path.name, page.encode("utf-8", "replace").decode())


def number(value: Any) -> str:
    """A number as a person writes it: at most four digits that matter; texts as they are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.4g}"


def percent(value: float | int) -> str:
    """A share in percent."""
    return f"{100 * value:.1f}\u202f%"


def energy(nanojoules: float | int) -> str:
    """An energy in its natural unit."""
    return plots.format_nj(nanojoules)
