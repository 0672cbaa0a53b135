"""Multilayer perceptrons: the conditioner of coupling flows, an encoder and a decoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae.networks.building import ensure_built
from tfp_flowvae.networks.image import ImageDecoder, ImageEncoder, dense_units

_register = keras.saving.register_keras_serializable(package="tfp_flowvae")


@_register
class MLP(keras.layers.Layer):
    """Dense layers, with an optional context and an optional linear output.

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
        self._hidden_layers = [
            keras.layers.Dense(size, dtype=self.dtype_policy, name=f"hidden_{i}")
            for i, size in enumerate(hidden)
        ]
        self._context_layer = self._output_layer = None
        if context_size is not None:
            self._context_layer = keras.layers.Dense(
                hidden[0], use_bias=False, dtype=self.dtype_policy, name="context"
            )
        if output_size is not None:
            self._output_layer = keras.layers.Dense(
                math.prod(output_size),
                kernel_initializer="zeros",
                dtype=self.dtype_policy,
                name="output",
            )

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
        if (context is None) != (self.context_size is None):
            wanted = "no context" if self.context_size is None else "a context"
            raise ValueError(f"This MLP was built for {wanted}. Received: {context=}.")
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

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "input_size": self.input_size,
            "hidden": self.hidden,
            "output_size": self.output_size,
            "context_size": self.context_size,
            "activation": self.activation,
        }


@_register
class MLPEncoder(ImageEncoder):
    """Dense layers, from an image to the features that the posterior's parameters are linear in.

    Args:
      image_shape: `(H, W, C)`.
      hidden: Sizes of the hidden layers; the last is the number of features.
      activation: The hidden layers' activation.
      norm: "none", "batch" or "layer", between each linear map and its activation.
      **kwargs: See `keras.layers.Layer`.

    Input shape: `[..., H, W, C]`. Output shape: `[..., hidden[-1]]`.
    """

    _gated = False

    def __init__(
        self,
        image_shape: Sequence[int],
        hidden: Sequence[int] = (300, 300),
        activation: str = "elu",
        norm: str = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, hidden=hidden, activation=activation, norm=norm, **kwargs)
        style = self._style(gated=self._gated)
        self._stages = [*dense_units(self.image_shape, self.hidden, style, scale=1.0)]


@_register
class MLPDecoder(ImageDecoder):
    """Dense layers, from a latent vector to the parameters of the likelihood of every pixel.

    Args:
      image_shape: `(H, W, C)`.
      event_size: D, the size of the latent vector.
      output_channels: How many numbers the likelihood takes for each pixel; C where None.
      hidden: Sizes of the hidden layers; none for a linear decoder.
      activation: The hidden layers' activation.
      norm: "none", "batch" or "layer", between each linear map and its activation.
      **kwargs: `initial_bias`, see `ImageDecoder`, and those of `keras.layers.Layer`.

    Input shape: `[..., D]`. Output shape: `[..., H, W, output_channels]`.
    """

    _gated = False

    def __init__(
        self,
        image_shape: Sequence[int],
        event_size: int,
        output_channels: int | None = None,
        hidden: Sequence[int] = (300, 300),
        activation: str = "elu",
        norm: str = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_shape,
            event_size,
            output_channels,
            hidden=hidden,
            activation=activation,
            norm=norm,
            **kwargs,
        )
        style = self._style(gated=self._gated)
        units = dense_units((event_size,), self.hidden, style, scale=1.0)
        last = units[-1].out_shape if units else (event_size,)
        self._stages = [*units, self._pixels(last)]
