"""The base classes of flows: Keras layers that own weights and answer with a bijector."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import _compat
from tfp_flowvae.bijectors import forward_and_log_det


class Flow(keras.layers.Layer):
    """A Keras layer whose product is a `tfb.Bijector` on vectors of `event_size`.

    Without a context the bijector's parameters are the layer's own weights, live. With a context
    (encoder features, for example) they are a function of it, one set of parameters for each
    example: the flow is amortised. The context is closed over when the bijector is made, so
    `tfb.Chain`, `tfb.Invert` and `tfd.TransformedDistribution` need not know of it.

    A subclass defines `make_bijector` and, if it has weights, `build`, which creates them once
    `super().build(z_shape, context_shape)` has set `event_size` and `context_size`.

    Flows compute in float32 whatever the precision policy: log-dets do not survive less.

    Args:
      event_size: D. Left out where the flow's owner knows it: a `FlowDistribution`, a `FlowVAE`.
      context_size: Size of the context, or None for a flow with weights of its own. The owner
        fills it in, too.
      **kwargs: See `keras.layers.Layer`.

    Raises:
      ValueError: If a size is below 1.
    """

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
        self.event_size, self.context_size = event_size, context_size

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Takes the sizes that the constructor left open from the shapes.

        Args:
          z_shape: `(..., D)`; None where the constructor was given D.
          context_shape: `(..., context_size)`, or None.

        Raises:
          ValueError: If a size is not known, or is another than in the constructor.
        """
        event_size = self.event_size if z_shape is None else z_shape[-1]
        context_size = self.context_size if context_shape is None else context_shape[-1]
        if event_size is None:
            raise ValueError(
                f"{type(self).__name__} does not know the size of its vectors: give it event_size, "
                "or give it to a FlowDistribution or FlowVAE, which do. Received: event_size=None."
            )
        for name, size in (("event_size", event_size), ("context_size", context_size)):
            known = getattr(self, name)
            if known not in (None, size):
                raise ValueError(
                    f"{type(self).__name__} was made for {name}={known}. Received: {name}={size}."
                )
        self.event_size, self.context_size = event_size, context_size

    def bijector(self, context: tf.Tensor | None = None) -> tfb.Bijector:
        """The bijector from a base sample z0 `[..., D]` to z `[..., D]`.

        Args:
          context: `[B, context_size]` for a flow with a context, else None.

        Returns:
          A bijector with batch shape `[B]`, or `[]` without a context. TFP's coupling and
          autoregressive bijectors cannot see the batch of a context that their conditioner closes
          over and report `[]`: under a `tfd.TransformedDistribution` the base has to have it.

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
        return self.make_bijector(context)

    def make_bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        """The bijector of a flow that is built, for a context that fits: a subclass defines it."""
        raise NotImplementedError

    def call(self, z: tf.Tensor, context: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps z0 `[..., D]` to z `[..., D]` and log |det dz/dz0| `[...]`, in nats."""
        y, log_det = forward_and_log_det(self.bijector(context), z)
        # TFP answers with a scalar where the log-det is constant.
        return y, tf.broadcast_to(log_det, tf.shape(y)[:-1])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "event_size": self.event_size,
            "context_size": self.context_size,
        }


def checked_length(length: int) -> int:
    """Returns K; raises `ValueError` if it is below 1."""
    if length < 1:
        raise ValueError(f"length must be at least 1. Received: {length=}.")
    return length


def checked_word(name: str, word: str, allowed: Sequence[str]) -> str:
    """Returns the word; raises `ValueError` if it is not one of those allowed."""
    if word not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}. Received: {name}={word!r}.")
    return word


def composed(layers: Sequence[tfb.Bijector]) -> tfb.Bijector:
    """One bijector that applies `layers` in their order; none of them is the identity."""
    if not layers:
        return tfb.Identity()
    # tfb.Chain applies its last part first.
    return layers[0] if len(layers) == 1 else tfb.Chain(list(layers)[::-1])


def derived(
    value: tf.Tensor | tf.Variable, function: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor | tfp.util.DeferredTensor:
    """A function of a parameter; of a variable it stays live, and TFP sees the variable."""
    result = function(tf.convert_to_tensor(value))
    if not isinstance(value, tf.Variable):
        return result
    return tfp.util.DeferredTensor(value, function, shape=result.shape, name="derived")


class ParametricFlow(Flow):
    """A flow whose bijector takes parameters of fixed shapes.

    A subclass names the shapes of the parameters and their starting values. Without a context each
    parameter is a weight; with one it is a linear function of the context that starts near those
    values. The arguments are those of `Flow`.
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


class RepeatedFlow(ParametricFlow):
    """A parametric flow of K layers: its parameters have K in front, `[K, ...]`.

    Args:
      length: K.
      **kwargs: See `Flow`.

    Raises:
      ValueError: If the length is below 1.
    """

    def __init__(self, length: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.length = checked_length(length)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "length": self.length}
