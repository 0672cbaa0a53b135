from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.models import Bernoulli

tfd = tfp.distributions


def _logits_and_images(scale=3.0):
    rng = np.random.default_rng(0)
    logits = (scale * rng.normal(size=(2, 5, 4, 3, 1))).astype(np.float32)
    return logits, rng.integers(0, 2, size=(5, 4, 3, 1)).astype(np.float32)


def test_log_prob_is_that_of_tfds_bernoulli():
    logits, x = _logits_and_images()
    truth = tf.reduce_sum(tfd.Bernoulli(logits=logits).log_prob(x), axis=[-3, -2, -1])
    mine = Bernoulli().log_prob(logits, x)
    assert mine.shape == (2, 5)
    np.testing.assert_allclose(mine, truth, rtol=1e-5)
    np.testing.assert_allclose(Bernoulli().distribution(logits).log_prob(x), truth, rtol=1e-5)


def test_log_prob_of_grey_levels_is_minus_the_cross_entropy():
    logits, _ = _logits_and_images()
    x = np.random.default_rng(1).uniform(size=(5, 4, 3, 1)).astype(np.float32)
    p = 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
    truth = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=(-3, -2, -1))
    np.testing.assert_allclose(Bernoulli().log_prob(logits, x), truth, rtol=1e-5)


def test_is_finite_with_finite_gradients_at_extreme_logits():
    logits = tf.constant([-1e4, -100.0, 0.0, 100.0, 1e4])[:, None, None, None]
    for x in (0.0, 1.0):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            log_prob = Bernoulli().log_prob(logits, tf.fill([5, 1, 1, 1], x))
        wanted = [-abs(v) if (v > 0) != (x == 1.0) else 0.0 for v in (-1e4, -100, 0, 100, 1e4)]
        wanted[2] = -np.log(2)
        np.testing.assert_allclose(log_prob, wanted, rtol=1e-6, atol=1e-6)
        assert np.all(np.isfinite(tape.gradient(log_prob, logits)))


def test_distribution_and_mean():
    logits, _ = _logits_and_images()
    distribution = Bernoulli().distribution(logits)
    assert distribution.batch_shape == (2, 5)
    assert distribution.event_shape == (4, 3, 1)
    np.testing.assert_allclose(Bernoulli().mean(logits), distribution.mean(), rtol=1e-6)
    sample = distribution.sample(seed=1)
    assert sample.dtype == tf.float32
    assert set(np.unique(sample)) == {0.0, 1.0}


def test_sums_over_pixels_in_float32_under_low_precision():
    logits, x = _logits_and_images()
    low = tf.cast(logits, tf.bfloat16)
    log_prob = Bernoulli().log_prob(low, x)
    assert log_prob.dtype == tf.float32
    np.testing.assert_allclose(log_prob, Bernoulli().log_prob(tf.cast(low, tf.float32), x))


def test_serialises():
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(Bernoulli()))
    assert again == Bernoulli()


def test_takes_one_number_a_pixel():
    assert Bernoulli.params == 1
    with pytest.raises(TypeError):
        Bernoulli(params=2)
