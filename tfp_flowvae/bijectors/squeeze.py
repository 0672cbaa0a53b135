"""Squeezing: blocks of pixels become channels, so that couplings can split them.

Dinh et al. (2017, section 3.6) turn each 2 x 2 block of an image `[H, W, C]` into one pixel of
`[H / 2, W / 2, 4 C]`. It is a permutation of the numbers, so the log-det is 0.

References:
  Laurent Dinh, Jascha Sohl-Dickstein, and Samy Bengio. Density Estimation using Real NVP. ICLR
  2017. https://arxiv.org/abs/1605.08803
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors.internal import validate


class Squeeze(tfb.AutoCompositeTensorBijector):
    """Maps images `[..., H, W, C]` to `[..., H / f, W / f, f f C]`.

    Channel (f i + j) C + c of a pixel is channel c of row i and column j of its block.

    Example:
      >>> squeeze = Squeeze()
      >>> squeeze.forward(tf.reshape(tf.range(4.0), [2, 2, 1]))
      <tf.Tensor: shape=(1, 1, 4), dtype=float32, numpy=array([[[0., 1., 2., 3.]]], dtype=float32)>

    Args:
      factor: f, the height and the width of a block, at least 1.
      validate_args: Not used: the shapes are always checked.
      name: The name of this bijector and the scope of its operations.

    Raises:
      ValueError: If `factor` is no integer or below 1, or an image has a height or width that is
        no multiple of it, or, for the inverse, channels that are no multiple of its square.
    """

    def __init__(self, factor: int = 2, validate_args: bool = False, name: str = "squeeze") -> None:
        parameters = dict(locals())
        validate.check_count("Squeeze", "factor", factor)
        with tf.name_scope(name) as name:
            self._factor = factor
            super().__init__(
                forward_min_event_ndims=3,
                is_constant_jacobian=True,
                validate_args=validate_args,
                parameters=parameters,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        return {}

    @property
    def factor(self) -> int:
        """f, the height and the width of a block."""
        return self._factor

    def _forward(self, x: tf.Tensor) -> tf.Tensor:
        event, f = self._forward_event_shape(x.shape[-3:]), self.factor
        height, width, channels = tf.unstack(tf.shape(x)[-3:])
        blocks = tf.reshape(x, [-1, height // f, f, width // f, f, channels])
        return _images(blocks, x, self._forward_event_shape_tensor(tf.shape(x)[-3:]), event)

    def _inverse(self, y: tf.Tensor) -> tf.Tensor:
        event, f = self._inverse_event_shape(y.shape[-3:]), self.factor
        height, width, channels = tf.unstack(tf.shape(y)[-3:])
        blocks = tf.reshape(y, [-1, height, width, f, f, channels // f**2])
        return _images(blocks, y, self._inverse_event_shape_tensor(tf.shape(y)[-3:]), event)

    def _forward_log_det_jacobian(self, x: tf.Tensor) -> tf.Tensor:
        return tf.zeros([], x.dtype)

    def _inverse_log_det_jacobian(self, y: tf.Tensor) -> tf.Tensor:
        return tf.zeros([], y.dtype)

    def _forward_event_shape(self, shape: tf.TensorShape) -> tf.TensorShape:
        f = self.factor
        height, width, channels = tf.TensorShape(shape).as_list()
        for name, size in (("height", height), ("width", width)):
            if size is not None and size % f:
                raise ValueError(
                    f"Squeeze takes images whose {name} is a multiple of {f}: pad it to "
                    f"{size + -size % f}. Received: {name}={size}."
                )
        return tf.TensorShape(
            [None if n is None else n // f for n in (height, width)]
            + [None if channels is None else f * f * channels]
        )

    def _inverse_event_shape(self, shape: tf.TensorShape) -> tf.TensorShape:
        f = self.factor
        *sizes, channels = tf.TensorShape(shape).as_list()
        if channels is not None and channels % f**2:
            raise ValueError(
                f"The inverse of Squeeze takes images whose channels are a multiple of {f * f}. "
                f"Received: channels={channels}."
            )
        return tf.TensorShape(
            [None if n is None else n * f for n in sizes]
            + [None if channels is None else channels // f**2]
        )

    def _forward_event_shape_tensor(self, shape: tf.Tensor) -> tf.Tensor:
        f = self.factor
        return shape // [f, f, 1] * [1, 1, f * f]

    def _inverse_event_shape_tensor(self, shape: tf.Tensor) -> tf.Tensor:
        f = self.factor
        return shape // [1, 1, f * f] * [f, f, 1]


def _images(
    blocks: tf.Tensor, like: tf.Tensor, sizes: tf.Tensor, event: tf.TensorShape
) -> tf.Tensor:
    """Swaps the two middle axes of `[N, ., ., ., ., .]`, and merges axes into images."""
    swapped = tf.transpose(blocks, [0, 1, 3, 2, 4, 5])
    images = tf.reshape(swapped, tf.concat([tf.shape(like)[:-3], sizes], axis=0))
    return tf.ensure_shape(images, like.shape[:-3].concatenate(event))
