"""Pictures, histograms and latents of a model in training, for TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from tfp_flowvae.evaluation.plots import image_grid, reconstruction_rows

BOARD_IMAGES = 1000
"""The largest number of images that the projector gets."""

_PICTURED = 10  # epochs of a run that have pictures, beside the first
_SAMPLES, _RECONSTRUCTIONS = 64, 20
_THUMBNAIL = 64  # the most pixels along a side of an image in the projector


class Board(keras.callbacks.Callback):
    """Writes what `keras.callbacks.TensorBoard` does not, into the run `test` of TensorBoard.

    - Images: `samples`, means of p(x|z) for 64 z from the prior, and `reconstructions` of 20 test
      images, after the first epoch and then ten times, evenly spaced. The noise is the same in
      every picture.
    - Histograms: `base_kl`, over the latent dimensions, in nats, after every epoch in which
      `Diagnostics` adds `base_kl_0` ... to the logs.
    - Projector: one z ~ q(z|x) for each of at most 1000 test images, with the image, and its label
      if there is one, when training ends.

    The draws are stateless, so that training gives the same numbers with and without it. After an
    epoch whose loss is not finite nothing is written.

    Args:
      folder: The folder of TensorBoard's logs.
      images: Test images, `[N, H, W, C]` in [0, 1].
      seed: The seed of the draws.
      labels: The label of each image, or None.
    """

    def __init__(
        self,
        folder: Path,
        images: np.ndarray,
        seed: int,
        labels: Sequence[Any] | np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self._folder = folder / "test"
        self._images, self._seed, self._labels = images[:BOARD_IMAGES], seed, labels
        self._writer: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the file of events."""
        self._writer = tf.summary.create_file_writer(str(self._folder))

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Writes the histogram, and in some epochs the images."""
        logs = logs or {}
        if not math.isfinite(logs.get("loss", 0.0)):
            return
        with self._writer.as_default(step=epoch):
            kl = [value for name, value in logs.items() if name.startswith("base_kl_")]
            if kl:
                description = "KL of each dimension of the posterior's base from N(0, 1), nats"
                tf.summary.histogram("base_kl", kl, description=description)
            every = max(1, self.params["epochs"] // _PICTURED)
            if epoch == 0 or (epoch + 1) % every == 0:
                self._write_images()
        self._writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Writes the latents and closes the file."""
        self._writer.close()
        latents = self.model.encode(self._images, self._seed).numpy()
        if np.isfinite(latents).all():
            write_projector(self._folder, latents, self._images, self._labels)

    def _write_images(self) -> None:
        samples = self.model.sample(_SAMPLES, self._seed).numpy()
        originals = self._images[:_RECONSTRUCTIONS]
        rows = reconstruction_rows(originals, self.model.reconstruct(originals, self._seed).numpy())
        described = {
            "samples": (image_grid(samples), "means of p(x|z) for z from the prior"),
            "reconstructions": (
                np.concatenate(rows),
                "test images and, below each, the mean of p(x|z) for one z ~ q(z|x)",
            ),
        }
        for name, (picture, description) in described.items():
            tf.summary.image(name, picture[np.newaxis], description=description)


def write_projector(
    folder: Path,
    latents: np.ndarray,
    images: np.ndarray,
    labels: Sequence[Any] | np.ndarray | None = None,
) -> None:
    """Writes latents for TensorBoard's embedding projector.

    Args:
      folder: A run's folder of TensorBoard's logs.
      latents: `[N, D]`.
      images: The image of each, `[N, H, W, C]` in [0, 1].
      labels: The label of each, or None.
    """
    from tensorboard.plugins import projector

    config = projector.ProjectorConfig()
    embedding = config.embeddings.add(tensor_name="z", tensor_path="latents.tsv")
    np.savetxt(folder / embedding.tensor_path, latents, "%.6g", "\t")
    if labels is not None:
        embedding.metadata_path = "labels.tsv"
        lines = "".join(f"{label}\n" for label in labels[: len(latents)])
        (folder / embedding.metadata_path).write_text(lines, encoding="utf-8")
    thumbnails = _thumbnails(images)
    embedding.sprite.image_path = "images.png"
    embedding.sprite.single_image_dim.extend([thumbnails.shape[2], thumbnails.shape[1]])
    _tiled(thumbnails).save(folder / embedding.sprite.image_path)
    projector.visualize_embeddings(str(folder), config)


def _thumbnails(images: np.ndarray) -> np.ndarray:
    """The images as uint8 `[N, h, w, 3]`, made smaller where they are too large."""
    levels = np.round(np.clip(images, 0.0, 1.0) * 255.0).astype(np.uint8)
    levels = np.broadcast_to(levels, (*levels.shape[:3], 3))
    shrink = max(1.0, max(levels.shape[1:3]) / _THUMBNAIL)
    size = max(1, round(levels.shape[2] / shrink)), max(1, round(levels.shape[1] / shrink))
    return np.stack([Image.fromarray(np.ascontiguousarray(one)).resize(size) for one in levels])


def _tiled(images: np.ndarray) -> Image.Image:
    """Images `[N, h, w, 3]` in a square grid, row by row, without gaps."""
    count, height, width, channels = images.shape
    side = math.ceil(math.sqrt(count))
    cells = np.zeros([side * side, height, width, channels], np.uint8)
    cells[:count] = images
    grid = cells.reshape([side, side, height, width, channels]).swapaxes(1, 2)
    return Image.fromarray(grid.reshape([side * height, side * width, channels]))
