"""Places in latent space that are worth a look: draws, paths, and the plane of a map."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA

from tfp_flowvae.evaluation.diagnostics import base_kl, mean_variance
from tfp_flowvae.models import FlowVAE
from tfp_flowvae.training.noise import as_seed

_BINS = 8


class Latents(NamedTuple):
    """What is measured on N test images.

    Attributes:
      posterior: One draw from q(z|x) for each image, `[N, D]`.
      prior: As many draws from p(z), `[N, D]`.
      more_prior: As many again, `[N, D]`.
      kl: The KL of each dimension of the posterior's base from N(0, 1), nats, `[D]`.
      variance: The variance of E[z|x] over the images, `[D]`.
    """

    posterior: np.ndarray
    prior: np.ndarray
    more_prior: np.ndarray
    kl: np.ndarray
    variance: np.ndarray


def measure(model: FlowVAE, images: np.ndarray, seed: int) -> Latents:
    """Encodes images `[N, H, W, C]`, and draws as many z from the prior."""
    draw = model.draw(images, 1, seed)
    prior = model.draw_prior(2 * len(images), seed).numpy()
    return Latents(
        posterior=draw.z[0].numpy(),
        prior=prior[: len(images)],
        more_prior=prior[len(images) :],
        kl=base_kl(draw.distribution.distribution).numpy().mean(axis=0, dtype=np.float64),
        variance=mean_variance(model, draw.distribution, as_seed(seed)).numpy(),
    )


def traverse(z: np.ndarray, drawn: np.ndarray, dimensions: np.ndarray, steps: int) -> np.ndarray:
    """Moves one dimension of z at a time through the central 96 % of the encoded images' values.

    Args:
      z: The point, `[D]`.
      drawn: Draws of the aggregated posterior, `[N, D]`.
      dimensions: The R dimensions to move.
      steps: The number of values.

    Returns:
      `[R, steps, D]`.
    """
    path = np.tile(z, (len(dimensions), steps, 1))
    values = np.quantile(drawn[:, dimensions], np.linspace(0.02, 0.98, steps), axis=0)
    for row, dimension in enumerate(dimensions):
        path[row, :, dimension] = values[:, row]
    return path


class Plane(NamedTuple):
    """The plane of the two directions in which draws of the aggregated posterior vary most.

    Attributes:
      points: The draws on the plane, `[N, 2]`.
      explained: The share of the draws' variance along each direction.
      limits: The lowest and highest value shown, `[2, 2]`.
      cells: z at the centres of a grid of cells, `[cells * cells, D]`, from the top left, in rows.
    """

    points: np.ndarray
    explained: tuple[float, float]
    limits: np.ndarray
    cells: np.ndarray


def plane(drawn: np.ndarray, cells: int) -> Plane:
    """Returns the plane of draws `[N, D]`; for D = 1 its second direction is empty."""
    count = min(2, drawn.shape[1])
    fitted = PCA(count, svd_solver="full").fit(drawn.astype(np.float64))
    points = np.zeros([len(drawn), 2])
    points[:, :count] = fitted.transform(drawn)
    explained = [*fitted.explained_variance_ratio_, 0.0][:2]
    low, high = np.quantile(points, [0.005, 0.995], axis=0)
    margin = np.where(high > low, 0.06 * (high - low), 1.0)
    limits = np.stack([low - margin, high + margin], axis=1)
    centres = (np.arange(cells) + 0.5) / cells
    x, y = (low + centres * (high - low) for low, high in limits)
    grid = np.stack(np.meshgrid(x, y[::-1]), axis=-1).reshape(-1, 2)
    z = fitted.inverse_transform(grid[:, :count]).astype(np.float32)
    return Plane(points, (float(explained[0]), float(explained[1])), limits, z)


class Pair(NamedTuple):
    """Two dimensions.

    Attributes:
      dimensions: Their numbers.
      distance: The total variation distance of q(z) and p(z) in them, estimated from histograms.
    """

    dimensions: tuple[int, int]
    distance: float


def most_different(latents: Latents, count: int) -> tuple[list[Pair], float]:
    """Finds the pairs of dimensions in which q(z) differs most from the prior.

    The histograms have 8 x 8 bins with about as many draws in each row and column.

    Args:
      latents: The draws.
      count: How many pairs to return at most.

    Returns:
      The pairs, and the largest distance in any pair of two sets of draws of the prior, which comes
      from their finite number.
    """
    q, p, again = latents.posterior, latents.prior, latents.more_prior
    edges = np.quantile(np.concatenate([q, p]), np.arange(1, _BINS) / _BINS, axis=0)
    codes = [
        np.stack([np.searchsorted(edge, column) for edge, column in zip(edges.T, z.T, strict=True)])
        for z in (q, p, again)
    ]
    pairs, chance = [], 0.0
    for i, j in itertools.combinations(range(q.shape[1]), 2):
        q_share, p_share, again_share = (
            np.bincount(_BINS * code[i] + code[j], minlength=_BINS**2) / code.shape[1]
            for code in codes
        )
        pairs.append(Pair((i, j), 0.5 * float(np.abs(q_share - p_share).sum())))
        chance = max(chance, 0.5 * float(np.abs(again_share - p_share).sum()))
    return sorted(pairs, key=lambda pair: -pair.distance)[:count], chance
