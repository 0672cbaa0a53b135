"""Images that stay on disk: what `load_images` gives, mapped from files instead of in memory.

A data set is decoded once, piece by piece, into uncompressed arrays in a folder of a cache, one
file a split, and mapped from there; a second run with the same data set finds them. The splits, the
order of the images in them, their dtype and their grey levels are those of `load_images`, bit for
bit, and so is what the rest of the package makes of them: shuffles, draws and the start within an
epoch cost no more than a look at the images that are asked for.

Memory holds a piece of 32 MiB at a time, and 8 to 24 bytes an image where a split is shuffled; the
system keeps as much of the files in memory as it can spare. A file of a format that could be mapped
where it is (`.npy`) is copied all the same: without a test split its images are shuffled, and a
copy does not change under a run.

The folder is written aside and renamed when all is on the disk, under a lock that dies with its
process: what a killed run leaves is never taken for complete, and the next one removes it. A data
set is told by its path or version, and by the names, sizes and times of its files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tfp_flowvae._files import sync_folder
from tfp_flowvae.data import catalog, files, folder, sources
from tfp_flowvae.data.arrays import (
    Values,
    check_alike,
    check_layout,
    narrowed,
    number_of_levels,
)
from tfp_flowvae.data.disk import (
    CONTENTS,
    ImageFile,
    locked,
    open_images,
    writing_to,
)
from tfp_flowvae.data.images import ImageSplits
from tfp_flowvae.data.pieces import Coloured, Part, Source, cut
from tfp_flowvae.data.splits import Places, check_fractions, split_places
from tfp_flowvae.errors import UserError

_SPLITS = ("train", "valid", "test")
_FORMAT = 2  # Of what a folder of the cache holds: another number, another folder.


def stream_images(
    dataset: str,
    data_dir: str | None = None,
    cache: str | Path = "~/.cache/tfp_flowvae",
    *,
    image_shape: tuple[int, ...] | None = None,
    valid_fraction: float | None = None,
    test_fraction: float | None = None,
) -> ImageSplits:
    """`load_images` for data sets larger than memory.

    Args:
        dataset: As for `load_images`.
        data_dir: As for `load_images`.
        cache: The folder in which the images are kept between runs, one byte a value for integer
            images, four for floats. It may be removed while no run uses it.
        image_shape: As for `load_images`.
        valid_fraction: As for `load_images`.
        test_fraction: As for `load_images`.

    Returns:
        The images of `load_images`, as `np.memmap`s that cannot be written to.

    Raises:
        UserError: As `load_images` does, or if the cache cannot be written.

    Example:
        >>> splits = stream_images("path/to/pictures", cache="/scratch/flowvae")
        >>> batches = training_batches(
        ...     splits.train, levels=splits.levels, batch_size=100, seed=0, binarization="none"
        ... )
    """
    check_fractions(valid_fraction, test_fraction)
    source = _source(*sources.resolve(dataset, data_dir, image_shape), data_dir, image_shape)
    sizes = {split: part.shape[0] for split, part in source.parts.items()}
    counts, places = split_places(sizes, source.where, valid_fraction, test_fraction)

    cache = Path(os.path.expanduser(cache))
    home = cache / _folder_name(dataset, [*source.identity, f"{valid_fraction} {test_fraction}"])
    found = _open(home, counts)
    if found is None:
        with writing_to(cache):
            cache.mkdir(parents=True, exist_ok=True)
            with locked(home):
                found = _open(home, counts)  # Another process may have been faster.
                if found is None:
                    _prepare(source, counts, places, home)
                    found = _open(home, counts)
    if found is None:
        raise RuntimeError(f"{home} does not hold what was just written to it.")
    images, facts = found
    for note in facts.notes:
        warnings.warn(note, stacklevel=2)
    floats = images["train"].dtype != np.uint8
    levels = number_of_levels(floats, facts.brightest, source.where, source.levels, stacklevel=3)
    return ImageSplits(name=dataset, **images, levels=levels)


@dataclasses.dataclass(frozen=True)
class _Facts:
    """What reading the pixels of a data set showed, and the cache keeps with them.

    Attributes:
        brightest: The highest value.
        notes: What there is to say about the images, each time.
    """

    brightest: float
    notes: list[str]


def _source(
    kind: str, name: str, data_dir: str | None, image_shape: tuple[int, ...] | None
) -> Source:
    """The data set of a kind and a bare name, as `sources.resolve` gives them."""
    if kind == "digits":
        array = sources.digits()
        parts = {"train": Part("the digits", array.shape, array.dtype, lambda _: cut(array))}
        return Source("The data set 'digits'", parts, sources.DIGITS_LEVELS, ["digits"])
    if kind == "tfds":
        parts, home = catalog.stream_catalog(name, data_dir)
        identity = ["tfds", *_identity(home, sorted(home.iterdir()))]
        return Source(f"The TFDS data set {name!r}", parts, None, identity)
    path = Path(name)
    if path.is_dir():
        listed = folder.list_folder(path)
        identity = [
            "folder",
            *_identity(path, [file for found in listed.values() for file in found]),
        ]
        coloured = functools.partial(folder.stream_folder, path, listed, coloured=True)
        return Source(repr(name), folder.stream_folder(path, listed), None, identity, coloured)
    parts, levels = files.stream_file(path, image_shape)
    identity = ["file", str(image_shape), *_identity(path.parent, [path])]
    return Source(repr(name), parts, levels, identity)


def _identity(root: Path, found: list[Path]) -> Iterator[str]:
    """Where files lie, and their names, sizes and times."""
    yield str(root.resolve())
    for file in found:
        try:
            status = file.stat()
        except OSError as error:
            raise UserError(
                f"The file {str(file)!r} cannot be read; replace or remove it. "
                f"Received: {error.strerror}."
            ) from error
        yield f"{file.relative_to(root)} {status.st_size} {status.st_mtime_ns}"


def _folder_name(dataset: str, identity: list[str]) -> str:
    total = hashlib.sha256(f"{_FORMAT}".encode())
    for item in identity:
        total.update(b"\0" + os.fsencode(item))
    stem = re.sub(r"[^\w.-]+", "-", Path(dataset).stem).strip("-.")
    return f"{stem or 'images'}-{total.hexdigest()[:20]}"


def _open(home: Path, counts: dict[str, int]) -> tuple[dict[str, np.memmap], _Facts] | None:
    """The splits in a folder and what is known of them; None if they are not all there."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        facts = _Facts(**json.loads((home / CONTENTS).read_text(encoding="utf-8"))["facts"])
        images = {split: open_images(home / f"{split}.npy") for split in _SPLITS}
        if {split: len(found) for split, found in images.items()} == counts:
            return images, facts
    return None


def _prepare(source: Source, counts: dict[str, int], places: dict[str, Places], home: Path) -> None:
    """Fills a folder of the cache: aside, then renamed."""
    aside = home.with_name(f".{home.name}.partial")
    for left in (aside, home):  # By a run that was killed; by whoever removed files in it.
        if left.exists():
            shutil.rmtree(left)
    aside.mkdir()
    try:
        try:
            facts = _write(source, counts, places, aside)
        except Coloured:
            if source.coloured is None:
                raise
            source = dataclasses.replace(source, parts=source.coloured())
            facts = _write(source, counts, places, aside)
        contents = {"dataset": source.where, "facts": dataclasses.asdict(facts)}
        with (aside / CONTENTS).open("w", encoding="utf-8") as file:
            json.dump(contents, file)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(aside)
        aside.rename(home)
        sync_folder(home.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _write(source: Source, counts: dict[str, int], places: dict[str, Places], home: Path) -> _Facts:
    """Writes the splits into a folder."""
    for part in source.parts.values():
        check_layout(part.shape, part.dtype, part.where)
    kept = {(part.kept[0][1:], part.kept[1]) for part in source.parts.values()}
    check_alike(kept, source.where)
    ((shape, dtype),) = kept
    progress = _Progress(sum(counts.values()), home.parent)
    brightest = []
    with contextlib.ExitStack() as stack:
        into = {
            split: stack.enter_context(
                ImageFile(home / f"{split}.npy", (counts[split], *shape), dtype)
            )
            for split in _SPLITS
        }
        for name, part in source.parts.items():
            values, first = Values(), 0
            for piece in part.pieces(home):
                values.see(piece)
                last = first + len(piece)
                if values.fit(part.dtype.kind, source.levels):
                    images = narrowed(piece)
                    for split, (own, rows) in places[name](first, last).items():
                        into[split].write(rows, images[own])
                first = last
                progress.add(len(piece))
            # After the last piece, so that the message tells of all.
            values.check(part.dtype.kind, part.where, source.levels)
            brightest.append(values.high.astype(dtype).item())
    progress.end()
    notes = set().union(*(part.notes for part in source.parts.values()))
    return _Facts(max(brightest), sorted(notes))


class _Progress:
    """A line on stderr that counts, where there is somebody to see it."""

    def __init__(self, total: int, cache: Path) -> None:
        self._total, self._cache, self._done = total, cache, 0
        self._shown = sys.stderr.isatty()

    def add(self, count: int) -> None:
        self._done += count
        if self._shown:
            print(f"\rPreparing images: {self._done:,} of {self._total:,}", end="", file=sys.stderr)

    def end(self) -> None:
        start = "\r" if self._shown else ""
        print(f"{start}Prepared {self._total:,} images in {self._cache}", file=sys.stderr)
