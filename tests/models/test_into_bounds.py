"""The map into bounds, against its formula in float64."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import special

from tfp_flowvae.models.bounds import IntoBounds

EPS = float(np.finfo(np.float32).eps)
LOW, HIGH = np.float32([0.0, -2.0, -np.inf, -np.inf]), np.float32([1.0, np.inf, 5.0, np.inf])
WIDTH = np.float32([1.0, 3.0, 0.5, 1.0])


@pytest.fixture
def bijector():
    return IntoBounds(LOW, HIGH, tf.constant(WIDTH))


def _forward(u):
    """x and the log-det of each column, in float64."""
    u, width = u.astype(np.float64), WIDTH.astype(np.float64)
    soft = np.logaddexp(0, u), np.logaddexp(0, -u)
    x = [
        special.expit(u[:, 0]),
        -2 + width[1] * soft[0][:, 1],
        5 - width[2] * soft[1][:, 2],
        u[:, 3],
    ]
    log_det = [
        np.log(special.expit(u[:, 0])) + np.log(special.expit(-u[:, 0])),
        np.log(width[1]) - soft[1][:, 1],
        np.log(width[2]) - soft[0][:, 2],
        np.zeros(len(u)),
    ]
    return np.stack(x, axis=-1), np.stack(log_det, axis=-1)


def test_both_directions_and_log_dets_are_the_formula(bijector):
    u = np.float32(np.linspace(-6, 6, 49))[:, np.newaxis] * np.ones(4, np.float32)
    x, log_det = _forward(u)
    # A sigmoid or softplus, a product and a sum: 8 roundings of numbers up to 5 + |u|.
    rounding = 8 * EPS * (5 + np.abs(u))
    assert np.all(np.abs(bijector.forward(u) - x) <= rounding)
    found = bijector.forward_log_det_jacobian(u, event_ndims=0)
    assert np.all(np.abs(found - log_det) <= rounding)
    # x as float32 holds it differs from x; du = dx / (dx/du).
    back = bijector.inverse(tf.constant(x, tf.float32))
    assert np.all(np.abs(back - u) <= rounding * (1 + np.exp(-log_det)))
    inverse = bijector.inverse_log_det_jacobian(tf.constant(x, tf.float32), event_ndims=0)
    assert np.all(np.abs(inverse + log_det) <= rounding * (1 + np.exp(-log_det)))


def test_the_log_det_is_the_derivative(bijector):
    u = tf.constant(np.random.default_rng(0).normal(size=(20, 4)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(u)
        x = bijector.forward(u)
    slope = np.log(tape.gradient(x, u))
    assert np.all(np.abs(slope - bijector.forward_log_det_jacobian(u, event_ndims=0)) <= 32 * EPS)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_no_point_reaches_a_bound_and_all_numbers_are_finite(bijector, jit_compile):
    @tf.function(jit_compile=jit_compile, autograph=False)
    def there_and_back(u):
        x = bijector.forward(u)
        with tf.GradientTape() as tape:
            tape.watch(x)
            back = bijector.inverse(tf.identity(x))
            log_det = bijector.inverse_log_det_jacobian(x, event_ndims=0)
        return x, back, log_det, tape.gradient([back, log_det], x)

    u = np.float32([[-1e4], [-100], [-20], [0], [20], [100], [1e4]]) * np.ones(4, np.float32)
    x, *others = there_and_back(tf.constant(u))
    assert np.all(x > LOW)
    assert np.all(x < HIGH)
    for values in others[:2]:
        assert np.all(np.isfinite(values))
    assert not np.any(np.isnan(others[2]))


def test_points_at_a_bound_and_beyond_have_no_density(bijector):
    x = np.float32([[0, 0, 0, 0], [1, -2, 5, 0], [1.5, -3, 6, 0], [-0.5, 0, 0, 0]])
    log_det = bijector.inverse_log_det_jacobian(x, event_ndims=0).numpy()
    outside = np.array([[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 0, 0]], bool)
    np.testing.assert_array_equal(log_det == -np.inf, outside)
    assert np.all(np.isfinite(bijector.inverse(x)))
