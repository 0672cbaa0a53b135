"""What a trained model is worth on a set of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, overload

import numpy as np
import tensorflow as tf

from tfp_flowvae.errors import UserError
from tfp_flowvae.evaluation.aggregated import aggregated_posterior
from tfp_flowvae.evaluation.classes import Labels, label_figures
from tfp_flowvae.evaluation.diagnostics import ACTIVE_VARIANCE, base_kl, mean_variance
from tfp_flowvae.evaluation.figures import (
    FEW_EFFECTIVE,
    QUICK,
    DensityEvaluation,
    Evaluation,
    Protocol,
)
from tfp_flowvae.evaluation.free_energy import elbo_term_means
from tfp_flowvae.evaluation.gaps import posterior_gaps
from tfp_flowvae.evaluation.image_density import evaluate_density
from tfp_flowvae.evaluation.likelihoods import likelihood_figures
from tfp_flowvae.evaluation.sample_quality import NEIGHBOURS, Quality, flat, quality
from tfp_flowvae.evaluation.statistics import fitted, mean
from tfp_flowvae.models import FlowVAE, ImageDensity
from tfp_flowvae.training.noise import as_seed

Progress = Callable[[Iterable[int], str], Iterable[int]]

_BATCH = 100


@overload
def evaluate(
    model: FlowVAE,
    images: np.ndarray,
    train_images: np.ndarray | None = None,
    *,
    labels: Labels | None = None,
    **protocol: Any,
) -> Evaluation: ...


@overload
def evaluate(
    model: ImageDensity,
    images: np.ndarray,
    train_images: np.ndarray | None = None,
    *,
    labels: Sequence[str] | None = None,
    **protocol: Any,
) -> DensityEvaluation: ...


def evaluate(
    model: FlowVAE | ImageDensity,
    images: np.ndarray,
    train_images: np.ndarray | None = None,
    *,
    labels: Any = None,
    quick: bool = False,
    progress: Progress | None = None,
    **protocol: Any,
) -> Evaluation | DensityEvaluation:
    """Measures what a model of images is worth on a set of images.

    For an `ImageDensity`, see `evaluate_density`. For a `FlowVAE`:

    Args:
      model: A trained model.
      images: `[N, H, W, C]` in [0, 1], binarised already if the model needs it.
      train_images: `[M, H, W, C]`, for the generalisation gap and the nearest training images.
      labels: The labels of the images, for the figures of each class; None for none.
      quick: Whether to use the sizes of `QUICK`.
      progress: A function of an iterable and a title that shows its progress; None for none.
      **protocol: Attributes of `Protocol`, such as `samples=500` and `seed=1`.

    Raises:
      UserError: If there are fewer than two images, they have another shape than the model's, the
        labels do not fit the images or the model, or a number of the protocol is not allowed.

    Example:
      >>> vae = fv.FlowVAE(image_shape=(4, 4, 1), latent_size=2)
      >>> x = np.random.default_rng(0).integers(0, 2, (12, 4, 4, 1)).astype("float32")
      >>> found = fv.evaluate(vae, x[:4], train_images=x[4:], samples=20, gap_images=0, drawn=8)
      >>> found.nll <= -found.elbo  # the importance-weighted bound is the tighter one
      True
      >>> found.protocol.samples, found.nll_per_image.shape
      (20, (4,))
    """
    if isinstance(model, ImageDensity):
        return evaluate_density(
            model,
            images,
            train_images,
            labels=labels,
            quick=quick,
            progress=progress,
            **protocol,
        )
    images = _checked(model, images)
    if labels is not None:
        model.condition(labels.images, None, len(images))  # checks them
    if train_images is not None:
        train_images = _checked(model, train_images)
    sizes = {**(QUICK if quick else {}), **protocol}
    how = fitted(Protocol(**sizes), images)
    show = progress or (lambda items, title: items)
    return Evaluation(
        protocol=how,
        **_bounds(model, images, train_images, how, show),
        **_gaps(model, images, how, show),
        **_latents(model, images[: how.aggregated_images], how.seed, show),
        **_quality(model, images, train_images, how)._asdict(),
        **label_figures(model, images, labels, how, show),
    )


def _checked(model: FlowVAE, images: np.ndarray) -> np.ndarray:
    """The images in float32; a `UserError` if they do not suit the model."""
    images = np.asarray(images, np.float32)
    if images.shape[1:] != model.image_shape or len(images) < 2:
        wanted = ", ".join(map(str, ("N", *model.image_shape)))
        raise UserError(
            f"The model needs two or more images of shape [{wanted}]. "
            f"Received: images of shape {list(images.shape)}."
        )
    model.likelihood.check_data(images)
    return images


def _bounds(
    model: FlowVAE,
    images: np.ndarray,
    train_images: np.ndarray | None,
    how: Protocol,
    show: Progress,
) -> dict[str, Any]:
    """The figures of log p(x) and of the bounds on it."""
    found, elbo = likelihood_figures(
        model,
        images,
        train_images,
        how,
        lambda places: show(places, "importance samples"),
        min(_BATCH, len(images)),
    )
    cross_entropy = _is_cross_entropy(model, images)
    bits = found["nll"] / (math.prod(model.image_shape) * math.log(2.0))
    return {
        **found,
        **mean("elbo", elbo),
        **elbo_term_means(model, images, None, how.seed),
        "bits_per_dimension": bits if model.likelihood.discrete and not cross_entropy else None,
        "cross_entropy": cross_entropy,
        "few_effective": int(np.sum(found["effective_samples_per_image"] < FEW_EFFECTIVE)),
        "elbo_per_image": elbo,
    }


def _is_cross_entropy(model: FlowVAE, images: np.ndarray) -> bool:
    """Whether log p(x|z) is none: a likelihood of binary images, and images between 0 and 1."""
    binary = model.likelihood.discrete and getattr(model.likelihood, "levels", None) is None
    return binary and bool(np.any((images != 0.0) & (images != 1.0)))


def _gaps(model: FlowVAE, images: np.ndarray, how: Protocol, show: Progress) -> dict[str, Any]:
    approximation = amortization = None
    if how.gap_images >= 2:
        found = posterior_gaps(
            model,
            images[: how.gap_images],
            steps=how.gap_steps,
            seed=how.seed,
            progress=lambda places: show(places, "best posterior of each image"),
        )
        approximation, amortization = found.approximation, found.amortization
    return mean("approximation_gap", approximation) | mean("amortization_gap", amortization)


def _latents(model: FlowVAE, images: np.ndarray, seed: int, show: Progress) -> dict[str, Any]:
    """The figures of the latent space."""
    posterior = model.posterior(images)
    variance = mean_variance(model, posterior, as_seed(seed)).numpy()
    per_dimension = base_kl(posterior.distribution).numpy().mean(axis=0, dtype=np.float64)
    aggregated = aggregated_posterior(
        model, images, seed, progress=lambda places: show(places, "aggregated posterior")
    )
    return {
        "active_units": int(np.sum(variance > ACTIVE_VARIANCE)),
        "mutual_information": aggregated.mutual_information,
        "aggregated_kl": aggregated.kl,
        "base_kl": tuple(per_dimension.tolist()),
    }


def _quality(
    model: FlowVAE, images: np.ndarray, train_images: np.ndarray | None, how: Protocol
) -> Quality:
    """Compares draws from p(x|z) with the images, and means of p(x|z) with training images."""
    if how.drawn <= NEIGHBOURS:
        return Quality()
    batches = [range(how.drawn)[i : i + _BATCH] for i in range(0, how.drawn, _BATCH)]
    seeds = [tf.constant([how.seed, batch.start], tf.int32) for batch in batches]

    def images_of(draw: Callable[[int, tf.Tensor], tf.Tensor]) -> np.ndarray:
        made = [draw(len(batch), seed) for batch, seed in zip(batches, seeds, strict=True)]
        return np.concatenate(made)

    return quality(
        images_of(model.draw_images),
        images[: how.drawn],
        train_images,
        features=flat if how.features == "pixels" else partial(_encoded, model),
        near=images_of(model.sample),
        near_data=_reconstructed(model, images[: how.drawn], seeds),
    )


def _encoded(model: FlowVAE, images: np.ndarray) -> np.ndarray:
    starts = range(0, len(images), _BATCH)
    return np.concatenate([model.encoder(images[i : i + _BATCH]) for i in starts])


def _reconstructed(model: FlowVAE, images: np.ndarray, seeds: Sequence[tf.Tensor]) -> np.ndarray:
    starts = range(0, len(images), _BATCH)
    made = [
        model.reconstruct(images[i : i + _BATCH], seed)
        for i, seed in zip(starts, seeds, strict=True)
    ]
    return np.concatenate(made)
