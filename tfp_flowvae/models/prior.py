"""The prior p(z): a standard normal and a learnable flow over it."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae.bijectors import inverse_and_log_det
from tfp_flowvae.flows.stack import FlowStack
from tfp_flowvae.models.configurable import FlowOwner
from tfp_flowvae.networks.building import ensure_built


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class FlowPrior(FlowOwner):
    """p(z) as a `tfd.TransformedDistribution` of a standard normal, its variables live.

    Args:
      flow: The flow, without a context; an empty `FlowStack` for the standard normal.
      **kwargs: See `keras.layers.Layer`.

    Raises:
      ValueError: If the flow was built with a context.
    """

    def __init__(self, flow: FlowStack, **kwargs: Any) -> None:
        super().__init__(flow, **kwargs)
        if flow.context_size is not None:
            raise ValueError(
                "A prior's flow has weights of its own: build it without a context. "
                f"Received: {flow.name} with context_size={flow.context_size}."
            )

    def build(self, input_shape: Any = None) -> None:
        """Builds the flow; its sizes are known from the constructor."""
        ensure_built(self.flow, self.event_size)

    def distribution(self) -> tfd.TransformedDistribution:
        """p(z) with batch shape `[]` and event shape `[D]`."""
        zeros = tf.zeros([self.event_size])
        base = tfd.Independent(tfd.Normal(zeros, 1.0), reinterpreted_batch_ndims=1)
        return tfd.TransformedDistribution(base, self.flow.bijector(), name="prior")

    def call(self, z: tf.Tensor) -> tf.Tensor:
        """log p(z) in nats, `[...]`, of z `[..., D]`, from one pass through the flow.

        `distribution().log_prob(z)` asks TFP's cache first, which knows variables by identity, not
        by value: eagerly, for a z that it has seen, it may answer with the weights of that time.
        """
        prior = self.distribution()
        noise, log_det = inverse_and_log_det(prior.bijector, z)
        return prior.distribution.log_prob(noise) + log_det
