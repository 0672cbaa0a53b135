"""The shapes and dtypes of arrays that can be read as images.

Arrays of shape `[N, H, W]`, `[N, H, W, 1]` or `[N, H, W, 3]` are images, and so are flattened
images `[N, H * W * C]` if (H, W, C) is given. Their dtype is boolean, integer or float. All of this
is known from a file's header; `values` checks what is not.
"""

from __future__ import annotations

import math

import numpy as np

from tfp_flowvae.errors import UserError

_SHAPES = "[N, H, W], [N, H, W, 1] or [N, H, W, 3]"


def check_layout(
    shape: tuple[int, ...],
    dtype: np.dtype,
    where: str,
    image_shape: tuple[int, ...] | None = None,
) -> tuple[int, ...]:
    """Checks the shape and the dtype of an array of images.

    Args:
      shape: The array's shape.
      dtype: The array's dtype.
      where: The file, and the array in it, for messages.
      image_shape: `(H, W, C)` of flattened images `[N, H * W * C]`, or None.

    Returns:
      The shape `[N, H, W, C]` to which the array must be reshaped.

    Raises:
      UserError: If images cannot have this shape or dtype.
    """
    if dtype.kind not in "buif":
        raise UserError(
            f"Images in {where} must be booleans, integers 0..255 or floats in [0, 1]; "
            f"convert them before saving. Received: dtype {dtype}."
        )
    if len(shape) < 2:
        raise UserError(
            f"Labels were received where images were expected: {where} must have shape {_SHAPES}. "
            f"Received: shape {shape}."
        )
    if image_shape is not None:
        shape = _reshaped(shape, where, image_shape)
    elif len(shape) == 2:
        raise UserError(
            f"Labels or flattened images were received where images were expected: {where} must "
            f"have shape {_SHAPES}; to read flattened images, give their height, width and "
            f"channels as --image-shape H W C (in Python: image_shape). Received: shape {shape}."
        )
    elif len(shape) > 4 or (len(shape) == 4 and shape[-1] not in (1, 3)):
        first = len(shape) == 4 and shape[1] in (1, 3)
        advice = " (move the channels last with np.moveaxis(images, 1, -1))" if first else ""
        raise UserError(
            f"Images in {where} must have shape {_SHAPES}{advice}. Received: shape {shape}."
        )
    if 0 in shape:
        raise UserError(f"{where} holds no images: save at least one. Received: shape {shape}.")
    return (*shape, 1) if len(shape) == 3 else shape


def _reshaped(shape: tuple[int, ...], where: str, image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of images, flattened or not, for which `image_shape` was given."""
    size, (*_, channels) = math.prod(image_shape), image_shape
    flat = len(shape) == 2 and shape[1] == size
    ready = shape[1:] == image_shape or (channels == 1 and shape[1:] == image_shape[:2])
    if not (flat or ready):
        product = " x ".join(map(str, image_shape))
        raise UserError(
            f"The images in {where} must have the shape {product} of --image-shape (in Python: "
            f"image_shape), or be flattened to {size} values each; correct it. "
            f"Received: shape {shape}."
        )
    return (shape[0], *image_shape) if shape[0] else shape
