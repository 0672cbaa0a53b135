"""Binary pixels."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae.likelihoods.base import Likelihood, check_pixels


@keras.saving.register_keras_serializable(package="tfp_flowvae")
@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Independent Bernoulli pixels; the decoder's output `[..., H, W, C]` is their logits.

    For pixels strictly between 0 and 1 `log_prob` is the cross entropy x log p + (1 - x)
    log(1 - p), no density: binarise the images for a true likelihood.

    Example:
      >>> Bernoulli().log_prob(tf.zeros([1, 8, 8, 1]), tf.ones([1, 8, 8, 1]))  # 64 log(1/2)
      <tf.Tensor: shape=(1,), dtype=float32, numpy=array([-44.36142], dtype=float32)>
    """

    discrete = True  # of binary images

    def distribution(self, output: tf.Tensor) -> tfd.Distribution:
        """p(x|z) with batch shape `[...]` and event shape `[H, W, C]`."""
        return tfd.Independent(
            tfd.Bernoulli(logits=output, dtype=output.dtype), reinterpreted_batch_ndims=3
        )

    def mean(self, output: tf.Tensor) -> tf.Tensor:
        """The probability of each pixel, `[..., H, W, C]`."""
        return tf.sigmoid(output)

    def log_prob(self, output: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """log p(x|z) in nats, `[...]`.

        x l - softplus(l), summed over the pixels in float32: one pass over the logits l, where
        `tfd.Bernoulli` takes several.
        """
        logits = tf.cast(output, tf.float32)
        return tf.reduce_sum(x * logits - tf.math.softplus(logits), axis=[-3, -2, -1])

    def check_data(self, images: np.ndarray, levels: int | None = None) -> None:
        """Refuses pixels outside [0, 1]."""
        check_pixels(self, images, levels)
