"""The two distributions over z, alone: the model's tests have them together."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.distributions import FlowDistribution
from tfp_flowvae.flows import FLOWS, make_flow
from tfp_flowvae.flows.conditioner import Conditioner

tfd = tfp.distributions

D, F, B = 4, 6, 5
# tfd.TransformedDistribution(...) is of this base class where a part of it is no CompositeTensor.
TRANSFORMED = tfd.TransformedDistribution.__mro__[1]
EVERY_FLOW = pytest.mark.parametrize("name", FLOWS)


@EVERY_FLOW
def test_posterior_shapes(name, small_spec, stir):
    layer = FlowDistribution(small_spec(name), event_size=D, context_size=F)
    layer.build()
    posterior = stir(layer).distribution(tf.random.normal([B, F]))
    assert isinstance(posterior, TRANSFORMED)
    assert posterior.batch_shape == [B]
    assert posterior.event_shape == [D]
    z = posterior.sample(3, seed=1)
    assert z.shape == (3, B, D)
    assert posterior.log_prob(tf.identity(z)).shape == (3, B)


@pytest.mark.parametrize("base", ["normal", "tril"])
@EVERY_FLOW
def test_a_slice_of_a_posterior_is_that_of_one_image(name, base, small_spec, stir, rounding):
    layer = FlowDistribution(small_spec(name), base, event_size=D, context_size=F)
    layer.build()
    posterior = stir(layer).distribution(tf.random.normal([B, F]))
    z = posterior.sample(seed=1)
    wanted = posterior.log_prob(tf.identity(z)).numpy()
    # The same sums, of at most F products, in another order; log q is a sum over D of the results.
    tolerance = rounding(F * D, wanted, z)
    for index in (2, slice(1, 3), -1):
        part = posterior[index]
        found = part.log_prob(tf.identity(z[index]))
        assert part.batch_shape == found.shape == wanted[index].shape
        np.testing.assert_allclose(found, wanted[index], **tolerance)
        assert part.sample(7, seed=1).shape == (7, *wanted[index].shape, D)


def test_posterior_base_is_linear_in_the_features_with_a_positive_scale(rounding):
    layer = FlowDistribution("none", event_size=D, context_size=F)
    layer.build()
    zero = layer.distribution(tf.zeros([1, F]))
    np.testing.assert_array_equal(zero.distribution.mean(), np.zeros((1, D)))
    stddev = zero.distribution.stddev()
    np.testing.assert_allclose(stddev, np.ones((1, D)), **rounding(3, stddev))  # exp, 1 +, log
    for weight in layer.weights:
        weight.assign(tf.random.normal(weight.shape))
    features = 10 * tf.random.normal([B, F])
    loc, scale = layer.base._loc_and_scale(features)
    halfway = layer.base._loc_and_scale((features[:1] + features[1:2]) / 2)[0]
    kernel = np.abs(layer.base._loc.kernel)
    terms = np.abs(features[:2]) @ kernel  # sums of F products and a bias
    tolerance = rounding(F + 2, terms)
    np.testing.assert_allclose(halfway, (loc[:1] + loc[1:2]) / 2, **tolerance)
    assert np.all(scale > 0)
    assert scale.shape == loc.shape == (B, D)


@EVERY_FLOW
def test_prior_is_unbatched_with_live_and_complete_variables(name, small_spec, stir, assert_same):
    layer = FlowDistribution(small_spec(name), event_size=D)
    layer.build()
    prior = stir(layer).distribution()
    assert isinstance(prior, TRANSFORMED)
    assert prior.batch_shape == []
    assert prior.event_shape == [D]
    seen = [id(variable) for variable in prior.trainable_variables]
    assert sorted(seen) == sorted(id(weight.value) for weight in layer.trainable_weights)
    z = tf.random.normal([3, 2, D])
    before = prior.log_prob(tf.identity(z))
    assert_same(before, layer, layer, z)
    stir(layer, scale=1.0, seed=1)
    after = prior.log_prob(tf.identity(z))
    assert_same(after, layer, layer, z)
    # Reflections leave a standard normal as it is; every other weight must show the change.
    moved = np.max(np.abs(after - before)) > 1e-3
    assert moved == bool(layer.trainable_weights and name != "householder")


@EVERY_FLOW
def test_priors_density_integrates_to_one(name, small_spec, stir):
    """By importance sampling from a wider normal, in two dimensions."""
    layer = FlowDistribution(small_spec(name), event_size=2)
    layer.build()
    stir(layer, scale=0.15)
    proposal = tfd.MultivariateNormalDiag(tf.zeros(2), tf.fill([2], 2.5))
    z = proposal.sample(40_000, seed=1)
    weights = tf.exp(layer(z) - proposal.log_prob(z)).numpy()
    error = 5 * weights.std() / np.sqrt(len(weights))
    assert error < 0.1  # there is something to compare
    assert abs(weights.mean() - 1) < error


@pytest.mark.parametrize("context_size", [F, None])
def test_serialises(context_size):
    made = FlowDistribution(
        "planar:2+maf:1,hidden=8", event_size=D, context_size=context_size, name="mine"
    )
    made.build()
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(made)))
    again = keras.saving.deserialize_keras_object(config)
    assert again.name == "mine"
    assert [type(flow) for flow in again.flow.flows] == [type(flow) for flow in made.flow.flows]
    again.set_weights(made.get_weights())
    z = tf.random.normal([B, D])
    context = None if context_size is None else tf.random.normal([B, F])
    np.testing.assert_array_equal(again(z, context), made(z, context))


@EVERY_FLOW
@pytest.mark.parametrize("context_size", [None, F])
def test_one_call_draws_and_scores(name, context_size, small_spec, stir, monkeypatch, assert_same):
    layer = FlowDistribution(small_spec(name), event_size=D, context_size=context_size)
    layer.build()
    stir(layer, scale=0.05)
    context = None if context_size is None else tf.random.normal([B, F])
    shape = (3, D) if context_size is None else (3, B, D)
    calls = []
    run = Conditioner.__call__
    monkeypatch.setattr(Conditioner, "__call__", lambda *a, **k: (calls.append(1), run(*a, **k))[1])
    z, log_prob = layer.sample_and_log_prob(3, context, seed=5)
    networks = sum(len(getattr(flow, "_networks", ())) for flow in layer.flow.flows)
    if FLOWS[name].fast_sample:
        assert len(calls) == networks
    calls.clear()
    assert z.shape == shape
    assert log_prob.shape == shape[:-1]
    np.testing.assert_array_equal(layer.sample(3, context, seed=5), z)
    calls.clear()
    layer.log_prob(z, context)
    if FLOWS[name].fast_density:
        assert len(calls) == networks
    assert_same(log_prob, layer.log_prob, layer, z, context)


def test_builds_from_what_it_is_called_with():
    layer = FlowDistribution("planar:2")
    assert layer(tf.zeros([2, B, D]), tf.zeros([B, F])).shape == (2, B)
    assert (layer.flow.flows[0].event_size, layer.flow.flows[0].context_size) == (D, F)
    with pytest.raises(ValueError, match="does not know the size of its vectors"):
        FlowDistribution("planar:2").distribution()


def test_sizes_and_contexts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"must have event_size=4 and context_size=None.*size=6"):
        FlowDistribution(make_flow("planar", D, F), event_size=D).build()
    layer = FlowDistribution("planar", event_size=D, context_size=F)
    for context, got in ((None, "none"), (tf.zeros([B, 5]), r"one of shape \(5, 5\)")):
        with pytest.raises(ValueError, match=f"a context: one of size 6. Received: {got}"):
            layer.sample(1, context)
    with pytest.raises(ValueError, match=r"z must have shape \[\.\.\., 4\]"):
        layer.log_prob(tf.zeros([B, 3]), tf.zeros([B, F]))


def test_stay_in_float32_under_mixed_precision(mixed_bfloat16):
    posterior = FlowDistribution("iaf:1,hidden=8", event_size=D, context_size=F)
    features = tf.random.normal([B, F], dtype=tf.bfloat16)
    posterior.build()
    prior = FlowDistribution("maf:1,hidden=8", event_size=D)
    z = posterior.distribution(features).sample(seed=1)
    assert z.dtype == prior(z).dtype == posterior.distribution(features).dtype == tf.float32
    assert {w.dtype for w in (*posterior.weights, *prior.weights)} == {"float32"}
