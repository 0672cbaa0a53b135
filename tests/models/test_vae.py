from __future__ import annotations

from typing import ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae import likelihoods, models, networks
from tfp_flowvae.distributions import FlowDistribution
from tfp_flowvae.flows.conditioner import Conditioner
from tfp_flowvae.models.objective import importance_bound
from tfp_flowvae.training.noise import Noise

tfd = tfp.distributions
TRANSFORMED = tfd.TransformedDistribution.__mro__[1]  # see test_flow_distribution.py

D, IMAGE, HIDDEN = 4, (8, 8, 1), 16
PIXELS = 64
EPS = float(np.finfo(np.float32).eps)


def _rounding(log_prob, z):
    """How far off float32 may put log_prob(z), `[...]`, at z `[..., D]`.

    Two layers of D dimensions, there and back, are 16 roundings of the result, or of z itself,
    which counts as much as the density is steep.
    """
    z = tf.identity(z)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = log_prob(z)
    steepness = tf.reduce_sum(tf.abs(tape.gradient(value, z) * z), axis=-1)
    return 4 * D * EPS * (np.abs(value) + steepness)


def _agree(first, second, rounding):
    """Whether two ways to the same numbers differ by no more than rounding."""
    error = np.abs(np.asarray(first) - np.asarray(second))
    np.testing.assert_array_less(error, np.broadcast_to(rounding, error.shape))


def test_distributions_and_terms_agree(flow, prior, make_vae, stir, digits):
    vae, x = stir(make_vae(flow, prior)), digits[:5]
    posterior, p = vae.posterior(x), vae.prior()
    for distribution, batch in ((posterior, [5]), (p, [])):
        assert isinstance(distribution, TRANSFORMED)
        assert distribution.batch_shape == batch
        assert distribution.event_shape == [D]
    if prior != "vamp":  # whose components are what the encoder says
        assert {id(v) for v in p.trainable_variables} == {
            id(w.value) for w in vae.prior_layer.trainable_weights
        }
    terms = vae.elbo_terms(x, num_samples=3, seed=7)
    for name, term in terms.named().items():
        assert term.shape == (3, 5), name
        assert term.dtype == tf.float32, name
    # The same z again, and its densities by TFP's own slower ways.
    z0 = vae.posterior_layer.base.sample(posterior.distribution, 3, Noise(7))
    z = posterior.bijector.forward(tf.identity(z0))
    base = posterior.distribution
    _agree(terms.log_base, base.log_prob(z0), _rounding(base.log_prob, z0))
    _agree(terms.log_prior, p.log_prob(tf.identity(z)), _rounding(p.log_prob, z))
    rounding = _rounding(posterior.log_prob, z)
    _agree(terms.log_posterior, posterior.log_prob(tf.identity(z)), rounding)
    logits = tf.reshape(vae.decoder(tf.reshape(z, [-1, D])), [3, 5, *IMAGE])
    log_likelihood = vae.likelihood.log_prob(logits, x)
    _agree(terms.log_likelihood, log_likelihood, PIXELS * EPS * np.abs(log_likelihood))
    np.testing.assert_array_equal(terms.log_posterior, terms.log_base - terms.log_det)
    elbo = tf.reduce_mean(terms.elbo, axis=0)
    _agree(vae.elbo(x, 3, seed=7), elbo, PIXELS * EPS * np.abs(log_likelihood).max())


def test_every_weight_gets_a_gradient(flow, prior, make_vae, stir, digits):
    vae = stir(make_vae(flow, prior))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(vae.elbo(digits[:8], 2, seed=1))
    gradients = tape.gradient(loss, [w.value for w in vae.trainable_weights])
    assert len(gradients) > 8
    largest = max(np.max(np.abs(gradient)) for gradient in gradients)
    for weight, gradient in zip(vae.trainable_weights, gradients, strict=True):
        assert np.all(np.isfinite(gradient)), weight.path
        # As a prior, reflections leave a standard normal as it is.
        idle = prior == "householder" and weight.path.endswith("/v")
        assert idle or np.max(np.abs(gradient)) > EPS * largest, weight.path  # more than rounding


def test_the_importance_bound_is_the_integral_of_the_joint(flow, prior, make_vae, stir, digits):
    """Importance weights under q, against a sum over a grid of z: in two dimensions it can be."""
    vae, x = stir(make_vae(flow, prior, latent_size=2), scale=0.05), digits[:3]
    # A posterior that is wider than the prior, or a rare z would decide the estimate.
    vae.posterior_layer.base._raw_scale.bias.assign([1.5, 1.5])
    axis = np.linspace(-8, 8, 161)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 1, 2).astype(np.float32)
    log_likelihood = vae.likelihood.log_prob(vae._decode_parameters(tf.constant(grid)), x)
    log_joint = log_likelihood + vae.prior_layer(grid)
    truth = tf.reduce_logsumexp(log_joint, axis=0) + 2 * np.log(axis[1] - axis[0])
    log_weights = vae.elbo_terms(x, 30_000, seed=1).elbo
    estimate = importance_bound(log_weights)
    assert estimate.shape == (3,)
    weights = tf.nn.softmax(log_weights, axis=0)
    error = 5 * tf.sqrt(tf.reduce_sum(weights**2, axis=0))  # 5 sigma of log of the mean weight
    assert np.all(error < 1.0)  # or the logarithm's error would not be that of its argument
    assert np.all(np.abs(estimate - truth) < error)
    # And the bound is one: the ELBO, which this very sample estimates, is below.
    assert np.all(estimate >= tf.reduce_mean(log_weights, axis=0))
    assert np.all(tf.reduce_mean(log_weights, axis=0) < truth)


def test_kl_without_flows_is_the_closed_form(make_vae, stir, digits):
    vae, x = stir(make_vae()), digits[:4]
    terms = vae.elbo_terms(x, num_samples=20_000, seed=1)
    base = vae.posterior(x).distribution
    mean, variance = base.mean(), base.variance()
    truth = 0.5 * tf.reduce_sum(variance + mean**2 - 1 - tf.math.log(variance), axis=-1)
    # D sums of four terms each.
    size = 0.5 * tf.reduce_sum(variance + mean**2 + 1 + tf.abs(tf.math.log(variance)), axis=-1)
    _agree(base.kl_divergence(vae.prior().distribution), truth, 4 * D * EPS * size)
    error = 5 * np.std(terms.kl, axis=0) / np.sqrt(20_000)
    assert np.all(truth > error)  # there is something to measure
    assert np.all(np.abs(np.mean(terms.kl, axis=0) - truth) < error)


@keras.saving.register_keras_serializable(package="tests")
class _UnitGaussian(likelihoods.Likelihood):
    """Pixels of N(output, 1): with a linear decoder the evidence is known."""

    params: ClassVar[int] = 1

    def get_config(self):
        return {}

    def distribution(self, output):
        return tfd.Independent(tfd.Normal(output, 1.0), 3)

    def mean(self, output):
        return output


@pytest.mark.parametrize("flow", ["none", "planar:2", "iaf:1,hidden=8", "realnvp:2,hidden=8"])
def test_linear_gaussian_elbo_is_the_evidence_where_the_posterior_is_exact(flow):
    """Probabilistic PCA: x = W z + e. W has orthogonal columns, so p(z|x) is diagonal."""
    rng = np.random.default_rng(0)
    shape, size = (2, 3, 1), 6
    w = np.linalg.qr(rng.normal(size=(size, 2)))[0] * [1.5, 0.7]
    variance = 1 / (1 + np.square(w).sum(axis=0))  # of p(z|x)
    encoder = keras.Sequential([keras.Input(shape), keras.layers.Flatten()])
    decoder = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(size), keras.layers.Reshape(shape)]
    )
    vae = models.FlowVAE(
        image_shape=shape,
        latent_size=2,
        encoder=encoder,
        posterior=flow,
        decoder=decoder,
        likelihood=_UnitGaussian(),
    )
    posterior = vae.posterior_layer
    decoder.layers[0].set_weights([w.T, np.zeros(size)])
    posterior.base._loc.set_weights([w * variance, np.zeros(2)])
    raw = np.log(np.expm1(np.sqrt(variance))) - np.log(np.expm1(1.0))
    posterior.base._raw_scale.set_weights([np.zeros((size, 2)), raw])
    for weight in posterior.flow.weights:  # exactly the identity, whatever the context
        if "kernel" in weight.path and not posterior.flow.flows[0].name.startswith(("iaf", "real")):
            weight.assign(tf.zeros_like(weight))
    x = rng.normal(size=(5, *shape)).astype(np.float32)
    evidence = tfd.MultivariateNormalFullCovariance(
        np.zeros(size), np.eye(size) + w @ w.T
    ).log_prob(x.reshape(5, size))
    # Every single draw of the bound is the evidence: it has no variance where q is exact. The terms
    # that cancel are each a sum of 2 or 6 squares of numbers that went through a matrix of 6 x 2 in
    # the encoder and one in the decoder: fewer than 32 roundings.
    terms = vae.elbo_terms(x, num_samples=10, seed=1)
    size = np.abs(terms.log_likelihood) + np.abs(terms.log_prior) + np.abs(terms.log_posterior)
    _agree(terms.elbo, np.tile(evidence, (10, 1)), 32 * EPS * size.max())
    _agree(-vae.nll(x, 10, seed=1), evidence, 32 * EPS * size.max())


def test_one_pass_through_every_conditioner(make_vae, digits, monkeypatch):
    vae = make_vae("iaf:1,hidden=8+realnvp:3,hidden=8", "maf:2,hidden=8")
    calls = []
    run = Conditioner.__call__
    monkeypatch.setattr(Conditioner, "__call__", lambda *a, **k: (calls.append(1), run(*a, **k))[1])
    vae.elbo_terms(digits[:2], num_samples=3)
    assert len(calls) == 1 + 3 + 2
    calls.clear()
    tf.function(vae.elbo_terms)(digits[:2])
    assert len(calls) == 1 + 3 + 2


def test_what_users_call(make_vae, stir, digits):
    vae, x = stir(make_vae("planar", "realnvp")), digits[:5]
    images = vae.sample(7, seed=1)
    assert images.shape == (7, *IMAGE)
    assert np.min(images) >= 0
    assert np.max(images) <= 1
    z = vae.encode(x, seed=1)
    assert z.shape == (5, D)
    np.testing.assert_array_equal(vae.reconstruct(x, seed=1), vae.decode(z))
    nested = vae.decode(tf.reshape(tf.tile(z, [2, 1]), [2, 5, D]))
    assert nested.shape == (2, 5, *IMAGE)
    # Another batch may be summed in another order: of D and of HIDDEN numbers, before a sigmoid.
    first, last = (np.abs(w.numpy()) for w in vae.decoder.weights if w.path.endswith("kernel"))
    size = np.max((np.abs(z) @ first + 1.0) @ last + 1.0)  # the biases are below 1
    _agree(nested[1], vae.decode(z), (D + HIDDEN) * EPS * size)
    assert vae.decode(z[0]).shape == IMAGE
    # float64 and integers are taken too.
    np.testing.assert_array_equal(vae.encode(x.astype(np.float64), seed=1), z)
    np.testing.assert_array_equal(vae.encode(tf.constant(x, tf.uint8), seed=1), z)


def test_seeds(make_vae, stir, digits):
    vae, x = stir(make_vae()), digits[:5]
    for draw in (
        lambda seed: vae.sample(5, seed),
        lambda seed: vae.encode(x, seed),
        lambda seed: vae.reconstruct(x, seed),
        lambda seed: vae.elbo(x, seed=seed),
    ):
        first = draw(3)
        for same in (3, np.int64(3), tf.constant(3), tf.constant(3, tf.int64), [3, 0]):
            np.testing.assert_array_equal(draw(same), first)
        for other in (4, None, None):
            assert np.max(np.abs(draw(other) - first)) > 0
    assert np.max(np.abs(vae.sample(5) - vae.sample(5))) > 0


def test_the_models_seed_decides_the_draws_that_are_given_none(make_vae, digits):
    draws = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(5)
        draws.append(make_vae(seed=seed).encode(digits[:3]).numpy())
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.max(np.abs(draws[0] - draws[2])) > 0


def test_empty_batches(flow, prior, make_vae, digits):
    vae, none = make_vae(flow, prior), digits[:0]
    assert vae.sample(0, seed=1).shape == (0, *IMAGE)
    assert vae.reconstruct(none, seed=1).shape == (0, *IMAGE)
    assert vae.elbo(none, seed=1).shape == (0,)
    assert vae.nll(none, 2, seed=1).shape == (0,)


@pytest.mark.parametrize("image_shape", [(7, 5, 1), (3, 4, 3), (1, 1, 1)])
def test_any_image_shape(image_shape, make_vae):
    vae = make_vae("planar", image_shape=image_shape)
    assert vae.image_shape == image_shape
    x = np.ones((2, *image_shape), np.float32)
    assert vae.reconstruct(x).shape == x.shape
    assert vae.elbo(x).shape == (2,)


def test_parts_that_do_not_fit_are_refused(make_vae):
    wrong = {
        r"made for event_size=3\. Received: event_size=4": {
            "prior_part": FlowDistribution("none", event_size=3)
        },
        r"made for context_size=3\. Received: context_size=16": {
            "posterior": FlowDistribution("planar", context_size=3)
        },
        r"features \[B, F\].*Received: an encoder whose output has shape \(1, 8, 8, 1\)": {
            "encoder": keras.Sequential([keras.Input(IMAGE), keras.layers.Activation("relu")])
        },
        r"draws with a gradient.*Received: Mixture": {"posterior": "mixture"},
        r"without a context.*with context_size=3": {
            "prior_part": FlowDistribution("planar", event_size=4, context_size=3)
        },
        r"encoder must take inputs of shape \[B, 8, 8, 1\]": {
            "encoder": networks.MLPEncoder((8, 9, 1), hidden=(16,))
        },
        r"decoder must take inputs of shape \[B, 4\]": {
            "decoder": networks.MLPDecoder(IMAGE, 5, hidden=(16,))
        },
        r"decoder must map latent vectors \[B, 4\].*Received: .* shape \(1, 64\)": {
            "decoder": keras.Sequential([keras.Input((4,)), keras.layers.Dense(64)])
        },
    }
    for message, parts in wrong.items():
        with pytest.raises(ValueError, match=message):
            make_vae(**parts)


def test_inputs_of_another_shape_are_refused(make_vae):
    vae = make_vae()
    for shape in ((2, 8, 9, 1), (8, 8, 1), (2, 64)):
        for method in (vae.elbo, vae.encode, vae.posterior, vae.reconstruct):
            with pytest.raises(ValueError, match=r"Images must be \[B, 8, 8, 1\]\. Received: x\."):
                method(np.zeros(shape, np.float32))
    for shape in ((2, 5), ()):
        with pytest.raises(ValueError, match=r"z must have shape \[\.\.\., 4\]\. Received: z\."):
            vae.decode(np.zeros(shape, np.float32))


def test_terms_stay_in_float32_under_mixed_precision(mixed_bfloat16, make_vae, stir, digits):
    vae = stir(make_vae("iaf", "realnvp"))
    x = digits[:4] / 3  # which bfloat16 cannot hold
    for terms in (vae(x), vae.elbo_terms(x).named()):
        assert {term.dtype for term in terms.values()} == {tf.float32}
    z = vae.encode(x, seed=1)
    for value in (z, vae.decode(z), vae.sample(2)):
        assert value.dtype == tf.float32
    assert vae.decoder(z).dtype == tf.bfloat16
    seen = []
    vae.likelihood = _Spy(seen)
    vae(x)
    np.testing.assert_array_equal(seen[0], x)


class _Spy(likelihoods.Bernoulli):
    def __init__(self, seen):
        object.__setattr__(self, "seen", seen)

    def log_prob(self, output, x):
        self.seen.append(x)
        return super().log_prob(output, x)


def test_drawn_images_are_draws_of_the_pixels_whose_means_sample_gives(make_vae, stir):
    vae = stir(make_vae(), 1.0)
    mean = vae.sample(2000, seed=3).numpy().astype(np.float64)
    drawn = vae.draw_images(2000, seed=3).numpy()
    assert set(np.unique(drawn)) == {0.0, 1.0}
    # Sums of independent terms with mean 0 and variance w^2 p (1 - p), if both have the same z.
    for weight in (1.0, mean - mean.mean(axis=0)):
        error = np.sqrt(np.sum(weight**2 * mean * (1.0 - mean)))
        assert abs(np.sum(weight * (drawn - mean))) < 5 * error
    np.testing.assert_array_equal(vae.draw_images(2000, seed=3), drawn)
