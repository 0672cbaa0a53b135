"""What a training run looks like inside: one callback, once an epoch."""

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
    - `active_units`: latent dimensions with Var_x(E[z|x]) > 0.01 (Burda et al. 2016), as
      `mean_variance` estimates it; 0 for a posterior that is the prior for every image;
    - `mutual_information`: an estimate of I(x; z) under q, E[log q(z|x) - log mean_j q(z|x_j)] over
      M = 32 images; it cannot exceed log M = 3.5;
    - `base_kl_0` ...: KL of each dimension of the posterior's base, marginally, from N(0, 1). With
      no flow and a standard prior these are the KLs of the latent dimensions, and sum to `kl`.

    It looks at one image for every 50 of training (at least 32, at most 1000), and draws 2 z for
    each, and for the active units of a flow 52 (of 32 images) to 10 (of 1000) more, through the
    posterior alone. On two cores that takes 2 to 15 ms of an epoch of the digits, 0.1 to 0.4 s of
    one of MNIST: a few percent.

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
    active = mean_variance(model, draw.distribution, seed) > ACTIVE_VARIANCE
    scalars["active_units"] = tf.reduce_sum(tf.cast(active, tf.float32))
    if mutual_information:
        scalars["mutual_information"] = _mutual_information(model, x[:_PAIRED], draw.z[0, :_PAIRED])
    return scalars, tf.reduce_mean(base_kl(draw.distribution.distribution), axis=0)


def mean_variance(
    model: FlowVAE, posterior: tfd.TransformedDistribution, seed: tf.Tensor
) -> tf.Tensor:
    """The variance of E[z|x] over images, V = Var_x(E[z|x]), estimated without bias.

    Without a flow E[z|x] is the mean of the posterior's base, and the result is the sample variance
    of the N means. With a flow f_n for image n it comes from P pairs of draws, whose noise e_p is
    the same for every image:

        y_pn = (f_n(mu_n + L_n e_p) + f_n(mu_n - L_n e_p)) / 2,    e_p ~ N(0, I)
        result = (M_images - M_noise) / P

    M_images and M_noise are the mean squares of a two-way analysis of variance of y, which have the
    expectations P V + v and v. Here v is the variance of the noise that is left in y once its mean
    over the images is subtracted. There is none where f_n is linear, since the pairs cancel it, nor
    where all images have the same posterior and the same f_n, so that a posterior that has
    collapsed onto the prior has V = 0 up to rounding.

    The standard error for given images is sqrt((4 V v / P + 2 (v / P)^2) / (N - 1)). P is chosen
    such that it is at most 0.01 v where V = 0: 26 for N = 32, 5 for N = 1000. The choice of the
    images adds V sqrt(2 / (N - 1)), for means that are normally distributed.

    Args:
      model: The model.
      posterior: q(z|x) of N images, batch `[N]`.
      seed: Stateless, `[2]`.

    Returns:
      `[D]`; slightly below 0, by its error, where V is near 0.
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
    """The variance over images of y's expectation over noise, `[D]`; see `mean_variance`.

    Args:
      y: `[P, N, D]`; row p is of the same noise for all N images.
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
    """N - 1 for N images, and 1 for a single one, whose variance is then 0."""
    return max(count - 1, 1)


def _mutual_information(model: FlowVAE, x: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
    """E_i[log q(z_i|x_i) - log mean_j q(z_i|x_j)] of images `[M, ...]` and their z `[M, D]`."""
    posterior, count = model.posterior(x), tf.shape(z)[0]
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
