"""The labels of a data set's images, for those that have any. Models are never given them."""

from __future__ import annotations

import numpy as np

from tfp_flowvae.data.sources import open_source


def load_labels(
    dataset: str,
    data_dir: str | None = None,
    *,
    image_shape: tuple[int, ...] | None = None,
    split: str = "test",
) -> np.ndarray | None:
    """Loads the labels of a split.

    Labels are the digits of `digits`, the feature `label` of a TFDS data set, the array `y_test`,
    `test_labels` or `labels` (and the like) beside the images in an `.npz` file, and the names of
    the folders within a folder of pictures.

    Args:
      dataset: As in `load_images`.
      data_dir: As in `load_images`.
      image_shape: As in `load_images`.
      split: "train", "valid" or "test".

    Returns:
      Strings `[N]` in the order of the images that `load_images` returns; None if the source has no
      labels, or not one for each image.

    Raises:
      UserError: If the data set cannot be opened or its labels cannot be read.
    """
    source = open_source(dataset, data_dir, image_shape=image_shape)
    parts = source.parts()
    own = split if split in parts else "train"
    labels = parts[own].labels()
    if labels is None or len(labels) != parts[own].shape[0]:
        return None
    text = labels.astype(str)
    into = {name: np.empty(size, text.dtype) for name, size in source.plan.sizes.items()}
    source.plan.place(own, 0, text, into)
    return into[split]
