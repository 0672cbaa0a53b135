"""What TFP expects of planar, radial and Householder bijectors, apart from their mathematics."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae import bijectors as fvb

tfb = tfp.bijectors
tfd = tfp.distributions

K, D = 3, 4
# A number is rounded in sums of D terms and in ten operations, in each of K steps, there and back;
# derivatives do so once more.
ROUNDINGS = 2 * K * (D + 10)
EVENT_SHAPES = {
    fvb.Planar: {"u": (D,), "w": (D,), "b": ()},
    fvb.PlanarFlow: {"u": (K, D), "w": (K, D), "b": (K,)},
    fvb.Radial: {"center": (D,), "alpha": (), "beta": ()},
    fvb.RadialFlow: {"center": (K, D), "alpha": (K,), "beta": (K,)},
    fvb.HouseholderFlow: {"v": (K, D)},
}
every_class = pytest.mark.parametrize("cls", EVENT_SHAPES, ids=lambda cls: cls.__name__)


def draw_parameters(cls, batch=(), dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    draws = {n: rng.normal(size=(*batch, *s)) for n, s in EVENT_SHAPES[cls].items()}
    if "alpha" in draws:
        draws["alpha"] = np.exp(draws["alpha"])
    return {name: draw.astype(dtype) for name, draw in draws.items()}


def draw_points(*shape, dtype=np.float32, seed=100):
    return tf.constant(np.random.default_rng(seed).normal(size=shape).astype(dtype))


def evaluate(bijector, x):
    y, log_det = bijector.forward_and_log_det(x)
    back, inverse_log_det = bijector.inverse_and_log_det(tf.identity(y))
    return y, log_det, back, inverse_log_det


def value_and_gradients(bijector, x):
    parameters = [bijector.parameters[name] for name in EVENT_SHAPES[type(bijector)]]
    with tf.GradientTape() as tape:
        tape.watch([x, *parameters])
        y, log_det, back, inverse_log_det = evaluate(bijector, x)
        weighted = y[..., 0] * back[..., -1] + log_det * y[..., 1] - 2.0 * inverse_log_det
    return weighted, tape.gradient(weighted, [x, *parameters], unconnected_gradients="zero")


@every_class
@pytest.mark.parametrize(
    ("batch", "points"),
    [((), (D,)), ((), (5, D)), ((5,), (D,)), ((5,), (5, D)), ((5,), (2, 5, D)), ((2, 1), (5, D))],
)
def test_parameters_broadcast_against_points(
    cls, batch, points, one_eps, assert_within, assert_round_trip
):
    drawn = draw_parameters(cls, batch)
    x = draw_points(*points)
    y, log_det = cls(**drawn).forward_and_log_det(x)
    full = np.broadcast_shapes(batch, points[:-1])
    assert y.shape == (*full, D)
    assert log_det.shape == full
    assert_round_trip(lambda given: cls(**given), drawn, x, ROUNDINGS)
    unit = one_eps(
        lambda given: cls(**given[0]).forward_and_log_det(given[1]), (drawn, x), rounds=4
    )
    xs = np.broadcast_to(x, (*full, D))
    for index in np.ndindex(full):  # one by one, with parameters that have no batch
        own = {
            name: np.broadcast_to(value, (*full, *value.shape[len(batch) :]))[index]
            for name, value in drawn.items()
        }
        alone = cls(**own).forward_and_log_det(xs[index])
        assert_within((y[index], log_det[index]), alone, unit, ROUNDINGS)


@every_class
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.slow)])
def test_xla_agrees_with_eager(cls, dtype, assert_same):
    tensors = {n: tf.constant(p) for n, p in draw_parameters(cls, (5,), dtype).items()}
    x = draw_points(2, 5, D, dtype=dtype)

    def compute(given):
        return value_and_gradients(cls(**given[0]), given[1])

    assert all(np.all(np.isfinite(part)) for part in tf.nest.flatten(compute((tensors, x))))
    compiled = tf.function(compute, jit_compile=True)
    assert_same(compiled, compute, (tensors, x), 2 * ROUNDINGS)


def along_a_line(cls, seed):
    """The bijector's arguments in float64, and one direction in the space of all of them."""
    drawn = {**draw_parameters(cls, dtype=np.float64, seed=seed), "x": draw_points(D).numpy()}
    rng = np.random.default_rng(seed + 1)
    direction = {n: rng.normal(size=np.shape(p)) for n, p in drawn.items()}

    def at(step):
        moved = {n: tf.constant(p + step * direction[n], tf.float64) for n, p in drawn.items()}
        return moved.pop("x"), cls(**moved)

    return at, [direction["x"], *(v for n, v in direction.items() if n != "x")]


@every_class
def test_gradients_against_finite_differences(cls, assert_slope):
    for seed in range(3):
        at, direction = along_a_line(cls, seed)
        gradients = value_and_gradients(*reversed(at(0.0)))[1]
        analytic = sum(np.sum(g * d) for g, d in zip(gradients, direction, strict=True))
        value = lambda step, at=at: value_and_gradients(*reversed(at(step)))[0]  # noqa: E731
        assert_slope(analytic, value, ROUNDINGS)


@every_class
def test_second_derivatives_against_finite_differences(cls, assert_slope):
    at, direction = along_a_line(cls, 4)
    x, bijector = at(0.0)
    arguments = [x, *(bijector.parameters[name] for name in EVENT_SHAPES[cls])]
    with tf.GradientTape() as tape:
        tape.watch(arguments)
        gradients = value_and_gradients(bijector, x)[1]
        slope = sum(tf.reduce_sum(g * d) for g, d in zip(gradients, direction, strict=True))
    rows = tape.gradient(slope, arguments, unconnected_gradients="zero")
    assert_slope(rows, lambda step: value_and_gradients(*reversed(at(step)))[1], 2 * ROUNDINGS)


@every_class
@pytest.mark.parametrize("known", ["rank", "nothing"])
def test_partly_known_shapes(cls, known, assert_same):
    drawn = {n: tf.constant(p) for n, p in draw_parameters(cls, (5,)).items()}
    x = draw_points(2, 5, D)
    compute = value_and_gradients if known == "rank" else evaluate

    def specification(value):
        shape = [None] * value.shape.rank if known == "rank" else None
        return tf.TensorSpec(shape, tf.float32)

    signature = [({n: specification(p) for n, p in drawn.items()}, specification(x))]
    eager = lambda given: compute(cls(**given[0]), given[1])  # noqa: E731
    traced = tf.function(eager, input_signature=signature)
    assert_same(traced, eager, (drawn, x), 2 * ROUNDINGS)


@every_class
def test_assigned_variables_take_effect_and_are_listed(cls):
    variables = {n: tf.Variable(p, name=n) for n, p in draw_parameters(cls).items()}
    bijector = cls(**variables)
    distribution = tfd.TransformedDistribution(
        tfd.MultivariateNormalDiag(tf.zeros(D)), tfb.Invert(tfb.Chain([tfb.Scale(2.0), bijector]))
    )
    for owner in (bijector, tfb.Chain([bijector]), tfb.Invert(bijector), distribution):
        assert {id(v) for v in owner.trainable_variables} == {id(v) for v in variables.values()}
    x = draw_points(D)
    before = bijector.forward(x)
    other = draw_parameters(cls, seed=9)
    for name, variable in variables.items():
        assert getattr(bijector, name) is variable
        variable.assign(other[name])
    np.testing.assert_array_equal(bijector.forward(tf.identity(x)), cls(**other).forward(x))
    assert np.any(bijector.forward(tf.identity(x)) != before)


@every_class
def test_distribution_density_is_that_of_its_samples(cls, one_eps, assert_within):
    bijector = cls(**draw_parameters(cls, (5,)))
    base = tfd.MultivariateNormalDiag(tf.zeros([5, D]))
    for transform in (bijector, tfb.Invert(bijector), tfb.Chain([bijector, tfb.Scale(0.5)])):
        distribution = tfd.TransformedDistribution(base, transform)
        assert distribution.batch_shape == [5]
        assert distribution.event_shape == [D]
        z, log_prob = distribution.experimental_sample_and_log_prob(7, seed=(1, 2))
        assert log_prob.shape == [7, 5]
        again = lambda z, of=distribution: of.log_prob(tf.identity(z))  # noqa: E731
        assert_within(again(z), log_prob, one_eps(again, z, rounds=4), ROUNDINGS)


@every_class
def test_batch_shape_slicing_and_copy(cls):
    drawn = draw_parameters(cls, (6, 5))
    bijector = cls(**drawn)
    assert bijector.experimental_batch_shape() == [6, 5]
    np.testing.assert_array_equal(bijector.experimental_batch_shape_tensor(), [6, 5])
    x = draw_points(5, D)
    for index in (2, slice(1, 4), (Ellipsis, slice(0, 5, 2)), (1, 3)):
        part = bijector[index]
        key = index if isinstance(index, tuple) else (index,)
        assert part.experimental_batch_shape() == np.empty((6, 5))[key].shape
    np.testing.assert_array_equal(
        bijector[2].forward(x), cls(**{n: p[2] for n, p in drawn.items()}).forward(x)
    )
    copied = bijector.copy(validate_args=True)
    assert copied.validate_args
    np.testing.assert_array_equal(copied.forward(x), bijector.forward(tf.identity(x)))


@every_class
def test_two_instances_share_one_trace(cls, assert_same):
    traces = []

    @tf.function
    def apply(bijector, x):
        traces.append(bijector)
        return bijector.forward(x)

    x = draw_points(D)
    for seed in (0, 1):
        bijector = cls(**draw_parameters(cls, seed=seed))
        assert_same(lambda x, own=bijector: apply(own, x), bijector.forward, x, ROUNDINGS)
    assert len(traces) == 1
    assert isinstance(traces[0], cls)


@pytest.mark.parametrize("cls", [fvb.PlanarFlow, fvb.RadialFlow])
def test_stack_is_a_chain_of_its_steps_with_the_first_row_first(cls, assert_same):
    single = {fvb.PlanarFlow: fvb.Planar, fvb.RadialFlow: fvb.Radial}[cls]
    drawn = draw_parameters(cls, dtype=np.float64)
    chain = tfb.Chain([single(**{n: p[k] for n, p in drawn.items()}) for k in reversed(range(K))])
    x = draw_points(5, D, dtype=np.float64)
    of_chain = lambda x: fvb.forward_and_log_det(chain, x)  # noqa: E731
    assert_same(cls(**drawn).forward_and_log_det, of_chain, x, ROUNDINGS)


@pytest.mark.parametrize("cls", [fvb.PlanarFlow, fvb.RadialFlow, fvb.HouseholderFlow])
def test_graph_has_the_same_size_for_every_number_of_steps(cls):
    def count_operations(steps):
        tensors = {
            n: tf.repeat(tf.constant(p)[:1], steps, axis=0) for n, p in draw_parameters(cls).items()
        }

        @tf.function
        def compute(tensors, x):
            return value_and_gradients(cls(**tensors), x)

        graph = compute.get_concrete_function(tensors, draw_points(D)).graph.as_graph_def()
        return len(graph.node) + sum(len(f.node_def) for f in graph.library.function)

    assert count_operations(9) == count_operations(40)  # fewer reflections are spared two casts
