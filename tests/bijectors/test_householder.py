"""Householder flows against reflections taken one by one in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.bijectors import HouseholderFlow

EPS = np.finfo(np.float64).eps


def reflect_one_by_one(v, x):
    """Applies I - 2 v v^T / ||v||^2 for each row of `v`, `[K, D]`, the first row first."""
    for row in np.asarray(v, np.float64):
        square = row @ row
        if square > 0:
            x = x - 2.0 * (x @ row)[..., None] * row / square
    return x


SIGMAS = 5 / np.sqrt(12)  # of roundings that are independent and uniform between -eps/2 and eps/2


def compact_error(v, exact_products=False):
    """What rounding does to x - V^T L^-1 V x for |x| = 1, in eps, five standard deviations.

    V x rounds D times. A number of L is rounded itself, in its product and in the sum that this
    enters, whose terms alternate or are random, so that no sum is much larger than its terms; a
    number of V^T in the same way. All of it is taken to the result by V^T L^-1 and L^-1 V, and
    squares are added up, as the roundings are independent.
    """
    k, d = v.shape
    rows = np.asarray(v, np.float64)
    rows = rows / np.max(np.abs(rows), axis=1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    lower = np.tril(rows @ rows.T, -1) + 0.5 * np.eye(k)
    left, right = np.linalg.solve(lower.T, rows).T, np.linalg.solve(lower, rows)
    left, right, rows, lower = (part**2 for part in (left, right, rows, lower))
    variance = 3 * left @ lower @ right + 3 * rows.T @ right + np.eye(d)
    variance += 0.0 if exact_products else left @ (d * rows)
    return SIGMAS * np.sqrt(np.sum(variance))


def reflections_error(k, d):
    """What rounding does to K reflections one after the other, in eps, as in `compact_error`.

    For each: D products and D sums in the mirror's square and as many in its product with x, and
    eight operations more.
    """
    return SIGMAS * np.sqrt(k * (4 * d + 8))


def direction_error(k):
    """What one eps in the direction of each mirror does, in eps: it turns x by four times as much.

    The length of a mirror does not matter, and its direction is rounded by two divisions.
    """
    return 4 * k


def draw(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("k", [1, 2, 5, 12])
@pytest.mark.parametrize("d", [1, 3, 6])
def test_is_the_product_of_its_reflections(k, d):
    v, x = draw(k, d), draw(10, d, seed=1)
    flow = HouseholderFlow(v)
    y, log_det = flow.forward_and_log_det(x)
    error = np.linalg.norm(y - reflect_one_by_one(v, x), axis=-1)
    size = EPS * np.linalg.norm(x, axis=-1)
    # That of the product and that of the reference.
    assert np.all(error <= size * (compact_error(v) + direction_error(k) + reflections_error(k, d)))
    np.testing.assert_array_equal(log_det, np.zeros(10))
    back, inverse_log_det = flow.inverse_and_log_det(tf.identity(y))
    assert np.all(np.linalg.norm(back - x, axis=-1) <= size * 2 * compact_error(v))
    np.testing.assert_array_equal(inverse_log_det, np.zeros(10))


def test_a_matrix_for_each_point():
    v, x = draw(4, 5, 3), draw(2, 4, 3, seed=1)
    y = HouseholderFlow(v).forward(x)
    expected = np.stack([reflect_one_by_one(v[i], x[:, i]) for i in range(4)], axis=1)
    allowed = EPS * np.linalg.norm(x, axis=-1) * (2 * reflections_error(5, 3) + direction_error(5))
    assert np.all(np.linalg.norm(y - expected, axis=-1) <= allowed)


def test_determinant_by_autodiff_is_the_parity():
    for k in (1, 4):
        x = tf.constant(draw(3))
        flow = HouseholderFlow(draw(k, 3))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = flow.forward(x)
        # Its derivative in an entry of an orthogonal matrix is at most 1, of which there are 9.
        error = 9 * EPS * (compact_error(draw(k, 3)) + 3)
        assert abs(np.linalg.det(tape.jacobian(y, x)) - (-1.0) ** k) <= error


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mirrors", ["random", "nearly equal", "from 1e-20 to 1e20"])
def test_is_numerically_orthogonal_for_twice_as_many_reflections_as_dimensions(dtype, mirrors):
    d = 40
    v = draw(2 * d, d)
    if mirrors == "nearly equal":
        v = v[:1] + 1e-4 * v
    if mirrors == "from 1e-20 to 1e20":
        v *= np.logspace(-20, 20, 2 * d)[:, None]
    v = v.astype(dtype)
    flow = HouseholderFlow(v)
    matrix = flow.forward(np.eye(d, dtype=dtype)).numpy().astype(np.float64)
    # So many mirrors are taken to float64 and the result back, which is one rounding.
    own = compact_error(v) if dtype == np.float64 else 0.5
    eps, turned = np.finfo(dtype).eps, direction_error(2 * d)
    assert np.linalg.norm(matrix @ matrix.T - np.eye(d), 2) < 2 * eps * (own + np.sqrt(d))
    error = np.linalg.norm(matrix - reflect_one_by_one(v, np.eye(d)), 2)
    assert error < eps * (own + np.sqrt(d) + turned + reflections_error(2 * d, d))
    back = flow.inverse(tf.identity(flow.forward(np.eye(d, dtype=dtype)))).numpy()
    assert np.linalg.norm(back - np.eye(d), 2) < 2 * eps * (own + np.sqrt(d))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spread", [1.0, 1e-4])
def test_mirrors_of_each_points_own_are_numerically_orthogonal(dtype, spread):
    d, count = 40, 80
    v = (draw(1, d) + spread * draw(count, d, seed=1)).astype(dtype)
    own_flow = HouseholderFlow(np.broadcast_to(v, (d, count, d)))  # the same, but not shared
    matrix = own_flow.forward(np.eye(d, dtype=dtype)).numpy().astype(np.float64)
    eps = np.finfo(dtype).eps
    own = np.sqrt(d) * reflections_error(count, d)  # d columns
    assert np.linalg.norm(matrix @ matrix.T - np.eye(d), 2) < 2 * eps * own
    turned = np.sqrt(d) * direction_error(count)
    error = np.linalg.norm(matrix - reflect_one_by_one(v, np.eye(d)), 2)
    assert error < eps * (2 * own + turned)
    shared = HouseholderFlow(v).forward(np.eye(d, dtype=dtype)).numpy()
    assert np.linalg.norm(matrix - shared, 2) < eps * (own + compact_error(v) + turned)
    back = own_flow.inverse(tf.identity(own_flow.forward(np.eye(d, dtype=dtype)))).numpy()
    assert np.linalg.norm(back - np.eye(d), 2) < 2 * eps * own


@pytest.mark.parametrize("jit_compile", [False, True])
def test_zero_rows_are_the_identity_with_zero_gradients(jit_compile):
    v = draw(5, 3, dtype=np.float32)
    v[[0, 2]] = 0.0
    x = draw(10, 3, dtype=np.float32, seed=1)

    def compute(v):
        with tf.GradientTape() as tape:
            tape.watch(v)
            flow = HouseholderFlow(v)
            y, back = flow.forward(x), flow.inverse(x)
            total = tf.reduce_sum(y * [1.0, 2.0, 3.0] + back * [3.0, -1.0, 0.5])
        return y, back, tape.gradient(total, v)

    y, back, gradient = tf.function(compute, jit_compile=jit_compile)(tf.constant(v))
    allowed = np.finfo(np.float32).eps * np.linalg.norm(x, axis=-1)
    allowed *= compact_error(v[[1, 3, 4]]) + direction_error(3)
    for got, rows in ((y, [1, 3, 4]), (back, [4, 3, 1])):
        assert np.all(np.linalg.norm(got - reflect_one_by_one(v[rows], x), axis=-1) <= allowed)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(gradient.numpy()[[0, 2]], 0.0)
    assert np.all(np.any(gradient.numpy()[[1, 3, 4]] != 0.0, axis=-1))
    nothing = HouseholderFlow(np.zeros((4, 3), np.float32))
    np.testing.assert_array_equal(nothing.forward(x), x)


def test_lengths_do_not_matter():
    v, x = draw(6, 4), draw(10, 4, seed=1)
    scaled = v * np.array([1e-200, 1e-5, 1.0, -3.0, 1e100, 1e200])[:, None]
    error = HouseholderFlow(scaled).forward(x) - HouseholderFlow(v).forward(x)
    allowed = EPS * np.linalg.norm(x, axis=-1) * 2 * (compact_error(v) + direction_error(6))
    assert np.all(np.linalg.norm(error, axis=-1) <= allowed)


def test_log_det_methods_of_tfp():
    flow = HouseholderFlow(draw(4, 2, 3))
    x = draw(5, 4, 3, seed=1)
    assert flow.is_constant_jacobian
    for method in (flow.forward_log_det_jacobian, flow.inverse_log_det_jacobian):
        np.testing.assert_array_equal(method(x), np.zeros((5, 4)))
        np.testing.assert_array_equal(method(x[0, 0]), np.zeros(4))


@pytest.mark.parametrize("d", [8, 64, 256])
def test_products_of_eight_mirrors_in_float32_are_orthogonal(d):
    """Nearly equal ones, the worst: L^-1 amplifies what is rounded by up to 4 K, and not by D.

    For the identity's columns the products V x are exact.
    """
    k = 8
    for seed in range(20):
        v = draw(1, d, seed=seed) + 1e-3 * draw(k, d, seed=seed + 100)
        flow = HouseholderFlow(v.astype(np.float32))
        matrix = flow.forward(np.eye(d, dtype=np.float32)).numpy().astype(np.float64)
        error = np.linalg.norm(matrix @ matrix.T - np.eye(d), 2)
        assert error < np.finfo(np.float32).eps * 2 * compact_error(v, exact_products=True)
