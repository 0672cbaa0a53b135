"""Data sets by name or path.

- `digits`: the 1797 images of 8x8 pixels and 17 grey levels that come with scikit-learn.
- `mnist`, or another image data set of TensorFlow Datasets (TFDS), by its name or as `tfds:NAME`.
- The path of a `.npz` or `.npy` file or of a folder of pictures. `mnist` is the data set even if
  there is a folder of that name: write `./mnist` for the folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tfp_flowvae.data import catalog, files, folder
from tfp_flowvae.data.pieces import Part, cut
from tfp_flowvae.data.splits import Plan, check_fractions, plan_splits
from tfp_flowvae.errors import UserError, nearest

_FILES = (".npz", ".npy")
_PREFIX = "tfds:"


@dataclass(frozen=True)
class Source:
    """A data set, before its pixels are read.

    Attributes:
      where: The data set's name in messages.
      plan: Its splits.
      parts: Opens the splits that the data set comes with; it may read the header of every file.
      levels: The declared number of grey levels, or None.
      kind: How its files are read.
      folder: The folder of its files.
      files: The files, whose names, sizes and times show whether the data set has changed.
    """

    where: str
    plan: Plan
    parts: Callable[[], dict[str, Part]]
    levels: int | None
    kind: str
    folder: Path
    files: list[Path]


def check_dataset(
    dataset: str,
    data_dir: str | None = None,
    *,
    image_shape: tuple[int, ...] | None = None,
    **fractions: Any,
) -> None:
    """Raises what `load_images` would raise, as far as that can be known at once.

    It loads neither TensorFlow nor images. It checks names, paths, file headers and, if a data set
    must be downloaded, whether the server answers. The arguments are those of `load_images`.

    Raises:
      UserError: As `load_images` does.

    Example:
      >>> check_dataset("digits")
      >>> check_dataset("mine.npz")
      Traceback (most recent call last):
          ...
      tfp_flowvae.errors.UserError: The data set's path must exist; ... Received: 'mine.npz'.
    """
    _opened(dataset, data_dir, image_shape=image_shape, **fractions)


def known_layout(
    dataset: str, data_dir: str | None = None, *, image_shape: tuple[int, ...] | None = None
) -> tuple[tuple[int, ...], np.dtype] | None:
    """Returns the shape `(H, W, C)` and the dtype, uint8 or float32, of the images.

    It reads no image, and of a folder of pictures the header of each. None if the data set must be
    downloaded first. The arguments are those of `load_images`.

    Raises:
      UserError: As `check_dataset` does.

    Example:
      >>> known_layout("digits")
      ((8, 8, 1), dtype('uint8'))
    """
    source = _opened(dataset, data_dir, image_shape=image_shape)
    return None if source is None else next(iter(source.parts().values())).layout


def _opened(dataset: str, data_dir: str | None, **rest: Any) -> Source | None:
    """The data set; None if it must be downloaded first, and the server answers."""
    kind, name = _resolve(dataset, data_dir, rest["image_shape"])
    if kind != "tfds" or catalog.check_catalog(name, data_dir):
        return open_source(dataset, data_dir, **rest)
    return None


def open_source(
    dataset: str,
    data_dir: str | None,
    *,
    image_shape: tuple[int, ...] | None = None,
    valid_fraction: float | None = None,
    test_fraction: float | None = None,
) -> Source:
    """Opens a data set, and downloads it if it is one of TFDS that is not prepared.

    The arguments are those of `load_images`.

    Raises:
      UserError: As `load_images` does, except for what only the pixels show.
    """
    check_fractions(valid_fraction, test_fraction)
    kind, name = _resolve(dataset, data_dir, image_shape)
    where, levels, path = repr(name), None, Path(name)
    parts: Callable[[], dict[str, Part]]
    if kind == "digits":
        where, levels, found = "The data set 'digits'", 17, []
        sizes, parts = {"train": 1797}, _digits
    elif kind == "folder":
        listed = folder.list_folder(path)
        found = [file for pictures in listed.values() for file in pictures]
        sizes = {split: len(pictures) for split, pictures in listed.items()}
        parts = partial(folder.open_folder, path, listed)
    else:
        if kind == "tfds":
            where = f"The TFDS data set {name!r}"
            opened, path = catalog.open_catalog(name, data_dir)
            found = sorted(path.iterdir())
        else:
            opened, levels = files.open_file(path, image_shape)
            kind, path, found = f"file {image_shape}", path.parent, [path]
        sizes = {split: part.shape[0] for split, part in opened.items()}
        parts = partial(dict, opened)
    plan = plan_splits(sizes, where, valid_fraction, test_fraction)
    return Source(where, plan, parts, levels, kind, path, found)


def _digits() -> dict[str, Part]:
    """scikit-learn's images."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    array = digits.images.astype(np.uint8)
    shape, labels = (*array.shape, 1), digits.target
    part = Part("the digits", shape, array.dtype, partial(cut, array), labels=lambda: labels)
    return {"train": part}


def _resolve(
    dataset: str, data_dir: str | None, image_shape: tuple[int, ...] | None
) -> tuple[str, str]:
    """Checks the arguments of `load_images`.

    Returns:
      The kind of the data set (digits, tfds, folder or file), and its name or path.
    """
    if data_dir is not None and not os.path.isdir(os.path.expanduser(data_dir)):
        what = ", which is a file" if os.path.exists(os.path.expanduser(data_dir)) else ""
        raise UserError(
            "data_dir (--data-dir) must be a folder that exists; check its spelling, or make it "
            f"first. Received: {str(data_dir)!r}{what}."
        )
    kind, name = _resolve_name(dataset, data_dir)
    if image_shape is not None:
        received = " ".join(map(str, image_shape))
        if len(image_shape) != 3 or min(image_shape) < 1 or image_shape[2] not in (1, 3):
            raise UserError(
                "image_shape (--image-shape) must be the height, the width and 1 or 3 channels, "
                f"such as 28 28 1. Received: {received}."
            )
        if kind != "file":
            raise UserError(
                "image_shape (--image-shape) is for flattened images in an .npz or .npy file; "
                f"leave it out. Received: {received} with the data set {dataset!r}."
            )
    return kind, name


def _resolve_name(dataset: str, data_dir: str | None) -> tuple[str, str]:
    """What `_resolve` returns, from the name alone."""
    if not dataset:
        raise UserError("The data set must be a name or a path. Received: ''.")
    if dataset == "digits":
        return "digits", dataset
    if dataset.startswith(_PREFIX):
        return "tfds", dataset.removeprefix(_PREFIX)
    path = Path(os.path.expanduser(dataset))  # Path.expanduser raises for an unknown user.
    plainly_a_path = path.suffix.lower() in _FILES or dataset.startswith((".", "/", "~", "\\"))
    if not plainly_a_path and catalog.in_catalog(dataset, data_dir):
        return "tfds", dataset
    if path.is_dir():
        return "folder", str(path)
    if path.is_file() and path.suffix.lower() in _FILES:
        return "file", str(path)
    if path.exists():
        raise UserError(
            "A data set on disk must be an .npz file, an .npy file or a folder of pictures. "
            f"Received: {dataset!r}."
        )
    if plainly_a_path or "/" in dataset or "\\" in dataset or path.suffix:
        raise UserError(
            "The data set's path must exist; check its spelling and the folder you are in. "
            f"Received: {dataset!r}."
        )
    known = ["digits", *catalog.catalog_names()]
    raise UserError(
        "The data set must be digits, mnist, another image data set of TensorFlow Datasets, or "
        "the path of an .npz file, an .npy file or a folder of pictures. "
        f"Received: {dataset!r}.{nearest(dataset, known)}"
    )
