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


def spread_error(x, count):
    """What rounding does to the log of a standard deviation of `count` numbers, in `[..., D]`.

    The sum of the squares loses `count` eps; each deviation four eps of a number, and as much of
    the standard deviation as that is smaller.
    """
    ratio = np.max(np.abs(x) / np.std(np.float64(x), axis=tuple(range(x.ndim - 1))))
    return np.finfo(x.dtype).eps * (count + 4 * ratio)


ROUNDINGS = 4  # of the logarithm of the scale, the exponential, the product, the sum


def test_is_scale_and_shift(assert_same, assert_round_trip, rounding):
    log_scale, shift, x = numbers(2, 3), numbers(3), numbers(5, 2, 3)

    def formula(arguments):
        log_scale, shift, x = arguments
        return np.exp(log_scale) * x + shift, np.broadcast_to(np.sum(log_scale, -1), (5, 2))

    assert_same(
        lambda given: fvb.ActNorm(*given[:2]).forward_and_log_det(given[2]),
        formula,
        (log_scale, shift, x),
        ROUNDINGS,
    )
    assert_round_trip(lambda given: fvb.ActNorm(*given), (log_scale, shift), x, 2 * ROUNDINGS)
    act_norm = fvb.ActNorm(log_scale, shift)
    image = act_norm.forward_log_det_jacobian(numbers(4, 5, 2, 3), event_ndims=3)
    assert image.shape == (4,)
    size = 5 * np.abs(log_scale).sum()  # a sum of 30 terms
    assert_allclose(image, np.full(4, 5 * log_scale.sum()), **rounding(30, size))


def test_forward_alone_changes_nothing():
    act_norm = fvb.ActNorm.create(3)
    assert_array_equal(act_norm.forward(data()), data())
    assert_array_equal(act_norm.inverse(data()), data())
    assert not act_norm.initialized.numpy()


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_initialize_normalises_once(direction, mode, rounding):
    act_norm = fvb.ActNorm.create(3, validate_args=mode != "xla")
    initialize = lambda x: act_norm.initialize(x, direction)  # noqa: E731
    if mode != "eager":
        initialize = tf.function(initialize, jit_compile=mode == "xla")
    initialize(tf.constant(data()))
    image = getattr(act_norm, direction)(data()).numpy().astype(np.float64)
    # Each number, and the mean that it is taken from, is divided by the standard deviation.
    allowed = rounding(2 * ROUNDINGS, data(), data() / np.float32(STD))
    assert_allclose(image.mean(0), np.zeros(3), **allowed)
    assert_allclose(image.std(0), np.ones(3), rtol=0.0, atol=spread_error(data(), 200))
    assert act_norm.initialized.numpy()
    before = [v.numpy() for v in act_norm.trainable_variables]
    initialize(tf.constant(3.0 * data()))
    assert_array_equal([v.numpy() for v in act_norm.trainable_variables], before)


def test_without_a_flag_each_call_acts(rounding):
    act_norm = fvb.ActNorm(tf.Variable(tf.zeros([3])), tf.Variable(tf.zeros([3])))
    act_norm.initialize(data())
    act_norm.initialize(2.0 * data(), "inverse")
    x = 2.0 * data()
    assert_allclose(act_norm.shift, np.float64(x).mean(0), **rounding(200, x))  # 200 terms
    wanted = np.log(np.float64(x).std(0))
    assert_allclose(act_norm.log_scale, wanted, rtol=0.0, atol=spread_error(x, 200))


def test_a_constant_coordinate_is_only_shifted(rounding):
    x = data()
    x[:, 1] = 0.1
    act_norm = fvb.ActNorm.create(3)
    act_norm.initialize(x)
    assert act_norm.log_scale[1] == 0.0
    # The mean is summed twice, the second time from what the first one left.
    assert_allclose(act_norm.forward(x)[:, 1], np.zeros(200), **rounding(2, x[:, 1]))


def test_a_large_mean_does_not_cancel():
    x = np.float32(1e4) + numbers(1000, 1).astype(np.float32)
    act_norm = fvb.ActNorm.create(1)
    act_norm.initialize(x)
    eps = np.finfo(np.float32).eps
    # A sum of 1000 squares of differences from a mean that is off by two eps of itself.
    allowed = 1000 * eps + (2 * eps * 1e4) ** 2
    wanted = -np.log(x.astype(np.float64).std(0))
    assert_allclose(act_norm.log_scale, wanted, rtol=0.0, atol=allowed)


def test_statistics_are_over_all_but_channels_and_members(rounding):
    image = fvb.ActNorm.create(3, tf.float64)
    image.initialize(data(48, np.float64).reshape(4, 2, 6, 3), "inverse")
    whole = data(48, np.float64)
    assert_allclose(image.shift, whole.mean(0), **rounding(48, whole))  # 48 terms
    members = fvb.ActNorm(*(tf.Variable(np.zeros([2, 3])) for _ in range(2)))
    x = numbers(7, 2, 3)
    members.initialize(x, "inverse")
    assert_allclose(members.shift, x.mean(0), **rounding(7, x))
    wanted = np.log(x.std(0))
    allowed = max(spread_error(x[:, i], 7) for i in range(2))
    assert_allclose(members.log_scale, wanted, rtol=0.0, atol=allowed)


def test_initialize_act_norms_follows_the_data_through_chains(rounding):
    first, second = (fvb.ActNorm.create(3, tf.float64) for _ in range(2))
    stretch = tfb.Scale(tf.constant([2.0, 3.0, 4.0], tf.float64))
    flow = tfb.Chain([first, tfb.Invert(tfb.Chain([tfb.Invert(second), stretch]))])
    image = fvb.initialize_act_norms(flow, data(dtype=np.float64), "inverse").numpy()
    assert first.initialized.numpy()
    assert second.initialized.numpy()
    x = data(dtype=np.float64)
    assert_allclose(image, flow.inverse(x), **rounding(2 * ROUNDINGS, x / STD))
    allowed = {"rtol": 0.0, "atol": 2 * spread_error(x, 200)}  # of two in a row
    assert_allclose(image.std(0), np.ones(3), **allowed)
    assert_allclose(first.inverse(x).numpy().std(0), np.ones(3), **allowed)
    assert_allclose(second.log_scale, np.log([2.0, 3.0, 4.0]), **allowed)


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
    best = 1.5 * np.log(2 * np.pi * np.e) + np.log(np.float64(data()).std(0)).sum()
    # A mean of 200 terms, in which each of the three spreads enters by its logarithm.
    allowed = 200 * np.finfo(np.float32).eps * best + 3 * spread_error(data(), 200)
    assert_allclose(losses, np.full(3, best), rtol=0.0, atol=allowed)


def test_batch_shape_slicing_and_variables(rounding):
    act_norm = fvb.ActNorm(tf.Variable(numbers(3, 2, 4)), tf.Variable(numbers(2, 4)))
    assert act_norm.experimental_batch_shape() == (3, 2)
    assert act_norm[1].experimental_batch_shape() == (2,)
    whole = act_norm.forward(numbers(4))[1]
    allowed = rounding(2 * ROUNDINGS, whole, act_norm.shift)
    assert_allclose(act_norm[1].forward(numbers(4)), whole, **allowed)
    assert len(tfb.Chain([tfb.Invert(act_norm)]).trainable_variables) == 2
    created = fvb.ActNorm.create(4)
    assert len(created.trainable_variables) == 2
    assert created.copy(name="other").initialized is created.initialized


def test_two_instances_share_one_trace(rounding):
    traces = []

    @tf.function
    def forward(act_norm, x):
        traces.append(act_norm)
        return act_norm.forward(x)

    for seed in (1, 2):
        act_norm = fvb.ActNorm(numbers(3, seed=seed), numbers(3), validate_args=True)
        wanted = act_norm.forward(fresh(numbers(2, 3)))
        allowed = rounding(2 * ROUNDINGS, wanted, act_norm.shift)
        assert_allclose(forward(act_norm, numbers(2, 3)), wanted, **allowed)
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
            r"direction 'forward' or 'inverse'\. Received: 'backward'\.",
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
