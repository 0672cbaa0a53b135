from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.bijectors import Rotation


def orthogonal(*shape, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal(shape))[0]


def test_it_is_the_matrix_product(rounding):
    matrix, x = orthogonal(3, 3), np.random.default_rng(1).standard_normal((4, 2, 3))
    rotation = Rotation(matrix, validate_args=True)
    y = rotation.forward(x)
    allowed = rounding(2 * 3, np.linalg.norm(x, axis=-1))  # sums of D terms, of either
    np.testing.assert_allclose(y, np.einsum("ij,...j->...i", matrix, x), **allowed)
    # The matrix itself is orthogonal to as much.
    allowed = rounding(4 * 3, np.linalg.norm(x, axis=-1))
    np.testing.assert_allclose(rotation.inverse(tf.identity(y)), x, **allowed)
    assert not np.any(rotation.forward_log_det_jacobian(x))


def test_batches(rounding):
    matrix, x = orthogonal(5, 2, 2), np.random.default_rng(1).standard_normal((4, 5, 2))
    rotation = Rotation(matrix)
    y, allowed = rotation.forward(x), rounding(2 * 2, np.linalg.norm(x, axis=-1))
    np.testing.assert_allclose(y, np.einsum("bij,sbj->sbi", matrix, x), **allowed)
    assert rotation.experimental_batch_shape() == [5]
    np.testing.assert_allclose(rotation[1].forward(x[:, 1]), y[:, 1], **allowed)


def test_errors():
    with pytest.raises(ValueError, match=r"matrix\.shape=\(2, 3\)"):
        Rotation(np.zeros((2, 3)))
    with pytest.raises(TypeError, match="int64"):
        Rotation(np.eye(2, dtype=np.int64))
    for matrix in (2 * np.eye(2), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match=r"orthogonal matrix\. Received"):
            Rotation(matrix, validate_args=True)
    variable = tf.Variable(np.eye(2))
    rotation = Rotation(variable, validate_args=True)
    variable.assign(2 * np.eye(2))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="orthogonal"):
        rotation.forward(np.ones(2))
    with pytest.raises(NotImplementedError, match="HouseholderFlow"):
        tfp.experimental.util.make_trainable(Rotation, batch_and_event_shape=[2])
