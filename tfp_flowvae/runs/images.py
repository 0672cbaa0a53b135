"""The images of a run, and what there is to say about them."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from functools import partial
from pathlib import Path

from tfp_flowvae.data import ImageSplits, load_classes, load_images, stream_images
from tfp_flowvae.runs.config import TrainConfig


def load_splits(config: TrainConfig, stream: Path | None = None) -> ImageSplits:
    """Loads the images of a config, and their classes if it has `labels`; prints warnings.

    Args:
      config: The config.
      stream: The folder of the image cache on disk; None to hold the images in memory.

    Raises:
      UserError: If the images or their classes cannot be loaded.
    """
    classes = None
    if config.labels:
        classes = load_classes(config.dataset, config.data_dir, image_shape=config.image_shape)
    load = load_images if stream is None else partial(stream_images, cache=stream)
    # Warnings about the images are printed without the line of code that they come from.
    with warnings.catch_warnings(record=True) as caught:
        images = load(config.dataset, config.data_dir, image_shape=config.image_shape)
    for warning in caught:
        print(f"Warning: {warning.message}", file=sys.stderr)
    return dataclasses.replace(images, classes=classes)
