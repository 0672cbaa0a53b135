"""A stranger's array becomes images, or one sentence says why it cannot.

What is taken: shapes `[N, H, W]`, `[N, H, W, 1]` and `[N, H, W, 3]`, and flattened images
`[N, H * W * C]` where (H, W, C) is given; booleans, integers that are grey levels, floats in
[0, 1]. Layout and dtype can be checked from a file's header alone, values
cannot, so the two are apart.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfp_flowvae.errors import UserError

_SHAPES = "[N, H, W], [N, H, W, 1] or [N, H, W, 3]"
_ROUNDING = 1e-6  # How far a float may stray from [0, 1]: what float32 arithmetic leaves behind.
# Images whose brightest value is below this are nearly black: of 256 levels, and of floats.
_DIM, _DIM_FLOAT = 64, 1 / 16


def check_layout(
    shape: tuple[int, ...],
    dtype: np.dtype,
    where: str,
    image_shape: tuple[int, ...] | None = None,
) -> tuple[int, ...]:
    """Checks shape and dtype.

    Args:
        shape: The array's shape.
        dtype: The array's dtype.
        where: The file, and the array in it, for the message.
        image_shape: `(H, W, C)` of flattened images `[N, H * W * C]`, or None.

    Returns:
        The shape of the images, `[N, H, W]` or `[N, H, W, C]`: the array's, or that of flattened
        images once they are reshaped.

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
    if image_shape is not None:
        return _check_image_shape(shape, where, image_shape)
    if len(shape) == 2:
        raise UserError(
            f"Labels or flattened images were received where images were expected: {where} must "
            f"have shape {_SHAPES}; flattened images are read where --image-shape H W C (in "
            f"Python: image_shape) gives their height, width and channels. Received: shape {shape}."
        )
    if len(shape) > 4 or (len(shape) == 4 and shape[-1] not in (1, 3)):
        first = len(shape) == 4 and shape[1] in (1, 3)
        advice = " (move the channels last with np.moveaxis(images, 1, -1))" if first else ""
        raise UserError(
            f"Images in {where} must have shape {_SHAPES}{advice}. Received: shape {shape}."
        )
    if 0 in shape:
        raise UserError(f"{where} holds no images: save at least one. Received: shape {shape}.")
    return shape


def _check_image_shape(
    shape: tuple[int, ...], where: str, image_shape: tuple[int, ...]
) -> tuple[int, ...]:
    """Checks an array's shape against the image shape that is given: as `check_layout`."""
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
    if not shape[0]:
        raise UserError(f"{where} holds no images: save at least one. Received: shape {shape}.")
    return (shape[0], *image_shape)


@dataclass
class Values:
    """What was seen of an array's values, in one piece or in many.

    Attributes:
        low: The lowest value, NaN if any is; None before the first piece.
        high: The highest, likewise.
        broken: How many are not finite.
        count: How many were seen.
    """

    low: Any = None
    high: Any = None
    broken: int = 0
    count: int = 0

    def see(self, piece: np.ndarray) -> None:
        """Takes note of a piece, of the same dtype as those before."""
        low, high = piece.min(), piece.max()
        # The extremes of an array with a NaN are NaN, so two numbers tell of every element.
        if piece.dtype.kind == "f" and not (np.isfinite(low) and np.isfinite(high)):
            self.broken += int(piece.size - np.count_nonzero(np.isfinite(piece)))
        self.count += piece.size
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)

    def fit(self, kind: str, levels: int | None = None) -> bool:
        """Whether they are those of images: arguments as in `check`."""
        if kind == "f":
            return not self.broken and self.low >= -_ROUNDING and self.high <= 1 + _ROUNDING
        return self.low >= 0 and self.high <= (levels or 256) - 1

    def check(self, kind: str, where: str, levels: int | None = None) -> None:
        """Checks that they are those of images.

        Args:
            kind: The kind of their dtype: b, u, i or f.
            where: The file, and the array in it, for messages.
            levels: The declared number of grey levels of integer images; None means 256.

        Raises:
            UserError: If they are not.
        """
        if self.fit(kind, levels):
            return
        low, high = self.low, self.high
        if kind != "f":
            deep = levels is None and low >= 0 and high < 2**16
            advice = (
                f"take their upper 8 bits, (images >> {int(high).bit_length() - 8}).astype('uint8')"
                if deep
                else "rescale them"
            )
            raise UserError(
                f"Integer images in {where} must lie in 0..{(levels or 256) - 1}; {advice}, or "
                f"save floats in [0, 1]. Received: values from {low} to {high}."
            )
        if self.broken:
            what = "NaN" if np.isnan(low) or np.isnan(high) else "infinite values"
            raise UserError(
                f"Images in {where} must be finite floats in [0, 1]; remove or repair the broken "
                f"ones. Received: {what} ({self.broken} of {self.count} values are not finite)."
            )
        advice = "divide them by 255" if low >= 0 and high <= 255 else "rescale them"
        raise UserError(
            f"Float images in {where} must lie in [0, 1]; {advice} before saving. "
            f"Received: values from {low:g} to {high:g}."
        )


def as_images(
    array: np.ndarray,
    where: str,
    levels: int | None = None,
    image_shape: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Images with a channel axis, in the smallest dtype that keeps them as they are.

    Args:
        array: What was loaded.
        where: The file, and the array in it, for messages.
        levels: The declared number of grey levels of integer images; None means 256.
        image_shape: `(H, W, C)` of flattened images, or None.

    Returns:
        `[N, H, W, C]`: uint8 from booleans and integers, float32 in [0, 1] from floats (those
        within 1e-6 of the range are clipped: resizing and averaging leave such).

    Raises:
        UserError: If layout, dtype or values are not those of images.
    """
    shape = check_layout(array.shape, array.dtype, where, image_shape)
    values = Values()
    values.see(array)
    values.check(array.dtype.kind, where, levels)
    return narrowed(array.reshape(shape))


def kept_layout(shape: tuple[int, ...], dtype: np.dtype) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and dtype of what `as_images` makes of an array of that shape and dtype."""
    kept = np.dtype(np.float32 if dtype.kind == "f" else np.uint8)
    return (*shape, 1) if len(shape) == 3 else shape, kept


def narrowed(array: np.ndarray) -> np.ndarray:
    """What `as_images` returns, for all or a piece of an array whose values are checked."""
    shape, dtype = kept_layout(array.shape, array.dtype)
    images = np.asarray(array).astype(dtype, copy=False).reshape(shape)
    if dtype == np.float32 and (images.min() < 0 or images.max() > 1):
        images = images.clip(0.0, 1.0)
    return np.ascontiguousarray(images)


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
    check_alike({(images.shape[1:], images.dtype) for images in parts.values()}, where)
    floats = any(images.dtype != np.uint8 for images in parts.values())
    brightest = max(images.max() for images in parts.values()).item()
    return number_of_levels(floats, brightest, where, declared, stacklevel=4)


def check_alike(layouts: set[tuple[tuple[int, ...], np.dtype]], where: str) -> None:
    """Checks that splits are alike.

    Args:
        layouts: The image shapes and dtypes of every split's images.
        where: What was loaded, for messages.

    Raises:
        UserError: If the splits differ in kind or in image shape.
    """
    if len(layouts) > 1:
        kinds = sorted(f"{dtype} of shape {shape}" for shape, dtype in layouts)
        raise UserError(
            f"The splits in {where} must hold images of one shape, all integers or all floats. "
            f"Received: {' and '.join(kinds)}."
        )


def number_of_levels(
    floats: bool, brightest: float, where: str, declared: int | None, stacklevel: int
) -> int | None:
    """The number of grey levels of images: see `grey_levels`.

    Args:
        floats: Whether the images are floats.
        brightest: The highest value of all images.
        where: What was loaded, for messages; it begins a sentence.
        declared: The number of levels that the source declares, or None.
        stacklevel: Whom to warn of images that are nearly black or, though no one said so, black
            and white: 1 is this function.

    Raises:
        UserError: If floats come with levels.
    """
    if floats:
        if declared is not None:
            raise UserError(
                f"{where} declares grey levels, which only integer images have: drop 'levels', or "
                f"save integers. Received: levels={declared} with float images."
            )
        if brightest < _DIM_FLOAT:
            warnings.warn(
                f"{where} holds images that are nearly black: the brightest value is "
                f"{brightest:.3g} of 1; divide them by their largest value before saving, or by "
                "255 once and not twice.",
                stacklevel=stacklevel,
            )
        return None
    if declared is not None:
        return declared
    if brightest == 1:
        warnings.warn(
            f"{where} holds no value but 0 and 1, so its images are read as black and white; save "
            "booleans to say that they are, or an .npz file with a number 'levels' beside the "
            "images to say that they are not.",
            stacklevel=stacklevel,
        )
        return 2
    if brightest < _DIM:
        warnings.warn(
            f"{where} holds images that are nearly black: the brightest value is {brightest} of "
            "255; if fewer grey levels are meant, save an .npz file with a number 'levels' beside "
            "the images, or floats in [0, 1].",
            stacklevel=stacklevel,
        )
    return 256
