"""What a flow of images is worth on a set of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_flowvae.data.labels import class_names
from tfp_flowvae.errors import UserError
from tfp_flowvae.evaluation.figures import (
    DENSITY_QUICK,
    DENSITY_SIZES,
    DensityEvaluation,
    Protocol,
)
from tfp_flowvae.evaluation.sample_quality import NEIGHBOURS, Quality, quality
from tfp_flowvae.evaluation.statistics import class_means, difference, fitted, mean
from tfp_flowvae.models import ImageDensity
from tfp_flowvae.models.dequantize import kind_of
from tfp_flowvae.models.importance import SAMPLES, Estimates, importance_estimates
from tfp_flowvae.models.pixels import check_pixels
from tfp_flowvae.training.xla import xla_suits

Progress = Callable[[Iterable[int], str], Iterable[int]]

_BATCH = 100
# Noisy images in the flow at once, because the networks of a flow hold many channels.
_AT_ONCE = 1000


def evaluate_density(
    model: ImageDensity,
    images: np.ndarray,
    train_images: np.ndarray | None = None,
    *,
    labels: Sequence[str] | None = None,
    quick: bool = False,
    progress: Progress | None = None,
    **protocol: Any,
) -> DensityEvaluation:
    """Measures what a flow of images is worth; `tfp_flowvae.evaluate` calls it for one.

    Args:
      model: A trained model.
      images: `[N, H, W, C]`, whole numbers from 0 to L - 1; two or more.
      train_images: `[M, H, W, C]`, for the generalisation gap and the nearest training images.
      labels: The label of each image, for the figures of each class; None for none. The model does
        not know them.
      quick: Whether to use the sizes of `DENSITY_QUICK`.
      progress: A function of an iterable and a title that shows its progress; None for none.
      **protocol: Attributes of `Protocol`, such as `samples=50` and `seed=1`.

    Raises:
      UserError: If the images do not suit the model, or the protocol is not allowed.
    """
    images = _checked(model, images)
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
        **_classes(bounds["nll_per_image"], labels),
    )


def density_estimates(
    model: ImageDensity,
    images: np.ndarray,
    num_samples: int,
    seed: int,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Estimates:
    """Estimates -log P(x) of each image from above, by draws of the noise.

    Args:
      model: The model.
      images: `[N, H, W, C]`, whole numbers from 0 to L - 1.
      num_samples: S, the number of draws.
      seed: The seed of the draws.
      progress: A function that wraps the iterable of the batches' first places, such as `tqdm`.
    """
    return importance_estimates(
        model.log_weights,
        images,
        num_samples,
        _batch_size(num_samples),
        seed,
        jit_compile=xla_suits(model),
        progress=progress,
    )


def same_density(model: ImageDensity, images: np.ndarray, found: DensityEvaluation) -> bool:
    """Whether figures are of this model: by the bounds of the first images.

    Args:
      model: The model.
      images: The images of the figures, `[N, H, W, C]`.
      found: The figures.
    """
    how = found.protocol
    first = images[: _batch_size(how.samples)]
    again = density_estimates(model, first, how.samples, how.seed)
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


def _batch_size(num_samples: int) -> int:
    return max(1, min(_BATCH, _AT_ONCE // min(num_samples, SAMPLES)))


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
    chosen = images[:0] if train_images is None else train_images[: len(images)]
    both = density_estimates(
        model,
        np.concatenate([images, chosen]),  # in one call, because each call compiles a program
        how.samples,
        how.seed,
        progress=lambda places: show(places, "draws of the noise"),
    )
    nll, bound, effective_samples = (values[: len(images)] for values in both)
    found = {**mean("nll", nll), **mean("nll_bound", -bound)}
    return {
        **found,
        **mean("bits_per_dimension", model.bits_per_dim(nll)),
        "nll_bound_bits": model.bits_per_dim(found["nll_bound"]),
        "effective_samples": float(np.median(effective_samples)),
        **difference("generalization_gap", nll, both.nll[len(images) :]),
        "nll_per_image": nll,
        "nll_bound_per_image": -bound,
        "effective_samples_per_image": effective_samples,
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
    """Returns draws of the model's base, `[count, D]`."""
    return model.distribution().distribution.sample(count, seed=[seed, 0]).numpy()


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


def _classes(nll: np.ndarray, labels: Sequence[str] | None) -> dict[str, Any]:
    """The figures of each class; none with fewer than two classes."""
    names = () if labels is None else class_names(np.asarray(labels))
    if labels is None or len(names) < 2:
        return {}
    places = {name: i for i, name in enumerate(names)}
    own = np.array([places.get(label, -1) for label in np.asarray(labels).tolist()])
    return {
        "class_names": names,
        "class_images": tuple(np.bincount(own[own >= 0], minlength=len(names)).tolist()),
        "class_nll": class_means(nll, own, len(names)),
    }
