"""The labels of a model with classes, which are contexts of its distributions."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.errors import UserError
from tfp_flowvae.training.noise import Noise

UNKNOWN = -1
"""The label of an example whose class is not known."""

_STREAM = 0x1ABE  # the stream of the noise that hides labels


def as_context(
    label: TensorLike | None, num_classes: int | None, count: int | tf.Tensor
) -> tf.Tensor | None:
    """The context of `count` labels, `[count, K]`: one-hot, and zeros for `UNKNOWN`.

    Args:
      label: An integer, integers `[count]`, or None for `UNKNOWN`.
      num_classes: K, or None for a model without classes.
      count: How many labels there are.

    Returns:
      float32; None without classes.

    Raises:
      UserError: If there is a label without classes, or labels have another shape or range.
    """
    if num_classes is None:
        if label is not None:
            raise UserError(
                "This model has no classes: give its constructor num_classes, or leave the label "
                "out. Received: a label."
            )
        return None
    if label is None:
        return tf.zeros([count, num_classes])
    label = checked_labels(label, num_classes, count)
    if label.shape.rank == 0:
        label = tf.fill([count], label)
    # Not tf.one_hot: converted to ONNX it would count -1 from the end.
    return tf.cast(label[:, tf.newaxis] == tf.range(num_classes), tf.float32)


def checked_labels(
    label: TensorLike, num_classes: int, count: int | tf.Tensor | None = None
) -> tf.Tensor:
    """The labels in int32, `[]` or `[count]`; their values are checked if they are known.

    Args:
      label: As for `as_context`.
      num_classes: K.
      count: How many labels there must be; None for any number.

    Raises:
      UserError: If the labels are no integers, or have another shape or range.
    """
    label = tf.convert_to_tensor(label)
    if not label.dtype.is_integer or label.shape.rank not in (0, 1):
        raise UserError(
            "A label must be an integer, and labels integers of shape [N]. "
            f"Received: {label.dtype.name} of shape {tuple(label.shape)}."
        )
    size = None if count is None else tf.get_static_value(count)
    if label.shape.rank == 1 and size is not None and label.shape[0] not in (None, size):
        raise UserError(
            f"There must be one label for each example. Received: {label.shape[0]} labels for "
            f"{size} examples."
        )
    known = tf.get_static_value(label)
    if known is not None:
        known = np.atleast_1d(known)
        wrong = np.unique(known[(known < UNKNOWN) | (known >= num_classes)])
        if wrong.size:
            raise UserError(
                f"Labels must be 0 to {num_classes - 1}, or {UNKNOWN} where the class is not "
                f"known. Received: {wrong[0]}."
            )
    return tf.cast(label, tf.int32)


def asserted(label: tf.Tensor, num_classes: int) -> tf.Tensor:
    """The labels of a graph, which fails where it runs if they are out of range."""
    message = f"Labels must be 0 to {num_classes - 1}, or {UNKNOWN} where the class is not known."
    checks = [
        tf.debugging.assert_greater_equal(label, UNKNOWN, message),
        tf.debugging.assert_less(label, num_classes, message),
    ]
    with tf.control_dependencies(checks):
        return tf.identity(label)


def with_unknown(label: tf.Tensor, rate: float, noise: Noise) -> tf.Tensor:
    """Labels `[B]`, of which each becomes `UNKNOWN` with a probability of `rate`."""
    u = noise.stream(_STREAM).uniform(tf.unstack(tf.shape(label)), batch_axis=0)
    return tf.where(u < rate, UNKNOWN, label)


def check_fit(y: Any, num_classes: int, count: int | None = None) -> None:
    """Checks the labels that `fit` is given with examples, in arrays or in a batch.

    Raises:
      UserError: If there are none, or they are not one class for each of `count` examples.
    """
    if y is None:
        raise UserError(
            f"This model has {num_classes} classes: give fit the labels [N] after the examples, "
            f"{UNKNOWN} where the class is not known. Received: no labels."
        )
    checked_labels(y, num_classes, count)
