from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae import _compat
from tfp_flowvae.networks import BatchNormalization

EPS = np.finfo(np.float32).eps


class Twice(keras.layers.Layer):
    """Normalises a batch, and further inputs in inference."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def call(self, batch, further):
        first = self.norm(batch)
        with _compat.inference():
            return first, self.norm(further)


def _normalised(norm, x, mean, variance):
    gamma, beta = norm.gamma.numpy(), norm.beta.numpy()
    return (x - mean) / np.sqrt(variance + norm.epsilon) * gamma + beta


@pytest.fixture
def norm():
    norm = BatchNormalization()
    norm.build((None, 5, 3))
    values = [[1.0, 2.0, 3.0], [0.1, 0.2, 0.3], [3.0, 2.0, 1.0], [1.0, 4.0, 9.0]]
    norm.set_weights(list(np.array(values)))
    return norm


@pytest.fixture
def batches():
    rng = np.random.default_rng(0)
    return [rng.normal(size, 2.0, (size, 5, 3)).astype(np.float32) for size in (7, 4)]


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_in_training_further_inputs_are_normalised_by_the_moments_of_the_batch(mode, norm, batches):
    twice = Twice(norm)
    twice.build([None, None])

    def run(batch, further):
        return twice(batch, further, training=True)

    if mode != "eager":
        run = tf.function(run, jit_compile=mode == "xla")
    statistics = [w.numpy().astype(np.float64) for w in (norm.moving_mean, norm.moving_variance)]
    found = run(*batches)
    batch = batches[0].astype(np.float64)
    moments = batch.mean(axis=(0, 1)), batch.var(axis=(0, 1))
    # A mean of n numbers errs by n eps of their size at most; there are two, and n is 7 x 5.
    tolerance = 2 * 35 * EPS
    for x, y in zip(batches, found, strict=True):
        wanted = _normalised(norm, x, *moments)
        scale = np.max(norm.gamma / np.sqrt(moments[1]) * (np.abs(x) + np.abs(moments[0])))
        np.testing.assert_allclose(y, wanted, rtol=0, atol=tolerance * scale)
    # Once, and towards the batch alone.
    for moving, old, new in zip(
        (norm.moving_mean, norm.moving_variance), statistics, moments, strict=True
    ):
        np.testing.assert_allclose(moving, 0.99 * old + 0.01 * new, rtol=tolerance)


def test_in_inference_and_alone_it_equals_keras(norm, batches):
    theirs = keras.layers.BatchNormalization()
    theirs.build((None, 5, 3))
    theirs.set_weights(norm.get_weights())
    twice = Twice(norm)
    for found, x in zip(twice(*batches, training=False), batches, strict=True):
        np.testing.assert_array_equal(found, theirs(x))
    np.testing.assert_array_equal(
        norm(batches[0], training=True), theirs(batches[0], training=True)
    )
    np.testing.assert_array_equal(norm(batches[1]), theirs(batches[1]))
    for ours, other in zip(norm.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, other)


def test_the_gradient_goes_through_the_moments(norm, batches):
    """That of the further outputs, which depend on the batch through its moments alone."""
    twice = Twice(norm)
    batch, further = (tf.constant(x) for x in batches)
    weighting = tf.constant(np.random.default_rng(1).normal(size=(4, 5, 3)).astype(np.float32))
    with tf.GradientTape() as tape:
        tape.watch(batch)
        value = tf.reduce_sum(weighting * twice(batch, further, training=True)[1])
    found = tape.gradient(value, batch)
    with tf.GradientTape() as tape:
        exact = tf.cast(batch, tf.float64)
        tape.watch(exact)
        moments = tf.nn.moments(exact, [0, 1])
        scale = tf.cast(norm.gamma.value, tf.float64) / tf.sqrt(moments[1] + norm.epsilon)
        wanted = (tf.cast(further, tf.float64) - moments[0]) * scale
        value = tf.reduce_sum(tf.cast(weighting, tf.float64) * wanted)
    wanted = tape.gradient(value, exact)
    assert np.abs(wanted).max() > 1e-2  # there is something to compare
    # Every entry is made of sums of 35 and of 20 numbers, of the size of the largest entry.
    tolerance = (35 + 20) * EPS * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance)


def test_under_mixed_precision_it_returns_the_policys_dtype(mixed_bfloat16, batches):
    twice = Twice(BatchNormalization())
    for y in twice(*batches, training=True):
        assert y.dtype == tf.bfloat16
        assert np.isfinite(tf.cast(y, tf.float32)).all()


def test_config_round_trip():
    layer = BatchNormalization(momentum=0.9, name="mine")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is BatchNormalization
    assert again.get_config() == layer.get_config()
