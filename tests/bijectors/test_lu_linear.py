"""LULinear against matrices multiplied out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from numpy.testing import assert_allclose, assert_array_equal

from tfp_flowvae import bijectors as fvb

tfb, tfd = tfp.bijectors, tfp.distributions

D = 4
ROUNDINGS = 2 * (2 * D + 2)  # two products with sums of D terms, there and back
ORDERS = np.array([[2, 0, 3, 1], [1, 0, 2, 3]])
SIGNS = np.array([1.0, -1.0, 1.0, -1.0])


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def arrays(batch=()):
    shapes = {"lower": (D, D), "log_diag": (D,), "upper": (D, D), "shift": (D,)}
    return {k: numbers(*batch, *shape) for k, shape in shapes.items()}


def fresh(x):
    """The same numbers, unknown to TFP's cache."""
    return tf.constant(np.asarray(x))


def evaluate(given):
    """Value and log-det of both directions, for parameters and points."""
    parameters, x = given
    linear = fvb.LULinear(**parameters, permutation=ORDERS[0], sign=SIGNS)
    return (*linear.forward_and_log_det(x), *linear.inverse_and_log_det(fresh(x)))


def dense(parameters, order, sign):
    """W, `[D, D]`."""
    lower = np.tril(parameters["lower"], -1) + np.eye(D)
    upper = np.triu(parameters["upper"], 1) + np.diag(sign * np.exp(parameters["log_diag"]))
    return np.eye(D)[order] @ lower @ upper


def test_is_the_product_of_its_factors(assert_same):
    def formula(given):
        parameters, x = tf.nest.map_structure(np.asarray, given)
        matrix, shift = dense(parameters, ORDERS[0], SIGNS), parameters["shift"]
        log_det = np.full(5, np.linalg.slogdet(matrix)[1])
        solved = np.linalg.solve(matrix, (x - shift).T).T
        return x @ matrix.T + shift, log_det, solved, -log_det

    assert_same(evaluate, formula, (arrays(), numbers(5, D)), ROUNDINGS)


def test_batches_of_everything_broadcast(assert_round_trip, assert_same):
    parameters = arrays((2,))
    parameters["upper"] = parameters["upper"][0]
    make = lambda given: fvb.LULinear(**given, permutation=ORDERS, sign=SIGNS)  # noqa: E731
    x = numbers(3, 2, D)

    def formula(given):
        parameters, x = tf.nest.map_structure(np.asarray, given)
        members = [
            {k: v if k == "upper" else v[i] for k, v in parameters.items()} for i in range(2)
        ]
        images = [
            x[:, i] @ dense(member, ORDERS[i], SIGNS).T + member["shift"]
            for i, member in enumerate(members)
        ]
        return np.stack(images, axis=1)

    assert make(parameters).forward_and_log_det(x)[1].shape == (3, 2)
    ours = lambda given: make(given[0]).forward(given[1])  # noqa: E731
    assert_same(ours, formula, (parameters, x), ROUNDINGS)
    assert_round_trip(make, parameters, x, ROUNDINGS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_zeros_are_the_identity(dtype):
    zeros = np.zeros([D, D], dtype)
    x = numbers(2, D).astype(dtype)
    y, log_det = fvb.LULinear(zeros, zeros[0], zeros).forward_and_log_det(x)
    assert y.dtype == dtype
    assert_array_equal(y, x)
    assert_array_equal(log_det, np.zeros(2))


def test_channels_of_an_image(rounding):
    linear = fvb.LULinear(**arrays())
    image = numbers(2, 3, 5, D)
    log_det = linear.forward_log_det_jacobian(image, event_ndims=3)
    log_diag = arrays()["log_diag"]
    allowed = rounding(15 * D, 15 * np.abs(log_diag).sum())  # a sum of 15 D terms
    assert_allclose(log_det, np.full(2, 15 * log_diag.sum()), **allowed)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_from_matrix_is_that_matrix(batch, assert_same):
    matrix = numbers(*batch, D, D)
    linear = fvb.LULinear.from_matrix(matrix, validate_args=True)
    x = numbers(*batch, D)

    def formula(given):
        matrix, x = map(np.asarray, given)
        return np.einsum("...ij,...j->...i", matrix, x), np.linalg.slogdet(matrix)[1]

    def ours(given):
        return fvb.LULinear.from_matrix(given[0]).forward_and_log_det(given[1])

    # Elimination with pivots may make the entries 2^(D-1) times as large as they were.
    assert_same(ours, formula, (matrix, x), 2 ** (D - 1) * ROUNDINGS)
    trainable = linear.copy(lower=tf.Variable(linear.lower))
    assert len(trainable.trainable_variables) == 1
    assert_array_equal(trainable.forward(x), linear.forward(x))


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_gradients_are_those_of_differences(direction, assert_slope):
    values = {"x": numbers(2, D), **arrays()}

    def loss(values):
        parameters = {k: v for k, v in values.items() if k != "x"}
        linear = fvb.LULinear(**parameters, permutation=ORDERS, sign=SIGNS)
        image, log_det = getattr(linear, f"{direction}_and_log_det")(values["x"])
        return tf.reduce_sum(image * numbers(2, D, seed=1)) + tf.reduce_sum(log_det**2)

    tensors = {k: tf.constant(v) for k, v in values.items()}
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = loss(tensors)
    for name, gradient in tape.gradient(total, tensors).items():
        way = numbers(*values[name].shape, seed=2)

        def moved(step, name=name, way=way):
            return loss(values | {name: values[name] + step * way})

        assert_slope(np.sum(gradient * way), moved, (2 * D + 2) * ROUNDINGS)  # of so many terms


def test_xla_and_graphs_of_unknown_batch_agree_with_eager(assert_same):
    parameters = {k: tf.constant(v) for k, v in arrays((2,)).items()}
    x = tf.constant(numbers(3, 2, D))

    def evaluate(given):
        x, parameters = given
        with tf.GradientTape() as tape:
            tape.watch([x, parameters])
            linear = fvb.LULinear(**parameters, permutation=ORDERS)
            y, log_det = linear.forward_and_log_det(x)
            back, _ = linear.inverse_and_log_det(x)
            loss = tf.reduce_sum(y * back) + tf.reduce_sum(log_det)
        return y, back, log_det, tape.gradient(loss, [x, parameters])

    specs = {k: tf.TensorSpec(v.shape, v.dtype) for k, v in parameters.items()}
    loose = [(tf.TensorSpec([None, None, D], tf.float64), specs)]
    for function in (
        tf.function(evaluate, jit_compile=True),
        tf.function(evaluate, input_signature=loose),
    ):
        assert_same(function, evaluate, (x, parameters), 2 * ROUNDINGS)  # and their gradients


def test_batch_shape_slicing_and_variables(assert_same):
    variables = {k: tf.Variable(v) for k, v in arrays((3, 2)).items()}
    linear = fvb.LULinear(**variables, permutation=tf.constant(ORDERS))
    assert linear.experimental_batch_shape() == (3, 2)
    base = tfd.MultivariateNormalDiag(tf.zeros([3, 2, D], tf.float64))
    nested = tfd.TransformedDistribution(base, tfb.Chain([tfb.Invert(linear)]))
    assert len(nested.trainable_variables) == 4
    x = fresh(numbers(2, D))
    part = linear[1]
    assert_same(part.forward, lambda x: linear.forward(x)[1], x, ROUNDINGS)
    before = linear.forward(fresh(x)).numpy()
    variables["log_diag"].assign_add(tf.ones_like(variables["log_diag"]))
    assert np.all(linear.forward(fresh(x)) != before)


def test_two_instances_share_one_trace(assert_same):
    traces = []

    @tf.function
    def forward(linear, x):
        traces.append(linear)
        return linear.forward(x)

    x = numbers(2, D)
    for order in ORDERS:
        linear = fvb.LULinear(**arrays(), permutation=order, validate_args=True)
        assert_same(
            lambda x, own=linear: forward(own, x), linear.forward, tf.constant(x), ROUNDINGS
        )
    assert len(traces) == 1


def zeros(*shape):
    return tf.zeros(shape)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: fvb.LULinear(zeros(2, 2), zeros(3), zeros(2, 2)),
            ValueError,
            r"D is 2 and, in log_diag, 3\. Received: lower\.shape=\(2, 2\)",
        ),
        (
            lambda: fvb.LULinear(zeros(2, 3), zeros(3), zeros(3, 3)),
            ValueError,
            r"Received: lower\.shape=\(2, 3\)",
        ),
        (
            lambda: fvb.LULinear(zeros(2, 2), zeros(2), zeros(2, 2), shift=np.zeros(2)),
            TypeError,
            r"Received: .*shift\.dtype=float64",
        ),
        (
            lambda: fvb.LULinear(zeros(2, 2), zeros(2), zeros(2, 2), permutation=[0, 0]),
            ValueError,
            r"Received: permutation=\[0, 0\]\.",
        ),
        (
            lambda: fvb.LULinear(zeros(2, 2), [np.inf, 0.0], zeros(2, 2), validate_args=True),
            ValueError,
            r"Received: log_diag holding inf\.",
        ),
        (
            lambda: fvb.LULinear.from_matrix(zeros(2, 2)),
            ValueError,
            r"an invertible matrix\. Received: a singular one of shape \(2, 2\)\.",
        ),
        (
            lambda: fvb.LULinear(zeros(2, 2), zeros(2), zeros(2, 2)).inverse([1.0, 2.0, 3.0]),
            ValueError,
            r"shape \[\.\.\., 2\]\. Received: shape \(3,\)\.",
        ),
    ],
)
def test_errors_name_what_was_received(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
