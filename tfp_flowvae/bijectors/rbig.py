"""Rotation-based iterative Gaussianisation: a flow fitted without gradients.

Each layer rotates the data and makes every marginal normal (Laparra et al. 2011),

    x_k = Psi_k(Q_k^T x_(k-1)),        Psi_k = the marginal Gaussianisation of Q_k^T x_(k-1),

and x_k tends to N(0, I) for almost any rotations: a layer lowers the divergence from N(0, I) by
the sum of the marginals' negentropies, and never raises it. Principal axes are the greedy choice by
covariances; random rotations need more layers, but find every dependence.

Unlike theirs, the layers here begin with the rotation: x_0, the data standardised column by column,
is rotated to its principal axes before any curve is fitted. Correlations are then gone, and
directions in which the data are thin are not bent by the marginals of others.

The flow maps the other way, from the normal base to the data, which is TFP's convention: layer k
is `MarginalInverseCDF` followed by `Rotation(Q_k)`, and at the end come `Scale` and `Shift`.

References:
  Valero Laparra, Gustavo Camps-Valls and Jesus Malo. Iterative Gaussianization: from ICA to Random
  Rotations. IEEE Transactions on Neural Networks 22(4), 2011. https://arxiv.org/abs/1602.00229
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import marginal_fit, validate
from tfp_flowvae.bijectors.marginal import MarginalInverseCDF
from tfp_flowvae.bijectors.rotation import Rotation

_ROTATIONS = ("random", "pca")
_PIECE_SIZE = 2**18


def fit_rbig(
    x: TensorLike,
    layers: int,
    rotation: str = "random",
    num_knots: int = 32,
    smoothing: float = 1.0,
    seed: int = 0,
    validate_args: bool = False,
    name: str = "rbig",
) -> tfb.Chain:
    """Fits a Gaussianising flow to data, layer by layer, in closed form.

    More layers fit the data more closely, and after some, noise: choose their number by the
    likelihood of data held out. Each layer costs O(n D (N + D)) once to fit.

    Example:
      >>> train = np.random.default_rng(0).normal(size=(200, 2)).astype("float32")
      >>> flow = fit_rbig(train, layers=5)
      >>> model = tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros([2])), flow)
      >>> log_prob = model.log_prob(train)

    Args:
      x: `[n, D]`, float32 or float64, finite; n at least 8, no column constant.
      layers: The number of rotations, each with marginal transforms, at least 1.
      rotation: "pca", to the principal axes each time, or "random": so the first time, from then on
        uniformly distributed.
      num_knots: N, the knots of each marginal transform, at least 4.
      smoothing: A positive factor on the kernels' bandwidth, as in `fit_marginals`.
      seed: For the random rotations: the same call fits the same flow.
      validate_args: As in the bijectors.
      name: The name of the chain.

    Returns:
      A `tfb.Chain` of 2 `layers` + 2 bijectors from N(0, I) to the data, of the dtype of x.

    Raises:
      TypeError: If x is not float32 or float64.
      ValueError: If x is not as above, or another argument is out of its range.
    """
    data = marginal_fit.checked_data("fit_rbig", x, num_knots, smoothing)
    validate.check_count("fit_rbig", "layers", layers)
    validate.check_choice("fit_rbig", "rotation", rotation, _ROTATIONS)
    options: dict[str, Any] = {"validate_args": validate_args}
    dtype = tf.as_dtype(data.dtype)
    mean, scale = (part.astype(data.dtype) for part in _moments(data))
    parts: list[tfb.Bijector] = [tfb.Shift(mean, **options), tfb.Scale(scale, **options)]
    data = (data - mean) / scale
    rng = np.random.default_rng(seed)
    for layer in range(layers):
        takes_axes = rotation == "pca" or layer == 0
        matrix = _principal_axes(data) if takes_axes else _random_rotation(rng, data.shape[1])
        data = (data.astype(np.float64) @ matrix).astype(data.dtype)
        knots, scores = marginal_fit.fit(data, num_knots, smoothing)
        knots, scores = tf.constant(knots, dtype), tf.constant(scores, dtype)
        marginals = MarginalInverseCDF(knots, scores, **options)
        data = np.concatenate([marginals.inverse(part).numpy() for part in _pieces(data)])
        parts += [Rotation(tf.constant(matrix, dtype), **options), marginals]
    return tfb.Chain(parts, validate_args=validate_args, name=name)


def _moments(data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the columns, in float64."""
    wide = data.astype(np.float64)
    return wide.mean(axis=0), wide.std(axis=0)


def _pieces(data: np.ndarray) -> list[np.ndarray]:
    """Rows few enough at a time that comparing them with every knot needs little memory."""
    return np.array_split(data, -(-data.size // _PIECE_SIZE))


def _random_rotation(rng: np.random.Generator, size: int) -> np.ndarray:
    """An orthogonal matrix drawn uniformly: the Q of a normal matrix, R's diagonal positive."""
    orthogonal, triangular = np.linalg.qr(rng.standard_normal((size, size)))
    return orthogonal * np.where(np.diag(triangular) < 0.0, -1.0, 1.0)


def _principal_axes(data: np.ndarray) -> np.ndarray:
    """The eigenvectors of the covariance, as columns."""
    wide = data.astype(np.float64)
    return np.linalg.eigh(np.cov(wide, rowvar=False).reshape(2 * wide.shape[1:]))[1]
