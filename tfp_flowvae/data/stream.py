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

from tfp_flowvae._files import written_aside
from tfp_flowvae.data.cache import CONTENTS, create_images, found_or_made, open_images
from tfp_flowvae.data.images import ImageSplits
from tfp_flowvae.data.loading import read_images
from tfp_flowvae.data.sources import Source, open_source

_FORMAT = 3  # The format of a cache's folders; folders of other formats are not read.


def stream_images(
    dataset: str,
    data_dir: str | None = None,
    cache: str | Path = "~/.cache/tfp_flowvae",
    **options: Any,
) -> ImageSplits:
    """Loads images as `load_images` does, for data sets that are larger than memory.

    Args:
      dataset: As for `load_images`.
      data_dir: As for `load_images`.
      cache: The folder that keeps the images between runs, one byte per value of integer images and
        four per value of floats. It may be removed while no run uses it.
      **options: The other arguments of `load_images`.

    Returns:
      The images of `load_images`, as read-only `np.memmap`s.

    Raises:
      UserError: As `load_images` does, or if the cache cannot be written.

    Example:
      >>> splits = stream_images("digits", cache="cache")  # or "path/to/pictures"
      >>> batches = training_batches(
      ...     splits.train, levels=splits.levels, batch_size=100, seed=0, binarization="none"
      ... )
    """
    source = open_source(dataset, data_dir, **options)
    home = Path(os.path.expanduser(cache)) / _folder_name(dataset, source)
    images, contents = found_or_made(
        home, partial(_open, home, source.plan.sizes), partial(_prepare, source, home)
    )
    for note in contents["notes"]:
        warnings.warn(f"{source.where} {note}", stacklevel=2)
    return ImageSplits(name=dataset, **images, levels=contents["levels"], classes=None)


def _folder_name(dataset: str, source: Source) -> str:
    """The name of a data set's folder in the cache, which changes if its images may."""
    identity = [str(_FORMAT), source.kind, str(source.plan)]
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
    """The splits in a folder and what its contents file says; None if they are not complete."""
    with contextlib.suppress(OSError, ValueError):
        contents = json.loads((home / CONTENTS).read_text(encoding="utf-8"))
        shape, dtype = contents["shape"], np.dtype(contents["dtype"])
        images = {}
        for split, size in sizes.items():
            mapped = open_images(home / f"{split}.npy", (size, *shape), dtype)
            if mapped is None:
                return None
            images[split] = mapped
        return images, contents
    return None


def _prepare(source: Source, home: Path) -> None:
    """Writes the splits into a folder of the cache, and then the contents file."""
    shutil.rmtree(home, ignore_errors=True)  # Left by a run that was killed, or damaged since.
    home.mkdir()
    total = sum(source.plan.sizes.values())
    try:
        images, levels, notes = read_images(
            source,
            lambda split, shape, dtype: create_images(home / f"{split}.npy", shape, dtype),
            _progress(total),
        )
        for mapped in images.values():
            mapped.flush()
        layout = {"shape": images["train"].shape[1:], "dtype": images["train"].dtype.str}
        contents = {"dataset": source.where, "levels": levels, "notes": notes, **layout}
        with written_aside(home / CONTENTS) as file:
            file.write(json.dumps(contents).encode())
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise
    print(f"Prepared {total:,} images in {home.parent}", file=sys.stderr)


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
