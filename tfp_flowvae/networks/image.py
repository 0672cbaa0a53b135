"""What all encoders and decoders share: shapes, style, config, and a chain of stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae.networks.building import ensure_built
from tfp_flowvae.networks.initial import MEAN_SQUARES, PIXEL_SCALE, Tiled
from tfp_flowvae.networks.registry import NORMS
from tfp_flowvae.networks.stages import Linear, Stage, Style, Unit


class ImageNetwork(keras.layers.Layer):
    """Base of encoders and decoders: checks what they share and runs their chain of stages.

    Args:
      image_shape: `(H, W, C)`.
      hidden: Sizes of dense layers.
      channels: Numbers of channels of convolutional layers, or None where there are none.
      activation: One of elu, relu, silu, softplus, tanh, gelu and linear.
      norm: One of none, batch and layer.
      **kwargs: See `keras.layers.Layer`.

    Raises:
      ValueError: If a size is below 1 or a name is unknown.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        hidden: Sequence[int],
        activation: str,
        norm: str,
        channels: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise ValueError(
                "image_shape must be (height, width, channels), each at least 1. "
                f"Received: {tuple(image_shape)}."
            )
        if activation not in MEAN_SQUARES:
            raise ValueError(
                f"activation must be one of {', '.join(MEAN_SQUARES)}. Received: {activation!r}."
            )
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}. Received: {norm!r}.")
        if channels is not None:
            check_sizes("channels", channels)
        self.image_shape = tuple(image_shape)
        self.hidden = tuple(hidden)
        self.channels = None if channels is None else tuple(channels)
        self.activation, self.norm = activation, norm
        self._stages: list[Stage] = []

    def _style(self, gated: bool = False) -> Style:
        return Style(self.activation, self.norm, self.dtype_policy, gated)

    def _run(self, x: tf.Tensor) -> tf.Tensor:
        """The stages, over an input whose leading dimensions are made one and restored."""
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

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        channels = {} if self.channels is None else {"channels": self.channels}
        return {
            **super().get_config(),
            "image_shape": self.image_shape,
            "hidden": self.hidden,
            **channels,
            "activation": self.activation,
            "norm": self.norm,
        }


class ImageEncoder(ImageNetwork):
    """Base of encoders, `[..., H, W, C]` to `[..., hidden[-1]]`; see `ImageNetwork`."""

    def __init__(self, image_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(image_shape, **kwargs)
        check_sizes("hidden", self.hidden)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps `[..., H, W, C]` to features `[..., hidden[-1]]`."""
        return self._run(x)


class ImageDecoder(ImageNetwork):
    """Base of decoders, `[..., D]` to `[..., H, W, output_channels]`; see `ImageNetwork`.

    Args:
      image_shape: `(H, W, C)`.
      event_size: D, the size of the latent vector.
      output_channels: How many numbers the likelihood takes for each pixel, all its channels
        together; C where None.
      initial_bias: What a fresh decoder puts out on average: one number for each output channel.
        The logit of the mean of the images, say; zero where None.
      **kwargs: See `ImageNetwork`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        event_size: int,
        output_channels: int | None = None,
        initial_bias: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(image_shape, **kwargs)
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

    def call(self, z: tf.Tensor) -> tf.Tensor:
        """Maps `[..., D]` to `[..., H, W, output_channels]`."""
        return self._run(z)

    def _pixels(self, in_shape: Sequence[int]) -> Linear:
        """A dense last stage."""
        return Linear(
            in_shape,
            (*self.image_shape[:2], self.output_channels),
            PIXEL_SCALE,
            Tiled(self.initial_bias),
            dtype=self.dtype_policy,
            name="pixels",
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "event_size": self.event_size,
            "output_channels": self.output_channels,
            "initial_bias": self.initial_bias,
        }


def dense_units(
    in_shape: Sequence[int], sizes: Sequence[int], style: Style, scale: float, name: str = "hidden"
) -> list[Unit]:
    """Dense units of these sizes, one after the other; the first starts with `scale`."""
    units = []
    for i, size in enumerate(sizes):
        linear = Linear(
            in_shape,
            (2 * size if style.gated else size,),
            style.scale if i else scale,
            bias=None if style.norm != "none" else "zeros",
            dtype=style.dtype,
            name="linear",
        )
        units.append(Unit(linear, style, name=f"{name}_{i}"))
        in_shape = units[-1].out_shape
    return units


def check_sizes(name: str, sizes: Sequence[int]) -> None:
    """Raises ValueError unless there is at least one size and each is at least 1."""
    if not sizes or min(sizes) < 1:
        raise ValueError(
            f"{name} must name at least one layer, each of at least 1. "
            f"Received: {name}={tuple(sizes)}."
        )
