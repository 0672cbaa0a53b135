"""A stranger's array becomes images, or one sentence says why it cannot.

What is taken: shapes `[N, H, W]`, `[N, H, W, 1]` and `[N, H, W, 3]`; booleans, integers that are
grey levels, floats in [0, 1]. Layout and dtype can be checked from a file's header alone, values
cannot, so the two are apart.
"""

from __future__ import annotations

import warnings

import numpy as np

from tfp_flowvae.errors import UserError

_SHAPES = "[N, H, W], [N, H, W, 1] or [N, H, W, 3]"
_ROUNDING = 1e-6  # How far a float may stray from [0, 1]: what float32 arithmetic leaves behind.
_DIM = 64  # Images of 256 levels whose brightest value is below this are near black.


def check_layout(shape: tuple[int, ...], dtype: np.dtype, where: str) -> None:
    """Checks shape and dtype.

    Args:
        shape: The array's shape.
        dtype: The array's dtype.
        where: The file, and the array in it, for the message.

    Raises:
        UserError: If no images can have this layout.
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
    if len(shape) == 2:
        raise UserError(
            f"Labels or flattened images were received where images were expected: {where} must "
            f"have shape {_SHAPES}, so reshape flattened images before saving. "
            f"Received: shape {shape}."
        )
    if len(shape) > 4 or (len(shape) == 4 and shape[-1] not in (1, 3)):
        first = len(shape) == 4 and shape[1] in (1, 3)
        advice = " (move the channels last with np.moveaxis(images, 1, -1))" if first else ""
        raise UserError(
            f"Images in {where} must have shape {_SHAPES}{advice}. Received: shape {shape}."
        )
    if 0 in shape:
        raise UserError(f"{where} holds no images: save at least one. Received: shape {shape}.")


def as_images(array: np.ndarray, where: str, levels: int | None = None) -> np.ndarray:
    """Images with a channel axis, in the smallest dtype that keeps them as they are.

    Args:
        array: What was loaded.
        where: The file, and the array in it, for messages.
        levels: The declared number of grey levels of integer images; None means 256.

    Returns:
        `[N, H, W, C]`: uint8 from booleans and integers, float32 in [0, 1] from floats (those
        within 1e-6 of the range are clipped: resizing and averaging leave such).

    Raises:
        UserError: If layout, dtype or values are not those of images.
    """
    check_layout(array.shape, array.dtype, where)
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        images = _from_floats(array, low, high, where)
    else:
        top = (levels or 256) - 1
        if low < 0 or high > top:
            raise UserError(
                f"Integer images in {where} must lie in 0..{top}; rescale them, or save floats in "
                f"[0, 1]. Received: values from {low} to {high}."
            )
        images = array.astype(np.uint8, copy=False)
    if images.ndim == 3:
        images = images[..., np.newaxis]
    return np.ascontiguousarray(images)


def _from_floats(array: np.ndarray, low: float, high: float, where: str) -> np.ndarray:
    # The extremes of an array with a NaN are NaN, so two numbers tell of every element.
    if not np.isfinite(low) or not np.isfinite(high):
        kind = "NaN" if np.isnan(low) or np.isnan(high) else "infinite values"
        bad = int(np.size(array) - np.count_nonzero(np.isfinite(array)))
        raise UserError(
            f"Images in {where} must be finite floats in [0, 1]; remove or repair the broken "
            f"ones. Received: {kind} ({bad} of {np.size(array)} values are not finite)."
        )
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        advice = "divide them by 255" if low >= 0 and high <= 255 else "rescale them"
        raise UserError(
            f"Float images in {where} must lie in [0, 1]; {advice} before saving. "
            f"Received: values from {low:g} to {high:g}."
        )
    images = array.astype(np.float32, copy=False)
    return images.clip(0.0, 1.0) if low < 0 or high > 1 else images


def grey_levels(parts: dict[str, np.ndarray], where: str, declared: int | None) -> int | None:
    """The number of grey levels of a data set, once its splits are known to be alike.

    Args:
        parts: The images of every split, as `as_images` returns them.
        where: What was loaded, for messages.
        declared: The number of levels that the source declares, or None.

    Returns:
        None for floats; for integers what was declared, or 2 where only 0 and 1 occur (images
        that are binary already), or else 256.

    Raises:
        UserError: If the splits differ in kind or in image shape, or floats come with levels.
    """
    kinds = {f"{images.dtype} of shape {images.shape[1:]}" for images in parts.values()}
    if len(kinds) > 1:
        raise UserError(
            f"The splits in {where} must hold images of one shape, all integers or all floats. "
            f"Received: {' and '.join(sorted(kinds))}."
        )
    if any(images.dtype != np.uint8 for images in parts.values()):
        if declared is not None:
            raise UserError(
                f"{where} declares grey levels, which only integer images have: drop 'levels', or "
                f"save integers. Received: levels={declared} with float images."
            )
        return None
    if declared is not None:
        return declared
    brightest = max(int(images.max()) for images in parts.values())
    if 1 < brightest < _DIM:
        warnings.warn(
            f"The brightest value in {where} is {brightest} of 255, so its images are nearly "
            "black; if fewer grey levels are meant, save an .npz file with a number 'levels' "
            "beside the images, or floats in [0, 1].",
            stacklevel=3,
        )
    return 2 if brightest <= 1 else 256
