"""What a training run looks like inside: one callback, once an epoch."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae.bijectors import inverse_and_log_det
from tfp_flowvae.data import to_unit
from tfp_flowvae.models import FlowVAE

# Burda et al. (2016), section 5.1: a unit whose posterior mean varies less is not used.
ACTIVE_VARIANCE = 0.01
_FEWEST, _MOST, _SHARE = 32, 1000, 50
_PAIRED = 32


class Diagnostics(keras.callbacks.Callback):
    """Adds to each epoch's logs, in nats, from a few validation images and one fixed seed.

    - the mean and, as `_std`, the standard deviation over images and draws of `log_base`
      (log q0(z0)), `log_posterior` (log qK(zK)), `log_det` (their sum over the flow) and
      `log_prior` (log p(zK)): figures 3 and 4 of Henrion & Welleck; the reconstruction term and the
      KL are in the logs already, as `log_likelihood` and `kl`;
    - `active_units`: latent dimensions with Var_x(E[z|x]) > 0.01 (Burda et al. 2016), from the
      covariance of two draws for each image;
    - `mutual_information`: an estimate of I(x; z) under q, E[log q(z|x) - log mean_j q(z|x_j)] over
      M = 32 images; it cannot exceed log M = 3.5;
    - `base_kl_0` ...: KL of each dimension of the posterior's base, marginally, from N(0, 1). With
      no flow and a standard prior these are the KLs of the latent dimensions, and sum to `kl`.

    It looks at one image for every 50 of training (at least 32, at most 1000), which keeps it
    within a few percent of an epoch.

    Args:
      images: Validation images, `[N, H, W, C]`, binarised already.
      levels: Their number of grey levels, or None.
      train_size: Number of training images.
      seed: Of the draws.
      mutual_information: Whether to estimate it. It takes the posterior's density, which through
        an IAF and on a small data set would take longer than the rest of the epoch allows.
    """

    def __init__(
        self,
        images: np.ndarray,
        levels: int | None,
        train_size: int,
        seed: int,
        mutual_information: bool = True,
    ) -> None:
        super().__init__()
        count = min(max(train_size // _SHARE, _FEWEST), _MOST)
        self._images = to_unit(images[:count], levels)
        self._seed, self._mutual_information = seed, mutual_information
        self._measure: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Makes the function that measures."""
        model, images = self.model, tf.constant(self._images)
        seed = tf.constant([self._seed, 0], tf.int32)
        full = self._mutual_information
        self._measure = tf.function(lambda: measure(model, images, seed, full), autograph=False)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures; callbacks that come later find the values in the logs."""
        scalars, by_dimension = self._measure()
        if logs is not None:
            logs.update({name: float(value) for name, value in scalars.items()})
            logs.update({f"base_kl_{i}": float(v) for i, v in enumerate(by_dimension.numpy())})


def measure(
    model: FlowVAE, x: tf.Tensor, seed: tf.Tensor, mutual_information: bool = True
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """The figures of `Diagnostics` for images `[N, H, W, C]`: scalars, and one each dimension."""
    draw = model.draw(x, 2, seed)
    log_densities = {
        "log_base": draw.log_base,
        "log_posterior": draw.log_prob,
        "log_det": draw.log_det,
        "log_prior": model.prior_layer.log_prob(draw.z),
    }
    scalars = {}
    for name, values in log_densities.items():
        scalars[name] = tf.reduce_mean(values)
        scalars[f"{name}_std"] = tf.math.reduce_std(values)
    scalars["active_units"] = tf.reduce_sum(
        tf.cast(_variance_of_mean(draw.z) > ACTIVE_VARIANCE, tf.float32)
    )
    if mutual_information:
        scalars["mutual_information"] = _mutual_information(model, x[:_PAIRED], draw.z[0, :_PAIRED])
    return scalars, tf.reduce_mean(_base_kl(draw.distribution.distribution), axis=0)


def _variance_of_mean(z: tf.Tensor) -> tf.Tensor:
    """Var_x(E[z|x]) `[D]`, from two draws `[2, N, D]`: Cov(z1, z2), as they share x alone."""
    centred = z - tf.reduce_mean(z, axis=1, keepdims=True)
    return tf.reduce_mean(centred[0] * centred[1], axis=0)


def _mutual_information(model: FlowVAE, x: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """E_i[log q(z_i|x_i) - log mean_j q(z_i|x_j)] of images `[M, ...]` and their z `[M, D]`."""
    posterior, count = model.posterior(x), tf.shape(z)[0]
    everyone = tf.tile(z[:, tf.newaxis], [1, count, 1])
    noise, log_det = inverse_and_log_det(posterior.bijector, everyone)
    log_density = posterior.distribution.log_prob(noise) + log_det
    own = tf.linalg.diag_part(log_density)
    mean = tf.reduce_logsumexp(log_density, axis=1) - tf.math.log(tf.cast(count, z.dtype))
    return tf.reduce_mean(own - mean)


def _base_kl(base: tfd.Distribution) -> tf.Tensor:
    """KL of each marginal of the base from N(0, 1), `[N, D]`."""
    mean, variance = base.mean(), base.variance()
    return 0.5 * (tf.square(mean) + variance - 1.0 - tf.math.log(variance))
