"""The networks of couplings of images: ours, and those that TFP offers for its `Glow` bijector.

Kingma & Dhariwal (2018), https://arxiv.org/abs/1807.03039.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae.networks.building import ensure_built
from tfp_flowvae.networks.tfp_layer import TFPLayer


class _Convolutions(TFPLayer):
    """Convolutions with "same" padding, one after the other, built by the constructor.

    Args:
      input_shape: `[H, W, C]`.
      layers: `(channels, kernel_shape)` of each. The last one starts at zero; the others start
        as He et al. (2015) have it, and are followed by a ReLU.
      **kwargs: See `keras.layers.Layer`.
    """

    def __init__(
        self, input_shape: Sequence[int], layers: Sequence[tuple[int, Any]], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._image_shape = tuple(input_shape)
        self._convolutions = [
            keras.layers.Conv2D(
                channels,
                kernel_shape,
                padding="same",
                kernel_initializer="he_normal" if k < len(layers) - 1 else "zeros",
                activation="relu" if k < len(layers) - 1 else None,
                dtype=self.variable_dtype,
                name=f"convolution_{k}",
            )
            for k, (channels, kernel_shape) in enumerate(layers)
        ]
        self.build()

    def build(self, unused_shape: Any = None) -> None:
        """Builds the convolutions; the sizes are known from the constructor."""
        height, width, channels = self._image_shape
        for layer in self._convolutions:
            ensure_built(layer, (None, height, width, channels))
            channels = layer.filters

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps `[..., H, W, C]` to the same leading dimensions and the last layer's channels."""
        x = tf.cast(x, self.variable_dtype)
        h = tf.reshape(x, [-1, *self._image_shape])
        for layer in self._convolutions:
            h = layer(h)
        height, width, _ = self._image_shape
        leading = x.shape[:-3]
        shape = tf.shape(x)[:-3] if None in leading.as_list() else leading
        return tf.reshape(h, tf.concat([shape, [height, width, h.shape[-1]]], axis=0))

    def get_config(self) -> dict[str, Any]:
        """The arguments that both networks have."""
        return {
            **super().get_config(),
            "input_shape": self._image_shape,
            "kernel_shape": self._convolutions[-1].kernel_size,
        }


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class GlowDefaultNetwork(_Convolutions):
    """`tfb.GlowDefaultNetwork` of TFP 0.25 as a Keras 3 layer: the coupling network of Glow.

    Three convolutions, the second one of 1 x 1, with ReLUs between them. The last one starts at
    zero. `tfb.Glow` takes the sigmoid of the first half of the channels, plus 2, as the scales.

    Example:
      >>> GlowDefaultNetwork((4, 4, 3), num_hidden=8)(tf.zeros([5, 4, 4, 3])).shape
      TensorShape([5, 4, 4, 6])

    Args:
      input_shape: `[H, W, C]`.
      num_hidden: Channels between the convolutions.
      kernel_shape: Size of the first and the last kernel.
      **kwargs: See `keras.layers.Layer`.

    Input shape: `[..., H, W, C]`. Output shape: `[..., H, W, 2 C]`.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_hidden: int = 400,
        kernel_shape: Any = 3,
        **kwargs: Any,
    ) -> None:
        layers = [(num_hidden, kernel_shape), (num_hidden, 1), (2 * input_shape[-1], kernel_shape)]
        super().__init__(input_shape, layers, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "num_hidden": self._convolutions[0].filters}


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class GlowDefaultExitNetwork(_Convolutions):
    """`tfb.GlowDefaultExitNetwork` of TFP 0.25 as a Keras 3 layer: one convolution from zero.

    `tfb.Glow` takes the exponential of the first half of the channels, plus 2, as the scales.

    Example:
      >>> GlowDefaultExitNetwork((4, 4, 3), output_chan=6)(tf.zeros([5, 4, 4, 3])).shape
      TensorShape([5, 4, 4, 12])

    Args:
      input_shape: `[H, W, C]`.
      output_chan: Channels that leave Glow.
      kernel_shape: Size of the kernel.
      **kwargs: See `keras.layers.Layer`.

    Input shape: `[..., H, W, C]`. Output shape: `[..., H, W, 2 output_chan]`.
    """

    def __init__(
        self, input_shape: Sequence[int], output_chan: int, kernel_shape: Any = 3, **kwargs: Any
    ) -> None:
        super().__init__(input_shape, [(2 * output_chan, kernel_shape)], **kwargs)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "output_chan": self._convolutions[0].filters // 2}


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class CouplingNetwork(_Convolutions):
    """The network of a coupling of images: from the numbers that stay to P for each that moves.

    Three convolutions of `width` channels, of 3 x 3, 1 x 1 and 3 x 3 pixels, with ReLUs between
    them, as in Glow. The last one starts at zero, so that the coupling starts as the identity.

    Example:
      >>> CouplingNetwork((4, 4, 2), moving=3, params=2, width=8)(tf.zeros([5, 4, 4, 2])).shape
      TensorShape([5, 4, 4, 3, 2])

    Args:
      input_shape: `[H, W, C]`.
      moving: M, how many channels move.
      params: P, the number of parameters for each number that moves.
      width: Channels between the convolutions.
      context_channels: The channels of the context image, 0 for none.
      **kwargs: See `keras.layers.Layer`.

    Input shape: `[..., H, W, C]`, and a context `[B, H, W, context_channels]` or None.
    Output shape: `[..., H, W, M, P]`.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        moving: int,
        params: int,
        width: int = 64,
        context_channels: int = 0,
        **kwargs: Any,
    ) -> None:
        height, image_width, channels = input_shape
        layers = [(width, 3), (width, 1), (moving * params, 3)]
        super().__init__((height, image_width, channels + context_channels), layers, **kwargs)
        self._arguments = {
            "input_shape": tuple(input_shape),
            "moving": moving,
            "params": params,
            "width": width,
            "context_channels": context_channels,
        }

    def call(self, x: tf.Tensor, context: tf.Tensor | None = None) -> tf.Tensor:
        """Maps images, and a context image for each, to parameters."""
        x = tf.cast(x, self.variable_dtype)
        if context is not None:
            channels = self._arguments["context_channels"]
            shape = tf.concat([tf.shape(x)[:-1], [channels]], axis=0)
            x = tf.concat([x, tf.broadcast_to(tf.cast(context, x.dtype), shape)], axis=-1)
        out = super().call(x)
        event = [self._arguments["moving"], self._arguments["params"]]
        shaped = tf.reshape(out, tf.concat([tf.shape(out)[:-1], event], axis=0))
        return tf.ensure_shape(shaped, out.shape[:-1].concatenate(event))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().get_config()
        del config["kernel_shape"]
        return {**config, **self._arguments}
