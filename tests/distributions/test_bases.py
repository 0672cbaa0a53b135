from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae.distributions import FlowDistribution, Mixture, Vamp
from tfp_flowvae.distributions.mixture import _MEANS_SPREAD
from tfp_flowvae.distributions.spec import parse_distribution
from tfp_flowvae.errors import UserError

tfd = tfp.distributions

D, IMAGE = 4, (8, 8, 1)


def _mixture(flow="none", components=3, size=D):
    prior = FlowDistribution(flow, Mixture(components), event_size=size)
    prior.build()
    return prior


def _standard_errors(draws):
    """Five of the mean over the first axis."""
    return 5 * np.std(draws, axis=0) / np.sqrt(len(draws))


@pytest.mark.parametrize("flow", ["none", "realnvp:2,hidden=8"])
def test_mixtures_density_integrates_to_one_and_its_variables_are_live(
    flow, stir, integral, assert_same
):
    prior = stir(_mixture(flow, size=2), scale=0.3)
    distribution = prior.distribution()
    assert {id(v) for v in distribution.trainable_variables} == {
        id(w.value) for w in prior.trainable_weights
    }
    z = np.random.default_rng(0).normal(size=(100, 2)).astype(np.float32)
    for _ in range(2):
        total, error = integral(prior)
        assert abs(total - 1.0) < error < 0.01
        assert_same(distribution.log_prob(tf.constant(z)), prior, prior, z)
        stir(prior, scale=0.2, seed=1)  # seen by the distribution made before


def test_mixture_draws_what_its_density_says(stir):
    base = stir(_mixture(), scale=1.0).distribution().distribution
    z = base.sample(50_000, seed=[1, 2])
    assert z.shape == (50_000, D)
    np.testing.assert_array_equal(z, base.sample(50_000, seed=[1, 2]))
    assert np.all(np.abs(np.mean(z, axis=0) - base.mean()) < _standard_errors(z))
    # The mixture's own entropy estimate: E log p by its draws and by TFP's way of drawing.
    theirs = tfd.MixtureSameFamily(base.mixture_distribution, base.components_distribution)
    scores = [base.log_prob(d.sample(50_000, seed=[3, 4])) for d in (base, theirs)]
    error = sum(_standard_errors(score) for score in scores)
    assert abs(np.mean(scores[0]) - np.mean(scores[1])) < error


@pytest.mark.parametrize(("components", "size"), [(200, D), (10, 40)])
def test_mixture_starts_near_the_standard_normal(components, size):
    keras.utils.set_random_seed(0)
    base = _mixture(components=components, size=size).distribution().distribution
    # The means have a variance of v = 0.3^2 and the rest is in the widths. Means of K numbers are
    # off by v / K, their squares by 2 v^2 / K: five standard deviations each.
    v = _MEANS_SPREAD**2
    np.testing.assert_allclose(
        base.mean(), np.zeros(size), rtol=0, atol=5 * np.sqrt(v / components)
    )
    tolerance = 5 * np.sqrt(2 * v**2 / components) + 5**2 * v / components
    np.testing.assert_allclose(base.variance(), np.ones(size), rtol=0, atol=tolerance)
    standard = tfd.Independent(tfd.Normal(tf.zeros(size), 1.0), 1)
    z = standard.sample(4000, seed=[1, 2])
    ratio = standard.log_prob(z) - base.log_prob(z)
    # By convexity no more than between single components, on average: |mu|^2 / 2 and the widths'.
    bound = 0.5 * size * (v + (1 - v) - 1 - np.log1p(-v))
    assert np.mean(ratio) < bound + _standard_errors(ratio)
    spread = np.std(base.components_distribution.mean(), axis=0)
    assert np.all(np.abs(spread - _MEANS_SPREAD) < 5 * _MEANS_SPREAD / np.sqrt(2 * components))


@pytest.mark.parametrize("posterior_base", ["normal", "tril"])
def test_vamp_is_the_mixture_of_posteriors(posterior_base, make_vae, stir, digits, assert_same):
    vae = make_vae(posterior=f"{posterior_base}+planar:2", prior_part="vamp:5")
    stir(vae.posterior_layer)
    vae.adapt(digits)
    base = vae.prior_layer.base
    images = base.pseudo_inputs.numpy()
    assert all(any(np.array_equal(u, x) for x in digits) for u in images)
    assert len(np.unique(images.reshape(5, -1), axis=0)) == 5
    logits = np.arange(5.0, dtype=np.float32)
    base._logits.assign(logits)
    components = vae.posterior(images).distribution
    z = np.random.default_rng(0).normal(size=(3, 2, D)).astype(np.float32)

    def log_prob(z):
        by_component = vae.posterior(images).distribution.log_prob(z[:, :, None])
        return tf.reduce_logsumexp(by_component + tf.nn.log_softmax(base._logits.value), axis=-1)

    assert_same(vae.prior_layer(z), log_prob, vae, z)
    draws = vae.prior().sample(4000, seed=[1, 2])
    mean = tf.linalg.matvec(components.mean(), tf.nn.softmax(logits), transpose_a=True)
    assert np.all(np.abs(np.mean(draws, axis=0) - mean) < _standard_errors(draws))
    # Its own draws have the second moments of TFP's way of drawing.
    theirs = tfd.MixtureSameFamily(tfd.Categorical(logits=logits), components)
    own, other = (np.einsum("ni,nj->nij", z, z) for z in (draws, theirs.sample(4000, seed=[3, 4])))
    error = _standard_errors(own) + _standard_errors(other)
    assert np.all(np.abs(np.mean(own, axis=0) - np.mean(other, axis=0)) < error)


def test_a_vae_with_such_a_prior_trains_every_weight_and_comes_back(make_vae, digits, tmp_path):
    vae = make_vae(prior_part="vamp:5+realnvp:2,hidden=8", seed=1)
    vae.adapt(digits)
    vae.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=True)
    before = [w.copy() for w in vae.get_weights()]
    vae.fit(digits, batch_size=64, epochs=2, verbose=0)
    moved = [not np.array_equal(a, b) for a, b in zip(before, vae.get_weights(), strict=True)]
    assert all(moved)
    vae.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.elbo(digits[:5], seed=1), vae.elbo(digits[:5], seed=1))
    np.testing.assert_array_equal(again.sample(3, seed=1), vae.sample(3, seed=1))


def test_a_mixture_given_a_context_is_a_density_for_each_example(stir, integral):
    layer = FlowDistribution("none", "mixture:3", event_size=2, context_size=5)
    layer.build()
    stir(layer, scale=0.5)
    context = tf.constant(np.random.default_rng(0).normal(size=(4, 5)), tf.float32)
    total, error = integral(lambda z: layer.log_prob(z[:, tf.newaxis], context))
    assert np.all(np.abs(total - 1.0) < error)
    assert np.all(error < 0.01)
    z = layer.sample(20_000, context, seed=1)
    assert z.shape == (20_000, 4, 2)
    base = layer.distribution(context).distribution
    assert np.all(np.abs(np.mean(z, axis=0) - base.mean()) < _standard_errors(z))


def _with_batch_norm(make_vae, prior):
    return make_vae(prior=prior, encoder="mlp:16,norm=batch", seed=1)


def test_pseudo_inputs_leave_the_moving_statistics_to_the_data(make_vae, digits):
    found = []
    for prior in ("none", "vamp:3"):
        vae = _with_batch_norm(make_vae, prior)
        vae.encoder.set_weights([np.ones(w.shape) for w in vae.encoder.weights])
        vae(digits[:64], training=True)
        found.append([w.numpy() for w in vae.encoder.non_trainable_weights])
    for without, with_pseudo_inputs in zip(*found, strict=True):
        assert not np.array_equal(without, np.ones(without.shape))
        np.testing.assert_array_equal(with_pseudo_inputs, without)


def test_with_batch_norm_the_prior_is_in_training_what_it_is_in_evaluation(make_vae, stir, digits):
    vae = stir(_with_batch_norm(make_vae, "vamp:3+realnvp:2,hidden=8"))
    vae.adapt(digits)
    (norm,) = (x for x in vae._flatten_layers() if isinstance(x, keras.layers.BatchNormalization))
    norm.momentum = 0.0  # the moving statistics are those of the last batch
    start = vae.seed_generator.state.numpy()
    terms = []
    for training in (True, False):
        vae.seed_generator.state.assign(start)
        terms.append(vae(digits, training=training))
    assert np.abs(norm.moving_mean.numpy()).max() > 0.1
    for name, in_training in terms[0].items():
        np.testing.assert_array_equal(terms[1][name], in_training, err_msg=name)


def test_mixture_serialises():
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(_mixture("planar:2"))))
    again = keras.saving.deserialize_keras_object(config)
    assert (again.base.components, again.base.event_size) == (3, D)


def test_refusals():
    with pytest.raises(ValueError, match=r"made for event_size=3\. Received: event_size=4"):
        FlowDistribution("none", Mixture(event_size=3), event_size=D).build()
    with pytest.raises(ValueError, match="Received: components=0"):
        Mixture(0)
    with pytest.raises(ValueError, match="Received: image_shape=None"):
        FlowDistribution("none", "vamp:2", event_size=D).build()
    with pytest.raises(ValueError, match="Received: a Vamp on its own"):
        FlowDistribution("none", Vamp(2, IMAGE), event_size=D).distribution()


@pytest.mark.parametrize(
    ("spec", "canonical"),
    [
        ("none", "none"),
        ("mixture", "mixture"),
        ("mixture:10", "mixture:10"),
        ("normal+planar:2", "planar:2"),
        ("tril+none", "tril"),
        ("mixture:3", "mixture:3"),
        ("vamp:500+realnvp:4+planar", "vamp:500+realnvp:4+planar"),
        ("maf:3", "maf:3"),
    ],
)
def test_spec(spec, canonical):
    assert str(parse_distribution(spec)) == canonical
    assert parse_distribution(canonical) == parse_distribution(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mixtur", "Did you mean 'mixture'"),
        ("realnvp+mixture", r"write mixture\+realnvp instead"),
        ("mixture+vamp", "comes first and alone"),
        ("mixture:0", "whole number of at least 1, not '0'"),
        ("mixture:", "not ''"),
        ("mixture+planr", "Did you mean 'planar'"),
        ("mixture+", "Unknown flow or base ''"),
        ("", "Unknown flow or base ''"),
    ],
)
def test_spec_refusals(spec, message):
    with pytest.raises(UserError, match=message):
        parse_distribution(spec)
