"""The images of a data set, as uint8 grey levels or float32 intensities.

A value `v` of an image with `levels` grey levels stands for the intensity `v / (levels - 1)` in
[0, 1]. As uint8, 60,000 MNIST images take 47 MB instead of 188, and the intensity of every level is
exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of a data set's images.

    Attributes:
      names: The names of the K classes: those of the training images, in the order of their
        numbers if they are numbers, otherwise in alphabetical order.
      train: The class of each training image, int32 `[N]`: a place in `names`, or -1 where the
        label is missing.
      valid: Of each validation image.
      test: Of each test image.

    Example:
      >>> classes = load_classes("digits")
      >>> classes.names[:3]
      ('0', '1', '2')
      >>> classes.test[:5]
      array([7, 1, 6, 9, 1], dtype=int32)
    """

    names: tuple[str, ...]
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


@dataclass(frozen=True, eq=False)
class ImageSplits:
    """A data set's images, in three splits.

    Args:
      name: The data set's name or path.
      train: `[N, H, W, C]`, uint8 levels in `0 .. levels - 1`, or float32 in [0, 1].
      valid: `[M, H, W, C]`, with train's dtype and range.
      test: `[T, H, W, C]`, with train's dtype and range.
      levels: The number of grey levels of uint8 images (usually 256; 17 for digits); None for
        float32 images.
      classes: The classes of the images; None if they have none, or a model is not to know them.

    Raises:
      ValueError: If dtype and `levels` do not fit each other or the image shapes differ.

    Example:
      >>> images = np.zeros([10, 2, 2, 1], np.uint8)
      >>> splits = ImageSplits("mine", images[:6], images[6:8], images[8:], levels=256)
      >>> splits.image_shape
      (2, 2, 1)
    """

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    levels: int | None
    classes: Classes | None = None

    def __post_init__(self) -> None:
        for split in (self.train, self.valid, self.test):
            require_image_array(split, self.levels)
            if split.shape[1:] != self.image_shape:
                raise ValueError(
                    "The images of all splits must have one shape. "
                    f"Received: {self.image_shape} and {split.shape[1:]}."
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of one image."""
        height, width, channels = self.train.shape[1:]
        return height, width, channels


def require_image_array(images: np.ndarray, levels: int | None) -> None:
    """Raises `ValueError` unless images `[N, H, W, C]` are uint8 with levels or float32 without."""
    if images.ndim != 4:
        raise ValueError(f"Images must have shape [N, H, W, C]. Received: shape {images.shape}.")
    if images.dtype != (np.float32 if levels is None else np.uint8):
        raise ValueError(
            "Images must be uint8 with a number of grey levels, or float32 with levels=None. "
            f"Received: {images.dtype} with levels={levels}."
        )
    if levels is not None and not 2 <= levels <= 256:
        raise ValueError(f"The number of grey levels must be 2 to 256. Received: {levels}.")


def to_unit(images: np.ndarray, levels: int | None) -> np.ndarray:
    """Returns the intensities of images, in [0, 1].

    Args:
      images: uint8 levels, or float32 intensities if `levels` is None; of any shape.
      levels: The number of grey levels, or None.

    Returns:
      float32 of the same shape: `images / (levels - 1)`, or `images` itself if `levels` is None.

    Example:
      >>> to_unit(np.array([0, 51, 255], np.uint8), levels=256)
      array([0. , 0.2, 1. ], dtype=float32)
    """
    if levels is None:
        return images
    return images.astype(np.float32) / np.float32(levels - 1)
