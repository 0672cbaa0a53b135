"""Images from TensorFlow Datasets (TFDS), by name."""

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
from tfp_flowvae.data.splits import SPLIT_NAMES
from tfp_flowvae.errors import UserError, first_line, nearest

_BATCH = 1000
_PATIENCE = 5.0  # Seconds to wait for a server's first answer.


def catalog_names() -> list[str]:
    """Returns the names that TFDS knows; this does not load TensorFlow."""
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def resolve_data_dir(data_dir: str | None) -> Path:
    """Returns the folder of prepared data sets: `data_dir`, or TFDS_DATA_DIR, or TFDS's default.

    Raises:
      UserError: If it is a file.
    """
    chosen = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    path = Path(os.path.expanduser(chosen))
    if path.is_file():
        raise UserError(f"data_dir must be a folder. Received: {chosen!r}, which is a file.")
    return path


def in_catalog(name: str, data_dir: str | None) -> bool:
    """Whether TFDS knows the name, or `data_dir` holds a prepared data set of that name."""
    base = _base(name)
    if base in catalog_names():
        return True
    folder = resolve_data_dir(data_dir) / base  # It holds versions, or configs with versions.
    depths = ("*/dataset_info.json", "*/*/dataset_info.json")
    return base.isidentifier() and any(any(folder.glob(depth)) for depth in depths)


def check_catalog(name: str, data_dir: str | None) -> bool:
    """Checks a data set without reading or downloading it.

    The arguments are those of `open_catalog`.

    Returns:
      Whether the data set is prepared, so that nothing must be downloaded.

    Raises:
      UserError: As `open_catalog` does, except for a download that fails.
    """
    builder = _builder(name, data_dir)
    prepared = builder.is_prepared()
    if not prepared:
        _check_reachable(builder, name)
    return prepared


def open_catalog(name: str, data_dir: str | None) -> tuple[dict[str, Part], Path]:
    """Opens a data set, and downloads it if it is not prepared; reads no image.

    Args:
      name: Its name, with a config or a version if wanted: `emnist/balanced`, `mnist:3.0.1`.
      data_dir: The folder of prepared data sets, or None for the default.

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
        except Exception as error:  # A builder is a script, which can raise anything.
            raise _not_here(builder, name, first_line(error)) from error
    image = builder.info.features["image"]
    dtype = np.dtype(image.np_dtype)

    def part(split: str) -> Part:
        where = f"the TFDS data set {name!r} (split {split!r})"
        shape = (builder.info.splits[split].num_examples, *image.shape)
        check_layout(shape, dtype, where)
        pieces = partial(_pieces, builder, name, split)
        return Part(where, shape, dtype, pieces, labels=partial(_labels, builder, name, split))

    splits = _choose_splits(builder, name)
    return {ours: part(theirs) for ours, theirs in splits.items()}, Path(str(builder.data_dir))


def _base(name: str) -> str:
    return name.split("/")[0].split(":")[0]


def _builder(name: str, data_dir: str | None) -> Any:
    """The data set's builder, whose images are of one size."""
    import tensorflow_datasets as tfds

    logging.getLogger("absl").addFilter(_is_of_use)
    if not in_catalog(name, data_dir):
        raise UserError(
            "The data set must be one that TensorFlow Datasets knows. "
            f"Received: {name!r}.{nearest(_base(name), catalog_names())}"
        )
    try:
        builder = tfds.builder(name, data_dir=str(resolve_data_dir(data_dir)))
    # TFDS raises ValueError, AssertionError, ImportError or its own errors for an unknown config or
    # version and for a builder that cannot be imported.
    except Exception as error:
        raise UserError(
            f"TensorFlow Datasets cannot make {name!r}; check its name, config and version. "
            f"Received: {first_line(error)}."
        ) from error
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
    return builder


def _is_of_use(record: logging.LogRecord) -> bool:
    """False for warnings of TFDS 4.9 about its own code, and about a data set not yet prepared."""
    said = record.getMessage()
    return "`FeatureConnector.dtype` is deprecated" not in said and "Variant folder" not in said


def _check_reachable(builder: Any, name: str) -> None:
    """Asks each server once, for seconds; TFDS would try for minutes."""
    import requests

    urls = [urlsplit(url) for url in builder.url_infos or {}]
    for scheme, host in sorted({(url.scheme, url.netloc) for url in urls}):
        if scheme in ("http", "https"):
            try:
                requests.head(f"{scheme}://{host}", timeout=_PATIENCE)
            except requests.RequestException as error:
                raise _not_here(builder, name, f"{host} does not answer") from error


def _not_here(builder: Any, name: str, reason: str) -> UserError:
    root, base = builder.data_dir_root, _base(name)
    return UserError(
        f"The data set {name!r} is not in '{root}' and cannot be downloaded here: on a machine "
        f"with a network, run `python -c \"import tensorflow_datasets as tfds; tfds.load('{name}', "
        f"data_dir='tfds')\"`, then copy 'tfds/{base}' to '{root}/{base}', or name "
        f"the folder that holds it as data_dir (--data-dir). Received: {reason}."
    )


def _choose_splits(builder: Any, name: str) -> dict[str, str]:
    """The data set's name for each of our splits; if it has only one split, that is "train"."""
    available = list(builder.info.splits)
    chosen = {
        ours: name for ours, names in SPLIT_NAMES.items() for name in names if name in available
    }
    if "train" in chosen:
        return chosen
    if len(available) != 1:
        raise UserError(
            f"The TFDS data set {name!r} must have a 'train' split, or just one split. "
            f"Received: {', '.join(map(repr, available)) or 'no splits'}."
        )
    return {"train": available[0]}


def _pieces(builder: Any, name: str, split: str) -> Iterator[np.ndarray]:
    """The images of a split, in the order of the files; nothing else is decoded."""
    count = builder.info.splits[split].num_examples
    feature = builder.info.features["image"]
    most = images_in_piece((count, *feature.shape), np.dtype(feature.np_dtype))
    return _read(builder, name, split, "image", min(_BATCH, most))


def _labels(builder: Any, name: str, split: str) -> np.ndarray | None:
    """The names of the labels of a split, `[N]`; None if the data set has no feature 'label'."""
    import tensorflow_datasets as tfds

    feature = dict(builder.info.features).get("label")
    if not isinstance(feature, tfds.features.ClassLabel):
        return None
    values = np.concatenate(list(_read(builder, name, split, "label", _BATCH)))
    return np.asarray(feature.names)[values]


def _read(builder: Any, name: str, split: str, key: str, size: int) -> Iterator[np.ndarray]:
    """A feature of a split, in the order of the files and `size` at a time."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    expected = builder.info.splits[split].num_examples
    count = 0
    try:
        batches = builder.as_dataset(
            split=split,
            batch_size=size,
            shuffle_files=False,
            decoders=tfds.decode.PartialDecoding({key: True}),
            read_config=tfds.ReadConfig(try_autocache=False, skip_prefetch=True),
        )
        for batch in tfds.as_numpy(batches):
            count += len(batch[key])
            if count > expected:
                break
            yield batch[key]
        reason = f"{count} of {expected} images"
    except (tf.errors.OpError, OSError, AssertionError, ValueError) as error:
        count, reason = -1, first_line(error)
    if count != expected:
        raise UserError(
            f"The files of the TFDS data set {name!r} in '{builder.data_dir}' are damaged; remove "
            f"that folder and prepare it again. Received: {reason}."
        )
