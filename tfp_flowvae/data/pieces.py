"""Images that come piece by piece, from sources that may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfp_flowvae.data.arrays import kept_layout

PIECE_BYTES = 1 << 25
"""The size of a piece: 32 MiB, or one image where that is larger."""


@dataclass(frozen=True)
class Part:
    """A split of a source, before any of its pixels is read.

    Attributes:
        where: What it is, for messages.
        shape: `[N, H, W]` or `[N, H, W, C]`, as the source has it.
        dtype: The source's dtype.
        pieces: Makes an iterator over the images, from first to last, in arrays of a few of them.
            It is given a folder in which it may keep a file for a while, and raises `UserError`
            for what `load_images` would.
        notes: What there is to say about the images, as the pieces find it.
    """

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: Callable[[Path], Iterator[np.ndarray]]
    notes: set[str] = field(default_factory=set)

    @property
    def kept(self) -> tuple[tuple[int, ...], np.dtype]:
        """The shape `[N, H, W, C]` and the dtype in which the images are kept."""
        return kept_layout(self.shape, self.dtype)


@dataclass(frozen=True)
class Source:
    """A data set, before any of its pixels is read.

    Attributes:
        where: What it is, for messages.
        parts: "train", and perhaps "valid" and "test".
        levels: The declared number of grey levels, or None.
        identity: What tells it from other data sets, and from itself at other times.
        coloured: Makes the parts anew, with three channels, where the pieces of these may raise
            `Coloured`; else None.
    """

    where: str
    parts: dict[str, Part]
    levels: int | None
    identity: list[str]
    coloured: Callable[[], dict[str, Part]] | None = None


class Coloured(Exception):  # noqa: N818
    """There is colour among images that were grey so far."""


def images_in_piece(shape: tuple[int, ...], dtype: np.dtype) -> int:
    """How many of the images of an array `[N, ...]` of that shape and dtype make a piece."""
    size = int(np.prod(shape[1:], dtype=np.int64)) * np.dtype(dtype).itemsize
    return max(1, PIECE_BYTES // max(1, size))


def cut(array: np.ndarray) -> Iterator[np.ndarray]:
    """An array `[N, ...]`, mapped or in memory, in pieces."""
    step = images_in_piece(array.shape, array.dtype)
    for start in range(0, len(array), step):
        yield array[start : start + step]
