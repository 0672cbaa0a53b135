"""The spline against TFP's in float64, at edges where float32 fails, and as a transformer."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import bijectors as fvb

DTYPES = [tf.float32, tf.float64]
EPS = np.finfo(np.float64).eps
EPS32 = np.finfo(np.float32).eps
# How many eps B a value may be off by on its way through a spline, and how many a K-th knot adds:
# see `test_spline_bounds.py`.
ROUNDINGS = 8


def log_det_rounding(bins: int, eps: float = EPS) -> float:
    """What a log-det of `spline_from_raw` may be off by, as its docstring has it."""
    return 300.0 * bins * (bins + ROUNDINGS) * eps


def raw_numbers(*shape: int, scale: float = 1.0, seed: int = 0, dtype=tf.float64) -> tf.Tensor:
    return tf.constant(scale * np.random.default_rng(seed).normal(size=shape), dtype)


def extreme(raw: tf.Tensor, bound: float = 4.0) -> fvb.RationalQuadraticSpline:
    """As in the paper: slopes of bins from 1e-3 to 1e3, of knots from 1e-3 on without a bound."""
    bins = (raw.shape[-1] + 1) // 3
    widths, heights, slopes = tf.split(raw, [bins, bins, bins - 1], axis=-1)
    sizes = (1e-3 + (1.0 - bins * 1e-3) * tf.nn.softmax(part) for part in (widths, heights))
    return fvb.RationalQuadraticSpline(
        *(2.0 * bound * size for size in sizes),
        knot_slopes=1e-3 + tf.nn.softplus(slopes),
        range_min=tf.constant(-bound, raw.dtype),
    )


def plain(spline: fvb.RationalQuadraticSpline, dtype=tf.float64) -> tfb.RationalQuadraticSpline:
    """TFP's own spline with the same knots."""
    names = ("bin_widths", "bin_heights", "knot_slopes", "range_min")
    return tfb.RationalQuadraticSpline(**{n: tf.cast(getattr(spline, n), dtype) for n in names})


@pytest.mark.parametrize("bins", [1, 2, 8])
def test_agrees_with_tfp_in_float64(bins):
    spline = fvb.spline_from_raw(raw_numbers(3, 3 * bins - 1), bound=2.0)
    theirs = plain(spline)
    x = tf.constant(np.linspace(-2.5, 2.5, 57)[:, np.newaxis] * np.ones(3))
    # TFP's inverse takes a difference of which at the least 1 / S^2 = 1 / 100 is left.
    value, log_det = 100.0 * (bins + ROUNDINGS) * EPS * 2.0, 100.0 * log_det_rounding(bins)
    for method, allowed in (
        ("forward", value),
        ("inverse", value),
        ("forward_log_det_jacobian", log_det),
        ("inverse_log_det_jacobian", log_det),
    ):
        got, wanted = (getattr(b, method)(tf.identity(x)) for b in (spline, theirs))
        np.testing.assert_allclose(got, wanted, rtol=0.0, atol=allowed, err_msg=method)


def test_log_dets_against_autodiff():
    spline = fvb.spline_from_raw(raw_numbers(4, 14, scale=2.0), bound=3.0)
    x = raw_numbers(50, 4, seed=1, scale=1.5)
    for method, log_det in (
        (spline.forward, spline.forward_log_det_jacobian),
        (spline.inverse, spline.inverse_log_det_jacobian),
    ):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = method(tf.identity(x))
        np.testing.assert_allclose(
            log_det(tf.identity(x)),
            np.log(tape.gradient(y, x)),
            rtol=0.0,
            atol=2.0 * log_det_rounding(bins=5),  # of either
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bins", [1, 5, 16])
def test_zeros_are_the_identity(dtype, bins):
    spline = fvb.spline_from_raw(tf.zeros([2, 3 * bins - 1], dtype), bound=4.0)
    x = tf.constant(np.linspace(-6, 6, 101)[:, np.newaxis] * [1.0, 0.7], dtype)
    eps = np.finfo(dtype.as_numpy_dtype).eps
    for value in (spline.forward(x), spline.inverse(x)):
        np.testing.assert_allclose(value, x, rtol=0.0, atol=ROUNDINGS * eps * 4.0)
    # Knots are rounded to eps B, or K / 2 eps of the width of a bin, in x and in y.
    log_det = spline.forward_log_det_jacobian(x)
    np.testing.assert_allclose(log_det, 0 * x, atol=(ROUNDINGS + 2 * bins) * eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tails_are_the_identity_exactly(dtype):
    spline = fvb.spline_from_raw(raw_numbers(2, 23, scale=3.0, dtype=dtype), bound=4.0)
    tiny = 1.0 + 8 * np.finfo(dtype.as_numpy_dtype).eps
    largest = float(np.finfo(dtype.as_numpy_dtype).max)
    x = tf.constant([[v, -v] for v in (4.0 * tiny, 5.0, 1e6, 1e20, largest)], dtype)
    for method in (spline.forward, spline.inverse):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = method(tf.identity(x))
        np.testing.assert_array_equal(y, x)
        np.testing.assert_array_equal(tape.gradient(y, x), np.ones((5, 2)))
    np.testing.assert_array_equal(spline.forward_log_det_jacobian(x), np.zeros((5, 2)))
    np.testing.assert_array_equal(spline.inverse_log_det_jacobian(x), np.zeros((5, 2)))


def knots(spline: tfb.RationalQuadraticSpline) -> tuple[np.ndarray, np.ndarray]:
    return tuple(
        np.float64(spline.range_min) + np.cumsum(np.float64(sizes), axis=-1)[..., :-1]
        for sizes in (spline.bin_widths, spline.bin_heights)
    )


def near(values: np.ndarray) -> tf.Tensor:
    """Every value in float32 with its neighbours, `[5, ...]`."""
    rounded = values.astype(np.float32)
    up, down = (np.nextafter(rounded, np.float32(s * np.inf)) for s in (1, -1))
    return tf.constant(np.stack([rounded, up, down, rounded * 1.0001, rounded * 0.9999]))


@pytest.mark.parametrize("scale", [1.0, 5.0, 30.0])
def test_float32_at_the_bin_edges(scale):
    raw = raw_numbers(200, 23, scale=scale, dtype=tf.float32)
    spline = extreme(raw[:, tf.newaxis])
    precise = plain(spline)
    x_knots, y_knots = (np.squeeze(k, 1) for k in knots(spline))
    for points, name in ((near(x_knots), "forward"), (near(y_knots), "inverse")):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([points, raw])
            spline = extreme(raw[:, tf.newaxis])
            value = getattr(spline, name)(tf.identity(points))
            log_det = getattr(spline, f"{name}_log_det_jacobian")(tf.identity(points))
        assert np.isfinite(value).all()
        assert np.isfinite(log_det).all()
        for target in (value, log_det):
            for gradient in tape.gradient(target, [points, raw]):
                assert np.isfinite(gradient).all()
        # Right for a point within rounding of the given one: a knot is off by up to 8 eps B. Near
        # a knot of slope 1e-3 in a bin of slope 1e3 no float32 number says more.
        rounding = ROUNDINGS * EPS32 * 4.0
        low, high = (
            getattr(precise, name)(tf.cast(points, tf.float64) + sign * rounding).numpy()
            for sign in (-1.0, 1.0)
        )
        assert (value.numpy() >= low - rounding).all()
        assert (value.numpy() <= high + rounding).all()


def test_points_where_tfp_is_nan():
    """Near a flat knot TFP's discriminant, a difference, comes out negative in float32."""
    raw = raw_numbers(50, 23, scale=30.0, dtype=tf.float32)[:, tf.newaxis]
    spline = extreme(raw)
    y = near(np.squeeze(knots(spline)[1], 1))
    assert np.isnan(plain(spline, tf.float32).inverse(y)).any()
    x = spline.inverse(tf.identity(y))
    assert np.isfinite(x).all()
    assert np.isfinite(spline.inverse_log_det_jacobian(tf.identity(y))).all()
    # Up one number in y is never down in x, but for the rounding of x.
    middle, up, down = x[0], x[1], x[2]
    assert (up - middle >= -ROUNDINGS * EPS32 * 4.0).numpy().all()
    assert (middle - down >= -ROUNDINGS * EPS32 * 4.0).numpy().all()


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_compiled(jit, one_eps, assert_within):
    arguments = (raw_numbers(5, 3, seed=2), raw_numbers(3, 11))

    def both(arguments: tuple[tf.Tensor, tf.Tensor]) -> list[tf.Tensor]:
        x, raw = arguments
        with tf.GradientTape() as tape:
            tape.watch([x, raw])
            spline = fvb.spline_from_raw(raw)
            y = spline.forward(x)
            loss = tf.reduce_sum(y**2) + tf.reduce_sum(spline.inverse_log_det_jacobian(y))
        return [y, *tape.gradient(loss, [x, raw])]

    compiled = tf.function(both, jit_compile=jit, autograph=False)
    unit = one_eps(both, arguments, rounds=4)
    assert_within(compiled(arguments), both(arguments), unit, n=2 * ROUNDINGS)


def test_tf_function_argument_and_copy():
    spline = fvb.spline_from_raw(raw_numbers(3, 11))
    x = raw_numbers(5, 3, seed=2)
    through = tf.function(lambda b, v: b.forward(v), autograph=False)
    allowed = ROUNDINGS * EPS * 4.0
    np.testing.assert_allclose(
        through(spline, x), spline.forward(tf.identity(x)), rtol=0.0, atol=allowed
    )
    assert isinstance(spline.copy(), fvb.RationalQuadraticSpline)
    assert spline.experimental_batch_shape(x_event_ndims=0) == (3,)


class Network(tf.Module):
    def __init__(self, size: int, points: int, bins: int, autoregressive: bool):
        super().__init__()
        self.kernel = tf.Variable(raw_numbers(size, points, 3 * bins - 1))
        mask = np.triu(np.ones((size, points)), 1) if autoregressive else np.ones((size, points))
        self.mask = mask[..., np.newaxis]

    def __call__(self, y: tf.Tensor, *units: int) -> tf.Tensor:
        return tf.einsum("...i,ijk->...jk", tf.sin(y), self.kernel * self.mask)


@pytest.mark.parametrize("kind", ["coupling", "autoregressive"])
def test_as_a_transformer(kind, log_det_of):
    bins = 4
    if kind == "coupling":
        net = Network(2, 3, bins, autoregressive=False)
        transform = fvb.SplineTransform(net, bins, bound=3.0)
        flow = fvb.Coupling(fvb.half_mask(5), bijector_fn=transform)
    else:
        net = Network(5, 5, bins, autoregressive=True)
        transform = fvb.SplineTransform(net, bins, bound=3.0)
        flow = fvb.ParallelMaskedAutoregressiveFlow(bijector_fn=transform)
    assert [v is net.kernel for v in flow.trainable_variables] == [True]
    x = raw_numbers(6, 5, seed=4)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = flow.forward(tf.identity(x))
    jacobian = tape.batch_jacobian(y, x).numpy()
    wanted, unit = log_det_of(jacobian)
    value, log_det = fvb.forward_and_log_det(flow, tf.identity(x))
    rounding = ROUNDINGS * EPS * 3.0
    np.testing.assert_allclose(value, y, rtol=0.0, atol=rounding)
    allowed = 5 * log_det_rounding(bins) + ROUNDINGS * unit  # of five entries
    assert np.all(np.abs(log_det - wanted) <= allowed)
    # The rounding of y, and of the way there, comes back multiplied by the inverse Jacobian.
    backwards = np.linalg.norm(np.linalg.inv(jacobian), np.inf, axis=(-2, -1))
    error = np.abs(flow.inverse(tf.identity(y)) - x)
    assert np.all(error <= (1.0 + backwards[:, np.newaxis]) * rounding)
    assert np.abs(y - x).max() > 0.1


def test_autoregressive_spline_is_tfps(one_eps, assert_within):
    net = Network(5, 5, 4, autoregressive=True)
    transform = fvb.SplineTransform(net, 4)
    ours = fvb.ParallelMaskedAutoregressiveFlow(bijector_fn=transform)
    theirs = tfb.MaskedAutoregressiveFlow(bijector_fn=transform)

    def evaluate(flow, arguments):
        x, kernel = arguments
        net.kernel.assign(kernel)
        with tf.GradientTape() as tape:
            y = flow.forward(tf.identity(x))
            loss = tf.reduce_sum(tf.sin(3 * y))
        return y, tape.gradient(loss, net.kernel)

    arguments = (raw_numbers(3, 5), tf.identity(net.kernel))
    unit = one_eps(lambda given: evaluate(theirs, given), arguments, rounds=4)
    # Five splines one after the other.
    found = (evaluate(flow, arguments) for flow in (ours, theirs))
    assert_within(*found, unit, n=5 * ROUNDINGS)


def test_flat_output_is_reshaped():
    net = Network(2, 3, 4, autoregressive=False)
    flat = lambda y, units: tf.reshape(net(y), [*y.shape[:-1], 33])  # noqa: E731
    y = raw_numbers(6, 2)
    a, b = (fvb.SplineTransform(fn, 4)(y, 3) for fn in (flat, net))
    x = raw_numbers(6, 3, seed=1)
    np.testing.assert_array_equal(a.forward(x), b.forward(tf.identity(x)))
    assert fvb.SplineTransform(net, 4).num_parameters == 11


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: fvb.spline_from_raw(tf.zeros([2, 12])), ValueError, r"\(2, 12\)"),
        (lambda: fvb.spline_from_raw(tf.zeros([])), ValueError, r"\(\)"),
        (lambda: fvb.spline_from_raw(tf.zeros([2, 11], tf.int32)), TypeError, "int32"),
        (lambda: fvb.spline_from_raw(tf.zeros([11]), bound=0.0), ValueError, "bound=0.0"),
        (lambda: fvb.spline_from_raw(tf.zeros([11]), min_bin_width=1.0), ValueError, "width=1.0"),
        (lambda: fvb.spline_from_raw(tf.zeros([11]), max_slope=1.0), ValueError, "max_slope=1.0"),
        (lambda: fvb.SplineTransform(lambda y: y, bins=0), ValueError, "bins=0"),
        (lambda: fvb.SplineTransform(lambda y: y, 4)(tf.zeros([2, 3])), ValueError, r"\(2, 3\)"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
