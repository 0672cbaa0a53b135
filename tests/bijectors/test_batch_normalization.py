"""`BatchNormalization` against its formulas and against TFP's, which runs on tf_keras."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from numpy.testing import assert_allclose, assert_array_equal
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import bijectors as fvb
from tfp_flowvae.testing import check_bijector

N, D = 50, 4
OPTIONS = {
    "all": {},
    "no shift": {"center": False},
    "no scale": {"scale": False},
    "neither": {"center": False, "scale": False},
    "epsilon": {"epsilon": 0.5, "momentum": 0.3},
}
every_layer = pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))


def normal(*shape, seed=0, dtype="float64"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def layer_of(library=keras, dtype="float64", **options):
    """A layer whose every weight is away from its start; variances and scales are positive."""
    layer = library.layers.BatchNormalization(dtype=dtype, **options)
    layer.build((None, D))
    for i, weight in enumerate(layer.weights):
        positive = any(word in weight.name for word in ("gamma", "variance"))
        draw = normal(D, seed=i, dtype=dtype)
        weight.assign(np.exp(0.5 * draw) if positive else draw)
    return layer


def parts(layer):
    """gamma, beta, moving mean, moving variance, as arrays."""
    gamma = layer.gamma.numpy() if layer.scale else np.ones(D)
    beta = layer.beta.numpy() if layer.center else np.zeros(D)
    return gamma, beta, layer.moving_mean.numpy(), layer.moving_variance.numpy()


@every_layer
def test_in_inference_it_is_an_affine_map_by_the_moving_averages(options, rounding):
    layer = layer_of(**options)
    gamma, beta, mean, variance = parts(layer)
    bijector = fvb.BatchNormalization(layer, training=False)
    y = normal(N, D, seed=9)
    x = gamma * (y - mean) / np.sqrt(variance + layer.epsilon) + beta
    log_det = np.sum(np.log(gamma) - 0.5 * np.log(variance + layer.epsilon))
    few = rounding(20, x, y)  # roundings of an affine map, with a root and a quotient
    assert_allclose(bijector.inverse(y), x, **few)
    assert_allclose(bijector.forward(x), y, **few)
    got = bijector.inverse_log_det_jacobian(y, 1)
    assert_allclose(got, log_det, **rounding(20 * D, log_det, 1.0))
    assert_allclose(bijector.forward_log_det_jacobian(x, 1), -got, rtol=0, atol=0)
    for weight, before in zip(layer.weights, layer_of(**options).weights, strict=True):
        assert_array_equal(weight, before)


@every_layer
def test_in_training_it_takes_the_batch_and_moves_the_averages(options, rounding):
    layer = layer_of(**options)
    gamma, beta, mean, variance = parts(layer)
    bijector = fvb.BatchNormalization(layer)
    y = normal(N, D, seed=9)
    # Means over N points.
    close = {"rtol": 0.0, "atol": 20 * N * np.finfo(np.float64).eps * np.abs(y).max()}
    log_det = np.sum(np.log(gamma) - 0.5 * np.log(y.var(axis=0) + layer.epsilon))
    assert_allclose(bijector.inverse_log_det_jacobian(tf.constant(y), 1), log_det, **close)
    x = bijector.inverse(tf.constant(y))
    wanted = gamma * (y - y.mean(axis=0)) / np.sqrt(y.var(axis=0) + layer.epsilon) + beta
    assert_allclose(x, wanted, **close)
    old, new = layer.momentum, 1.0 - layer.momentum
    assert_allclose(layer.moving_mean, old * mean + new * y.mean(axis=0), **close)
    assert_allclose(layer.moving_variance, old * variance + new * y.var(axis=0), **close)


@pytest.mark.parametrize("training", [False, True])
def test_the_numbers_are_those_of_tfp(training, rounding):
    ours = fvb.BatchNormalization(layer_of(), training=training)
    theirs = tfb.BatchNormalization(layer_of(tf_keras), training=training)
    x, y = tf.constant(normal(N, D, seed=8)), tf.constant(normal(N, D, seed=9))
    assert ours.forward_min_event_ndims == theirs.forward_min_event_ndims == 1
    for name in ("forward", "inverse"):  # the inverse moves the averages: it comes last
        point = x if name == "forward" else y
        results = [getattr(b, f"{name}_log_det_jacobian")(point, 1) for b in (ours, theirs)]
        results += [getattr(b, name)(point) for b in (ours, theirs)]
        for pair in (results[:2], results[2:]):
            assert_allclose(*pair, **rounding(20 * N, *pair))
    # Keras 2 takes 1 - momentum, the weight of the batch, in float32.
    atol = np.finfo(np.float32).eps * (1.0 - ours.batchnorm.momentum) * 4.0 * np.abs(y).max() ** 2
    for mine, its in zip(ours.batchnorm.get_weights(), theirs.batchnorm.get_weights(), strict=True):
        assert_allclose(mine, its, rtol=0.0, atol=atol)


def test_as_a_bijector():
    check_bijector(fvb.BatchNormalization(layer_of(), training=False), tf.constant(normal(5, D)))


@pytest.mark.parametrize("leading", [(), (7,), (2, 1, 7)])
@pytest.mark.parametrize("training", [False, True])
def test_any_leading_dimensions(leading, training):
    y = tf.constant(normal(*leading, D, seed=9))
    all_in_one = tf.reshape(y, [-1, D])
    wide, flat = (fvb.BatchNormalization(layer_of(), training=training) for _ in range(2))
    x = wide.inverse(y)
    assert x.shape == y.shape
    assert_array_equal(tf.reshape(x, [-1, D]), flat.inverse(all_in_one))
    log_det = wide.inverse_log_det_jacobian(tf.identity(y), 1)
    assert_array_equal(log_det, flat.inverse_log_det_jacobian(tf.identity(all_in_one), 1))


def test_a_layer_built_for_images(rounding):
    layer = keras.layers.BatchNormalization(dtype="float64")
    layer.build((None, 3, 3, D))
    bijector = fvb.BatchNormalization(layer)
    y = normal(2, 3, 3, D)
    x = bijector.inverse(tf.constant(y))
    wanted = (y - y.mean(axis=(0, 1, 2))) / np.sqrt(y.var(axis=(0, 1, 2)) + layer.epsilon)
    assert_allclose(x, wanted, **rounding(20 * 18, wanted))
    one = bijector.inverse_log_det_jacobian(tf.constant(y), 1)
    image = bijector.inverse_log_det_jacobian(tf.constant(y), 3)
    assert_allclose(image, 9 * one * np.ones(2), **rounding(20, image))


def test_a_layer_that_is_not_trainable_is_in_inference():
    layer = layer_of()
    layer.trainable = False
    y = tf.constant(normal(N, D))
    frozen, inference = (fvb.BatchNormalization(layer, training=t) for t in (True, False))
    assert_array_equal(frozen.inverse(y), inference.inverse(y))
    both = [b.inverse_log_det_jacobian(tf.identity(y), 1) for b in (frozen, inference)]
    assert_array_equal(*both)


def test_the_scale_of_the_default_layer_stays_positive():
    bijector = fvb.BatchNormalization()
    y = normal(N, D, dtype="float32")
    bijector.inverse(y)
    gamma = bijector.batchnorm.gamma
    for variable in (gamma, gamma.value):  # as Keras and as TFP see it
        optimizer = keras.optimizers.SGD(10.0)
        optimizer.apply_gradients([(tf.ones(D), variable)])
        assert_array_equal(gamma, np.full(D, 1e-6, np.float32))
    assert np.isfinite(bijector.inverse_log_det_jacobian(y, 1))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_a_graph(jit_compile, rounding):
    eager, graph = (fvb.BatchNormalization(layer_of()) for _ in range(2))
    y = tf.constant(normal(N, D, seed=9))

    @tf.function(jit_compile=jit_compile)
    def inverse(y):
        return graph.inverse(y)

    for _ in range(2):
        wanted = eager.inverse(tf.identity(y))
        assert_allclose(inverse(y), wanted, **rounding(20 * N, wanted))
    pairs = zip(graph.batchnorm.get_weights(), eager.batchnorm.get_weights(), strict=True)
    for mine, its in pairs:
        assert_allclose(mine, its, **rounding(20 * N, its))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tf_keras.layers.BatchNormalization(), r"Keras 3, or None\. Received: tf_keras"),
        (lambda: keras.layers.Dense(2), r"Received: keras\..*Dense\."),
        (lambda: keras.layers.BatchNormalization(axis=1), r"axis=-1.*Received: axis=1, renorm=F"),
    ],
)
def test_refuses_other_layers(make, message):
    with pytest.raises(ValueError, match=message):
        fvb.BatchNormalization(make())


def test_refuses_points_of_another_dtype():
    with pytest.raises(TypeError, match=r"in float32: .*dtype='float64'\).*Received: .*float64"):
        fvb.BatchNormalization().inverse(normal(3, D))
