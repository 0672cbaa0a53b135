"""The Householder flow as a Keras layer."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.flows.base import RepeatedFlow


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class Householder(RepeatedFlow):
    """K reflections: `tfp_flowvae.bijectors.HouseholderFlow` with weights.

    Reflections come in pairs that start equal and so undo each other: an even K starts as the
    identity, an odd K as one reflection.

    Example:
      >>> flow = Householder(4, event_size=3, context_size=2)
      >>> z, log_det = flow(tf.zeros([5, 3]), tf.zeros([5, 2]))

    Args:
      length: K.
      **kwargs: See `Flow`.
    """

    def __init__(self, length: int = 4, **kwargs: Any) -> None:
        super().__init__(length, **kwargs)

    def parameter_initializers(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Shape and starting value of the mirrors' normals v."""
        return {"v": ((self.length, self.event_size), _in_pairs)}

    def make_bijector(self, context: tf.Tensor | None) -> fvb.HouseholderFlow:
        """The reflections."""
        return fvb.HouseholderFlow(**self.parameters(context))


def _in_pairs(shape: tuple[int, ...], dtype: Any = None) -> tf.Tensor:
    length, event_size = shape
    pairs = keras.random.normal(((length + 1) // 2, event_size), dtype=dtype)
    return tf.repeat(pairs, 2, axis=0)[:length]
