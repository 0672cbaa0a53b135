"""Samples beside the training images that are nearest to them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfp_flowvae.evaluation.sample_quality import nearest
from tfp_flowvae.models import FlowVAE

# Samples that are nearer than this share of the reconstructions' distance may be copies.
SUSPICIOUS = 0.8


class Nearest(NamedTuple):
    """The nearest training images, by the Euclidean distance of pixel values in [0, 1].

    Attributes:
      samples: Means of p(x|z) with z from the prior, `[N, H, W, C]`.
      neighbours: The nearest training image of each, `[N, H, W, C]`.
      distances: Their distances, `[N]`.
      median: The median of the distances.
      median_of_data: The median distance of as many reconstructions of test images.
      searched: The number of training images.
    """

    samples: np.ndarray
    neighbours: np.ndarray
    distances: np.ndarray
    median: float
    median_of_data: float
    searched: int


def find_nearest(
    model: FlowVAE, test: np.ndarray, train: np.ndarray, count: int, seed: int
) -> Nearest:
    """Finds the nearest training images of `count` samples and reconstructions at most."""
    test = test[:count]
    samples = model.sample(len(test), seed).numpy()
    reconstructions = model.reconstruct(test, seed).numpy()
    flat = train.reshape(len(train), -1)
    places, distances = nearest(samples.reshape(len(samples), -1), flat)
    _, distances_of_data = nearest(reconstructions.reshape(len(test), -1), flat)
    return Nearest(
        samples,
        train[places],
        distances,
        float(np.median(distances)),
        float(np.median(distances_of_data)),
        len(train),
    )
