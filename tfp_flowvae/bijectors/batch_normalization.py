"""Batch normalisation as a bijector, around a Keras 3 layer.

With the mean m and the variance v of each of the last dimension's D channels, and the layer's
scale gamma, shift beta and epsilon,

    inverse:  x = gamma (y - m) / sqrt(v + epsilon) + beta,
    log |det dx/dy| = sum_d log gamma_d - 1/2 sum_d log(v_d + epsilon).

In training the inverse takes m and v from the batch, and moves the layer's moving averages towards
them. In inference, and in the forward direction, m and v are the moving averages.

References:
  Sergey Ioffe and Christian Szegedy. Batch Normalization: Accelerating Deep Network Training by
  Reducing Internal Covariate Shift. ICML 2015. https://arxiv.org/abs/1502.03167
  George Papamakarios, Theo Pavlakou, and Iain Murray. Masked Autoregressive Flow for Density
  Estimation. NeurIPS 2017. https://arxiv.org/abs/1705.07057
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import _compat

if TYPE_CHECKING:
    import keras


class BatchNormalization(tfb.Bijector):
    """`tfb.BatchNormalization` of TFP 0.25 around a Keras 3 layer.

    As in Papamakarios et al. (2017), the log-det in training leaves out that the batch's mean and
    variance depend on its points. In training the two directions are not inverses of each other.

    Example:
      >>> norm = BatchNormalization()
      >>> x = norm.inverse(tf.random.normal([100, 3]))  # by the batch's mean and variance
      >>> y = norm.forward(x)  # by the moving averages

    Args:
      batchnorm_layer: A `keras.layers.BatchNormalization`, or None for one whose scale is kept
        positive by a constraint. It is the attribute `batchnorm`; a Keras model trains it if it is
        one of the model's attributes.
      training: Whether the inverse takes the mean and variance of the batch, and updates the moving
        averages. A layer with `trainable=False` does neither.
      validate_args: Whether to check arguments at run time.
      name: The name of this bijector and the scope of its operations.

    Raises:
      ValueError: If the layer is no Keras 3 batch norm of the last axis without renorm.
      TypeError: If points have another dtype than the layer computes in.
    """

    def __init__(
        self,
        batchnorm_layer: keras.layers.BatchNormalization | None = None,
        training: bool = True,
        validate_args: bool = False,
        name: str = "batch_normalization",
    ) -> None:
        parameters = dict(locals())
        # Imported here: the other bijectors do without Keras.
        from tfp_flowvae.bijectors.internal import keras_batch_norm

        with tf.name_scope(name) as name:
            self.batchnorm = keras_batch_norm.checked_layer(batchnorm_layer)
            self._batch_variance = keras_batch_norm.batch_variance
            self._training = training
            self._tf_variables = _compat.LiveVariables(self.batchnorm)  # for trainable_variables
            super().__init__(
                forward_min_event_ndims=1,
                is_constant_jacobian=not training,
                validate_args=validate_args,
                parameters=parameters,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype: tf.DType) -> dict[str, Any]:
        return {}

    def _ensure_built(self, points: tf.Tensor) -> None:
        layer = self.batchnorm
        if points.dtype != layer.compute_dtype:
            raise TypeError(
                f"This BatchNormalization computes in {layer.compute_dtype}: give it "
                f"batchnorm_layer=keras.layers.BatchNormalization(dtype='{points.dtype.name}'). "
                f"Received: points of dtype {points.dtype.name}."
            )
        if not layer.built:
            layer.build((None, points.shape[-1]))

    @property
    def _uses_batch(self) -> bool:
        return self._training and self.batchnorm.trainable

    def _forward(self, x: tf.Tensor) -> tf.Tensor:
        self._ensure_built(x)
        layer = self.batchnorm
        rescale = tf.sqrt(_compat.live(layer.moving_variance) + layer.epsilon)
        if layer.center:
            x -= _compat.live(layer.beta)
        if layer.scale:
            rescale /= _compat.live(layer.gamma)
        return x * rescale + _compat.live(layer.moving_mean)

    def _inverse(self, y: tf.Tensor) -> tf.Tensor:
        self._ensure_built(y)
        # The layer takes one rank only, that which it was built for.
        ones = [1] * (self.batchnorm.input_spec.ndim - 2)
        points = tf.reshape(y, [-1, *ones, y.shape[-1]])
        x = tf.reshape(self.batchnorm(points, training=self._training), tf.shape(y))
        return tf.ensure_shape(x, y.shape)

    def _forward_log_det_jacobian(self, x: tf.Tensor) -> tf.Tensor:
        self._ensure_built(x)
        return -self._inverse_log_det(_compat.live(self.batchnorm.moving_variance))

    def _inverse_log_det_jacobian(self, y: tf.Tensor) -> tf.Tensor:
        self._ensure_built(y)
        if not self._uses_batch:
            return self._inverse_log_det(_compat.live(self.batchnorm.moving_variance))
        points = tf.reshape(y, [-1, y.shape[-1]])
        return self._inverse_log_det(self._batch_variance(self.batchnorm, points))

    def _inverse_log_det(self, variance: tf.Tensor) -> tf.Tensor:
        """The sum over the channels, a scalar: it is the same for all points."""
        log_det = -0.5 * tf.reduce_sum(tf.math.log(variance + self.batchnorm.epsilon))
        if self.batchnorm.scale:
            log_det += tf.reduce_sum(tf.math.log(_compat.live(self.batchnorm.gamma)))
        return log_det
