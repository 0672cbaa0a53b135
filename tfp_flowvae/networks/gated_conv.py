"""The gated convolutional nets of Sylvester flows, for images of any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tfp_flowvae.networks.building import check_sizes
from tfp_flowvae.networks.convolution import Convolution, map_sizes, pixel_convolution
from tfp_flowvae.networks.image import ImageDecoder, ImageEncoder, dense_units
from tfp_flowvae.networks.stages import Linear, Stage, Style, Unit

_register = keras.saving.register_keras_serializable(package="tfp_flowvae")

KERNEL_SIZE = 5


@_register
class GatedConvEncoder(ImageEncoder):
    """Gated convolutions, h = f(norm(A * x + a)) sigmoid(B * x + b), and gated dense layers.

    van den Berg et al. (2018), https://arxiv.org/abs/1803.05649, appendix A: on 28 x 28 images the
    defaults are theirs, five 5 x 5 convolutions with strides 1, 2, 1, 2, 1 and one that covers the
    remaining 7 x 7 map: the first of the dense layers. The strides follow from the image's size
    (`convolution.map_sizes`). f is linear in the paper.

    The arguments and shapes are those of `ImageEncoder`, and:

    Args:
      hidden: Sizes of the dense layers after the convolutions; the last is the number of features.
      channels: One number for each convolution.

    Example:
      >>> encoder = GatedConvEncoder((8, 8, 1), hidden=(16,), channels=(4, 4))
      >>> encoder(tf.zeros([5, 8, 8, 1])).shape
      TensorShape([5, 16])
    """

    gated = True

    def __init__(
        self,
        image_shape: Sequence[int],
        hidden: Sequence[int] = (256,),
        channels: Sequence[int] = (32, 32, 64, 64, 64),
        activation: str = "linear",
        **kwargs: Any,
    ) -> None:
        self.channels = check_sizes("channels", channels)
        super().__init__(image_shape, hidden, activation, **kwargs)

    def make_stages(self, style: Style) -> list[Stage]:
        """The convolutions and the dense layers."""
        sizes = map_sizes(self.image_shape[:2], len(self.channels))
        stages = _gated_convolutions(self.image_shape, sizes[1:], self.channels, style, scale=1.0)
        return [*stages, *dense_units(stages[-1].out_shape, self.hidden, style, style.scale)]


@_register
class GatedConvDecoder(ImageDecoder):
    """The encoder's mirror image: a gated dense map, gated (transposed) convolutions, and pixels.

    On 28 x 28 images the defaults are those of van den Berg et al. (2018), appendix A. Steps that
    keep the map's size are plain convolutions, the same maps as transposed ones.

    The arguments and shapes are those of `ImageDecoder`, and:

    Args:
      hidden: Sizes of gated dense layers before the first map; the paper has none.
      channels: One number for each convolution, in the decoder's order; the first is also that of
        the map that they start from.

    Example:
      >>> decoder = GatedConvDecoder((8, 8, 1), event_size=2, channels=(4, 4))
      >>> decoder(tf.zeros([5, 2])).shape
      TensorShape([5, 8, 8, 1])
    """

    gated = True

    def __init__(
        self,
        image_shape: Sequence[int],
        event_size: int,
        output_channels: int | None = None,
        hidden: Sequence[int] = (),
        channels: Sequence[int] = (64, 32, 32, 32, 32),
        activation: str = "linear",
        **kwargs: Any,
    ) -> None:
        self.channels = check_sizes("channels", channels)
        super().__init__(image_shape, event_size, output_channels, hidden, activation, **kwargs)

    def make_stages(self, style: Style) -> list[Stage]:
        """The dense layers, the first map, the convolutions and the pixels."""
        sizes = map_sizes(self.image_shape[:2], len(self.channels))[::-1]
        dense = dense_units((self.event_size,), self.hidden, style, scale=1.0)
        in_shape = dense[-1].out_shape if dense else (self.event_size,)
        out_shape, scale = (*sizes[0], 2 * self.channels[0]), style.scale if dense else 1.0
        linear = Linear(in_shape, out_shape, scale, style.bias, dtype=style.dtype, name="linear")
        first = Unit(linear, style, name="map")
        stages = _gated_convolutions(first.out_shape, sizes[1:], self.channels, style, style.scale)
        return [*dense, first, *stages, pixel_convolution(self, stages[-1].out_shape)]


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
        out_shape, scale = (*size, 2 * filters), style.scale if i else scale
        linear = Convolution(
            in_shape, out_shape, KERNEL_SIZE, scale, style.bias, dtype=style.dtype, name="linear"
        )
        stages.append(Unit(linear, style, name=f"convolution_{i}"))
        in_shape = stages[-1].out_shape
    return stages
