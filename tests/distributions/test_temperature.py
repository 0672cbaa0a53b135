"""The temperature of draws, and paths between points, in the space of a base."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb
from tensorflow_probability import distributions as tfd

from tfp_flowvae import FlowDistribution
from tfp_flowvae.distributions import interpolate
from tfp_flowvae.errors import UserError

D = 3
EPS = float(np.finfo(np.float32).eps)


def exponential():
    return tfd.Independent(tfd.Exponential([1.0, 2.0, 4.0]), 1)


def built(flow, base, stir, context_size=None):
    layer = FlowDistribution(flow, base, event_size=D, context_size=context_size)
    layer.build((None, D), None if context_size is None else (None, context_size))
    return stir(layer)


@pytest.mark.parametrize("base", ["normal", "mixture:3", exponential])
def test_a_temperature_of_1_changes_nothing(base, stir):
    layer = built("none", base, stir)
    plain = layer.sample(50, seed=1)
    np.testing.assert_array_equal(layer.sample(50, seed=1, temperature=1.0), plain)
    assert layer.has_temperature


@pytest.mark.parametrize("base", ["normal", "tril"])
def test_the_noise_of_a_normal_is_scaled_about_its_mean(base, stir):
    context = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)
    layer = built("none", base, stir, context_size=4)
    warm, hot, mean = (layer.sample(9, context, 1, t) for t in (1.0, 3.0, 0.0))
    normal = layer.distribution(context).distribution
    np.testing.assert_array_equal(mean, np.broadcast_to(normal.mean(), (9, 2, D)))
    # m + 3 (z - m): a few roundings of numbers of the size of the largest.
    tolerance = 8 * EPS * np.abs(hot).max()
    np.testing.assert_allclose(hot, mean + 3.0 * (warm - mean), rtol=0, atol=tolerance)


def test_a_draw_of_a_mixture_stays_with_its_component(stir):
    layer = built("none", "mixture:3", stir)
    mixture = layer.distribution().distribution
    cold, warm = (layer.sample(300, seed=1, temperature=t) for t in (0.0, 1.0))
    means = mixture.components_distribution.mean().numpy()
    component = np.argmin(np.abs(cold[:, np.newaxis] - means).max(axis=-1), axis=-1)
    np.testing.assert_array_equal(cold, means[component])
    assert set(component) == {0, 1, 2}
    half = layer.sample(300, seed=1, temperature=0.5)
    tolerance = 8 * EPS * np.abs(warm).max()
    np.testing.assert_allclose(half, 0.5 * (cold + warm), rtol=0, atol=tolerance)


def test_a_mixture_from_noise_has_the_weights_and_components_of_the_mixture(stir):
    mixture = built("none", "mixture:3", stir).distribution().distribution
    weights = mixture.mixture_distribution.probs_parameter().numpy()
    n = 20_000
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(n, D)).astype(np.float32)
    z = mixture.from_noise(noise, rng.uniform(size=n).astype(np.float32)).numpy()
    # Means and variances: five standard errors of n draws, whose fourth moment is that of z.
    error = 5 * z.std(axis=0) / np.sqrt(n)
    np.testing.assert_array_less(np.abs(z.mean(axis=0) - mixture.mean()), error)
    squares = (z - z.mean(axis=0)) ** 2
    error = 5 * squares.std(axis=0) / np.sqrt(n)
    np.testing.assert_array_less(np.abs(squares.mean(axis=0) - mixture.variance()), error)
    # Just below and above the first cumulative weight are the first and the second component.
    near = np.float32(weights[0]) + np.float32([-1e-3, 1e-3])
    centres = mixture.from_noise(np.zeros([2, D], np.float32), near)
    np.testing.assert_array_equal(centres, mixture.components_distribution.mean()[:2])


def test_a_flow_moves_the_tempered_draws_of_its_base(stir):
    layer = built("realnvp:2,hidden=8", exponential, stir)
    distribution = layer.distribution()
    base = distribution.distribution
    z0 = base.sample(20, seed=tf.constant([5, 0]))
    wanted = distribution.bijector.forward(0.25 * z0 + 0.75 * base.mean())
    got = layer.sample(20, seed=5, temperature=0.25)
    np.testing.assert_array_equal(got, wanted)


def test_a_distribution_without_a_mean_has_no_temperature():
    class Odd(tfd.Normal):
        def _mean(self):
            raise NotImplementedError

    odd = FlowDistribution("none", tfd.Independent(Odd(tf.zeros(D), 1.0), 1), event_size=D)
    odd.build((None, D))
    with pytest.raises(UserError, match=r"needs a base with a mean.* leave the temperature out"):
        odd.sample(2, seed=0, temperature=0.5)
    assert not odd.has_temperature
    cauchy = FlowDistribution("none", tfd.Independent(tfd.Cauchy(tf.zeros(D), 1.0), 1))
    cauchy.build((None, D))
    assert not cauchy.has_temperature


def test_a_vamp_prior_is_scaled_about_the_means_of_its_components(make_vae, stir):
    vae = stir(make_vae("none", "vamp"))
    cold = vae.prior_layer.sample(40, seed=1, temperature=0.0)
    means = vae.prior().distribution.components_distribution.mean()
    distance = np.abs(cold[:, np.newaxis] - means).max(axis=-1).min(axis=-1)
    np.testing.assert_array_equal(distance, 0.0)
    assert vae.sample(2, 0, temperature=0.7).shape == (2, 8, 8, 1)


def test_paths_are_arcs_around_the_origin_of_a_normal_base(stir):
    layer = built("realnvp:2,hidden=8", "normal", stir)
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 5, D)).astype(np.float32)
    path = interpolate(layer, first, second, 7)
    assert path.shape == (7, 5, D)
    bijector = layer.distribution().bijector
    e = bijector.inverse(tf.identity(path)).numpy().astype(np.float64)
    norms = np.linalg.norm(e, axis=-1)
    t = np.linspace(0, 1, 7)[:, np.newaxis]
    # Both directions of the flow and the arc round some tens of times.
    tolerance = 100 * EPS * np.abs(e).max()
    np.testing.assert_allclose(norms, (1 - t) * norms[0] + t * norms[-1], rtol=0, atol=tolerance)
    u = e / norms[..., np.newaxis]
    turns = np.arccos(np.sum(u[1:] * u[:-1], axis=-1))
    # The arc cosine's slope at the angle a is 1 / sin(a).
    slack = tolerance / np.sin(turns).min()
    np.testing.assert_allclose(turns, np.broadcast_to(turns.mean(axis=0), turns.shape), atol=slack)
    np.testing.assert_allclose(path[0], first, rtol=0, atol=tolerance)
    np.testing.assert_allclose(path[-1], second, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([1.0, 2.0, 0.0], [1.0, 2.0, 0.0]),
        ([0.0, 0.0, 0.0], [1.0, 2.0, 0.0]),
        ([1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]),
        ([1.0, 0.0, 0.0], [1.0, 1e-7, 0.0]),
    ],
)
def test_arcs_between_the_same_or_opposite_points_or_from_the_origin_are_finite(first, second):
    layer = FlowDistribution("none", event_size=D)
    layer.build((None, D))
    path = interpolate(layer, [first], [second], 5).numpy()[:, 0]
    assert np.all(np.isfinite(path))
    np.testing.assert_allclose(path[0], first, rtol=0, atol=8 * EPS * 2)
    np.testing.assert_allclose(path[-1], second, rtol=0, atol=8 * EPS * 2)


@pytest.mark.parametrize("base", ["mixture:3", exponential])
def test_paths_are_straight_for_other_bases(base, stir):
    layer = built("none", base, stir)
    ends = np.float32([[[1.0, 2.0, 3.0]], [[3.0, 0.0, 2.0]]])
    path = interpolate(layer, *ends, 3)
    np.testing.assert_allclose(path[1], ends.mean(axis=0), rtol=0, atol=4 * EPS * 3)


def test_paths_go_through_a_bijector_of_ones_own(stir):
    layer = built(tfb.Exp(), "normal", stir)
    path = interpolate(layer, [[1.0, np.e, 1.0]], [[np.e, 1.0, 1.0]], 3).numpy()[1, 0]
    # Half way from (0, 1, 0) to (1, 0, 0) on the circle.
    half = np.exp(np.sqrt(0.5))
    np.testing.assert_allclose(path, [half, half, 1.0], rtol=32 * EPS)
