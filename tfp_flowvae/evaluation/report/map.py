"""The map of test latents, over which the pointer moves and the decoded image follows."""

from __future__ import annotations

import dataclasses

import numpy as np

from tfp_flowvae.evaluation.report import charts, latents
from tfp_flowvae.evaluation.report.latents import Latents
from tfp_flowvae.evaluation.report.pictures import sprite
from tfp_flowvae.evaluation.report.sections import Figure
from tfp_flowvae.evaluation.report.subject import Subject
from tfp_flowvae.evaluation.report.theme import COLOURS, OTHER, Picture

_CELLS = 20


@dataclasses.dataclass(frozen=True)
class Map:
    """The map.

    Attributes:
      figure: The chart of the points.
      sprite: The decoded images of a grid of cells over the chart, from the top left.
      cells: The number of cells along each side.
      frame: The left, top, width and height of the grid, as percentages of the chart.
      limits: The lowest and highest value of both coordinates: `[[x, x], [y, y]]`.
      aspect: The width of a decoded image over its height.
      legend: The name of each colour, and its CSS variable.
      text: Sentences.
    """

    figure: Figure
    sprite: Picture
    cells: int
    frame: tuple[float, float, float, float]
    limits: list[list[float]]
    aspect: float
    legend: list[tuple[str, str]]
    text: list[str]


def latent_map(subject: Subject, found: Latents) -> Map:
    """Draws the map, and decodes its cells."""
    plane = latents.plane(found.posterior, _CELLS)
    images = subject.model.decode(plane.cells).numpy()
    groups, legend = _groups(subject.labels, len(plane.points))
    left, bottom, width, height = charts.MAP_FRAME
    text = [
        f"Each point is z of one of {len(plane.points):,} test images, seen along the two "
        "directions in which z varies most (principal components). Move the pointer over the map, "
        "touch it, or use the arrow keys when it has the focus: the image is the mean of p(x|z) at "
        "that place of the plane. Away from the points the decoder has seen no z.",
    ]
    if subject.labels is None:
        text.append("The images have no labels, so all points have one colour.")
    else:
        unseen = ", which the model has never seen" if subject.model.num_classes is None else ""
        text.append(f"Colours are labels{unseen}; a label's name is at the median of its points.")
    by = "" if subject.labels is None else ", coloured by label"
    return Map(
        figure=Figure(charts.latent_map(plane, groups), f"Map of test latents{by}."),
        sprite=sprite(images, _CELLS),
        cells=_CELLS,
        frame=(100 * left, 100 * (1 - bottom - height), 100 * width, 100 * height),
        limits=plane.limits.tolist(),
        aspect=images.shape[2] / images.shape[1],
        legend=legend,
        text=text,
    )


def _groups(
    labels: np.ndarray | None, count: int
) -> tuple[list[tuple[str, np.ndarray, str]], list[tuple[str, str]]]:
    """The points of each colour, and the legend. The rarest of many labels share a colour."""
    if labels is None:
        return [("", np.ones(count, bool), COLOURS[0])], []
    found, sizes = np.unique(labels, return_counts=True)
    if len(found) > len(COLOURS) + 1:
        found = found[np.argsort(-sizes, kind="stable")[: len(COLOURS)]]
    # Words in their order, then numbers in theirs.
    names = sorted(found.tolist(), key=lambda name: (int(name) if name.isdigit() else -1, name))
    groups = []
    legend = []
    for i, name in enumerate(names):
        colour, variable = (COLOURS[i], f"c{i}") if i < len(COLOURS) else (OTHER, "other")
        groups.append((name, labels == name, colour))
        legend.append((name, variable))
    rest = ~np.isin(labels, names)
    if rest.any():
        groups.insert(0, ("", rest, OTHER))
        legend.append(("others", "other"))
    return groups, legend
