"""Planar steps against the formulas in NumPy, in more digits than the bijector has."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfp_flowvae.bijectors import Planar, PlanarFlow

ACTIVATIONS = {
    "tanh": (np.tanh, lambda t: 1.0 / np.cosh(np.clip(t, -300, 300)) ** 2),
    "isru": (lambda t: t / np.hypot(1.0, t), lambda t: np.hypot(1.0, t) ** -3.0),
}
each_activation = pytest.mark.parametrize("activation", ACTIVATIONS)
# One point of one step in extended precision, where the platform has it.
WIDER = {np.float32: np.float64, np.float64: np.longdouble}
each_dtype = pytest.mark.parametrize("dtype", WIDER)


class Reference:
    """The step as the paper writes it, with m(a) = softplus(a + log(e - 1)) - 1."""

    def __init__(self, u, w, b, activation, wide=np.float64):
        self.u, self.w, self.b = (np.asarray(p, wide) for p in (u, w, b))
        self.h, self.h_prime = ACTIVATIONS[activation]
        a = np.sum(self.u * self.w, axis=-1)
        self.slope = np.logaddexp(wide(0.0), a + np.log(np.expm1(wide(1.0))))
        near = np.log1p(-np.expm1(-wide(1.0)) * np.expm1(np.clip(a, -1.0, 1.0)))
        m = np.where(np.abs(a) < 1.0, near, self.slope - 1.0)
        square = np.sum(self.w**2, axis=-1)
        shift = np.where(square > 0, (m - a) / np.where(square > 0, square, 1.0), 0)
        self.u_hat = self.u + shift[..., None] * self.w

    def forward(self, z):
        t = np.sum(self.w * z, axis=-1) + self.b
        return z + self.u_hat * self.h(t)[..., None]

    def log_det(self, z):
        t = np.sum(self.w * z, axis=-1) + self.b
        outer = self.u_hat[..., :, None] * self.w[..., None, :]
        jacobian = np.eye(z.shape[-1]) + self.h_prime(t)[..., None, None] * outer
        return np.linalg.slogdet(jacobian)[1]

    def root(self, target):
        """The t with t + (s - 1) h(t) = target, by 200 bisections."""
        reach = np.abs(target) + np.abs(self.slope - 1.0) + 1.0
        low, high = -reach, reach
        for _ in range(200):
            middle = 0.5 * (low + high)
            above = self.slope * self.h(middle) + (middle - self.h(middle)) > target
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return middle

    def derivative(self, t):
        """f' along w, s h' + 1 - h'."""
        return self.slope * self.h_prime(t) + 1.0 - self.h_prime(t)

    def scale(self, x, y, eps):
        """What one eps of each number that enters the step can change in f(x), per eps."""
        t = np.sum(self.w * x, axis=-1) + self.b
        through = np.sum(np.abs(self.w * x), axis=-1) + np.abs(self.b)
        nearest = np.maximum(np.abs(t) - roundings(x) * eps * through, 0.0)  # h may be this steep
        pull = np.abs(self.h(t)) + self.h_prime(nearest) * through
        product = np.sum(np.abs(self.u * self.w), axis=-1) + 1.0
        size = np.abs(self.u) + product[..., None] * np.abs(self.u_hat - self.u)
        return np.abs(x) + np.abs(y) + pull[..., None] * (size + np.abs(self.u_hat))


def roundings(x):
    """How many eps a number of a step may be off by when it has its effect.

    Half an eps each for the D products and sums of w.x + b and as many of u.w, for the six
    operations that put u^ together, and for the product and the sum that move x; two eps each for
    softplus, for h, and for the root of the inverse's equation.
    """
    return x.shape[-1] + 10


def assert_inverts(bijector, reference, y):
    """Checks the inverse at y by what f makes of it, by the exact inverse, and by the log-det."""
    eps = np.finfo(y.dtype).eps
    wide = reference.u.dtype
    x, log_det = (r.numpy() for r in bijector.inverse_and_log_det(y))
    allowed = roundings(y) * eps * reference.scale(x, y, eps)
    assert np.all(np.abs(reference.forward(x.astype(wide)) - y) <= allowed)
    if np.finfo(wide).eps == np.finfo(y.dtype).eps:  # no longer numbers on this platform
        return
    # Beyond this point what the rounding of y does to x is amplified as by f's inverse.
    target = np.sum(reference.w * y, axis=-1) + reference.b
    t = reference.root(target)
    exact = y - reference.u_hat * reference.h(t)[..., None]
    size = np.linalg.norm(reference.u_hat, axis=-1) * np.linalg.norm(reference.w, axis=-1)
    allowed = (1.0 + size / reference.derivative(t)) * np.linalg.norm(allowed, axis=-1)
    assert np.all(np.linalg.norm(x - exact, axis=-1) <= allowed)
    # f' is monotone in |t|, and t somewhere between the roots for w.y + b a little less and more.
    product = 1.0 + np.sum(np.abs(reference.u * reference.w), axis=-1)  # enters s, relative to it
    moved = np.sum(np.abs(reference.w * y), axis=-1) + np.abs(reference.b)
    moved += product * reference.slope * np.abs(reference.h(t))
    low, high = (reference.root(target + s * roundings(y) * eps * moved) for s in (-1.0, 1.0))
    middle = np.where((low < 0.0) & (high > 0.0), 0.0, low)
    found = [-np.log(reference.derivative(end)) for end in (low, middle, high)]
    slack = roundings(y) * eps * (product + np.abs(log_det))
    assert np.all(log_det >= np.min(found, axis=0) - slack)
    assert np.all(log_det <= np.max(found, axis=0) + slack)


def draw(*batch, d=3, dtype=np.float64, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    u, w = rng.normal(scale=scale, size=(2, *batch, d)).astype(dtype)
    return u, w, rng.normal(scale=scale, size=batch).astype(dtype)


def with_slope(slope, d, dtype, seed=0):
    """Raw parameters whose step has the given slope at its steepest point, up to rounding."""
    u, w, b = draw(d=d, seed=seed)
    raw = slope + np.log(-np.expm1(-slope)) - np.log(np.expm1(1.0))
    u += (raw - np.sum(u * w)) * w / np.sum(w**2)
    return u.astype(dtype), w.astype(dtype), b.astype(dtype)


@each_activation
@pytest.mark.parametrize("d", [1, 2, 5])
def test_value_and_log_det(activation, d, assert_same):
    u, w, b = draw(50, d=d, scale=2.0)
    z = np.random.default_rng(1).normal(scale=2.0, size=(50, d))

    def ours(given):
        planar = Planar(*given[:3], activation)
        return (*planar.forward_and_log_det(given[3]), planar.constrained_u())

    def formula(given):
        u, w, b, z = map(np.asarray, given)
        reference = Reference(u, w, b, activation)
        return reference.forward(z), reference.log_det(z), reference.u_hat

    assert_same(ours, formula, (u, w, b, z), 2 * roundings(z))  # of either
    planar = Planar(u, w, b, activation)
    assert np.all(np.sum(w * planar.constrained_u(), axis=-1) > -1.0)


@each_activation
def test_log_dets_against_autodiff(activation, assert_log_dets):
    x = tf.constant(np.random.default_rng(1).normal(size=(20, 3)))
    for bijector in (
        Planar(*draw(20, scale=2.0), activation),
        PlanarFlow(*draw(20, 4), activation),
    ):
        assert_log_dets(bijector, x, 2 * 4 * roundings(x))  # in up to four steps, of either


@each_activation
@each_dtype
def test_zero_u_is_the_identity(activation, dtype):
    _, w, b = draw(10, dtype=dtype, scale=5.0)
    z = np.random.default_rng(1).normal(size=(10, 3)).astype(dtype)
    planar = Planar(np.zeros_like(w), w, b, activation)
    y, log_det = planar.forward_and_log_det(z)
    x, inverse_log_det = planar.inverse_and_log_det(z)
    for same in (y, x):
        np.testing.assert_array_equal(same, z)
    for zero in (log_det, inverse_log_det):
        # s, both terms of s h' + (1 - h') and their sum are rounded.
        np.testing.assert_allclose(zero, 0.0, atol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("activation", "jit_compile"), [("tanh", False), ("isru", False), ("tanh", True)]
)
def test_vanishing_w(activation, jit_compile):
    sizes = np.array([0.0, 1e-45, 1e-30, 1e-25, 1e-20, 1e-8], np.float32)
    u = tf.constant([0.5, -1.0, 2.0])
    w = tf.constant(sizes[:, np.newaxis] * np.array([1.0, -1.0, 0.5], np.float32))
    b, z = tf.constant(0.7), tf.constant([[[1.0, 2.0, 3.0]], [[0.0, 0.0, 0.0]]])

    def compute(u, w, b, z):
        with tf.GradientTape() as tape:
            tape.watch([u, w, b, z])
            planar = Planar(u, w, b, activation)
            y, log_det = planar.forward_and_log_det(z)
            x, inverse_log_det = planar.inverse_and_log_det(z)
            total = tf.reduce_sum(y + x) + tf.reduce_sum(log_det + 2.0 * inverse_log_det)
        return y, x, log_det, inverse_log_det, tape.gradient(total, [u, w, b, z])

    run = tf.function(compute, jit_compile=True) if jit_compile else compute
    y, x, log_det, inverse_log_det, gradients = run(u, w, b, z)
    assert all(np.all(np.isfinite(g)) for g in gradients)
    eps = np.finfo(np.float32).eps
    # No slope is further from 1 than u.w, beside the roundings of `test_zero_u_is_the_identity`.
    allowed = 4 * eps + np.sum(np.abs(u * w), axis=-1)
    assert np.all(np.abs(log_det) <= allowed)
    assert np.all(np.abs(inverse_log_det) <= allowed)
    z = np.broadcast_to(z, y.shape)
    shift = u * ACTIVATIONS[activation][0](0.7)
    allowed = roundings(z) * eps * (np.abs(z[:, :2]) + np.abs(shift))
    assert np.all(np.abs(y[:, :2] - z[:, :2] - shift) <= allowed)
    assert np.all(np.abs(x[:, :2] - z[:, :2] + shift) <= allowed)
    reference, z = Reference(u, w[2:], b, activation), z[:, 2:].astype(np.float64)
    for start, end in ((z, y[:, 2:]), (x[:, 2:].numpy().astype(np.float64), z)):
        allowed = roundings(z) * eps * reference.scale(start, end, eps)
        assert np.all(np.abs(reference.forward(start) - end) <= allowed)


@each_activation
@each_dtype
@pytest.mark.parametrize("slope", [1e-12, 1e-6, 1e-3, 0.5, 1.0, 30.0, 1e6])
@pytest.mark.parametrize("d", [1, 3])
def test_inverse_has_a_small_backward_and_forward_error(activation, dtype, slope, d):
    parameters = zip(*(with_slope(slope, d, dtype, seed) for seed in range(3)), strict=True)
    u, w, b = (np.stack(part)[:, np.newaxis] for part in parameters)
    rng = np.random.default_rng(0)
    spread = 10.0 ** rng.uniform(-6, 2, size=(3, 200, 1)) * max(1.0, slope)
    y = (rng.normal(size=(3, 200, d)) * spread).astype(dtype)
    y[:, 0] = 0.0
    planar = Planar(u, w, b, activation)
    assert_inverts(planar, Reference(u, w, b, activation, WIDER[dtype]), y)


LENGTHS = 10.0 ** np.arange(-8, 5)


@each_activation
@each_dtype
@pytest.mark.parametrize("slope", [None, 0.01, 30.0, 1e4])
def test_inverse_is_exact_to_rounding_for_every_length_of_w(activation, dtype, slope):
    """Short ones too, where t - b divided by |w| is far worse than y - u^ h(t)."""
    u, w, _ = draw(d=3) if slope is None else with_slope(slope, 3, np.float64)
    shrink = (LENGTHS / np.linalg.norm(w))[:, np.newaxis, np.newaxis, np.newaxis]
    u, w = (u if slope is None else u / shrink), w * shrink
    offsets = np.array([0.01, -1.0, 100.0])[:, np.newaxis]
    u, w, b = (part.astype(dtype) for part in (u, w, offsets))  # batch [13, 3, 1], by broadcasting
    rng = np.random.default_rng(1)
    spread = 10.0 ** rng.uniform(-6, 2, size=(200, 1))
    spread = spread * np.maximum(1.0, np.linalg.norm(u, axis=-1, keepdims=True))
    y = (rng.normal(size=(13, 3, 200, 3)) * spread).astype(dtype)
    planar = Planar(u, w, b, activation)
    assert_inverts(planar, Reference(u, w, b, activation, WIDER[dtype]), y)


@each_dtype
def test_a_stack_inverts_to_rounding_with_a_short_w_among_others(dtype):
    eps = np.finfo(dtype).eps
    for length in LENGTHS:
        u, w, b = draw(4, d=3)
        w[2] *= length / np.linalg.norm(w[2])
        u, w, b = (p.astype(dtype) for p in (u, w, b))
        x = np.random.default_rng(1).normal(size=(200, 3)).astype(dtype)
        flow = PlanarFlow(u, w, b)
        back = flow.inverse(tf.identity(flow.forward(x)))
        # Each step rounds on its way there and back, and its inverse amplifies what it is given.
        steps = [Reference(u[k], w[k], b[k], "tanh", WIDER[dtype]) for k in range(4)]
        points = [x.astype(WIDER[dtype])]
        for step in steps:
            points.append(step.forward(points[-1]))
        error = np.zeros(200)
        for k, step in reversed(list(enumerate(steps))):
            t = np.sum(step.w * points[k], axis=-1) + step.b
            size = np.linalg.norm(step.u_hat) * np.linalg.norm(step.w)
            scale = np.linalg.norm(step.scale(points[k], points[k + 1], eps), axis=-1)
            rounding = 2.0 * roundings(x) * eps * scale
            error = (1.0 + size / step.derivative(t)) * (error + rounding)
        assert np.all(np.linalg.norm(back - x, axis=-1) <= error)


# Down to lengths of w that count as 0, and numbers that processors may flush to 0.
numbers = st.floats(-1e4, 1e4, width=32).filter(lambda x: x == 0.0 or abs(x) > 1e-25)
UNDERFLOW = 1e-37


# Far from the plane, where a correction along w would only add its own rounding.
@example(values=[0, 0, 1, 0, 1, 41, 0, 0, 65, 0, 0, 0, 0], activation="tanh")
@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(numbers, min_size=13, max_size=13), activation=st.sampled_from([*ACTIVATIONS])
)
def test_any_parameters_invert(values, activation):
    u, w, y, x = np.array(values[:12], np.float32).reshape(4, 3)
    planar = Planar(u, w, values[12], activation)
    reference = Reference(u, w, values[12], activation)
    eps = np.finfo(np.float32).eps
    inverted, inverse_log_det = planar.inverse_and_log_det(y)
    allowed = roundings(y) * eps * reference.scale(inverted.numpy(), y, eps) + UNDERFLOW
    assert np.all(np.abs(reference.forward(inverted.numpy()) - y) <= allowed)
    moved, log_det = planar.forward_and_log_det(x)
    allowed = roundings(x) * eps * reference.scale(x, x, eps) + UNDERFLOW
    assert np.all(np.abs(reference.forward(x) - moved) <= allowed)
    assert np.isfinite(log_det)
    assert np.isfinite(inverse_log_det)


@each_activation
@pytest.mark.parametrize("inner", [-30.0, -200.0, -3000.0])
def test_slope_that_underflows(activation, inner):
    """On the plane itself the log-det is log s = w.u + log(e - 1), representable or not."""
    u, w, b = tf.constant([inner, 0.0]), tf.constant([1.0, 0.0]), tf.constant(0.0)
    x = tf.constant([[0.0, 0.5], [1e-3, 0.0], [2.0, 1.0]])
    with tf.GradientTape() as tape:
        tape.watch([u, w, b, x])
        planar = Planar(u, w, b, activation)
        y, log_det = planar.forward_and_log_det(x)
        back, inverse_log_det = planar.inverse_and_log_det(tf.identity(y))
        total = tf.reduce_sum(log_det + 2.0 * inverse_log_det + back[:, 0])
    log_slope = inner + np.log(np.expm1(1.0))
    eps, reference = np.finfo(np.float32).eps, Reference(u, w, b, activation)
    # w.u, log(e - 1), their sum and the logarithm are rounded.
    np.testing.assert_allclose(log_det[0], log_slope, rtol=4 * eps)
    np.testing.assert_allclose(inverse_log_det[0], -log_slope, rtol=4 * eps)
    far = x.numpy()[2:].astype(np.float64)  # where |t| = 2, and the slope below 1
    expected = reference.log_det(far)
    np.testing.assert_allclose(log_det[2:], expected, rtol=0.0, atol=2 * roundings(x) * eps)
    # f and its inverse round, and the inverse divides by f'.
    error = 2 * roundings(x) * eps * reference.scale(far, reference.forward(far), eps)
    assert np.all(np.abs(back[2] - far[0]) <= 2 * error / reference.derivative(2.0))
    assert all(np.all(np.isfinite(g)) for g in tape.gradient(total, [u, w, b, x]))


@each_activation
@pytest.mark.parametrize("slope", [1e-6, 1.0, 100.0])
def test_implicit_gradients_of_the_inverse(activation, slope, assert_slope):
    parameters = [tf.constant(p) for p in with_slope(slope, 3, np.float64, seed=5)]
    rng = np.random.default_rng(6)
    arguments = [*parameters, tf.constant(rng.normal(size=3) * max(slope, 1.0))]

    def value(*arguments):
        x, log_det = Planar(*arguments[:3], activation).inverse_and_log_det(arguments[3])
        return tf.reduce_sum(x * [1.0, -2.0, 3.0]) + log_det

    with tf.GradientTape() as tape:
        tape.watch(arguments)
        total = value(*arguments)
    for index, gradient in enumerate(tape.gradient(total, arguments)):
        direction = rng.normal(size=gradient.shape)
        if index == 3:
            direction *= max(slope, 1.0)

        def moved(step, index=index, direction=direction):
            there = list(arguments)
            there[index] = there[index] + step * direction
            return value(*there)

        # Four terms, and what the inverse makes of the rounding of t where it is steep.
        n = 4 * roundings(arguments[3]) * max(slope, 1.0 / slope)
        assert_slope(np.sum(gradient * direction), moved, n)


def test_lengths_whose_squares_overflow(assert_same, assert_round_trip):
    u, w, b = np.float32([2.0, -1.0]), np.float32([3e25, 1e25]), np.float32(0.0)
    u = u * np.float32(1e-25)

    def formula(given):
        u, w, b, z = map(np.asarray, given)
        reference = Reference(u, w, b, "tanh")
        return np.float32(reference.forward(z)), np.float32(reference.log_det(z))

    for z in np.array([[1.0, 2.0], [1e-26, -2e-26]], np.float32):  # each on its own scale
        ours = lambda given: Planar(*given[:3]).forward_and_log_det(given[3])  # noqa: E731
        assert_same(ours, formula, (u, w, b, z), roundings(z))
        assert_round_trip(lambda given: Planar(*given), (u, w, b), z, 2 * roundings(z))


def test_eighty_steps_in_float32_invert(assert_round_trip):
    z = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)
    parameters = draw(80, d=8, dtype=np.float32, scale=0.3)
    assert_round_trip(lambda given: PlanarFlow(*given), parameters, z, 2 * roundings(z))


def test_unknown_activation():
    with pytest.raises(ValueError, match=r"'tanh' or 'isru'\. Received: 'relu'"):
        Planar(*draw(), activation="relu")
