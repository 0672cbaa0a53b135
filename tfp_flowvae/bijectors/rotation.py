"""A rotation or reflection by an explicit orthogonal matrix: log-det exactly 0.

    f(z) = Q z,        f^-1(y) = Q^T y,        Q^T Q = I .

The matrix is taken at its word; for one that is orthogonal by construction and can be trained, see
`HouseholderFlow`.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import _compat
from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import numerics, validate
from tfp_flowvae.bijectors.joint import JointEvaluation

_AXES = {"matrix": "DD"}


class Rotation(JointEvaluation, tfb.AutoCompositeTensorBijector):
    """The orthogonal map f(z) = Q z.

    There is no map from unconstrained numbers to orthogonal matrices here, and so
    `tfp.experimental.util.make_trainable` refuses this class.

    Example:
      >>> rotation = Rotation([[0.0, -1.0], [1.0, 0.0]])
      >>> rotation.forward([1.0, 0.0])
      <tf.Tensor: shape=(2,), dtype=float32, numpy=array([0., 1.], dtype=float32)>

    Args:
      matrix: Q, `[..., D, D]`, orthogonal. Float32 or float64.
      validate_args: Whether to check that `matrix` is orthogonal, to sqrt(eps).
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If the dtype is not float32 or float64.
      ValueError: If `matrix` is not square, or `validate_args` finds that it is not orthogonal.
    """

    def __init__(
        self, matrix: TensorLike, validate_args: bool = False, name: str = "rotation"
    ) -> None:
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            tensors = validate.convert_parameters(type(self).__name__, _AXES, {"matrix": matrix})
            self._matrix = tensors["matrix"]
            super().__init__(
                forward_min_event_ndims=1,
                is_constant_jacobian=True,
                validate_args=validate_args,
                dtype=self._matrix.dtype,
                parameters=parameters,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        def unconstrained() -> tfb.Bijector:
            raise NotImplementedError(
                "Rotation has no unconstrained parameters to train; HouseholderFlow has."
            )

        properties = tfp.util.ParameterProperties(
            event_ndims=2,
            shape_fn=lambda shape: tf.concat([shape, shape[-1:]], axis=0),
            default_constraining_bijector_fn=unconstrained,
        )
        return {"matrix": properties}

    @property
    def matrix(self) -> tf.Tensor | tf.Variable:
        """The orthogonal matrix Q, as it was given."""
        return self._matrix

    def _parameter_control_dependencies(self, is_init: bool) -> list:
        if not self.validate_args or is_init == _compat.is_ref(self.matrix):
            return []
        matrix = tf.convert_to_tensor(self.matrix)
        product = tf.matmul(matrix, matrix, transpose_a=True)
        identity = tf.eye(matrix.shape[-1], dtype=matrix.dtype)
        error = tf.reduce_max(tf.abs(product - identity))
        allowed = tf.constant(numerics.epsilon(matrix.dtype) ** 0.5, matrix.dtype)
        message = "Rotation takes an orthogonal matrix"
        static = tf.get_static_value(error)
        if static is None:
            return [tf.debugging.assert_less(error, allowed, message=f"{message}.")]
        if not static < tf.get_static_value(allowed):  # NaN too
            raise ValueError(f"{message}. Received: one whose Q^T Q is off by {static:.3g}.")
        return []

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        y = self._times(x, transpose=False)
        return y, tf.zeros_like(y[..., 0])

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = self._times(y, transpose=True)
        return x, tf.zeros_like(x[..., 0])

    def _times(self, x: tf.Tensor, transpose: bool) -> tf.Tensor:
        x = validate.check_event(type(self).__name__, x, self.matrix.shape[-1:])
        matrix = tf.convert_to_tensor(self.matrix)
        if matrix.shape.rank == 2:  # one matrix for all points: one product
            return tf.tensordot(x, matrix, [[-1], [0 if transpose else 1]])
        return tf.linalg.matvec(matrix, x, transpose_a=transpose)
