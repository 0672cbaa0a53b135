"""A picture of a flow: a grid, samples and a density on their way through its steps."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae import _compat
from tfp_flowvae.bijectors import forward_and_log_det
from tfp_flowvae.evaluation.canvas import (
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    axis_limits,
    new_figure,
)
from tfp_flowvae.evaluation.density_plot import (
    check_distribution,
    draw,
    fill_contours,
    finite,
    mesh,
)

_MESH = 321  # points along each side of the mesh
_SPACING = 20  # mesh points from one line of the grid to the next
_DRAWS = 5000  # samples from which the limits are found
_QUADRANTS = (BLUE, ORANGE, GREEN, PURPLE)


@dataclasses.dataclass(frozen=True)
class Stage:
    """What the base has become after some of the steps.

    Attributes:
      title: The number of steps and the name of the last one.
      samples: `[N, 2]`.
      points: A mesh `[P, P, 2]`, regular in the base.
      density: The density at its points, `[P, P]`.
    """

    title: str
    samples: np.ndarray
    points: np.ndarray
    density: np.ndarray

    @property
    def lines(self) -> tuple[np.ndarray, np.ndarray]:
        """The grid: the lines along the first dimension, `[L, P, 2]`, and along the second."""
        return self.points[::_SPACING], self.points.swapaxes(0, 1)[::_SPACING]


def plot_flow(
    bijector: tfb.Bijector,
    base: tfd.Distribution | None = None,
    *,
    samples: int = 1000,
    columns: int = 6,
    names: Sequence[str] = ("z1", "z2"),
    seed: int = 0,
) -> Figure:
    """Draws how a flow moves a distribution of two dimensions, one step in each column.

    The first column is the base. Each of the others shows the same grid, samples and density after
    some more of the steps. The colour of a sample tells which quadrant of the base it comes from.
    The axes of a column fit its samples. The contours of a density are those of `plot_density`.

    The steps are the parts of a `tfb.Chain`, in the order in which they act. A bijector with a
    method `steps`, such as a `PlanarFlow`, is shown step by step too; any other is one step. Only
    the forward direction and its log-det are computed.

    Example:
      >>> q = fv.FlowDensity("planar:4", event_size=2).distribution()
      >>> figure = fv.plot_flow(q.bijector, q.distribution)
      >>> figure.savefig("flow.png", dpi=150)  # or flow.svg

    Args:
      bijector: Any `tfb.Bijector` from 2-D vectors to 2-D vectors, without a batch shape.
      base: The distribution that flows, with event shape [2]; N(0, I) by default.
      samples: The number of samples.
      columns: The largest number of columns, at least 2. Of a flow with more steps, columns - 1
        evenly spaced ones are shown, the last among them.
      names: The names of the axes.
      seed: The seed of the samples.

    Returns:
      The figure. Its `savefig` writes PNG and SVG files. In an SVG file the samples and the
      contours are images, of the resolution `dpi`.

    Raises:
      TypeError: If `bijector` is no `tfb.Bijector`.
      ValueError: If the bijector or the base has another size or a batch shape, `columns` is below
        2, or the density is not a finite number anywhere.
    """
    if columns < 2:
        raise ValueError(f"plot_flow takes at least 2 columns. Received: columns={columns}.")
    stages = carry(bijector, base, samples=samples, seed=seed)
    shown = np.unique(np.linspace(0, len(stages) - 1, columns).round().astype(int))
    figure, panels = new_figure(2.2 * len(shown) + 0.6, 6.6, 3, len(shown), sharex="col")
    first = stages[0].samples
    right, up = (first > np.median(first, axis=0)).astype(int).T
    colours = np.array(_QUADRANTS)[2 * right + up]
    for column, stage in zip(panels.T, (stages[index] for index in shown), strict=True):
        column[0].set_title(stage.title, fontsize=10)
        for lines, colour in zip(stage.lines, (BLUE, ORANGE), strict=True):
            column[0].add_collection(LineCollection(lines, colors=colour, linewidths=0.8))
        points = stage.samples[:samples].T
        column[1].scatter(*points, s=3, c=colours[:samples], linewidths=0.0, rasterized=True)
        # Each cell has the probability that it has in the base, where all are of one size.
        fill_contours(column[2], stage.points, stage.density, stages[0].density)
        # Contours, of zorder 1, have no rasterization of their own before Matplotlib 3.11.
        column[2].set_rasterization_zorder(2)
        _frame(column, stage.samples)
        column[-1].set_xlabel(names[0])
    for axes, row in zip(panels[:, 0], ("grid", "samples", "density"), strict=True):
        axes.set_ylabel(f"$\\bf{{{row}}}$\n{names[1]}")
    return figure


def carry(
    bijector: tfb.Bijector,
    base: tfd.Distribution | None = None,
    *,
    samples: int = 1000,
    seed: int = 0,
) -> list[Stage]:
    """Carries samples and a mesh with its density through the steps of a bijector.

    Args:
      bijector: As for `plot_flow`.
      base: As for `plot_flow`.
      samples: The number of samples; there are at least 5000, from which the limits are found.
      seed: The seed of the samples.

    Returns:
      The base, and what it is after each step.

    Raises:
      TypeError: As for `plot_flow`.
      ValueError: As for `plot_flow`.
    """
    if not isinstance(bijector, tfb.Bijector):
        raise TypeError(
            "plot_flow takes a tfb.Bijector, such as the `bijector` of a "
            f"tfd.TransformedDistribution. Received: {type(bijector).__name__}."
        )
    if base is None:
        base = tfd.MultivariateNormalDiag(tf.zeros([2], bijector.dtype or tf.float32))
    check_distribution("plot_flow", base, (2,))
    drawn = draw(base, max(samples, _DRAWS), seed)
    points = mesh([axis_limits(column, outside=0.0005) for column in drawn.T], _MESH)
    log_density = base.log_prob(tf.constant(points, base.dtype)).numpy().astype(np.float64)
    stages = [Stage("base", drawn, points, finite(np.exp(log_density)))]
    for number, step in enumerate(steps_of(bijector), 1):
        _check_step(step, base.dtype)
        points, log_det = _forward(step, points, base.dtype)
        drawn, _ = _forward(step, drawn, base.dtype)
        log_density = log_density - log_det
        density = finite(np.exp(log_density))
        name = textwrap.fill(step.name.replace("_", " "), 20)
        stages.append(Stage(f"step {number}\n{name}", drawn, points, density))
    return stages


def steps_of(bijector: tfb.Bijector) -> list[tfb.Bijector]:
    """Returns the steps of a bijector, in the order in which they act; see `plot_flow`."""
    if isinstance(bijector, _compat.CHAIN_TYPES):
        return [step for part in reversed(bijector.bijectors) for step in steps_of(part)]
    if isinstance(bijector, _compat.INVERT_TYPES):
        return [tfb.Invert(step) for step in reversed(steps_of(bijector.bijector))]
    return bijector.steps() if hasattr(bijector, "steps") else [bijector]


def _check_step(step: tfb.Bijector, dtype: tf.DType) -> None:
    """Raises `ValueError` unless the step takes one vector of size 2 to another."""
    try:
        shape = step.forward(tf.zeros([1, 2], dtype)).shape
        received = f"it returned shape {shape} for shape (1, 2)"
    except (TypeError, ValueError, IndexError, tf.errors.OpError) as error:
        shape, received = None, str(error).splitlines()[0].rstrip(".")
    if shape != (1, 2):
        raise ValueError(
            "plot_flow takes bijectors from 2-D vectors to 2-D vectors, with batch shape (). "
            f"Received: {step.name!r}; {received}."
        )


def _forward(step: tfb.Bijector, x: np.ndarray, dtype: tf.DType) -> tuple[np.ndarray, np.ndarray]:
    """The images of points `[..., 2]`, and the log-dets there, which broadcast with `[...]`."""
    y, log_det = forward_and_log_det(step, tf.constant(x, dtype))
    return y.numpy(), log_det.numpy().astype(np.float64)


def _frame(column: np.ndarray, samples: np.ndarray) -> None:
    """Shows nearly all samples, at equal scales unless one axis is more than 4 times the other."""
    limits = np.array([axis_limits(part) for part in samples.T])
    centres, spans = limits.mean(axis=1), np.ptp(limits, axis=1)
    if spans.max() < 4.0 * spans.min():
        spans[:] = spans.max()
    for axes in column:
        axes.set_xlim(centres[0] - 0.5 * spans[0], centres[0] + 0.5 * spans[0])
        axes.set_ylim(centres[1] - 0.5 * spans[1], centres[1] + 0.5 * spans[1])
        axes.set_box_aspect(1.0)
        axes.tick_params(labelsize=8)
