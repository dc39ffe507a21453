"""How figures look, on paper and inside a page that may be dark."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, RULE = "#23262b", "#6b7079", "#dedcd5"
# Distinct in print and for colour-blind readers; every run has a marker of its own as well.
COLOURS = (
    "#2f6db3", "#c8641b", "#7a58a8", "#16868b", "#b3457a", "#7d7818", "#66707d", "#8a5836"
)  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
SIZE = (5.8, 3.5)

_STYLE: Any = {  # matplotlib types its 300 settings by name
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,  # a name with a dollar sign is a name
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.labelsize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "ytick.left": False,
    "xtick.bottom": False,
    "lines.linewidth": 2.0,
    "lines.markersize": 6,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "cello1",
    "savefig.facecolor": "none",
}
# Replaced by variables of the page, so that figures follow light and dark mode.
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    **{colour: f"var(--run-{i})" for i, colour in enumerate(COLOURS)},
}


@dataclass(frozen=True)
class Plot:
    """A figure and how to draw it.

    Attributes
    ----------
    key
        Name of its file and of its element in the page.
    title
        What it shows.
    alt
        Alternative text.
    draw
        Draws into axes.
    names
        Runs in it by their number in the report, for the legend.
    size
        Width and height in inches.
    """

    key: str
    title: str
    alt: str
    draw: Callable[[Axes], None]
    names: dict[int, str]
    size: tuple[float, float] = SIZE


def colour(number: int) -> str:
    """Return the colour of a run; after eight they repeat with other markers."""
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    """Return the marker of a run."""
    return MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]


def inline_svg(plot: Plot) -> str:
    """Draw a figure as an SVG element that takes its colours from the page.

    Its text is already escaped; only tags are changed here.
    """
    with _drawn(plot, page=True) as figure:
        target = StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(target, format="svg", metadata=nothing)
    svg = target.getvalue()
    svg = svg[svg.index("<svg") :]

    def adapt(tag: re.Match[str]) -> str:
        text = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{plot.key}-", tag.group())
        for fixed, variable in _VARIABLES.items():
            text = text.replace(fixed, variable)
        return text

    svg = re.sub(r"<[^>]*>", adapt, svg)
    return re.sub(r'(<svg[^>]*?) width="[^"]*pt"', r"\1", svg, count=1).replace(
        "<svg", '<svg aria-hidden="true" focusable="false"', 1
    )


def figure_file(plot: Plot, kind: str) -> bytes:
    """Draw a figure for print, with title and legend: `kind` is ``svg`` or ``png``."""
    with _drawn(plot, page=False) as figure:
        target = BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(
            target, format=kind, dpi=200, metadata=metadata, facecolor="white", bbox_inches="tight"
        )
    return target.getvalue()


@contextmanager
def _drawn(plot: Plot, *, page: bool) -> Iterator[Figure]:
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # Names may use any script; the fonts of the reader will show them.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        figure = Figure(figsize=plot.size, layout="constrained")
        axes = figure.add_subplot()
        plot.draw(axes)
        if not page:
            axes.set_title(plot.title, loc="left", fontsize=12, color=INK)
            if plot.names:
                lines = [
                    Line2D([], [], color=colour(i), marker=marker(i), label=name)
                    for i, name in plot.names.items()
                ]
                figure.legend(handles=lines, loc="outside lower center", ncols=min(3, len(lines)))
        yield figure
