"""ActNorm: the map, and an initialisation that works in graphs and in a training step."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from numpy.testing import assert_allclose, assert_array_equal

from tfp_flowvae import bijectors as fvb

tfb, tfd = tfp.bijectors, tfp.distributions

MEAN, STD = np.array([5.0, -2.0, 0.0]), np.array([0.1, 4.0, 1.0])


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def data(count=200, dtype=np.float32):
    return (MEAN + STD * numbers(count, 3)).astype(dtype)


def fresh(x):
    """The same numbers, unknown to TFP's cache."""
    return tf.constant(np.asarray(x))


def test_is_scale_and_shift():
    log_scale, shift, x = numbers(2, 3), numbers(3), numbers(5, 2, 3)
    act_norm = fvb.ActNorm(log_scale, shift)
    y, log_det = act_norm.forward_and_log_det(x)
    assert_allclose(y, np.exp(log_scale) * x + shift)
    assert_allclose(log_det, np.broadcast_to(log_scale.sum(-1), (5, 2)))
    back, inverse_log_det = act_norm.inverse_and_log_det(fresh(y))
    assert_allclose(back, x, rtol=1e-12)
    assert_allclose(inverse_log_det, -log_det)
    image = act_norm.forward_log_det_jacobian(numbers(4, 5, 2, 3), event_ndims=3)
    assert image.shape == (4,)
    assert_allclose(image, np.full(4, 5 * log_scale.sum()))


def test_forward_alone_changes_nothing():
    act_norm = fvb.ActNorm.create(3)
    assert_array_equal(act_norm.forward(data()), data())
    assert_array_equal(act_norm.inverse(data()), data())
    assert not act_norm.initialized.numpy()


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_initialize_normalises_once(direction, mode):
    act_norm = fvb.ActNorm.create(3, validate_args=mode != "xla")
    initialize = lambda x: act_norm.initialize(x, direction)  # noqa: E731
    if mode != "eager":
        initialize = tf.function(initialize, jit_compile=mode == "xla")
    initialize(tf.constant(data()))
    image = getattr(act_norm, direction)(data()).numpy()
    assert_allclose(image.mean(0), np.zeros(3), atol=2e-5)
    assert_allclose(image.std(0), np.ones(3), rtol=1e-5)
    assert act_norm.initialized.numpy()
    before = [v.numpy() for v in act_norm.trainable_variables]
    initialize(tf.constant(3.0 * data()))
    assert_array_equal([v.numpy() for v in act_norm.trainable_variables], before)


def test_without_a_flag_each_call_acts():
    act_norm = fvb.ActNorm(tf.Variable(tf.zeros([3])), tf.Variable(tf.zeros([3])))
    act_norm.initialize(data())
    act_norm.initialize(2.0 * data(), "inverse")
    assert_allclose(act_norm.shift, 2.0 * data().mean(0), rtol=1e-4)
    assert_allclose(act_norm.log_scale, np.log(2.0 * data().std(0)), rtol=1e-4)


def test_a_constant_coordinate_is_only_shifted():
    x = data()
    x[:, 1] = 0.1
    act_norm = fvb.ActNorm.create(3)
    act_norm.initialize(x)
    assert_allclose(act_norm.log_scale[1], 0.0)
    assert_allclose(act_norm.forward(x)[:, 1], np.zeros(200), atol=1e-7)


def test_a_large_mean_does_not_cancel():
    x = np.float32(1e4) + numbers(1000, 1).astype(np.float32)
    act_norm = fvb.ActNorm.create(1)
    act_norm.initialize(x)
    assert_allclose(act_norm.log_scale, -np.log(x.astype(np.float64).std(0)), atol=1e-4)


def test_statistics_are_over_all_but_channels_and_members():
    image = fvb.ActNorm.create(3, tf.float64)
    image.initialize(data(48, np.float64).reshape(4, 2, 6, 3), "inverse")
    assert_allclose(image.shift, data(48, np.float64).mean(0))
    members = fvb.ActNorm(*(tf.Variable(np.zeros([2, 3])) for _ in range(2)))
    x = numbers(7, 2, 3)
    members.initialize(x, "inverse")
    assert_allclose(members.shift, x.mean(0))
    assert_allclose(members.log_scale, np.log(x.std(0)))


def test_initialize_act_norms_goes_the_way_of_the_data():
    first, second = (fvb.ActNorm.create(3, tf.float64) for _ in range(2))
    stretch = tfb.Scale(tf.constant([2.0, 3.0, 4.0], tf.float64))
    flow = tfb.Chain([first, tfb.Invert(tfb.Chain([tfb.Invert(second), stretch]))])
    image = fvb.initialize_act_norms(flow, data(dtype=np.float64), "inverse").numpy()
    assert first.initialized.numpy()
    assert second.initialized.numpy()
    assert_allclose(image, flow.inverse(data(dtype=np.float64)), rtol=1e-9, atol=1e-12)
    assert_allclose(image.std(0), np.ones(3))
    assert_allclose(first.inverse(data(dtype=np.float64)).numpy().std(0), np.ones(3))
    assert_allclose(second.log_scale, np.log([2.0, 3.0, 4.0]), rtol=1e-9)


def test_a_training_step_may_contain_the_call():
    act_norm = fvb.ActNorm.create(3)
    base = tfd.MultivariateNormalDiag(tf.zeros([3]))

    @tf.function
    def step(x):
        act_norm.initialize(x, "inverse")
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(tfd.TransformedDistribution(base, act_norm).log_prob(x))
        gradients = tape.gradient(loss, act_norm.trainable_variables)
        for variable, gradient in zip(act_norm.trainable_variables, gradients, strict=True):
            variable.assign_sub(0.1 * gradient)
        return loss

    x = tf.constant(data())
    losses = [float(step(x)) for _ in range(3)]
    best = 1.5 * np.log(2 * np.pi * np.e) + np.log(data().std(0)).sum()
    assert_allclose(losses, np.full(3, best), rtol=1e-5)


def test_manners_of_tfp():
    act_norm = fvb.ActNorm(tf.Variable(numbers(3, 2, 4)), tf.Variable(numbers(2, 4)))
    assert act_norm.experimental_batch_shape() == (3, 2)
    assert act_norm[1].experimental_batch_shape() == (2,)
    assert_allclose(act_norm[1].forward(numbers(4)), act_norm.forward(numbers(4))[1])
    assert len(tfb.Chain([tfb.Invert(act_norm)]).trainable_variables) == 2
    created = fvb.ActNorm.create(4)
    assert len(created.trainable_variables) == 2
    assert created.copy(name="other").initialized is created.initialized


def test_one_trace_serves_two_instances():
    traces = []

    @tf.function
    def forward(act_norm, x):
        traces.append(act_norm)
        return act_norm.forward(x)

    for seed in (1, 2):
        act_norm = fvb.ActNorm(numbers(3, seed=seed), numbers(3), validate_args=True)
        assert_allclose(forward(act_norm, numbers(2, 3)), act_norm.forward(fresh(numbers(2, 3))))
    assert len(traces) == 1


def test_variables_with_a_flag_that_cannot_change_are_not_initialised():
    variables = (tf.Variable(tf.zeros([3])) for _ in range(2))
    act_norm = fvb.ActNorm(*variables, initialized=tf.constant(True))
    with pytest.raises(TypeError, match=r"Received: initialized of type \w*Tensor\."):
        act_norm.initialize(data())


def created():
    return fvb.ActNorm.create(2)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: fvb.ActNorm(tf.zeros([2]), tf.zeros([3])),
            ValueError,
            r"Received: log_scale\.shape=\(2,\), shift\.shape=\(3,\)\.",
        ),
        (lambda: fvb.ActNorm.create(0), ValueError, r"D is 0 in log_scale\. Received"),
        (lambda: fvb.ActNorm.create(2, tf.int32), TypeError, r"log_scale\.dtype=int32"),
        (
            lambda: fvb.ActNorm(tf.zeros([2]), tf.zeros([2]), initialized=False),
            TypeError,
            r"bool tf\.Variable of shape \[\] as initialized\. Received: bool of dtype bool and",
        ),
        (
            lambda: fvb.ActNorm(tf.zeros([2]), tf.zeros([2]), tf.Variable([True, False])),
            TypeError,
            r"Received: \w+ of dtype bool and shape \(2,\)\.",
        ),
        (
            lambda: fvb.ActNorm(tf.zeros([2]), tf.zeros([2]), tf.Variable(0)),
            TypeError,
            r"Received: \w+ of dtype int32 and shape \(\)\.",
        ),
        (
            lambda: fvb.ActNorm(tf.zeros([2]), [0.0, np.nan], validate_args=True),
            ValueError,
            r"Received: shift holding nan\.",
        ),
        (
            lambda: fvb.ActNorm(tf.zeros([2]), tf.zeros([2])).initialize(tf.zeros([5, 2])),
            TypeError,
            r"to be tf\.Variables\. Received: log_scale of type",
        ),
        (
            lambda: created().initialize(tf.zeros([5, 2]), "backward"),
            ValueError,
            r"Received: direction='backward'\.",
        ),
        (
            lambda: created().initialize(tf.zeros([5, 3])),
            ValueError,
            r"Received: shape \(5, 3\)\.",
        ),
        (lambda: created().initialize(tf.zeros([2])), ValueError, r"Received: x\.shape=\(2,\)\."),
        (
            lambda: created().initialize(tf.zeros([0, 2])),
            ValueError,
            r"Received: x\.shape=\(0, 2\)\.",
        ),
        (
            lambda: fvb.initialize_act_norms(
                tfb.Blockwise([created(), tfb.Exp()], [2, 1]), tf.zeros([5, 3])
            ),
            ValueError,
            r"Received: one inside of .*Blockwise",
        ),
    ],
)
def test_errors_name_what_was_received(make, kind, message):
    with pytest.raises(kind, match=message):
        make()


def test_validate_args_refuses_data_that_is_not_finite():
    act_norm = fvb.ActNorm.create(2, validate_args=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="takes finite points"):
        act_norm.initialize([[1.0, np.nan], [2.0, 3.0]])
    assert not act_norm.initialized.numpy()
