"""Images from a folder of picture files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tfp_flowvae.data.pieces import Coloured, Part, images_in_piece
from tfp_flowvae.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
_SPLITS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}


def list_folder(path: Path) -> dict[str, list[Path]]:
    """The picture files of a folder and the folders in it, sorted by path.

    Args:
        path: The folder. Where it holds a folder `train`, then `train`, `valid` (or `val`,
            `validation`) and `test` are its splits; else everything in it is one set. Hidden
            files and files that are no pictures are passed over.

    Returns:
        The files per split; `{"train": files}` where the folder has no splits.

    Raises:
        UserError: If there are no pictures.
    """
    splits = {"train": path}
    if (path / "train").is_dir():
        splits = {
            split: path / name
            for split, names in _SPLITS.items()
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


def read_folder(path: Path) -> dict[str, np.ndarray]:
    """Reads a folder's pictures, all of one size.

    Grey pictures give one channel; if any picture has colour, all get three. Palettes are
    resolved, the first frame of an animation is taken, and a camera's note on which side is up is
    heeded. Of grey pictures of 16 bits the upper 8 are taken, with a warning.

    Args:
        path: The folder; see `list_folder`.

    Returns:
        uint8 `[N, H, W, C]` per split.

    Raises:
        UserError: If a file cannot be read, is of another size than the first or has transparent
            pixels, or if there are no pictures.
    """
    found = list_folder(path)
    pictures = {split: [_read_picture(file) for file in paths] for split, paths in found.items()}
    files = [file for paths in found.values() for file in paths]
    flat = [picture for split in pictures.values() for picture in split]
    first = flat[0].shape[:2]
    for file, picture in zip(files, flat, strict=True):
        _check_size(path, files[0], first, file, picture)
    channels = max(picture.shape[2] for picture in flat)
    if any(map(_is_deep, flat)):
        warnings.warn(_deep_note(path), stacklevel=3)
    return {split: _stack(items, (*first, channels)) for split, items in pictures.items()}


def stream_folder(
    path: Path, found: dict[str, list[Path]], coloured: bool = False
) -> dict[str, Part]:
    """What `read_folder` reads, ready to come piece by piece.

    Args:
        path: The folder.
        found: What `list_folder` found in it.
        coloured: Whether there is a picture with colour, so that all get three channels.

    Returns:
        The parts per split. Their pieces raise `Coloured` at the first picture with colour, if they
        were not told of it.

    Raises:
        UserError: If the first picture cannot be read; what a look at the others shows is raised
            by the pieces.
    """
    first = next(file for files in found.values() for file in files)
    height, width, channels = _read_picture(first).shape
    shape = (height, width, 3 if coloured else channels)
    notes: set[str] = set()

    def part(files: list[Path]) -> Part:
        layout = (len(files), *shape)
        step = images_in_piece(layout, np.dtype(np.uint8))

        def pieces(_: Path) -> Iterator[np.ndarray]:
            for start in range(0, len(files), step):
                pictures = []
                for file in files[start : start + step]:
                    picture = _read_picture(file)
                    _check_size(path, first, (height, width), file, picture)
                    if picture.shape[2] > shape[2]:
                        raise Coloured
                    pictures.append(picture)
                if any(map(_is_deep, pictures)):
                    notes.add(_deep_note(path))
                yield _stack(pictures, shape)

        return Part(repr(str(path)), layout, np.dtype(np.uint8), pieces, notes)

    return {split: part(files) for split, files in found.items()}


def _check_size(
    path: Path, first: Path, size: tuple[int, ...], file: Path, picture: np.ndarray
) -> None:
    if picture.shape[:2] != size:
        raise UserError(
            f"The pictures in {str(path)!r} must all be of one size: {first.name} is "
            f"{size[1]} x {size[0]} pixels; resize or remove the others. Received: "
            f"{file.name} with {picture.shape[1]} x {picture.shape[0]}."
        )


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in SUFFIXES
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )


def _stack(pictures: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    images = np.empty((len(pictures), *shape), np.uint8)
    for image, picture in zip(images, pictures, strict=True):
        # A grey picture among coloured ones fills all three channels.
        image[...] = picture >> 8 if _is_deep(picture) else picture
    return images


def _is_deep(picture: np.ndarray) -> bool:
    return picture.dtype != np.uint8


def _deep_note(path: Path) -> str:
    return (
        f"{str(path)!r} holds grey pictures of 16 bits, of which the upper 8 are taken; to scale "
        "them otherwise, save the images as floats in [0, 1] in an .npz file."
    )


def _read_picture(file: Path) -> np.ndarray:
    """One picture `[H, W, C]` with one channel if it is grey and three if it is not.

    uint8, or, of a grey picture of 16 bits, an integer type that holds them.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            picture = ImageOps.exif_transpose(opened)
            mode = picture.mode
            if mode in ("1", "L"):
                return np.asarray(picture.convert("L"))[..., np.newaxis]
            if mode.startswith("I"):  # Of the formats here PNG alone has such pictures.
                return np.asarray(picture)[..., np.newaxis]
            colours = np.asarray(picture.convert("RGBA"))
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
        raise UserError(
            f"The picture {str(file)!r} cannot be read; replace or remove it. Received: {reason}."
        ) from error
    if colours[..., 3].min() < 255:
        raise UserError(
            f"The picture {str(file)!r} must be opaque; flatten it onto a background first. "
            f"Received: {int((colours[..., 3] < 255).sum())} pixels with transparency."
        )
    grey = mode in ("P", "PA", "LA", "La") and (colours[..., :3] == colours[..., :1]).all()
    return colours[..., :1] if grey else colours[..., :3]
