from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.distributions import Tril
from tfp_flowvae.distributions.full_covariance import FullCovarianceNormal

tfd = tfp.distributions

# Four times a product and a sum, of the noise and of the log-density, on either way.
ROUNDINGS = 2 * 2 * 4 * 2


@pytest.fixture
def pair():
    """Ours and TFP's, batch `[3]`, D = 4."""
    rng = np.random.default_rng(0)
    scale = np.tril(rng.normal(size=(3, 4, 4)), -1) + np.eye(4) * rng.uniform(0.3, 2, (3, 1, 4))
    loc = rng.normal(size=(3, 4))
    return FullCovarianceNormal(tf.constant(loc), tf.constant(scale)), tfd.MultivariateNormalTriL(
        loc, scale
    )


def test_agrees_with_tfps(pair, rounding, one_eps, assert_within):
    ours, theirs = pair

    def log_prob(given):
        loc, scale, z = given
        return tfd.MultivariateNormalTriL(loc, scale).log_prob(z)

    z = tf.constant(np.random.default_rng(1).normal(size=(7, 1, 4)))
    unit = one_eps(log_prob, (ours.loc, ours.scale_tril, z))
    assert_within(ours.log_prob(z), theirs.log_prob(z), unit, n=ROUNDINGS)
    for name in ("mean", "variance", "covariance", "stddev"):
        wanted = getattr(theirs, name)()
        # Sums of D squares; a root makes no more of their errors where they are above 0.3^2.
        np.testing.assert_allclose(getattr(ours, name)(), wanted, **rounding(2 * 4, wanted))
    assert ours.batch_shape == theirs.batch_shape == [3]
    assert ours.event_shape == theirs.event_shape == [4]


def test_draws_have_its_moments_and_its_density(pair, one_eps, assert_within):
    ours, _ = pair
    z, log_prob = ours.experimental_sample_and_log_prob(40_000, seed=[1, 2])
    unit = one_eps(
        lambda given: FullCovarianceNormal(*given).log_prob(z), (ours.loc, ours.scale_tril)
    )
    assert_within(log_prob, ours.log_prob(z), unit, n=ROUNDINGS)
    np.testing.assert_array_equal(z, ours.sample(40_000, seed=[1, 2]))
    away = z - ours.mean()
    for found, wanted in (
        (away, np.zeros((3, 4))),
        (np.einsum("nbi,nbj->nbij", away, away), ours.covariance()),
    ):
        error = 5 * np.std(found, axis=0) / np.sqrt(len(found))
        assert np.all(np.abs(np.mean(found, axis=0) - wanted) < error)


def test_any_batch_size_in_a_graph(assert_same):
    layer = Tril(event_size=3, context_size=5)
    layer.build()

    @tf.function(input_signature=[tf.TensorSpec([None, 5])])
    def draw(features):
        z, log_prob = layer.distribution(features).experimental_sample_and_log_prob(2, seed=[0, 1])
        return z, log_prob, layer.distribution(features).log_prob(z)

    for size in (4, 0):
        features = tf.random.normal([size, 5])
        z, log_prob, again = draw(features)
        assert z.shape == (2, size, 3)
        for found in (log_prob, again):
            assert_same(found, lambda z, h: layer.distribution(h).log_prob(z), layer, z, features)


def test_starts_without_correlation_and_can_learn_any():
    layer = Tril(event_size=3, context_size=5)
    layer.build()
    features = tf.random.normal([2, 5])
    base = layer.distribution(features)
    _, diagonal = layer._loc_and_scale(features)
    np.testing.assert_array_equal(base.scale_tril, tf.linalg.diag(diagonal))
    layer._below.set_weights([np.zeros((5, 3)), np.arange(1.0, 4.0)])
    scale = layer.distribution(features).scale_tril.numpy()
    np.testing.assert_array_equal(scale[:, [1, 2, 2], [0, 0, 1]], [[1, 2, 3]] * 2)
    assert np.all(np.triu(scale, 1) == 0)


def test_needs_a_context():
    with pytest.raises(ValueError, match=r"use the flow 'lu'.*Received: context_size=None"):
        Tril(event_size=3).build()
