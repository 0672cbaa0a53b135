"""The orthonormal factor of a matrix, for every matrix, with derivatives that stay finite.

A = Q R with Q^T Q = I and R upper triangular with a positive diagonal is unique where the columns
of A are independent. With Q- the gradient in Q, and "low" the strictly lower triangle,

    A- = (Q low(Q^T Q- - Q-^T Q) + Q- - Q Q^T Q-) R^-T

(Walter & Lehmann 2010; the terms in R- are absent, as only Q is asked for). `tf.linalg.qr` has this
derivative too, but not for unknown shapes, not for the positive diagonal, and it divides by zero
where the columns are dependent.

References:
  Sebastian F. Walter and Lutz Lehmann. Algorithmic differentiation of linear algebra functions with
  application in optimum experimental design. 2010. https://arxiv.org/abs/1001.1654
"""

from __future__ import annotations

import tensorflow as tf

from tfp_flowvae.bijectors.internal import numerics


def orthonormal_columns(matrix: tf.Tensor) -> tf.Tensor:
    """Returns Q of the decomposition above, to a few eps orthonormal for every A.

    Where the columns of A are linearly dependent to rounding, Q is still orthonormal, but not
    unique, and its gradient is 0 by definition.

    Args:
      matrix: A, `[..., D, M]` with M <= D.

    Returns:
      Q, `[..., D, M]`, with derivatives of every order.
    """
    # Q does not change with the lengths of the columns: scaled, their squares do not overflow.
    scale = tf.stop_gradient(tf.reduce_max(tf.abs(matrix), axis=-2, keepdims=True))
    scale = tf.where(tf.equal(scale, 0.0), tf.ones_like(scale), scale)
    scaled = matrix / scale
    q, r = tf.linalg.qr(tf.stop_gradient(scaled))
    diagonal = tf.linalg.diag_part(r)
    flip = tf.where(diagonal < 0.0, -tf.ones_like(diagonal), tf.ones_like(diagonal))
    size = tf.abs(diagonal)
    rows = tf.cast(tf.shape(matrix)[-2], matrix.dtype)
    threshold = rows * numerics.epsilon(matrix.dtype)
    is_dependent = tf.reduce_any(size <= threshold, axis=-1)[..., tf.newaxis, tf.newaxis]
    return _attach_gradient(q * flip[..., tf.newaxis, :], is_dependent, scaled)


def _attach_gradient(q: tf.Tensor, is_dependent: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Returns `q` with its derivatives in `matrix`, 0 where the columns are dependent."""

    @tf.custom_gradient
    def attached(matrix: tf.Tensor) -> tuple:
        def grad(upstream: tf.Tensor) -> tf.Tensor:
            unitary = attached(matrix)  # again, so that this gradient has its own derivatives
            r = tf.matmul(unitary, matrix, transpose_a=True)
            r = tf.where(is_dependent, tf.eye(tf.shape(r)[-1], dtype=r.dtype), r)
            inner = tf.matmul(unitary, upstream, transpose_a=True)
            low = tf.linalg.band_part(inner - tf.linalg.matrix_transpose(inner), -1, 0)
            right = tf.matmul(unitary, low - inner) + upstream
            solved = tf.linalg.triangular_solve(r, tf.linalg.matrix_transpose(right), lower=False)
            result = tf.linalg.matrix_transpose(solved)
            return tf.where(is_dependent, tf.zeros_like(result), result)

        return tf.identity(q), grad

    return attached(matrix)
