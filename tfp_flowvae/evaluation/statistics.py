"""Means over images with their standard errors, and what a protocol takes from the images."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import Any

import numpy as np

from tfp_flowvae.evaluation.figures import Protocol


def mean(name: str, values: np.ndarray | None) -> dict[str, Any]:
    """Returns the mean of a figure over images and its standard error, under the figure's names."""
    if values is None:
        return {name: None, f"{name}_se": None}
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    return {name: float(values.mean()), f"{name}_se": float(error)}


def difference(name: str, first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """Returns the difference between the means of two sets of images.

    It is None if there are fewer than two values in the second set.
    """
    if len(second) < 2:
        return mean(name, None)
    means, errors = zip(*(mean("", values).values() for values in (first, second)), strict=True)
    return {name: means[0] - means[1], f"{name}_se": math.hypot(*errors)}


def class_means(values: np.ndarray, label: np.ndarray, classes: int) -> tuple[float | None, ...]:
    """Returns the mean of the values of each class; None for a class without any.

    Args:
      values: `[N]`.
      label: The class of each, int `[N]`.
      classes: K.
    """
    chosen = [values[label == k] for k in range(classes)]
    return tuple(float(part.mean()) if len(part) else None for part in chosen)


def fitted(how: Protocol, images: np.ndarray) -> Protocol:
    """Returns the protocol with what the images tell, and with no more of them than there are."""
    count = len(images)
    names = ("aggregated_images", "gap_images", "drawn")
    few: dict[str, Any] = {name: min(getattr(how, name), count) for name in names}
    return dataclasses.replace(how, images=count, checksum=checksum(images), **few)


def checksum(images: np.ndarray) -> str:
    """Returns the checksum of float32 images `[N, H, W, C]` that `Protocol` has."""
    return hashlib.sha256(images.tobytes()).hexdigest()[:16]
