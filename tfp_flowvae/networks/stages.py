"""The building blocks of encoders and decoders: layers that know the shapes they map between."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae.networks.batch_norm import BatchNormalization
from tfp_flowvae.networks.building import ensure_built
from tfp_flowvae.networks.initial import normal, scale_after


@dataclasses.dataclass(frozen=True)
class Style:
    """What the stages of one network have in common.

    Attributes:
      activation: Name of the activation.
      norm: "none", "batch" or "layer".
      dtype: The precision policy.
      gated: Whether units are gated.
    """

    activation: str
    norm: str
    dtype: Any
    gated: bool = False

    @property
    def bias(self) -> str | None:
        """The bias's initializer of a map before a norm, whose offset takes its place, or not."""
        return None if self.norm != "none" else "zeros"

    @property
    def scale(self) -> float:
        """The initial scale of a linear map that comes after an activation."""
        return scale_after(self.activation, self.gated)

    def normalisation(self, shape: Sequence[int]) -> keras.layers.Layer | None:
        """A fresh normalisation of vectors `[n]` or maps `[h, w, c]`, or None.

        Layer norm over a map takes its moments over the whole image: over the channels of one
        pixel they would blow up a uniform background.
        """
        if self.norm == "batch":
            shared = tf.distribute.get_strategy().num_replicas_in_sync > 1
            return BatchNormalization(synchronized=shared, dtype=self.dtype, name="norm")
        if self.norm == "layer" and len(shape) == 1:
            return keras.layers.LayerNormalization(dtype=self.dtype, name="norm")
        if self.norm == "layer":
            return keras.layers.GroupNormalization(groups=1, dtype=self.dtype, name="norm")
        return None


class Stage(keras.layers.Layer):
    """A layer from `[B, *in_shape]` to `[B, *out_shape]`, built from its constructor alone.

    Args:
      in_shape: The input's shape without its batch.
      out_shape: The output's shape without its batch.
      **kwargs: See `keras.layers.Layer`.
    """

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """`[B, *out_shape]`."""
        return (input_shape[0], *self.out_shape)


class Linear(Stage):
    """A dense layer between any two shapes, which it flattens and restores.

    The arguments are those of `Stage`, and:

    Args:
      scale: Initial scale of the kernel, see `initial`.
      bias: The bias's initializer, or None for no bias.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_shape: Sequence[int],
        scale: float,
        bias: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_shape, out_shape, **kwargs)
        self._size = math.prod(in_shape)
        self._dense = keras.layers.Dense(
            math.prod(out_shape),
            use_bias=bias is not None,
            kernel_initializer=normal(scale, self._size),
            bias_initializer=bias,
            dtype=self.dtype_policy,
            name="dense",
        )

    def build(self, input_shape: Any = None) -> None:
        """Builds the dense layer."""
        ensure_built(self._dense, (None, self._size))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps `[B, *in_shape]` to `[B, *out_shape]`."""
        y = self._dense(tf.reshape(x, [-1, self._size]))
        return y if len(self.out_shape) == 1 else tf.reshape(y, [-1, *self.out_shape])


class Unit(Stage):
    """A linear map, a normalisation and an activation, with a gate or without.

        h = f(norm(A x + a))                               plain
        h = f(norm(A x + a)) * sigmoid(B x + b)            gated, Dauphin et al. (2017), eq. 1

    https://arxiv.org/abs/1612.08083. A and B are one kernel, whose outputs are split in two. Where
    there is a normalisation its offset takes the place of a.

    Args:
      linear: The map, with twice as many outputs (in the last dimension) where the unit is gated
        and no bias where it is normalised.
      style: Activation, norm, gate and precision.
      **kwargs: See `keras.layers.Layer`.
    """

    def __init__(self, linear: Stage, style: Style, **kwargs: Any) -> None:
        *space, channels = linear.out_shape
        out_shape = (*space, channels // 2 if style.gated else channels)
        super().__init__(linear.in_shape, out_shape, dtype=style.dtype, **kwargs)
        self._linear = linear
        self._gated = style.gated
        self._norm = style.normalisation(out_shape)
        self._activation = keras.activations.get(style.activation)
        self._gate_bias = None

    def build(self, input_shape: Any = None) -> None:
        """Builds the linear map and the normalisation."""
        ensure_built(self._linear)
        if self._norm is not None:
            ensure_built(self._norm, (None, *self.out_shape))
            if self._gated:
                self._gate_bias = self.add_weight(
                    name="gate_bias", shape=self.out_shape[-1:], initializer="zeros"
                )

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps `[B, *in_shape]` to `[B, *out_shape]`."""
        value, gate = self._linear(x), None
        if self._gated:
            value, gate = tf.split(value, 2, axis=-1)
        if self._norm is not None:
            value = self._norm(value)
        value = self._activation(value)
        if gate is None:
            return value
        if self._gate_bias is not None:
            gate += tf.convert_to_tensor(self._gate_bias)
        return value * tf.sigmoid(gate)


class Activate(Stage):
    """A normalisation and an activation: the end of a chain of pre-activation blocks."""

    def __init__(self, shape: Sequence[int], style: Style, **kwargs: Any) -> None:
        super().__init__(shape, shape, dtype=style.dtype, **kwargs)
        self._norm = style.normalisation(shape)
        self._activation = keras.activations.get(style.activation)

    def build(self, input_shape: Any = None) -> None:
        """Builds the normalisation."""
        if self._norm is not None:
            ensure_built(self._norm, (None, *self.in_shape))

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps `[B, *in_shape]` to the same shape."""
        return self._activation(x if self._norm is None else self._norm(x))


class Enlarge(Stage):
    """Repeats rows and columns twice where `out_shape` is larger than a map, then crops to it."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps `[B, h, w, c]` to `[B, *out_shape]`."""
        for axis in (1, 2):
            if self.out_shape[axis - 1] > self.in_shape[axis - 1]:
                x = tf.repeat(x, 2, axis=axis)
        return x[:, : self.out_shape[0], : self.out_shape[1]]


class ResidualBlock(Stage):
    """x + F(x), with F(x) = C f(norm(B f(norm(x)))): He et al. (2016), "identity mappings".

    https://arxiv.org/abs/1603.05027, figure 4e. Where F changes the shape of x, a linear map
    without bias does so in the shortcut, too.

    Args:
      first: B.
      second: C.
      shortcut: The map of the shortcut, or None for the identity.
      style: Activation, norm and precision.
      enlarge: Enlarges maps before B and after the shortcut, or None.
      **kwargs: See `keras.layers.Layer`.
    """

    def __init__(
        self,
        first: Stage,
        second: Stage,
        shortcut: Stage | None,
        style: Style,
        enlarge: Enlarge | None = None,
        **kwargs: Any,
    ) -> None:
        in_shape = first.in_shape if enlarge is None else enlarge.in_shape
        super().__init__(in_shape, second.out_shape, dtype=style.dtype, **kwargs)
        self._before = Activate(in_shape, style, name="before")
        self._between = Activate(first.out_shape, style, name="between")
        self._first, self._second, self._shortcut = first, second, shortcut
        self._enlarge = enlarge

    def build(self, input_shape: Any = None) -> None:
        """Builds every part."""
        for part in (self._before, self._first, self._between, self._second, self._shortcut):
            if part is not None:
                ensure_built(part)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Maps `[B, *in_shape]` to `[B, *out_shape]`."""
        h, shortcut = self._before(x), x if self._shortcut is None else self._shortcut(x)
        if self._enlarge is not None:
            h, shortcut = self._enlarge(h), self._enlarge(shortcut)
        return shortcut + self._second(self._between(self._first(h)))
