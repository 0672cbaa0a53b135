"""Images from TensorFlow Datasets, by name."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tfp_flowvae.data.arrays import as_images
from tfp_flowvae.data.pieces import Part, images_in_piece
from tfp_flowvae.errors import UserError, nearest

_SPLITS = {"train": ("train",), "valid": ("validation", "valid", "val"), "test": ("test",)}
_BATCH = 1000
_PATIENCE = 5.0  # Seconds to wait for a server's first answer.


def catalog_names() -> list[str]:
    """The names that TFDS knows (without loading TensorFlow)."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def resolve_data_dir(data_dir: str | None) -> Path:
    """Where prepared data sets lie: the argument, TFDS_DATA_DIR, or ~/tensorflow_datasets.

    Raises:
        UserError: If it is a file.
    """
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    path = Path(os.path.expanduser(chosen))
    if path.exists() and not path.is_dir():
        raise UserError(f"data_dir must be a folder. Received: {chosen!r}, which is a file.")
    return path


def in_catalog(name: str, data_dir: str | None) -> bool:
    """Whether TFDS knows the name, or a data set of that name lies prepared in `data_dir`."""
    base = _base(name)
    if base in catalog_names():
        return True
    folder = resolve_data_dir(data_dir) / base  # Configs lie between the name and the version.
    return base.isidentifier() and any(
        any(folder.glob(f"{between}*/dataset_info.json")) for between in ("", "*/")
    )


def check_catalog(name: str, data_dir: str | None) -> dict[str, int] | None:
    """Checks what can be known of a TFDS data set without reading or downloading it.

    Args:
        name: Its name, with a config or version where wanted (`emnist/balanced`, `mnist:3.0.1`).
        data_dir: The folder of prepared data sets, or None for the default.

    Returns:
        The number of images per split if the data set lies prepared, else None.

    Raises:
        UserError: If the name is unknown, the data set has no images of one fixed size, or it is
            neither here nor within reach.
    """
    builder = _builder(name, data_dir)
    if not builder.is_prepared():
        _check_reachable(builder, name)
        return None
    splits = _choose_splits(builder, name)
    return {ours: builder.info.splits[theirs].num_examples for ours, theirs in splits.items()}


def read_catalog(name: str, data_dir: str | None) -> dict[str, np.ndarray]:
    """Reads, and if need be downloads, the images of a TFDS data set. Labels are left out.

    Args:
        name: Its name, with a config or version where wanted.
        data_dir: The folder of prepared data sets, or None for the default.

    Returns:
        `[N, H, W, C]` images per split: "train" (the only split, where there is just one), and
        "valid" and "test" where the data set has them.

    Raises:
        UserError: As `check_catalog` does; or if the download fails, or files are damaged.
    """
    builder = _prepared(name, data_dir)
    parts = {}
    for ours, theirs in _choose_splits(builder, name).items():
        array = _read_split(builder, name, theirs)
        parts[ours] = as_images(array, _in(name, theirs))
    return parts


def stream_catalog(name: str, data_dir: str | None) -> tuple[dict[str, Part], Path]:
    """What `read_catalog` reads, ready to come piece by piece.

    Args:
        name: Its name, with a config or version where wanted.
        data_dir: The folder of prepared data sets, or None for the default.

    Returns:
        The parts per split, and the folder in which the data set lies prepared.

    Raises:
        UserError: As `read_catalog` does; of damaged files, by the pieces.
    """
    builder = _prepared(name, data_dir)
    image = builder.info.features["image"]

    def part(split: str) -> Part:
        shape = (builder.info.splits[split].num_examples, *image.shape)
        return Part(
            _in(name, split),
            shape,
            np.dtype(image.np_dtype),
            lambda scratch: _split_pieces(builder, name, split),
        )

    splits = _choose_splits(builder, name)
    return {ours: part(theirs) for ours, theirs in splits.items()}, Path(str(builder.data_dir))


def _prepared(name: str, data_dir: str | None) -> Any:
    """A builder whose data set lies prepared, after a download if need be."""
    builder = _builder(name, data_dir)
    if not builder.is_prepared():
        _check_reachable(builder, name)
        try:
            builder.download_and_prepare()
        # A builder is somebody's script: it can fail in any way, and every way has this remedy.
        except Exception as error:
            raise UserError(_how_to_place(builder, name, _first_line(error))) from error
    return builder


def _is_not_about_itself(record: logging.LogRecord) -> bool:
    return "`FeatureConnector.dtype` is deprecated" not in record.getMessage()


def _base(name: str) -> str:
    return name.split("/")[0].split(":")[0]


def _builder(name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

    # TFDS 4.9 warns of its own use of its own attribute; nobody here can act on it.
    logging.getLogger("absl").addFilter(_is_not_about_itself)
    root = resolve_data_dir(data_dir)
    if not in_catalog(name, data_dir):
        raise UserError(
            "The data set must be one that TensorFlow Datasets knows. "
            f"Received: {name!r}.{nearest(_base(name), catalog_names())}"
        )
    try:
        builder = tfds.builder(name, data_dir=str(root))
    # TFDS raises ValueError, AssertionError, ImportError or its own for a config, a version or a
    # builder that cannot be had.
    except Exception as error:
        raise UserError(
            f"TensorFlow Datasets cannot make {name!r}; check its name, config and version. "
            f"Received: {_first_line(error)}."
        ) from error
    _check_features(builder, name)
    return builder


def _check_features(builder: Any, name: str) -> None:
    import tensorflow_datasets as tfds

    features = builder.info.features
    named = dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}
    image = named.get("image")
    if not isinstance(image, tfds.features.Image):
        received = ", ".join(map(repr, named)) or repr(features)
        raise UserError(
            f"The TFDS data set {name!r} must have an 'image' feature; choose an image data set. "
            f"Received: {received}."
        )
    if len(image.shape) != 3 or None in image.shape or image.shape[-1] not in (1, 3):
        raise UserError(
            f"The images of the TFDS data set {name!r} must all be of one size with 1 or 3 "
            f"channels; resize them into an .npz file or a folder. Received: shape {image.shape}."
        )


def _check_reachable(builder: Any, name: str) -> None:
    """Asks each server once, briefly: TFDS itself would retry for minutes."""
    import requests

    urls = [urlsplit(url) for url in builder.url_infos or {}]
    for scheme, host in sorted({(url.scheme, url.netloc) for url in urls}):
        if scheme in ("http", "https"):
            try:
                requests.head(f"{scheme}://{host}", timeout=_PATIENCE)
            except requests.RequestException as error:
                reason = f"{host} does not answer"
                raise UserError(_how_to_place(builder, name, reason)) from error


def _how_to_place(builder: Any, name: str, reason: str) -> str:
    root = builder.data_dir_root
    return (
        f"The data set {name!r} is not in '{root}' and cannot be downloaded here: where there is "
        f"a network, run `python -c \"import tensorflow_datasets as tfds; tfds.load('{name}', "
        f"data_dir='tfds')\"`, then copy 'tfds/{_base(name)}' to '{root}/{_base(name)}', or name "
        f"the folder that holds it as data_dir (--data-dir). Received: {reason}."
    )


def _choose_splits(builder: Any, name: str) -> dict[str, str]:
    """Our split names and the data set's; its only split serves as train."""
    available = list(builder.info.splits)
    chosen = {
        ours: theirs for ours, names in _SPLITS.items() for theirs in names if theirs in available
    }
    if "train" not in chosen:
        if len(available) != 1:
            raise UserError(
                f"The TFDS data set {name!r} must have a 'train' split, or just one split. "
                f"Received: {', '.join(map(repr, available)) or 'no splits'}."
            )
        chosen = {"train": available[0]}
    return chosen


def _read_split(builder: Any, name: str, split: str) -> np.ndarray:
    """All images of a split."""
    feature = builder.info.features["image"]
    images = np.empty((builder.info.splits[split].num_examples, *feature.shape), feature.np_dtype)
    count = 0
    for piece in _split_pieces(builder, name, split):
        images[count : count + len(piece)] = piece
        count += len(piece)
    return images


def _split_pieces(builder: Any, name: str, split: str) -> Iterator[np.ndarray]:
    """The images of a split, in the order of the files; only the images are decoded."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    expected = builder.info.splits[split].num_examples
    feature = builder.info.features["image"]
    most = images_in_piece((expected, *feature.shape), np.dtype(feature.np_dtype))
    count = 0
    try:
        batches = builder.as_dataset(
            split=split,
            batch_size=min(_BATCH, most),
            shuffle_files=False,
            decoders=tfds.decode.PartialDecoding({"image": True}),
            read_config=tfds.ReadConfig(try_autocache=False, skip_prefetch=True),
        )
        for batch in tfds.as_numpy(batches):
            chunk = batch["image"][: expected - count]
            count += len(chunk)
            if len(chunk):
                yield chunk
        reason = f"{count} of {expected} images"
    except (tf.errors.OpError, OSError, AssertionError, ValueError) as error:
        count, reason = -1, _first_line(error)
    if count != expected:
        raise UserError(
            f"The files of the TFDS data set {name!r} in '{builder.data_dir}' are damaged; remove "
            f"that folder and prepare it again. Received: {reason}."
        )


def _in(name: str, split: str) -> str:
    return f"the TFDS data set {name!r} (split {split!r})"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).split("\n") if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300].rstrip(".")
