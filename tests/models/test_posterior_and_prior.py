"""The two distributions over z, alone: the model's tests have them together."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.flows import FLOWS, make_flow
from tfp_flowvae.models import FlowPosterior, FlowPrior

tfd = tfp.distributions

D, F, B = 4, 6, 5
# What tfd.TransformedDistribution answers with: itself, or this base where a part of it is no
# CompositeTensor.
TRANSFORMED = tfd.TransformedDistribution.__mro__[1]
EVERY_FLOW = pytest.mark.parametrize("name", FLOWS)


@EVERY_FLOW
def test_posterior_shapes(name, small_spec, stir):
    layer = FlowPosterior(make_flow(small_spec(name), D, F))
    layer.build()
    posterior = stir(layer).distribution(tf.random.normal([B, F]))
    assert isinstance(posterior, TRANSFORMED)
    assert posterior.batch_shape == [B]
    assert posterior.event_shape == [D]
    z = posterior.sample(3, seed=1)
    assert z.shape == (3, B, D)
    assert posterior.log_prob(tf.identity(z)).shape == (3, B)


def test_posterior_base_is_linear_in_the_features_with_a_positive_scale():
    layer = FlowPosterior(make_flow("none", D, F))
    layer.build()
    zero = layer.distribution(tf.zeros([1, F]))
    np.testing.assert_allclose(zero.distribution.mean(), np.zeros((1, D)))
    np.testing.assert_allclose(zero.distribution.stddev(), np.ones((1, D)), rtol=1e-6)
    for weight in layer.weights:
        weight.assign(tf.random.normal(weight.shape))
    features = 10 * tf.random.normal([B, F])
    loc, scale = layer(features)
    halfway = layer((features[:1] + features[1:2]) / 2)[0]
    np.testing.assert_allclose(halfway, (loc[:1] + loc[1:2]) / 2, rtol=1e-4, atol=1e-4)
    assert np.all(scale > 0)
    assert scale.shape == loc.shape == (B, D)


@EVERY_FLOW
def test_prior_is_unbatched_with_live_and_complete_variables(name, small_spec, stir):
    layer = FlowPrior(make_flow(small_spec(name), D))
    layer.build()
    prior = stir(layer).distribution()
    assert isinstance(prior, TRANSFORMED)
    assert prior.batch_shape == []
    assert prior.event_shape == [D]
    seen = [id(variable) for variable in prior.trainable_variables]
    assert sorted(seen) == sorted(id(weight.value) for weight in layer.trainable_weights)
    z = tf.random.normal([3, 2, D])
    before = prior.log_prob(tf.identity(z))
    np.testing.assert_allclose(layer(z), before, rtol=1e-5, atol=1e-5)
    stir(layer, scale=1.0, seed=1)
    after = prior.log_prob(tf.identity(z))
    np.testing.assert_allclose(layer(z), after, rtol=1e-4, atol=1e-4)
    # Reflections leave a standard normal as it is; every other weight must show the change.
    moved = np.max(np.abs(after - before)) > 1e-3
    assert moved == bool(layer.trainable_weights and name != "householder")


@EVERY_FLOW
def test_priors_density_integrates_to_one(name, small_spec, stir):
    """By importance sampling from a wider normal, in two dimensions."""
    layer = FlowPrior(make_flow(small_spec(name), 2))
    layer.build()
    stir(layer, scale=0.15)
    proposal = tfd.MultivariateNormalDiag(tf.zeros(2), tf.fill([2], 2.5))
    z = proposal.sample(40_000, seed=1)
    weights = tf.exp(layer(z) - proposal.log_prob(z)).numpy()
    error = 5 * weights.std() / np.sqrt(len(weights))
    assert error < 0.1
    assert abs(weights.mean() - 1) < error


@pytest.mark.parametrize(("layer", "context"), [(FlowPosterior, F), (FlowPrior, None)])
def test_serialises(layer, context):
    made = layer(make_flow("planar:2+maf:1,hidden=8", D, context), name="mine")
    made.build()
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(made)))
    again = keras.saving.deserialize_keras_object(config)
    assert again.name == "mine"
    assert [type(flow) for flow in again.flow.flows] == [type(flow) for flow in made.flow.flows]
    inputs = tf.random.normal([B, F]) if context else tf.random.normal([B, D])
    again(inputs)
    again.set_weights(made.get_weights())
    for mine, theirs in zip(
        tf.nest.flatten(again(inputs)), tf.nest.flatten(made(inputs)), strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_each_refuses_the_others_flow():
    with pytest.raises(ValueError, match=r"with context_size\. Received: .* context_size=None"):
        FlowPosterior(make_flow("planar", D))
    with pytest.raises(ValueError, match=r"without a context\. Received: .* context_size=6"):
        FlowPrior(make_flow("planar", D, F))


def test_stay_in_float32_under_mixed_precision(mixed_bfloat16):
    posterior = FlowPosterior(make_flow("iaf:1,hidden=8", D, F))
    features = tf.random.normal([B, F], dtype=tf.bfloat16)
    posterior.build()
    prior = FlowPrior(make_flow("maf:1,hidden=8", D))
    z = posterior.distribution(features).sample(seed=1)
    assert z.dtype == prior(z).dtype == posterior.distribution(features).dtype == tf.float32
    assert {w.dtype for w in (*posterior.weights, *prior.weights)} == {"float32"}
