"""Gated multilayer perceptrons: every unit is multiplied by a sigmoid of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tfp_flowvae.networks.mlp import MLPDecoder, MLPEncoder

_register = keras.saving.register_keras_serializable(package="tfp_flowvae")


@_register
class GatedMLPEncoder(MLPEncoder):
    """Gated dense layers, h = f(norm(A x + a)) * sigmoid(B x + b), from an image to features.

    Dauphin et al. (2017), https://arxiv.org/abs/1612.08083; in VAEs Tomczak & Welling (2018),
    https://arxiv.org/abs/1705.07120, with f linear. The arguments and shapes are those of
    `ImageEncoder`; `activation` is f.

    Example:
      >>> encoder = GatedMLPEncoder((8, 8, 1), hidden=(32, 16))
      >>> encoder(tf.zeros([5, 8, 8, 1])).shape
      TensorShape([5, 16])
    """

    gated = True

    def __init__(
        self,
        image_shape: Sequence[int],
        hidden: Sequence[int] = (300, 300),
        activation: str = "linear",
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, hidden, activation, **kwargs)


@_register
class GatedMLPDecoder(MLPDecoder):
    """Gated dense layers and a linear one, from a latent vector to every pixel's parameters.

    The arguments and shapes are those of `ImageDecoder`; `activation` is f, as in the encoder.

    Example:
      >>> decoder = GatedMLPDecoder((8, 8, 1), event_size=2, hidden=(16, 16))
      >>> decoder(tf.zeros([5, 2])).shape
      TensorShape([5, 8, 8, 1])
    """

    gated = True

    def __init__(
        self,
        image_shape: Sequence[int],
        event_size: int,
        output_channels: int | None = None,
        hidden: Sequence[int] = (300, 300),
        activation: str = "linear",
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, event_size, output_channels, hidden, activation, **kwargs)
