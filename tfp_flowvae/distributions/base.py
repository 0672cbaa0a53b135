"""The base class of base distributions, which flows act on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.sized import SizedLayer
from tfp_flowvae.training.noise import Noise


class Base(SizedLayer):
    """A layer that makes a distribution over vectors of `event_size`.

    A subclass defines `distribution` and, if it has weights, `build`, which creates them once
    `super().build(z_shape, context_shape)` has set `event_size` and `context_size`.

    A base that can be part of a posterior defines `from_noise` too.

    Attributes:
      factorises: Whether the log-density is a sum over the dimensions.
      starts_from_data: Whether `adapt` sets weights.

    Args:
      **kwargs: See `SizedLayer`.

    Example:
      >>> class UnitLaplace(fv.distributions.Base):
      ...     def distribution(self, context=None):
      ...         return tfd.Independent(tfd.Laplace(tf.zeros([self.event_size]), 1.0), 1)
      >>> density = fv.FlowDensity("maf:1", event_size=2, base=UnitLaplace())
      >>> density.sample(5, seed=0).shape
      TensorShape([5, 2])
    """

    factorises = False
    starts_from_data = False

    def distribution(self, context: tf.Tensor | None = None) -> tfd.Distribution:
        """The distribution: event `[D]`, batch `[B]` for a context `[B, F]`, else `[]`."""
        raise NotImplementedError

    def from_noise(
        self, distribution: tfd.Distribution, noise: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """A draw as a function of standard normal noise, and its log-density in nats.

        Args:
          distribution: A result of `distribution`, with batch `[B]` or `[]`.
          noise: `[..., B, D]` or `[..., D]`.

        Returns:
          z0, of the shape of the noise, and log q0(z0), `[..., B]` or `[...]`.
        """
        raise NotImplementedError

    @property
    def reparameterized(self) -> bool:
        """Whether draws have a gradient by the distribution's parameters, as a posterior needs."""
        return type(self).from_noise is not Base.from_noise

    def sample(
        self,
        distribution: tfd.Distribution,
        n: TensorLike,
        noise: Noise,
        temperature: TensorLike | None = None,
    ) -> tf.Tensor:
        """n draws from a result of `distribution`, `[n, B, D]` or `[n, D]`.

        With a temperature T, a draw z0 becomes m + T (z0 - m), where m is the mean of the
        distribution. A base with `from_noise` multiplies its noise by T, which is the same for a
        normal.

        Args:
          distribution: A result of `distribution`.
          n: The number of draws.
          noise: Where they come from; draws at different temperatures share it.
          temperature: T, at least 0; None for 1.

        Raises:
          UserError: If there is a temperature, and the distribution has no mean.
        """
        if self.reparameterized:
            e = self._normal_noise(distribution, n, noise)
            return self.from_noise(distribution, e if temperature is None else temperature * e)[0]
        z = distribution.sample(n, seed=noise.seed)
        if temperature is None:
            return z
        return temperature * z + (1.0 - temperature) * _mean(distribution)

    def sample_and_log_prob(
        self, distribution: tfd.Distribution, n: TensorLike, noise: Noise
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The same draws, and their log-densities `[n, B]` or `[n]` in nats."""
        if not self.reparameterized:
            z = self.sample(distribution, n, noise)
            return z, distribution.log_prob(z)
        return self.from_noise(distribution, self._normal_noise(distribution, n, noise))

    def _normal_noise(
        self, distribution: tfd.Distribution, n: TensorLike, noise: Noise
    ) -> tf.Tensor:
        batch = tf.unstack(distribution.batch_shape_tensor(), num=distribution.batch_shape.rank)
        batch_axis = 1 if batch else None
        return noise.normal([n, *batch, self.event_size], batch_axis, distribution.dtype)

    def attach(
        self, posterior_base: Callable[[tf.Tensor], tfd.Distribution], image_shape: Sequence[int]
    ) -> None:
        """Gives the base of a prior access to its model, before the base is built.

        Args:
          posterior_base: From images `[K, H, W, C]` to the base of their posterior, batch `[K]`.
          image_shape: `(H, W, C)`.
        """

    def adapt(self, images: np.ndarray, seed: int, labels: np.ndarray | None = None) -> None:
        """Starts the weights from data.

        Args:
          images: `[N, H, W, C]` in [0, 1].
          seed: Seed of random choices.
          labels: The label of each image, int32 `[N]`, -1 where it is missing; None for none.
        """


def _mean(distribution: tfd.Distribution) -> tf.Tensor:
    try:
        return distribution.mean()
    except NotImplementedError as error:
        raise UserError(
            "A temperature needs a base with a mean, about which it scales the draws. "
            f"Received: {distribution.name}, which has none; leave the temperature out."
        ) from error
