"""The radial flow as a Keras layer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.flows.base import RepeatedFlow, derived


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class Radial(RepeatedFlow):
    """K radial layers: `tfp_flowvae.bijectors.RadialFlow` with weights.

    Starts as the identity (beta = 0, but for the little that a context adds), around centres drawn
    from a standard normal. alpha is the softplus of a weight.

    Example:
      >>> flow = Radial(4, event_size=3, context_size=2)
      >>> z, log_det = flow(tf.zeros([5, 3]), tf.zeros([5, 2]))

    Args:
      length: K.
      **kwargs: See `Flow`.
    """

    def __init__(self, length: int = 10, **kwargs: Any) -> None:
        super().__init__(length, **kwargs)

    def parameter_initializers(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shapes and starting values of the centre, softplus^-1(alpha) and beta."""
        scalars = (self.length,)
        return {
            "center": ((self.length, self.event_size), keras.initializers.RandomNormal(stddev=1.0)),
            "raw_alpha": (scalars, keras.initializers.Constant(0.5)),
            "beta": (scalars, "zeros"),
        }

    def make_bijector(self, context: tf.Tensor | None) -> fvb.RadialFlow:
        """The radial layers."""
        parameters = self.parameters(context)
        alpha = derived(parameters.pop("raw_alpha"), tf.math.softplus)
        return fvb.RadialFlow(alpha=alpha, **parameters)
