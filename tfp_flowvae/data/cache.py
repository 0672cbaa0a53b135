"""Folders of a cache: `.npy` files of images that are complete or absent, mapped to be read.

The files of a data set share one folder. Each file and each folder is written under
another name and renamed when it is complete, by one process at a time: its lock ends with the
process, so a killed run leaves nothing that is taken for complete.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import FileLock

from tfp_flowvae._files import renamed_when_done
from tfp_flowvae.data.reasons import first_line
from tfp_flowvae.errors import UserError

_T = TypeVar("_T")

CONTENTS = "contents.json"
"""The file that says what a complete folder holds."""


def create_images(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
    """Makes a `.npy` file and maps it to be written.

    The file's space on the disk is reserved first: writing to a map when the disk is full would
    kill the process.

    Args:
      path: The file; what it was before is lost.
      shape: `[N, ...]`.
      dtype: The dtype.

    Raises:
      OSError: If there is no space, or the file cannot be made.
    """
    images = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # Linux has it; Windows reserves the space by itself.
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, images.offset + images.nbytes)
    return images


def open_images(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap | None:
    """Maps a `.npy` file to be read; None if it is absent, or of another shape or dtype."""
    with contextlib.suppress(OSError, ValueError):
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(images, np.memmap) and (images.shape, images.dtype) == (shape, dtype):
            return images
    return None


def cached_file(images: np.ndarray) -> Path | None:
    """The file of a cache that an array maps, if it maps the whole file as it is; else None."""
    if not isinstance(images, np.memmap) or images.filename is None:
        return None
    path = Path(images.filename)
    if not images.flags.c_contiguous or not (path.parent / CONTENTS).is_file():
        return None
    return path if path.stat().st_size == images.offset + images.nbytes else None


def derived(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, fill: Callable[[np.ndarray], None]
) -> np.memmap:
    """A file beside the images of a cache, written by the first call and mapped to be read.

    Args:
      path: The file.
      shape: `[N, ...]`.
      dtype: The dtype.
      fill: Fills an array of that shape and dtype.

    Raises:
      UserError: If the file cannot be written.
    """
    find = partial(open_images, path, shape, dtype)
    return found_or_made(path.parent, find, partial(_write, path, shape, dtype, fill))


def _write(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, fill: Callable[[np.ndarray], None]
) -> None:
    with renamed_when_done(path) as aside:
        images = create_images(aside, shape, dtype)
        fill(images)
        images.flush()
        del images  # Windows cannot rename a file that is mapped.


def found_or_made(folder: Path, find: Callable[[], _T | None], make: Callable[[], None]) -> _T:
    """The content of a cache's folder, which one process makes if it is absent.

    Args:
      folder: The folder, which need not exist yet.
      find: Returns the content; None if it is absent.
      make: Makes the content.

    Raises:
      UserError: If it cannot be written.
    """
    found = find()
    if found is None:
        cache = folder.parent
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(f".{folder.name}.lock")):  # It ends with the process.
                found = find()  # Another process may have been faster.
                if found is None:
                    make()
                    found = find()
        except OSError as error:
            raise UserError(
                f"The images cannot be kept in the cache {str(cache)!r}: free some space, or name "
                f"another folder. Received: {first_line(error)}."
            ) from error
    if found is None:
        raise RuntimeError(f"{folder} does not hold what was just written to it.")
    return found
