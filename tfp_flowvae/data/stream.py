"""Images that stay on disk: those of `load_images`, mapped from files instead of held in memory.

A data set is decoded once, piece by piece, into uncompressed arrays in a folder of a cache, one
file per split; later runs with the same data set map these files. The splits, the order of the
images, their dtype and their grey levels are those of `load_images`, bit for bit, and so are the
batches.

Memory holds a piece of 32 MiB at a time, and 8 to 24 bytes per image if a split is shuffled; the
system keeps as much of the files in memory as it has room for. Arrays in Fortran order in an `.npz`
file are copied to a temporary file first. A data set is recognised by its path or version, and by
the names, sizes and times of its files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfp_flowvae._files import folder_renamed_when_done, sync_folder
from tfp_flowvae.data.cache import CONTENTS, create_images, found_or_made, open_images
from tfp_flowvae.data.images import ImageSplits
from tfp_flowvae.data.loading import read_images
from tfp_flowvae.data.sources import Source, open_source

_FORMAT = 3  # The format of a cache's folders; folders of other formats are not read.


def stream_images(
    dataset: str,
    data_dir: str | None = None,
    cache: str | Path = "~/.cache/tfp_flowvae",
    *,
    image_shape: tuple[int, ...] | None = None,
    valid_fraction: float | None = None,
    test_fraction: float | None = None,
) -> ImageSplits:
    """`load_images` for data sets that are larger than memory.

    The other arguments are those of `load_images`.

    Args:
      cache: The folder that keeps the images between runs, one byte per value of integer images and
        four per value of floats. It may be removed while no run uses it.

    Returns:
      The images of `load_images`, as read-only `np.memmap`s.

    Raises:
      UserError: As `load_images` does, or if the cache cannot be written.

    Example:
      >>> splits = stream_images("path/to/pictures", cache="/scratch/flowvae")
      >>> batches = training_batches(
      ...     splits.train, levels=splits.levels, batch_size=100, seed=0, binarization="none"
      ... )
    """
    source = open_source(dataset, data_dir, image_shape, valid_fraction, test_fraction)
    cache = Path(os.path.expanduser(cache))
    home = cache / _folder_name(dataset, source, f"{valid_fraction} {test_fraction}")
    find = partial(_open, home, source.plan.sizes)
    images, contents = found_or_made(home, find, partial(_prepare, source, home))
    for note in contents["notes"]:
        warnings.warn(f"{source.where} {note}", stacklevel=2)
    return ImageSplits(name=dataset, **images, levels=contents["levels"])


def _folder_name(dataset: str, source: Source, fractions: str) -> str:
    """The name of a data set's folder in the cache, which changes if its images may."""
    identity = [str(_FORMAT), source.kind, fractions]
    if source.files:
        identity.append(str(source.folder.resolve()))
    for file in source.files:
        status = file.stat()
        name = file.relative_to(source.folder)
        identity.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    total = hashlib.sha256(b"\0".join(map(os.fsencode, identity))).hexdigest()
    stem = re.sub(r"[^\w.-]+", "-", Path(dataset).stem).strip("-.")
    return f"{stem or 'images'}-{total[:20]}"


def _open(home: Path, sizes: dict[str, int]) -> tuple[dict[str, np.memmap], dict[str, Any]] | None:
    """The splits in a folder and its contents file; None if they are not complete."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        contents = json.loads((home / CONTENTS).read_text(encoding="utf-8"))
        shape, dtype = contents["shape"], np.dtype(contents["dtype"])
        found = {
            split: open_images(home / f"{split}.npy", (size, *shape), dtype)
            for split, size in sizes.items()
        }
        images = {split: mapped for split, mapped in found.items() if mapped is not None}
        if len(images) == len(sizes):
            return images, contents
    return None


def _prepare(source: Source, home: Path) -> None:
    """Fills a folder of the cache under another name, and renames it."""
    if home.exists():  # Damaged since it was written.
        shutil.rmtree(home)
    with folder_renamed_when_done(home) as aside:
        aside.mkdir()
        _write(source, aside)


def _write(source: Source, folder: Path) -> None:
    """Writes the splits and the contents file into a folder, and to the disk."""
    total = sum(source.plan.sizes.values())

    def create(split: str, shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
        return create_images(folder / f"{split}.npy", shape, dtype)

    images, levels, notes = read_images(source, create, _progress(total))
    for mapped in images.values():
        mapped.flush()
    print(f"Prepared {total:,} images in {folder.parent}", file=sys.stderr)
    train = images["train"]
    layout = {"shape": train.shape[1:], "dtype": train.dtype.str}
    contents = {"dataset": source.where, "levels": levels, "notes": notes, **layout}
    with (folder / CONTENTS).open("w", encoding="utf-8") as file:
        json.dump(contents, file)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)


def _progress(total: int) -> Callable[[int], None]:
    """A function that counts images on a line of stderr, if that is a terminal."""
    count = 0

    def done(more: int) -> None:
        nonlocal count
        count += more
        if sys.stderr.isatty():
            end = "\r" if count == total else ""
            print(f"\rPreparing images: {count:,} of {total:,}", end=end, file=sys.stderr)

    return done
