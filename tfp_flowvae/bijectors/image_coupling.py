"""Couplings of images: part of the pixels or of the channels conditions a map of the rest.

Dinh et al. (2017, section 3.4 and figure 3): as in `coupling.py`, y_c = x_c and y_t = g(x_t; x_c),
where c are the pixels of one colour of a checkerboard, or half of the channels. The conditioner is
a network of images, which sees c only.

References:
  Laurent Dinh, Jascha Sohl-Dickstein, and Samy Bengio. Density Estimation using Real NVP. ICLR
  2017. https://arxiv.org/abs/1605.08803
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors.coupling import affine, one_function
from tfp_flowvae.bijectors.internal.parametric import snake_case
from tfp_flowvae.bijectors.joint import JointEvaluation, forward_and_log_det, inverse_and_log_det

_Direction = Callable[..., tuple[tf.Tensor, tf.Tensor]]


class _ImageCoupling(JointEvaluation, tfb.Bijector):
    """What the two couplings share: a function of (kept, channels), and its bijector."""

    def __init__(
        self,
        shift_and_log_scale_fn: Callable[..., Any] | None = None,
        bijector_fn: Callable[..., tfb.Bijector] | None = None,
        reverse: bool = False,
        validate_args: bool = False,
        name: str | None = None,
    ) -> None:
        parameters = dict(locals())
        owner = type(self).__name__
        one_function(owner, "channels", shift_and_log_scale_fn, bijector_fn)
        with tf.name_scope(name or snake_case(owner)) as name:
            self._shift_and_log_scale_fn = shift_and_log_scale_fn
            self._bijector_fn = bijector_fn
            self._reverse = reverse
            super().__init__(
                forward_min_event_ndims=3,
                validate_args=validate_args,
                parameters=parameters,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        return {}

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._evaluate(self._checked(x), forward_and_log_det)

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._evaluate(self._checked(y), inverse_and_log_det)

    def _evaluate(self, x: tf.Tensor, direction: _Direction) -> tuple[tf.Tensor, tf.Tensor]:
        raise NotImplementedError

    def _moved(
        self, kept: tf.Tensor, moving: tf.Tensor, direction: _Direction
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The images of numbers `[..., H, W, C]`, and the log-det of each number."""
        channels = moving.shape[-1]
        if self._shift_and_log_scale_fn is not None:
            inner = affine(*self._shift_and_log_scale_fn(kept, channels))
        else:
            assert self._bijector_fn is not None
            inner = self._bijector_fn(kept, channels)
        if inner.forward_min_event_ndims != 0:
            raise ValueError(
                f"{type(self).__name__} takes a bijector_fn that returns an elementwise bijector. "
                f"Received: {inner.name!r} with min_event_ndims {inner.forward_min_event_ndims}."
            )
        moved, log_det = direction(inner, moving, event_ndims=0)
        return moved, log_det + tf.zeros_like(moved)

    def _checked(self, x: tf.Tensor) -> tf.Tensor:
        owner = type(self).__name__
        if x.shape.rank is None or x.shape.rank < 3 or None in x.shape[-3:].as_list():
            raise ValueError(
                f"{owner} takes images [..., H, W, C] with H, W and C known. "
                f"Received: shape {x.shape}."
            )
        if self.validate_args:
            x = tf.debugging.assert_all_finite(x, f"{owner} takes finite points.")
        return x


class CheckerboardCoupling(_ImageCoupling):
    """A coupling that keeps every other pixel: those where row + column is even.

    Example:
      >>> flow = CheckerboardCoupling(lambda kept, channels: (tf.ones_like(kept), None))
      >>> flow.forward(tf.zeros([2, 2, 1]))[..., 0]  # every other pixel moves by 1
      <tf.Tensor: shape=(2, 2), dtype=float32, numpy=
      array([[0., 1.],
             [1., 0.]], dtype=float32)>

    Args:
      shift_and_log_scale_fn: `fn(kept, channels)`: from images with 0 in place of the pixels that
        move, `[..., H, W, C]`, and C to the pair m and s of y = x exp(s) + m, each
        `[..., H, W, C]` or None; what it says of kept pixels is not used.
      bijector_fn: `fn(kept, channels)`, instead: to an elementwise `tfb.Bijector` for
        `[..., H, W, C]`, such as a `SplineTransform`.
      reverse: Whether to keep the other pixels.
      validate_args: Whether to check that images are finite.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If a function is not callable.
      ValueError: If not exactly one function is given, it returns no elementwise bijector, or the
        sizes of an image are not known.
    """

    def _evaluate(self, x: tf.Tensor, direction: _Direction) -> tuple[tf.Tensor, tf.Tensor]:
        height, width, _ = x.shape[-3:]
        odd = (tf.range(height)[:, tf.newaxis] + tf.range(width)) % 2 == 1
        moves = (odd != self._reverse)[..., tf.newaxis]
        kept = tf.where(moves, tf.zeros_like(x), x)
        moved, log_det = self._moved(kept, x, direction)
        log_det = tf.where(moves, log_det, tf.zeros_like(log_det))
        return tf.where(moves, moved, x), tf.reduce_sum(log_det, axis=[-3, -2, -1])


class ChannelCoupling(_ImageCoupling):
    """A coupling that keeps the first half of the channels and moves the others.

    Example:
      >>> flow = ChannelCoupling(lambda kept, channels: (kept, None))
      >>> flow.forward([[[1.0, 2.0]]])
      <tf.Tensor: shape=(1, 1, 2), dtype=float32, numpy=array([[[1., 3.]]], dtype=float32)>

    Args:
      shift_and_log_scale_fn: `fn(kept, channels)`: from the kept channels `[..., H, W, C // 2]`,
        and the number of the others, to the pair m and s of y = x exp(s) + m, each
        `[..., H, W, channels]` or None.
      bijector_fn: `fn(kept, channels)`, instead: to an elementwise `tfb.Bijector` for
        `[..., H, W, channels]`, such as a `SplineTransform`.
      reverse: Whether to move the first half and keep the others.
      validate_args: Whether to check that images are finite.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If a function is not callable.
      ValueError: If not exactly one function is given, it returns no elementwise bijector, or an
        image has one channel or sizes that are not known.
    """

    def _evaluate(self, x: tf.Tensor, direction: _Direction) -> tuple[tf.Tensor, tf.Tensor]:
        channels = x.shape[-1]
        if channels < 2:
            raise ValueError(
                "ChannelCoupling splits channels, so C >= 2: squeeze the image first. "
                f"Received: C={channels}."
            )
        first, last = x[..., : channels // 2], x[..., channels // 2 :]
        kept, moving = (last, first) if self._reverse else (first, last)
        moved, log_det = self._moved(kept, moving, direction)
        parts = [moved, kept] if self._reverse else [kept, moved]
        return tf.concat(parts, axis=-1), tf.reduce_sum(log_det, axis=[-3, -2, -1])
