"""A dense layer whose kernel is multiplied by a fixed binary mask."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class MaskedDense(keras.layers.Layer):
    """`activation(x @ (kernel * mask) + bias)`.

    Example:
      >>> layer = MaskedDense(np.triu(np.ones((3, 3))))  # unit j sees inputs 0 to j
      >>> layer(tf.zeros([5, 3])).shape
      TensorShape([5, 3])

    Args:
      mask: `[fan_in, units]` of 0 and 1: which input may reach which unit.
      activation: Any Keras activation.
      use_bias: Whether there is a bias.
      kernel_initializer: Any Keras initializer, whose draw is multiplied by the mask. None for
        the one described below.
      bias_initializer: Any Keras initializer.
      kernel_regularizer: Any Keras regularizer, or None.
      bias_regularizer: Any Keras regularizer, or None.
      kernel_constraint: Any Keras constraint, or None.
      bias_constraint: Any Keras constraint, or None.
      **kwargs: See `keras.layers.Layer`.

    Input shape: `[..., fan_in]`, of rank 2 or more. Output shape: `[..., units]`.

    By default the kernel starts uniform with variance 1 / (number of inputs that the mask lets
    through), unit by unit: with the usual fan-in the units that see few inputs would start with
    less variance.
    """

    def __init__(
        self,
        mask: Any,
        activation: Any = None,
        *,
        use_bias: bool = True,
        kernel_initializer: Any = None,
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        mask = np.asarray(mask)
        if mask.ndim != 2 or not np.isin(mask, (0, 1)).all():
            raise ValueError(
                "mask must be a matrix [fan_in, units] of 0 and 1. "
                f"Received: mask of shape {mask.shape}."
            )
        self._binary_mask = mask.astype(np.float32)
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.kernel_constraint = keras.constraints.get(kernel_constraint)
        self.bias_constraint = keras.constraints.get(bias_constraint)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates `kernel` and `bias`; raises if the input's last dimension is not `fan_in`."""
        fan_in, units = self._binary_mask.shape
        if input_shape[-1] != fan_in:
            raise ValueError(
                f"The input's last dimension must be {fan_in}. Received: {input_shape}."
            )
        self.kernel = self.add_weight(
            name="kernel",
            shape=(fan_in, units),
            initializer=self._draw,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(units,),
                initializer=self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: fan_in})

    def _draw(self, shape: tuple[int, ...], dtype: Any = None) -> tf.Tensor:
        if self.kernel_initializer is not None:
            return self.kernel_initializer(shape, dtype) * tf.constant(self._binary_mask, dtype)
        reach = np.maximum(self._binary_mask.sum(axis=0), 1.0)
        uniform = keras.random.uniform(shape, -math.sqrt(3), math.sqrt(3), dtype=dtype)
        return uniform * tf.constant(self._binary_mask / np.sqrt(reach), dtype)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps `[..., fan_in]` to `[..., units]`."""
        kernel = tf.convert_to_tensor(self.kernel)
        masked = kernel * tf.constant(self._binary_mask, kernel.dtype)
        out = tf.matmul(x, masked)
        return self.activation(out if self.bias is None else out + self.bias)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """`[..., fan_in]` to `[..., units]`."""
        return (*input_shape[:-1], self._binary_mask.shape[1])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, the mask as nested lists."""
        return {
            **super().get_config(),
            "mask": self._binary_mask.astype(int).tolist(),
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
            "kernel_constraint": keras.constraints.serialize(self.kernel_constraint),
            "bias_constraint": keras.constraints.serialize(self.bias_constraint),
        }
