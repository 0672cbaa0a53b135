"""The corner plot: every pair of columns, data beside samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from tfp_flowvae.evaluation.canvas import BLUE, ORANGE, axis_limits, new_figure

# More columns than this would be too small to read.
MOST_COLUMNS = 8
_MOST_POINTS = 2000
_DATA, _SAMPLES = BLUE, ORANGE


def save_corner(path: Path, data: np.ndarray, samples: np.ndarray, names: Sequence[str]) -> None:
    """Draws each column's histogram, and each pair's points, of data and of samples.

    Args:
      path: The .png file.
      data: `[N, D]`; of more than 8 columns the first 8 are drawn.
      samples: `[M, D]`.
      names: The names of the D columns.
    """
    shown = min(len(names), MOST_COLUMNS)
    size = max(4.0, 1.0 + 1.6 * shown)
    figure, panels = new_figure(size, size, shown, shown, sharex="col")
    limits = [axis_limits(data[:, i]) for i in range(shown)]
    for row in range(shown):
        for column in range(shown):
            axes = panels[row, column]
            if column > row:
                axes.set_visible(False)
                continue
            if row == column:
                _histograms(axes, data[:, row], samples[:, row], limits[row])
            else:
                for values, colour in ((data, _DATA), (samples, _SAMPLES)):
                    points = values[:_MOST_POINTS]
                    axes.scatter(
                        points[:, column], points[:, row], s=3, alpha=0.35, color=colour, lw=0
                    )
                axes.set_ylim(limits[row])
            axes.set_xlim(limits[column])
            _label(axes, names, row, column, shown)
    left = "" if shown == len(names) else f", the first {shown} of {len(names)} columns"
    figure.suptitle(f"Held-out data and samples{left}", fontsize=11)
    figure.legend(
        handles=panels[0, 0].get_legend_handles_labels()[0],
        labels=["held-out data", "samples"],
        loc="upper right",
        frameon=False,
    )
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _histograms(
    axes: Axes, data: np.ndarray, samples: np.ndarray, limits: tuple[float, float]
) -> None:
    bins = np.linspace(*limits, 31).tolist()
    for values, colour, label in ((data, _DATA, "data"), (samples, _SAMPLES, "samples")):
        axes.hist(
            values, bins, density=True, histtype="step", color=colour, label=label, linewidth=1.3
        )
    axes.set_yticks([])


def _label(axes: Axes, names: Sequence[str], row: int, column: int, shown: int) -> None:
    """Names the outer axes only."""
    axes.tick_params(labelsize=7)
    if row == shown - 1:
        axes.set_xlabel(names[column], fontsize=9)
    else:
        axes.tick_params(labelbottom=False)
    if column == 0 and row > 0:
        axes.set_ylabel(names[row], fontsize=9)
    elif row != column:
        axes.tick_params(labelleft=False)
