"""The invertible 1 x 1 convolution of Glow: one linear map for the channels of every pixel.

Kingma & Dhariwal (2018, section 3.2): with W the `[C, C]` matrix of `LULinear`,

    y_ij = W x_ij + shift,        log |det dy/dx| = H W sum_c log |u_cc| .

References:
  Diederik P. Kingma and Prafulla Dhariwal. Glow: Generative Flow with Invertible 1x1 Convolutions.
  NeurIPS 2018. https://arxiv.org/abs/1807.03039
"""

from __future__ import annotations

from typing import ClassVar

import tensorflow as tf

from tfp_flowvae.bijectors.lu_linear import LULinear


class Invertible1x1Convolution(LULinear):
    """`LULinear` for the channels of images `[..., H, W, C]`, with one matrix for all pixels.

    The arguments are those of `LULinear` with D = C; leading dimensions of the parameters are
    matrices for different images. `from_matrix` starts from a rotation, as Glow does.

    Example:
      >>> convolution = Invertible1x1Convolution.from_matrix([[0.0, 1.0], [-1.0, 0.0]])
      >>> convolution.forward([[[1.0, 2.0]]])
      <tf.Tensor: shape=(1, 1, 2), dtype=float32, numpy=array([[[ 2., -1.]]], dtype=float32)>
    """

    _EVENT_NDIMS: ClassVar[int] = 3

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        y, log_det = self._for_pixels().forward_and_log_det(self._pixels(x))
        return self._image(y, x), tf.reduce_sum(log_det, axis=-1)

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x, log_det = self._for_pixels().inverse_and_log_det(self._pixels(y))
        return self._image(x, y), tf.reduce_sum(log_det, axis=-1)

    def _for_pixels(self) -> LULinear:
        """The map of pixels `[..., H W, C]`: parameters for different images get an axis H W."""
        axes = {**self._AXES, "permutation": "D"}
        given = {name: getattr(self, name) for name in axes}
        expanded = {
            name: value if value is None or value.shape.rank == len(axes[name])
            else tf.expand_dims(value, -len(axes[name]) - 1)
            for name, value in given.items()
        }  # fmt: skip
        return LULinear(**expanded)

    def _pixels(self, x: tf.Tensor) -> tf.Tensor:
        x = self._checked(x)
        if x.shape.rank is not None and x.shape.rank < 3:
            raise ValueError(
                f"{type(self).__name__} takes images [..., H, W, C]. "
                f"Received: shape {tuple(x.shape)}."
            )
        shape = tf.shape(x)
        pixels = tf.concat([shape[:-3], [shape[-3] * shape[-2]], shape[-1:]], axis=0)
        return tf.reshape(x, pixels)

    @staticmethod
    def _image(pixels: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
        shape = tf.concat([tf.shape(pixels)[:-2], tf.shape(like)[-3:]], axis=0)
        image = tf.reshape(pixels, shape)
        leading = pixels.shape[:-2] if pixels.shape.rank is not None else pixels.shape
        return tf.ensure_shape(image, leading.concatenate(like.shape[-3:]))
