"""The gated convolutional nets of Sylvester flows, for images of any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tfp_flowvae.networks.convolution import Convolution, map_sizes, pixel_convolution
from tfp_flowvae.networks.image import ImageDecoder, ImageEncoder, dense_units
from tfp_flowvae.networks.stages import Linear, Stage, Style, Unit

_register = keras.saving.register_keras_serializable(package="tfp_flowvae")

KERNEL_SIZE = 5


@_register
class GatedConvEncoder(ImageEncoder):
    """Gated convolutions, h = f(A * x + a) sigmoid(B * x + b), and gated dense layers.

    van den Berg et al. (2018), https://arxiv.org/abs/1803.05649, appendix A: on 28 x 28 images the
    defaults are theirs, five 5 x 5 convolutions with strides 1, 2, 1, 2, 1 and one that covers the
    remaining 7 x 7 map. The strides follow from the image's size (`convolution.map_sizes`).

    Args:
      image_shape: `(H, W, C)`.
      hidden: Sizes of the dense layers after the convolutions; the last is the number of features.
        The first one is the convolution that covers the map.
      channels: One number for each convolution.
      activation: f; "linear" is the paper's.
      norm: "none", "batch" or "layer", of A * x.
      **kwargs: See `keras.layers.Layer`.

    Input shape: `[..., H, W, C]`. Output shape: `[..., hidden[-1]]`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        hidden: Sequence[int] = (256,),
        channels: Sequence[int] = (32, 32, 64, 64, 64),
        activation: str = "linear",
        norm: str = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_shape,
            hidden=hidden,
            channels=channels,
            activation=activation,
            norm=norm,
            **kwargs,
        )
        style = self._style(gated=True)
        sizes = map_sizes(self.image_shape[:2], len(channels))
        stages = _gated_convolutions(self.image_shape, sizes[1:], channels, style, scale=1.0)
        dense = dense_units(stages[-1].out_shape, self.hidden, style, style.scale)
        self._stages = [*stages, *dense]


@_register
class GatedConvDecoder(ImageDecoder):
    """The encoder's mirror image: a gated dense map, gated (transposed) convolutions, and pixels.

    On 28 x 28 images the defaults are those of van den Berg et al. (2018), appendix A. Steps that
    keep the map's size are plain convolutions, the same maps as transposed ones.

    Args:
      image_shape: `(H, W, C)`.
      event_size: D, the size of the latent vector.
      output_channels: How many numbers the likelihood takes for each pixel; C where None.
      hidden: Sizes of gated dense layers before the first map; the paper has none.
      channels: One number for each convolution, in the decoder's order; the first is also that of
        the map that they start from.
      activation: f; "linear" is the paper's.
      norm: "none", "batch" or "layer", of A * x.
      **kwargs: `initial_bias`, see `ImageDecoder`, and those of `keras.layers.Layer`.

    Input shape: `[..., D]`. Output shape: `[..., H, W, output_channels]`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        event_size: int,
        output_channels: int | None = None,
        hidden: Sequence[int] = (),
        channels: Sequence[int] = (64, 32, 32, 32, 32),
        activation: str = "linear",
        norm: str = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            image_shape,
            event_size,
            output_channels,
            hidden=hidden,
            channels=channels,
            activation=activation,
            norm=norm,
            **kwargs,
        )
        style = self._style(gated=True)
        sizes = map_sizes(self.image_shape[:2], len(channels))[::-1]
        dense = dense_units((event_size,), self.hidden, style, scale=1.0)
        linear = Linear(
            dense[-1].out_shape if dense else (event_size,),
            (*sizes[0], 2 * channels[0]),
            style.scale if dense else 1.0,
            None if norm != "none" else "zeros",
            dtype=style.dtype,
            name="linear",
        )
        first = Unit(linear, style, name="map")
        stages = _gated_convolutions(first.out_shape, sizes[1:], channels, style, style.scale)
        pixels = pixel_convolution(
            stages[-1].out_shape, self.output_channels, self.initial_bias, style
        )
        self._stages = [*dense, first, *stages, pixels]


def _gated_convolutions(
    in_shape: tuple[int, ...],
    sizes: Sequence[tuple[int, int]],
    channels: Sequence[int],
    style: Style,
    scale: float,
) -> list[Stage]:
    """One gated unit for each size; the first starts with `scale`."""
    stages: list[Stage] = []
    for i, (size, filters) in enumerate(zip(sizes, channels, strict=True)):
        linear = Convolution(
            in_shape,
            (*size, 2 * filters),
            KERNEL_SIZE,
            style.scale if i else scale,
            None if style.norm != "none" else "zeros",
            dtype=style.dtype,
            name="linear",
        )
        stages.append(Unit(linear, style, name=f"convolution_{i}"))
        in_shape = stages[-1].out_shape
    return stages
