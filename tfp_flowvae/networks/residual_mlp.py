"""Residual multilayer perceptrons: pre-activation blocks on vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tfp_flowvae.networks.image import ImageDecoder, ImageEncoder, check_sizes
from tfp_flowvae.networks.stages import Activate, Linear, ResidualBlock, Stage, Style

_register = keras.saving.register_keras_serializable(package="tfp_flowvae")


@_register
class ResidualMLPEncoder(ImageEncoder):
    """A linear map, a residual block for each size in `hidden`, and an activation.

        x + C f(norm(B f(norm(x))))           He et al. (2016), https://arxiv.org/abs/1603.05027

    Args:
      image_shape: `(H, W, C)`.
      hidden: Sizes of the blocks; the last is the number of features. Where two neighbours differ,
        the shortcut is a linear map.
      activation: f.
      norm: "none", "batch" or "layer", before each activation.
      **kwargs: See `keras.layers.Layer`.

    Input shape: `[..., H, W, C]`. Output shape: `[..., hidden[-1]]`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        hidden: Sequence[int] = (300, 300),
        activation: str = "elu",
        norm: str = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, hidden=hidden, activation=activation, norm=norm, **kwargs)
        self._stages = _residual_stages(self.image_shape, self.hidden, self._style())


@_register
class ResidualMLPDecoder(ImageDecoder):
    """A linear map, a residual block for each size in `hidden`, an activation and a linear map.

    Args:
      image_shape: `(H, W, C)`.
      event_size: D, the size of the latent vector.
      output_channels: How many numbers the likelihood takes for each pixel; C where None.
      hidden: Sizes of the blocks, at least one.
      activation: f.
      norm: "none", "batch" or "layer", before each activation.
      **kwargs: `initial_bias`, see `ImageDecoder`, and those of `keras.layers.Layer`.

    Input shape: `[..., D]`. Output shape: `[..., H, W, output_channels]`.
    """

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
        check_sizes("hidden", self.hidden)
        stages = _residual_stages((event_size,), self.hidden, self._style())
        self._stages = [*stages, self._pixels(stages[-1].out_shape)]


def _residual_stages(in_shape: Sequence[int], sizes: Sequence[int], style: Style) -> list[Stage]:
    bias = None if style.norm != "none" else "zeros"
    stages: list[Stage] = [
        Linear(in_shape, sizes[:1], 1.0, bias, dtype=style.dtype, name="stem"),
    ]
    for i, size in enumerate(sizes):
        before, after = stages[-1].out_shape, (size,)
        first = Linear(before, after, style.scale, bias, dtype=style.dtype, name="first")
        # All branches together add the variance of the stem's output, however many there are.
        second = Linear(
            after, after, style.scale / len(sizes), bias, dtype=style.dtype, name="second"
        )
        shortcut = None
        if before != after:
            shortcut = Linear(before, after, 1.0, None, dtype=style.dtype, name="shortcut")
        stages.append(ResidualBlock(first, second, shortcut, style, name=f"block_{i}"))
    return [*stages, Activate(stages[-1].out_shape, style, name="last")]
