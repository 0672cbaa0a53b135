"""The pictures of a run: samples, reconstructions and training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from tfp_flowvae.evaluation.canvas import new_figure

_PAPER = 255  # the grey level of the background
_GAP = 4  # pixels between two images
_SMALLEST_CELL = 72  # an image smaller than this is magnified by a whole factor


def image_grid(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Returns images in a grid, as one `[height, width, 3]` uint8 picture.

    Small images are magnified by bicubic interpolation, because the edges of magnified pixels make
    it hard to see what the image shows.

    Args:
      images: `[N, H, W, C]` in [0, 1], with 1 or 3 channels.
      columns: The number of images in a row; by default the grid is as square as N allows.

    Raises:
      ValueError: If the images have another number of channels.
    """
    count, height, width, channels = images.shape
    if channels not in (1, 3):
        raise ValueError(f"Images must have 1 or 3 channels. Received: shape {images.shape}.")
    columns = columns or max(1, math.ceil(math.sqrt(count)))
    rows = max(1, math.ceil(count / columns))
    zoom = max(1, math.ceil(_SMALLEST_CELL / max(height, width)))
    levels = np.round(np.clip(images, 0.0, 1.0) * 255.0).astype(np.uint8)
    levels = np.broadcast_to(levels, (count, height, width, 3))
    height, width = height * zoom, width * zoom
    shape = (rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3)
    grid = np.full(shape, _PAPER, np.uint8)
    for index, image in enumerate(levels):
        top = _GAP + index // columns * (height + _GAP)
        left = _GAP + index % columns * (width + _GAP)
        magnified = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
        grid[top : top + height, left : left + width] = magnified
    return grid


def save_samples(output: Path | BinaryIO, images: np.ndarray, columns: int | None = None) -> None:
    """Writes images `[N, H, W, C]` as a PNG grid to a path or an open file; see `image_grid`."""
    Image.fromarray(image_grid(images, columns)).save(output, format="png")


def reconstruction_rows(originals: np.ndarray, reconstructions: np.ndarray) -> list[np.ndarray]:
    """Returns rows of at most ten images, by turns images and, below each, its reconstruction.

    Args:
      originals: `[N, H, W, C]` in [0, 1].
      reconstructions: The same shape.

    Returns:
      uint8 pictures `[height, width, 3]` of one shape.
    """
    columns = min(10, len(originals))
    return [
        image_grid(part[start : start + columns], columns)[:-_GAP]
        for start in range(0, len(originals), columns)
        for part in (originals, reconstructions)
    ]


def save_reconstructions(path: Path, originals: np.ndarray, reconstructions: np.ndarray) -> None:
    """Writes each image above its reconstruction; both are `[N, H, W, C]`."""
    rows = reconstruction_rows(originals, reconstructions)
    picture = np.concatenate(rows)
    figure, ((axes,),) = new_figure(9.0, 0.5 + 8.0 * picture.shape[0] / picture.shape[1], 1, 1)
    axes.imshow(picture, interpolation="nearest")
    axes.set_xticks([])
    height = picture.shape[0] / len(rows)
    axes.set_yticks(
        [(i + 0.5) * height for i in range(len(rows))],
        ["image", "mean of p(x|z)"] * (len(rows) // 2),
    )
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("Test images and their reconstructions from one z ~ q(z|x)", fontsize=11)
    _save(figure, path)


def save_training(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Plots the history of training.

    The panels are the free energy and the KL, for training and validation. If the diagnostics were
    logged, a third panel has the mean log-densities before and after the flow and under the prior,
    each with a band of one standard deviation (figures 3 and 4 of Henrion & Welleck).
    """
    diagnosed = bool(rows) and "log_prior" in rows[0]
    figure, (panels,) = new_figure(15.0 if diagnosed else 10.0, 4.0, 1, 3 if diagnosed else 2)
    _draw_pair(panels[0], rows, "elbo", "free energy: -ELBO", -1.0)
    _draw_pair(panels[1], rows, "kl", "KL(q(z|x) || p(z))", 1.0)
    if diagnosed:
        _draw_densities(panels[2], rows)
    _save(figure, path)


def save_bits(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Plots the history of training of a flow of images: bits per dimension."""
    figure, ((axes,),) = new_figure(6.0, 4.0, 1, 1)
    _draw_pair(axes, rows, "bits_per_dim", "bound of -log2 P(x) / D", 1.0)
    axes.set_ylabel("bits per dimension")
    _save(figure, path)


def _draw_pair(
    axes: Axes, rows: Sequence[Mapping[str, float]], name: str, title: str, sign: float
) -> None:
    epochs = [row["epoch"] for row in rows]
    shown = []
    for key, label in ((name, "training"), (f"val_{name}", "validation")):
        values = [sign * row[key] for row in rows if key in row]
        shown += values
        if values:
            axes.plot(epochs[: len(values)], values, label=label, marker="." * (len(rows) < 4))
    axes.set_title(title, fontsize=11)
    _frame(axes, shown, len(rows))


def _draw_densities(axes: Axes, rows: Sequence[Mapping[str, float]]) -> None:
    epochs = [row["epoch"] for row in rows]
    labels = {
        "log_base": "log q0(z0|x)",
        "log_posterior": "log qK(zK|x)",
        "log_det": "sum of log-dets",
        "log_prior": "log p(zK)",
    }
    shown: list[float] = []
    for name, label in labels.items():
        mean = np.array([row[name] for row in rows])
        band = np.array([row[f"{name}_std"] for row in rows])
        (line,) = axes.plot(epochs, mean, label=label, marker="." * (len(rows) < 4))
        axes.fill_between(epochs, mean - band, mean + band, color=line.get_color(), alpha=0.15)
        shown += [*(mean - band), *(mean + band)]
    axes.set_title("log-densities, mean and standard deviation", fontsize=11)
    _frame(axes, shown, 0)
    # The legend is below the axes, because four lines and their bands leave no room inside.
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)


def _frame(axes: Axes, values: Sequence[float], epochs: int) -> None:
    axes.set_xlabel("epoch")
    axes.set_ylabel("nats per image")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    finite = np.asarray(values)[np.isfinite(values)]
    if epochs >= 20 and finite.size:  # The first epochs would flatten the rest of the curve.
        low, high = finite.min(), np.quantile(finite, 0.95)
        pad = 0.08 * (high - low) or 1.0
        axes.set_ylim(low - pad, high + pad)


def _save(figure: Figure, path: Path) -> None:
    # Without the version of the software in it, the file is the same when a run is repeated.
    figure.savefig(path, dpi=120, metadata={"Software": None})
