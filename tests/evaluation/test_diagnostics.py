"""The figures that are logged once an epoch, against what they stand for."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from sklearn.datasets import load_digits

from tfp_flowvae import FlowVAE
from tfp_flowvae.evaluation.diagnostics import (
    Diagnostics,
    mean_variance,
    measure,
    variance_over_images,
)

tfd = tfp.distributions

D, IMAGE = 4, (8, 8, 1)
EPS = float(np.finfo(np.float32).eps)


@pytest.fixture(scope="module")
def digits():
    return (load_digits().images[:200, :, :, None] >= 8).astype(np.float32)


def _vae(flow="none", base="normal", stirred=0.3, event_size=D):
    keras.utils.set_random_seed(0)
    vae = FlowVAE(
        image_shape=IMAGE,
        latent_size=event_size,
        encoder="mlp:16",
        posterior=f"{base}+{flow}",
        decoder="mlp:16",
    )
    rng = np.random.default_rng(0)
    for weight in vae.trainable_weights:
        weight.assign_add((stirred * rng.normal(size=weight.shape)).astype(np.float32))
    return vae


def _collapse(vae):
    """Makes the posterior's base N(0, I) for every image."""
    for layer in (vae.posterior_layer.base._loc, vae.posterior_layer.base._raw_scale):
        layer.set_weights([np.zeros_like(weight) for weight in layer.get_weights()])
    return vae


@pytest.mark.parametrize("base", ["normal", "tril"])
def test_log_densities_are_those_of_the_draws(base, digits):
    vae = _vae("planar:2", base)
    scalars, by_dimension = measure(vae, tf.constant(digits), tf.constant([3, 0]))
    terms = vae.elbo_terms(digits, 2, seed=[3, 0])
    for name in ("log_base", "log_posterior", "log_det", "log_prior"):
        values = getattr(terms, name).numpy().astype(np.float64)
        # A float32 sum over n values is off by at most n eps times the sum of their sizes.
        rounding = values.size * EPS * np.abs(values).mean()
        np.testing.assert_allclose(scalars[name], values.mean(), rtol=0, atol=rounding)
        # The deviations inherit that, and their squares are summed in turn.
        rounding += values.size * EPS * values.std()
        np.testing.assert_allclose(scalars[f"{name}_std"], values.std(), rtol=0, atol=rounding)
    assert by_dimension.shape == (D,)


def test_kl_of_the_dimensions_sums_to_the_kl_without_flows(digits):
    vae = _vae()
    _, by_dimension = measure(vae, tf.constant(digits), tf.constant([3, 0]))
    base = vae.posterior(digits).distribution
    kl = tfd.kl_divergence(base, vae.prior().distribution)
    mean, variance = base.mean().numpy(), base.variance().numpy()
    terms = 0.5 * (mean**2 + variance + 1 + np.abs(np.log(variance)))  # of which each KL is made
    # Two sums over N images and D dimensions of four rounded terms each.
    rounding = 2 * (len(digits) + D + 4) * EPS * terms.sum(axis=-1).mean()
    np.testing.assert_allclose(
        tf.reduce_sum(by_dimension), tf.reduce_mean(kl), rtol=0, atol=rounding
    )


@pytest.mark.parametrize("count", [1, 32, 1000])
@pytest.mark.parametrize(
    ("flow", "base"),
    [
        ("none", "normal"),
        ("none", "tril"),
        ("planar:4", "normal"),
        ("iaf:2,hidden=32", "normal"),
        ("householder:4", "normal"),  # reflects every image's noise by mirrors of its own
        ("realnvp:2,hidden=16", "tril"),
    ],
)
def test_a_posterior_that_has_collapsed_has_no_active_units(flow, base, count):
    vae = _collapse(_vae(flow, base, stirred=0.0, event_size=40))
    x = tf.constant(np.random.default_rng(0).uniform(size=(count, *IMAGE)), tf.float32)
    for seed in range(3):
        scalars, _ = measure(vae, x, tf.constant([seed, 0]), mutual_information=False)
        assert scalars["active_units"] == 0


# Of E[z|x] over images: nothing, below the threshold of 0.01, above it, far above it.
VARIANCES = np.array([0.0, 0.005, 0.05, 0.5])


def _known_vae(flow):
    """A posterior of unit variance whose mean is x, one pixel a dimension, times their root."""
    shape = (2, 2, 1)
    vae = FlowVAE(
        image_shape=shape,
        latent_size=D,
        encoder=keras.Sequential([keras.Input(shape), keras.layers.Flatten()]),
        posterior=flow,
        decoder="mlp:4",
    )
    _collapse(vae)
    vae.posterior_layer.base._loc.set_weights([np.diag(np.sqrt(VARIANCES)), np.zeros(D)])
    for weight in vae.posterior_layer.flow.weights:
        weight.assign(tf.zeros_like(weight))  # the identity
    return vae


@pytest.mark.parametrize("flow", ["none", "planar:2", "nice:2,hidden=4"])
@pytest.mark.parametrize("count", [32, 1000])
def test_known_variances_of_the_posterior_mean_are_found(flow, count):
    vae = _known_vae(flow)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, D))
    x -= x.mean(axis=0)
    x /= x.std(axis=0, ddof=1)
    images = tf.constant(x.reshape(count, 2, 2, 1), tf.float32)
    found = mean_variance(vae, vae.posterior(images), tf.constant([1, 0]))
    # The sample variance is 1 for every pixel. y is off by the rounding of numbers of up to 8, as
    # large as normal draws and their sums with a mean get; so are the deviations from its mean.
    off = 2 * 8 * EPS
    rounding = 2 * np.sqrt(VARIANCES) * off + off**2 + count * EPS * VARIANCES
    assert np.all(np.abs(found - VARIANCES) <= rounding)
    scalars, _ = measure(vae, images, tf.constant([1, 0]), mutual_information=False)
    assert scalars["active_units"] == 2


def test_the_variance_over_images_has_no_bias_and_the_standard_error_that_is_said():
    pairs, count, noise, repeats = 26, 32, 0.7, 2000
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(count, D))
    effects -= effects.mean(axis=0)
    effects *= np.sqrt(VARIANCES) / effects.std(axis=0, ddof=1)
    estimate = tf.function(variance_over_images)
    found = np.stack(
        [
            estimate(
                tf.constant(
                    effects
                    + rng.normal(size=(pairs, 1, D))
                    + np.sqrt(noise) * rng.normal(size=(pairs, count, D)),
                    tf.float32,
                )
            )
            for _ in range(repeats)
        ]
    )
    share = noise / pairs
    error = np.sqrt((4 * VARIANCES * share + 2 * share**2) / (count - 1))
    assert np.all(error[VARIANCES == 0] < 0.01 * noise)
    assert np.all(np.abs(found.mean(axis=0) - VARIANCES) < 4 * error / np.sqrt(repeats))
    # A standard deviation from so many repeats is itself known to 1 / sqrt(2 repeats), for normal
    # values; the formula leaves out a part in 2 P, of the noise's own mean square.
    relative = found.std(axis=0) / error - 1
    assert np.all(np.abs(relative) < 4 / np.sqrt(2 * repeats) + 1 / (2 * pairs))


@pytest.mark.parametrize(
    ("flow", "base"), [("planar:2", "normal"), ("iaf:1,hidden=8", "tril"), ("radial:2", "normal")]
)
def test_the_variance_of_the_posterior_mean_under_a_flow_is_that_of_quadrature(flow, base, digits):
    vae, x = _vae(flow, base, stirred=0.2, event_size=2), digits[:32]
    posterior = vae.posterior(x)
    means = []
    for nodes in (40, 60):
        points, weights = np.polynomial.hermite_e.hermegauss(nodes)
        grid = np.stack(np.meshgrid(points, points), axis=-1).reshape(-1, 1, 2)
        weight = np.outer(weights, weights).reshape(-1, 1, 1) / (2 * np.pi)
        q0, e = posterior.distribution, tf.constant(grid, tf.float32)
        z0 = q0.from_noise(e)[0] if base == "tril" else q0.mean() + q0.stddev() * e
        means.append(np.sum(weight * posterior.bijector.forward(z0).numpy(), axis=0))
    truth = means[1].var(axis=0, ddof=1)
    of_each_seed = tf.function(lambda seed: mean_variance(vae, vae.posterior(x), seed))
    found = np.stack([of_each_seed(tf.constant([seed, 0])).numpy() for seed in range(200)])
    found = found.astype(np.float64)
    error = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    # An IAF's first dimension is linear in its noise, which the pairs cancel: rounding is left.
    rounding = len(x) * EPS * truth
    assert np.any(error > rounding)
    assert np.all(np.abs(means[0].var(axis=0, ddof=1) - truth) < error + rounding)
    assert np.all(np.abs(found.mean(axis=0) - truth) < 4 * error + rounding)


def test_mutual_information_is_none_without_and_all_with_a_narrow_posterior(digits):
    vae = _collapse(_vae(stirred=0.0))
    scalars, _ = measure(vae, tf.constant(digits), tf.constant([3, 0]))
    # log q and the logarithm of a sum of 32 of it, each rounded in D + 32 additions.
    largest = np.max(np.abs(vae.draw(digits, 2, [3, 0]).log_prob)) + np.log(32)
    np.testing.assert_allclose(
        scalars["mutual_information"], 0.0, rtol=0, atol=(D + 32) * EPS * largest
    )
    vae = _vae(stirred=1.0)
    vae.posterior_layer.base._raw_scale.set_weights([np.zeros((16, D)), np.full(D, -8.0)])
    scalars, _ = measure(vae, tf.constant(digits), tf.constant([3, 0]))
    largest = np.max(np.abs(vae.draw(digits, 2, [3, 0]).log_prob)) + np.log(32)
    np.testing.assert_allclose(
        scalars["mutual_information"], np.log(32), rtol=0, atol=(D + 32) * EPS * largest
    )


def test_callback_adds_a_figure_of_each_kind_every_epoch(digits):
    vae = _vae("iaf:1,hidden=8")
    vae.compile(keras.optimizers.Adam(1e-3), run_eagerly=True)
    callback = Diagnostics((digits * 255).astype(np.uint8), 256, train_size=200, seed=1)
    history = vae.fit(digits[:64], batch_size=64, epochs=2, verbose=0, callbacks=[callback])
    for name in (
        "log_prior_std",
        "active_units",
        "mutual_information",
        *map("base_kl_{}".format, range(D)),
    ):
        assert len(history.history[name]) == 2
        assert np.all(np.isfinite(history.history[name]))
