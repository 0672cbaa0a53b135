"""The planar flow as a Keras layer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.flows.base import RepeatedFlow


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class PlanarFlowLayer(RepeatedFlow):
    """K planar layers z + u h(w.z + b): `tfp_flowvae.bijectors.PlanarFlow` with weights.

    Starts as the identity (u = 0, but for what little the context adds).

    Args:
      event_size: D.
      context_size: Size of the context vector, or None.
      length: K.
      activation: h, see `tfp_flowvae.bijectors.PlanarFlow`.
      **kwargs: See `keras.layers.Layer`.
    """

    def __init__(self, *args: Any, activation: str = "tanh", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.activation = activation

    def _parameter_initializers(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        vectors = (self.length, self.event_size)
        # Unit w, so that h is neither linear nor saturated on a standard normal.
        direction = keras.initializers.RandomNormal(stddev=self.event_size**-0.5)
        return {
            "u": (vectors, "zeros"),
            "w": (vectors, direction),
            "b": ((self.length,), "zeros"),
        }

    def _bijector(self, context: tf.Tensor | None) -> fvb.PlanarFlow:
        return fvb.PlanarFlow(**self.parameters(context), activation=self.activation)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "activation": self.activation}
