"""Samples beside the training images that are nearest to them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfp_flowvae.evaluation.sample_quality import flat, nearest
from tfp_flowvae.models import FlowVAE

# Samples that are nearer than this share of the reconstructions' distance may be copies.
SUSPICIOUS = 0.8


class Nearest(NamedTuple):
    """The nearest training images, by the Euclidean distance of pixel values in [0, 1].

    Attributes:
      samples: Samples of the model, `[N, H, W, C]`; of a VAE means of p(x|z), z from the prior.
      neighbours: The nearest training image of each, `[N, H, W, C]`.
      distances: Their distances, `[N]`.
      median: The median of the distances.
      median_of_data: The median distance of as many images that are compared.
      searched: The number of training images.
      compared: What is compared, in words.
    """

    samples: np.ndarray
    neighbours: np.ndarray
    distances: np.ndarray
    median: float
    median_of_data: float
    searched: int
    compared: str


def find_nearest(
    model: FlowVAE, test: np.ndarray, train: np.ndarray, count: int, seed: int
) -> Nearest:
    """Finds the nearest training images of `count` samples and reconstructions at most."""
    test = test[:count]
    samples = model.sample(len(test), seed).numpy()
    reconstructions = model.reconstruct(test, seed).numpy()
    return nearest_to(samples, reconstructions, train, "reconstructions of test images")


def nearest_to(
    samples: np.ndarray, images: np.ndarray, train: np.ndarray, compared: str
) -> Nearest:
    """Finds the nearest training images of samples and, for comparison, of as many images.

    Args:
      samples: `[N, H, W, C]` in [0, 1].
      images: `[N, H, W, C]`.
      train: `[M, H, W, C]`.
      compared: What `images` are, in words.
    """
    data = flat(train)
    places, distances = nearest(flat(samples), data)
    _, distances_of_data = nearest(flat(images), data)
    return Nearest(
        samples,
        train[places],
        distances,
        float(np.median(distances)),
        float(np.median(distances_of_data)),
        len(train),
        compared,
    )
