"""An outlier score that needs no labels: -log p(x), beside that of validation images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from tfp_flowvae.evaluation.figures import Protocol
from tfp_flowvae.evaluation.table import aligned, data
from tfp_flowvae.models import FlowVAE, ImageDensity
from tfp_flowvae.models.importance import estimates_of

_SHOWN = 10


class OutlierScores(NamedTuple):
    """The scores of N images.

    Attributes:
      nll: -log p(x), float64 `[N]`, nats; for a flow of images an upper bound.
      quantile: The share of validation images with a smaller -log p(x), float64 `[N]`.

    Example:
      >>> scores = OutlierScores(nll=np.array([80.0, 120.0]), quantile=np.array([0.4, 0.99]))
      >>> scores.nll[scores.quantile > 0.95]  # less likely than 95% of the validation images
      array([120.])
    """

    nll: np.ndarray
    quantile: np.ndarray


def outlier_scores(
    model: FlowVAE | ImageDensity,
    images: np.ndarray,
    valid_images: np.ndarray,
    num_samples: int = 500,
    seed: int = 0,
    progress: Callable[[Iterable[int], str], Iterable[int]] | None = None,
) -> OutlierScores:
    """Scores images by how unlikely the model finds them.

    A quantile near 1 means that the model finds the image less likely than nearly all validation
    images. A low one does not prove that an image is typical: simple images of another data set can
    have a higher likelihood (Nalisnick et al. 2019, https://arxiv.org/abs/1810.09136).

    Args:
      model: A trained model.
      images: `[N, H, W, C]` in [0, 1], binarised like the validation images; for an `ImageDensity`
        whole numbers from 0 to L - 1.
      valid_images: `[M, H, W, C]`, images that the model was not trained on.
      num_samples: The number of importance samples of each image.
      seed: The seed of the samples.
      progress: A function of an iterable and a title that shows its progress; None for none.

    Raises:
      ValueError: If the images have another shape than the model's, or `num_samples` is below 1.

    Example:
      >>> vae = fv.FlowVAE(image_shape=(4, 4, 1), latent_size=2)
      >>> x = np.random.default_rng(0).integers(0, 2, (12, 4, 4, 1)).astype("float32")
      >>> scores = fv.outlier_scores(vae, x[:4], valid_images=x[4:], num_samples=10)
      >>> scores.quantile.shape
      (4,)
    """
    found = estimates_of(
        model,
        np.concatenate([images, valid_images]),  # in one call, because each call compiles a program
        num_samples,
        seed=seed,
        progress=iter if progress is None else lambda places: progress(places, "scores"),
    )
    nll, valid = np.split(found.nll, [len(images)])
    return OutlierScores(nll, np.searchsorted(np.sort(valid), nll) / len(valid))


def score_table(
    title: str, scores: OutlierScores, how: Protocol, valid: str, bound: bool = False
) -> str:
    """Returns a summary of scores, and the images that are the least likely.

    Args:
      title: The model.
      scores: The scores.
      how: The protocol, with the number of images.
      valid: The validation images, in words.
      bound: Whether the scores are upper bounds, those of a flow of images.
    """
    nll, quantile = scores
    above = int(np.sum(quantile > 0.95))
    measured = f"mean, importance-weighted, {how.samples} samples"
    if bound:
        measured = f"mean, upper bound, {how.samples} draws of the noise"
    summary = [
        ("-log p(x)", f"{nll.mean():.3f}", measured),
        ("images above 95%", str(above), f"of {len(nll)}; 5% are expected of images like them"),
        ("images above all", str(int(np.sum(quantile == 1.0))), "less likely than all of them"),
    ]
    order = np.argsort(-nll, kind="stable")[:_SHOWN]
    rows = [(f"{i}", f"{nll[i]:.3f}", f"{quantile[i]:.1%}") for i in order]
    return "\n".join(
        [
            f"{title}: {data(how)}",
            f"nats per image; compared with validation images: {valid}",
            "",
            aligned(summary),
            "",
            f"The {len(rows)} least likely images, by their place in the split from 0:",
            "",
            aligned([("image", "-log p(x)", "validation images that are more likely"), *rows]),
            "",
            "Note: a high likelihood alone does not prove that an image is typical. Simple images "
            "of another\ndata set can have a higher one (Nalisnick et al. 2019).",
        ]
    )
