"""Radial steps against the formulas in NumPy, in more digits than the bijector has."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfp_flowvae.bijectors import Radial, RadialFlow

EPS = np.finfo(np.float32).eps
# Of the numbers of a step in up to five dimensions: five in the sum of squares, its scale and root;
# three in gamma; the quadratic's root or the ratio, its product and the sum, with two each.
ROUNDINGS = 16


class Reference:
    """The step as the paper writes it, with beta^ = softplus(beta + softplus^-1(alpha)) - alpha."""

    def __init__(self, center, alpha, beta):
        self.center, alpha, beta = (np.asarray(p, np.float64) for p in (center, alpha, beta))
        self.alpha = alpha
        self.gamma = np.logaddexp(0.0, beta + alpha + np.log(-np.expm1(-alpha)))
        self.beta_hat = self.gamma - alpha

    def forward(self, z):
        offset = np.asarray(z, np.float64) - self.center
        r = np.linalg.norm(offset, axis=-1, keepdims=True)
        alpha, gamma = self.alpha[..., None], self.gamma[..., None]
        return self.center + offset * ((gamma + r) / (alpha + r))

    def log_det(self, z):
        offset = np.asarray(z, np.float64) - self.center
        r = np.linalg.norm(offset, axis=-1)
        ratio = self.beta_hat / (self.alpha + r)
        across = outer = offset[..., :, None] * offset[..., None, :]
        across = outer * (ratio / (r * (self.alpha + r)))[..., None, None]
        jacobian = (1.0 + ratio)[..., None, None] * np.eye(offset.shape[-1]) - across
        return np.linalg.slogdet(jacobian)[1]


def draw(*batch, d=3, dtype=np.float64, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    center = rng.normal(size=(*batch, d)).astype(dtype)
    alpha, beta = np.exp(rng.normal(size=batch)), rng.normal(scale=scale, size=batch)
    return center, alpha.astype(dtype), beta.astype(dtype)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_value_and_log_det(d, assert_same):
    center, alpha, beta = draw(100, d=d, scale=3.0)
    z = np.random.default_rng(1).normal(scale=2.0, size=(100, d))

    def ours(given):
        radial = Radial(*given[:3])
        return (*radial.forward_and_log_det(given[3]), radial.constrained_beta())

    def formula(given):
        center, alpha, beta, z = map(np.asarray, given)
        reference = Reference(center, alpha, beta)
        return reference.forward(z), reference.log_det(z), reference.beta_hat

    assert_same(ours, formula, (center, alpha, beta, z), 2 * ROUNDINGS)  # of either


def test_log_dets_against_autodiff(assert_log_dets):
    x = tf.constant(np.random.default_rng(1).normal(size=(20, 3)))
    for bijector in (Radial(*draw(20, scale=3.0)), RadialFlow(*_stack(20, 4))):
        assert_log_dets(bijector, x, 2 * 4 * ROUNDINGS)  # in up to four steps, of either


def _stack(*batch):
    return draw(*batch, seed=7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("alpha", [1e-6, 0.3, 1.0, 50.0, 1e6])
def test_zero_beta_is_the_identity(alpha, dtype):
    z = np.random.default_rng(1).normal(size=(10, 3)).astype(dtype)
    radial = Radial(np.ones(3, dtype), dtype(alpha), dtype(0.0))
    for y, log_det in (radial.forward_and_log_det(z), radial.inverse_and_log_det(z)):
        np.testing.assert_array_equal(y, z)
        np.testing.assert_array_equal(log_det, np.zeros(10))


@pytest.mark.parametrize(("d", "jit_compile"), [(1, False), (4, False), (4, True)])
def test_at_and_around_the_center(d, jit_compile):
    """At r = 0 the map is z -> c + (gamma / alpha) (z - c), and everything is finite."""
    center = tf.constant(np.arange(1.0, d + 1.0), tf.float32)
    alpha, beta = tf.constant(0.8), tf.constant([-200.0, -20.0, -3.0, 3.0, 1e4])
    x = tf.stack([center, center + 1e-3])[:, tf.newaxis]

    def compute(center, alpha, beta, x):
        with tf.GradientTape() as tape:
            tape.watch([center, alpha, beta, x])
            radial = Radial(center, alpha, beta)
            y, log_det = radial.forward_and_log_det(x)
            back, inverse_log_det = radial.inverse_and_log_det(x)
            total = tf.reduce_sum(y + back) + tf.reduce_sum(log_det + 2.0 * inverse_log_det)
        gradients = tape.gradient(total, [center, alpha, beta, x])
        return y, log_det, back, inverse_log_det, gradients

    run = tf.function(compute, jit_compile=True) if jit_compile else compute
    y, log_det, back, inverse_log_det, gradients = run(center, alpha, beta, x)
    assert all(np.all(np.isfinite(g)) for g in gradients)
    for row in range(5):
        np.testing.assert_array_equal(y[0, row], center)
        np.testing.assert_array_equal(back[0, row], center)
    reference = Reference(center, alpha, beta)
    log_slope = d * (np.log(reference.gamma) - np.log(reference.alpha))
    # One eps of alpha and of beta is that of log gamma times these.
    allowed = ROUNDINGS * d * EPS * (1.0 + 0.8 + np.abs(beta))
    assert np.all(np.abs(log_det[0] - log_slope) <= allowed)
    assert np.all(np.abs(inverse_log_det[0] + log_slope) <= allowed)
    assert np.all(np.abs(log_det[1] - reference.log_det(x[1])) <= allowed)


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("alpha", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("beta", [-12.0, -1.0, 1e-3, 5.0, 1e5])
def test_inverse_has_a_small_error(alpha, beta, d):
    rng = np.random.default_rng(2)
    center = np.zeros(d, np.float32)
    radius = 10.0 ** rng.uniform(-8, 8, size=(200, 1))
    y = (rng.normal(size=(200, d)) * radius).astype(np.float32)
    radial = Radial(center, np.float32(alpha), np.float32(beta))
    reference = Reference(center, np.float32(alpha), np.float32(beta))
    x, log_det = (r.numpy() for r in radial.inverse_and_log_det(y))
    outer = np.linalg.norm(y.astype(np.float64), axis=-1)
    # Relative to y: at the center nothing is lost to cancellation, inwards or outwards.
    factor = 1.0 + abs(np.log(reference.alpha)) + abs(beta) * (beta < 0)
    error = np.linalg.norm(reference.forward(x) - y, axis=-1)
    assert np.all(error <= ROUNDINGS * EPS * factor * outer)
    allowed = {"rtol": ROUNDINGS * EPS, "atol": ROUNDINGS * EPS * factor * d}
    np.testing.assert_allclose(log_det, -reference.log_det(x), **allowed)
    moved, log_det = radial.forward_and_log_det(y)
    np.testing.assert_allclose(moved, reference.forward(y), rtol=ROUNDINGS * EPS * factor)
    np.testing.assert_allclose(log_det, reference.log_det(y), **allowed)


def test_radii_whose_squares_overflow():
    radial = Radial(tf.zeros(3), 1.0, 2.0)
    x = tf.constant([[3e25, -1e25, 2e25], [3e-30, 1e-30, -2e-30]])
    y, log_det = radial.forward_and_log_det(x)
    slope = radial.constrained_beta() + 1.0
    np.testing.assert_allclose(y, x * [[1.0], [slope]], rtol=ROUNDINGS * EPS)
    wanted = [0.0, 3.0 * np.log(slope)]
    np.testing.assert_allclose(log_det, wanted, rtol=0.0, atol=3 * ROUNDINGS * EPS)
    np.testing.assert_allclose(radial.inverse(tf.identity(y)), x, rtol=2 * ROUNDINGS * EPS)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("beta", [-3.0, 0.7, 50.0])
@pytest.mark.parametrize("alpha", [1e-20, 1e-10, 1.0, 1e10])
def test_gradients_at_every_scale_of_alpha(alpha, beta, direction):
    """Of a value and a log-det in float32, against float64 at the same numbers."""
    d, weights = 3, np.array([1.0, -2.0, 3.0], np.float32)
    radius = np.array([0.0, 1e-25, 1e-20, 1e-15, 1.0, 1e5])
    x = np.float32(radius[:, np.newaxis] * [0.6, -0.64, 0.48])
    alpha, beta = np.float32(alpha), np.float32(beta)

    def gradients(dtype, jit_compile=False):
        center, each = np.zeros((6, d)), np.ones(6)
        values = (x, center, alpha * each, beta * each)
        arguments = [tf.constant(value, dtype) for value in values]

        def compute(arguments):
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(arguments)
                radial = Radial(*arguments[1:])
                image, log_det = getattr(radial, f"{direction}_and_log_det")(arguments[0])
                total = tf.reduce_sum(image * weights.astype(dtype))
            return [tape.gradient(t, arguments) for t in (total, log_det)]

        run = tf.function(compute, jit_compile=True) if jit_compile else compute
        return [[part.numpy() for part in parts] for parts in run(arguments)]

    # One eps of an argument is that of gamma times this, and lengths count against alpha, at least.
    unit = EPS * (1.0 + abs(np.log(alpha)) + abs(beta))
    gamma = Reference(np.zeros(d), alpha, beta).gamma
    stretch = max(1.0, gamma / alpha, alpha / gamma)
    of_value = [stretch, stretch, stretch * radius / alpha, stretch * radius]
    of_log_det = [stretch * d / alpha, stretch * d / alpha, stretch * d / alpha, d]
    exact = gradients(np.float64)
    for compiled in (False, True) if alpha < 1e-15 else (False,):
        found = gradients(np.float32, compiled)
        for ours, theirs, scales in zip(found, exact, (of_value, of_log_det), strict=True):
            for got, wanted, scale in zip(ours, theirs, scales, strict=True):
                assert np.all(np.isfinite(got))
                size = np.reshape(scale * np.ones(6), [6] + [1] * (got.ndim - 1))
                assert np.all(np.abs(got - wanted) <= ROUNDINGS * unit * size)


# Down to numbers that processors may flush to 0.
numbers = st.floats(-1e3, 1e3, width=32).filter(lambda x: x == 0.0 or abs(x) > 1e-25)


@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(numbers, min_size=7, max_size=7),
    alpha=st.floats(1e-4, 1e4),
)
def test_any_parameters_invert(values, alpha):
    center, x = np.array(values[:6], np.float32).reshape(2, 3)
    alpha, beta = np.float32(alpha), np.float32(values[6])
    radial, reference = Radial(center, alpha, beta), Reference(center, alpha, beta)
    y, log_det = radial.forward_and_log_det(x)
    back, inverse_log_det = radial.inverse_and_log_det(x)
    assert np.isfinite(log_det)
    assert np.isfinite(inverse_log_det)
    factor = 2 * ROUNDINGS * EPS * (1.0 + abs(np.log(alpha)) + abs(beta) * (beta < 0))
    scale = np.max(np.abs([center, x])) + np.abs(reference.forward(x))
    assert np.all(np.abs(reference.forward(x) - y) <= factor * scale)
    # An error of x of one eps becomes, through f, at most gamma / alpha or 1 of them.
    stretch = max(1.0, float(reference.gamma / reference.alpha))
    size = np.max(np.abs([center, x, back]))
    assert np.all(np.abs(reference.forward(back.numpy()) - x) <= factor * stretch * size)


def test_alpha_that_is_not_positive():
    with pytest.raises(ValueError, match=r"positive alpha\. Received: alpha with minimum -1\.0"):
        Radial(np.zeros(2, np.float32), np.float32(-1.0), 0.0, validate_args=True)
    with pytest.raises(ValueError, match=r"positive alpha\. Received: alpha with minimum 0\.0"):
        RadialFlow(np.zeros((2, 2), np.float32), [1.0, 0.0], [0.0, 0.0], validate_args=True)
    alpha = tf.Variable(1.0)
    radial = Radial(np.zeros(2, np.float32), alpha, 0.0, validate_args=True)
    radial.forward(tf.zeros(2))
    alpha.assign(-2.0)
    with pytest.raises(ValueError, match=r"positive alpha\. Received: alpha with minimum -2\.0"):
        radial.forward(tf.ones(2))
    with pytest.raises(tf.errors.InvalidArgumentError, match="positive alpha"):
        tf.function(radial.forward)(tf.ones(2))
