"""The picture of a density has the right curve, contours, samples and axes."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy.integrate import trapezoid
from tensorflow_probability import distributions as tfd

import tfp_flowvae as fv
from tfp_flowvae.evaluation.density_plot import density_on_mesh

TILTED = tfd.MultivariateNormalTriL(
    tf.constant([1.0, -2.0], tf.float64), tf.constant([[1.0, 0.0], [-0.6, 0.5]], tf.float64)
)
SHARES = np.array([0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])


def area_of(polygon):
    """The area of a polygon `[N, 2]`, by the shoelace formula, with the sign of its direction."""
    x, y = polygon.T
    return 0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))


def areas_of(contours):
    """The area of each band of filled contours; holes run the other way round."""
    paths = contours.get_paths()
    return np.array([abs(sum(map(area_of, path.to_polygons()))) for path in paths])


def test_contours_hold_the_shares_of_a_normal():
    figure = fv.plot_density(TILTED)
    axes, bar = figure.axes
    (contours,) = axes.collections
    points, density = density_on_mesh(TILTED, [axes.get_xlim(), axes.get_ylim()])
    inside = SHARES * np.sum(density) * area_of(points[[0, 0, 1, 1], [0, 1, 1, 0]])
    # The smallest region of this normal that holds the share s is the ellipse of squared radius
    # -2 log(1 - s), with area pi |L| times that, at whose border the density is 1 - s times the
    # highest. A region is found to one ring of cells: that of 10 % has a radius of 7 cells or more,
    # and the error of a circle of cells of radius r is usually r^(2/3) of pi r^2, 2 %.
    np.testing.assert_allclose(
        np.cumsum(areas_of(contours)[::-1])[::-1], -np.pi * np.log1p(-inside), rtol=0.02
    )
    peak = float(TILTED.prob(TILTED.mean()))
    np.testing.assert_allclose(contours.levels[:-1], peak * (1.0 - inside), rtol=0.02)
    labels = [tick.get_text() for tick in bar.get_yticklabels()]
    assert labels == [f"{share:.0%}" for share in SHARES]


@pytest.mark.parametrize(
    "distribution",
    [
        TILTED,
        tfd.Independent(tfd.Uniform([0.0, -1.0], [1.0, 3.0]), 1),
        tfd.Gumbel(1.0, 2.0),
        tfd.MultivariateNormalDiag([3.0]),
    ],
    ids=["normal", "uniform", "gumbel", "vector"],
)
def test_the_density_integrates_to_one(distribution):
    figure = fv.plot_density(distribution)
    axes = figure.axes[0]
    size = distribution.event_shape.num_elements() or 1
    limits = [axes.get_xlim(), axes.get_ylim()][:size]
    points, density = density_on_mesh(distribution, limits)
    if size == 1:
        total = trapezoid(density, points[:, 0])
        line = axes.lines[0].get_xydata()
        np.testing.assert_array_equal(line, np.stack([points[:, 0], density], axis=-1))
    else:
        inner = trapezoid(density, points[0, :, 0], axis=1)
        total = trapezoid(inner, points[:, 0, 1])
    # The limits leave out 1 % of the samples for each dimension, and less by the margins. At each
    # edge of the uniform half a cell, of 1 / 167 of its width, is lost or gained.
    assert total == pytest.approx(1.0, abs=0.01 * size + 2 / 167)


def test_a_uniform_density_has_one_contour():
    uniform = tfd.Independent(tfd.Uniform([0.0, -1.0], [1.0, 3.0]), 1)
    (contours,) = fv.plot_density(uniform).axes[0].collections
    # A cell has 1 / 200 of the width of the axes, 1.2 times that of the support.
    np.testing.assert_allclose(areas_of(contours), [4.0], rtol=4 * 1.2 / 200)


def test_samples_and_data_are_drawn_where_they_are():
    data = np.array([[0.0, 1.0], [9.0, -2.0]])
    figure = fv.plot_density(TILTED, samples=40, data=data, names=("height", "weight"), seed=5)
    axes = figure.axes[0]
    _, samples, given = (part.get_offsets() for part in axes.collections)
    np.testing.assert_array_equal(given, data)
    wanted = TILTED.sample(5000, seed=tf.constant([5, 0], tf.int32))[:40]
    np.testing.assert_array_equal(samples, wanted)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("height", "weight")
    assert [text.get_text() for text in figure.legends[0].texts] == ["samples", "data"]


def test_a_histogram_of_samples_and_data_is_a_density():
    figure = fv.plot_density(tfd.Gamma(2.0, 1.0), samples=1000, data=np.arange(10.0), seed=1)
    axes = figure.axes[0]
    assert axes.get_ylabel() == "density of x"
    assert [text.get_text() for text in figure.legends[0].texts] == ["density", "samples", "data"]
    for patch in axes.patches:
        assert abs(area_of(patch.get_xy())) == pytest.approx(1.0)
    # Outside of the support the density is 0.
    line = axes.lines[0].get_xydata()
    assert not line[line[:, 0] < 0.0, 1].any()


def test_limits_can_be_given():
    axes = fv.plot_density(TILTED, limits=((-1.0, 2.0), (0.0, 1.0))).axes[0]
    assert (axes.get_xlim(), axes.get_ylim()) == ((-1.0, 2.0), (0.0, 1.0))


def test_it_saves_png_and_svg(tmp_path):
    for name in ("density.png", "density.svg"):
        fv.plot_density(TILTED, samples=10).savefig(tmp_path / name)
    assert (tmp_path / "density.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "density.svg").read_text()


@pytest.mark.parametrize(
    "distribution",
    [
        tfd.Normal([0.0, 1.0], 1.0),
        tfd.MultivariateNormalDiag(tf.zeros([3])),
        tfd.Categorical(probs=[0.5, 0.5]),
        tfd.WishartTriL(3.0, tf.eye(1)),
        tfd.JointDistributionSequential([tfd.Normal(0.0, 1.0), tfd.Normal(0.0, 1.0)]),
    ],
    ids=["batch", "three", "discrete", "matrix", "parts"],
)
def test_other_distributions_are_refused(distribution):
    with pytest.raises(ValueError, match=r"1 or 2 dimensions and batch shape \(\)\. Received: '"):
        fv.plot_density(distribution)


@pytest.mark.parametrize("loc", [np.nan, [np.nan, 0.0]], ids=["one", "two"])
def test_a_density_that_is_not_a_number_is_refused(loc):
    law = tfd.Normal if np.ndim(loc) == 0 else tfd.MultivariateNormalDiag
    with pytest.raises(ValueError, match="not a finite number at any point"):
        fv.plot_density(law(np.float32(loc), 1.0) if np.ndim(loc) == 0 else law(np.float32(loc)))
