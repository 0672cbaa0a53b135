"""Convolutional stages, and the sizes of the maps between them.

A net of several layers halves an image until its larger side is at most 8; an axis of at most 4
pixels is left alone. Halving rounds up, as convolutions with "same" padding do, so any size is
allowed, and the decoder runs through the encoder's sizes backwards, cropping where an upward step
gives one row or column too many.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae.networks.building import ensure_built
from tfp_flowvae.networks.image import ImageDecoder
from tfp_flowvae.networks.initial import PIXEL_SCALE, Tiled, normal
from tfp_flowvae.networks.stages import Stage

LARGEST_LAST_MAP, SMALLEST_HALVED = 8, 4


def map_sizes(size: Sequence[int], layers: int) -> list[tuple[int, int]]:
    """The `layers + 1` sizes `(h, w)` of the maps before, between and after the layers.

    The layers that halve the map are spread evenly: of five that halve a 28 x 28 image twice, the
    second and the fourth.
    """
    height, width = size
    halvings = max(0, math.ceil(math.log2(max(height, width) / LARGEST_LAST_MAP)))
    halvings = min(halvings, layers)
    halving = {(i + 1) * layers // (halvings + 1) for i in range(halvings)}
    sizes = [(height, width)]
    for layer in range(layers):
        height, width = (
            -(-axis // 2) if layer in halving and axis > SMALLEST_HALVED else axis
            for axis in sizes[-1]
        )
        sizes.append((height, width))
    return sizes


class Convolution(Stage):
    """A convolution, or where the map grows a transposed one, with "same" padding.

    Args:
      in_shape: `(h, w, c)` of the input.
      out_shape: `(h, w, c)` of the output. Each axis keeps its size, halves or doubles; both round
        as `map_sizes` does.
      kernel_size: Side of the kernel. It is cut where no input is that far away from any output.
      scale: Initial scale of the kernel, see `initial`.
      bias: The bias's initializer, or None for no bias.
      **kwargs: See `keras.layers.Layer`.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        kernel_size: int,
        scale: float,
        bias: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_shape, out_shape, **kwargs)
        pairs = list(zip(in_shape[:2], out_shape[:2], strict=True))
        grows = any(after > before for before, after in pairs)
        strides = [1 if before == after else 2 for before, after in pairs]
        # A transposed convolution is the gradient of one from the larger map, before cropping.
        larger = [
            size * stride if grows else size
            for size, stride in zip(in_shape[:2], strides, strict=True)
        ]
        kernel = [min(kernel_size, 2 * size - 1) for size in larger]
        taps = [_taps(*axis) for axis in zip(larger, kernel, strides, strict=True)]
        outputs = larger if grows else out_shape[:2]
        # Taps on the padding's zeros do not count; on small maps they are the majority.
        fan_in = in_shape[-1] * math.prod(taps) / math.prod(outputs)
        layer = keras.layers.Conv2DTranspose if grows else keras.layers.Conv2D
        self._crops = tuple(outputs) != self.out_shape[:2]
        self._convolution = layer(
            out_shape[-1],
            tuple(kernel),
            strides=tuple(strides),
            padding="same",
            use_bias=bias is not None,
            kernel_initializer=normal(scale, fan_in),
            bias_initializer=bias,
            dtype=self.dtype_policy,
            name="convolution",
        )

    def build(self, input_shape: Any = None) -> None:
        """Builds the convolution."""
        ensure_built(self._convolution, (None, *self.in_shape))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps `[B, *in_shape]` to `[B, *out_shape]`; B may be 0.

        For a batch of 0, TensorFlow 2.21 with oneDNN returns the shape of the convolution's input,
        in the gradient of a transposed convolution too, so such a batch skips the convolution.
        """
        if x.shape[0]:
            return self._convolve(x)
        none = tf.zeros([0, *self.out_shape], self.compute_dtype)
        return tf.cond(tf.shape(x)[0] > 0, lambda: self._convolve(x), lambda: none)

    def _convolve(self, x: tf.Tensor) -> tf.Tensor:
        y = self._convolution(x)
        return y[:, : self.out_shape[0], : self.out_shape[1]] if self._crops else y


def _taps(size: int, kernel: int, stride: int) -> int:
    """How many pairs of an input and an output of a "same" convolution the kernel connects."""
    outputs = -(-size // stride)
    before = max((outputs - 1) * stride + kernel - size, 0) // 2
    starts = [i * stride - before for i in range(outputs)]
    return sum(min(start + kernel, size) - max(start, 0) for start in starts)


def pixel_convolution(decoder: ImageDecoder, in_shape: Sequence[int]) -> Convolution:
    """The last stage of a convolutional decoder: one linear map for every pixel."""
    out_shape, bias = (*in_shape[:2], decoder.output_channels), Tiled(decoder.initial_bias)
    dtype = decoder.dtype_policy
    return Convolution(in_shape, out_shape, 1, PIXEL_SCALE, bias, dtype=dtype, name="pixels")
