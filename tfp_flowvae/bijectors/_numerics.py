"""Elementary functions that keep their relative accuracy, and finite gradients, at the edges.

The reparameterisations of the planar and the radial flow both have the shape

    softplus(x + softplus^-1(a)),    a > 0, so that x = 0 gives a,

and both need this positive quantity itself and its excess over a, each to a few units in the last
place wherever the other is large.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf


def tiny(dtype: tf.DType) -> float:
    """The smallest positive number of full precision."""
    return float(np.finfo(dtype.as_numpy_dtype).tiny)


def epsilon(dtype: tf.DType) -> float:
    """The distance from 1 to the next number."""
    return float(np.finfo(dtype.as_numpy_dtype).eps)


def norm_and_unit(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits `x` into its Euclidean length and its direction, without overflow or underflow.

    Both are 0, with gradient 0, where `x` is 0 or all its entries lie below tiny / eps (1e-31 in
    float32, 1e-292 in float64), where the direction's derivative would overflow.

    Args:
      x: `[..., D]`.

    Returns:
      The pair `(norm, unit)` of shapes `[...]` and `[..., D]`, with `x = norm * unit`.
    """
    # A norm is homogeneous, so that the scale's own derivative cancels and need not be traced.
    scale = tf.stop_gradient(tf.reduce_max(tf.abs(x), axis=-1, keepdims=True))
    is_zero = scale < tiny(x.dtype) / epsilon(x.dtype)
    scale = tf.where(is_zero, tf.ones_like(scale), scale)
    scaled = tf.where(is_zero, tf.ones_like(x), x / scale)
    scaled_norm = tf.sqrt(tf.reduce_sum(tf.square(scaled), axis=-1, keepdims=True))
    unit = tf.where(is_zero, tf.zeros_like(x), scaled / scaled_norm)
    norm = tf.where(is_zero, tf.zeros_like(scale), scale * scaled_norm)
    return norm[..., 0], unit


def softplus(x: tf.Tensor) -> tf.Tensor:
    """log(1 + e^x) to a few units in the last place, down to underflow, with its derivative."""
    large = 20.0  # e^-20 is the whole correction there, to float64's last place
    return tf.where(
        x < large,
        tf.math.log1p(tf.exp(tf.minimum(x, large))),
        x + tf.exp(-tf.maximum(x, large)),
    )


def unit_softplus(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """softplus(x + log(e - 1)), the positive function that is 1 at 0, three ways.

    Args:
      x: Any real tensor.

    Returns:
      The value s, its logarithm (right where s underflows too) and s - 1 (right where s is near 1).
    """
    shifted = x + math.log(math.e - 1.0)
    value = softplus(shifted)
    near = tf.clip_by_value(x, -1.0, 1.0)
    excess = tf.math.log1p((1.0 - math.exp(-1.0)) * tf.math.expm1(near))
    is_near = tf.abs(x) < 1.0
    value = tf.where(is_near, 1.0 + excess, value)
    is_linear = shifted < math.log(epsilon(x.dtype))  # there log(s) = shifted to the last place
    log_value = tf.where(
        is_linear, shifted, tf.math.log(tf.where(is_linear, tf.ones_like(value), value))
    )
    return value, log_value, tf.where(is_near, excess, value - 1.0)


def shifted_softplus(x: tf.Tensor, at_zero: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """softplus(x + softplus^-1(a)), the positive function that is a at x = 0, two ways.

    With q = 1 - e^-a the value is softplus(x + a + log q), and the excess over a is

        log(e^-a + q e^x) = log1p(q (e^x - 1)).

    Args:
      x: Any real tensor.
      at_zero: The value a > 0, broadcasting against `x`.

    Returns:
      The value, and the value minus a.
    """
    q = -tf.math.expm1(-at_zero)
    log_q = tf.math.log(q)
    growth = q * tf.math.expm1(tf.minimum(x, 1.0))
    is_near = (growth > -0.5) & (x < 1.0)
    exponents = tf.stack([tf.zeros_like(x) - at_zero, x + log_q])
    excess = tf.where(
        is_near,
        tf.math.log1p(tf.where(is_near, growth, tf.zeros_like(growth))),
        tf.reduce_logsumexp(exponents, axis=0),
    )
    value = tf.where(excess > -0.5 * at_zero, at_zero + excess, softplus(x + at_zero + log_q))
    return value, excess
