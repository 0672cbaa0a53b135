"""Images side by side, as one picture of the page."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tfp_flowvae.evaluation.plots import image_grid
from tfp_flowvae.evaluation.report.theme import Picture, data_uri

LARGEST = 64
"""The page shows images of at most so many pixels a side; larger ones are reduced."""

_LARGEST_PNG, _WEBP_QUALITY = 32, 88
_SPRITE_CELL = 32  # smaller images are magnified


def strip(images: np.ndarray, columns: int | None = None) -> Picture:
    """Returns images `[N, H, W, C]` in [0, 1] side by side; what is between them is transparent."""
    images = reduced(images)
    columns = len(images) if columns is None else columns
    pixels = image_grid(images, columns)
    # The grid of black images is black where an image is, and white elsewhere.
    alpha = 255 - image_grid(np.zeros_like(images), columns)[..., :1]
    return _encoded(np.concatenate([pixels, alpha], axis=-1), images)


def sprite(images: np.ndarray, columns: int) -> Picture:
    """Returns images `[N, H, W, C]` in [0, 1] in a grid without gaps."""
    count, height, width, channels = images.shape
    zoom = max(1, round(_SPRITE_CELL / max(height, width)))
    images = resized(images, height * zoom, width * zoom) if zoom > 1 else reduced(images)
    rows = _levels(images).reshape(count // columns, columns, *images.shape[1:])
    grid = rows.swapaxes(1, 2).reshape(len(rows) * images.shape[1], -1, channels)
    return _encoded(np.broadcast_to(grid, (*grid.shape[:2], 3)), images)


def reduced(images: np.ndarray) -> np.ndarray:
    """Returns images with at most `LARGEST` pixels a side."""
    height, width = images.shape[1:3]
    shrink = LARGEST / max(height, width)
    if shrink >= 1.0:
        return images
    return resized(images, max(1, round(height * shrink)), max(1, round(width * shrink)))


def resized(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns images `[N, H, W, C]` at another size, by bicubic interpolation."""
    shape = (len(images), height, width, images.shape[-1])
    out = np.empty(shape, np.float32)
    for target, image in zip(out, _levels(images), strict=True):
        channels = Image.fromarray(image[..., 0] if shape[-1] == 1 else image)
        scaled = channels.resize((width, height), Image.Resampling.BICUBIC)
        target[...] = np.asarray(scaled, np.float32).reshape(target.shape) / 255.0
    return out


def _levels(images: np.ndarray) -> np.ndarray:
    return np.round(np.clip(images, 0.0, 1.0) * 255.0).astype(np.uint8)


def _encoded(pixels: np.ndarray, images: np.ndarray) -> Picture:
    """RGB or RGBA pixels of images `[N, H, W, C]`: PNG, or WebP where PNG files would be large."""
    height, width, channels = pixels.shape
    image, file = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    large = images.shape[-1] == 3 or max(images.shape[1:3]) > _LARGEST_PNG
    if large:
        image.save(file, format="webp", quality=_WEBP_QUALITY)
    else:
        image.convert("LA" if channels == 4 else "L").save(file, format="png", optimize=True)
    return Picture(data_uri(file.getvalue(), "image/webp" if large else "image/png"), width, height)
