"""Properties of every likelihood, Bernoulli's numbers, and the refusals."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit
from tensorflow_probability import distributions as tfd

from tfp_flowvae.errors import UserError
from tfp_flowvae.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    ContinuousBernoulli,
    DiscretizedLogisticMixture,
    Gaussian,
    Likelihood,
    make_likelihood,
)
from tfp_flowvae.training.noise import Noise

EPS = np.finfo(np.float32).eps
SEED = tf.constant([1, 2])
NAMES = list(LIKELIHOODS)


def _small(name):
    return make_likelihood(name, levels=17, components=3)


def _output_and_images(likelihood, channels=3, scale=2.0):
    """`[2, 5, 4, 3, P]`, and images `[5, 4, 3, C]` on 17 levels with both ends among them."""
    rng = np.random.default_rng(0)
    shape = (2, 5, 4, 3, likelihood.output_channels(channels))
    output = (scale * rng.normal(size=shape)).astype(np.float32)
    x = rng.integers(0, 17, size=(5, 4, 3, channels)) / 16
    x[0, 0, :2] = [[0.0] * channels, [1.0] * channels]
    return tf.constant(output), tf.constant(x, tf.float32)


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_broadcasts_and_is_that_of_the_distribution(name, assert_same):
    likelihood = _small(name)
    output, x = _output_and_images(likelihood)
    prepared = likelihood.prepare(x, Noise(SEED))
    log_prob = likelihood.log_prob(output, prepared)
    assert log_prob.shape == (2, 5)
    for s in range(2):
        assert_same(log_prob[s], lambda out: likelihood.log_prob(out, prepared), output[s])
    distribution = likelihood.distribution(output)
    assert distribution.batch_shape == (2, 5)
    assert distribution.event_shape == (4, 3, 3)
    # A density is one of x'; a bin's width turns it into a probability.
    per_pixel = np.log(17) if "levels" in likelihood.get_config() and name != NAMES[-1] else 0.0
    truth = distribution.log_prob(prepared) - 4 * 3 * 3 * per_pixel
    assert_same(truth, lambda out: likelihood.log_prob(out, prepared), output)


@pytest.mark.parametrize("name", NAMES)
def test_mean_and_samples_are_images(name):
    likelihood = _small(name)
    for scale in (1.0, 50.0):
        output, _ = _output_and_images(likelihood, scale=scale)
        mean = likelihood.mean(output).numpy()
        assert mean.shape == (2, 5, 4, 3, 3)
        assert np.all((mean >= 0) & (mean <= 1))
    sample = likelihood.distribution(output).sample(seed=1)
    assert sample.shape == (2, 5, 4, 3, 3)
    assert sample.dtype == tf.float32


@pytest.mark.parametrize("name", NAMES)
def test_compiles_by_xla_to_the_same_numbers_and_gradients(name, assert_same):
    likelihood = _small(name)
    output, x = _output_and_images(likelihood)

    def terms(output, x, seed):
        with tf.GradientTape() as tape:
            tape.watch(output)
            log_prob = likelihood.log_prob(output, likelihood.prepare(x, Noise(seed)))
        return log_prob, tape.gradient(log_prob, output), likelihood.mean(output)

    compiled = tf.function(terms, jit_compile=True, autograph=False)(output, x, SEED)
    assert_same(compiled, lambda out: terms(out, x, SEED), output)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name, one_eps):
    likelihood = _small(name)
    output, x = _output_and_images(likelihood, scale=1.0)
    output, x = output[0, :1], likelihood.prepare(x[:1], Noise(SEED))
    direction = tf.constant(np.random.default_rng(3).normal(size=output.shape), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(output)
        log_prob = likelihood.log_prob(output, x)
    slope = float(tf.reduce_sum(tape.gradient(log_prob, output) * direction))

    def difference(step):
        up, down = (likelihood.log_prob(output + s * direction, x) for s in (step, -step))
        return float((up - down)[0]) / (2 * step)

    # A central difference errs by step^2, so that of twice the step is off by three times more.
    step = 1e-2
    rounding = 40 * one_eps(lambda out: likelihood.log_prob(out, x), output)[0] / step
    assert abs(slope - difference(step)) < abs(difference(2 * step) - difference(step)) + rounding
    assert rounding < 0.1 * abs(slope)  # or nothing would have been compared


@pytest.mark.parametrize("name", NAMES)
def test_is_finite_with_finite_gradients_at_the_extremes(name):
    likelihood = _small(name)
    size = likelihood.output_channels(2)
    corners = [-1e4, -50.0, -20.0, 0.0, 20.0, 50.0, 1e4]
    grid = np.stack(np.meshgrid(corners, corners, indexing="ij"), axis=-1).reshape(-1, 1, 1, 2)
    # Every pair of corners, in turn on neighbouring numbers of the output.
    output = tf.constant(np.tile(grid, (1, 1, 1, -(-size // 2)))[..., :size], tf.float32)
    for shift in range(2):
        for pixel in (0.0, 0.5, 1.0):
            rolled = tf.roll(output, shift, axis=-1)
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(rolled)
                log_prob = likelihood.log_prob(rolled, tf.fill([1, 1, 1, 2], pixel))
                mean = likelihood.mean(rolled)
            assert np.all(np.isfinite(log_prob))
            assert np.all(np.isfinite(tape.gradient(log_prob, rolled)))
            assert np.all(np.isfinite(mean))
            assert np.all(np.isfinite(tape.gradient(mean, rolled)))


@pytest.mark.parametrize("name", NAMES)
def test_sums_over_pixels_in_float32_under_low_precision(name):
    likelihood = _small(name)
    output, x = _output_and_images(likelihood)
    low = tf.cast(output, tf.bfloat16)
    log_prob = likelihood.log_prob(low, x)
    assert log_prob.dtype == tf.float32
    np.testing.assert_array_equal(log_prob, likelihood.log_prob(tf.cast(low, tf.float32), x))


@pytest.mark.parametrize("name", NAMES)
def test_serialises(name):
    likelihood = _small(name)
    config = keras.saving.serialize_keras_object(likelihood)
    assert config["registered_name"] == f"tfp_flowvae>{type(likelihood).__name__}"
    assert keras.saving.deserialize_keras_object(config) == likelihood
    assert hash(likelihood) == hash(_small(name))


def test_numbers_of_channels():
    for channels in (1, 2, 3, 4):
        sizes = [make_likelihood(name).output_channels(channels) for name in NAMES]
        mixture = 10 * (1 + 2 * channels + channels * (channels - 1) // 2)
        assert sizes == [channels, channels, 2 * channels, mixture]
        for name, size in zip(NAMES, sizes, strict=True):
            assert make_likelihood(name).image_channels(size) == channels
    with pytest.raises(ValueError, match=r"2, 4, 6, \.\.\. channels, .* an output of 3 channels\."):
        Gaussian().distribution(tf.zeros([1, 4, 4, 3]))
    with pytest.raises(ValueError, match=r"9, 18, 30, \.\.\. .* an output of 10 channels\."):
        DiscretizedLogisticMixture(components=3).log_prob(
            tf.zeros([1, 1, 1, 10]), tf.zeros([1] * 4)
        )


def test_discrete_is_true_with_levels_and_for_bernoulli():
    assert [make_likelihood(name).discrete for name in NAMES] == [True] * 4
    assert not ContinuousBernoulli(levels=None).discrete
    assert not Gaussian(levels=None).discrete


# ---- Bernoulli -----------------------------------------------------------------------------------


def test_bernoulli_is_tfds(rounding, assert_same):
    logits, x = _output_and_images(Bernoulli(), channels=1)
    x = tf.round(x)
    truth = tf.reduce_sum(tfd.Bernoulli(logits=logits).log_prob(x), axis=[-3, -2, -1])
    assert_same(truth, lambda out: Bernoulli().log_prob(out, x), logits)
    mean = Bernoulli().mean(logits)
    np.testing.assert_allclose(mean, expit(logits), **rounding(4, mean))  # exp, 1 +, 1 /
    sample = Bernoulli().distribution(logits).sample(seed=1)
    assert set(np.unique(sample)) == {0.0, 1.0}


def test_bernoulli_of_grey_levels_is_minus_the_cross_entropy(assert_same):
    logits, x = _output_and_images(Bernoulli(), channels=1)
    p = 1.0 / (1.0 + np.exp(-logits.numpy().astype(np.float64)))
    x = x.numpy()
    truth = (x * np.log(p) + (1 - x) * np.log(1 - p)).sum(axis=(-3, -2, -1))
    assert_same(truth.astype(np.float32), lambda out: Bernoulli().log_prob(out, x), logits)


def test_bernoulli_at_extreme_logits():
    logits = tf.constant([-1e4, -100.0, 0.0, 100.0, 1e4])[:, None, None, None]
    for x in (0.0, 1.0):
        wanted = [-abs(v) if (v > 0) != (x == 1.0) else 0.0 for v in (-1e4, -100, 0, 100, 1e4)]
        wanted[2] = -np.log(2)
        log_prob = Bernoulli().log_prob(logits, tf.fill([5, 1, 1, 1], x))
        # softplus is exact at the ends, or a number that float32 does not normalise.
        tiny = np.finfo(np.float32).tiny
        np.testing.assert_allclose(log_prob, wanted, rtol=2 * EPS, atol=tiny)


# ---- the registry --------------------------------------------------------------------------------


def test_make_likelihood_gives_the_class_with_its_options():
    assert make_likelihood("bernoulli", levels=None) == Bernoulli()
    assert make_likelihood("gaussian", levels=None) == Gaussian(levels=None)
    assert make_likelihood("continuous-bernoulli", levels=17) == ContinuousBernoulli(levels=17)
    mixture = make_likelihood("logistic-mixture", levels=17, components=2)
    assert mixture == DiscretizedLogisticMixture(levels=17, components=2)
    for name, entry in LIKELIHOODS.items():
        kind = entry.load()
        assert issubclass(kind, Likelihood)
        fields = make_likelihood(name).get_config()
        assert entry.takes_levels == ("levels" in fields)
        assert set(entry.options) == set(fields)
        for key, option in entry.options.items():
            assert option.read(option.default) == getattr(kind(), key)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: make_likelihood("gausian"),
            r"^Unknown likelihood 'gausian'.*Did you mean 'gaussian'\?",
        ),
        (
            lambda: make_likelihood("logistic-mixture", levels=None),
            r"take continuous-bernoulli or gaussian for .* Received: levels=None\.$",
        ),
        (lambda: Gaussian(levels=1), r"from 2 to 65536, or None .* Received: 1\.$"),
        (lambda: Gaussian(levels=16.0), r"Received: 16\.0\.$"),
        (lambda: DiscretizedLogisticMixture(levels=None), r"from 2 to 65536\. Received: None\.$"),
        (lambda: DiscretizedLogisticMixture(components=0), r"from 1 up\. Received: 0\.$"),
    ],
)
def test_refuses_values(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_the_registry_loads_nothing_heavy():
    script = (
        "import sys\n"
        "from tfp_flowvae.likelihoods import LIKELIHOODS, make_likelihood\n"
        "assert not {'tensorflow', 'keras', 'tensorflow_probability'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- data that does not fit ----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_fitting_data_is_accepted(name):
    levels = np.arange(17, dtype=np.uint8).reshape(1, 17, 1, 1)
    for images, count in [(levels, 17), (levels.astype(np.float32) / np.float32(16), None)]:
        _small(name).check_data(images, count)
    make_likelihood(name).check_data(np.zeros((1, 2, 2, 1), np.uint8), 2)  # binary is 8-bit too
    make_likelihood(name).check_data(np.arange(256.0).reshape(1, 16, 16, 1) / 255)
    make_likelihood(name).check_data(np.zeros((0, 2, 2, 1), np.float32))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("values", "levels", "message"),
    [
        ([0, 255], None, r"pixels in \[0, 1\]: divide 8-bit images by 255\. .* 0 to 255\.$"),
        ([-0.5, 0.5], None, r"pixels in \[0, 1\]\. Received: values from -0\.5 to 0\.5\.$"),
        ([0.5, np.nan], None, r"Received: values from nan to nan\.$"),
        ([0, 17], 17, r"pixels in \[0, 16\]\. Received: values from 0 to 17\.$"),
    ],
)
def test_refuses_pixels_out_of_range(name, values, levels, message):
    images = np.array(values, np.uint8 if min(values) == 0 else np.float32).reshape(1, 2, 1, 1)
    with pytest.raises(UserError, match=message):
        _small(name).check_data(images, levels)


@pytest.mark.parametrize("name", [name for name in NAMES if LIKELIHOODS[name].takes_levels])
def test_refuses_pixels_between_its_levels(name):
    message = (
        r"with levels=256 needs pixels k / 255 for whole k: .* Received: a pixel of 0\.0625\.$"
    )
    with pytest.raises(UserError, match=message):
        make_likelihood(name).check_data(np.arange(17, dtype=np.uint8).reshape(1, 17, 1, 1), 17)
    with pytest.raises(UserError, match=message):
        make_likelihood(name).check_data(np.array([0.0, 0.0625], np.float32).reshape(1, 2, 1, 1))


def test_without_levels_any_intensity_will_do():
    images = np.random.default_rng(0).uniform(size=(2, 3, 3, 1))
    Gaussian(levels=None).check_data(images)
    ContinuousBernoulli(levels=None).check_data(images)


class _Anything(Likelihood):
    def distribution(self, output):
        return tfd.Independent(tfd.Normal(output, 1.0), 3)

    def mean(self, output):
        return output


def test_a_likelihood_of_ones_own_takes_whatever_is_finite(rounding):
    mine, x = _Anything(), tf.ones([2, 3, 3, 1])
    assert mine.output_channels(3) == 3
    assert not mine.discrete
    assert mine.prepare(x, Noise(SEED)) is x
    log_prob = mine.log_prob(tf.zeros([2, 3, 3, 1]), x)
    wanted = np.full(2, -4.5 * (1 + np.log(2 * np.pi)))
    np.testing.assert_allclose(log_prob, wanted, **rounding(3 * 3, log_prob))
    mine.check_data(np.full((1, 2, 2, 1), -7.0))
    with pytest.raises(UserError, match="finite numbers"):
        mine.check_data(np.full((1, 2, 2, 1), np.inf))
