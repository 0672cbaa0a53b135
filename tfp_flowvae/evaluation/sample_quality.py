"""How close samples are to data: Frechet distance, precision and recall, nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import linalg
from sklearn.metrics import pairwise_distances_argmin_min
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import NearestNeighbors

NEIGHBOURS = 3


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the squared Frechet distance of two normals that are fitted to two sets of features.

        |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))

    Heusel et al. (2017), https://arxiv.org/abs/1706.08500, equation 6, here in whatever features
    are given. Finite sets of the same distribution have a distance above 0, which falls with their
    size, so compare only distances of sets of one size.

    Example:
      >>> x = np.random.default_rng(0).normal(size=(500, 2))
      >>> round(frechet_distance(x, x + [3.0, 0.0]), 3)  # the means are 3 apart
      9.0

    Args:
      first: Features `[N, F]`.
      second: Features `[M, F]`.
    """
    means = [features.mean(axis=0, dtype=np.float64) for features in (first, second)]
    roots = []
    for features, mean in zip((first, second), means, strict=True):
        centred = (features - mean) / np.sqrt(max(len(features) - 1, 1))
        # C = A^T A with A from the QR factors, so the trace below is a sum of singular values.
        roots.append(np.linalg.qr(centred.astype(np.float64)).R)
    # tr (C_1 C_2)^(1/2) is the sum of the singular values of A_1 A_2^T.
    cross = linalg.svdvals(roots[0] @ roots[1].T).sum()
    traces = sum(np.square(root).sum() for root in roots)
    distance = np.square(means[0] - means[1]).sum() + traces - 2.0 * cross
    return float(max(distance, 0.0))


class PrecisionRecall(NamedTuple):
    """Shares from 0 to 1.

    Attributes:
      precision: The share of samples within the data's manifold: are samples like data?
      recall: The share of data within the samples' manifold: is all data covered?

    Example:
      >>> data = np.random.default_rng(0).normal(size=(500, 2))
      >>> precision_recall(data, data + [100.0, 0.0])
      PrecisionRecall(precision=0.0, recall=0.0)
    """

    precision: float
    recall: float


def precision_recall(
    data: np.ndarray, samples: np.ndarray, neighbours: int = NEIGHBOURS
) -> PrecisionRecall:
    """Returns the precision and recall of samples.

    The manifold of a set is the union of the balls around its points that reach to the k-th
    nearest other point of the set (Kynkaanniemi et al. 2019, https://arxiv.org/abs/1904.06991).

    Args:
      data: Features `[N, F]`, more than k.
      samples: Features `[M, F]`, more than k.
      neighbours: k.

    Example:
      >>> data = np.random.default_rng(0).normal(size=(500, 2))
      >>> found = precision_recall(data, 0.2 * data)  # samples that are too narrow
      >>> found.recall < 0.5 < found.precision
      True
    """
    return PrecisionRecall(
        precision=_share_within(samples, data, neighbours),
        recall=_share_within(data, samples, neighbours),
    )


def _share_within(points: np.ndarray, manifold: np.ndarray, neighbours: int) -> float:
    """The share of points that lie in a ball of the manifold."""
    distances, _ = NearestNeighbors(n_neighbors=neighbours + 1).fit(manifold).kneighbors(manifold)
    radii = distances[:, -1]
    within = np.zeros(len(points), bool)
    # Blocks of a fixed number of distances bound the memory.
    step = max(1, (1 << 24) // len(manifold))
    for start in range(0, len(points), step):
        # float32 would cancel: the distance of a point from itself must be 0.
        distances = euclidean_distances(points[start : start + step].astype(np.float64), manifold)
        within[start : start + step] = np.any(distances <= radii, axis=1)
    return float(within.mean())


def nearest(samples: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the nearest data point of each sample.

    Example:
      >>> places, distances = nearest(np.array([[0.9]]), np.array([[0.0], [1.0]]))
      >>> places
      array([1])

    Args:
      samples: `[M, F]`.
      data: `[N, F]`.

    Returns:
      The places in `data` `[M]`, and the Euclidean distances `[M]`.
    """
    places, distances = pairwise_distances_argmin_min(samples, data)
    return places, distances


class Quality(NamedTuple):
    """The figures of `Figures` that compare images of the model with data."""

    frechet_distance: float | None = None
    frechet_distance_of_data: float | None = None
    precision: float | None = None
    recall: float | None = None
    nearest_distance: float | None = None
    nearest_distance_of_data: float | None = None
    nearest_places: tuple[int, ...] = ()


def flat(images: np.ndarray) -> np.ndarray:
    """Returns images `[N, H, W, C]` as vectors of pixels, float32 `[N, H W C]`."""
    return images.reshape(len(images), -1).astype(np.float32)


def quality(
    drawn: np.ndarray,
    images: np.ndarray,
    train_images: np.ndarray | None,
    *,
    features: Callable[[np.ndarray], np.ndarray] = flat,
    near: np.ndarray,
    near_data: np.ndarray,
) -> Quality:
    """Compares images of a model with data.

    Args:
      drawn: Draws of the model, `[N, H, W, C]` in [0, 1]; N more than `NEIGHBOURS`.
      images: As many images.
      train_images: Training images `[M, H, W, C]`, or None.
      features: From images to the features of Frechet distance, precision and recall.
      near: Images of the model whose nearest training images are found.
      near_data: Images that the model has not drawn, for comparison.
    """
    data, made = features(images), features(drawn)
    shares = precision_recall(data, made)
    found = Quality(frechet_distance(made, data), None, shares.precision, shares.recall)
    if train_images is None:
        return found
    train = flat(train_images)
    places, distances = nearest(flat(near), train)
    _, distances_of_data = nearest(flat(near_data), train)
    return found._replace(
        frechet_distance_of_data=frechet_distance(features(train_images[: len(images)]), data),
        nearest_distance=float(np.median(distances)),
        nearest_distance_of_data=float(np.median(distances_of_data)),
        nearest_places=tuple(places.tolist()),
    )
