"""Binary images from grey ones, in the ways of the literature.

- `static`: one Bernoulli draw per pixel, with the intensity as its probability (Salakhutdinov &
  Murray, 2008). It is the same for every run and seed.
- `dynamic`: a new draw in each epoch of training. Validation and test images are those of `static`,
  so that their free energies can be compared.
- `threshold`: 1 where the intensity exceeds 0.5.
- `none`: the intensities themselves.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from tfp_flowvae.data.cache import cached_file, derived
from tfp_flowvae.data.images import to_unit
from tfp_flowvae.errors import UserError, nearest

BINARIZATIONS: tuple[str, ...] = ("static", "dynamic", "threshold", "none")
"""The ways to make images binary, which `training_batches` and `binarize_fixed` take.

Example:
  >>> BINARIZATIONS
  ('static', 'dynamic', 'threshold', 'none')
"""

STATIC_SEED = 2008
"""The seed of the one fixed draw; it does not depend on a run's seed."""

_STREAMS = {"train": 0, "valid": 1, "test": 2}
_CHUNK = 1 << 20  # The number of pixels drawn at once, with 8 MB of random bits.


def check_binarization(how: str) -> None:
    """Raises `UserError` unless the name is one of `BINARIZATIONS`.

    Example:
      >>> check_binarization("static")
      >>> check_binarization("statik")
      Traceback (most recent call last):
          ...
      tfp_flowvae.errors.UserError: The binarization must be one of ... Received: 'statik'. ...
    """
    if how not in BINARIZATIONS:
        raise UserError(
            f"The binarization must be one of {', '.join(BINARIZATIONS)}. "
            f"Received: {how!r}.{nearest(how, BINARIZATIONS)}"
        )


def binarize_fixed(
    images: np.ndarray, levels: int | None, how: str, split: str, seed: int = STATIC_SEED
) -> tuple[np.ndarray, int | None]:
    """Binarises images in a fixed way, for evaluation and for static training.

    Args:
      images: `[N, H, W, C]`, uint8 levels, or float32 intensities if `levels` is None.
      levels: The number of grey levels, or None.
      how: One of `BINARIZATIONS`; `dynamic` gives the images of `static`.
      split: "train", "valid" or "test"; each has its own random numbers.
      seed: The seed of the draw. Keep the default to compare figures with published ones.

    Returns:
      Images of zeros and ones, uint8, and their number of levels, 2. For `none`: `images` and
      `levels`. If `stream_images` mapped the images from a cache, the result is mapped too, from a
      file beside them that the first call writes.

    Raises:
      UserError: If `how` is unknown, or that file cannot be written.

    Example:
      >>> splits = load_images("digits")
      >>> images, levels = binarize_fixed(splits.test, splits.levels, "static", "test")
    """
    check_binarization(how)
    if how == "none":
        return images, levels
    draw = partial(_draw, images.reshape(-1), levels, how, [seed, _STREAMS[split]])
    file = cached_file(images)
    if file is None:
        binary = np.empty(images.shape, np.uint8)
        draw(binary)
        return binary, 2
    if levels == 2:
        return images, levels  # Binary images stay as they are, whatever is drawn.
    drawn = how if how == "threshold" else f"static-{split}-{seed}"
    path = file.with_name(f"{file.stem}.{drawn}-{levels or 'unit'}.npy")
    return derived(path, images.shape, np.dtype(np.uint8), draw), 2


def _draw(
    pixels: np.ndarray, levels: int | None, how: str, seed: list[int], out: np.ndarray
) -> None:
    """Fills a uint8 array with the binary pixels of `pixels` `[N]`, from the first to the last."""
    bits = np.random.PCG64(np.random.SeedSequence(seed))
    out = out.reshape(-1)
    for start in range(0, pixels.size, _CHUNK):
        intensity = to_unit(np.asarray(pixels[start : start + _CHUNK]), levels)
        if how == "threshold":
            binary = intensity > 0.5
        else:
            # 53 random bits as a double in [0, 1): NumPy keeps only the raw output of its
            # generators the same in every release.
            uniform = (bits.random_raw(intensity.size) >> np.uint64(11)) * 2.0**-53
            binary = uniform < intensity
        out[start : start + _CHUNK] = binary
