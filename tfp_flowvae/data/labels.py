"""The labels of a data set's images, for those that have any."""

from __future__ import annotations

import numpy as np

from tfp_flowvae.data.images import Classes
from tfp_flowvae.data.sources import Source, open_source
from tfp_flowvae.errors import UserError

_MISSING = ("-1", "")


def load_labels(
    dataset: str,
    data_dir: str | None = None,
    *,
    image_shape: tuple[int, ...] | None = None,
    split: str = "test",
) -> np.ndarray | None:
    """Loads the labels of a split.

    Labels are the digits of `digits`, the feature `label` of a TFDS data set, the array `y_test`,
    `test_labels` or `labels` (and the like) beside the images in an `.npz` file, and the names of
    the folders within a folder of pictures.

    Args:
      dataset: As in `load_images`.
      data_dir: As in `load_images`.
      image_shape: As in `load_images`.
      split: "train", "valid" or "test".

    Returns:
      Strings `[N]` in the order of the images that `load_images` returns; None if the source has no
      labels, or not one for each image.

    Raises:
      UserError: If the data set cannot be opened or its labels cannot be read.

    Example:
      >>> labels = load_labels("digits", split="test")
      >>> labels.shape, labels[:5]
      ((360,), array(['7', '1', '6', '9', '1'], dtype='<U21'))
    """
    source = open_source(dataset, data_dir, image_shape=image_shape)
    parts = source.parts()
    own = split if split in parts else "train"
    labels = parts[own].labels()
    if labels is None or len(labels) != parts[own].shape[0]:
        return None
    return _placed(source, {own: labels.astype(str)})[split]


def load_classes(
    dataset: str, data_dir: str | None = None, *, image_shape: tuple[int, ...] | None = None
) -> Classes:
    """Loads the classes of all images; a label "-1" or "" is a missing one.

    Args:
      dataset: As in `load_images`.
      data_dir: As in `load_images`.
      image_shape: As in `load_images`.

    Raises:
      UserError: If the data set cannot be opened, a split of it has no labels or not one for each
        image, no training image has a label, or a class has no training image.

    Example:
      >>> classes = load_classes("digits")
      >>> classes.names[:3], classes.train.shape
      (('0', '1', '2'), (1257,))
    """
    source = open_source(dataset, data_dir, image_shape=image_shape)
    found = {}
    for split, part in source.parts().items():
        labels = part.labels()
        if labels is None:
            raise UserError(
                f"{source.where} has no labels of its {split} images: see load_labels for where "
                "they may be, or train without --labels. Received: none."
            )
        if len(labels) != part.shape[0]:
            raise UserError(
                f"{source.where} must have one label for each of its {split} images. Received: "
                f"{len(labels)} labels for {part.shape[0]} images."
            )
        found[split] = labels.astype(str)
    placed = _placed(source, found)
    names = class_names(placed["train"])
    if not names:
        raise UserError(
            f"{source.where} must have a label for some training images. Received: none but -1."
        )
    places = dict.fromkeys(_MISSING, -1) | {name: i for i, name in enumerate(names)}
    for split, labels in placed.items():
        unseen = sorted(set(labels.tolist()) - set(places), key=_by_number)
        if unseen:
            raise UserError(
                f"{source.where} must have a training image of every class; remove the images of "
                f"the others, or label them -1. Received: {unseen[0]!r} in the {split} images."
            )
    return Classes(
        names,
        **{
            split: np.array([places[label] for label in labels.tolist()], np.int32)
            for split, labels in placed.items()
        },
    )


def class_names(labels: np.ndarray) -> tuple[str, ...]:
    """Returns the classes of labels, strings `[N]`, in the order of their numbers or alphabetical.

    Example:
      >>> class_names(np.array(["10", "-1", "9", "9"]))  # -1 is a missing label
      ('9', '10')
    """
    return tuple(sorted(set(labels.tolist()) - set(_MISSING), key=_by_number))


def _by_number(name: str) -> tuple[int, str]:
    return (int(name) if name.isdecimal() else -1, name)


def _placed(source: Source, labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """From the labels of a source's splits, strings, to those of ours."""
    longest = np.result_type(*labels.values())
    into = {name: np.empty(size, longest) for name, size in source.plan.sizes.items()}
    for split, text in labels.items():
        source.plan.place(split, 0, text, into)
    return into
