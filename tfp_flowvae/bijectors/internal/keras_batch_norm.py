"""The Keras layer of a `BatchNormalization` bijector. Imported when one is made: it needs Keras."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class PositiveScale(keras.constraints.Constraint):
    """relu(w) + 1e-6, as TFP 0.25 has it for the scale of a batch norm."""

    def __call__(self, w: Any) -> Any:
        return keras.ops.relu(w) + 1e-6


def checked_layer(layer: keras.layers.BatchNormalization | None) -> Any:
    """The layer, or for None one whose scale stays positive; raises `ValueError` if unsuitable."""
    if layer is None:
        return keras.layers.BatchNormalization(gamma_constraint=PositiveScale())
    if not isinstance(layer, keras.layers.BatchNormalization):
        raise ValueError(
            "batchnorm_layer must be a keras.layers.BatchNormalization of Keras 3, or None. "
            f"Received: {type(layer).__module__}.{type(layer).__name__}."
        )
    renorm = getattr(layer, "renorm", False)  # Keras 3.12 does not have it
    if layer.axis != -1 or renorm:
        raise ValueError(
            "batchnorm_layer must have axis=-1, and no renorm. "
            f"Received: axis={layer.axis}, {renorm=}."
        )
    return layer


def batch_variance(layer: keras.layers.BatchNormalization, y: tf.Tensor) -> tf.Tensor:
    """The variance `[D]` that the layer normalises the batch `[N, D]` with in training."""
    return keras.ops.moments(y, axes=[0], synchronized=layer.synchronized)[1]
