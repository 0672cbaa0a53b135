"""What all encoders and decoders share: shapes, style, and a chain of stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfp_flowvae.networks.building import ConfiguredLayer, check_sizes, ensure_built
from tfp_flowvae.networks.initial import MEAN_SQUARES, PIXEL_SCALE, Tiled
from tfp_flowvae.networks.registry import NORMS
from tfp_flowvae.networks.stages import Linear, Stage, Style, Unit


class ImageNetwork(ConfiguredLayer):
    """Base of encoders and decoders: checks what they share and runs their chain of stages.

    A subclass defines `make_stages`, and the class attribute `gated` where its units are gated. The
    arguments are those of `ImageEncoder`.

    Raises:
      ValueError: If a size is below 1 or a name is unknown.
    """

    gated = False

    def __init__(
        self,
        image_shape: Sequence[int],
        hidden: Sequence[int],
        activation: str,
        norm: str,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise ValueError(
                "image_shape must be (height, width, channels), each at least 1. "
                f"Received: {tuple(image_shape)}."
            )
        for name, word, allowed in (
            ("activation", activation, MEAN_SQUARES),
            ("norm", norm, NORMS),
        ):
            if word not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}. Received: {word!r}.")
        self.image_shape, self.hidden = tuple(image_shape), tuple(hidden)
        self.activation, self.norm = activation, norm

    def make_stages(self, style: Style) -> list[Stage]:
        """The chain from input to output: a subclass defines it."""
        raise NotImplementedError

    def _make_stages(self) -> None:
        style = Style(self.activation, self.norm, self.dtype_policy, self.gated)
        self._stages = self.make_stages(style)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps the input, whose leading dimensions may be any, through every stage."""
        size = len(self._stages[0].in_shape)
        leading = tf.shape(x)[:-size]
        x = tf.reshape(x, [-1, *self._stages[0].in_shape])
        for stage in self._stages:
            x = stage(x)
        return tf.reshape(x, tf.concat([leading, self._stages[-1].out_shape], axis=0))

    def build(self, input_shape: Any = None) -> None:
        """Builds every stage; the sizes are known from the constructor."""
        for stage in self._stages:
            ensure_built(stage)

    def compute_output_shape(self, input_shape: Any) -> tuple[Any, ...]:
        """The leading dimensions of the input, then the shape of the last stage's output."""
        leading = len(input_shape) - len(self._stages[0].in_shape)
        return (*input_shape[:leading], *self._stages[-1].out_shape)


class ImageEncoder(ImageNetwork):
    """Base of encoders, from images to the features that a posterior's parameters are linear in.

    Args:
      image_shape: `(H, W, C)`.
      hidden: Sizes of dense layers; the last is the number of features.
      activation: One of elu, relu, silu, softplus, tanh, gelu and linear.
      norm: "none", "batch" or "layer".
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
        super().__init__(image_shape, hidden, activation, norm, **kwargs)
        check_sizes("hidden", self.hidden)
        self._make_stages()


class ImageDecoder(ImageNetwork):
    """Base of decoders, from latent vectors to the parameters of the likelihood of every pixel.

    Args:
      image_shape: `(H, W, C)`.
      event_size: D, the size of the latent vector.
      output_channels: How many numbers the likelihood takes for each pixel, all its channels
        together; C where None.
      hidden: Sizes of dense layers.
      activation: One of elu, relu, silu, softplus, tanh, gelu and linear.
      norm: "none", "batch" or "layer".
      initial_bias: The average output of a fresh decoder: one number for each output channel, such
        as the logit of the mean of the images; zero where None.
      **kwargs: See `keras.layers.Layer`.

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
        initial_bias: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, hidden, activation, norm, **kwargs)
        if output_channels is None:
            output_channels = self.image_shape[-1]
        if event_size < 1 or output_channels < 1:
            raise ValueError(
                "event_size and output_channels must be at least 1. "
                f"Received: {event_size=}, {output_channels=}."
            )
        if self.hidden:
            check_sizes("hidden", self.hidden)
        if initial_bias is not None and len(initial_bias) != output_channels:
            raise ValueError(
                f"initial_bias must hold {output_channels} numbers, one for each output channel. "
                f"Received: {initial_bias}."
            )
        self.event_size, self.output_channels = event_size, output_channels
        self.initial_bias = None if initial_bias is None else tuple(map(float, initial_bias))
        self._make_stages()

    def dense_pixels(self, in_shape: Sequence[int]) -> Linear:
        """A dense last stage."""
        out_shape = (*self.image_shape[:2], self.output_channels)
        bias = Tiled(self.initial_bias)
        return Linear(
            in_shape, out_shape, PIXEL_SCALE, bias, dtype=self.dtype_policy, name="pixels"
        )


def dense_units(
    in_shape: Sequence[int], sizes: Sequence[int], style: Style, scale: float
) -> list[Stage]:
    """Dense units of these sizes, one after the other; the first starts with `scale`."""
    units: list[Stage] = []
    for i, size in enumerate(sizes):
        out_shape, scale = (2 * size if style.gated else size,), style.scale if i else scale
        linear = Linear(in_shape, out_shape, scale, style.bias, dtype=style.dtype, name="linear")
        units.append(Unit(linear, style, name=f"hidden_{i}"))
        in_shape = units[-1].out_shape
    return units
