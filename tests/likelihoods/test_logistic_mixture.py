"""The discretised mixture of logistics, against sums over all images and float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, log_softmax, logsumexp

from tfp_flowvae.likelihoods import DiscretizedLogisticMixture as Mixture

EPS = np.finfo(np.float32).eps


def _output(likelihood, channels, scale=1.0, seed=0, count=1):
    size = likelihood.output_channels(channels)
    rng = np.random.default_rng(seed)
    return (scale * rng.normal(size=(count, 1, 1, size))).astype(np.float32)


def _every_level(likelihood):
    return np.arange(likelihood.levels, dtype=np.float32) / np.float32(likelihood.levels - 1)


def _by_definition(output, x, levels, components):
    """log P of one pixel `[C]` as differences of the logistic function, in float64."""
    channels = len(x)
    parts = np.asarray(output, np.float64).reshape(-1, components)
    logits, a = parts[0], parts[1 : 1 + channels]
    low = np.log(0.2 / (levels - 1))
    s = np.exp(low + np.logaddexp(0, parts[1 + channels : 1 + 2 * channels] - low))
    slopes = iter(np.tanh(parts[1 + 2 * channels :]))
    y, h = 2 * np.asarray(x, np.float64) - 1, 1 / (levels - 1)
    log_joint = log_softmax(logits)
    for c in range(channels):
        m = a[c] + sum((next(slopes) * y[j] for j in range(c)), np.zeros(components))
        upper = 1.0 if y[c] > 1 - h else expit((y[c] + h - m) / s[c])
        lower = 0.0 if y[c] < h - 1 else expit((y[c] - h - m) / s[c])
        log_joint = log_joint + np.log(upper - lower)
    return logsumexp(log_joint)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_is_the_definition(channels, assert_same):
    likelihood = Mixture(levels=17, components=3)
    output = _output(likelihood, channels, count=30)
    x = np.random.default_rng(1).integers(0, 17, size=(30, 1, 1, channels)) / 16
    x[:2] = [[[[0.0] * channels]], [[[1.0] * channels]]]
    truth = [_by_definition(o.ravel(), v.ravel(), 17, 3) for o, v in zip(output, x, strict=True)]
    x = tf.constant(x, tf.float32)
    assert_same(np.float32(truth), lambda out: likelihood.log_prob(out, x), output)


def _assert_sums_to_one(log_prob, logits):
    """Probabilities add up to 1, but for the rounding of their logarithms.

    Neighbouring bins share their edge, whose rounding cancels. log p is a sum of numbers below 0,
    rounded some 20 times in all, and of logits less their log-sum-exp, rounded four times.
    """
    p = np.exp(log_prob.astype(np.float64))
    error = 20 * (1 + np.sum(p * np.abs(log_prob), axis=0)) + 4 * np.abs(logits).max()
    assert np.all(np.abs(p.sum(axis=0) - 1.0) < EPS * error)


@pytest.mark.parametrize("scale", [1.0, 5.0, 20.0])
def test_the_256_probabilities_sum_to_one(scale):
    likelihood = Mixture(components=5)
    output = _output(likelihood, 1, scale, count=20)
    x = _every_level(likelihood)[:, None, None, None, None]
    log_prob = likelihood.log_prob(output, x).numpy()
    assert log_prob.shape == (256, 20)
    _assert_sums_to_one(log_prob, output[..., :5])


def test_the_probabilities_of_all_colours_sum_to_one():
    likelihood = Mixture(levels=6, components=2)
    colours = np.array(list(itertools.product(_every_level(likelihood), repeat=3)))
    for scale in (0.5, 3.0):
        output = _output(likelihood, 3, scale, seed=4, count=3)
        log_prob = likelihood.log_prob(output, colours[:, None, None, None].astype(np.float32))
        _assert_sums_to_one(log_prob.numpy(), output[..., :2])


@pytest.mark.parametrize("log_scale", [-20.0, -7.0, -3.0, 0.0, 5.0, 20.0, 39.0])
@pytest.mark.parametrize("mean", [-50.0, -1.0, 0.1, 50.0])
def test_one_component_keeps_its_accuracy_in_the_tails(mean, log_scale):
    """Against log(F(u) - F(v)) by float64's logaddexp, where differences of F would be 0."""
    likelihood = Mixture(components=1)
    output = np.array([0.3, mean, log_scale], np.float32)[None, None, None]
    level = np.array([0, 1, 100, 254, 255])
    x = (level / 255).astype(np.float32)[:, None, None, None]
    with tf.GradientTape() as tape:
        watched = tf.constant(output)
        tape.watch(watched)
        log_prob = likelihood.log_prob(watched, x)
    low = np.log(0.2 / 255)
    s = np.exp(low + np.logaddexp(0, log_scale - low))
    m = np.float64(np.float32(mean))
    u, v = (2 * level + 1) / 255 - 1 - m, (2 * level - 1) / 255 - 1 - m
    truth = -np.logaddexp(0, -u / s) - np.logaddexp(0, v / s) + np.log(-np.expm1(-2 / 255 / s))
    truth[0], truth[-1] = -np.logaddexp(0, -u[0] / s), -np.logaddexp(0, v[-1] / s)
    # Sixteen roundings, and u and v are each rounded before s divides them.
    np.testing.assert_allclose(log_prob, truth, rtol=16 * EPS, atol=16 * EPS + 2 * EPS / s)
    assert np.all(np.isfinite(tape.gradient(log_prob, watched)))


def test_a_narrow_component_far_from_the_pixel_still_has_a_gradient():
    output = tf.constant([0.0, 0.9, -50.0])[None, None, None]
    with tf.GradientTape() as tape:
        tape.watch(output)
        log_prob = Mixture(components=1).log_prob(output, tf.zeros([1, 1, 1, 1]))
    slope = tape.gradient(log_prob, output)[0, 0, 0]
    assert slope[1] < -1000  # towards the pixel


def test_pixels_are_rounded_to_the_nearest_level():
    likelihood = Mixture(components=2)
    output = _output(likelihood, 1)
    x = _every_level(likelihood)[:, None, None, None]
    np.testing.assert_array_equal(
        likelihood.log_prob(output, x), likelihood.log_prob(output, x + 0.001)
    )


def test_samples_have_the_probabilities():
    likelihood = Mixture(levels=4, components=2)
    output = _output(likelihood, 2, seed=3)[0]
    sample = likelihood.distribution(output).sample(40_000, seed=1).numpy().reshape(-1, 2)
    cells = np.rint(3 * sample).astype(int)
    assert set(np.unique(sample)) == set(_every_level(likelihood))
    counts = np.bincount(4 * cells[:, 0] + cells[:, 1], minlength=16) / len(sample)
    x = np.array(list(itertools.product(_every_level(likelihood), repeat=2)), np.float32)
    probabilities = np.exp(likelihood.log_prob(output, x[:, None, None]))
    error = np.sqrt(probabilities * (1 - probabilities) / len(sample))
    assert np.all(np.abs(counts - probabilities) < 5 * error + 20 * EPS)


def test_samples_are_a_function_of_the_seed_and_differ_between_pixels():
    likelihood = Mixture(components=3)
    distribution = likelihood.distribution(tf.zeros([2, 4, 4, likelihood.output_channels(3)]))
    one, again, other = (
        distribution.sample(3, seed=tf.constant(s)) for s in ([1, 2], [1, 2], [2, 2])
    )
    assert one.shape == (3, 2, 4, 4, 3)
    np.testing.assert_array_equal(one, again)
    # Two independent draws agree with probability sum_k p_k^2; channels of zero slope too.
    x = _every_level(likelihood)[:, None, None, None]
    output = tf.zeros([1, 1, 1, likelihood.output_channels(1)])
    expected = np.sum(np.exp(likelihood.log_prob(output, x)) ** 2)
    for agree in (one == other, one[0] == one[1], one[..., 0] == one[..., 1]):
        error = 5 * np.sqrt(expected * (1 - expected) / agree.numpy().size)
        assert np.mean(agree) < expected + error


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_mean_of_grey_images_is_the_sum_over_levels(scale):
    likelihood = Mixture(components=3)
    output = _output(likelihood, 1, scale, count=20)
    x = _every_level(likelihood)
    probabilities = np.exp(likelihood.log_prob(output, x[:, None, None, None, None]))
    got = likelihood.mean(output)[:, 0, 0, 0]
    # Half a level, as the docstring says.
    np.testing.assert_allclose(got, x @ probabilities, rtol=0, atol=0.5 / 255)


def test_mean_of_colours_follows_the_channels():
    likelihood = Mixture(components=2)
    # Narrow logistics well inside: the linear rule is exact.
    output = np.zeros((1, 1, 20), np.float32)
    output[..., :2] = [0.0, 1.0]
    output[..., 2:8] = [-0.5, 0.4, 0.2, -0.1, 0.1, 0.3]
    output[..., 8:14] = -4.0
    output[..., 14:] = [0.5, -0.5, 0.3, 0.2, -0.4, 0.6]
    sample = likelihood.distribution(output).sample(20_000, seed=1)
    got = likelihood.mean(output)
    error = 5 * np.std(sample, axis=0) / np.sqrt(len(sample))
    assert np.all(np.abs(got - np.mean(sample, axis=0)) < error)
    assert np.ptp(got) > 0.05
