"""Permutations that flows alternate with, as TFP's own `tfb.Permute`.

`tfb.Permute` is all that a permutation needs: value, inverse, a log-det of 0, and both at once
through `forward_and_log_det` here. What it lacks is a way to the usual orders. The functions below
compute them in NumPy: a model that is built again has the same order again.
"""

from __future__ import annotations

import operator

import numpy as np
from tensorflow_probability import bijectors as tfb


def reverse_permutation(event_size: int) -> tfb.Permute:
    """Returns the reversal of the last dimension, y_i = x_{D - 1 - i}; it is its own inverse.

    Example:
      >>> reverse_permutation(3).forward([1.0, 2.0, 3.0])
      <tf.Tensor: shape=(3,), dtype=float32, numpy=array([3., 2., 1.], dtype=float32)>

    Args:
      event_size: D, at least 1.

    Raises:
      ValueError: If D < 1.
      TypeError: If D is not an integer.
    """
    return _permute(np.arange(_size("event_size", event_size))[::-1], "reverse_permutation")


def random_permutation(event_size: int, seed: int) -> tfb.Permute:
    """Returns a permutation of the last dimension, drawn uniformly: the same for the same seed.

    Example:
      >>> permutation = random_permutation(3, seed=0)
      >>> permutation.inverse(permutation.forward([1.0, 2.0, 3.0]))
      <tf.Tensor: shape=(3,), dtype=float32, numpy=array([1., 2., 3.], dtype=float32)>

    Args:
      event_size: D, at least 1.
      seed: Of NumPy's default generator, at least 0.

    Raises:
      ValueError: If D < 1 or the seed is negative.
      TypeError: If D or the seed is not an integer.
    """
    order = np.random.default_rng(_size("seed", seed, least=0)).permutation(
        _size("event_size", event_size)
    )
    return _permute(order, "random_permutation")


def alternating_permutation(event_size: int) -> tfb.Permute:
    """Returns the permutation that puts even places first: 0, 2, 4, ..., 1, 3, 5, ...

    Around a coupling flow that splits its input in halves, `Chain([Invert(p), flow, p])` with p
    this permutation splits it by even and odd places instead.

    Example:
      >>> alternating_permutation(4).forward([0.0, 1.0, 2.0, 3.0])
      <tf.Tensor: shape=(4,), dtype=float32, numpy=array([0., 2., 1., 3.], dtype=float32)>

    Args:
      event_size: D, at least 1.

    Raises:
      ValueError: If D < 1.
      TypeError: If D is not an integer.
    """
    places = np.arange(_size("event_size", event_size))
    return _permute(_even_first(places), "alternating_permutation")


def checkerboard_permutation(height: int, width: int, channels: int = 1) -> tfb.Permute:
    """Returns the permutation that puts an image's white squares first, then its black ones.

    The image is flattened row by row with the channels last, to D = height * width * channels. A
    pixel is white if the sum of its row and column is even; its channels stay together.

    Example:
      >>> checkerboard_permutation(2, 2).forward([0.0, 1.0, 2.0, 3.0])
      <tf.Tensor: shape=(4,), dtype=float32, numpy=array([0., 3., 1., 2.], dtype=float32)>

    Args:
      height: At least 1.
      width: At least 1.
      channels: At least 1.

    Raises:
      ValueError: If one of them is less than 1.
      TypeError: If one of them is not an integer.
    """
    shape = (_size("height", height), _size("width", width), _size("channels", channels))
    row, column, _ = np.indices(shape)
    return _permute(_even_first((row + column).ravel()), "checkerboard_permutation")


def _even_first(parity: np.ndarray) -> np.ndarray:
    return np.argsort(parity % 2, kind="stable")


def _permute(order: np.ndarray, name: str) -> tfb.Permute:
    return tfb.Permute(order.astype(np.int32), name=name)


def _size(name: str, value: int, least: int = 1) -> int:
    try:
        size = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer. Received: {name}={value!r}.") from None
    if size < least:
        raise ValueError(f"{name} must be at least {least}. Received: {name}={size}.")
    return size
