"""Images from `.npz` and `.npy` files. Pickled content is never loaded."""

from __future__ import annotations

import contextlib
import math
import re
import shutil
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.lib import format as npy

from tfp_flowvae.data.arrays import as_images, check_layout
from tfp_flowvae.data.pieces import PIECE_BYTES, Part, cut, images_in_piece
from tfp_flowvae.errors import UserError

Layout: TypeAlias = tuple[tuple[int, ...], np.dtype, bool]

_KEYS = {
    "train": ("x_train", "train", "train_images"),
    "valid": ("x_valid", "valid", "x_val", "val", "val_images", "validation"),
    "test": ("x_test", "test", "test_images"),
}
_SINGLE = ("images", "imgs", "x", "data", "arr_0")
_LABELS = re.compile(r"y|y_.*|.*(label|target).*", re.IGNORECASE)
_LEVELS = "levels"

# What a file cut short, overwritten, encrypted or of another kind makes NumPy and zipfile raise.
_UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    TypeError,
    SyntaxError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def read_file(
    path: Path, image_shape: tuple[int, ...] | None = None
) -> tuple[dict[str, np.ndarray], int | None]:
    """Reads the images of a `.npz` or `.npy` file.

    Args:
        path: The file. A `.npz` file holds `x_train` and perhaps `x_valid` and `x_test` (or
            `train`, `valid`, `test`), or one array of images; label arrays are passed over. A
            number `levels` in it declares how many grey levels its integer images have.
        image_shape: `(H, W, C)` of flattened images, or None.

    Returns:
        The images per split ("train", perhaps "valid" and "test"), `[N, H, W, C]`, and the
        declared number of levels (2 of booleans) or None.

    Raises:
        UserError: If the file cannot be read or does not hold images.
    """
    if path.suffix.lower() == ".npy":
        with _reading(path, "a NumPy array"):
            array = _require_array(np.load(path, allow_pickle=False))
        images = as_images(array, repr(str(path)), image_shape=image_shape)
        return {"train": images}, _declared([array.dtype], None)
    parts, levels, dtypes = {}, None, []
    with _reading(path, "an .npz archive"):
        archive = _open_archive(path)
    with archive:
        if _LEVELS in archive.files:
            levels = _read_levels(path, archive)
        for split, key in _image_keys(path, archive.files).items():
            with _reading(path, "an .npz archive"):
                array = _require_array(archive[key])
            parts[split] = as_images(array, _in(path, key), levels, image_shape)
            dtypes.append(array.dtype)
    return parts, _declared(dtypes, levels)


def stream_file(
    path: Path, image_shape: tuple[int, ...] | None = None
) -> tuple[dict[str, Part], int | None]:
    """What `read_file` reads, ready to come piece by piece.

    Args:
        path: The file.
        image_shape: `(H, W, C)` of flattened images, or None.

    Returns:
        The parts per split, and the declared number of levels or None.

    Raises:
        UserError: As `check_file` does; what a look at the pixels shows is raised by the pieces.
    """
    check_file(path, image_shape)
    if path.suffix.lower() == ".npy":
        part = _part(path, None, image_shape)
        return {"train": part}, _declared([part.dtype], None)
    with _reading(path, "an .npz archive"):
        archive = _open_archive(path)
    with archive:
        levels = _read_levels(path, archive) if _LEVELS in archive.files else None
        keys = _image_keys(path, archive.files)
    parts = {split: _part(path, key, image_shape) for split, key in keys.items()}
    return parts, _declared([part.dtype for part in parts.values()], levels)


def check_file(path: Path, image_shape: tuple[int, ...] | None = None) -> dict[str, int]:
    """Reads the headers of a `.npz` or `.npy` file, and no image.

    Args:
        path: The file.
        image_shape: `(H, W, C)` of flattened images, or None.

    Returns:
        The number of images per split.

    Raises:
        UserError: If a header cannot be read or its shape or dtype is not that of images.
    """
    if path.suffix.lower() == ".npy":
        with _reading(path, "a NumPy array"), path.open("rb") as file:
            shape, dtype, _ = _header(file)
        check_layout(shape, dtype, repr(str(path)), image_shape)
        return {"train": shape[0]}
    sizes = {}
    with _reading(path, "an .npz archive"):
        archive = _open_archive(path)
    with archive:
        for split, key in _image_keys(path, archive.files).items():
            with _reading(path, "an .npz archive"), archive.zip.open(f"{key}.npy") as file:
                shape, dtype, _ = _header(file)
            check_layout(shape, dtype, _in(path, key), image_shape)
            sizes[split] = shape[0]
    return sizes


def _declared(dtypes: list[np.dtype], levels: int | None) -> int | None:
    """The number of levels that a file declares: by `levels` in it, or by booleans alone."""
    return 2 if levels is None and all(dtype.kind == "b" for dtype in dtypes) else levels


def _part(path: Path, key: str | None, image_shape: tuple[int, ...] | None) -> Part:
    """The array of a `.npy` file, or under a key of a `.npz` file."""
    where = repr(str(path)) if key is None else _in(path, key)
    kind = "a NumPy array" if key is None else "an .npz archive"
    with _reading(path, kind), _opened(path, key) as (file, size):
        shape, dtype, _ = _header(file)
        if math.prod(shape) * dtype.itemsize > size - file.tell():
            raise ValueError(f"an array of shape {shape} that is cut short")
    shape = check_layout(shape, dtype, where, image_shape)

    def pieces(scratch: Path) -> Iterator[np.ndarray]:
        with contextlib.ExitStack() as stack:
            with _reading(path, kind):
                found = _pieces(*stack.enter_context(_opened(path, key)), scratch)
            while True:
                with _reading(path, kind):
                    piece = next(found, None)
                if piece is None:
                    return
                yield piece.reshape(-1, *shape[1:])

    return Part(where, shape, dtype, pieces)


@contextlib.contextmanager
def _opened(path: Path, key: str | None) -> Iterator[tuple[Any, int]]:
    """An array's file, in an archive or not, and its size."""
    if key is None:
        with path.open("rb") as file:
            yield file, path.stat().st_size
        return
    with _open_archive(path) as archive, archive.zip.open(f"{key}.npy") as member:
        yield member, archive.zip.getinfo(f"{key}.npy").file_size


def _pieces(file: Any, size: int, scratch: Path) -> Iterator[np.ndarray]:
    """An array, from its header on."""
    shape, dtype, fortran = _header(file)
    if fortran:  # All images begin before the first ends: only a map can cut such an array.
        with tempfile.TemporaryFile(dir=scratch) as copy:
            shutil.copyfileobj(file, copy, PIECE_BYTES)
            copy.flush()
            yield from cut(np.memmap(copy, dtype, "r", 0, shape, order="F"))
        return
    step = images_in_piece(shape, dtype)
    for start in range(0, shape[0], step):
        piece = np.empty((min(step, shape[0] - start), *shape[1:]), dtype)
        content = piece.reshape(-1).view(np.uint8).data
        while content:
            count = file.readinto(content)
            if not count:
                raise ValueError(f"an array of shape {shape} that is cut short")
            content = content[count:]
        yield piece
    file.read(1)  # An archive compares its checksum at the end.


@contextlib.contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    """Turns whatever a broken file raises into the one sentence that names it."""
    try:
        yield
    except _UNREADABLE as error:
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        if "pickle" in reason or "Object arrays" in reason:
            reason = "Python objects, which are never loaded"
        raise UserError(
            f"{str(path)!r} must be {kind} that can be read; check the file, or save it again "
            f"with np.savez or np.save from plain arrays. Received: {reason}."
        ) from error


def _open_archive(path: Path) -> Any:
    archive = np.load(path, allow_pickle=False)
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError("a single array, which belongs into a .npy file")
    return archive


def _require_array(loaded: Any) -> np.ndarray:
    # An archive that is called .npy, or a member that is no array, loads as something else.
    if not isinstance(loaded, np.ndarray):
        raise ValueError("something else than an array")
    return loaded


def _header(file: Any) -> Layout:
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, fortran, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran, dtype = npy.read_array_header_2_0(file)
    else:  # Written for field names beyond Latin-1 alone, which no image has.
        raise ValueError(f"a header of version {version}")
    return shape, dtype, fortran


def _image_keys(path: Path, keys: list[str]) -> dict[str, str]:
    """Which array holds which split; `{"train": key}` where one array holds everything."""
    found: dict[str, str] = {}
    for split, names in _KEYS.items():
        present = [key for key in keys if key.lower() in names]
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
    with _reading(path, "an .npz archive"):
        value = _require_array(archive[_LEVELS])
    if value.shape != () or value.dtype.kind not in "iu" or not 2 <= value <= 256:
        raise UserError(
            f"'levels' in {str(path)!r} must be one integer, the number of grey levels, from 2 "
            f"to 256. Received: {np.array2string(value, threshold=5)}."
        )
    return int(value)


def _in(path: Path, key: str) -> str:
    return f"{str(path)!r} (array {key!r})"
