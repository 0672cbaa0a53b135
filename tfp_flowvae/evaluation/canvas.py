"""What all pictures share: the figure, the limits of an axis and colours for every reader."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Of Okabe and Ito's palette, whose colours differ for colour-blind readers too.
BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"


def new_figure(
    width: float, height: float, rows: int, columns: int, **options: Any
) -> tuple[Figure, np.ndarray]:
    """Returns a figure and its axes, without a window or the global state of pyplot.

    Args:
      width: In inches.
      height: In inches.
      rows: The number of rows of axes.
      columns: The number of columns.
      **options: For `Figure.subplots`.

    Returns:
      The figure, and the axes, an array `[rows, columns]`.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def axis_limits(values: np.ndarray, outside: float = 0.005) -> tuple[float, float]:
    """Returns a range that holds nearly all of the values, with a margin of 10 % at either end.

    Args:
      values: `[N]`.
      outside: The share of the values to leave out at either end.
    """
    low, high = np.quantile(values, [outside, 1.0 - outside])
    margin = 0.1 * (high - low) or 1.0
    return float(low - margin), float(high + margin)
