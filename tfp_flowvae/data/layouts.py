"""The shapes and dtypes of arrays that can be read as images.

An array of shape `[N, H, W]`, `[N, H, W, 1]` or `[N, H, W, 3]` holds N images. An array of shape
`[N, H * W * C]` holds N flattened images if (H, W, C) is given. The dtype is boolean, integer or
float. A file's header tells the shape and the dtype; `values` checks what it does not tell.
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
      where: The name of the array, or of its file, for messages.
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
    received = f"Received: shape {shape}."
    if len(shape) < 2:
        raise UserError(
            f"Labels were received where images were expected: {where} must have shape {_SHAPES}. "
            f"{received}"
        )
    if image_shape is not None:
        *size, channels = image_shape
        ready = shape[1:] == image_shape or (channels == 1 and list(shape[1:]) == size)
        if not ready and shape[1:] != (math.prod(image_shape),):
            raise UserError(
                f"The images in {where} must have the shape {' x '.join(map(str, image_shape))} of "
                "--image-shape (in Python: image_shape), or be flattened to "
                f"{math.prod(image_shape)} values each; correct it. {received}"
            )
        shape = (shape[0], *image_shape)
    elif len(shape) == 2:
        raise UserError(
            f"Labels or flattened images were received where images were expected: {where} must "
            f"have shape {_SHAPES}; to read flattened images, give their height, width and "
            f"channels as --image-shape H W C (in Python: image_shape). {received}"
        )
    elif len(shape) > 4 or (len(shape) == 4 and shape[-1] not in (1, 3)):
        first = len(shape) == 4 and shape[1] in (1, 3)
        advice = " (move the channels last with np.moveaxis(images, 1, -1))" if first else ""
        raise UserError(f"Images in {where} must have shape {_SHAPES}{advice}. {received}")
    if 0 in shape:
        raise UserError(f"{where} holds no images: save at least one. {received}")
    return (*shape, 1) if len(shape) == 3 else shape
