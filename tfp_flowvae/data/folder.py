"""Images from a folder of picture files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfp_flowvae.data.pieces import Part, images_in_piece
from tfp_flowvae.data.splits import SPLIT_NAMES
from tfp_flowvae.errors import UserError, first_line

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
_PERHAPS_GREY = ("P", "PA", "LA", "La")  # Pillow's modes of pictures with a palette or alpha.
_DEEP = (
    "holds grey pictures of 16 bits, of which the upper 8 are taken; to scale them otherwise, save "
    "the images as floats in [0, 1] in an .npz file."
)


def list_folder(path: Path) -> dict[str, list[Path]]:
    """Lists the picture files in a folder and in the folders below it.

    Args:
      path: The folder. If it holds a folder `train`, then `train`, `valid` (or `val`, `validation`)
        and `test` are its splits; otherwise all its pictures are one set. Hidden files and files
        that are not pictures are ignored.

    Returns:
      The files of each split, sorted by path; `{"train": files}` if the folder has no splits.

    Raises:
      UserError: If there are no pictures.
    """
    splits = {"train": path}
    if (path / "train").is_dir():
        splits = {
            split: path / name
            for split, names in SPLIT_NAMES.items()
            for name in names
            if (path / name).is_dir()
        }
    found = {split: _pictures(folder) for split, folder in splits.items()}
    for split, files in found.items():
        if not files:
            raise UserError(
                f"The folder {str(splits[split])!r} must hold pictures ({', '.join(SUFFIXES)}). "
                "Received: none."
            )
    return found


def open_folder(path: Path, found: dict[str, list[Path]]) -> dict[str, Part]:
    """Opens the pictures of a folder, which must be of one size, and reads only their headers.

    Grey pictures have one channel. If any picture has colour, all get three. Palettes are resolved.
    Only the first frame of an animation is read. Pictures are turned as their EXIF data say. Grey
    pictures of 16 bits keep their upper 8 bits, with a warning.

    Args:
      path: The folder.
      found: What `list_folder` found in it.

    Returns:
      The uint8 images of each split.

    Raises:
      UserError: If a file cannot be read. The pieces raise it for pictures that are damaged, have
        transparent pixels or are not of the first picture's size.
    """
    files = [file for split in found.values() for file in split]
    modes = {_mode(file) for file in files}
    first = files[0], _read_picture(files[0]).shape[:2]
    image = (*first[1], 3 if "colour" in modes else 1)
    warnings = (_DEEP,) if "deep" in modes else ()
    return {
        split: Part(
            repr(str(path)),
            (len(files), *image),
            np.dtype(np.uint8),
            partial(_pieces, files, image, first, path),
            warnings,
            partial(_labels, files, path),
        )
        for split, files in found.items()
    }


def _labels(files: list[Path], path: Path) -> np.ndarray | None:
    """The name of the folder that each picture is in; None if one is in `path` or a split of it."""
    splits = {path, *(path / name for names in SPLIT_NAMES.values() for name in names)}
    if any(file.parent in splits for file in files):
        return None
    return np.array([file.parent.name for file in files])


def _pieces(
    files: list[Path], image: tuple[int, ...], first: tuple[Path, tuple[int, ...]], path: Path
) -> Iterator[np.ndarray]:
    """The pictures of a split as images of shape `(H, W, C)`, piece by piece."""
    step = images_in_piece((len(files), *image), np.dtype(np.uint8))
    for start in range(0, len(files), step):
        chosen = files[start : start + step]
        piece = np.empty((len(chosen), *image), np.uint8)
        for target, file in zip(piece, chosen, strict=True):
            picture = _read_picture(file)
            if picture.shape[:2] != first[1]:
                raise UserError(
                    f"The pictures in {str(path)!r} must all be of one size: {first[0].name} is "
                    f"{first[1][1]} x {first[1][0]} pixels; resize or remove the others. Received: "
                    f"{file.name} with {picture.shape[1]} x {picture.shape[0]}."
                )
            target[...] = picture  # A grey picture fills all channels.
        yield piece


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def _mode(file: Path) -> str:
    """One of "grey", "deep" (grey, of 16 bits) and "colour"; most files are not decoded for it."""
    with _opened(file) as picture:
        mode = picture.mode
    if mode in _PERHAPS_GREY:
        return "grey" if _read_picture(file).shape[2] == 1 else "colour"
    return "grey" if mode in ("1", "L") else "deep" if mode.startswith("I") else "colour"


def _read_picture(file: Path) -> np.ndarray:
    """One picture, uint8 `[H, W, C]` with one channel if it is grey and three if it is not."""
    from PIL import ImageOps

    with _opened(file) as opened:
        picture = ImageOps.exif_transpose(opened)
        mode = picture.mode
        if mode in ("1", "L"):
            return np.asarray(picture.convert("L"))[..., np.newaxis]
        if mode.startswith("I"):  # Of the formats here, only PNG has grey pictures of 16 bits.
            return (np.asarray(picture) >> 8).astype(np.uint8)[..., np.newaxis]
        colours = np.asarray(picture.convert("RGBA"))
    if colours[..., 3].min() < 255:
        raise UserError(
            f"The picture {str(file)!r} must be opaque; flatten it onto a background first. "
            f"Received: {int((colours[..., 3] < 255).sum())} pixels with transparency."
        )
    grey = mode in _PERHAPS_GREY and (colours[..., :3] == colours[..., :1]).all()
    return colours[..., :1] if grey else colours[..., :3]


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A picture, which Pillow decodes only if its pixels are read."""
    from PIL import Image

    try:
        with Image.open(file) as picture:
            yield picture
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise UserError(
            f"The picture {str(file)!r} cannot be read; replace or remove it. "
            f"Received: {first_line(error)}."
        ) from error
