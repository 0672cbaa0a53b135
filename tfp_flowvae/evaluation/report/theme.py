"""Charts as SVG pictures whose colours follow the reader's light or dark mode."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from tfp_flowvae.evaluation.canvas import BLUE, GREEN, ORANGE, PURPLE

INK, FAINT, PAPER = "#1f2328", "#d5dae0", "#ffffff"

# The colours of the other pictures, two more of Okabe and Ito's, and three more.
COLOURS = (
    BLUE,
    ORANGE,
    GREEN,
    PURPLE,
    "#e69f00",
    "#56b4e9",
    "#7a4aa0",
    "#a08c00",
    "#8a5a2b",
)
OTHER = "#8c959f"

# The colour of each CSS variable in light and in dark mode.
THEME = {
    "ink": (INK, "#e6e8ea"),
    "faint": (FAINT, "#3a4048"),
    "paper": (PAPER, "#14171a"),
    "other": (OTHER, "#9aa3ad"),
    **{
        f"c{i}": pair
        for i, pair in enumerate(
            zip(
                COLOURS,
                (
                    "#4aa3e8",
                    "#ff8742",
                    "#2ecf9c",
                    "#f2a7cf",
                    "#ffbf47",
                    "#9adcff",
                    "#bf96e8",
                    "#e6d24a",
                    "#c99a68",
                ),
                strict=True,
            )
        )
    },
}

DPI = 96  # CSS pixels per inch

_STYLE = {
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.formatter.useoffset": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "font.size": 10,
    "legend.frameon": False,
    "svg.fonttype": "path",  # The letters look the same on every machine.
    "svg.hashsalt": "tfp_flowvae",  # The same figure gives the same file.
}


class Picture(NamedTuple):
    """An image for the page.

    Attributes:
      uri: Its `data:` URI.
      width: In CSS pixels.
      height: In CSS pixels.
    """

    uri: str
    width: int
    height: int


def data_uri(content: bytes, kind: str) -> str:
    """Returns the `data:` URI of a file's content, of a MIME type such as `image/png`."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def css_variables(mode: int) -> str:
    """Returns the declarations of the colours in light (0) or dark (1) mode."""
    return "".join(f"--{name}:{colours[mode]};" for name, colours in THEME.items())


def chart(
    plot: Callable[[Axes], None],
    size: tuple[float, float] = (4.6, 3.2),
    frame: tuple[float, float, float, float] | None = None,
) -> Picture:
    """Draws a chart of one panel.

    Args:
      plot: Draws into the axes, in the colours of this module.
      size: The width and height, in inches of 96 CSS pixels.
      frame: Where the axes are: left, bottom, width and height, as shares of the chart; None for as
        large as the labels allow.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout=None if frame else "constrained")
        FigureCanvasSVG(figure)
        plot(figure.add_axes(frame) if frame else figure.subplots())
        written = io.StringIO()
        figure.savefig(
            written, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    width, height = (round(DPI * side) for side in size)
    return Picture(data_uri(_themed(written.getvalue()).encode(), "image/svg+xml"), width, height)


def _themed(svg: str) -> str:
    """An SVG with the colours of `THEME` as CSS variables."""
    names = {light: name for name, (light, _) in THEME.items()}

    def variable(found: re.Match[str]) -> str:
        name = names.get(found[0])
        return f"var(--{name})" if name else found[0]

    svg = re.sub(r"#[0-9a-f]{6}\b", variable, svg[svg.index("<svg") :])
    style = (
        f"<style>:root{{{css_variables(0)}}}"
        f"@media (prefers-color-scheme:dark){{:root{{{css_variables(1)}}}}}</style>"
    )
    return re.sub(r"(<svg[^>]*>)", rf"\1{style}", svg, count=1)
