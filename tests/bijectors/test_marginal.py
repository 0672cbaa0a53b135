from __future__ import annotations

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from hypothesis import strategies as st
from scipy import stats

from tfp_flowvae.bijectors import MarginalInverseCDF, fit_marginals
from tfp_flowvae.testing import check_bijector

tfd = tfp.distributions


def increasing(*shape, seed=0, spread=0.7, dtype=np.float64):
    steps = np.exp(spread * np.random.default_rng(seed).standard_normal(shape))
    values = np.cumsum(steps, axis=-1)
    return tf.constant(values - values[..., values.shape[-1] // 2, None], dtype)


EPS = np.finfo(np.float64).eps
# Of numbers on the way through a bin: distances to two knots, fractions, the root or the quotient,
# products and a sum; there and back.
ROUNDINGS = 16


def test_it_passes_through_the_knots_and_is_smooth_there(rounding, assert_round_trip):
    knots, scores = increasing(2, 6), increasing(2, 6, seed=1)
    bijector = MarginalInverseCDF(knots, scores, validate_args=True)
    at_knots = bijector.forward(tf.transpose(scores))
    np.testing.assert_allclose(at_knots, tf.transpose(knots), **rounding(ROUNDINGS, knots))
    make = lambda given: MarginalInverseCDF(*given)  # noqa: E731
    assert_round_trip(make, (knots, scores), tf.transpose(scores), ROUNDINGS)
    step, sides, slopes = 1e-9, [], 0.0
    for sign in (-1.0, 1.0):
        with tf.GradientTape() as tape:
            point = tf.transpose(scores) + sign * step
            tape.watch(point)
            sides.append(bijector.forward_log_det_jacobian(point))
        slopes += np.sum(np.abs(tape.gradient(sides[-1], point)), axis=-1)
    # A log-slope takes the distance to a knot in units of the bin's width.
    shortest = min(np.min(np.diff(part)) for part in (knots, scores))
    largest = max(np.max(np.abs(part)) for part in (knots, scores))
    noise = ROUNDINGS * EPS * (slopes + 1.0) * largest / shortest
    assert np.all(np.abs(sides[0] - sides[1]) <= step * slopes + noise)


def test_a_quadratic_is_met_to_second_order():
    # dz/dx at the knots is that of a parabola, and so exact where z is one.
    errors = []
    for count in (17, 33):
        x = np.linspace(1.0, 2.0, count)
        bijector = MarginalInverseCDF(x[np.newaxis], np.square(x)[np.newaxis])
        inner = np.linspace(1.2, 1.8, 101)[:, np.newaxis]
        got = bijector.inverse_log_det_jacobian(inner).numpy()
        errors.append(np.max(np.abs(got - np.log(2 * inner[:, 0]))))
    assert errors[0] < (1.0 / 16.0) ** 2  # the square of the distance between knots
    assert errors[1] < errors[0] / 4.0  # of second order at least


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_tails_are_gaussian_and_exact_in_float32(side):
    knots, scores = increasing(1, 5, dtype=np.float32), increasing(1, 5, seed=1, dtype=np.float32)
    bijector = MarginalInverseCDF(knots, scores)
    wide = MarginalInverseCDF(tf.cast(knots, tf.float64), tf.cast(scores, tf.float64))
    z = side * tf.constant([[10.0], [37.0], [1e4], [1e15]])
    x, log_det = bijector.forward_and_log_det(z)
    x64, log_det64 = wide.forward_and_log_det(tf.cast(z, tf.float64))
    eps = np.finfo(np.float32).eps
    # Two differences of knots, their quotient, a distance, a product and a sum, rounded once each.
    np.testing.assert_allclose(x, x64, rtol=6 * eps)
    np.testing.assert_allclose(log_det, log_det64, rtol=eps, atol=6 * eps)
    np.testing.assert_allclose(bijector.inverse(tf.identity(x)), z, rtol=12 * eps)
    # By hand: a straight line through the two outermost knots.
    i, j = (0, 1) if side < 0 else (-1, -2)
    slope = (knots[0, i] - knots[0, j]) / (scores[0, i] - scores[0, j])
    np.testing.assert_allclose(x, knots[0, i] + slope * (z - scores[0, i]), rtol=12 * eps)
    model = tfd.TransformedDistribution(tfd.MultivariateNormalDiag(tf.zeros([1])), bijector)
    location = knots[0, i] - slope * scores[0, i]
    near = x[:2]
    wanted = tfd.Normal(location, slope).log_prob(near[:, 0])
    # The square of a number that either way gives to 12 eps, and four operations more.
    np.testing.assert_allclose(model.log_prob(near), wanted, rtol=2 * (2 * 12 + 4) * eps)


@hypothesis.settings(max_examples=25, deadline=None, derandomize=True)
@hypothesis.given(
    seed=st.integers(0, 2**16),
    spread=st.sampled_from([0.0, 1.0, 3.0]),
    count=st.integers(2, 9),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_extreme_knots(seed, spread, count, dtype):
    knots = increasing(2, count, seed=seed, spread=spread, dtype=dtype)
    scores = increasing(2, count, seed=seed + 1, spread=spread, dtype=dtype)
    bijector = MarginalInverseCDF(knots, scores)
    z = np.linspace(-1.2, 1.2, 41)[:, np.newaxis] * np.max(np.abs(scores), axis=-1)
    z = tf.constant(z, dtype)
    x, log_det = bijector.forward_and_log_det(z)
    assert np.all(np.diff(x, axis=0) > 0)
    # In terms of the round trip's own error: x moves by its rounding, z by that over the slope.
    back, back_log_det = bijector.inverse_and_log_det(tf.identity(x))
    again, again_log_det = bijector.forward_and_log_det(tf.identity(back))
    eps = np.finfo(dtype).eps
    with tf.GradientTape() as tape:
        tape.watch(back)
        image = bijector.forward(tf.identity(back))
    slope = tape.gradient(image, back)
    size = np.max(np.abs(knots)) + np.abs(x) + slope * (np.max(np.abs(scores)) + np.abs(z))
    assert np.all(np.abs(again - x) <= ROUNDINGS * eps * size)
    # The log-det is the same from either side. Per fraction of the width of a bin a log-slope
    # changes by up to six times the ratio of neighbouring slopes.
    logs = np.log(np.diff(np.float64(knots)) / np.diff(np.float64(scores)))
    change = 6.0 * np.exp(np.max(np.abs(np.diff(logs, axis=-1)), initial=0.0))
    fraction = max(
        (np.max(np.abs(part)) + np.max(np.abs(point))) / np.min(np.diff(part))
        for part, point in ((knots, x), (scores, z))
    )
    allowed = ROUNDINGS * eps * (1.0 + change * fraction)
    assert np.all(np.abs(back_log_det + again_log_det) <= allowed)
    assert np.all(np.isfinite(log_det))


NEAR = {  # knots and scores
    "knots, one pair": ([-1.0, 0.0, 1e-20, 1.0], [-1.0, 0.0, 1.0, 2.0]),
    "knots, all": ([0.0, 1e-20, 2e-20, 3e-20], [-1.0, 0.0, 1.0, 2.0]),
    "scores, one pair": ([-1.0, 0.0, 1.0, 2.0], [-1.0, 0.0, 1e-20, 1.0]),
    "scores, all": ([-1.0, 0.0, 1.0, 2.0], [0.0, 1e-20, 2e-20, 4e-20]),
    "both": ([-1.0, 0.0, 1e-20, 1.0], [-1.0, 0.0, 1e-20, 1.0]),
    "far apart": ([-1e20, 0.0, 1e20, 3e20], [-1.0, 0.0, 1.0, 2.0]),
}


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("name", NEAR)
def test_gradients_where_knots_are_1e20_apart_or_1e_minus_20(name, direction):
    """In float32 against float64, at the knots, in every bin and beyond."""
    knots, scores = (np.float32([part]) for part in NEAR[name])
    edges = (scores if direction == "forward" else knots)[0].astype(np.float64)
    length = edges[-1] - edges[0]
    points = [*edges, *(0.3 * edges[:-1] + 0.7 * edges[1:]), edges[0] - length, edges[-1] + length]
    # Slopes are exponentials of logarithms of up to log(1e20).
    allowed = (8 + np.log(1e20)) * np.finfo(np.float32).eps
    steps = [np.diff(part.astype(np.float64)) for part in (knots, scores)]
    nearest = [
        1.0 / np.minimum([*step[:1], *step], [*step, *step[-1:]]) for step in map(np.ravel, steps)
    ]

    def gradients(point, dtype):
        arguments = [tf.constant(part, dtype) for part in (knots, scores, [point])]
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(arguments)
            bijector = MarginalInverseCDF(*arguments[:2])
            image, log_det = getattr(bijector, f"{direction}_and_log_det")(arguments[2])
        found = [tape.gradient(target, arguments) for target in (image, log_det)]
        return [[np.ravel(part) for part in parts] for parts in found]

    checked = 0
    for point in np.float32(points):
        exact = gradients(point, np.float64)
        if max(np.max(np.abs(part)) for parts in exact for part in parts) > 1e38:
            continue  # no float32 number
        checked += 1
        found = gradients(point, np.float32)
        for got, wanted in zip(found[0], exact[0], strict=True):
            assert np.all(np.abs(got - wanted) <= allowed * np.max(np.abs(wanted)))
        # One eps of a step's length is that much of its logarithm, and of the log-det.
        sizes = [*nearest, np.max(nearest[direction == "forward"])]
        for got, wanted, size in zip(found[1], exact[1], sizes, strict=True):
            size = np.maximum(size, np.max(np.abs(wanted)))
            assert np.all(np.abs(got - wanted) <= allowed * size)
    assert checked >= len(points) - 2


def test_batches_make_trainable_and_composite(rounding):
    bijector = MarginalInverseCDF(increasing(4, 1, 3, 5), increasing(2, 3, 5, seed=1))
    assert bijector.experimental_batch_shape() == [4, 2]
    x = tf.constant(np.random.default_rng(0).standard_normal((6, 1, 2, 3)))
    y, log_det = bijector.forward_and_log_det(x)
    assert y.shape == [6, 4, 2, 3]
    assert log_det.shape == [6, 4, 2]
    part = MarginalInverseCDF(bijector.knots[3, 0], bijector.scores[1])
    allowed = rounding(ROUNDINGS, y, bijector.knots)
    for own in (part, bijector[3, 1]):
        np.testing.assert_allclose(own.forward(x[:, 0, 1]), y[:, 3, 1], **allowed)
    np.testing.assert_allclose(tf.function(lambda b: b.forward(x))(bijector), y, **allowed)
    made = tfp.experimental.util.make_trainable(
        MarginalInverseCDF, batch_and_event_shape=[3], validate_args=True
    )
    assert len(made.trainable_variables) == 2
    assert np.all(np.isfinite(made.forward(tf.zeros([3]))))


COLUMNS = {
    "normal": stats.norm(3.0, 2.0),
    "bimodal": None,
    "exponential": stats.expon(),
    "uniform": stats.uniform(),
    "cauchy": stats.cauchy(),
    "far": stats.norm(1e4, 1.0),
}


def sample(name, count, seed):
    rng = np.random.default_rng(seed)
    if name == "bimodal":
        return np.where(rng.random(count) < 0.3, -4.0, 2.0) + 0.5 * rng.standard_normal(count)
    return COLUMNS[name].rvs(count, random_state=rng)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fit_gaussianises_new_data(dtype):
    train, test = (
        np.stack([sample(name, 4000, seed) for name in COLUMNS], axis=-1).astype(dtype)
        for seed in (0, 1)
    )
    bijector = fit_marginals(train, num_knots=48, smoothing=0.5)
    assert bijector.dtype == dtype
    z = bijector.inverse(test).numpy().astype(np.float64)
    for i, name in enumerate(COLUMNS):
        # Against the 1 / 1000 quantile of the statistic for two samples, train and test.
        distance = stats.kstest(z[:, i], "norm").statistic
        assert distance < 1.95 * np.sqrt(2 / 4000), name
    inverse = tf.identity(bijector.inverse(test))
    with tf.GradientTape() as tape:
        tape.watch(inverse)
        back = bijector.forward(tf.identity(inverse))
    slope = tape.gradient(back, inverse)
    sizes = [np.max(np.abs(part), axis=-1) for part in (bijector.knots, bijector.scores)]
    size = sizes[0] + np.abs(test) + slope * (sizes[1] + np.abs(inverse))
    assert np.all(np.abs(back - test) <= ROUNDINGS * np.finfo(dtype).eps * size)


def test_fitted_density_is_near_the_true_one(trapezoid):
    train, test = (sample("bimodal", 5000, seed)[:, np.newaxis] for seed in (0, 1))
    model = tfd.TransformedDistribution(
        tfd.MultivariateNormalDiag(tf.zeros([1], tf.float64)), fit_marginals(train, smoothing=0.5)
    )
    parts = [0.3 * stats.norm.pdf(test, -4, 0.5), 0.7 * stats.norm.pdf(test, 2, 0.5)]
    loss = np.log(sum(parts))[:, 0] - model.log_prob(test).numpy()
    # On average the true density is the better one. The fit pays for each of its 32 slopes half a
    # nat in N, and for smoothing, here, as much again.
    error = 5 * np.std(loss) / np.sqrt(5000)
    assert -error < np.mean(loss) < 2 * 32 / (2 * 5000) + error
    grid = np.linspace(-12.0, 12.0, 20_001)
    density = np.exp(model.log_prob(grid[:, np.newaxis]))
    total, error = trapezoid(density, grid)
    low, high = stats.norm.cdf(model.bijector.inverse(grid[[0, -1], np.newaxis])[:, 0])
    assert abs(total - (high - low)) <= error


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_outliers_and_few_points(dtype):
    rng = np.random.default_rng(0)
    data = np.stack(
        [
            np.where(np.arange(200) < 190, 0.0, 1.0),  # nearly all tied
            rng.integers(0, 3, 200),
            np.where(np.arange(200) == 7, 1e8, rng.standard_normal(200)),
            1e6 + np.arange(200) % 2,
        ],
        axis=-1,
    ).astype(dtype)
    for part in (data, np.concatenate([data[:5], data[5:8], data[-2:]])):
        bijector = fit_marginals(part)
        checked = MarginalInverseCDF(bijector.knots, bijector.scores, validate_args=True)
        z, log_det = checked.inverse_and_log_det(part)
        assert np.all(np.isfinite(z))
        assert np.all(np.isfinite(log_det))
        assert np.max(np.abs(z)) < 20


def test_fitted_bijector_has_every_property():
    data = np.stack([sample(name, 100, 0) for name in ("normal", "bimodal")], axis=-1)
    check_bijector(fit_marginals(data, num_knots=6), data[:3] / 5, skip=("xla", "saved_model"))


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, r"knots\.shape=\(3, 1\)", (np.zeros((3, 1)), np.zeros((3, 1)))),
        (ValueError, r"scores\.shape=\(3, 4\)", (np.zeros((3, 5)), np.zeros((3, 4)))),
        (ValueError, r"knots\.shape=\(5,\)", (np.zeros(5), np.zeros(5))),
        (TypeError, "int64", (np.zeros((2, 3), np.int64), np.zeros((2, 3), np.int64))),
        (
            ValueError,
            r"increasing knots. Received: .* 0\.0",
            (np.zeros((1, 2)), [[0.0, 1.0]], True),
        ),
        (ValueError, "holding inf", ([[0.0, 1.0]], [[0.0, np.inf]], True)),
    ],
)
def test_errors(error, message, arguments):
    with pytest.raises(error, match=message):
        MarginalInverseCDF(*arguments)


def test_a_variable_is_checked_at_each_use():
    knots = tf.Variable([[0.0, 1.0]])
    bijector = MarginalInverseCDF(knots, [[0.0, 1.0]], validate_args=True)
    knots.assign([[1.0, 0.0]])
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match="increasing knots"):
        bijector.forward([0.5])


GOOD = np.random.default_rng(0).standard_normal((20, 2))


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "int64", {"x": np.zeros((20, 2), np.int64)}),
        (ValueError, r"shape \(20,\)", {"x": GOOD[:, 0]}),
        (ValueError, r"shape \(7, 2\)", {"x": GOOD[:7]}),
        (ValueError, "nan", {"x": np.where(GOOD > 1, np.nan, GOOD)}),
        (ValueError, r"column 1 with all values 1\.0", {"x": GOOD * [1, 0] + [0, 1]}),
        (ValueError, "num_knots=3", {"x": GOOD, "num_knots": 3}),
        (ValueError, "smoothing=0", {"x": GOOD, "smoothing": 0}),
    ],
)
def test_fit_errors(error, message, arguments):
    with pytest.raises(error, match=message):
        fit_marginals(**arguments)
