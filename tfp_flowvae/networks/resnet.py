"""Small convolutional residual nets, for images of any size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tfp_flowvae.networks.building import check_sizes
from tfp_flowvae.networks.convolution import Convolution, map_sizes, pixel_convolution
from tfp_flowvae.networks.image import ImageDecoder, ImageEncoder, dense_units
from tfp_flowvae.networks.stages import Activate, Enlarge, Linear, ResidualBlock, Stage, Style

_register = keras.saving.register_keras_serializable(package="tfp_flowvae")

KERNEL_SIZE = 3


@_register
class ResNetEncoder(ImageEncoder):
    """A convolution, stages of pre-activation blocks, and dense layers.

    He et al. (2016), https://arxiv.org/abs/1603.05027. Between two stages the map is halved, until
    its larger side is at most 8 (`convolution.map_sizes`). Norms come before activations.

    The arguments and shapes are those of `ImageEncoder`, and:

    Args:
      hidden: Sizes of the dense layers after the last stage; the last is the number of features.
      channels: One number for each stage.
      blocks: Blocks in each stage.

    Example:
      >>> encoder = ResNetEncoder((8, 8, 1), hidden=(16,), channels=(4, 4), blocks=2)
      >>> encoder(tf.zeros([5, 8, 8, 1])).shape
      TensorShape([5, 16])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        hidden: Sequence[int] = (256,),
        channels: Sequence[int] = (32, 64, 64),
        activation: str = "elu",
        norm: str = "none",
        blocks: int = 1,
        **kwargs: Any,
    ) -> None:
        self.channels, self.blocks = check_sizes("channels", channels), _checked(blocks)
        super().__init__(image_shape, hidden, activation, norm, **kwargs)

    def make_stages(self, style: Style) -> list[Stage]:
        """The first convolution, the blocks and the dense layers."""
        sizes = map_sizes(self.image_shape[:2], len(self.channels) - 1)
        out_shape = (*self.image_shape[:2], self.channels[0])
        stem = Convolution(
            self.image_shape,
            out_shape,
            KERNEL_SIZE,
            1.0,
            style.bias,
            dtype=style.dtype,
            name="stem",
        )
        stages = _blocks(out_shape, sizes, self.channels, self.blocks, style)
        dense = dense_units(stages[-1].out_shape, self.hidden, style, style.scale)
        return [stem, *stages, *dense]


@_register
class ResNetDecoder(ImageDecoder):
    """The encoder's mirror image: dense layers, stages of pre-activation blocks, and pixels.

    Between two stages the map is doubled by repeating rows and columns, which leaves no checkered
    pattern as transposed convolutions may (Odena et al. 2016), and cropped to the encoder's size.

    The arguments and shapes are those of `ImageDecoder`, and:

    Args:
      hidden: Sizes of dense layers before the first map.
      channels: One number for each stage, in the decoder's order.
      blocks: Blocks in each stage.

    Example:
      >>> decoder = ResNetDecoder((8, 8, 1), event_size=2, channels=(4, 4))
      >>> decoder(tf.zeros([5, 2])).shape
      TensorShape([5, 8, 8, 1])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        event_size: int,
        output_channels: int | None = None,
        hidden: Sequence[int] = (),
        channels: Sequence[int] = (64, 64, 32),
        activation: str = "elu",
        norm: str = "none",
        blocks: int = 1,
        **kwargs: Any,
    ) -> None:
        self.channels, self.blocks = check_sizes("channels", channels), _checked(blocks)
        super().__init__(
            image_shape, event_size, output_channels, hidden, activation, norm, **kwargs
        )

    def make_stages(self, style: Style) -> list[Stage]:
        """The dense layers, the first map, the blocks and the pixels."""
        sizes = map_sizes(self.image_shape[:2], len(self.channels) - 1)[::-1]
        dense = dense_units((self.event_size,), self.hidden, style, scale=1.0)
        in_shape = dense[-1].out_shape if dense else (self.event_size,)
        out_shape, scale = (*sizes[0], self.channels[0]), style.scale if dense else 1.0
        stem = Linear(in_shape, out_shape, scale, style.bias, dtype=style.dtype, name="map")
        stages = _blocks(out_shape, sizes, self.channels, self.blocks, style)
        return [*dense, stem, *stages, pixel_convolution(self, stages[-1].out_shape)]


def _blocks(
    in_shape: tuple[int, ...],
    sizes: Sequence[tuple[int, int]],
    channels: Sequence[int],
    blocks: int,
    style: Style,
) -> list[Stage]:
    """The blocks of all stages, the first of each to its size, and a last activation."""
    stages: list[Stage] = []
    # All branches together add the variance of the stem's output, however many there are.
    last_scale = style.scale / (blocks * len(channels))
    for i, (size, filters) in enumerate(zip(sizes, channels, strict=True)):
        for j in range(blocks):
            block = _block(in_shape, (*size, filters), last_scale, style, f"stage_{i}_block_{j}")
            stages.append(block)
            in_shape = block.out_shape
    return [*stages, Activate(in_shape, style, name="last")]


def _block(
    in_shape: tuple[int, ...],
    out_shape: tuple[int, ...],
    last_scale: float,
    style: Style,
    name: str,
) -> ResidualBlock:
    bias, dtype = style.bias, style.dtype
    *space, channels = in_shape
    enlarge, first_in = None, in_shape
    if out_shape[0] > space[0] or out_shape[1] > space[1]:
        first_in = (*out_shape[:2], channels)
        enlarge = Enlarge(in_shape, first_in, dtype=dtype, name="enlarge")
    shortcut = None
    if channels != out_shape[-1] or (enlarge is None and in_shape != out_shape):
        # Before the enlargement, where it is a quarter of the work; elsewhere it halves the map.
        to = (*(out_shape[:2] if enlarge is None else space), out_shape[-1])
        shortcut = Convolution(in_shape, to, 1, 1.0, None, dtype=dtype, name="shortcut")
    first = Convolution(
        first_in, out_shape, KERNEL_SIZE, style.scale, bias, dtype=dtype, name="first"
    )
    second = Convolution(
        out_shape, out_shape, KERNEL_SIZE, last_scale, bias, dtype=dtype, name="second"
    )
    return ResidualBlock(first, second, shortcut, style, enlarge, name=name)


def _checked(blocks: int) -> int:
    if blocks < 1:
        raise ValueError(f"blocks must be at least 1. Received: {blocks=}.")
    return blocks
