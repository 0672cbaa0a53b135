"""Kernel estimates of marginal distribution functions, as knots and normal scores."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.internal import validate

_MIN_POINTS = 8
_TAIL_POINTS = 10
_MIN_SCORE_STEP = 2.0**-12


def checked_data(owner: str, x: TensorLike, num_knots: int, smoothing: float) -> np.ndarray:
    """Returns x as an array `[n, D]` after the checks that `fit_marginals` lists."""
    data = np.asarray(x)
    if data.dtype not in (np.float32, np.float64):
        raise TypeError(f"{owner} takes float32 or float64 data. Received: dtype {data.dtype}.")
    if data.ndim != 2 or data.shape[0] < _MIN_POINTS or data.shape[1] < 1:
        raise ValueError(
            f"{owner} takes data of shape [n, D] with n at least {_MIN_POINTS}. "
            f"Received: shape {data.shape}."
        )
    if not np.isfinite(data).all():
        raise ValueError(f"{owner} takes finite data. Received: {data[~np.isfinite(data)][0]}.")
    constant = np.flatnonzero(np.ptp(data, axis=0) == 0)
    if constant.size:
        raise ValueError(
            f"{owner} takes data in which no column is constant, for such a one has no density. "
            f"Received: column {constant[0]} with all values {data[0, constant[0]]}."
        )
    validate.check_count(owner, "num_knots", num_knots, least=4)
    if not (smoothing > 0 and math.isfinite(smoothing)):
        raise ValueError(f"{owner} takes a positive smoothing. Received: smoothing={smoothing!r}.")
    return data


def fit(data: np.ndarray, num_knots: int, smoothing: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns knots and scores in float64, both `[D, num_knots]`."""
    eps = float(np.finfo(data.dtype).eps)
    columns = np.sort(data.astype(np.float64), axis=0).T
    pairs = [_fit_column(column, num_knots, smoothing, eps) for column in columns]
    knots, scores = (np.stack(parts) for parts in zip(*pairs, strict=True))
    return knots, scores


def _fit_column(
    column: np.ndarray, num_knots: int, smoothing: float, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Knots and scores of one sorted column; `eps` is that of the dtype they will be cast to."""
    bandwidth = smoothing * _bandwidth(column)
    positions = _positions(column, num_knots - 2)
    # Knots that are distinct after the cast, also where quantiles are tied.
    knots = _spread(positions, np.maximum(1e-2 * bandwidth, 16.0 * eps * np.abs(positions)))
    scores = _kernel_scores(column, knots, bandwidth)
    scores = _spread(scores, np.full_like(scores, _MIN_SCORE_STEP))
    lower = _tail_slope(knots[0] - column[column < knots[0]], -scores[0], bandwidth)
    upper = _tail_slope(column[column > knots[-1]] - knots[-1], scores[-1], bandwidth)
    # One more knot on either side gives the outermost bins, and so the tails, these slopes.
    first = knots[0] - max(lower, 16.0 * eps * abs(knots[0]))
    last = knots[-1] + max(upper, 16.0 * eps * abs(knots[-1]))
    knots = np.concatenate([[first], knots, [last]])
    scores = np.concatenate([[scores[0] - 1.0], scores, [scores[-1] + 1.0]])
    return knots, scores


def _positions(column: np.ndarray, count: int) -> np.ndarray:
    """Half of them quantiles, for where the data are, half evenly spaced, for the gaps; sorted."""
    tail = float(np.clip(_TAIL_POINTS / column.size, 1e-3, 0.1))
    edge = -float(_ndtri(np.array(tail)))
    quantiles = np.quantile(column, _ndtr(np.linspace(-edge, edge, count - count // 2)))
    between = np.linspace(quantiles[0], quantiles[-1], count // 2 + 2)[1:-1]
    return np.sort(np.concatenate([quantiles, between]))


def _bandwidth(column: np.ndarray) -> float:
    """Silverman's rule; the spread between quartiles counts unless ties make it 0."""
    low, high = np.quantile(column, [0.25, 0.75])
    spread = float(np.std(column))
    if high > low:
        spread = min(spread, float(high - low) / 1.34)
    return 0.9 * spread * column.size**-0.2


def _kernel_scores(column: np.ndarray, knots: np.ndarray, bandwidth: float) -> np.ndarray:
    """Phi^-1 of the kernel estimate of F at the knots, from the tail that is the smaller."""
    distance = (knots[:, np.newaxis] - column) / bandwidth
    least = 0.25 / column.size  # what the data can not tell from 0
    below = np.maximum(_ndtr(distance).mean(axis=1), least)
    above = np.maximum(_ndtr(-distance).mean(axis=1), least)
    return np.where(below < 0.5, _ndtri(below), -_ndtri(above))


def _tail_slope(excess: np.ndarray, score: float, bandwidth: float) -> float:
    """The standard deviation of a Gaussian tail beyond `score` with the mean of `excess`."""
    if excess.size == 0:
        return bandwidth
    density = math.exp(-0.5 * score**2) / math.sqrt(2.0 * math.pi)
    normal_excess = density / (0.5 * math.erfc(score / math.sqrt(2.0))) - score
    return max(float(excess.mean()) / normal_excess, bandwidth)


def _spread(values: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """The least increase of a sorted array after which each step is at least its gap."""
    offsets = np.cumsum(gaps)
    return np.maximum.accumulate(values - offsets) + offsets


def _ndtr(z: np.ndarray) -> np.ndarray:
    """Phi in float64, to a few eps in the lower tail too."""
    return 0.5 * tf.math.erfc(z / -math.sqrt(2.0)).numpy()


def _ndtri(p: np.ndarray) -> np.ndarray:
    """Phi^-1 in float64."""
    return tf.math.ndtri(p).numpy()
