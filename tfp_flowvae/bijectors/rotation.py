"""A rotation or reflection by an explicit orthogonal matrix: log-det exactly 0.

    f(z) = Q z,        f^-1(y) = Q^T y,        Q^T Q = I .

The matrix is used as it is given. `HouseholderFlow` has one that is orthogonal by construction and
can be trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import numerics, validate
from tfp_flowvae.bijectors.internal.linear import multiply
from tfp_flowvae.bijectors.internal.parametric import ParametricBijector, parameter


class Rotation(ParametricBijector):
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

    _AXES: ClassVar[Mapping[str, str]] = {"matrix": "DD"}
    matrix = parameter("matrix", "The orthogonal matrix Q, as it was given.")

    def __init__(
        self, matrix: TensorLike, validate_args: bool = False, name: str = "rotation"
    ) -> None:
        super().__init__(dict(locals()), is_constant_jacobian=True)

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        def unconstrained() -> tfb.Bijector:
            raise NotImplementedError(
                "Rotation has no unconstrained parameters to train; HouseholderFlow has."
            )

        properties = super()._parameter_properties(dtype)["matrix"]
        return {"matrix": properties._replace(default_constraining_bijector_fn=unconstrained)}

    def _parameter_control_dependencies(self, is_init: bool) -> list:
        if not self.validate_args:
            return []

        def error(matrix: tf.Tensor) -> tf.Tensor:
            product = tf.matmul(matrix, matrix, transpose_a=True)
            return tf.reduce_max(tf.abs(product - tf.eye(matrix.shape[-1], dtype=matrix.dtype)))

        allowed = numerics.epsilon(self.dtype) ** 0.5

        def problem(matrix: np.ndarray) -> str:
            off = error(tf.constant(matrix)).numpy()
            return "" if off < allowed else f"one whose Q^T Q is off by {off:.3g}"  # NaN too

        def assertion(matrix: tf.Tensor, message: str) -> tf.Operation:
            limit = tf.constant(allowed, matrix.dtype)
            return tf.debugging.assert_less(error(matrix), limit, message=message)

        message = f"{type(self).__name__} takes an orthogonal matrix"
        return validate.assertions(self.matrix, is_init, message, problem, assertion)

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        y = multiply(tf.convert_to_tensor(self.matrix), self._checked(x))
        return y, tf.zeros_like(y[..., 0])

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = multiply(tf.convert_to_tensor(self.matrix), self._checked(y), adjoint=True)
        return x, tf.zeros_like(x[..., 0])
