"""What a flow acts on: the base class of base distributions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae.flows.sized import SizedLayer
from tfp_flowvae.training.noise import Noise

if TYPE_CHECKING:
    import numpy as np


class Base(SizedLayer):
    """A layer that answers with a distribution over vectors of `event_size`.

    A subclass defines `distribution` and, if it has weights, `build`, which creates them once
    `super().build(z_shape, context_shape)` has set `event_size` and `context_size`.

    Attributes:
      reparameterized: Whether draws have a gradient with respect to the distribution's parameters,
        which a posterior needs.
      factorises: Whether the log-density is a sum over the dimensions.
      starts_from_data: Whether `adapt` has something to do.

    Args:
      **kwargs: See `SizedLayer`.
    """

    reparameterized = False
    factorises = False
    starts_from_data = False

    def distribution(self, context: tf.Tensor | None = None) -> tfd.Distribution:
        """The distribution: event `[D]`, batch `[B]` for a context `[B, F]`, else `[]`."""
        raise NotImplementedError

    def sample(self, distribution: tfd.Distribution, n: int | tf.Tensor, noise: Noise) -> tf.Tensor:
        """n draws from what `distribution` answered, `[n, B, D]`."""
        return distribution.sample(n, seed=noise.seed)

    def sample_and_log_prob(
        self, distribution: tfd.Distribution, n: int | tf.Tensor, noise: Noise
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The same draws, and their log-densities `[n, B]` in nats."""
        z = self.sample(distribution, n, noise)
        return z, distribution.log_prob(z)

    def attach(
        self, posterior_base: Callable[[tf.Tensor], tfd.Distribution], image_shape: Sequence[int]
    ) -> None:
        """Tells a prior's base of the model that it stands in, before it is built.

        Args:
          posterior_base: From images `[K, H, W, C]` to the base of their posterior, batch `[K]`.
          image_shape: `(H, W, C)`.
        """

    def adapt(self, images: np.ndarray, seed: int) -> None:
        """Starts the weights from data.

        Args:
          images: `[N, H, W, C]` in [0, 1].
          seed: Of random choices.
        """
