"""The parallel inverse against TFP's loop, and the gated update against the paper's formula."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae import bijectors as fvb

SIZE = 6
# A number is rounded in a sum of D terms and in ten operations or so, there and back.
ROUNDINGS = 2 * (SIZE + 10)


class Network(tf.Module):
    """Shift and log-scale; entry d depends on entries before d (or after it), not linearly."""

    def __init__(self, strength: float = 1.0, reverse: bool = False, dtype: tf.DType = tf.float64):
        super().__init__()
        rng = np.random.default_rng(3)
        draw = strength * rng.normal(size=(2, SIZE, SIZE))
        self.kernel = tf.Variable(draw, dtype=dtype)
        self.bias = tf.Variable(rng.normal(size=(2, SIZE)), dtype=dtype)
        before = np.triu(np.ones((SIZE, SIZE)), 1)
        self.mask = before.T if reverse else before
        self.calls = 0

    def __call__(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        self.calls += 1
        kernel = self.kernel * self.mask
        shift, raw = (tf.einsum("...i,ij->...j", y, kernel[k]) + self.bias[k] for k in (0, 1))
        return shift + tf.sin(shift), 0.5 * tf.tanh(raw)


def points(*shape: int, seed: int = 0, dtype: tf.DType = tf.float64) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def pair(net, **kwargs) -> tuple[tfb.Bijector, tfb.Bijector]:
    return (
        fvb.ParallelMaskedAutoregressiveFlow(net, **kwargs),
        tfb.MaskedAutoregressiveFlow(net),
    )


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_same_as_the_loop(reverse, dtype, assert_round_trip):
    net = Network(reverse=reverse, dtype=dtype)
    ours, theirs = pair(net)
    x = points(7, SIZE, dtype=dtype)
    y = ours.forward(x)
    np.testing.assert_array_equal(y, theirs.forward(tf.identity(x)))
    assert_round_trip(lambda _: ours, (), x, ROUNDINGS)
    assert int(ours.num_passes(x)) <= SIZE


def test_log_dets_against_autodiff(log_det_of):
    flow = fvb.ParallelMaskedAutoregressiveFlow(Network())
    x = points(3, SIZE)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = flow.forward(tf.identity(x))
    wanted, unit = log_det_of(tape.batch_jacobian(y, x))
    for found, sign in (
        (flow.forward_log_det_jacobian(tf.identity(x), 1), 1.0),
        (flow.inverse_log_det_jacobian(tf.identity(y), 1), -1.0),
        (fvb.forward_and_log_det(flow, tf.identity(x))[1], 1.0),
        (fvb.inverse_and_log_det(flow, tf.identity(y))[1], -1.0),
    ):
        assert np.all(np.abs(sign * found - wanted) <= ROUNDINGS * unit)


def test_number_of_passes():
    x = points(4, SIZE)
    weak, strong = (fvb.ParallelMaskedAutoregressiveFlow(Network(s)) for s in (0.0, 1.0))
    assert int(weak.num_passes(x)) == 3  # the second sees no change; the third takes the gradient
    net = Network()
    flow = fvb.ParallelMaskedAutoregressiveFlow(net)
    flow.forward(x)
    passes = int(strong.num_passes(x))
    assert passes <= SIZE
    assert net.calls == passes + 1  # one more, for second derivatives alone
    loose = fvb.ParallelMaskedAutoregressiveFlow(Network(0.01), tolerance=1e-3)
    exact = fvb.ParallelMaskedAutoregressiveFlow(Network(0.01))
    assert int(loose.num_passes(x)) < int(exact.num_passes(x))
    # What the last pass moved by less than the tolerance the next would move by less again.
    np.testing.assert_allclose(loose.forward(x), exact.forward(tf.identity(x)), rtol=0, atol=1e-3)


def test_nan_does_not_spread_to_other_points():
    x = points(2, SIZE).numpy()
    x[1, 2] = np.nan
    ours, theirs = pair(Network())
    y = ours.forward(tf.constant(x)).numpy()
    assert np.isfinite(y[0]).all()
    np.testing.assert_array_equal(y, theirs.forward(tf.constant(x)))


def test_saved_model_and_dynamic_shapes(tmp_path, assert_same):
    net = Network()
    ours, theirs = pair(net)
    module = tf.Module()
    module.flow = ours
    unknown = tf.TensorSpec([None, None], tf.float64)
    module.forward = tf.function(ours.forward, input_signature=[unknown], autograph=False)

    @tf.function(input_signature=[unknown], autograph=False)
    def gradient(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(ours.forward(x) ** 2)
        return tape.gradient(loss, x)

    module.gradient = gradient
    tf.saved_model.save(module, tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    x = points(3, SIZE)
    assert_same(loaded.forward, theirs.forward, x, ROUNDINGS)

    def wanted(x: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(theirs.forward(tf.identity(x)) ** 2)
        return tape.gradient(loss, x)

    assert_same(loaded.gradient, wanted, x, 2 * ROUNDINGS)


def test_variables_and_copy():
    net = Network()
    flow = fvb.ParallelMaskedAutoregressiveFlow(net, tolerance=1e-9)
    base = tfd.MultivariateNormalDiag(tf.zeros(SIZE, tf.float64))
    density = tfd.TransformedDistribution(base, tfb.Chain([tfb.Invert(flow)]))
    assert {id(v) for v in density.trainable_variables} == {id(net.kernel), id(net.bias)}
    copy = flow.copy(name="copied")
    assert (copy.tolerance, copy.name) == (1e-9, "copied")
    x = points(2, SIZE)
    np.testing.assert_array_equal(copy.forward(x), flow.forward(tf.identity(x)))


def test_one_dimension_and_an_unbatched_point(rounding):
    flow = fvb.ParallelMaskedAutoregressiveFlow(lambda y: (0.0 * y + 2.0, 0.0 * y + 1.0))
    wanted = np.float32([2.0 + np.e])
    # An exponential, a product and a sum.
    np.testing.assert_allclose(flow.forward([1.0]), wanted, **rounding(3, wanted))
    assert int(flow.num_passes([1.0])) == 1
    ours, theirs = pair(Network())
    x = points(SIZE)
    np.testing.assert_array_equal(ours.forward(x), theirs.forward(tf.identity(x)))


def test_a_context_adds_batch_dimensions(assert_round_trip):
    net, context = Network(), points(3, SIZE)
    flow = fvb.ParallelMaskedAutoregressiveFlow(lambda y: (net(y)[0] + context, None))
    x = points(SIZE)
    y = flow.forward(x)
    assert y.shape == (3, SIZE)
    assert_round_trip(lambda _: flow, (), x, ROUNDINGS)


def test_bad_arguments():
    with pytest.raises(ValueError, match="tolerance=-1"):
        fvb.ParallelMaskedAutoregressiveFlow(Network(), tolerance=-1.0)
    with pytest.raises(ValueError, match="Exactly one"):
        fvb.ParallelMaskedAutoregressiveFlow()
    with pytest.raises(TypeError, match="int32"):
        fvb.ParallelMaskedAutoregressiveFlow(lambda y: (y, None)).forward([1, 2])


def test_validate_args_refuses_a_conditioner_that_is_not_autoregressive():
    ahead = fvb.ParallelMaskedAutoregressiveFlow(
        lambda y: (0.9 * tf.roll(y, 1, -1) - 0.5 * y, None), validate_args=True
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="autoregressive conditioner"):
        ahead.forward([1.0, 2.0, 3.0])
    fvb.ParallelMaskedAutoregressiveFlow(Network(), validate_args=True).forward(points(2, SIZE))


@pytest.mark.parametrize("bias", [1.0, 2.0])
def test_gated_update_is_the_papers(bias, assert_same, assert_round_trip):
    net = Network()
    gated = fvb.GatedUpdate(net, forget_bias=bias)
    iaf = tfb.Invert(fvb.ParallelMaskedAutoregressiveFlow(bijector_fn=gated))
    z = points(3, SIZE)

    def formula(z: tf.Tensor) -> tuple[np.ndarray, np.ndarray]:
        m, s = (value.numpy() for value in net(z))
        sigma = 1.0 / (1.0 + np.exp(-(s + bias)))
        return sigma * z + (1.0 - sigma) * m, np.log(sigma).sum(-1)

    assert_same(lambda z: fvb.forward_and_log_det(iaf, z), formula, z, ROUNDINGS)
    assert_round_trip(lambda _: iaf, (), z, ROUNDINGS)
    assert {id(v) for v in iaf.trainable_variables} == {id(net.kernel), id(net.bias)}


def test_gated_update_takes_one_tensor_and_saturates():
    gated = fvb.GatedUpdate(lambda y: tf.stack([y, 0.0 * y - 200.0], axis=-1))
    y = tf.constant([1.0, -2.0])
    bijector = gated(y)
    np.testing.assert_array_equal(bijector.inverse(y), y)  # the gate is shut: what is left is m
    assert np.isfinite(bijector.inverse_log_det_jacobian(y, 1))
