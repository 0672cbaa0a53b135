"""Residual multilayer perceptrons: pre-activation blocks on vectors."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from tfp_flowvae.networks.building import check_sizes
from tfp_flowvae.networks.image import ImageDecoder, ImageEncoder
from tfp_flowvae.networks.stages import Activate, Linear, ResidualBlock, Stage, Style

_register = keras.saving.register_keras_serializable(package="tfp_flowvae")


@_register
class ResidualMLPEncoder(ImageEncoder):
    """A linear map, a residual block for each size in `hidden`, and an activation.

        x + C f(norm(B f(norm(x))))           He et al. (2016), https://arxiv.org/abs/1603.05027

    Where two neighbouring sizes differ, the shortcut is a linear map. The arguments and shapes are
    those of `ImageEncoder`.

    Example:
      >>> encoder = ResidualMLPEncoder((8, 8, 1), hidden=(32, 16))
      >>> encoder(tf.zeros([5, 8, 8, 1])).shape
      TensorShape([5, 16])
    """

    def make_stages(self, style: Style) -> list[Stage]:
        """The linear map, the blocks and the activation."""
        return _residual_stages(self.image_shape, self.hidden, style)


@_register
class ResidualMLPDecoder(ImageDecoder):
    """A linear map, a residual block for each size in `hidden`, an activation and a linear map.

    The arguments and shapes are those of `ImageDecoder`; `hidden` names at least one block.

    Example:
      >>> decoder = ResidualMLPDecoder((8, 8, 1), event_size=2, hidden=(16, 16))
      >>> decoder(tf.zeros([5, 2])).shape
      TensorShape([5, 8, 8, 1])
    """

    def make_stages(self, style: Style) -> list[Stage]:
        """The linear map, the blocks, the activation and the pixels."""
        check_sizes("hidden", self.hidden)
        stages = _residual_stages((self.event_size,), self.hidden, style)
        return [*stages, self.dense_pixels(stages[-1].out_shape)]


def _residual_stages(in_shape: Sequence[int], sizes: Sequence[int], style: Style) -> list[Stage]:
    bias, dtype = style.bias, style.dtype
    stages: list[Stage] = [Linear(in_shape, sizes[:1], 1.0, bias, dtype=dtype, name="stem")]
    # All branches together add the variance of the stem's output, however many there are.
    last_scale = style.scale / len(sizes)
    for i, size in enumerate(sizes):
        before, after = stages[-1].out_shape, (size,)
        first = Linear(before, after, style.scale, bias, dtype=dtype, name="first")
        second = Linear(after, after, last_scale, bias, dtype=dtype, name="second")
        shortcut = None
        if before != after:
            shortcut = Linear(before, after, 1.0, None, dtype=dtype, name="shortcut")
        stages.append(ResidualBlock(first, second, shortcut, style, name=f"block_{i}"))
    return [*stages, Activate(stages[-1].out_shape, style, name="last")]
