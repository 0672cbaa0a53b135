"""The variational posterior q(z|x): a Gaussian from the encoder's features, and a flow over it."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae.flows.stack import FlowStack
from tfp_flowvae.models.configurable import FlowOwner
from tfp_flowvae.networks.building import ensure_built

# softplus of this is 1: a raw scale of 0 is a standard deviation of 1.
_UNIT_SCALE = float(np.log(np.expm1(1.0)))


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class FlowPosterior(FlowOwner):
    """From encoder features to q(z|x), a `tfd.TransformedDistribution`.

    The base is N(mu(h), diag(sigma(h))^2) with mu and softplus^-1(sigma) linear in the features h;
    the flow's parameters are a function of h too.

    Args:
      flow: The flow, with the features as its context; an empty `FlowStack` for no flow.
      **kwargs: See `keras.layers.Layer`.

    Raises:
      ValueError: If the flow was built without a context.
    """

    def __init__(self, flow: FlowStack, **kwargs: Any) -> None:
        super().__init__(flow, **kwargs)
        if flow.context_size is None:
            raise ValueError(
                "A posterior's flow takes the encoder's features as its context: build it with "
                f"context_size. Received: {flow.name} with context_size=None."
            )
        self._loc = keras.layers.Dense(flow.event_size, dtype=self.dtype_policy, name="loc")
        self._raw_scale = keras.layers.Dense(
            flow.event_size, dtype=self.dtype_policy, name="raw_scale"
        )

    def build(self, input_shape: Any = None) -> None:
        """Builds the base's layers and the flow; the sizes are known from the constructor."""
        for layer in (self._loc, self._raw_scale):
            ensure_built(layer, self.flow.context_size)
        ensure_built(self.flow, self.event_size)

    def call(self, features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The base's mean and standard deviation, `[B, D]` each, from features `[B, F]`."""
        return self._loc(features), tf.math.softplus(self._raw_scale(features) + _UNIT_SCALE)

    def distribution(self, features: tf.Tensor) -> tfd.TransformedDistribution:
        """q(z|x) with batch shape `[B]` and event shape `[D]`, from features `[B, F]`."""
        # Not tfd.MultivariateNormalDiag: in a graph it cannot sample a batch of size 0.
        base = tfd.Independent(tfd.Normal(*self(features)), reinterpreted_batch_ndims=1)
        return tfd.TransformedDistribution(base, self.flow.bijector(features), name="posterior")
