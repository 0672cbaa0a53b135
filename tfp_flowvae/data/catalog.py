"""Images from TensorFlow Datasets, by name."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tfp_flowvae.data.layouts import check_layout
from tfp_flowvae.data.pieces import Part, images_in_piece
from tfp_flowvae.data.reasons import first_line
from tfp_flowvae.errors import UserError, nearest

_SPLITS = {"train": ("train",), "valid": ("validation", "valid", "val"), "test": ("test",)}
_BATCH = 1000
_PATIENCE = 5.0  # Seconds to wait for a server's first answer.


def catalog_names() -> list[str]:
    """The names that TFDS knows (without loading TensorFlow)."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def resolve_data_dir(data_dir: str | None) -> Path:
    """The folder of prepared data sets: the argument, TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
      UserError: If it is a file.
    """
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    path = Path(os.path.expanduser(chosen))
    if path.exists() and not path.is_dir():
        raise UserError(f"data_dir must be a folder. Received: {chosen!r}, which is a file.")
    return path


def in_catalog(name: str, data_dir: str | None) -> bool:
    """Whether TFDS knows the name, or `data_dir` holds a prepared data set of that name."""
    base = _base(name)
    if base in catalog_names():
        return True
    folder = resolve_data_dir(data_dir) / base  # It holds versions, or configs with versions.
    return base.isidentifier() and any(
        any(folder.glob(f"{between}*/dataset_info.json")) for between in ("", "*/")
    )


def check_catalog(name: str, data_dir: str | None) -> bool:
    """Checks a TFDS data set without reading or downloading it.

    Args:
      name: Its name, with a config or version if wanted (`emnist/balanced`, `mnist:3.0.1`).
      data_dir: The folder of prepared data sets, or None for the default.

    Returns:
      Whether it is prepared, so that nothing must be downloaded.

    Raises:
      UserError: As `open_catalog` does, except if the download fails.
    """
    builder = _builder(name, data_dir)
    prepared = builder.is_prepared()
    if not prepared:
        _check_reachable(builder, name)
    return prepared


def open_catalog(name: str, data_dir: str | None) -> tuple[dict[str, Part], Path]:
    """Opens a TFDS data set, after a download if it is not prepared; reads no image.

    Args:
      name: As for `check_catalog`.
      data_dir: As for `check_catalog`.

    Returns:
      The images of each split: "train" (the only split, if there is one alone), and "valid" and
      "test" if the data set has them. And the folder in which it is prepared.

    Raises:
      UserError: If the name is unknown, the images are not of one fixed size, the data set is not
        prepared and a server does not answer, or the download fails. The pieces raise it for
        damaged files.
    """
    builder = _builder(name, data_dir)
    if not builder.is_prepared():
        _check_reachable(builder, name)
        try:
            builder.download_and_prepare()
        # A builder is a script that can raise anything; the remedy is always the same.
        except Exception as error:
            raise UserError(_how_to_place(builder, name, first_line(error))) from error
    image = builder.info.features["image"]

    def part(split: str) -> Part:
        where = f"the TFDS data set {name!r} (split {split!r})"
        shape, dtype = (builder.info.splits[split].num_examples, *image.shape), image.np_dtype
        check_layout(shape, np.dtype(dtype), where)
        return Part(where, shape, np.dtype(dtype), partial(_pieces, builder, name, split))

    splits = _choose_splits(builder, name)
    return {ours: part(theirs) for ours, theirs in splits.items()}, Path(str(builder.data_dir))


def _is_of_use(record: logging.LogRecord) -> bool:
    return "`FeatureConnector.dtype` is deprecated" not in record.getMessage()


def _base(name: str) -> str:
    return name.split("/")[0].split(":")[0]


def _builder(name: str, data_dir: str | None) -> Any:
    import tensorflow_datasets as tfds

    # TFDS 4.9 warns of a deprecated attribute that only TFDS itself uses.
    logging.getLogger("absl").addFilter(_is_of_use)
    root = resolve_data_dir(data_dir)
    if not in_catalog(name, data_dir):
        raise UserError(
            "The data set must be one that TensorFlow Datasets knows. "
            f"Received: {name!r}.{nearest(_base(name), catalog_names())}"
        )
    try:
        builder = tfds.builder(name, data_dir=str(root))
    # TFDS raises ValueError, AssertionError, ImportError or its own errors for an unknown config or
    # version and for a builder that cannot be imported.
    except Exception as error:
        raise UserError(
            f"TensorFlow Datasets cannot make {name!r}; check its name, config and version. "
            f"Received: {first_line(error)}."
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
    """Asks each server once and waits for seconds: TFDS would retry for minutes."""
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
        f"The data set {name!r} is not in '{root}' and cannot be downloaded here: on a machine "
        f"with a network, run `python -c \"import tensorflow_datasets as tfds; tfds.load('{name}', "
        f"data_dir='tfds')\"`, then copy 'tfds/{_base(name)}' to '{root}/{_base(name)}', or name "
        f"the folder that holds it as data_dir (--data-dir). Received: {reason}."
    )


def _choose_splits(builder: Any, name: str) -> dict[str, str]:
    """The data set's name for each of our splits; if it has only one split, that is "train"."""
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


def _pieces(builder: Any, name: str, split: str) -> Iterator[np.ndarray]:
    """The images of a split, in the order of the files; nothing else is decoded."""
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
        count, reason = -1, first_line(error)
    if count != expected:
        raise UserError(
            f"The files of the TFDS data set {name!r} in '{builder.data_dir}' are damaged; remove "
            f"that folder and prepare it again. Received: {reason}."
        )
