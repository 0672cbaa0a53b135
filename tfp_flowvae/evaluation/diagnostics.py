"""Diagnostics of a model in training: a callback that measures once per epoch."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae.bijectors import inverse_and_log_det
from tfp_flowvae.data import to_unit
from tfp_flowvae.models import FlowVAE
from tfp_flowvae.training.noise import Noise

# Burda et al. (2016), section 5.1: a unit is not active if its posterior mean varies less.
ACTIVE_VARIANCE = 0.01
_FEWEST, _MOST, _SHARE = 32, 1000, 50
PAIRED = 32
"""The number of images from which the mutual information is estimated."""


class Diagnostics(keras.callbacks.Callback):
    """Adds diagnostics, in nats, to the logs of each epoch.

    - `log_base` (log q0(z0)), `log_posterior` (log qK(zK)), `log_det` (the sum of the flow's
      log-dets) and `log_prior` (log p(zK)): the mean over images and draws, and, with `_std` after
      the name, the standard deviation; figures 3 and 4 of Henrion & Welleck. The other terms of the
      bound, `log_likelihood` and `kl`, are in the logs already.
    - `active_units`: the number of latent dimensions with Var_x(E[z|x]) > 0.01 (Burda et al. 2016),
      which `mean_variance` estimates. It is 0 if the posterior is the prior for every image.
    - `mutual_information`: an estimate of I(x; z) under q, E[log q(z|x) - log mean_j q(z|x_j)] over
      M = 32 images. It cannot exceed log M = 3.5.
    - `base_kl_0` ...: the KL of the marginal of each dimension of the posterior's base from
      N(0, 1). Without a flow and with a standard normal prior, these are the KLs of the latent
      dimensions, and their sum is `kl`.

    The images are the first of the validation images, one for every 50 training images (at least
    32, at most 1000), with 2 draws of z each and the same seed in every epoch. If there is a flow,
    the active units take more draws from the posterior: 52 for each of 32 images, 10 for each of
    1000. On two cores this takes 2 to 15 ms per epoch of the digits and 0.1 to 0.4 s per epoch of
    MNIST, a few percent of the time.

    Args:
      images: Validation images, `[N, H, W, C]`, binarised already.
      levels: Their number of grey levels, or None.
      train_size: The number of training images.
      seed: The seed of the draws.
      mutual_information: Whether to estimate the mutual information. It needs the density of the
        posterior, which is slow for an IAF: on a small data set it would take longer than training.
      labels: The labels of the validation images, int32 `[N]`, for a model with classes; or None.

    Example:
      >>> x = np.random.default_rng(0).integers(0, 2, (40, 4, 4, 1)).astype("float32")
      >>> vae = fv.FlowVAE(image_shape=(4, 4, 1), latent_size=2)
      >>> vae.compile("adam")
      >>> diagnostics = Diagnostics(x[:32], levels=None, train_size=40, seed=0)
      >>> history = vae.fit(x, batch_size=20, callbacks=[diagnostics], verbose=0)
      >>> history.history["mutual_information"][0] < 3.5  # log 32
      True
    """

    def __init__(
        self,
        images: np.ndarray,
        levels: int | None,
        train_size: int,
        seed: int,
        mutual_information: bool = True,
        labels: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        count = min(max(train_size // _SHARE, _FEWEST), _MOST)
        self._images = to_unit(images[:count], levels)
        self._labels = None if labels is None else labels[:count]
        self._seed, self._mutual_information = seed, mutual_information
        self._measure: Any = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Makes the function that measures."""
        model, images = self.model, tf.constant(self._images)
        seed = tf.constant([self._seed, 0], tf.int32)
        full, label = self._mutual_information, self._labels
        self._measure = tf.function(
            lambda: measure(model, images, seed, full, label), autograph=False
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the diagnostics to the logs, which later callbacks see."""
        scalars, by_dimension = self._measure()
        if logs is not None:
            logs.update({name: float(value) for name, value in scalars.items()})
            logs.update({f"base_kl_{i}": float(v) for i, v in enumerate(by_dimension.numpy())})


def measure(
    model: FlowVAE,
    x: tf.Tensor,
    seed: tf.Tensor,
    mutual_information: bool = True,
    label: np.ndarray | None = None,
) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
    """Returns the diagnostics for images `[N, H, W, C]`: the scalars, and `base_kl`, `[D]`."""
    draw = model.draw(x, 2, seed, label)
    log_densities = {
        "log_base": draw.log_base,
        "log_posterior": draw.log_prob,
        "log_det": draw.log_det,
        "log_prior": model.log_prior(draw.z, label),
    }
    scalars = {}
    for name, values in log_densities.items():
        scalars[name] = tf.reduce_mean(values)
        scalars[f"{name}_std"] = tf.math.reduce_std(values)
    active = mean_variance(model, draw.distribution, seed) > ACTIVE_VARIANCE
    scalars["active_units"] = tf.reduce_sum(tf.cast(active, tf.float32))
    if mutual_information:
        posterior = model.posterior(x[:PAIRED], None if label is None else label[:PAIRED])
        scalars["mutual_information"] = _mutual_information(posterior, draw.z[0, :PAIRED])
    return scalars, tf.reduce_mean(base_kl(draw.distribution.distribution), axis=0)


def mean_variance(
    model: FlowVAE, posterior: tfd.TransformedDistribution, seed: tf.Tensor
) -> tf.Tensor:
    """Returns an unbiased estimate of the variance of E[z|x] over images, V = Var_x(E[z|x]).

    Without a flow, E[z|x] is the mean of the posterior's base, and the estimate is the sample
    variance of the N means. With a flow f_n for image n, it is made from P pairs of draws, whose
    noise e_p is the same for every image:

        y_pn = (f_n(mu_n + L_n e_p) + f_n(mu_n - L_n e_p)) / 2,    e_p ~ N(0, I)
        result = (M_images - M_noise) / P

    M_images and M_noise are the mean squares of a two-way analysis of variance of y, with the
    expectations P V + v and v. Here v is the variance of the noise that remains in y after its mean
    over the images is subtracted. v is 0 if f_n is linear, because the noise of a pair cancels. It
    is also 0 if all images have the same posterior; so V = 0 up to rounding for a posterior that
    has collapsed onto the prior.

    For given images, the standard error is sqrt((4 V v / P + 2 (v / P)^2) / (N - 1)). P is chosen
    so that the standard error is at most 0.01 v if V = 0: 26 for N = 32, 5 for N = 1000. The choice
    of the images adds V sqrt(2 / (N - 1)), if the means are normally distributed.

    Args:
      model: The model.
      posterior: q(z|x) of N images, batch `[N]`.
      seed: A stateless seed, `[2]`.

    Returns:
      `[D]`; it can be slightly below 0 if V is near 0.
    """
    base = posterior.distribution
    if not model.posterior_layer.flow.flows:
        return _sample_variance(base.mean())
    freedom = _degrees_of_freedom(base.batch_shape[0])
    pairs = math.ceil(math.sqrt(2.0 / freedom) / ACTIVE_VARIANCE)
    noise = Noise(seed).normal([pairs, 1, model.latent_size])
    noise = tf.concat([noise, -noise], axis=0)
    z0, _ = model.posterior_layer.base.from_noise(base, noise)
    z = posterior.bijector.forward(z0)
    return variance_over_images(0.5 * (z[:pairs] + z[pairs:]))


def variance_over_images(y: tf.Tensor) -> tf.Tensor:
    """Estimates the variance over images of y's expectation, `[D]`; see `mean_variance`.

    Args:
      y: `[P, N, D]`; the N images share the noise of each row p.
    """
    pairs, freedom = y.shape[0], _degrees_of_freedom(y.shape[1])
    means = tf.reduce_mean(y, axis=0)
    centred = means - tf.reduce_mean(means, axis=0)
    rest = y - tf.reduce_mean(y, axis=1, keepdims=True) - centred
    noise = tf.reduce_sum(tf.square(rest), axis=[0, 1]) / (freedom * (pairs - 1))
    return _sample_variance(means) - noise / pairs


def _sample_variance(values: tf.Tensor) -> tf.Tensor:
    """The unbiased variance over axis 0 of `[N, D]`; `[D]`."""
    centred = values - tf.reduce_mean(values, axis=0)
    return tf.reduce_sum(tf.square(centred), axis=0) / _degrees_of_freedom(values.shape[0])


def _degrees_of_freedom(count: int) -> int:
    """N - 1 for N images; 1 for a single image, whose variance is then 0."""
    return max(count - 1, 1)


def _mutual_information(posterior: tfd.TransformedDistribution, z: tf.Tensor) -> tf.Tensor:
    """E_i[log q(z_i|x_i) - log mean_j q(z_i|x_j)] of q(z|x), batch `[M]`, and its z `[M, D]`."""
    count = tf.shape(z)[0]
    everyone = tf.tile(z[:, tf.newaxis], [1, count, 1])
    noise, log_det = inverse_and_log_det(posterior.bijector, everyone)
    log_density = posterior.distribution.log_prob(noise) + log_det
    own = tf.linalg.diag_part(log_density)
    mean = tf.reduce_logsumexp(log_density, axis=1) - tf.math.log(tf.cast(count, z.dtype))
    return tf.reduce_mean(own - mean)


def base_kl(base: tfd.Distribution) -> tf.Tensor:
    """KL of each marginal of the base from N(0, 1), `[N, D]`."""
    mean, variance = base.mean(), base.variance()
    return 0.5 * (tf.square(mean) + variance - 1.0 - tf.math.log(variance))
