"""What a flow of images is worth on a set of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_flowvae.errors import UserError
from tfp_flowvae.evaluation.classes import Labels, label_figures
from tfp_flowvae.evaluation.figures import (
    DENSITY_QUICK,
    DENSITY_SIZES,
    DensityEvaluation,
    Protocol,
)
from tfp_flowvae.evaluation.likelihoods import likelihood_figures
from tfp_flowvae.evaluation.sample_quality import NEIGHBOURS, Quality, quality
from tfp_flowvae.evaluation.statistics import class_means, fitted, mean
from tfp_flowvae.models import ImageDensity
from tfp_flowvae.models.dequantize import kind_of
from tfp_flowvae.models.importance import estimates_of
from tfp_flowvae.models.labels import checked_labels
from tfp_flowvae.models.pixels import check_pixels

Progress = Callable[[Iterable[int], str], Iterable[int]]

_BATCH, _COMPARED = 100, 20


def evaluate_density(
    model: ImageDensity,
    images: np.ndarray,
    train_images: np.ndarray | None = None,
    *,
    labels: Labels | None = None,
    quick: bool = False,
    progress: Progress | None = None,
    **protocol: Any,
) -> DensityEvaluation:
    """Measures what a flow of images is worth; `tfp_flowvae.evaluate` calls it for one.

    Args:
      model: A trained model.
      images: `[N, H, W, C]`, whole numbers from 0 to L - 1; two or more.
      train_images: `[M, H, W, C]`, for the generalisation gap and the nearest training images.
      labels: The labels of the images, for the figures of each class; None for none. For a model
        without classes these are figures of P(x).
      quick: Whether to use the sizes of `DENSITY_QUICK`.
      progress: A function of an iterable and a title that shows its progress; None for none.
      **protocol: Attributes of `Protocol`, such as `samples=50` and `seed=1`.

    Raises:
      UserError: If the images do not suit the model, or the protocol is not allowed.

    Example:
      >>> density = fv.FlowDensity("glow:levels=1,steps=1", event_shape=(4, 4, 1), levels=17)
      >>> x = np.random.default_rng(0).integers(0, 17, (4, 4, 4, 1))
      >>> found = evaluate_density(density, x, samples=3, drawn=0)
      >>> found.nll <= found.nll_bound  # more draws of the noise give a tighter bound
      True
    """
    images = _checked(model, images)
    if labels is not None:
        classes = model.num_classes or len(labels.names)
        checked_labels(labels.images, classes, len(images))
    if train_images is not None:
        train_images = _checked(model, train_images)
    sizes = {**(DENSITY_QUICK if quick else DENSITY_SIZES), **protocol, "gap_images": 0}
    how = fitted(Protocol(**sizes), images)
    if how.features != "pixels":
        raise UserError(
            "features must be pixels for a flow of images, which has no encoder. "
            f"Received: {how.features!r}."
        )
    show = progress or (lambda items, title: items)
    bounds = _bounds(model, images, train_images, how, show)
    return DensityEvaluation(
        protocol=how,
        dequantization=kind_of(model.dequantize),
        **bounds,
        **_latents(model, images[: how.aggregated_images], how.seed),
        **_quality(model, images, train_images, how, show)._asdict(),
        **_classes(model, images, bounds["nll_per_image"], labels, how, show),
    )


def same_density(model: ImageDensity, images: np.ndarray, found: DensityEvaluation) -> bool:
    """Whether figures are of this model: by the bounds of the first images.

    Args:
      model: The model.
      images: The images of the figures, `[N, H, W, C]`.
      found: The figures.
    """
    how = found.protocol
    first = images[:_COMPARED]
    again = estimates_of(model, first, how.samples, seed=how.seed)
    # The same model on another machine rounds otherwise.
    return np.allclose(again.nll, found.nll_per_image[: len(first)], rtol=1e-3, atol=1e-3)


def latents_of(model: ImageDensity, images: np.ndarray, seed: int) -> np.ndarray:
    """Returns z0 of each image with one draw of the noise, `[N, D]`."""
    starts = range(0, len(images), _BATCH)
    seeds = [tf.constant([seed, start], tf.int32) for start in starts]
    parts = [images[start : start + _BATCH] for start in starts]
    return np.concatenate([model.encode(x, key) for x, key in zip(parts, seeds, strict=True)])


def base_distance(z: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Returns the Kolmogorov-Smirnov distance of two samples in each dimension, `[D]`.

    Args:
      z: `[N, D]`.
      base: `[M, D]`.
    """
    distances = []
    for one, other in zip(np.sort(z.T), np.sort(base.T), strict=True):
        both = np.concatenate([one, other])
        below = [np.searchsorted(part, both, side="right") / len(part) for part in (one, other)]
        distances.append(np.abs(below[0] - below[1]).max())
    return np.array(distances)


def drawn_images(
    model: ImageDensity,
    count: int,
    seed: int,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> np.ndarray:
    """Returns draws of the model, `[count, H, W, C]` in [0, 1]."""
    made = [
        model.sample(min(_BATCH, count - start), seed=tf.constant([seed, start], tf.int32))
        for start in progress(range(0, count, _BATCH))
    ]
    return to_shown(model, np.concatenate(made))


def to_shown(model: ImageDensity, images: np.ndarray) -> np.ndarray:
    """Returns whole numbers from 0 to L - 1 as float32 in [0, 1]."""
    return np.asarray(images, np.float32) / np.float32(model.levels - 1)


def _checked(model: ImageDensity, images: np.ndarray) -> np.ndarray:
    """The images in float32; a `UserError` if they do not suit the model."""
    check_pixels(images, model.event_shape, model.levels)
    if len(images) < 2:
        raise UserError(f"Two or more images are needed. Received: {len(images)}.")
    return np.asarray(images, np.float32)


def _bounds(
    model: ImageDensity,
    images: np.ndarray,
    train_images: np.ndarray | None,
    how: Protocol,
    show: Progress,
) -> dict[str, Any]:
    """The figures of -log P(x)."""
    found, bound = likelihood_figures(
        model, images, train_images, how, lambda places: show(places, "draws of the noise")
    )
    found |= mean("nll_bound", -bound)
    return {
        **found,
        **mean("bits_per_dimension", model.bits_per_dim(found["nll_per_image"])),
        "nll_bound_bits": model.bits_per_dim(found["nll_bound"]),
        "nll_bound_per_image": -bound,
    }


def _latents(model: ImageDensity, images: np.ndarray, seed: int) -> dict[str, Any]:
    """How far the latents of images are from the base."""
    z, base = latents_of(model, images, seed), base_draws(model, 2 * len(images), seed)
    one, other = np.split(base, 2)
    return {
        "latent_distance": float(base_distance(z, one).mean()),
        "latent_distance_of_base": float(base_distance(other, one).mean()),
    }


def base_draws(model: ImageDensity, count: int, seed: int) -> np.ndarray:
    """Returns draws of the model's base, for an unknown class if it has classes, `[count, D]`."""
    draws = model.distribution().distribution.sample(count, seed=[seed, 0]).numpy()
    return draws.reshape([count, model.event_size])


def _quality(
    model: ImageDensity,
    images: np.ndarray,
    train_images: np.ndarray | None,
    how: Protocol,
    show: Progress,
) -> Quality:
    """Compares draws with the images, and both with training images."""
    if how.drawn <= NEIGHBOURS:
        return Quality()
    drawn = drawn_images(model, how.drawn, how.seed, lambda places: show(places, "samples"))
    data = to_shown(model, images[: how.drawn])
    train = None if train_images is None else to_shown(model, train_images)
    return quality(drawn, data, train, near=drawn, near_data=data)


def _classes(
    model: ImageDensity,
    images: np.ndarray,
    nll: np.ndarray,
    labels: Labels | None,
    how: Protocol,
    show: Progress,
) -> dict[str, Any]:
    """The figures that need labels; none with fewer than two."""
    if labels is None or np.sum(labels.images >= 0) < 2 or len(labels.names) < 2:
        return {}
    if model.num_classes is not None:
        return label_figures(model, images, labels, how, show)
    count, known = len(labels.names), labels.images[labels.images >= 0]
    return {
        "class_names": tuple(labels.names),
        "class_images": tuple(np.bincount(known, minlength=count).tolist()),
        "class_nll": class_means(nll, labels.images, count),
    }
