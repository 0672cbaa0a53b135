"""Householder flows against reflections taken one by one in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.bijectors import HouseholderFlow


def reflect_one_by_one(v, x):
    """Applies I - 2 v v^T / ||v||^2 for each row of `v`, `[K, D]`, the first row first."""
    for row in np.asarray(v, np.float64):
        square = row @ row
        if square > 0:
            x = x - 2.0 * (x @ row)[..., None] * row / square
    return x


def draw(*shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("k", [1, 2, 5, 12])
@pytest.mark.parametrize("d", [1, 3, 6])
def test_is_the_product_of_its_reflections(k, d):
    v, x = draw(k, d), draw(10, d, seed=1)
    flow = HouseholderFlow(v)
    y, log_det = flow.forward_and_log_det(x)
    np.testing.assert_allclose(y, reflect_one_by_one(v, x), atol=1e-13)
    np.testing.assert_array_equal(log_det, np.zeros(10))
    back, inverse_log_det = flow.inverse_and_log_det(tf.identity(y))
    np.testing.assert_allclose(back, x, atol=1e-13)
    np.testing.assert_array_equal(inverse_log_det, np.zeros(10))


def test_a_matrix_for_each_point():
    v, x = draw(4, 5, 3), draw(2, 4, 3, seed=1)
    y = HouseholderFlow(v).forward(x)
    expected = np.stack([reflect_one_by_one(v[i], x[:, i]) for i in range(4)], axis=1)
    np.testing.assert_allclose(y, expected, atol=1e-13)


def test_determinant_by_autodiff_is_the_parity():
    for k in (1, 4):
        x = tf.constant(draw(3))
        flow = HouseholderFlow(draw(k, 3))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = flow.forward(x)
        determinant = np.linalg.det(tape.jacobian(y, x))
        np.testing.assert_allclose(determinant, (-1.0) ** k, rtol=1e-12)


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
    # Float32 is computed in float64 here, whose own errors nearly equal mirrors amplify.
    amplified = mirrors == "nearly equal" and dtype == np.float64
    bound = np.finfo(dtype).eps * (6 * d if amplified else 8 if dtype == np.float32 else 32)
    assert np.max(np.abs(matrix @ matrix.T - np.eye(d))) < bound
    np.testing.assert_allclose(matrix, reflect_one_by_one(v, np.eye(d)), atol=2 * bound)
    back = flow.inverse(tf.identity(flow.forward(np.eye(d, dtype=dtype))))
    np.testing.assert_allclose(back, np.eye(d), atol=2 * bound)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spread", [1.0, 1e-4])
def test_mirrors_of_each_points_own_are_numerically_orthogonal(dtype, spread):
    d, count = 40, 80
    v = (draw(1, d) + spread * draw(count, d, seed=1)).astype(dtype)
    own = HouseholderFlow(np.broadcast_to(v, (d, count, d)))  # the same for each, but not shared
    matrix = own.forward(np.eye(d, dtype=dtype)).numpy().astype(np.float64)
    bound = 0.5 * count * np.finfo(dtype).eps
    assert np.max(np.abs(matrix @ matrix.T - np.eye(d))) < bound
    np.testing.assert_allclose(matrix, reflect_one_by_one(v, np.eye(d)), atol=2 * bound)
    np.testing.assert_allclose(
        matrix, HouseholderFlow(v).forward(np.eye(d, dtype=dtype)), atol=2 * bound
    )
    back = own.inverse(tf.identity(own.forward(np.eye(d, dtype=dtype))))
    np.testing.assert_allclose(back, np.eye(d), atol=2 * bound)


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
    np.testing.assert_allclose(y, reflect_one_by_one(v[[1, 3, 4]], x), atol=2e-6)
    np.testing.assert_allclose(back, reflect_one_by_one(v[[4, 3, 1]], x), atol=2e-6)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(gradient.numpy()[[0, 2]], 0.0)
    assert np.all(np.any(gradient.numpy()[[1, 3, 4]] != 0.0, axis=-1))
    nothing = HouseholderFlow(np.zeros((4, 3), np.float32))
    np.testing.assert_array_equal(nothing.forward(x), x)


def test_lengths_do_not_matter():
    v, x = draw(6, 4), draw(10, 4, seed=1)
    scaled = v * np.array([1e-200, 1e-5, 1.0, -3.0, 1e100, 1e200])[:, None]
    expected = HouseholderFlow(v).forward(x)
    np.testing.assert_allclose(HouseholderFlow(scaled).forward(x), expected, atol=1e-13)


def test_log_det_methods_of_tfp():
    flow = HouseholderFlow(draw(4, 2, 3))
    x = draw(5, 4, 3, seed=1)
    assert flow.is_constant_jacobian
    for method in (flow.forward_log_det_jacobian, flow.inverse_log_det_jacobian):
        np.testing.assert_array_equal(method(x), np.zeros((5, 4)))
        np.testing.assert_array_equal(method(x[0, 0]), np.zeros(4))


def test_the_most_mirrors_that_float32_is_trusted_with():
    """Nearly equal ones, the worst: K^2 / 2 eps."""
    for seed in range(20):
        v = draw(1, 8, seed=seed) + 1e-3 * draw(8, 8, seed=seed + 100)
        flow = HouseholderFlow(v.astype(np.float32))
        matrix = flow.forward(np.eye(8, dtype=np.float32)).numpy().astype(np.float64)
        error = np.linalg.norm(matrix @ matrix.T - np.eye(8), 2)
        assert error < 32 * np.finfo(np.float32).eps
