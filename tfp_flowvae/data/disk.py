"""Arrays of images in files, which are mapped into memory and not read into it.

The files are plain `.npy`, and lie together in a folder of a cache, one folder a data set. They are
written, and their images are read for training, through the file system and not through the map: a
full or failing disk, or a file that was cut, is an error to the one, and to the other a signal that
kills the process.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
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
        for first, last in zip(*_runs(rows), strict=True):
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


def row_reader(images: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A function from the indices `[n]` of images, in rising order, to these images `[n, ...]`.

    It reads the file of a map, if the map is of the whole of it, and keeps it open. Of other
    arrays, and where the file has lost its name since it was mapped, it takes the rows.

    Raises:
        OSError: Here or from the function, if the file cannot be read, or is shorter than it was.
    """
    opened = _opened(images)
    if opened is None:
        plain = images.view(np.ndarray)
        return lambda rows: plain.take(rows, axis=0)
    return functools.partial(_read_rows, *opened, images.shape[1:], images.dtype)


def _opened(images: np.ndarray) -> tuple[io.FileIO, int] | None:
    """The file of which an array is the map, and where in it the images begin."""
    if not isinstance(images, np.memmap) or not images.filename or not images.flags.c_contiguous:
        return None
    if not hasattr(os, "pread"):  # on Windows, which lets nobody cut a file that is mapped
        return None
    try:
        surplus = os.stat(images.filename).st_size - images.offset - images.nbytes
    except FileNotFoundError:
        return None
    if surplus < 0:
        raise _shorter(images.filename)
    return None if surplus else (io.FileIO(images.filename), images.offset)


def _read_rows(
    file: io.FileIO, offset: int, shape: tuple[int, ...], dtype: np.dtype, rows: np.ndarray
) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    first, last = _runs(rows)
    places = (offset + size * rows[first].astype(np.int64)).tolist()
    counts = (size * (last - first)).tolist()
    # Without a loop in Python, with which small images take a fifth longer.
    content = b"".join(map(os.pread, itertools.repeat(file.fileno()), counts, places))
    if len(content) != size * len(rows):
        raise _shorter(file.name)
    return np.frombuffer(content, dtype).reshape(len(rows), *shape)


def _shorter(name: Any) -> OSError:
    return OSError(f"The file of images {str(name)!r} is shorter than it was")


def _runs(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the runs of indices `[n]` that follow each other begin, and where they end."""
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    ends = np.concatenate([[0], cuts, [len(rows)]]) if len(rows) else np.zeros(1, np.int64)
    return ends[:-1], ends[1:]


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
