"""The figures of -log p(x) that a VAE and a flow of images share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tfp_flowvae.evaluation.figures import Protocol
from tfp_flowvae.evaluation.statistics import difference, mean
from tfp_flowvae.models import FlowVAE, ImageDensity
from tfp_flowvae.models.importance import estimates_of


def likelihood_figures(
    model: FlowVAE | ImageDensity,
    images: np.ndarray,
    train_images: np.ndarray | None,
    how: Protocol,
    progress: Callable[[Iterable[int]], Iterable[int]],
    batch_size: int | None = None,
) -> tuple[dict[str, Any], np.ndarray]:
    """Measures -log p(x) of images, and of as many training images for the generalisation gap.

    Args:
      model: The model.
      images: `[N, H, W, C]`.
      train_images: `[M, H, W, C]`, or None.
      how: The protocol.
      progress: A function that wraps the iterable of the batches' first places, such as `tqdm`.
      batch_size: See `estimates_of`.

    Returns:
      Figures of `Figures`, by name, and the bound with one sample of each image, `[N]`, in nats.
    """
    chosen = images[:0] if train_images is None else train_images[: len(images)]
    both = estimates_of(
        model,
        np.concatenate([images, chosen]),  # in one call, because each call compiles a program
        how.samples,
        batch_size,
        how.seed,
        progress=progress,
    )
    nll, bound, effective_samples = (values[: len(images)] for values in both)
    found = {
        **mean("nll", nll),
        "effective_samples": float(np.median(effective_samples)),
        **difference("generalization_gap", nll, both.nll[len(images) :]),
        "nll_per_image": nll,
        "effective_samples_per_image": effective_samples,
    }
    return found, bound
