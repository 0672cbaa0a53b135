"""Images that are read piece by piece, so that their source may be larger than memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from tfp_flowvae.data.values import Values, narrowed

PIECE_BYTES = 1 << 25
"""The size of a piece: 32 MiB, or one image if that is larger."""


def _no_labels() -> None:
    """The labels of images that have none."""


@dataclass(frozen=True)
class Part:
    """One split of a source, before its pixels are read.

    Attributes:
      where: The split's name in messages.
      shape: `[N, H, W, C]`.
      dtype: The source's dtype.
      pieces: Makes an iterator over the images in order, in arrays of a few images. They may lack
        the channel axis, or be flattened. It raises `UserError` if they cannot be read.
      warnings: Warnings about the images, which continue a sentence that begins with the source.
      labels: Reads the label of each image, `[N]` whole numbers or strings; None if there are none.
    """

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: Callable[[], Iterator[np.ndarray]]
    warnings: tuple[str, ...] = ()
    labels: Callable[[], np.ndarray | None] = _no_labels

    @property
    def layout(self) -> tuple[tuple[int, ...], np.dtype]:
        """The shape `(H, W, C)` and the dtype, uint8 or float32, of what `images` returns."""
        return self.shape[1:], np.dtype(np.float32 if self.dtype.kind == "f" else np.uint8)

    def images(self, levels: int | None) -> Iterator[np.ndarray]:
        """Yields the images in order, in arrays `[n, H, W, C]` of the dtype in `layout`.

        Args:
          levels: The declared number of grey levels of integer images; None means 256.

        Raises:
          UserError: If the images cannot be read, or, after the last piece, if some of their values
            are not those of images.
        """
        values = Values()
        for piece in self.pieces():
            values.see(piece)
            yield narrowed(piece).reshape(-1, *self.shape[1:])
        values.check(self.dtype.kind, self.where, levels)


def images_in_piece(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """Returns how many images of an array `[N, ...]` of that shape and dtype make a piece."""
    return max(1, PIECE_BYTES // (math.prod(shape[1:]) * dtype.itemsize))


def cut(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yields an array `[N, ...]`, mapped or in memory, in pieces."""
    step = images_in_piece(array.shape, array.dtype)
    for start in range(0, len(array), step):
        yield array[start : start + step]
