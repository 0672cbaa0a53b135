"""Black and white from grey: the ways in which the literature makes images binary.

- `static`: one Bernoulli draw per pixel, made once, with the intensity as its probability
  (Salakhutdinov & Murray, 2008). Every run, whatever its seed, sees the same draw.
- `dynamic`: a new draw each epoch in training; validation and test images are the same one draw
  as under `static`, so free energies can be compared.
- `threshold`: 1 where the intensity exceeds 0.5.
- `none`: intensities as they are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tfp_flowvae.data.disk import cached_file, derived
from tfp_flowvae.data.images import to_unit
from tfp_flowvae.errors import UserError, nearest

BINARIZATIONS: tuple[str, ...] = ("static", "dynamic", "threshold", "none")

STATIC_SEED = 2008
"""The seed of the one fixed draw; it does not depend on a run's seed."""

_STREAMS = {"train": 0, "valid": 1, "test": 2}
_CHUNK = 1 << 20  # Pixels drawn at once: 8 MB of random bits.


def check_binarization(how: str) -> None:
    """Checks the name of a binarisation.

    Raises:
        UserError: If it is not one of `BINARIZATIONS`.
    """
    if how not in BINARIZATIONS:
        raise UserError(
            f"The binarization must be one of {', '.join(BINARIZATIONS)}. "
            f"Received: {how!r}.{nearest(how, BINARIZATIONS)}"
        )


def binarize_fixed(
    images: np.ndarray, levels: int | None, how: str, split: str, seed: int = STATIC_SEED
) -> tuple[np.ndarray, int | None]:
    """The images that are seen the same way each time: evaluation, and static training.

    Args:
        images: `[N, H, W, C]`, uint8 levels, or float32 intensities where `levels` is None.
        levels: The number of grey levels, or None.
        how: One of `BINARIZATIONS`; `dynamic` gives what `static` gives.
        split: "train", "valid" or "test": each has its own stream of random numbers.
        seed: The seed of the draw. Leave it alone where figures are to be compared.

    Returns:
        The images and their number of levels: uint8 zeros and ones with 2 levels, or, for
        `none`, what was given. Of images that `stream_images` mapped from a cache, they are mapped
        too, from a file beside them that the first call writes.

    Raises:
        UserError: If `how` is unknown, or that file cannot be written.

    Example:
        >>> images, levels = binarize_fixed(splits.test, splits.levels, "static", "test")
    """
    check_binarization(how)
    if how == "none":
        return images, levels
    pieces = _binary_pieces(images.reshape(-1), levels, how, [seed, _STREAMS[split]])
    file = cached_file(images)
    if file is None:
        binary = np.empty(images.size, np.uint8)
        start = 0
        for piece in pieces:
            binary[start : start + piece.size] = piece
            start += piece.size
        return binary.reshape(images.shape), 2
    if levels == 2:
        return images, levels  # Black and white stay as they are, whatever is drawn.
    draw = how if how == "threshold" else f"static-{split}-{seed}"
    name = f"{file.stem}.{draw}-{levels or 'unit'}.npy"
    return derived(file.with_name(name), images.shape, np.dtype(np.uint8), pieces), 2


def _binary_pieces(
    flat: np.ndarray, levels: int | None, how: str, seed: list[int]
) -> Iterator[np.ndarray]:
    """The binary pixels, uint8, of pixels `[N]`, from the first to the last."""
    bits = np.random.PCG64(np.random.SeedSequence(seed))
    for start in range(0, flat.size, _CHUNK):
        intensity = to_unit(np.asarray(flat[start : start + _CHUNK]), levels)
        if how == "threshold":
            binary = intensity > 0.5
        else:
            # 53 random bits as a double in [0, 1): raw output, because that alone is the same
            # in every NumPy release.
            uniform = (bits.random_raw(intensity.size) >> np.uint64(11)) * 2.0**-53
            binary = uniform < intensity
        yield binary.view(np.uint8)
