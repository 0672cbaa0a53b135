"""A bijector's value and its log-det-Jacobian from one evaluation.

Sampling with a log-prob needs both f(x) and log |det df/dx|. `tfb.Bijector` has a method for each,
and `tfb.RealNVP` and `tfb.MaskedAutoregressiveFlow` run their conditioner, the expensive part, once
in either. The two functions here return both and run every conditioner once, also inside of
`tfb.Chain` and `tfb.Invert`. For any other bijector they call its two methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import _compat
from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import observed


class JointEvaluation:
    """Mixin for a bijector whose natural unit of work is value and log-det together.

    A subclass, which also inherits a `tfb.Bijector`, writes `_forward_and_log_det(x)` and
    `_inverse_and_log_det(y)`. Each returns the value, `[..., D]` for a bijector of vectors, and the
    log-det of the smallest event, `[...]`, in nats. The four methods that TFP calls follow from
    those two. A graph prunes the part that is not used; eagerly, the log-det of these bijectors
    costs little next to the value.

    Example:
      >>> class Exponential(JointEvaluation, tfb.Bijector):
      ...     def __init__(self):
      ...         super().__init__(forward_min_event_ndims=0)
      ...
      ...     def _forward_and_log_det(self, x):
      ...         return tf.exp(x), x
      ...
      ...     def _inverse_and_log_det(self, y):
      ...         x = tf.math.log(y)
      ...         return x, -x
      >>> Exponential().forward_log_det_jacobian([0.0, 2.0])
      <tf.Tensor: shape=(2,), dtype=float32, numpy=array([0., 2.], dtype=float32)>
    """

    if TYPE_CHECKING:  # inherited from the bijector class
        forward_min_event_ndims: Any
        inverse_min_event_ndims: Any
        _name_and_control_scope: Callable[..., Any]
        forward_dtype: Callable[..., Any]
        inverse_dtype: Callable[..., Any]

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        raise NotImplementedError(f"{type(self).__name__} lacks _forward_and_log_det.")

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        raise NotImplementedError(f"{type(self).__name__} lacks _inverse_and_log_det.")

    def forward_and_log_det(self, x: TensorLike) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns f(x), `[..., *event]`, and log |det df/dx|, `[...]`, in nats."""
        with self._name_and_control_scope("forward_and_log_det"):
            return self._forward_and_log_det(self._as_argument(x, self.inverse_dtype()))

    def inverse_and_log_det(self, y: TensorLike) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns x = f^-1(y), `[..., *event]`, and log |det dx/dy|, `[...]`, in nats."""
        with self._name_and_control_scope("inverse_and_log_det"):
            return self._inverse_and_log_det(self._as_argument(y, self.forward_dtype()))

    @staticmethod
    def _as_argument(value: TensorLike, dtype: tf.DType | None) -> tf.Tensor:
        return tf.convert_to_tensor(value, dtype=dtype)

    def _forward(self, x: tf.Tensor) -> tf.Tensor:
        return self._forward_and_log_det(x)[0]

    def _inverse(self, y: tf.Tensor) -> tf.Tensor:
        return self._inverse_and_log_det(y)[0]

    def _forward_log_det_jacobian(self, x: tf.Tensor) -> tf.Tensor:
        return self._forward_and_log_det(x)[1]

    def _inverse_log_det_jacobian(self, y: tf.Tensor) -> tf.Tensor:
        return self._inverse_and_log_det(y)[1]


def forward_and_log_det(
    bijector: tfb.Bijector, x: TensorLike, event_ndims: int = 1
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns f(x) and log |det df/dx| in nats, running each conditioner once.

    Example:
      >>> y, log_det = forward_and_log_det(tfb.Scale([2.0, 4.0]), [1.0, 1.0])
      >>> y
      <tf.Tensor: shape=(2,), dtype=float32, numpy=array([2., 4.], dtype=float32)>
      >>> log_det  # log 8
      <tf.Tensor: shape=(), dtype=float32, numpy=2.0794415>

    Args:
      bijector: Any single-part `tfb.Bijector`: ours, TFP's, a user's, or a `tfb.Chain` or
        `tfb.Invert` of such.
      x: `[..., D]`, or any shape whose last `event_ndims` dimensions are one event.
      event_ndims: How many of the last dimensions make an event.

    Returns:
      The pair `(y, log_det)` of shapes `[..., D]` and `[...]`.
    """
    return _evaluate(bijector, _as_tensor(x, bijector.inverse_dtype()), event_ndims, True)


def inverse_and_log_det(
    bijector: tfb.Bijector, y: TensorLike, event_ndims: int = 1
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns x = f^-1(y) and log |det dx/dy| in nats; the twin of `forward_and_log_det`.

    Example:
      >>> x, log_det = inverse_and_log_det(tfb.Scale([2.0, 4.0]), [2.0, 4.0])
      >>> log_det  # -log 8
      <tf.Tensor: shape=(), dtype=float32, numpy=-2.0794415>
    """
    return _evaluate(bijector, _as_tensor(y, bijector.forward_dtype()), event_ndims, False)


def parts_of(bijector: Any) -> list[Any]:
    """Returns the bijectors that a chain is made of, in the order in which `forward` uses them.

    Of a `tfb.Invert` it is the bijector inside.
    """
    if isinstance(bijector, _compat.INVERT_TYPES):
        return parts_of(bijector.bijector)[::-1]
    if isinstance(bijector, _compat.CHAIN_TYPES):
        return [leaf for part in reversed(bijector.bijectors) for leaf in parts_of(part)]
    inner = getattr(bijector, "inner", None)
    return [bijector] if inner is None else parts_of(inner)


def _as_tensor(value: TensorLike, dtype: tf.DType | None) -> tf.Tensor:
    """The value in the bijector's dtype if it has one, else an array's own, or float32.

    The tensor is a new one: for a tensor that it has seen before, TFP's cache returns the result
    for the values that the variables had then.
    """
    if dtype is None and not hasattr(value, "dtype"):
        dtype = tf.float32
    return tf.identity(tf.convert_to_tensor(value, dtype_hint=dtype))


def _evaluate(
    bijector: Any, x: tf.Tensor, event_ndims: int, forward: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    if isinstance(bijector, _compat.INVERT_TYPES):
        return _evaluate(bijector.bijector, x, event_ndims, not forward)
    if isinstance(bijector, _compat.CHAIN_TYPES):
        return _evaluate_chain(bijector, x, event_ndims, forward)
    value, log_det = _evaluate_part(bijector, x, event_ndims, forward)
    observed.show(bijector, x, value, log_det)
    return value, log_det


def _evaluate_part(
    bijector: Any, x: tf.Tensor, event_ndims: int, forward: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """The value and the log-det of a bijector that is neither a chain nor inverted."""
    if isinstance(bijector, (JointEvaluation, tfb.RealNVP, tfb.MaskedAutoregressiveFlow)):
        value, log_det = _evaluate_smallest(bijector, x, forward)
        least = bijector.forward_min_event_ndims if forward else bijector.inverse_min_event_ndims
        return value, _sum_last(log_det, event_ndims - least)
    if forward:
        return bijector.forward(x), bijector.forward_log_det_jacobian(x, event_ndims)
    return bijector.inverse(x), bijector.inverse_log_det_jacobian(x, event_ndims)


def _evaluate_smallest(
    bijector: tfb.Bijector, x: tf.Tensor, forward: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """The value and the log-det of its smallest events, vectors in most bijectors."""
    if isinstance(bijector, JointEvaluation):
        return bijector.forward_and_log_det(x) if forward else bijector.inverse_and_log_det(x)
    if isinstance(bijector, tfb.RealNVP):
        moving, inner, merge = _compat.coupling_parts(bijector, x)
        moved, log_det = _evaluate(inner, moving, 1, forward)
        return merge(moved), log_det
    if forward:  # D passes, in which the log-det is not to be had
        y = bijector.forward(x)
        return y, -_evaluate(_compat.autoregressive_inner(bijector, y), y, 1, False)[1]
    return _evaluate(_compat.autoregressive_inner(bijector, x), x, 1, False)


def _sum_last(log_det: tf.Tensor, count: int) -> tf.Tensor:
    return tf.reduce_sum(log_det, axis=list(range(-count, 0))) if count else log_det


def _evaluate_chain(
    chain: tfb.Chain, x: tf.Tensor, event_ndims: int, forward: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    total = None
    for part in reversed(chain.bijectors) if forward else chain.bijectors:
        x, log_det = _evaluate(part, x, event_ndims, forward)
        total = log_det if total is None else total + log_det
        step = part.forward_event_ndims if forward else part.inverse_event_ndims
        event_ndims = step(event_ndims)
    if total is None:  # an empty chain is the identity
        total = tf.zeros(tf.shape(x)[: tf.rank(x) - event_ndims], x.dtype)
    return x, total
