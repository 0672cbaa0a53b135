"""The likelihoods with a density: their integrals, means, and the dequantisation bound."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, special, stats
from tensorflow_probability import distributions as tfd

from tfp_flowvae.likelihoods import ContinuousBernoulli, Gaussian
from tfp_flowvae.training.noise import Noise

LOGITS = np.array(
    [0.0, 1e-30, 1e-8, -1e-6, 1e-4, -1e-3, 0.01, 0.1, -0.5, 0.99, 1.0, -1.01, 3, -9, 30, -80, 500]
).astype(np.float32)


EPS = np.finfo(np.float32).eps


def _image(values):
    """One pixel an image: `[N, 1, 1, 1]`."""
    return tf.constant(np.reshape(values, (-1, 1, 1, 1)), tf.float32)


def _log_normalizer(logit):
    """log of the integral of e^(l x) over [0, 1], by quadrature in float64."""
    logit = float(logit)
    shift = max(logit, 0.0)  # the integrand is at most 1, its mass within 1 / |l| of an end
    width = min(1.0, 40.0 / max(abs(logit), 1e-9))
    ends = (1.0 - width, 1.0) if logit > 0 else (0.0, width)
    return shift + np.log(integrate.quad(lambda x: np.exp(logit * x - shift), *ends)[0])


def _mean(logit):
    """The mean of the density of e^(l x) on [0, 1], by quadrature in float64."""
    away = abs(float(logit))
    end = min(1.0, 40.0 / max(away, 1e-9))
    mass = integrate.quad(lambda x: np.exp(-away * x), 0.0, end)[0]
    below = integrate.quad(lambda x: x * np.exp(-away * x), 0.0, end)[0]
    return below / mass if logit < 0 else 1.0 - below / mass


# Three roundings of terms of at most |l| and log(1 + |l|), and what is left out of the series.
DENSITY_ERROR = 3 * EPS * (np.abs(LOGITS) + np.log1p(np.abs(LOGITS))) + 3e-9
MEAN_ERROR = 4 * EPS  # four roundings of terms of at most 1


def test_continuous_bernoulli_integrates_to_one():
    likelihood = ContinuousBernoulli(levels=None)
    for x in (0.0, 0.3, 1.0):
        truth = [float(v) * x - _log_normalizer(v) for v in LOGITS]
        got = likelihood.log_prob(_image(LOGITS), _image([x]))
        assert np.all(np.abs(got - np.array(truth)) <= DENSITY_ERROR)


def test_continuous_bernoulli_is_tfds_with_the_gradients_of_its_mean():
    likelihood, x = ContinuousBernoulli(levels=None), _image([0.3])
    logits = _image(LOGITS)
    theirs = tfd.ContinuousBernoulli(logits=tf.constant(LOGITS, tf.float64), dtype=tf.float64)
    truth = theirs.log_prob(tf.constant(np.float32(0.3), tf.float64)).numpy()
    assert np.all(np.abs(likelihood.log_prob(logits, x).numpy() - truth) <= DENSITY_ERROR)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        log_prob = likelihood.log_prob(logits, x)
    slope = tape.gradient(log_prob, logits)[:, 0, 0, 0]
    # An exponential family: d log p / dl = x - E[x].
    wanted = np.float32(0.3) - np.array([_mean(logit) for logit in LOGITS])
    np.testing.assert_allclose(slope, wanted, rtol=0, atol=MEAN_ERROR)


def test_continuous_bernoulli_mean_is_that_of_the_density():
    got = ContinuousBernoulli(levels=None).mean(_image(LOGITS))[:, 0, 0, 0]
    truth = [_mean(logit) for logit in LOGITS]
    np.testing.assert_allclose(got, truth, rtol=0, atol=MEAN_ERROR)
    mean = ContinuousBernoulli(levels=None).mean(_image([5.0])).numpy().item()
    assert f"{mean:.2f}" == "0.81"  # what the docstring says


def test_gaussian_is_scipys(rounding, one_eps, assert_within):
    output = np.random.default_rng(0).normal(size=(7, 1, 1, 2)).astype(np.float32)
    x = np.linspace(0, 1, 7, dtype=np.float32)
    likelihood = Gaussian(levels=None)
    mean, scale = (
        special.expit(output[..., 0]),
        1 / (256 * 12**0.5) + np.log1p(np.exp(output[..., 1])),
    )
    truth = stats.norm(mean.ravel(), scale.ravel()).logpdf(x).astype(np.float32)
    unit = one_eps(lambda given: likelihood.log_prob(*given), (output, _image(x)))
    assert_within(likelihood.log_prob(output, _image(x)), truth, unit, n=10)
    found = likelihood.mean(output)[..., 0]
    np.testing.assert_allclose(found, mean, **rounding(4, found))  # exp, 1 +, 1 /


def test_gaussians_channels_are_the_means_then_the_scales(rounding):
    output = tf.constant([-1.0, 0.0, 1.0, -3.0, -4.0, -5.0])[None, None, None]
    distribution = Gaussian(levels=None).distribution(output)
    mean, stddev = distribution.mean()[0, 0, 0], distribution.stddev()[0, 0, 0]
    # An exponential, a sum and a quotient or a logarithm; and s_min.
    np.testing.assert_allclose(mean, special.expit([-1.0, 0.0, 1.0]), **rounding(4, mean))
    scales = Gaussian().smallest_scale + np.log1p(np.exp([-3.0, -4.0, -5.0]))
    np.testing.assert_allclose(stddev, scales, **rounding(4, stddev))


def test_no_smaller_scale_than_gaussians_smallest_would_score_better():
    levels, mean = 17, 3.5 / 17
    u = (np.arange(2000) + 0.5) / 2000
    x = (3 + u) / levels

    def score(scale):
        return stats.norm(mean, scale).logpdf(x).mean()

    smallest = Gaussian(levels=levels).smallest_scale
    scores = [score(factor * smallest) for factor in (0.3, 0.8, 0.95, 1.0, 1.05, 1.5)]
    assert np.argmax(scores) == 3


# ---- dequantisation ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ContinuousBernoulli, Gaussian])
@pytest.mark.parametrize("levels", [2, 17, 256])
def test_prepare_draws_from_the_levels_bin(kind, levels):
    likelihood = kind(levels=levels)
    k = np.arange(levels, dtype=np.float32)
    x = tf.constant(np.tile(k / np.float32(levels - 1), (400, 1))[:, :, None, None])
    u = levels * likelihood.prepare(x, Noise(tf.constant([3, 4]))).numpy()[:, :, 0, 0] - k
    error = 2 * levels * EPS  # k + u is rounded, and its quotient by L
    assert np.all((u > -error) & (u < 1 + error))
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    # No draw comes twice: a correlation of n independent pairs has a standard error of n^-1/2.
    assert abs(np.corrcoef(u[:-1].ravel(), u[1:].ravel())[0, 1]) < 5 / np.sqrt(u[1:].size)


def test_prepare_is_a_function_of_the_seed(rounding):
    x = tf.fill([4, 3, 3, 1], 0.5)

    def draw(x, seed):
        return Gaussian(levels=17).prepare(x, Noise(seed))

    one, again, other = (draw(x, tf.constant(seed)) for seed in ([1, 2], [1, 2], [1, 3]))
    np.testing.assert_array_equal(one, again)
    assert np.all(one != other)
    compiled = tf.function(draw, jit_compile=True, autograph=False)(x, tf.constant([1, 2]))
    np.testing.assert_allclose(one, compiled, **rounding(2, one))  # a sum and a quotient
    # Not the numbers that the seed gives to whoever uses it as it is.
    bits = tf.random.stateless_uniform(x.shape, [1, 2], None, None, tf.int32, alg="philox")
    plain = (8 + (bits.numpy() & 0xFFFFFF) / 2**24) / 17
    assert np.all(np.abs(one - plain) > 2 * EPS)
    np.testing.assert_array_equal(Gaussian(levels=None).prepare(x, Noise(tf.constant([1, 2]))), x)


@pytest.mark.parametrize("levels", [17, 256])
@pytest.mark.parametrize(
    ("kind", "output", "cdf"),
    [
        (ContinuousBernoulli, [4.0], lambda x: np.expm1(4 * x) / np.expm1(4)),
        (ContinuousBernoulli, [-60.0], lambda x: np.expm1(-60 * x) / np.expm1(-60)),
        (Gaussian, [0.4, -3.0], None),
        (Gaussian, [-1.0, -9.0], None),
    ],
)
def test_dequantised_log_prob_bounds_the_bins_log_probability(levels, kind, output, cdf, one_eps):
    """E_u[log_prob] <= log P(k) for every level, near it where the density is flat in the bin."""
    likelihood = kind(levels=levels)
    if cdf is None:
        scale = likelihood.smallest_scale + np.log1p(np.exp(output[1]))
        cdf = stats.norm(special.expit(output[0]), scale).cdf
    edges = np.arange(levels + 1) / levels
    density = np.diff(cdf(edges))
    seen = density > 1e-12  # further out float64 has no log P(k) to compare with
    exact = np.log(density[seen])
    midpoints = (np.arange(64) + 0.5) / 64
    x = (np.arange(levels)[seen, None] + midpoints) / levels

    def mean_log_prob(given):
        output, pixels = given
        log_prob = likelihood.log_prob(output[None, None, None], pixels)
        return tf.reduce_mean(tf.reshape(log_prob, x.shape), axis=1)

    given = tf.constant(output), _image(x)
    bound = mean_log_prob(given).numpy()
    # Some ten functions, of an output and pixels that are in float32.
    error = 10 * one_eps(mean_log_prob, given)[0]
    assert error < 0.01
    assert np.all(bound <= exact + error)
    if kind is ContinuousBernoulli:  # log p is linear in x: the gap is log(sinh(a) / a)
        a = abs(output[0]) / (2 * levels)
        np.testing.assert_allclose(exact - bound, np.log(np.sinh(a) / a), rtol=0, atol=error)
    assert np.sum(np.exp(bound)) <= 1 + error


def test_the_constant_counts_every_pixel_and_channel(rounding):
    output = tf.zeros([2, 3, 5, 2])
    with_levels, without = (
        ContinuousBernoulli(levels=levels).log_prob(output, tf.fill([2, 3, 5, 2], 0.4))
        for levels in (256, None)
    )
    np.testing.assert_array_equal(without, [0.0, 0.0])  # uniform on [0, 1]
    wanted = np.full(2, -3 * 5 * 2 * np.log(256))
    np.testing.assert_allclose(with_levels, wanted, **rounding(3 * 5 * 2, with_levels))


@pytest.mark.parametrize(
    ("likelihood", "output"),
    [(ContinuousBernoulli(levels=17), [-9.0]), (Gaussian(levels=17), [0.3, -2.0])],
)
def test_mean_is_on_the_scale_of_the_images(likelihood, output):
    output = tf.constant(output)[None, None]
    many = tf.broadcast_to(output, [40_000, *output.shape])
    level = 16 * likelihood.sample(many, tf.constant([1, 0])).numpy()
    assert level.min() >= 0
    assert level.max() <= 16
    assert np.abs(level - np.rint(level)).max() <= 16 * np.finfo(np.float32).eps
    # Five standard errors; and a density of slope p' / p within a bin of width 1 / L has its mean
    # p' / p / (12 L^2) from the centre, which is for no level above that of -9.
    error = 5 * np.std(level / 16) / np.sqrt(level.size) + 9 / (12 * 17 * 16)
    assert abs(likelihood.mean(output).numpy().item() - np.mean(level / 16)) < error
    # A pixel known to be white is shown white, not 16.5 / 17.
    white = tf.constant([50.0, -50.0] if isinstance(likelihood, Gaussian) else [5000.0])
    assert likelihood.mean(white[None, None]).numpy().item() == 1.0
