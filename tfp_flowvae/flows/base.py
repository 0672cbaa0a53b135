"""The base classes of flows: Keras layers that own weights and make bijectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors import forward_and_log_det
from tfp_flowvae.flows.sized import ParametricLayer, SizedLayer


class Flow(SizedLayer):
    """A Keras layer that makes a `tfb.Bijector` on vectors of `event_size`.

    Without a context the bijector's parameters are the layer's own weights, live. With a context
    (encoder features, for example) they are a function of it, one set of parameters for each
    example: the flow is amortised. The context is closed over when the bijector is made, so
    `tfb.Chain`, `tfb.Invert` and `tfd.TransformedDistribution` need not know of it.

    A subclass defines `make_bijector` and, if it has weights, `build`, which creates them once
    `super().build(z_shape, context_shape)` has set `event_size` and `context_size`. Arguments of
    its constructor that it keeps as attributes of the same names are its config.

    Args:
      event_size: D. Left out where the flow's owner knows it: a `FlowDistribution`, a `FlowVAE`.
      context_size: Size of the context, or None for a flow with weights of its own. The owner
        fills it in, too.
      **kwargs: See `keras.layers.Layer`.

    Example:
      >>> class Double(Flow):
      ...     def make_bijector(self, context):
      ...         return tfb.Scale(2.0)
      >>> z, log_det = Double(event_size=3)(tf.ones([2, 3]))
      >>> log_det  # 3 log 2
      <tf.Tensor: shape=(2,), dtype=float32, numpy=array([2.0794, 2.0794], dtype=float32)>
    """

    def bijector(self, context: tf.Tensor | None = None) -> tfb.Bijector:
        """The bijector from a base sample z0 `[..., D]` to z `[..., D]`.

        Args:
          context: `[B, context_size]` for a flow with a context, else None.

        Returns:
          A bijector with batch shape `[B]`, or `[]` without a context. Slices of the batch are the
          bijectors of the sliced context.

        Raises:
          ValueError: If a context is missing, not wanted or of the wrong size.
        """
        self.check_context(context)
        return self.make_bijector(
            None if context is None else tf.cast(context, self.variable_dtype)
        )

    def make_bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        """The bijector of a flow that is built, for a context that fits: a subclass defines it."""
        raise NotImplementedError

    def call(self, z: tf.Tensor, context: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps z0 `[..., D]` to z `[..., D]` and log |det dz/dz0| `[...]`, in nats."""
        y, log_det = forward_and_log_det(self.bijector(context), z)
        # TFP answers with a scalar where the log-det is constant.
        return y, tf.broadcast_to(log_det, tf.shape(y)[:-1])


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


class ParametricFlow(Flow, ParametricLayer):
    """A flow whose bijector takes parameters of fixed shapes.

    A subclass names the parameters, their shapes and their starting values in
    `parameter_initializers`, and makes the bijector of `parameters(context)`. Without a context
    each parameter is a weight; with one it is a linear function of the context that starts near
    those values. The arguments are those of `Flow`.

    Example:
      >>> class Scale(ParametricFlow):
      ...     def parameter_initializers(self):
      ...         return {"log_scale": ((self.event_size,), "zeros")}
      ...
      ...     def make_bijector(self, context):
      ...         return tfb.Scale(log_scale=self.parameters(context)["log_scale"])
      >>> flow = Scale(event_size=3, context_size=2)  # a scale for each context
      >>> z, log_det = flow(tf.zeros([5, 3]), tf.zeros([5, 2]))
    """


class RepeatedFlow(ParametricFlow):
    """A parametric flow of K layers: its parameters have K in front, `[K, ...]`.

    Args:
      length: K.
      **kwargs: See `Flow`.

    Raises:
      ValueError: If the length is below 1.

    Example:
      >>> class Shifts(RepeatedFlow):
      ...     def parameter_initializers(self):
      ...         return {"shift": ((self.length, self.event_size), "zeros")}
      ...
      ...     def make_bijector(self, context):
      ...         return tfb.Shift(tf.reduce_sum(self.parameters(context)["shift"], axis=-2))
      >>> z, log_det = Shifts(4, event_size=3)(tf.zeros([5, 3]))
    """

    def __init__(self, length: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.length = checked_length(length)
