"""A density on [0, 1] with the shape of the cross entropy."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae.likelihoods.base import DensityLikelihood

# Taylor coefficients, in powers of l^2, of log(sinh(l / 2) / (l / 2)) / l^2 and of its derivative
# over l. Up to |l| = 1 what is left out is below 3e-9.
_LOG_NORMALIZER = (1 / 24, -1 / 2880, 1 / 181440, -1 / 9676800)
_MEAN = (1 / 12, -1 / 720, 1 / 30240, -1 / 1209600)
_SERIES_UP_TO = 1.0


@keras.saving.register_keras_serializable(package="tfp_flowvae")
@dataclass(frozen=True)
class ContinuousBernoulli(DensityLikelihood):
    """Independent continuous Bernoulli pixels; the output `[..., H, W, C]` is the parameter l.

    The Bernoulli's cross entropy is no log-density on [0, 1]; divided by its integral it is
    (Loaiza-Ganem & Cunningham 2019, https://arxiv.org/abs/1907.06845, eq. 6-8). In l = logit of
    their lambda that is a truncated exponential,

        p(x) = e^(l x) / A(l),    A(l) = (e^l - 1) / l,
        E[x] = 1 / (1 - e^-l) - 1 / l,

    both with a removable singularity at l = 0. `mean` is E[x], not sigmoid(l): l = 5 has the mean
    0.81 where sigmoid(5) = 0.99.

    With `levels=None` a pixel of exactly 0 or 1 has a density without bound: its l runs away.

    Example:
      >>> ContinuousBernoulli(levels=256).output_channels(3)  # for RGB images
      3

    Attributes:
      levels: See `DensityLikelihood`.
    """

    def distribution(self, output: tf.Tensor) -> tfd.Distribution:
        """The density of prepared images, batch shape `[...]` and event shape `[H, W, C]`."""
        return tfd.Independent(
            tfd.ContinuousBernoulli(logits=tf.cast(output, tf.float32)),
            reinterpreted_batch_ndims=3,
        )

    def pixel_log_density(self, output: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """l x - log A(l).

        Near 0, log A = l / 2 + log(sinh(l / 2) / (l / 2)), by its series. Elsewhere, with t = |l|,
        log A = max(l, 0) + log((1 - e^-t) / t), where nothing overflows or cancels.
        """
        is_near, far = _split(output)
        square = tf.where(is_near, tf.square(output), 0.0)
        near_density = (x - 0.5) * output - square * _polynomial(_LOG_NORMALIZER, square)
        above = tf.cast(output > 0.0, tf.float32)
        log_rest = tf.math.log(-tf.math.expm1(-far) / far)
        return tf.where(is_near, near_density, (x - above) * output - log_rest)

    def pixel_mean(self, output: tf.Tensor) -> tf.Tensor:
        """E[x]; for l < 0, 1 / t - e^-t / (1 - e^-t) with t = -l, and 1 minus that above."""
        is_near, far = _split(output)
        square = tf.where(is_near, tf.square(output), 0.0)
        near_mean = 0.5 + output * _polynomial(_MEAN, square)
        far_mean = 1.0 / far + tf.exp(-far) / tf.math.expm1(-far)
        far_mean = tf.where(output > 0.0, 1.0 - far_mean, far_mean)
        return tf.where(is_near, near_mean, far_mean)


def _split(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether |l| is in the series' range, and |l| beyond it (1 within it, to avoid 0 / 0)."""
    size = tf.abs(logits)
    is_near = size < _SERIES_UP_TO
    return is_near, tf.where(is_near, 1.0, size)


def _polynomial(coefficients: tuple[float, ...], x: tf.Tensor) -> tf.Tensor:
    total = tf.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total
