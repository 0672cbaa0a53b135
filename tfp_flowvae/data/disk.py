"""Arrays of images in files, which are mapped into memory and not read into it.

The files are plain `.npy`, and lie together in a folder of a cache, one folder a data set. They are
written through the file system and not through the map, because a disk that is full is an error to
the one and a signal that kills the process to the other.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
from filelock import FileLock
from numpy.lib import format as npy

from tfp_flowvae._files import renamed_when_done
from tfp_flowvae.errors import UserError

CONTENTS = "contents.json"
"""The file that says what a complete folder of a cache holds."""


class ImageFile:
    """A `.npy` file of images, written in any order; a context manager.

    Args:
        path: The file; what it was before is lost.
        shape: `[N, ...]`.
        dtype: The dtype.

    Raises:
        OSError: If it cannot be written, as `write` does.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._file = path.open("wb", buffering=0)
        description = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        with contextlib.ExitStack() as undo:
            undo.callback(self._file.close)
            npy.write_array_header_1_0(self._file, description)
            undo.pop_all()
        self._start = self._file.tell()
        self._row = math.prod(shape[1:]) * dtype.itemsize

    def append(self, images: np.ndarray) -> None:
        """Writes images, or a part of one, behind what was written last.

        Args:
            images: C-contiguous, of the file's dtype.
        """
        self._append(_bytes_of(images))

    def write(self, rows: np.ndarray, images: np.ndarray) -> None:
        """Writes images at given places.

        Args:
            rows: The indices `[n]` of the images.
            images: `[n, ...]`, C-contiguous, of the file's dtype.
        """
        content = _bytes_of(images)
        runs = (np.flatnonzero(np.diff(rows) != 1) + 1).tolist()
        for first, last in itertools.pairwise([0, *runs, len(rows)]):
            if first < last:
                self._file.seek(self._start + int(rows[first]) * self._row)
                self._append(content[first * self._row : last * self._row])

    def _append(self, content: memoryview) -> None:
        while content:  # An unbuffered file may take less than it is given.
            content = content[self._file.write(content) :]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        with self._file:
            if kind is None:
                os.fsync(self._file.fileno())


def _bytes_of(images: np.ndarray) -> memoryview:
    return images.reshape(-1).view(np.uint8).data


def open_images(path: Path) -> np.memmap:
    """Maps a `.npy` file, to be read alone.

    Raises:
        OSError: If there is none.
        ValueError: If it is not what it should be.
    """
    mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(mapped, np.memmap):
        raise ValueError(f"{path} must be a .npy file.")
    return mapped


def cached_file(images: np.ndarray) -> Path | None:
    """The file of a cache that an array is the map of, whole and as it is; else None."""
    if not isinstance(images, np.memmap) or images.filename is None:
        return None
    path = Path(images.filename)
    if not images.flags.c_contiguous or not (path.parent / CONTENTS).is_file():
        return None
    return path if path.stat().st_size == images.offset + images.nbytes else None


def derived(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, pieces: Iterable[np.ndarray]
) -> np.memmap:
    """A file beside the images of a cache, made on the first call and mapped ever after.

    Args:
        path: The file.
        shape: `[N, ...]`.
        dtype: The dtype.
        pieces: The pixels `[n]`, from the first to the last, in as many pieces as one likes.

    Raises:
        UserError: If it cannot be written.
    """
    found = _found(path, shape, dtype)
    if found is None:
        with writing_to(path.parent.parent), locked(path.parent):
            found = _found(path, shape, dtype)  # Another process may have been faster.
            if found is None:
                _write_aside(path, shape, dtype, pieces)
                found = open_images(path)
    return found


def locked(folder: Path) -> FileLock:
    """A lock on a folder of a cache, which dies with the process; to be entered."""
    return FileLock(folder.with_name(f".{folder.name}.lock"))


@contextlib.contextmanager
def writing_to(cache: Path) -> Iterator[None]:
    """Says in one sentence that a cache cannot be written."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error).split("\n")[0].rstrip(".") or type(error).__name__
        raise UserError(
            f"The images cannot be kept in the cache {str(cache)!r}: free some space, or name "
            f"another folder. Received: {reason}."
        ) from error


def _found(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap | None:
    with contextlib.suppress(OSError, ValueError):
        images = open_images(path)
        if (images.shape, images.dtype) == (shape, dtype):
            return images
    return None


def _write_aside(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, pieces: Iterable[np.ndarray]
) -> None:
    with renamed_when_done(path) as aside, ImageFile(aside, shape, dtype) as file:
        for piece in pieces:
            file.append(piece)
