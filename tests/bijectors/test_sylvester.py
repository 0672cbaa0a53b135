"""Sylvester flows against the paper's formulas in NumPy, automatic Jacobians and differences."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from numpy.testing import assert_allclose, assert_array_equal

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.bijectors.internal.orthonormal import orthonormal_columns

tfb, tfd = tfp.bijectors, tfp.distributions

D, M, K = 4, 2, 3
# Products with Q, R~, R and Q^T are sums of D terms, those with K mirrors too, and there are twenty
# operations more; the inverse and derivatives do as much again.
ROUNDINGS = (4 + 2 * K) * D + 20
EVENTS = {
    "orthogonal": {"q": (D, M), "r": (M, M), "r_tilde": (M, M), "b": (M,)},
    "householder": {"v": (K, D), "r": (D, D), "r_tilde": (D, D), "b": (D,)},
    "triangular": {"r": (D, D), "r_tilde": (D, D), "b": (D,)},
}
CLASSES = {
    "orthogonal": fvb.OrthogonalSylvester,
    "householder": fvb.HouseholderSylvester,
    "triangular": fvb.TriangularSylvester,
}
ORDER = [2, 0, 3, 1]
EVERY = pytest.mark.parametrize("kind", list(CLASSES))
MODES = [
    *(pytest.param(kind, False, id=f"{kind}-graph") for kind in CLASSES),
    pytest.param("orthogonal", True, id="orthogonal-xla"),  # the one with a decomposition
    *(
        pytest.param(kind, True, marks=pytest.mark.slow, id=f"{kind}-xla")
        for kind in ("householder", "triangular")
    ),
]


def numbers(*shape, seed=0, scale=1.0):
    return scale * np.random.default_rng([seed, *shape]).standard_normal(shape)


def arrays(kind, batch=(), scale=1.0):
    return {k: numbers(*batch, *shape, scale=scale) for k, shape in EVENTS[kind].items()}


def build(kind, parameters, **kwargs):
    if kind == "triangular":
        kwargs = {"permutation": ORDER} | kwargs
    return CLASSES[kind](**parameters, **kwargs)


def fresh(x):
    """The same numbers, unknown to TFP's cache."""
    return tf.constant(np.asarray(x))


def frame(kind, parameters):
    """Q in NumPy, `[D, M]`."""
    if kind == "triangular":
        return np.eye(D)[:, ORDER]
    if kind == "householder":
        q = np.eye(D)
        for v in parameters["v"]:
            q = (np.eye(D) - 2.0 * np.outer(v, v) / (v @ v)) @ q
        return q
    q, r = np.linalg.qr(np.eye(D, M) + parameters["q"])
    return q * np.sign(np.diag(r))


@EVERY
@pytest.mark.parametrize("activation", ["tanh", "isru"])
def test_forward_is_the_papers_formula(kind, activation, assert_same):
    def ours(given):
        flow = build(kind, given[0], activation=activation)
        return flow.constrained_r(), flow.constrained_r_tilde(), flow.forward(given[1])

    def formula(given):
        return papers_formula(kind, activation, *tf.nest.map_structure(np.asarray, given))

    assert_same(ours, formula, (arrays(kind), numbers(5, D)), ROUNDINGS)


def papers_formula(kind, activation, parameters, z):
    raw, raw_tilde = np.diag(parameters["r"]), np.diag(parameters["r_tilde"])
    inner = np.log1p((np.e - 1.0) * np.exp(raw_tilde))
    outer = (np.log1p((np.e - 1.0) * np.exp(raw * inner)) - 1.0) / inner
    r, r_tilde = np.triu(parameters["r"], 1), np.triu(parameters["r_tilde"], 1)
    r, r_tilde = r + np.diag(outer), r_tilde + np.diag(inner)
    q = frame(kind, parameters)
    h = {"tanh": np.tanh, "isru": lambda t: t / np.sqrt(1.0 + t**2)}[activation]
    return r, r_tilde, z + h(z @ (r_tilde @ q.T).T + parameters["b"]) @ (q @ r).T


@EVERY
def test_log_dets_are_those_of_automatic_jacobians(kind, assert_log_dets):
    assert_log_dets(build(kind, arrays(kind, scale=2.0)), numbers(1, D), 2 * ROUNDINGS)


@EVERY
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_round_trips_with_batches(kind, dtype, assert_round_trip):
    parameters = {k: v.astype(dtype) for k, v in arrays(kind, (2,)).items()}
    parameters["b"] = parameters["b"][0]  # broadcasts against the others
    flow = build(kind, parameters)
    z = numbers(3, 2, D).astype(dtype)
    y, log_det = flow.forward_and_log_det(z)
    x, inverse_log_det = flow.inverse_and_log_det(fresh(y))
    assert y.dtype == x.dtype == log_det.dtype == dtype
    assert log_det.shape == inverse_log_det.shape == (3, 2)
    assert_round_trip(lambda given: build(kind, given), parameters, z, 2 * ROUNDINGS)
    inverted = lambda given: tfb.Invert(build(kind, given))  # noqa: E731
    assert_round_trip(inverted, parameters, z, 2 * ROUNDINGS)


@EVERY
def test_zeros_are_the_identity_with_a_gradient_in_r(kind):
    zeros = {k: tf.zeros(shape, tf.float64) for k, shape in EVENTS[kind].items()}
    z = tf.constant(numbers(3, D))
    with tf.GradientTape() as tape:
        tape.watch(zeros["r"])
        y, log_det = build(kind, zeros).forward_and_log_det(z)
        loss = tf.reduce_sum(y * numbers(3, D, seed=1))
    assert_array_equal(y, z)
    # Each of D terms as in `test_planar.py`: s, both terms of s h' + (1 - h') and their sum.
    assert_allclose(log_det, np.zeros(3), atol=4 * D * np.finfo(np.float64).eps)
    gradient = tape.gradient(loss, zeros["r"]).numpy()
    assert np.all(gradient[np.triu_indices(gradient.shape[-1])] != 0.0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_constraint_holds_for_every_raw_diagonal(dtype):
    grid = np.array([-1e4, -300.0, -9.0, -1.0, -1e-9, 0.0, 1e-9, 1.0, 9.0, 300.0, 1e4], dtype)
    raw, raw_tilde = (part.reshape(-1, 1, 1) for part in np.meshgrid(grid, grid))
    flow = fvb.TriangularSylvester(raw, raw_tilde, np.zeros([1], dtype))
    r, r_tilde = flow.constrained_r().numpy(), flow.constrained_r_tilde().numpy()
    assert np.isfinite(r).all()
    assert np.isfinite(r_tilde).all()
    assert (r_tilde >= 0.0).all()
    assert (r * r_tilde >= -1.0).all()
    y, log_det = flow.forward_and_log_det(np.array([0.3], dtype))
    assert np.isfinite(y).all()
    assert np.isfinite(log_det).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("slope", [1e-6, 1e6])
def test_backward_error_stays_small_at_extreme_slopes(dtype, slope):
    raw = (np.log(np.expm1(slope)) if slope < 1.0 else slope) - np.log(np.e - 1.0)
    strict = np.triu(numbers(3, 3), 1)
    parameters = (raw * np.eye(3) + strict, strict, numbers(3))
    flow = fvb.TriangularSylvester(*(p.astype(dtype) for p in parameters))
    eps = np.finfo(dtype).eps
    # Where R~ x + b = 0, and each slope the steepest.
    centre = np.linalg.solve(flow.constrained_r_tilde(), -flow.b).astype(dtype)
    at_b = flow.forward_log_det_jacobian(centre)
    # One eps of the raw number is that many of a slope that is its exponential.
    assert_allclose(at_b, 3 * np.log(slope), rtol=0.0, atol=3 * (abs(raw) + 4) * eps)
    y = numbers(50, 3, seed=3).astype(dtype)
    x = flow.inverse(y).numpy()
    # What f itself loses: the rounding of R~ x + b, times R.
    allowed = (3 + 20) * np.finfo(dtype).eps * max(slope, 1.0)
    assert_allclose(flow.forward(fresh(x)), y, rtol=0, atol=allowed)


@EVERY
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_gradients_are_those_of_differences(kind, direction, assert_slope):
    parameters = arrays(kind)
    values = {"z": numbers(2, D), **parameters}

    def loss(values):
        flow = build(kind, {k: values[k] for k in parameters})
        image, log_det = getattr(flow, f"{direction}_and_log_det")(values["z"])
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


def test_second_derivatives_of_the_inverse_are_those_of_differences(assert_slope):
    parameters = arrays("orthogonal")
    way = {k: tf.constant(numbers(*v.shape, seed=2)) for k, v in parameters.items()}
    y = tf.constant(numbers(2, D))

    def slope(values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            x, log_det = fvb.OrthogonalSylvester(**values).inverse_and_log_det(y)
            loss = tf.reduce_sum(x**2) + tf.reduce_sum(log_det)
        gradients = tape.gradient(loss, values)
        return sum(tf.reduce_sum(gradients[k] * way[k]) for k in values)

    tensors = {k: tf.constant(v) for k, v in parameters.items()}
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        total = slope(tensors)
    found = tape.gradient(total, tensors)
    second = sum(float(tf.reduce_sum(found[k] * way[k])) for k in found)
    moved = lambda step: slope({k: tensors[k] + step * way[k] for k in tensors})  # noqa: E731
    assert_slope(second, moved, 2 * (2 * D + 2) * ROUNDINGS)


@pytest.mark.parametrize("matrix", [np.zeros([3, 2]), np.ones([3, 2]), 1e30 * np.ones([3, 1])])
def test_dependent_columns_have_an_orthonormal_factor_and_no_nan(matrix, rounding):
    matrix = tf.constant(matrix)
    with tf.GradientTape() as tape:
        tape.watch(matrix)
        q = orthonormal_columns(matrix)
        loss = tf.reduce_sum(q * numbers(*matrix.shape))
    inner = tf.matmul(q, q, transpose_a=True)
    # Two sums of three terms for each entry in each of two reflections, and one in `inner`.
    assert_allclose(inner, np.eye(matrix.shape[-1]), **rounding((2 * 2 * 2 + 1) * 3, 1.0))
    gradient = tape.gradient(loss, matrix).numpy()
    assert np.isfinite(gradient).all()
    assert (gradient != 0.0).any() == (matrix.shape[-1] == 1)


def test_orthonormal_factor_with_unknown_shapes(assert_same, assert_slope):
    @tf.function(input_signature=[tf.TensorSpec(None, tf.float64)])
    def value_and_gradient(matrix):
        with tf.GradientTape() as tape:
            tape.watch(matrix)
            q = orthonormal_columns(matrix)
            loss = tf.reduce_sum(tf.sin(q) * q)
        return q, loss, tape.gradient(loss, matrix)

    matrix, way = numbers(2, 5, 3), numbers(2, 5, 3, seed=1)

    def in_numpy(matrix):
        q, r = np.linalg.qr(np.asarray(matrix))
        return q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[:, None]

    n = 2 * 2 * 3 * 5  # two sums of five terms for each entry in each of three reflections
    assert_same(lambda matrix: value_and_gradient(matrix)[0], in_numpy, matrix, n)
    gradient = value_and_gradient(matrix)[2]
    moved = lambda step: value_and_gradient(matrix + step * way)[1]  # noqa: E731
    assert_slope(np.sum(gradient * way), moved, 2 * 5 * 3 * n)  # a sum over all entries


@pytest.mark.parametrize(("kind", "compiled"), MODES)
def test_graphs_of_unknown_batch_and_xla_agree_with_eager(kind, compiled, assert_same):
    parameters = {k: tf.constant(v) for k, v in arrays(kind, (2,)).items()}
    z = tf.constant(numbers(3, 2, D))

    def evaluate(given):
        z, parameters = given
        with tf.GradientTape() as tape:
            tape.watch([z, parameters])
            flow = build(kind, parameters)
            y, log_det = flow.forward_and_log_det(z)
            x, inverse_log_det = flow.inverse_and_log_det(z)
            loss = tf.reduce_sum(x * y) + tf.reduce_sum(inverse_log_det * log_det)
        return y, x, log_det, inverse_log_det, tape.gradient(loss, [z, parameters])

    if compiled:
        function = tf.function(evaluate, jit_compile=True)
    else:
        specs = {k: tf.TensorSpec(v.shape, v.dtype) for k, v in parameters.items()}
        loose = [(tf.TensorSpec([None, None, D], tf.float64), specs)]
        function = tf.function(evaluate, input_signature=loose)
    assert_same(function, evaluate, (z, parameters), 2 * ROUNDINGS)


@EVERY
def test_batch_shape_slicing_and_variables(kind, assert_same):
    flow = build(kind, {k: tf.Variable(v) for k, v in arrays(kind, (3, 2)).items()})
    assert flow.experimental_batch_shape() == (3, 2)
    assert len(flow.trainable_variables) == len(EVENTS[kind])
    base = tfd.MultivariateNormalDiag(tf.zeros([3, 2, D], tf.float64))
    nested = tfd.TransformedDistribution(base, tfb.Chain([tfb.Invert(flow)]))
    assert len(nested.trainable_variables) == len(EVENTS[kind])
    part, z = flow[1], fresh(numbers(2, D))
    assert part.experimental_batch_shape() == (2,)
    assert_same(part.forward, lambda z: flow.forward(z)[1], z, ROUNDINGS)
    other = flow.copy(b=np.zeros_like(flow.b))
    assert_array_equal(other.b, np.zeros_like(flow.b))
    before = flow.forward(fresh(z)).numpy()
    flow.r.assign(flow.r + 1.0)
    assert np.all(flow.forward(fresh(z)) != before)


@EVERY
def test_two_instances_share_one_trace(kind, assert_same):
    traces = []

    @tf.function
    def forward(flow, z):
        traces.append(flow)
        return flow.forward(z)

    z = numbers(2, D)
    for seed in (1.0, 2.0):
        flow = build(kind, arrays(kind, scale=seed), validate_args=True)
        own = lambda z, flow=flow: forward(flow, z)  # noqa: E731
        assert_same(own, flow.forward, tf.constant(z), ROUNDINGS)
    assert len(traces) == 1
