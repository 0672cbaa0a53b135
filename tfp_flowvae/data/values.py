"""The values of images: their range, and what it says about them.

Integers are grey levels, from 0 to 255 unless another number of levels is declared. Floats are
intensities in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tfp_flowvae.errors import UserError

_ROUNDING = 1e-6  # Resizing and averaging in float32 leave values this far outside [0, 1].
# Images whose brightest value is below this are nearly black: of 256 levels, and of floats.
_DIM, _DIM_FLOAT = 64, 1 / 16


@dataclass
class Values:
    """The range of the values of images that arrive in pieces.

    Attributes:
      low: The lowest value, or NaN if any value is NaN; None before the first piece.
      high: The highest value, or NaN if any value is NaN; None before the first piece.
      broken: The number of values that are not finite.
      count: The number of values.
    """

    low: Any = None
    high: Any = None
    broken: int = 0
    count: int = 0

    def see(self, piece: np.ndarray) -> None:
        """Adds a piece, which must have the dtype of the pieces before it."""
        low, high = piece.min(), piece.max()
        # An extreme value that is not finite shows that the piece holds values that are not.
        if not (np.isfinite(low) and np.isfinite(high)):
            self.broken += int(np.count_nonzero(~np.isfinite(piece)))
        self.count += piece.size
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)

    def check(self, kind: str, where: str, levels: int | None = None) -> None:
        """Checks that the values are those of images.

        Args:
          kind: The kind of their dtype: b, u, i or f.
          where: The name of the images in messages.
          levels: The declared number of grey levels of integer images; None means 256.

        Raises:
          UserError: If they are not.
        """
        low, high, most = self.low, self.high, (levels or 256) - 1
        if kind != "f":
            if low >= 0 and high <= most:
                return
            advice = "rescale them"
            if levels is None and low >= 0 and high < 2**16:
                shift = int(high).bit_length() - 8
                advice = f"take their upper 8 bits, (images >> {shift}).astype('uint8')"
            raise UserError(
                f"Integer images in {where} must lie in 0..{most}; {advice}, or "
                f"save floats in [0, 1]. Received: values from {low} to {high}."
            )
        if self.broken:
            what = "NaN" if np.isnan(low) or np.isnan(high) else "infinite values"
            raise UserError(
                f"Images in {where} must be finite floats in [0, 1]; remove or repair the broken "
                f"ones. Received: {what} ({self.broken} of {self.count} values are not finite)."
            )
        if low < -_ROUNDING or high > 1 + _ROUNDING:
            advice = "divide them by 255" if low >= 0 and high <= 255 else "rescale them"
            raise UserError(
                f"Float images in {where} must lie in [0, 1]; {advice} before saving. "
                f"Received: values from {low:g} to {high:g}."
            )


def narrowed(images: np.ndarray) -> np.ndarray:
    """Returns images as uint8 if they are booleans or integers, and as float32 if they are floats.

    Floats are clipped to [0, 1], because `Values.check` allows a rounding error outside.
    """
    if images.dtype.kind != "f":
        return images.astype(np.uint8, copy=False)
    with np.errstate(over="ignore"):  # Values that overflow are refused by `Values.check`.
        return images.astype(np.float32, copy=False).clip(0.0, 1.0)


def grey_levels(
    dtype: np.dtype, brightest: float, where: str, declared: int | None
) -> tuple[int | None, str | None]:
    """Returns the number of grey levels, and a warning if the images look wrong.

    Args:
      dtype: uint8 or float32.
      brightest: The highest value in all splits.
      where: The source, for messages.
      declared: The number of levels that the source declares, or None.

    Returns:
      The number of levels: None for floats; for integers the declared number, or 2 if there are no
      values but 0 and 1, or 256. And the warning, which continues a sentence that begins with the
      source, or None.

    Raises:
      UserError: If float images come with levels.
    """
    if dtype != np.uint8:
        if declared is not None:
            raise UserError(
                f"{where} declares grey levels, which only integer images have: drop 'levels', or "
                f"save integers. Received: levels={declared} with float images."
            )
        if brightest >= _DIM_FLOAT:
            return None, None
        return None, (
            "holds images that are nearly black: the brightest value is "
            f"{brightest:.3g} of 1; divide them by their largest value before saving, or by "
            "255 once and not twice."
        )
    if declared is not None or brightest >= _DIM:
        return declared or 256, None
    if brightest == 1:
        return 2, (
            "holds no value but 0 and 1, so its images are read as black and white; save "
            "booleans to say that they are, or an .npz file with a number 'levels' beside the "
            "images to say that they are not."
        )
    return 256, (
        f"holds images that are nearly black: the brightest value is {brightest} of "
        "255; if fewer grey levels are meant, save an .npz file with a number 'levels' beside "
        "the images, or floats in [0, 1]."
    )
