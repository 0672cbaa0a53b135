"""Distances of sets of samples, against closed forms and sets whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg

from tfp_flowvae.evaluation.sample_quality import frechet_distance, nearest, precision_recall

EPS = float(np.finfo(np.float64).eps)


def _exact(mean_1, covariance_1, mean_2, covariance_2):
    """The squared Frechet distance of two normals, by a matrix square root."""
    root = linalg.sqrtm(covariance_1 @ covariance_2)
    traces = np.trace(covariance_1) + np.trace(covariance_2) - 2 * np.trace(root).real
    return np.sum((mean_1 - mean_2) ** 2) + traces


def _moments(x):
    return x.mean(axis=0), np.cov(x, rowvar=False)


def test_frechet_distance_is_that_of_the_fitted_normals():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5)) + 1.0
    second = rng.normal(size=(300, 5)) @ rng.normal(size=(5, 5))
    exact = _exact(*_moments(first), *_moments(second))
    # sqrtm takes square roots of eigenvalues, which turns eps of the largest into sqrt(eps); the
    # smallest eigenvalue here is far above that, and the error stays at eps times the condition.
    product = np.cov(first, rowvar=False) @ np.cov(second, rowvar=False)
    error = 100 * EPS * np.linalg.cond(product) * exact
    assert frechet_distance(first, second) == pytest.approx(exact, abs=error)
    assert frechet_distance(second, first) == pytest.approx(exact, abs=error)


def test_frechet_distance_of_many_draws_is_that_of_the_two_normals():
    rng = np.random.default_rng(0)
    scales, shift = np.array([1.0, 2.0, 0.5]), np.array([1.0, 0.0, -2.0])
    exact = np.sum(shift**2) + np.sum((scales - 1.0) ** 2)

    def once():
        drawn = shift + scales * rng.normal(size=(5000, 3))
        return frechet_distance(rng.normal(size=(5000, 3)), drawn)

    values = [once() for _ in range(20)]
    # The bias is of the order of the variance over the distance, far below a standard error.
    assert abs(np.mean(values) - exact) < 5 * np.std(values, ddof=1) / np.sqrt(20)


def test_frechet_distance_with_fewer_points_than_features():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 50))
    # A sum of 20 singular values less as large traces: the error is that of the traces.
    error = 100 * EPS * np.sum(np.var(x, axis=0))
    assert frechet_distance(x, x) < error
    assert frechet_distance(x, x + 3.0) == pytest.approx(50 * 9.0, abs=10 * error + 450 * EPS)


def test_precision_and_recall_of_known_sets():
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(60, 4)), rng.normal(size=(60, 4)) + 100.0
    both = np.concatenate([left, right])
    more = np.concatenate([left[:30], right[:30]])
    assert precision_recall(both, both) == (1.0, 1.0)
    assert precision_recall(left, right) == (0.0, 0.0)
    # Samples that cover one of two clusters, and samples of which a half is like no data.
    assert precision_recall(both, left) == (1.0, 0.5)
    assert precision_recall(left, both) == (0.5, 1.0)
    assert precision_recall(both, more).precision == 1.0


def test_precision_of_points_on_a_line():
    data = np.arange(10.0)[:, None]
    # With k = 1 each ball has radius 1.
    samples = np.array([[-1.5], [-1.0], [4.5], [10.0], [10.5]])
    assert precision_recall(data, samples, neighbours=1).precision == pytest.approx(3 / 5)


def test_duplicates_lie_within_their_own_points_in_float32():
    x = np.repeat(np.random.default_rng(0).normal(size=(5, 300)) * 30 + 1000, 6, axis=0)
    x = x.astype(np.float32)
    assert precision_recall(x, x) == (1.0, 1.0)


def test_nearest_finds_the_data_point():
    rng = np.random.default_rng(0)
    data = rng.normal(size=(50, 7))
    order = rng.permutation(50)[:20]
    places, distances = nearest(data[order] + 1e-3, data)
    np.testing.assert_array_equal(places, order)
    # The distance is computed from squares of size |x|^2, whose rounding the root magnifies.
    error = 10 * EPS * np.sum(data**2, axis=1).max() / 1e-3
    np.testing.assert_allclose(distances, 1e-3 * np.sqrt(7), rtol=0, atol=error)
