"""From a data set's name or a path to images in memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from tfp_flowvae.data.images import ImageSplits
from tfp_flowvae.data.sources import Source, open_source
from tfp_flowvae.data.values import grey_levels
from tfp_flowvae.errors import UserError

_A = TypeVar("_A", bound=np.ndarray)


def load_images(
    dataset: str,
    data_dir: str | None = None,
    *,
    image_shape: tuple[int, ...] | None = None,
    valid_fraction: float | None = None,
    test_fraction: float | None = None,
) -> ImageSplits:
    """Loads the images of a data set into memory, in three splits, without their labels.

    Args:
      dataset: `digits`, `mnist`, the name of a TFDS data set, or a path (see `data.sources`).
      data_dir: The folder of TFDS's data sets; None for TFDS_DATA_DIR or TFDS's default.
      image_shape: `(H, W, C)` of flattened images `[N, H * W * C]`, channels last, in an `.npz` or
        `.npy` file; None if images are not flattened.
      valid_fraction: The fraction of the train images for validation, if the source has no
        validation split. By default a tenth, or, if there is a test split, `min(10000, N // 6)` of
        N images.
      test_fraction: The fraction of the train images for testing, if the source has no test split;
        by default a fifth.

    Returns:
      The images. The splits do not depend on a run's seed.

    Raises:
      UserError: If the data set is unknown, missing, unreadable or out of reach, or does not hold
        images, or its images do not fit in memory.

    Example:
      >>> splits = load_images("digits")
      >>> splits.image_shape, len(splits.train), len(splits.valid), len(splits.test)
      ((8, 8, 1), 1257, 180, 360)
    """
    source = open_source(
        dataset,
        data_dir,
        image_shape=image_shape,
        valid_fraction=valid_fraction,
        test_fraction=test_fraction,
    )
    try:
        images, levels, notes = read_images(source, lambda _, shape, dtype: np.empty(shape, dtype))
    except MemoryError as error:
        raise UserError(
            f"The images in {source.where} must fit in memory; keep them on disk with --stream "
            f"(in Python: stream_images). Received: {error}."
        ) from error
    for note in notes:
        warnings.warn(f"{source.where} {note}", stacklevel=2)
    return ImageSplits(name=dataset, **images, levels=levels, classes=None)


def read_images(
    source: Source,
    create: Callable[[str, tuple[int, ...], np.dtype], _A],
    done: Callable[[int], None] = lambda count: None,
) -> tuple[dict[str, _A], int | None, list[str]]:
    """Reads a source piece by piece into the arrays of its splits.

    Args:
      source: The source.
      create: Makes the array of a split, of a shape `[N, H, W, C]` and a dtype.
      done: Called with the number of images in a piece after it is read.

    Returns:
      The arrays of "train", "valid" and "test"; the number of grey levels, or None for floats; and
      warnings about the images, which continue a sentence that begins with the source.

    Raises:
      UserError: If the source cannot be read or does not hold images.
    """
    parts = source.parts()
    layouts = {part.layout for part in parts.values()}
    if len(layouts) > 1:
        kinds = sorted(f"{dtype} of shape {shape}" for shape, dtype in layouts)
        raise UserError(
            f"The splits in {source.where} must hold images of one shape, all integers or all "
            f"floats. Received: {' and '.join(kinds)}."
        )
    ((shape, dtype),) = layouts
    images = {
        split: create(split, (size, *shape), dtype) for split, size in source.plan.sizes.items()
    }
    brightest = 0
    for split, part in parts.items():
        first = 0
        for piece in part.images(source.levels):
            source.plan.place(split, first, piece, images)
            brightest = max(brightest, piece.max().item())
            first += len(piece)
            done(len(piece))
    levels, note = grey_levels(dtype, brightest, source.where, source.levels)
    notes = {warning for part in parts.values() for warning in part.warnings}
    return images, levels, sorted(notes | {note} if note else notes)
