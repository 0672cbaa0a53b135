"""A picture of a flow shows the images of the base's grid and samples, and the right density."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from matplotlib.colors import to_hex
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

import tfp_flowvae as fv
from tfp_flowvae import bijectors as fvb
from tfp_flowvae.evaluation.flow_plot import carry, steps_of


def _parameters(*shapes, scale=0.8, seed=1):
    rng = np.random.default_rng(seed)
    return [tf.constant(scale * rng.normal(size=shape)) for shape in shapes]


STACKS = {
    "planar": lambda: fvb.PlanarFlow(*_parameters([3, 2], [3, 2], [3])),
    "radial": lambda: fvb.RadialFlow(*_parameters([3, 2]), tf.ones([3], tf.float64),
                                     *_parameters([3])),
    "householder": lambda: fvb.HouseholderFlow(*_parameters([3, 2])),
    "sylvester": lambda: fvb.HouseholderSylvesterFlow(
        *_parameters([3, 1, 2], [3, 2, 2], [3, 2, 2], [3, 2])
    ),
    "orthogonal": lambda: fvb.OrthogonalSylvesterFlow(
        *_parameters([3, 2, 1], [3, 1, 1], [3, 1, 1], [3, 1])
    ),
}  # fmt: skip


LOW, HIGH = slice(None, -1), slice(1, None)
CORNERS = [(LOW, LOW), (LOW, HIGH), (HIGH, HIGH), (HIGH, LOW)]


def integral(stage):
    """The integral of a density over its mesh: cells' areas, by the shoelace formula, and means."""
    a, b, c, d = (stage.points[corner] for corner in CORNERS)
    (x, y), (v, w) = np.moveaxis(c - a, -1, 0), np.moveaxis(d - b, -1, 0)
    means = sum(stage.density[corner] for corner in CORNERS) / 4
    return np.sum(means * 0.5 * np.abs(x * w - y * v))


@pytest.mark.parametrize("name", STACKS)
def test_the_steps_of_a_stack_make_the_stack(name, rounding):
    stack = STACKS[name]()
    (x,) = _parameters([50, 2], scale=2.0)
    steps = steps_of(stack)
    assert [type(step) for step in steps] == [type(stack)] * 3
    y, total = x, 0.0
    for step in steps:
        y, log_det = fvb.forward_and_log_det(step, y)
        total += log_det
    wanted, wanted_log_det = fvb.forward_and_log_det(stack, x)
    # Some tens of roundings a step, and the parameters, of order 1, multiply them by a few.
    np.testing.assert_allclose(y, wanted, **rounding(200, y, wanted))
    scale = np.maximum(np.abs(total), 1.0)
    np.testing.assert_allclose(total / scale, wanted_log_det / scale, **rounding(200, scale))


def test_a_single_step_and_a_bijector_of_others_are_one_step():
    planar = fvb.Planar(*_parameters([2], [2], []))
    for bijector in (planar, tfb.Exp(), fvb.HouseholderSylvester(
        *_parameters([3, 2], [2, 2], [2, 2], [2])
    )):  # fmt: skip
        assert steps_of(bijector) == [bijector]


def test_chains_and_inverses_are_unrolled_in_the_order_of_action():
    shift, scale, planar = tfb.Shift([1.0, 2.0]), tfb.Scale(3.0), STACKS["planar"]()
    assert steps_of(tfb.Chain([shift, tfb.Chain([scale, tfb.Exp()])]))[1:] == [scale, shift]
    inverse = steps_of(tfb.Invert(tfb.Chain([shift, scale])))
    assert [float(step.forward([6.0, 6.0])[0]) for step in inverse] == [5.0, 2.0]
    assert len(steps_of(tfb.Chain([planar, fvb.Planar(*_parameters([2], [2], []))]))) == 4


@pytest.mark.parametrize("base", ["normal", "uniform"])
def test_the_density_of_each_step_integrates_to_one(base):
    flow = tfb.Chain([tfb.Shift([1.0, -3.0]), tfb.Scale([0.5, 4.0]), tfb.Softplus(),
                      fvb.PlanarFlow(*(tf.cast(p, tf.float32) for p in
                                       _parameters([3, 2], [3, 2], [3])))])  # fmt: skip
    law = {"normal": None, "uniform": tfd.Independent(tfd.Uniform([0.0, 0.0], [1.0, 2.0]), 1)}[base]
    stages = carry(flow, law)
    assert [stage.title for stage in stages[-3:]] == [
        "step 4\nsoftplus", "step 5\nscale", "step 6\nshift",
    ]  # fmt: skip
    for stage in stages:
        # The mesh of the normal leaves out what is further from 0 than 3.3 standard deviations,
        # 0.2 %, and less by the margins. That of the uniform has 321 points and a margin of 10 % at
        # either end: at each edge the density falls to 0 within a cell, half of which is lost or
        # gained, 1 in 267 for each dimension.
        assert integral(stage) == pytest.approx(
            1.0, abs={"normal": 0.002, "uniform": 2 / 267}[base]
        )


def test_what_is_drawn_is_the_image_of_the_base(rounding):
    flow = STACKS["planar"]()
    figure = fv.plot_flow(flow, samples=300, seed=3)
    panels = np.reshape(figure.axes, [3, 4])
    base = [np.array(c.get_segments()) for c in panels[0, 0].collections]
    # The lines of the base's grid are straight and evenly spaced, 17 each way.
    for lines, along in zip(base, (0, 1), strict=True):
        assert lines.shape == (17, 321, 2)
        across = lines[..., 1 - along]
        np.testing.assert_array_equal(across, across[:, :1] + np.zeros(321))
        assert np.ptp(np.diff(across[:, 0])) < 1e-12
    start = panels[1, 0].collections[0].get_offsets()
    assert start.shape == (300, 2)
    for column, count in ((1, 1), (2, 2), (3, 3)):
        image = fvb.PlanarFlow(*(p[:count] for p in (flow.u, flow.w, flow.b))).forward
        for found, lines in zip(panels[0, column].collections, base, strict=True):
            wanted = image(lines).numpy()
            np.testing.assert_allclose(found.get_segments(), wanted, **rounding(200, wanted))
        found = panels[1, column].collections[0].get_offsets()
        np.testing.assert_allclose(found, image(start).numpy(), **rounding(200, start))
    colours = [axes.collections[0].get_facecolors() for axes in panels[1]]
    for found in colours[1:]:
        np.testing.assert_array_equal(found, colours[0])
    # The medians are within 0.1, five standard errors, of 0.
    start = np.asarray(start)
    clear = np.abs(start).min(axis=1) > 0.1
    quadrants = {
        (to_hex(colour), *(place > 0.0).tolist())
        for colour, place in zip(colours[0][clear], start[clear], strict=True)
    }
    assert len(quadrants) == len({colour for colour, *_ in quadrants}) == 4
    np.testing.assert_array_equal(
        fv.plot_flow(flow, samples=300, seed=3).axes[4].collections[0].get_offsets(), start
    )


def test_the_density_is_that_of_the_transformed_distribution(rounding):
    flow = STACKS["radial"]()
    base = tfd.MultivariateNormalTriL(
        tf.constant([1.0, 2.0], tf.float64), tf.constant([[1.0, 0.0], [0.5, 2.0]], tf.float64)
    )
    stage = carry(flow, base)[-1]
    wanted = tfd.TransformedDistribution(base, flow).prob(stage.points).numpy()
    # The inverse, in closed form, and the quadratic form of the base, up to some tens, round some
    # hundred times.
    np.testing.assert_allclose(stage.density, wanted, **rounding(2000, wanted))


def test_long_flows_are_thinned_and_every_axis_is_named():
    flow = tfb.Chain([tfb.Shift([1.0, float(k)], name=f"shift_{k}") for k in range(12)])
    figure = fv.plot_flow(flow, columns=4, names=("height", "weight"))
    titles = [axes.get_title().split("\n")[0] for axes in figure.axes[:4]]
    assert titles == ["base", "step 4", "step 8", "step 12"]
    assert [axes.get_xlabel() for axes in figure.axes[-4:]] == ["height"] * 4
    assert [axes.get_ylabel().split("\n")[-1] for axes in figure.axes[::4]] == ["weight"] * 3


def test_it_saves_png_and_svg(tmp_path):
    figure = fv.plot_flow(tfb.Scale([2.0, 3.0]), samples=50)
    figure.savefig(tmp_path / "flow.png")
    figure.savefig(tmp_path / "flow.svg")
    assert (tmp_path / "flow.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "flow.svg").read_text()


@pytest.mark.parametrize(
    ("bijector", "received"),
    [
        (lambda: fvb.Planar(*_parameters([3], [3], [])), "inputs of shape"),
        (lambda: fvb.Planar(*_parameters([5, 2], [5, 2], [5])), "returned shape"),
        (lambda: tfb.Permute([2, 0, 1]), "'permute'"),
        (lambda: tfb.CholeskyOuterProduct(), "'cholesky_outer_product'"),
        (lambda: tfb.JointMap([tfb.Exp(), tfb.Exp()]), "'jointmap_of_exp_and_exp'"),
    ],
    ids=["three", "batch", "permute", "matrices", "parts"],
)
def test_other_bijectors_are_refused(bijector, received):
    with pytest.raises(ValueError, match=f"2-D vectors to 2-D vectors.*{received}"):
        fv.plot_flow(bijector())


def test_other_arguments_are_refused():
    with pytest.raises(TypeError, match=r"takes a tfb\.Bijector.*Received: Multivariate"):
        fv.plot_flow(tfd.MultivariateNormalDiag([0.0, 0.0]))
    with pytest.raises(ValueError, match="2 dimensions and batch shape"):
        fv.plot_flow(tfb.Exp(), tfd.Normal(0.0, 1.0))
    with pytest.raises(ValueError, match="at least 2 columns"):
        fv.plot_flow(tfb.Exp(), columns=1)
    with pytest.raises(ValueError, match="not a finite number at any point"):
        fv.plot_flow(tfb.Scale(np.float32(np.nan)))
