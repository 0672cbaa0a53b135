"""Traversals, the plane of the map, and the pairs of dimensions that differ."""

import numpy as np
import pytest

from tfp_flowvae.evaluation.report.latents import (
    Latents,
    most_different,
    plane,
    traverse,
)

SIZE = 4


def test_a_traversal_moves_one_dimension():
    rng = np.random.default_rng(0)
    z, drawn = rng.normal(size=SIZE), rng.normal(size=(100, SIZE))
    path = traverse(z, drawn, np.array([2, 0]), 7)
    assert path.shape == (2, 7, SIZE)
    for row, dimension in enumerate((2, 0)):
        others = np.delete(path[row], dimension, axis=1)
        assert (others == np.delete(z, dimension)).all()
        moved = path[row, :, dimension]
        assert (np.diff(moved) > 0).all()
        assert moved[3] == np.median(drawn[:, dimension])


def test_the_plane_holds_two_dimensions_exactly():
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(200, 2)) @ np.array([[3.0, 1.0], [0.0, 0.5]]) + [5.0, -2.0]
    found = plane(drawn, cells=10)
    assert sum(found.explained) == pytest.approx(1.0, abs=4 * np.finfo(np.float64).eps)
    assert found.explained[0] > found.explained[1]
    # A point of the data comes back from the cell that its place on the map lies in: the nearest
    # centre of a cell is the nearest cell's z.
    (x, x_end), (y, y_end) = found.limits
    inside = np.flatnonzero(((found.points > [x, y]) & (found.points < [x_end, y_end])).all(axis=1))
    for i in inside[:20]:
        column = int(10 * (found.points[i, 0] - x) / (x_end - x))
        row = int(10 * (y_end - found.points[i, 1]) / (y_end - y))
        centre = found.cells[10 * row + column]
        half = 0.5 * np.hypot((x_end - x) / 10, (y_end - y) / 10)
        # float32 rounds z.
        assert np.linalg.norm(centre - drawn[i]) <= half + 10 * np.finfo(np.float32).eps


def test_the_plane_of_one_dimension_is_a_line():
    found = plane(np.random.default_rng(0).normal(size=(50, 1)), cells=4)
    assert found.points.shape == (50, 2)
    assert not found.points[:, 1].any()
    assert found.cells.shape == (16, 1)
    np.testing.assert_array_equal(found.cells[:4], found.cells[4:8])


def test_the_pair_that_differs_most_is_found():
    rng = np.random.default_rng(0)
    prior, again, posterior = rng.normal(size=(3, 1000, SIZE))
    posterior[:, 3] = posterior[:, 1] + 0.1 * posterior[:, 3]  # normal, and tied to dimension 1
    nothing = np.zeros(SIZE)
    pairs, chance = most_different(Latents(posterior, prior, again, nothing, nothing), 2)
    assert pairs[0].dimensions == (1, 3)
    assert pairs[0].distance > 0.5 > chance
    # The others are two sets of draws of one distribution, as those of `chance` are. A histogram's
    # bin of n p = 1000 / 64 draws has the standard error sqrt(n p), so two sets differ by about
    # 64 / 2 sqrt(2 / pi) sqrt(2 n p) / n = 0.14 with a standard error below 0.02.
    assert abs(pairs[1].distance - chance) < 5 * 0.02


def test_one_dimension_has_no_pairs():
    z = np.zeros((10, 1))
    assert most_different(Latents(z, z, z, np.zeros(1), np.zeros(1)), 3) == ([], 0.0)
