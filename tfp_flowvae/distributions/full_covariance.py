"""A normal distribution with full covariance, for batches of any size."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd
from tensorflow_probability import util as tfp_util


class FullCovarianceNormal(tfd.Distribution):
    """N(loc, L L^T), as `tfd.MultivariateNormalTriL`, which in a graph cannot sample a batch of 0.

    `from_noise` gives z and log q(z) without a triangular solve:
    log q = log N(e; 0, I) - sum log L_ii.

    Example:
      >>> normal = FullCovarianceNormal(tf.zeros([2]), tf.linalg.diag([1.0, 2.0]))
      >>> normal.log_prob(tf.zeros([5, 2])).shape
      TensorShape([5])

    Args:
      loc: `[..., D]`.
      scale_tril: L, `[..., D, D]`, lower triangular with a positive diagonal.
      name: Name of the distribution.
    """

    def __init__(
        self, loc: tf.Tensor, scale_tril: tf.Tensor, name: str = "FullCovarianceNormal"
    ) -> None:
        parameters = dict(locals())
        self.loc, self.scale_tril = loc, scale_tril
        super().__init__(
            dtype=loc.dtype,
            reparameterization_type=tfd.FULLY_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
            name=name,
        )

    @classmethod
    def _parameter_properties(cls, dtype: Any, num_classes: int | None = None) -> dict[str, Any]:
        return {
            "loc": tfp_util.ParameterProperties(event_ndims=1),
            "scale_tril": tfp_util.ParameterProperties(
                event_ndims=2, default_constraining_bijector_fn=lambda: tfb.FillScaleTriL()
            ),
        }

    def _event_shape(self) -> tf.TensorShape:
        return self.loc.shape[-1:]

    def _event_shape_tensor(self) -> tf.Tensor:
        return tf.shape(self.loc)[-1:]

    def from_noise(self, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """z = loc + L e `[..., D]` and log q(z) `[...]` in nats, from e ~ N(0, I) `[..., D]`."""
        z = self.loc + tf.linalg.matvec(self.scale_tril, noise)
        return z, self._log_normal(noise) - self._log_det()

    def _sample_n(self, n: tf.Tensor, seed: Any = None) -> tf.Tensor:
        shape = tf.concat([[n], tf.shape(self.loc)], axis=0)
        noise = tfd.Normal(tf.zeros([], self.dtype), 1.0).sample(shape, seed=seed)
        return self.from_noise(noise)[0]

    def _log_prob(self, z: tf.Tensor) -> tf.Tensor:
        # L^-1 once for each of the batch, however many z there are.
        identity = tf.eye(
            tf.shape(self.loc)[-1], batch_shape=tf.shape(self.loc)[:-1], dtype=self.dtype
        )
        inverse = tf.linalg.triangular_solve(self.scale_tril, identity)
        noise = tf.linalg.matvec(inverse, z - self.loc)
        return self._log_normal(noise) - self._log_det()

    def _log_normal(self, noise: tf.Tensor) -> tf.Tensor:
        constant = 0.5 * np.log(2 * np.pi)
        return -tf.reduce_sum(0.5 * tf.square(noise) + constant, axis=-1)

    def _log_det(self) -> tf.Tensor:
        return tf.reduce_sum(tf.math.log(tf.linalg.diag_part(self.scale_tril)), axis=-1)

    def _mean(self) -> tf.Tensor:
        return tf.identity(self.loc)

    def _covariance(self) -> tf.Tensor:
        return tf.linalg.matmul(self.scale_tril, self.scale_tril, transpose_b=True)

    def _variance(self) -> tf.Tensor:
        return tf.reduce_sum(tf.square(self.scale_tril), axis=-1)
