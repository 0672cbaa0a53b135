"""What `spline_from_raw` promises for raw numbers of any size: slopes in bounds, and a way back."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import bijectors as fvb

BOUND = 4.0
EPS = np.finfo(np.float32).eps
# Either way through a spline rounds eight numbers of size B by half an eps: the distances to two
# knots, two fractions, Q or the root, the quotient, its product with h or w, the sum.
ROUNDINGS = 8
SCALES = [1.0, 10.0, 30.0, 100.0]


def raw_numbers(scale, *shape, seed=0):
    """The same in float32 and float64."""
    return np.float32(scale * np.random.default_rng(seed).normal(size=shape))


def slopes(spline, x):
    return np.exp(spline.forward_log_det_jacobian(tf.constant(x, tf.float64)).numpy())


@pytest.mark.parametrize("scale", [*SCALES, 1e30])
@pytest.mark.parametrize("max_slope", [4.0, 10.0, 100.0])
@pytest.mark.parametrize("bins", [1, 2, 8, 32])
def test_slopes_are_between_their_bounds(bins, max_slope, scale):
    raw = np.float64(raw_numbers(scale, 500, 3 * bins - 1))
    spline = fvb.spline_from_raw(raw, BOUND, max_slope=max_slope)
    assert np.min(spline.bin_widths) >= 0.1 * 2.0 * BOUND / bins * (1.0 - EPS)
    secants = spline.bin_heights / spline.bin_widths
    assert np.all(secants >= (1.0 - EPS) / max_slope)
    assert np.all(secants <= (1.0 + EPS) * max_slope)
    inside = np.linspace(-BOUND, BOUND, 403)[1:-1, np.newaxis] * np.ones(500)
    found = slopes(spline, inside)
    assert np.all(found >= (1.0 - EPS) / max_slope**2)
    assert np.all(found <= (1.0 + EPS) * 2.0 * max_slope)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("bins", [2, 8, 32, 128])
def test_float32_round_trip_errs_by_rounding_over_the_slope(bins, scale):
    raw = raw_numbers(scale, 300, 3 * bins - 1)
    x = np.random.default_rng(1).uniform(-BOUND, BOUND, size=(200, 300)).astype(np.float32)
    spline = fvb.spline_from_raw(raw, BOUND)
    back = spline.inverse(tf.identity(spline.forward(x)))
    allowed = ROUNDINGS * EPS * BOUND
    slope = slopes(fvb.spline_from_raw(np.float64(raw), BOUND), x)
    assert np.all(np.abs(back - x) <= allowed * (1.0 + 1.0 / slope))
    # A knot, the sum of up to K widths, is off by K eps B, and the narrowest bin is 2 B m / K wide.
    # With end slopes between s / S and S s, log dy/dx changes over a bin by at most 6 S.
    fraction = (bins + ROUNDINGS) * EPS * BOUND / (2.0 * BOUND * 0.1 / bins)
    error = np.abs(spline.forward_log_det_jacobian(x) - np.log(slope))
    assert np.all(error <= 6.0 * 10.0 * fraction)


@pytest.mark.parametrize("scale", SCALES)
def test_ten_splines_in_float32(scale):
    """Without bounds on the slopes half of the points come back nowhere near."""
    raws = [raw_numbers(scale, 200, 23, seed=seed) for seed in range(10)]
    x = raw_numbers(1.0, 50, 200, seed=99)
    stack = tfb.Chain([fvb.spline_from_raw(raw, BOUND) for raw in raws])
    back = stack.inverse(tf.identity(stack.forward(x)))
    # Each layer adds its rounding to what the ones after it have lost, and divides by its slope.
    points, found = np.float64(x), []
    for raw in reversed(raws):
        spline = fvb.spline_from_raw(np.float64(raw), BOUND)
        found.append(slopes(spline, points))
        points = spline.forward(points).numpy()
    allowed = np.zeros(x.shape)
    for slope in reversed(found):
        allowed = (allowed + ROUNDINGS * EPS * BOUND * (1.0 + slope)) / slope
    assert np.all(np.abs(back - x) <= allowed)
    assert np.median(allowed) <= 1e-3 * BOUND


def coupling_stack(dtype, scale, size=6, hidden=64, bins=8, length=10):
    """Couplings whose raw numbers are of the size of `scale` and change as fast with the points."""
    rng = np.random.default_rng(0)
    layers = []
    for k in range(length):
        first = tf.constant(rng.normal(size=(size // 2, hidden)) / np.sqrt(size // 2), dtype)
        second = rng.normal(size=(hidden, (size // 2) * (3 * bins - 1))) / np.sqrt(hidden)
        second = tf.constant(scale * second, dtype)

        def net(kept, units, first=first, second=second):
            return tf.matmul(tf.tanh(tf.matmul(kept, first)), second)

        transform = fvb.SplineTransform(net, bins, BOUND)
        mask = fvb.half_mask(size, reverse=k % 2 == 1)
        layers.append(fvb.Coupling(mask, bijector_fn=transform))
    return tfb.Chain(layers)


@pytest.mark.parametrize(
    ("dtype", "scale"), [("float32", 1.0), *(("float64", scale) for scale in SCALES)]
)
def test_ten_couplings_with_strong_conditioners(dtype, scale):
    """Float32 brings all points back at scale 1; from 10 on only float64 can."""
    x = raw_numbers(1.0, 100, 6, seed=1).astype(dtype)
    stack = coupling_stack(dtype, scale)
    back = stack.inverse(tf.identity(stack.forward(x)))
    # What layer k rounds is taken to x by the inverse Jacobian of the layers up to it.
    points, jacobian, allowed = tf.constant(x, tf.float64), np.eye(6), 0.0
    rounding = ROUNDINGS * np.finfo(dtype).eps * BOUND * np.sqrt(6.0)
    for layer in reversed(coupling_stack("float64", scale).bijectors):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(points)
            moved = layer.forward(tf.identity(points))
            rows = tf.unstack(moved, axis=-1)
        step = np.stack([tape.gradient(row, points) for row in rows], axis=-2)
        points, jacobian = moved, step @ jacobian
        steepest = np.diagonal(step, axis1=-2, axis2=-1).max(axis=-1)
        backwards = np.linalg.norm(np.linalg.inv(jacobian), 2, axis=(-2, -1))
        allowed += backwards * rounding * (1.0 + steepest)
    assert np.all(np.linalg.norm(back - x, axis=-1) <= allowed)
    assert np.all(allowed <= 0.1 * BOUND)  # beyond that a bound of first order says nothing
