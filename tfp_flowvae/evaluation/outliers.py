"""An outlier score that needs no labels: -log p(x), beside that of validation images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tfp_flowvae.models import FlowVAE


class OutlierScores(NamedTuple):
    """The scores of N images.

    Attributes:
      nll: -log p(x), float64 `[N]`, nats.
      quantile: The share of validation images with a smaller -log p(x), float64 `[N]`.
    """

    nll: np.ndarray
    quantile: np.ndarray


def outlier_scores(
    model: FlowVAE,
    images: np.ndarray,
    valid_images: np.ndarray,
    num_samples: int = 500,
    seed: int = 0,
) -> OutlierScores:
    """Scores images by how unlikely the model finds them.

    A quantile near 1 means that the model finds the image less likely than nearly all validation
    images. A low one does not prove that an image is typical: simple images of another data set can
    have a higher likelihood (Nalisnick et al. 2019, https://arxiv.org/abs/1810.09136).

    Args:
      model: A trained model.
      images: `[N, H, W, C]` in [0, 1], binarised like the validation images.
      valid_images: `[M, H, W, C]`, images that the model was not trained on.
      num_samples: The number of importance samples of each image.
      seed: The seed of the samples.

    Raises:
      ValueError: If the images have another shape than the model's, or `num_samples` is below 1.
    """
    nll, valid = (model.nll(x, num_samples, seed=seed) for x in (images, valid_images))
    return OutlierScores(nll, np.searchsorted(np.sort(valid), nll) / len(valid))
