"""Permutations of the last dimension as a parameter: checks, inverse, and application.

A permutation p is `[..., D]`, integer, and acts as `tfb.Permute` does: y_i = x_{p_i}.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae import _compat
from tfp_flowvae._typing import TensorLike


def convert(
    owner: str, permutation: TensorLike | None, event_shape: tf.TensorShape
) -> tf.Tensor | tf.Variable | None:
    """Converts a permutation to a tensor (a reference is kept) and checks it; None stays None.

    Args:
      owner: The bijector's class name, for messages.
      permutation: `[..., D]`, or None.
      event_shape: `[D]`, as far as it is known.

    Returns:
      The permutation.

    Raises:
      TypeError: If it holds no integers.
      ValueError: If its shape is wrong, or its values are known and are no permutation.
    """
    if permutation is None:
        return None
    if not hasattr(permutation, "dtype"):
        permutation = np.asarray(permutation)
        if permutation.dtype == np.int64:  # Python integers have no precision of their own
            permutation = permutation.astype(np.int32)
    dtype = tf.as_dtype(permutation.dtype)
    if dtype not in (tf.int32, tf.int64):
        raise TypeError(
            f"{owner} takes a permutation of int32 or int64. "
            f"Received: permutation.dtype={dtype.name}."
        )
    permutation = _compat.as_parameter(permutation, dtype, "permutation")
    size = None if event_shape.rank is None else event_shape[0]
    _check_shape(owner, tf.TensorShape(permutation.shape), size)
    value = None if _compat.is_ref(permutation) else tf.get_static_value(permutation)
    if value is not None and np.any(np.sort(value, axis=-1) != np.arange(value.shape[-1])):
        raise ValueError(
            f"{owner} takes a permutation that holds each of 0 to {value.shape[-1] - 1} once. "
            f"Received: permutation={value.tolist()}."
        )
    return permutation


def assertions(owner: str, permutation: tf.Tensor | tf.Variable, is_init: bool) -> list:
    """What `validate_args` checks where `convert` did not know the values."""
    if is_init == _compat.is_ref(permutation):
        return []
    tensor = tf.convert_to_tensor(permutation)
    message = f"{owner} takes a permutation that holds each of 0 to D - 1 once."
    wanted = tf.range(tf.shape(tensor, tensor.dtype)[-1], dtype=tensor.dtype)
    return [tf.debugging.assert_equal(tf.sort(tensor, axis=-1), wanted, message=message)]


def properties() -> tfp.util.ParameterProperties:
    """The properties of a permutation: batch dimensions may lead, and it is not trained."""
    return tfp.util.ParameterProperties(event_ndims=1, is_preferred=False)


def invert(permutation: tf.Tensor) -> tf.Tensor:
    """Returns the inverse permutation, `[..., D]`."""
    static = tf.get_static_value(permutation)
    if static is not None:  # sorted here, where it need not be compiled
        return tf.constant(np.argsort(static, axis=-1), permutation.dtype)
    return tf.argsort(permutation, axis=-1)


def gather(x: tf.Tensor, permutation: tf.Tensor) -> tf.Tensor:
    """Returns y with y_i = x_{p_i}, of the shape that `x` and the permutation broadcast to."""
    if permutation.shape.rank == 1:
        return tf.ensure_shape(tf.gather(x, permutation, axis=-1), x.shape)
    static = tf.broadcast_static_shape(x.shape, permutation.shape)
    shape = tf.broadcast_dynamic_shape(tf.shape(x), tf.shape(permutation))
    rows = tf.reshape(tf.broadcast_to(x, shape), [-1, shape[-1]])
    indices = tf.reshape(tf.broadcast_to(permutation, shape), [-1, shape[-1]])
    moved = tf.gather(rows, indices, axis=-1, batch_dims=1)
    return tf.ensure_shape(tf.reshape(moved, shape), static)


def _check_shape(owner: str, shape: tf.TensorShape, size: int | None) -> None:
    if shape.rank is None:
        return
    if shape.rank < 1 or (size is not None and shape[-1] not in (None, size)):
        wanted = "D" if size is None else size
        raise ValueError(
            f"{owner} takes a permutation of shape [..., {wanted}]. "
            f"Received: permutation.shape={tuple(shape.as_list())}."
        )
