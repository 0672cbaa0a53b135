"""Normal distributions as the base of a flow."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae.distributions.base import Base
from tfp_flowvae.distributions.full_covariance import FullCovarianceNormal
from tfp_flowvae.networks.building import ensure_built

# softplus of this is 1: a raw scale of 0 is a standard deviation of 1.
UNIT_SCALE = float(np.log(np.expm1(1.0)))


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class Normal(Base):
    """The standard normal, or with a context h the normal N(mu(h), diag(sigma(h))^2).

    mu and softplus^-1(sigma) are linear in h.

    Example:
      >>> base = Normal(event_size=4, context_size=3)
      >>> base.distribution(tf.zeros([5, 3])).batch_shape
      TensorShape([5])

    Args:
      **kwargs: See `SizedLayer`.
    """

    factorises = True

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Creates the layers from the context to the parameters."""
        super().build(z_shape, context_shape)
        if self.context_size is not None:
            self._loc = self._dense("loc", self.event_size)
            self._raw_scale = self._dense("raw_scale", self.event_size)

    def _dense(self, name: str, size: int, **kwargs: Any) -> keras.layers.Dense:
        dense = keras.layers.Dense(size, dtype=self.dtype_policy, name=name, **kwargs)
        ensure_built(dense, (None, self.context_size))
        return dense

    def _loc_and_scale(self, context: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._loc(context), tf.math.softplus(self._raw_scale(context) + UNIT_SCALE)

    def distribution(self, context: tf.Tensor | None = None) -> tfd.Distribution:
        """The normal, with batch shape `[B]` for a context `[B, F]`, else `[]`."""
        self.check_context(context)
        # Not tfd.MultivariateNormalDiag: in a graph it cannot sample a batch of size 0.
        if context is None:
            return tfd.Independent(tfd.Normal(tf.zeros([self.event_size]), 1.0), 1)
        return tfd.Independent(tfd.Normal(*self._loc_and_scale(context)), 1)

    def from_noise(
        self, distribution: tfd.Distribution, noise: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """z0 = mu + sigma e, and log q0(z0) = log N(e; 0, I) - sum log sigma."""
        normal = distribution.distribution
        scale = tf.broadcast_to(normal.scale, tf.shape(normal.loc))
        constant = 0.5 * np.log(2 * np.pi)
        log_density = -0.5 * tf.square(noise) - constant - tf.math.log(scale)
        return normal.loc + scale * noise, tf.reduce_sum(log_density, axis=-1)


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class Tril(Normal):
    """The normal N(mu(h), L(h) L(h)^T) with full covariance, for a context h.

    mu, softplus^-1 of L's diagonal and the entries of L below it are linear in h.

    Example:
      >>> base = Tril(event_size=4, context_size=3)
      >>> base.distribution(tf.zeros([5, 3])).covariance().shape
      TensorShape([5, 4, 4])

    Args:
      **kwargs: See `SizedLayer`.

    Raises:
      ValueError: From `build`, if there is no context.
    """

    factorises = False

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Creates the layers from the context to the parameters."""
        super().build(z_shape, context_shape)
        if self.context_size is None:
            raise ValueError(
                "The base 'tril' takes its covariance from a context; without one use the flow "
                "'lu', which gives the normal full covariance. Received: context_size=None."
            )
        self._below = None
        if self.event_size > 1:
            # Starts at no correlation, from which Adam finds its way.
            size = self.event_size * (self.event_size - 1) // 2
            self._below = self._dense("below", size, kernel_initializer="zeros")

    def distribution(self, context: tf.Tensor | None = None) -> tfd.Distribution:
        """The normal, with batch shape `[B]` for a context `[B, F]`."""
        self.check_context(context)
        if self._below is None:
            return super().distribution(context)
        loc, diagonal = self._loc_and_scale(context)
        return FullCovarianceNormal(loc, self._lower_triangle(diagonal, self._below(context)))

    def from_noise(
        self, distribution: tfd.Distribution, noise: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """z0 = mu + L e, and log q0(z0) = log N(e; 0, I) - sum log L_ii."""
        if self._below is None:
            return super().from_noise(distribution, noise)
        return distribution.from_noise(noise)

    def _lower_triangle(self, diagonal: tf.Tensor, below: tf.Tensor) -> tf.Tensor:
        """L `[..., D, D]`: each entry gathered from the diagonal or from what is below it."""
        size = self.event_size
        rows, columns = np.tril_indices(size, -1)
        place = np.full((size, size), size + len(rows))
        place[np.arange(size), np.arange(size)] = np.arange(size)
        place[rows, columns] = size + np.arange(len(rows))
        zero = tf.zeros_like(diagonal[..., :1])
        return tf.gather(tf.concat([diagonal, below, zero], axis=-1), place, axis=-1)
