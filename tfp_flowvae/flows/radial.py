"""The radial flow as a Keras layer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.flows.base import RepeatedFlow, derived


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class RadialFlowLayer(RepeatedFlow):
    """K radial layers: `tfp_flowvae.bijectors.RadialFlow` with weights.

    Starts as the identity (beta = 0, but for what little the context adds), around centres drawn
    from a standard normal. alpha is the softplus of a weight.

    Args:
      event_size: D.
      context_size: Size of the context vector, or None.
      length: K.
      **kwargs: See `keras.layers.Layer`.
    """

    def _parameter_initializers(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        scalars = (self.length,)
        return {
            "center": ((self.length, self.event_size), keras.initializers.RandomNormal(stddev=1.0)),
            "raw_alpha": (scalars, keras.initializers.Constant(0.5)),
            "beta": (scalars, "zeros"),
        }

    def _bijector(self, context: tf.Tensor | None) -> fvb.RadialFlow:
        parameters = self.parameters(context)
        alpha = derived(parameters.pop("raw_alpha"), tf.math.softplus)
        return fvb.RadialFlow(alpha=alpha, **parameters)
