"""Elementary functions that keep their relative accuracy, and finite gradients, at the edges.

The reparameterisations of the planar and the radial flow both have the shape

    softplus(x + softplus^-1(a)),    a > 0, so that x = 0 gives a,

and both need this positive quantity itself and its excess over a, each to a few units in the last
place wherever the other is large.
"""

from __future__ import annotations

import functools
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


def quotient(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """x / y, whose derivatives overflow only where they are too large themselves.

    The derivative in y is -x / y^2 times what comes from above, and TensorFlow divides x by y twice
    before it multiplies: 0 times infinity where y is 1e-20 in float32. Here x and y are scaled by
    1 / y first, a constant, and the second division comes last.
    """
    # A product: two divisions are to XLA one by a product, which underflows.
    unit = tf.stop_gradient(1.0 / y)
    return (x * unit) / (y * unit)


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
      The value s, its logarithm (right where s underflows too) and (s - 1) / x - 1, how far s - 1
      is from x in units of x (-1 / e at x = 0).
    """
    shifted = x + math.log(math.e - 1.0)
    near = tf.clip_by_value(x, -1.0, 1.0)
    excess = tf.math.log1p(_LOGISTIC * tf.math.expm1(near))
    value = tf.where(tf.abs(x) < 1.0, 1.0 + excess, softplus(shifted))
    excess = tf.where(tf.abs(x) < 1.0, excess, value - 1.0)
    return value, _log_of_softplus(shifted, value), _relative_change(x, excess)


_LOGISTIC = 1.0 - math.exp(-1.0)  # the derivative of softplus(x + log(e - 1)) at 0


def _relative_change(x: tf.Tensor, excess: tf.Tensor) -> tf.Tensor:
    """(excess - x) / x, by its Taylor series around 0, where the quotient's derivative cancels."""
    limit = 0.1  # 3% of the radius of convergence: twelve terms reach float64's last place
    is_near = tf.abs(x) < limit
    series = tf.zeros_like(x)
    for coefficient in reversed(_logistic_mean_coefficients(12)):
        series = series * tf.clip_by_value(x, -limit, limit) + coefficient
    far = tf.where(is_near, tf.ones_like(x), x)
    return tf.where(is_near, series - 1.0, (excess - far) / far)


@functools.cache
def _logistic_mean_coefficients(count: int) -> tuple[float, ...]:
    """Taylor coefficients of (s - 1) / x, the mean of the logistic function from log(e - 1) on.

    Each derivative of the logistic function is a polynomial in it, by p' = p (1 - p).
    """
    polynomial = np.polynomial.Polynomial([0.0, 1.0])
    coefficients = []
    for order in range(count):
        coefficients.append(float(polynomial(_LOGISTIC)) / math.factorial(order + 1))
        polynomial = polynomial.deriv() * np.polynomial.Polynomial([0.0, 1.0, -1.0])
    return tuple(coefficients)


def shifted_softplus(x: tf.Tensor, at_zero: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """softplus(x + softplus^-1(a)), the positive function that is a at x = 0, three ways.

    With q = 1 - e^-a the value is softplus(x + a + log q), and the excess over a is

        log(e^-a + q e^x) = log1p(q (e^x - 1)).

    Args:
      x: Any real tensor.
      at_zero: The value a > 0, broadcasting against `x`.

    Returns:
      The value, the value minus a, and the value's logarithm (right where the value underflows).
    """
    q = -tf.math.expm1(-at_zero)
    log_q = tf.math.log(q)
    growth = q * tf.math.expm1(tf.minimum(x, 1.0))
    is_near = (growth > -0.5) & (x < 1.0)
    near = tf.math.log1p(tf.where(is_near, growth, tf.zeros_like(growth)))
    far = tf.reduce_logsumexp(tf.stack([tf.zeros_like(x) - at_zero, x + log_q]), axis=0)
    excess = tf.where(is_near, near, far)
    shifted = x + at_zero + log_q
    value = tf.where(excess > -0.5 * at_zero, at_zero + excess, softplus(shifted))
    return value, excess, _log_of_softplus(shifted, value)


def _log_of_softplus(shifted: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """log(softplus(shifted)), with `value` = softplus(shifted)."""
    is_linear = shifted < math.log(epsilon(value.dtype))  # there it is shifted to the last place
    return tf.where(
        is_linear, shifted, tf.math.log(tf.where(is_linear, tf.ones_like(value), value))
    )


def with_diagonal(matrix: tf.Tensor, diagonal: tf.Tensor) -> tf.Tensor:
    """`matrix` with another diagonal.

    As `tf.linalg.set_diag`, but batch dimensions broadcast, and XLA compiles the gradient also when
    one of them is unknown at tracing, which it refuses there.

    Args:
      matrix: `[..., N, N]`.
      diagonal: `[..., N]`.
    """
    here = tf.eye(tf.shape(matrix)[-1], dtype=matrix.dtype) > 0.0
    return tf.where(here, tf.linalg.diag(diagonal), matrix)
