"""A cache of images on disk: `.npy` files that are complete or absent, mapped to be read.

The files of a data set share one folder, which is complete once it holds a contents file. A file
that is added later is written under another name and renamed when it is complete. A lock, which
ends with its process, lets one process write at a time. So a process that is killed leaves nothing
that is taken for complete.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import FileLock

from tfp_flowvae._files import renamed_when_done
from tfp_flowvae.errors import UserError, first_line

_T = TypeVar("_T")

CONTENTS = "contents.json"
"""The file that is written last, and describes the others."""


def create_images(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
    """Makes a `.npy` file of an array of this shape and dtype, and maps it to be written.

    The file's space on the disk is reserved first: writing to a map when the disk is full would
    kill the process.

    Raises:
      OSError: If there is no space, or the file cannot be made.
    """
    images = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # Linux has it; Windows reserves the space by itself.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, images.offset + images.nbytes)
    return images


def open_images(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap | None:
    """Maps a `.npy` file to be read; returns None if it is absent, or of another shape or dtype."""
    with contextlib.suppress(OSError, ValueError):
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        if (images.shape, images.dtype) == (shape, dtype):
            return images
    return None


def cached_file(images: np.ndarray) -> Path | None:
    """Returns the file of a cache that an array maps as a whole; None for any other array."""
    if not isinstance(images, np.memmap) or images.filename is None:
        return None
    path = Path(images.filename)
    whole = images.flags.c_contiguous and (path.parent / CONTENTS).is_file()
    return path if whole and path.stat().st_size == images.offset + images.nbytes else None


def derived(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, fill: Callable[[np.ndarray], None]
) -> np.memmap:
    """Maps a file beside the images of a cache, which the first call writes.

    Args:
      path: The file.
      shape: `[N, ...]`.
      dtype: The dtype.
      fill: Fills an array of that shape and dtype.

    Raises:
      UserError: If the file cannot be written.
    """

    def make() -> None:
        with renamed_when_done(path) as aside:
            images = create_images(aside, shape, dtype)
            fill(images)
            images.flush()
            del images  # Windows cannot rename a file that is mapped.

    return found_or_made(path.parent, lambda: open_images(path, shape, dtype), make)


def found_or_made(folder: Path, find: Callable[[], _T | None], make: Callable[[], None]) -> _T:
    """Returns what a folder of the cache holds; one process makes it if it is absent.

    Args:
      folder: The folder, which need not exist yet.
      find: Returns the content, or None if it is absent.
      make: Makes the content.

    Raises:
      UserError: If it cannot be written.
    """
    found = find()
    if found is not None:
        return found
    cache = folder.parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if find() is None:  # Otherwise another process has made it meanwhile.
                make()
    except OSError as error:
        raise UserError(
            f"The images cannot be kept in the cache {str(cache)!r}: free some space, or name "
            f"another folder. Received: {first_line(error)}."
        ) from error
    found = find()
    if found is None:
        raise RuntimeError(f"{folder} does not hold what was just written to it.")
    return found
