"""The base class of base distributions, which flows act on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae._typing import TensorLike
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

    def sample(self, distribution: tfd.Distribution, n: TensorLike, noise: Noise) -> tf.Tensor:
        """n draws from a result of `distribution`, `[n, B, D]` or `[n, D]`."""
        if self.reparameterized:
            return self.sample_and_log_prob(distribution, n, noise)[0]
        return distribution.sample(n, seed=noise.seed)

    def sample_and_log_prob(
        self, distribution: tfd.Distribution, n: TensorLike, noise: Noise
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The same draws, and their log-densities `[n, B]` or `[n]` in nats."""
        if not self.reparameterized:
            z = self.sample(distribution, n, noise)
            return z, distribution.log_prob(z)
        batch = tf.unstack(distribution.batch_shape_tensor(), num=distribution.batch_shape.rank)
        batch_axis = 1 if batch else None
        e = noise.normal([n, *batch, self.event_size], batch_axis, distribution.dtype)
        return self.from_noise(distribution, e)

    def attach(
        self, posterior_base: Callable[[tf.Tensor], tfd.Distribution], image_shape: Sequence[int]
    ) -> None:
        """Gives the base of a prior access to its model, before the base is built.

        Args:
          posterior_base: From images `[K, H, W, C]` to the base of their posterior, batch `[K]`.
          image_shape: `(H, W, C)`.
        """

    def adapt(self, images: np.ndarray, seed: int) -> None:
        """Starts the weights from data.

        Args:
          images: `[N, H, W, C]` in [0, 1].
          seed: Seed of random choices.
        """
