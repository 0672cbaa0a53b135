"""The variational posterior q(z|x): a Gaussian from the encoder's features, and a flow over it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae.flows.stack import FlowStack
from tfp_flowvae.likelihoods.configurable import FlowOwner
from tfp_flowvae.distributions.full_covariance import FullCovarianceNormal
from tfp_flowvae.models.names import POSTERIOR_BASES
from tfp_flowvae.training.noise import standard_normal
from tfp_flowvae.training.replicas import own_rows
from tfp_flowvae.networks.building import ensure_built

# softplus of this is 1: a raw scale of 0 is a standard deviation of 1.
UNIT_SCALE = float(np.log(np.expm1(1.0)))


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class FlowPosterior(FlowOwner):
    """From encoder features to q(z|x), a `tfd.TransformedDistribution`.

    The base is N(mu(h), L(h) L(h)^T), with mu, softplus^-1 of L's diagonal and, for `tril`, what is
    below it, linear in the features h; the flow's parameters are a function of h too.

    Args:
      flow: The flow, with the features as its context; an empty `FlowStack` for no flow.
      base: `diag`: independent dimensions, or `tril`: full covariance, L lower triangular.
      **kwargs: See `keras.layers.Layer`.

    Raises:
      ValueError: If the flow was built without a context, or the base has no such name.
    """

    def __init__(self, flow: FlowStack, base: str = "diag", **kwargs: Any) -> None:
        super().__init__(flow, **kwargs)
        if flow.context_size is None:
            raise ValueError(
                "A posterior's flow takes the encoder's features as its context: build it with "
                f"context_size. Received: {flow.name} with context_size=None."
            )
        if base not in POSTERIOR_BASES:
            raise ValueError(
                f"base must be one of {', '.join(POSTERIOR_BASES)}. Received: {base!r}."
            )
        self.base = base
        size, policy = flow.event_size, self.dtype_policy
        self._loc = keras.layers.Dense(size, dtype=policy, name="loc")
        self._raw_scale = keras.layers.Dense(size, dtype=policy, name="raw_scale")
        self._below = None
        if base == "tril" and size > 1:
            # Starts at no correlation, from which Adam finds its way.
            self._below = keras.layers.Dense(
                size * (size - 1) // 2, kernel_initializer="zeros", dtype=policy, name="below"
            )

    @property
    def factorises(self) -> bool:
        """Whether log q(z|x) is a sum over z's dimensions."""
        return self.base == "diag" and not self.flow.flows

    def build(self, input_shape: Any = None) -> None:
        """Builds the base's layers and the flow; the sizes are known from the constructor."""
        for layer in (self._loc, self._raw_scale, self._below):
            if layer is not None:
                ensure_built(layer, self.flow.context_size)
        ensure_built(self.flow, self.event_size)

    def call(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The base's mean `[B, D]` and the diagonal of L `[B, D]`, from features `[B, F]`."""
        return self._loc(features), tf.math.softplus(self._raw_scale(features) + UNIT_SCALE)

    def base_distribution(self, features: tf.Tensor) -> tfd.Distribution:
        """q0(z0|x) with batch shape `[B]` and event shape `[D]`."""
        loc, diagonal = self(features)
        if self._below is None:
            # Not tfd.MultivariateNormalDiag: in a graph it cannot sample a batch of size 0.
            return tfd.Independent(tfd.Normal(loc, diagonal), reinterpreted_batch_ndims=1)
        return FullCovarianceNormal(loc, self._lower_triangle(diagonal, self._below(features)))

    def draw_base(
        self, base: tfd.Distribution, num_samples: int, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """S draws z0 from the base, `[S, B, D]`, and log q0(z0|x), `[S, B]`.

        Args:
          base: What `base_distribution` gave.
          num_samples: S.
          seed: Stateless, `[2]`; it gives the same noise eagerly, in a graph and under XLA.
        """

        def draw(rows: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            shape = tf.stack([num_samples, rows, self.event_size])
            return standard_normal(shape, seed, base.dtype)

        noise = own_rows(draw, base.batch_shape_tensor()[0], seed, axis=1)
        if isinstance(base, FullCovarianceNormal):
            return base.from_noise(noise)
        normal = base.distribution
        z0 = normal.loc + normal.scale * noise
        constant = 0.5 * np.log(2 * np.pi)
        log_density = -0.5 * tf.square(noise) - constant - tf.math.log(normal.scale)
        return z0, tf.reduce_sum(log_density, axis=-1)

    def _lower_triangle(self, diagonal: tf.Tensor, below: tf.Tensor) -> tf.Tensor:
        """L `[..., D, D]`: each entry gathered from the diagonal or from what is below it."""
        size = self.event_size
        rows, columns = np.tril_indices(size, -1)
        place = np.full((size, size), size + len(rows))
        place[np.arange(size), np.arange(size)] = np.arange(size)
        place[rows, columns] = size + np.arange(len(rows))
        zero = tf.zeros_like(diagonal[..., :1])
        return tf.gather(tf.concat([diagonal, below, zero], axis=-1), place, axis=-1)

    def distribution(self, features: tf.Tensor) -> tfd.TransformedDistribution:
        """q(z|x) with batch shape `[B]` and event shape `[D]`, from features `[B, F]`."""
        base = self.base_distribution(features)
        return tfd.TransformedDistribution(base, self.flow.bijector(features), name="posterior")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "base": self.base}
