"""The multi-scale composition of image flows: half of the channels leave after each scale.

Dinh et al. (2017, section 3.6) squeeze an image, map it, let half of the channels out as latents,
and go on with the other half at half the height and width. With S the squeezing and f_l the map of
scale l, from an image x to latents:

    h_0 = x,    (h_{l+1}, z_l) = split(f_l(S(h_l))),    z = (h_L, z_{L-1}, ..., z_1),

where the last scale splits nothing. The bijector goes the other way, from latents to images, as
`tfd.TransformedDistribution` has it: its inverse is what is written here. The log-det is the sum of
those of the scales.

References:
  Laurent Dinh, Jascha Sohl-Dickstein, and Samy Bengio. Density Estimation using Real NVP. ICLR
  2017. https://arxiv.org/abs/1605.08803
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import bijectors as tfb

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import validate
from tfp_flowvae.bijectors.joint import JointEvaluation, forward_and_log_det, inverse_and_log_det
from tfp_flowvae.bijectors.squeeze import Squeeze


class MultiScale(JointEvaluation, tfb.Bijector):
    """From latent vectors `[..., H W C]` to images `[..., H, W, C]`, in L scales.

    The mathematics is at the head of this module.

    Example:
      >>> flow = MultiScale([tfb.Identity(), tfb.Scale(2.0)], image_shape=(4, 4, 1))
      >>> [part.shape for part in flow.split(tf.zeros([16]))]
      [TensorShape([1, 1, 8]), TensorShape([2, 2, 2])]

    Args:
      scales: L bijectors, the first for the largest images. Each maps images of one shape, from
        the side of the latents to that of the data: `[H / 2, W / 2, 4 C]` in the first scale,
        `[H / 4, W / 4, 8 C]` in the next, and so on.
      image_shape: `(H, W, C)`, with H and W multiples of 2^L.
      validate_args: Whether to check that points are finite.
      name: The name of this bijector and the scope of its operations.

    Raises:
      TypeError: If a scale is no bijector.
      ValueError: If there is no scale, one of them does not map images to images, or `image_shape`
        cannot be squeezed L times.
    """

    def __init__(
        self,
        scales: Sequence[tfb.Bijector],
        image_shape: Sequence[int],
        validate_args: bool = False,
        name: str = "multi_scale",
    ) -> None:
        parameters = dict(locals())
        self._image_shape = _checked_shape(tuple(image_shape), len(scales))
        for scale in scales:
            if not isinstance(scale, tfb.Bijector):
                raise TypeError(f"MultiScale takes bijectors. Received: {type(scale).__name__}.")
            ndims = (scale.forward_min_event_ndims, scale.inverse_min_event_ndims)
            if ndims[0] != ndims[1] or ndims[0] > 3:
                raise ValueError(
                    "MultiScale takes bijectors from images to images. "
                    f"Received: {scale.name!r} with min_event_ndims {ndims}."
                )
        with tf.name_scope(name) as name:
            self._scales = list(scales)
            self._squeeze = tfb.Invert(Squeeze())
            super().__init__(
                forward_min_event_ndims=1,
                inverse_min_event_ndims=3,
                validate_args=validate_args,
                parameters=parameters,
                name=name,
            )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        return {
            "scales": tfp.util.BatchedComponentProperties(
                event_ndims=lambda self, x_event_ndims: (3,) * len(self.scales)
            )
        }

    @property
    def scales(self) -> tuple[tfb.Bijector, ...]:
        """The bijectors of the scales."""
        return tuple(self._scales)

    @property
    def latent_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """The shapes of the latents' parts in a vector: that of the smallest images comes first."""
        height, width, channels = self._image_shape
        shapes = []
        for level in range(len(self._scales)):
            height, width, channels = height // 2, width // 2, 4 * channels
            if level < len(self._scales) - 1:
                channels //= 2
            shapes.append((height, width, channels))
        return tuple(shapes[::-1])

    def split(self, z: TensorLike) -> list[tf.Tensor]:
        """Returns the parts of latent vectors `[..., H W C]` as images of `latent_shapes`."""
        z = self._checked(tf.convert_to_tensor(z), [int(np.prod(self._image_shape))])
        parts = tf.split(z, [int(np.prod(shape)) for shape in self.latent_shapes], axis=-1)
        return [
            _with_event(part, z, 1, shape)
            for part, shape in zip(parts, self.latent_shapes, strict=True)
        ]

    def join(self, parts: Sequence[TensorLike]) -> tf.Tensor:
        """Returns the latent vectors `[..., H W C]` of which `split` returns the parts."""
        images = [tf.convert_to_tensor(part) for part in parts]
        flat = [_with_event(image, image, 3, [int(np.prod(image.shape[-3:]))]) for image in images]
        return tf.concat(flat, axis=-1)

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        first, *others = self.split(x)
        image, total = forward_and_log_det(self._scales[-1], first, event_ndims=3)
        image = self._squeeze.forward(image)
        for scale, part in zip(self._scales[-2::-1], others, strict=True):
            image, log_det = forward_and_log_det(
                scale, tf.concat([image, part], axis=-1), event_ndims=3
            )
            image, total = self._squeeze.forward(image), total + log_det
        return image, total + tf.zeros_like(image[..., 0, 0, 0])

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image, parts = self._checked(y, self._image_shape), []
        total = tf.zeros_like(image[..., 0, 0, 0])
        for level, scale in enumerate(self._scales):
            image, log_det = inverse_and_log_det(scale, self._squeeze.inverse(image), event_ndims=3)
            total += log_det
            if level < len(self._scales) - 1:
                image, part = tf.split(image, 2, axis=-1)
                parts.append(part)
        return self.join([image, *parts[::-1]]), total

    def _checked(self, x: tf.Tensor, event: Sequence[int]) -> tf.Tensor:
        if x.shape.rank is not None and (
            x.shape.rank < len(event) or not x.shape[-len(event) :].is_compatible_with(event)
        ):
            raise ValueError(
                f"MultiScale of images {self._image_shape} takes [..., "
                f"{', '.join(map(str, event))}] here. Received: shape {x.shape}."
            )
        if self.validate_args:
            x = tf.debugging.assert_all_finite(x, "MultiScale takes finite points.")
        return x

    def _forward_event_shape(self, shape: tf.TensorShape) -> tf.TensorShape:
        return tf.TensorShape(self._image_shape)

    def _inverse_event_shape(self, shape: tf.TensorShape) -> tf.TensorShape:
        return tf.TensorShape([int(np.prod(self._image_shape))])

    def _forward_event_shape_tensor(self, shape: tf.Tensor) -> tf.Tensor:
        return tf.constant(self._image_shape)

    def _inverse_event_shape_tensor(self, shape: tf.Tensor) -> tf.Tensor:
        return tf.constant([int(np.prod(self._image_shape))])


def _with_event(x: tf.Tensor, like: tf.Tensor, ndims: int, event: Sequence[int]) -> tf.Tensor:
    """`x` with other event dimensions, in place of the last `ndims` of `like`."""
    shaped = tf.reshape(x, tf.concat([tf.shape(like)[:-ndims], event], axis=0))
    return tf.ensure_shape(shaped, like.shape[:-ndims].concatenate(event))


def _checked_shape(shape: tuple[int, ...], scales: int) -> tuple[int, int, int]:
    if scales < 1:
        raise ValueError("MultiScale takes at least one scale. Received: none.")
    if len(shape) != 3:
        raise ValueError(f"MultiScale takes image_shape=(H, W, C). Received: {shape}.")
    for size in shape:
        validate.check_count("MultiScale", "size in image_shape", size)
    block = 2**scales
    padded = tuple(size + -size % block for size in shape[:2])
    if padded != shape[:2]:
        raise ValueError(
            f"MultiScale with {scales} scales takes images whose height and width are multiples of "
            f"{block}: pad them to {padded[0]} x {padded[1]}, or take fewer scales. "
            f"Received: image_shape={shape}."
        )
    return shape
