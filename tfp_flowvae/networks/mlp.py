"""Multilayer perceptrons: the conditioner of coupling flows, an encoder and a decoder."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae.networks.building import ConfiguredLayer, check_context, ensure_built
from tfp_flowvae.networks.image import ImageDecoder, ImageEncoder, dense_units
from tfp_flowvae.networks.stages import Stage, Style

_register = keras.saving.register_keras_serializable(package="tfp_flowvae")


@_register
class MLP(ConfiguredLayer):
    """Dense layers, with an optional context and an optional linear output.

    Example:
      >>> MLP(input_size=3, hidden=(32, 32), output_size=(4, 2))(tf.zeros([5, 3])).shape
      TensorShape([5, 4, 2])

    Args:
      input_size: Size of the input vector.
      hidden: Sizes of the hidden layers.
      output_size: Shape of a linear output that starts at zero, such as `(M, 2)`, or None to put
        out the last hidden layer.
      context_size: Size of a context that is added, through a matrix, to the first layer.
      activation: The hidden layers' activation.
      **kwargs: See `keras.layers.Layer`.

    Input shape: `[..., input_size]`, of rank 2 or more, and, with a context, `[..., context_size]`,
    whose leading dimensions broadcast.
    Output shape: `[..., *output_size]` or `[..., hidden[-1]]`.
    """

    def __init__(
        self,
        input_size: int,
        hidden: Sequence[int],
        output_size: Sequence[int] | None = None,
        context_size: int | None = None,
        activation: str = "elu",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not hidden or min(hidden) < 1:
            raise ValueError(
                "hidden must name at least one layer, each of at least 1 unit. "
                f"Received: hidden={tuple(hidden)}."
            )
        self.input_size, self.hidden = input_size, tuple(hidden)
        self.output_size = None if output_size is None else tuple(output_size)
        self.context_size, self.activation = context_size, activation
        dense = functools.partial(keras.layers.Dense, dtype=self.dtype_policy)
        self._hidden_layers = [dense(size, name=f"hidden_{i}") for i, size in enumerate(hidden)]
        self._context_layer = self._output_layer = None
        if context_size is not None:
            self._context_layer = dense(hidden[0], use_bias=False, name="context")
        if output_size is not None:
            size = math.prod(output_size)
            self._output_layer = dense(size, kernel_initializer="zeros", name="output")

    def build(self, input_shape: Any = None) -> None:
        """Builds every layer; the sizes are known from the constructor."""
        for layer, size in zip(
            self._hidden_layers, (self.input_size, *self.hidden[:-1]), strict=True
        ):
            ensure_built(layer, (None, size))
        if self._context_layer is not None:
            ensure_built(self._context_layer, (None, self.context_size))
        if self._output_layer is not None:
            ensure_built(self._output_layer, (None, self.hidden[-1]))

    def call(self, x: tf.Tensor, context: tf.Tensor | None = None) -> tf.Tensor:
        """Maps `[..., input_size]` and the context to the output."""
        check_context(self, context)
        activation = keras.activations.get(self.activation)
        for i, layer in enumerate(self._hidden_layers):
            x = layer(x)
            if i == 0 and self._context_layer is not None:
                x += self._context_layer(context)
            x = activation(x)
        if self._output_layer is None:
            return x
        shape = tf.concat([tf.shape(x)[:-1], self.output_size], axis=0)
        return tf.reshape(self._output_layer(x), shape)


@_register
class MLPEncoder(ImageEncoder):
    """Dense layers, each with a norm before its activation; the arguments are `ImageEncoder`'s.

    Example:
      >>> encoder = MLPEncoder((8, 8, 1), hidden=(32, 16), norm="layer")
      >>> encoder(tf.zeros([5, 8, 8, 1])).shape
      TensorShape([5, 16])
    """

    def make_stages(self, style: Style) -> list[Stage]:
        """The dense layers."""
        return dense_units(self.image_shape, self.hidden, style, scale=1.0)


@_register
class MLPDecoder(ImageDecoder):
    """Dense layers, each with a norm before its activation, then a linear one for the pixels.

    The arguments are those of `ImageDecoder`; without `hidden` the decoder is linear.

    Example:
      >>> decoder = MLPDecoder((8, 8, 1), event_size=2, output_channels=2, hidden=(16, 32))
      >>> decoder(tf.zeros([5, 2])).shape  # two numbers for each pixel
      TensorShape([5, 8, 8, 2])
    """

    def make_stages(self, style: Style) -> list[Stage]:
        """The dense layers and the pixels."""
        units = dense_units((self.event_size,), self.hidden, style, scale=1.0)
        return [*units, self.dense_pixels(units[-1].out_shape if units else (self.event_size,))]
