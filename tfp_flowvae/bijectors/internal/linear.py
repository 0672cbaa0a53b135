"""Products with matrices and triangular solves, for one matrix for all points or one for each."""

from __future__ import annotations

import tensorflow as tf


def multiply(matrix: tf.Tensor, x: tf.Tensor, *, adjoint: bool = False) -> tf.Tensor:
    """Returns `matrix`, `[..., M, N]`, times `x`, or its transpose times `x` with `adjoint`."""
    if matrix.shape.rank == 2:  # one matrix for all points: one product of matrices
        return tf.tensordot(x, matrix, axes=[[-1], [0 if adjoint else 1]])
    return tf.linalg.matvec(matrix, x, transpose_a=adjoint)


def solve_triangular(
    matrix: tf.Tensor, x: tf.Tensor, *, lower: bool, adjoint: bool = False
) -> tf.Tensor:
    """Returns the solution v of `matrix` v = `x`, or of its transpose with `adjoint`.

    Args:
      matrix: `[..., M, M]`, of which only the `lower` or the upper triangle is read.
      x: `[..., M]`.
      lower: Which triangle.
      adjoint: Whether to solve with the transposed matrix.

    Returns:
      `[..., M]`.
    """
    if matrix.shape.rank == 2:
        points = tf.transpose(tf.reshape(x, [-1, tf.shape(x)[-1]]))
        solved = tf.linalg.triangular_solve(matrix, points, lower=lower, adjoint=adjoint)
        solved = tf.reshape(tf.transpose(solved), tf.shape(x))
        return tf.ensure_shape(solved, x.shape)
    column = x[..., tf.newaxis]
    return tf.linalg.triangular_solve(matrix, column, lower=lower, adjoint=adjoint)[..., 0]
