"""A bijector that is a function of a context, so that its batch can be sliced."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors import forward_and_log_det, inverse_and_log_det
from tfp_flowvae.bijectors.joint import JointEvaluation


class Amortised(JointEvaluation, tfb.Bijector):
    """The bijector that a function makes of a context, with the context as its parameter.

    TFP slices a batch by slicing parameters. A bijector whose conditioner closes over a context
    has none to slice: a slice of it would be the whole. Here a slice is the bijector of the
    sliced context, and the batch shape is the context's.

    Args:
      context: `[..., C]`.
      make: From a context `[..., C]` of rank 2 or more to a bijector of vectors.
      name: The name of this bijector and the scope of its operations.
    """

    def __init__(
        self,
        context: tf.Tensor,
        make: Callable[[tf.Tensor], tfb.Bijector],
        name: str = "amortised",
    ) -> None:
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            self._context = context
            # Keras's layers take no single vectors.
            self._is_single = context.shape.rank == 1
            self._inner = make(context[tf.newaxis] if self._is_single else context)
            super().__init__(
                forward_min_event_ndims=1,
                is_constant_jacobian=self._inner.is_constant_jacobian,
                dtype=context.dtype,
                parameters=parameters,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        return {"context": tfp.util.ParameterProperties(event_ndims=1)}

    @property
    def context(self) -> tf.Tensor:
        """The context, `[..., C]`."""
        return self._context

    @property
    def inner(self) -> tfb.Bijector:
        """The bijector of the context."""
        return self._inner

    def _forward(self, x: tf.Tensor) -> tf.Tensor:
        return self._vectors(self._inner.forward(self._points(x)))

    def _inverse(self, y: tf.Tensor) -> tf.Tensor:
        return self._vectors(self._inner.inverse(self._points(y)))

    def _forward_log_det_jacobian(self, x: tf.Tensor) -> tf.Tensor:
        return self._numbers(self._inner.forward_log_det_jacobian(self._points(x), event_ndims=1))

    def _inverse_log_det_jacobian(self, y: tf.Tensor) -> tf.Tensor:
        return self._numbers(self._inner.inverse_log_det_jacobian(self._points(y), event_ndims=1))

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        y, log_det = forward_and_log_det(self._inner, self._points(x))
        return self._vectors(y), self._numbers(log_det)

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x, log_det = inverse_and_log_det(self._inner, self._points(y))
        return self._vectors(x), self._numbers(log_det)

    def _points(self, x: tf.Tensor) -> tf.Tensor:
        """`[..., D]` for a batch of contexts, `[..., 1, D]` for a single one."""
        return x[..., tf.newaxis, :] if self._is_single else x

    def _vectors(self, y: tf.Tensor) -> tf.Tensor:
        return y[..., 0, :] if self._is_single else y

    def _numbers(self, log_det: tf.Tensor) -> tf.Tensor:
        # Where it is constant TFP answers with a scalar.
        return log_det[..., 0] if self._is_single and log_det.shape.rank else log_det


def amortised(
    context: tf.Tensor | None, make: Callable[[tf.Tensor | None], tfb.Bijector]
) -> tfb.Bijector:
    """`make(context)`, whose batch can be sliced if there is a context."""
    if context is None:
        return make(None)
    # A new function each time: TFP's cache takes bijectors of equal parameters for the same one,
    # whatever has become of the weights.
    return Amortised(context, functools.partial(make))
