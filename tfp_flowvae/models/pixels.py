"""From real vectors to the pixels of images with L levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.errors import UserError
from tfp_flowvae.flows.base import Flow


@keras.saving.register_keras_serializable(package="tfp_flowvae")
class Pixels(Flow):
    """x = L logit^-1(z), see `Logit`: the last flow of an `ImageDensity`. It has no parameters.

    Args:
      levels: L, the number of levels.
      **kwargs: See `Flow`.

    Example:
      >>> x, log_det = Pixels(levels=256, event_size=3)(tf.zeros([3]))
      >>> x  # z = 0 is the middle
      <tf.Tensor: shape=(3,), dtype=float32, numpy=array([128., 128., 128.], dtype=float32)>
    """

    def __init__(self, levels: int = 256, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.levels = levels

    def build(self, z_shape: Any = None, context_shape: Any = None) -> None:
        """Creates the mark of whether the flows before it have been initialised from data."""
        super().build(z_shape, context_shape)
        self.adapted = self.add_weight(
            name="adapted", shape=(), initializer="zeros", trainable=False, autocast=False
        )

    def make_bijector(self, context: tf.Tensor | None) -> tfb.Bijector:
        """The map of every pixel."""
        scale = tf.constant(float(self.levels), self.variable_dtype)
        return tfb.Chain([tfb.Scale(scale), tfb.Invert(fvb.Logit())])


def check_pixels(images: Any, image_shape: Sequence[int], levels: int) -> None:
    """Refuses arrays that do not hold images of whole numbers.

    Args:
      images: The array.
      image_shape: `(H, W, C)`.
      levels: L.

    Raises:
      UserError: If the shape is not `[N, H, W, C]`, or a pixel is not one of 0, ..., L - 1.
    """
    images = np.asarray(images)
    wanted = f"whole numbers from 0 to {levels - 1}, which is levels - 1"
    if images.shape[1:] != tuple(image_shape):
        sizes = ", ".join(map(str, image_shape))
        raise UserError(f"Images must be [N, {sizes}]. Received: shape {images.shape}.")
    if images.dtype.kind not in "iuf":
        raise UserError(f"Pixels must be {wanted}. Received: dtype {images.dtype}.")
    low, high = (float(f(images)) for f in (np.min, np.max)) if images.size else (0.0, 0.0)
    # As one comparison that holds, because NaN fails it.
    if not 0.0 <= low <= high <= levels - 1:
        raise UserError(f"Pixels must be {wanted}. Received: values from {low:g} to {high:g}.")
    if images.dtype.kind == "f" and np.any(images != np.rint(images)):
        first = images[images != np.rint(images)][0]
        raise UserError(
            f"Pixels must be {wanted}: multiply images in [0, 1] by {levels - 1} and round them. "
            f"Received: {first:g}."
        )
