"""Keras layers of vectors that may depend on a context: sizes, and weights or functions of it."""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from tfp_flowvae import _compat
from tfp_flowvae.networks.building import ConfiguredLayer


class SizedLayer(ConfiguredLayer):
    """A layer for vectors of `event_size`, with a context of `context_size` or without.

    It computes in float32 whatever the precision policy: log-dets do not survive less.

    Args:
      event_size: D. Left out where the layer's owner knows it.
      context_size: Size of the context, or None for no context. The owner fills it in, too.
      **kwargs: See `keras.layers.Layer`.

    Raises:
      ValueError: If a size is below 1.
    """

    event_size: int  # known once the layer is built
    context_size: int | None

    def __init__(
        self, *, event_size: int | None = None, context_size: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**{"dtype": "float32", **kwargs})
        for size in (event_size, context_size):
            if size is not None and size < 1:
                raise ValueError(
                    "event_size and context_size must be at least 1 (context_size may be None). "
                    f"Received: {event_size=}, {context_size=}."
                )
        self.event_size, self.context_size = event_size, context_size  # type: ignore[assignment]

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Takes the sizes that the constructor left open from the shapes.

        Args:
          z_shape: `(..., D)`; None where the constructor was given D.
          context_shape: `(..., context_size)`, or None.

        Raises:
          ValueError: If a size is not known, or is another than in the constructor.
        """
        sizes = {
            "event_size": self.event_size if z_shape is None else z_shape[-1],
            "context_size": self.context_size if context_shape is None else context_shape[-1],
        }
        if sizes["event_size"] is None:
            raise ValueError(
                f"{type(self).__name__} does not know the size of its vectors: give it event_size, "
                "or give it to a FlowDistribution or FlowVAE, which knows it. "
                "Received: event_size=None."
            )
        for name, size in sizes.items():
            known = getattr(self, name)
            if known not in (None, size):
                raise ValueError(
                    f"{type(self).__name__} was made for {name}={known}. Received: {name}={size}."
                )
            setattr(self, name, size)

    def check_context(self, context: tf.Tensor | None) -> None:
        """Builds the layer if need be, and checks the context.

        Raises:
          ValueError: If a context is missing, not wanted or of the wrong size.
        """
        if not self.built:
            self.build(None, None if context is None else context.shape)
        size = None if context is None else context.shape[-1]
        if size != self.context_size:
            wanted = "none" if self.context_size is None else f"one of size {self.context_size}"
            got = "none" if context is None else f"one of shape {tuple(context.shape)}"
            raise ValueError(
                f"{type(self).__name__} was built for a context: {wanted}. Received: {got}."
            )

    def build_part(self, part: SizedLayer) -> None:
        """Builds a part for the sizes of this layer, unless it is built.

        Raises:
          ValueError: If it has other sizes.
        """
        if not part.built:
            context = None if self.context_size is None else (None, self.context_size)
            part.build((None, self.event_size), context)
        if (part.event_size, part.context_size) != (self.event_size, self.context_size):
            raise ValueError(
                f"Every part of this {type(self).__name__} must have event_size={self.event_size} "
                f"and context_size={self.context_size}. Received: {part.name} with "
                f"event_size={part.event_size}, context_size={part.context_size}."
            )


class ParametricLayer(SizedLayer):
    """A layer with parameters of fixed shapes: its weights, or linear functions of the context.

    A subclass names the shapes of the parameters and their starting values. With a context each
    parameter starts near those values. The arguments are those of `SizedLayer`.
    """

    def parameter_initializers(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """From each parameter's name to its shape and initializer: a subclass defines it."""
        raise NotImplementedError

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Creates the weights."""
        super().build(z_shape, context_shape)
        self._weights_by_name = {}
        self._shapes = {}
        for name, (shape, initializer) in self.parameter_initializers().items():
            self._shapes[name] = shape
            self._weights_by_name[name] = self.add_weight(
                name=name, shape=shape, initializer=initializer, autocast=False
            )
            if self.context_size is not None:
                # The scale makes what the context adds small beside the starting values, whatever
                # the number of features.
                self._weights_by_name[f"{name}_kernel"] = self.add_weight(
                    name=f"{name}_kernel",
                    shape=(self.context_size, math.prod(shape)),
                    initializer=keras.initializers.VarianceScaling(1e-4, mode="fan_in"),
                    autocast=False,
                )

    def parameters(self, context: tf.Tensor | None = None) -> dict[str, tf.Tensor | tf.Variable]:
        """The parameters: live variables of their shapes, or tensors with `[B]` in front."""
        weights = {name: _compat.live(weight) for name, weight in self._weights_by_name.items()}
        if context is None:
            return weights
        context = tf.cast(context, self.variable_dtype)
        parameters = {}
        for name, shape in self._shapes.items():
            flat = tf.matmul(context, weights[f"{name}_kernel"])
            shaped = tf.reshape(flat, tf.concat([tf.shape(context)[:-1], shape], axis=0))
            parameters[name] = shaped + weights[name]
        return parameters
