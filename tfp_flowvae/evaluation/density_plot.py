"""A picture of a density: filled contours in two dimensions, a curve in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure
from tensorflow_probability import distributions as tfd

from tfp_flowvae.evaluation.canvas import BLUE, ORANGE, axis_limits, new_figure

_MESH = 201  # points along each side of a mesh
_CURVE = 2001  # points of a curve
_DRAWS = 5000  # draws from which the limits are found
_SHARES = (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
_ROUNDING = 1e-5  # relative differences of densities that are of no account

Limits = Sequence[tuple[float, float]]


def plot_density(
    distribution: tfd.Distribution,
    *,
    samples: int = 0,
    data: Any = None,
    limits: Limits | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
) -> Figure:
    """Draws the density of a distribution of one or two dimensions.

    In one dimension the picture is a curve. In two dimensions it shows filled contours of the
    density: each is the smallest region that holds a share of the probability, 99 %, 95 %, and 90 %
    to 10 %. Where the log-density is not a number, as TFP's are outside of some supports, the
    density is drawn as 0.

    Example:
      >>> figure = fv.plot_density(tfd.MultivariateNormalDiag([0.0, 1.0], [1.0, 2.0]), samples=500)
      >>> figure.savefig("normal.png", dpi=150)  # or normal.svg

    Args:
      distribution: Any continuous `tfd.Distribution` with batch shape [] and event shape [], [1]
        or [2], such as `FlowDensity.distribution()`.
      samples: The number of samples to draw over the density, in one dimension as a histogram.
      data: Points to draw over the density, `[N, D]`, or `[N]` for an event shape of [].
      limits: The lowest and the highest value of each axis, `((low, high), (low, high))`, or
        `((low, high),)`. By default the axes show nearly all of 5000 samples and of `data`.
      names: The names of the axes, `x` or `x1` and `x2` by default.
      seed: The seed of the samples.

    Returns:
      The figure. Its `savefig` writes PNG and SVG files.

    Raises:
      ValueError: If the distribution has another shape, is discrete, or its density is not a finite
        number anywhere within the limits.
    """
    size = check_distribution("plot_density", distribution, (1, 2))
    names = names or (["x"] if size == 1 else ["x1", "x2"])
    draws = np.zeros([0, size])
    if samples or limits is None:
        draws = draw(distribution, max(samples, _DRAWS), seed)
    data = np.zeros([0, size]) if data is None else np.reshape(data, [-1, size])
    limits = limits or [axis_limits(column) for column in np.concatenate([draws, data]).T]
    points, density = density_on_mesh(distribution, limits)
    width, height = (5.0, 3.6) if size == 1 else (5.6, 4.6)
    figure, ((axes,),) = new_figure(width, height, 1, 1)
    overlays = {"samples": draws[:samples], "data": data}
    shown = {label: values for label, values in overlays.items() if len(values)}
    if size == 1:
        _draw_curve(axes, points[:, 0], density, shown)
        axes.set(xlim=limits[0], ylim=(0.0, None), ylabel=f"density of {names[0]}")
    else:
        contours, shares = fill_contours(axes, points, density, density)
        bar = figure.colorbar(contours, ticks=list(contours.levels)[:-1])
        bar.set_ticklabels([f"{share:.0%}" for share in shares])
        bar.set_label("probability within the contour")
        _scatter(axes, shown)
        axes.set(xlim=limits[0], ylim=limits[1], ylabel=names[1])
    axes.set_xlabel(names[0])
    if shown:
        figure.legend(loc="outside upper right", ncols=len(shown) + 1, frameon=False)
    return figure


def density_on_mesh(
    distribution: tfd.Distribution, limits: Limits
) -> tuple[np.ndarray, np.ndarray]:
    """Evaluates a density on a regular mesh.

    Args:
      distribution: As for `plot_density`.
      limits: The lowest and the highest value of each of the D dimensions.

    Returns:
      The points, `[2001, 1]` in one dimension and `[201, 201, 2]` in two, the second of which
      varies along the first axis; and the density, of their shape without the last dimension.

    Raises:
      ValueError: If the density is not a finite number anywhere.
    """
    points = mesh(limits, _CURVE if len(limits) == 1 else _MESH)
    x = tf.constant(points, distribution.dtype)
    log_density = distribution.log_prob(x if distribution.event_shape.rank else x[..., 0])
    return points, finite(np.exp(log_density.numpy().astype(np.float64)))


def mesh(limits: Limits, size: int) -> np.ndarray:
    """Returns a regular mesh, `[size, 1]` or `[size, size, 2]`, in float64."""
    return np.stack(np.meshgrid(*(np.linspace(*pair, size) for pair in limits)), axis=-1)


def fill_contours(
    axes: Axes, points: np.ndarray, density: np.ndarray, mass: np.ndarray
) -> tuple[ContourSet, np.ndarray]:
    """Fills the contours of a density; see `plot_density`.

    Args:
      axes: Where to draw.
      points: A mesh `[M, N, 2]`, regular or not; what is not finite is left out.
      density: The density at its points, `[M, N]`.
      mass: The probability of the mesh's cell around each point, `[M, N]`, up to a factor.

    Returns:
      The contours, and the share of the probability in each of them.
    """
    levels, shares = density_levels(density, mass)
    placed = np.isfinite(points).all(axis=-1)
    x, y = np.moveaxis(np.where(placed[..., np.newaxis], points, 0.0), -1, 0)
    heights = np.ma.array(density, mask=~placed)
    colours = colormaps["viridis"](1.0 - 0.9 * shares)  # The smaller the share, the brighter.
    contours = axes.contourf(x, y, heights, [*levels, 2.0 * density.max()], colors=colours)
    axes.set_facecolor(colormaps["viridis"](0.0))
    return contours, shares


def density_levels(density: np.ndarray, mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds the densities at the borders of the smallest regions that hold given shares.

    Args:
      density: The density at the points of a mesh, finite.
      mass: The probability of the mesh's cell around each point, up to a factor.

    Returns:
      The densities, increasing, and the shares. Of shares with the same density, as those of a
      uniform distribution, there is only the last.
    """
    order = np.argsort(-density, axis=None)
    held = np.cumsum(mass.flat[order])
    levels = density.flat[order][np.searchsorted(held, held[-1] * np.array(_SHARES))]
    kept = np.append(levels[1:] > levels[:-1] * (1.0 + 10 * _ROUNDING), True)
    return levels[kept] * (1.0 - _ROUNDING), np.array(_SHARES)[kept]


def finite(density: np.ndarray) -> np.ndarray:
    """Returns the density with 0 where it is not a finite number.

    Raises:
      ValueError: If that is everywhere.
    """
    known = np.isfinite(density)
    if not known.any():
        raise ValueError(
            "The density is not a finite number at any point of the picture: check the parameters "
            "and the limits."
        )
    return np.where(known, density, 0.0)


def check_distribution(owner: str, distribution: tfd.Distribution, sizes: Sequence[int]) -> int:
    """Returns the number of dimensions of a continuous distribution that can be drawn.

    Args:
      owner: The function on whose behalf the distribution is checked.
      distribution: The distribution.
      sizes: The allowed numbers of dimensions.

    Raises:
      ValueError: If it has a batch shape, several parts or another number of dimensions, or is not
        continuous.
    """
    shapes = distribution.event_shape, distribution.batch_shape
    if all(isinstance(shape, tf.TensorShape) for shape in shapes):
        size, rank = shapes[0].num_elements(), shapes[0].rank
        if shapes[1].rank == 0 and size in sizes and rank < 2 and distribution.dtype.is_floating:
            return size
    raise ValueError(
        f"{owner} takes a continuous distribution with {' or '.join(map(str, sizes))} dimensions "
        f"and batch shape (). Received: {distribution.name!r} with event shape {shapes[0]}, batch "
        f"shape {shapes[1]} and dtype {distribution.dtype}."
    )


def draw(distribution: tfd.Distribution, count: int, seed: int) -> np.ndarray:
    """Returns samples `[count, D]`, the same for the same seed."""
    values = distribution.sample(count, seed=tf.constant([seed, 0], tf.int32)).numpy()
    return values.reshape([count, -1])


def _draw_curve(
    axes: Axes, x: np.ndarray, density: np.ndarray, shown: dict[str, np.ndarray]
) -> None:
    axes.plot(x, density, color=BLUE, label="density")
    axes.fill_between(x, density, color=BLUE, alpha=0.15, linewidth=0.0)
    for (label, values), colour in zip(shown.items(), (ORANGE, "black"), strict=False):
        axes.hist(values[:, 0], "auto", density=True, histtype="step", color=colour, label=label)


def _scatter(axes: Axes, shown: dict[str, np.ndarray]) -> None:
    """Draws points that can be seen on every colour of the map."""
    for (label, values), colour in zip(shown.items(), ("white", ORANGE), strict=False):
        x, y = values.T
        axes.scatter(x, y, s=9, color=colour, edgecolors="black", linewidths=0.4, label=label)
