"""Images from `.npz` and `.npy` files. Pickled content is never loaded."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from tfp_flowvae.data.layouts import check_layout
from tfp_flowvae.data.pieces import PIECE_BYTES, Part, cut, images_in_piece
from tfp_flowvae.data.splits import SPLIT_NAMES
from tfp_flowvae.errors import UserError, first_line

_SINGLE = ("images", "imgs", "x", "data", "arr_0")
_LABELS = re.compile(r"y|y_.*|.*(label|target).*", re.IGNORECASE)
_LEVELS = "levels"
_ARCHIVE = "an .npz archive"


def open_file(
    path: Path, image_shape: tuple[int, ...] | None = None
) -> tuple[dict[str, Part], int | None]:
    """Reads the headers of a `.npz` or `.npy` file, and no image.

    Args:
      path: The file. A `.npz` file holds `x_train` and perhaps `x_valid` and `x_test` (or
        `train`, `valid`, `test`), or one array of images; arrays of labels are ignored. A number
        `levels` in it declares how many grey levels its integer images have.
      image_shape: `(H, W, C)` of flattened images, or None.

    Returns:
      The images of each split ("train", perhaps "valid" and "test"), and the declared number of
      levels (2 for booleans) or None.

    Raises:
      UserError: If the file cannot be read or does not hold images. Damage in the pixels is found
        when they are read: the pieces then raise it.
    """
    if path.suffix.lower() == ".npy":
        levels = None
        with _reading(path, "a NumPy array"):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(array, np.memmap):
                raise ValueError("something else than an array")
        where = repr(str(path))
        shape = check_layout(array.shape, array.dtype, where, image_shape)
        parts = {"train": Part(where, shape, array.dtype, partial(cut, array))}
    else:
        with _reading(path, _ARCHIVE):
            archive = _open_archive(path)
        with archive:
            levels = _read_levels(path, archive) if _LEVELS in archive.files else None
            parts = {
                split: _member(path, archive, key, image_shape)
                for split, key in _image_keys(path, archive.files).items()
            }
    if levels is None and all(part.dtype.kind == "b" for part in parts.values()):
        levels = 2
    return parts, levels


def _member(path: Path, archive: Any, key: str, image_shape: tuple[int, ...] | None) -> Part:
    """The array under a key of an archive."""
    with _reading(path, _ARCHIVE), archive.zip.open(f"{key}.npy") as file:
        shape, _, dtype = _read_header(file)
    where = f"{str(path)!r} (array {key!r})"
    shape = check_layout(shape, dtype, where, image_shape)
    labels = partial(_read_labels, path, _label_key(key, archive.files))
    return Part(where, shape, dtype, partial(_pieces, path, key), labels=labels)


def _label_key(key: str, keys: list[str]) -> str | None:
    """The array of labels that belongs to an array of images; None if there is none."""
    named = [name for names in SPLIT_NAMES.values() for name in names if name in key.lower()]
    words = "y|labels?|targets?"
    split = max(named, key=len, default="")
    wanted = re.compile(rf"({words})_{split}|{split}_({words})" if split else words, re.IGNORECASE)
    return next(filter(wanted.fullmatch, keys), None)


def _read_labels(path: Path, key: str | None) -> np.ndarray | None:
    """The labels `[N]` under a key of an archive; None if the array holds something else."""
    if key is None:
        return None
    with _reading(path, _ARCHIVE), _open_archive(path) as archive:
        labels = np.asarray(archive[key])
    return labels if labels.ndim == 1 and labels.dtype.kind in "iuU" else None


def _pieces(path: Path, key: str) -> Iterator[np.ndarray]:
    """The array under a key of an archive, piece by piece."""
    with (
        _reading(path, _ARCHIVE),
        _open_archive(path) as archive,
        archive.zip.open(f"{key}.npy") as file,
    ):
        shape, fortran, dtype = _read_header(file)
        if fortran:  # The values of an image are far apart: only a map can cut such an array.
            with tempfile.TemporaryFile() as copy:
                shutil.copyfileobj(file, copy, PIECE_BYTES)
                copy.flush()
                yield from cut(np.memmap(copy, dtype, "r", 0, shape, order="F"))
            return
        step, image = images_in_piece(shape, dtype), shape[1:]
        size = dtype.itemsize * int(np.prod(image))
        for start in range(0, shape[0], step):
            count = min(step, shape[0] - start)
            yield np.frombuffer(file.read(count * size), dtype).reshape(count, *image)
        file.read(1)  # The archive's checksum is compared at the end.


@contextlib.contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    """A context in which every error becomes one sentence that names the file."""
    try:
        yield
    # NumPy and zipfile raise a dozen kinds of errors for damaged files.
    except Exception as error:
        reason = first_line(error)
        if re.search("pickle|Object arrays|Python objects", reason):
            reason = "Python objects, which are never loaded"
        if "mmap length" in reason:
            reason = "an array that is cut short"
        raise UserError(
            f"{str(path)!r} must be {kind} that can be read; check the file, or save it again "
            f"with np.savez or np.save from plain arrays. Received: {reason}."
        ) from error


def _open_archive(path: Path) -> Any:
    archive = np.load(path, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError("a single array, which belongs into a .npy file")
    return archive


def _read_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """The shape, whether it is in Fortran order, and the dtype of an array in an open file."""
    version = npy.read_magic(file)
    if version == (1, 0):
        return npy.read_array_header_1_0(file)
    return npy.read_array_header_2_0(file)


def _image_keys(path: Path, keys: list[str]) -> dict[str, str]:
    """The array of each split; `{"train": key}` if one array holds all images."""
    found: dict[str, str] = {}
    for split, names in SPLIT_NAMES.items():
        named = re.compile(rf"(x_)?({'|'.join(names)})(_images)?", re.IGNORECASE)
        present = [key for key in keys if named.fullmatch(key)]
        if len(present) > 1:
            raise UserError(
                f"{str(path)!r} must hold one array of {split} images; drop the others. "
                f"Received: {', '.join(map(repr, present))}."
            )
        if present:
            found[split] = present[0]
    if "train" in found:
        return found
    others = [k for k in keys if k != _LEVELS and not _LABELS.fullmatch(k)]
    single = [key for key in others if key.lower() in _SINGLE] or others
    if found or len(single) != 1:
        labels = bool(keys) and not others
        raise UserError(
            ("Labels were received where images were expected: " if labels else "")
            + f"{str(path)!r} must hold arrays 'x_train' and, if wanted, 'x_valid' and 'x_test', "
            f"or one array 'images'. Received: {', '.join(map(repr, keys)) or 'no arrays'}."
        )
    return {"train": single[0]}


def _read_levels(path: Path, archive: Any) -> int:
    with _reading(path, _ARCHIVE):
        value = np.asarray(archive[_LEVELS])
    if value.shape != () or value.dtype.kind not in "iu" or not 2 <= value <= 256:
        raise UserError(
            f"'levels' in {str(path)!r} must be one integer, the number of grey levels, from 2 "
            f"to 256. Received: {np.array2string(value, threshold=5)}."
        )
    return int(value)
