"""From intensities between 0 and 1 to all real numbers, where flows work.

Dinh et al. (2017, section 4.1) map each number x of an image by

    y = logit(u),   u = alpha + (1 - 2 alpha) x,   logit(u) = log u - log(1 - u),

    log |dy/dx| = log(1 - 2 alpha) - log u - log(1 - u) .

With alpha > 0 the ends of [0, 1] have finite images and slopes.

References:
  Laurent Dinh, Jascha Sohl-Dickstein, and Samy Bengio. Density Estimation using Real NVP. ICLR
  2017. https://arxiv.org/abs/1605.08803
"""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb


class Logit(tfb.AutoCompositeTensorBijector):
    """y = logit(alpha + (1 - 2 alpha) x), elementwise, from [0, 1] to the real numbers.

    Example:
      >>> Logit().forward([0.0, 0.5, 1.0])
      <tf.Tensor: shape=(3,), dtype=float32, numpy=array([-2.944439,  0.      ,  2.944439], ...

    Args:
      alpha: How far u stays from 0 and 1: at least 0 and below 0.5.
      validate_args: Whether to check that x is between 0 and 1.
      name: The name of this bijector and the scope of its operations.

    Raises:
      ValueError: If `alpha` is out of its range.
    """

    def __init__(
        self, alpha: float = 0.05, validate_args: bool = False, name: str = "logit"
    ) -> None:
        parameters = dict(locals())
        if not 0.0 <= alpha < 0.5:
            raise ValueError(f"Logit takes an alpha from 0 to below 0.5. Received: {alpha=}.")
        with tf.name_scope(name) as name:
            self._alpha = float(alpha)
            super().__init__(
                forward_min_event_ndims=0,
                validate_args=validate_args,
                parameters=parameters,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        return {}

    @property
    def alpha(self) -> float:
        """How far u stays from 0 and 1."""
        return self._alpha

    def _forward(self, x: tf.Tensor) -> tf.Tensor:
        low, high = self._logs(x)
        return low - high

    def _inverse(self, y: tf.Tensor) -> tf.Tensor:
        return (tf.sigmoid(y) - self.alpha) / (1.0 - 2.0 * self.alpha)

    def _forward_log_det_jacobian(self, x: tf.Tensor) -> tf.Tensor:
        low, high = self._logs(x)
        return math.log1p(-2.0 * self.alpha) - low - high

    def _inverse_log_det_jacobian(self, y: tf.Tensor) -> tf.Tensor:
        logs = tf.math.log_sigmoid(y) + tf.math.log_sigmoid(-y)
        return logs - math.log1p(-2.0 * self.alpha)

    def _logs(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """log u and log(1 - u), each exact to rounding: 1 - u is not a difference from 1."""
        if self.validate_args:
            message = "Logit takes numbers from 0 to 1."
            checks = [
                tf.debugging.assert_non_negative(x, message),
                tf.debugging.assert_less_equal(x, tf.ones_like(x), message),
            ]
            with tf.control_dependencies([check for check in checks if check is not None]):
                x = tf.identity(x)
        slope = 1.0 - 2.0 * self.alpha
        return tf.math.log(self.alpha + slope * x), tf.math.log(self.alpha + slope * (1.0 - x))
