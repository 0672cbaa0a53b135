"""Gaussian pixels, each with a scale of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae.likelihoods.base import DensityLikelihood

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


@keras.saving.register_keras_serializable(package="tfp_flowvae")
@dataclass(frozen=True)
class Gaussian(DensityLikelihood):
    """Independent Gaussian pixels with mean m and scale s from the output `[..., H, W, 2 C]`.

    The first C channels of the output are a, the others r:

        m = sigmoid(a),    s = s_min + softplus(r),    s_min = 1 / (L sqrt(12))

    The mean passes through a sigmoid, not a clip, because a clip has no gradient from where a
    pixel is off the range. s_min is the standard deviation of the dequantising noise: on average
    over the noise no smaller scale is better. Without dequantisation s_min, with L = 256, bounds
    the density of a constant pixel, and log-densities depend on it.

    The mass that a Gaussian has outside [0, 1] is lost, so `log_prob` remains a lower bound.

    Example:
      >>> Gaussian(levels=256).output_channels(3)  # for RGB images
      6

    Attributes:
      levels: L, see `DensityLikelihood`.
    """

    @property
    def smallest_scale(self) -> float:
        """s_min."""
        return 1.0 / ((self.levels or 256) * math.sqrt(12.0))

    def output_channels(self, channels: int) -> int:
        """2 C: a mean and a scale for each channel."""
        return 2 * channels

    def distribution(self, output: tf.Tensor) -> tfd.Distribution:
        """The density of prepared images, batch shape `[...]` and event shape `[H, W, C]`."""
        return tfd.Independent(
            tfd.Normal(*self._mean_and_scale(output)), reinterpreted_batch_ndims=3
        )

    def pixel_log_density(self, output: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """-((x - m) / s)^2 / 2 - log s - log(2 pi) / 2."""
        mean, scale = self._mean_and_scale(output)
        return -0.5 * tf.square((x - mean) / scale) - tf.math.log(scale) - _HALF_LOG_2PI

    def pixel_mean(self, output: tf.Tensor) -> tf.Tensor:
        """m."""
        return self._mean_and_scale(output)[0]

    def _mean_and_scale(self, output: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        channels = self.image_channels(output.shape[-1])
        output = tf.cast(output, tf.float32)
        raw_mean, raw_scale = output[..., :channels], output[..., channels:]
        return tf.sigmoid(raw_mean), self.smallest_scale + tf.math.softplus(raw_scale)
