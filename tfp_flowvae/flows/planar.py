"""The planar flow as a Keras layer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.flows.base import RepeatedFlow


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class Planar(RepeatedFlow):
    """K planar layers z + u h(w.z + b): `tfp_flowvae.bijectors.PlanarFlow` with weights.

    Starts as the identity: u = 0, but for the little that a context adds.

    Example:
      >>> flow = Planar(4, event_size=3, context_size=2)
      >>> z, log_det = flow(tf.zeros([5, 3]), tf.zeros([5, 2]))

    Args:
      length: K.
      activation: h, "tanh" or "isru"; see `tfp_flowvae.bijectors.PlanarFlow`.
      **kwargs: See `Flow`.
    """

    def __init__(self, length: int = 10, activation: str = "tanh", **kwargs: Any) -> None:
        super().__init__(length, **kwargs)
        self.activation = activation

    def parameter_initializers(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shapes and starting values of u, w and b."""
        vectors = (self.length, self.event_size)
        # Unit w, so that h is neither linear nor saturated on a standard normal.
        direction = keras.initializers.RandomNormal(stddev=self.event_size**-0.5)
        return {
            "u": (vectors, "zeros"),
            "w": (vectors, direction),
            "b": ((self.length,), "zeros"),
        }

    def make_bijector(self, context: tf.Tensor | None) -> fvb.PlanarFlow:
        """The planar layers."""
        return fvb.PlanarFlow(**self.parameters(context), activation=self.activation)
