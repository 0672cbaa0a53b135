"""Where images come from: a name or a path becomes `ImageSplits`.

- `digits`: scikit-learn's bundled 1797 images of 8x8 pixels and 17 grey levels; no network.
- `mnist`, and any image data set of TensorFlow Datasets, by its name; `tfds:NAME` says so
  explicitly.
- A path: a `.npz` or `.npy` file, or a folder of pictures. A name wins over a folder that bears
  it: write `./mnist` for the folder.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tfp_flowvae.data import catalog, files, folder
from tfp_flowvae.data.arrays import as_images, grey_levels
from tfp_flowvae.data.images import ImageSplits
from tfp_flowvae.data.splits import check_fractions, split_images, split_sizes
from tfp_flowvae.errors import UserError, nearest

DIGITS_LEVELS = 17
_FILES = (".npz", ".npy")
_PREFIX = "tfds:"


def load_images(
    dataset: str,
    data_dir: str | None = None,
    *,
    image_shape: tuple[int, ...] | None = None,
    valid_fraction: float | None = None,
    test_fraction: float | None = None,
) -> ImageSplits:
    """Loads a data set's images, split in three; labels are dropped.

    Args:
        dataset: `digits`, `mnist`, a TFDS name, or a path (see the module's docstring).
        data_dir: Where TFDS's data sets lie; None for TFDS_DATA_DIR or TFDS's own default.
        image_shape: `(H, W, C)` of the flattened images `[N, H * W * C]`, channels last, of an
            `.npz` or `.npy` file; None where images are not flattened.
        valid_fraction: The part of the train images for validation, where the source has no
            validation split. By default a tenth, or, if there is a test split,
            `min(10000, N // 6)` of N images.
        test_fraction: The part of the train images for testing, where the source has no test
            split; by default a fifth.

    Returns:
        The images. The split does not depend on a run's seed.

    Raises:
        UserError: If the data set is unknown, missing, unreadable, out of reach, or does not hold
            images.

    Example:
        >>> splits = load_images("digits")
        >>> splits.image_shape, len(splits.train), len(splits.valid), len(splits.test)
        ((8, 8, 1), 1257, 180, 360)
    """
    check_fractions(valid_fraction, test_fraction)
    kind, source = resolve(dataset, data_dir, image_shape)
    levels: int | None = None
    if kind == "digits":
        where, levels = "The data set 'digits'", DIGITS_LEVELS
        parts = {"train": digits()}
    elif kind == "tfds":
        where = f"The TFDS data set {source!r}"
        parts = catalog.read_catalog(source, data_dir)
    else:
        where = repr(source)
        path = Path(source)
        if path.is_dir():
            parts = folder.read_folder(path)
        else:
            parts, levels = files.read_file(path, image_shape)
    levels = grey_levels(parts, where, levels)
    train, valid, test = split_images(parts, where, valid_fraction, test_fraction)
    return ImageSplits(name=dataset, train=train, valid=valid, test=test, levels=levels)


def check_dataset(
    dataset: str,
    data_dir: str | None = None,
    *,
    image_shape: tuple[int, ...] | None = None,
    valid_fraction: float | None = None,
    test_fraction: float | None = None,
) -> None:
    """Raises what `load_images` would, as far as it can be known at once.

    Neither TensorFlow nor any image is loaded: names, paths, file headers and, for a data set to
    be downloaded, the server's answer are looked at.

    Args:
        dataset: As for `load_images`.
        data_dir: As for `load_images`.
        image_shape: As for `load_images`.
        valid_fraction: As for `load_images`.
        test_fraction: As for `load_images`.

    Raises:
        UserError: As `load_images` does.
    """
    check_fractions(valid_fraction, test_fraction)
    kind, source = resolve(dataset, data_dir, image_shape)
    sizes: dict[str, int] | None = None
    if kind == "tfds":
        sizes = catalog.check_catalog(source, data_dir)
    elif kind == "path":
        path = Path(source)
        if path.is_dir():
            sizes = {split: len(found) for split, found in folder.list_folder(path).items()}
        else:
            sizes = files.check_file(path, image_shape)
    if sizes is not None:
        split_sizes(sizes, repr(source), valid_fraction, test_fraction)


def resolve(
    dataset: str, data_dir: str | None, image_shape: tuple[int, ...] | None = None
) -> tuple[str, str]:
    """What kind of source a string names ("digits", "tfds", "path"), and its bare name.

    Args:
        dataset: As for `load_images`.
        data_dir: As for `load_images`.
        image_shape: As for `load_images`.

    Raises:
        UserError: If it names nothing, `data_dir` is no folder, or `image_shape` is not one of
            images or comes with anything but an `.npz` or `.npy` file.
    """
    if data_dir is not None and not os.path.isdir(os.path.expanduser(data_dir)):
        what = ", which is a file" if os.path.exists(os.path.expanduser(data_dir)) else ""
        raise UserError(
            "data_dir (--data-dir) must be a folder that exists; check its spelling, or make it "
            f"first. Received: {str(data_dir)!r}{what}."
        )
    kind, source = _resolve_name(dataset, data_dir)
    if image_shape is not None:
        _check_image_shape(image_shape, dataset, kind == "path" and os.path.isfile(source))
    return kind, source


def _check_image_shape(image_shape: tuple[int, ...], dataset: str, is_file: bool) -> None:
    received = " ".join(map(str, image_shape))
    if len(image_shape) != 3 or min(image_shape) < 1 or image_shape[2] not in (1, 3):
        raise UserError(
            "image_shape (--image-shape) must be the height, the width and 1 or 3 channels, such "
            f"as 28 28 1. Received: {received}."
        )
    if not is_file:
        raise UserError(
            "image_shape (--image-shape) is for flattened images in an .npz or .npy file; leave it "
            f"out. Received: {received} with the data set {dataset!r}."
        )


def _resolve_name(dataset: str, data_dir: str | None) -> tuple[str, str]:
    """`resolve` for the name alone."""
    if not dataset:
        raise UserError("The data set must be a name or a path. Received: ''.")
    if dataset == "digits":
        return "digits", dataset
    if dataset.startswith(_PREFIX):
        return "tfds", dataset.removeprefix(_PREFIX)
    path = Path(os.path.expanduser(dataset))  # Path.expanduser raises for an unknown user.
    plainly_a_path = path.suffix.lower() in _FILES or dataset.startswith((".", "/", "~", "\\"))
    if not plainly_a_path and (dataset == "mnist" or catalog.in_catalog(dataset, data_dir)):
        return "tfds", dataset
    if path.is_dir() or (path.is_file() and path.suffix.lower() in _FILES):
        return "path", str(path)
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


def digits() -> np.ndarray:
    """scikit-learn's images, uint8 `[1797, 8, 8, 1]`."""
    from sklearn.datasets import load_digits

    array = load_digits().images.astype(np.uint8)
    return as_images(array, "scikit-learn's digits", DIGITS_LEVELS)
