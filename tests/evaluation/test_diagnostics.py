"""The figures that are logged once an epoch, against what they stand for."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from sklearn.datasets import load_digits

from tfp_flowvae import FlowVAE
from tfp_flowvae.evaluation.diagnostics import Diagnostics, measure

tfd = tfp.distributions

D, IMAGE = 4, (8, 8, 1)


@pytest.fixture(scope="module")
def digits():
    return (load_digits().images[:200, :, :, None] >= 8).astype(np.float32)


def _vae(flow="none", base="normal", stirred=0.3):
    keras.utils.set_random_seed(0)
    vae = FlowVAE(
        image_shape=IMAGE,
        latent_size=D,
        encoder="mlp:16",
        posterior=f"{base}+{flow}",
        decoder="mlp:16",
    )
    rng = np.random.default_rng(0)
    for weight in vae.trainable_weights:
        weight.assign_add((stirred * rng.normal(size=weight.shape)).astype(np.float32))
    return vae


@pytest.mark.parametrize("base", ["normal", "tril"])
def test_log_densities_are_those_of_the_draws(base, digits):
    vae = _vae("planar:2", base)
    scalars, by_dimension = measure(vae, tf.constant(digits), tf.constant([3, 0]))
    terms = vae.elbo_terms(digits, 2, seed=[3, 0])
    for name in ("log_base", "log_posterior", "log_det", "log_prior"):
        values = getattr(terms, name).numpy()
        np.testing.assert_allclose(scalars[name], values.mean(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(scalars[f"{name}_std"], values.std(), rtol=1e-3)
    assert by_dimension.shape == (D,)


def test_kl_of_the_dimensions_sums_to_the_kl_without_flows(digits):
    vae = _vae()
    _, by_dimension = measure(vae, tf.constant(digits), tf.constant([3, 0]))
    base = vae.posterior(digits).distribution
    kl = tfd.kl_divergence(base, vae.prior().distribution)
    np.testing.assert_allclose(tf.reduce_sum(by_dimension), tf.reduce_mean(kl), rtol=1e-4)


def test_active_units_are_those_whose_mean_follows_the_image(digits):
    vae = _vae(stirred=0.0)
    kernel, bias = vae.posterior_layer.base._loc.get_weights()
    kernel[:, 2:] = 0.0  # two of four dimensions see nothing of the image
    kernel[:, :2] *= 3.0
    vae.posterior_layer.base._loc.set_weights([kernel, bias])
    vae.posterior_layer.base._raw_scale.bias.assign(np.full(D, -3.0))
    scalars, _ = measure(vae, tf.constant(digits), tf.constant([3, 0]))
    assert scalars["active_units"] == 2


def test_mutual_information_is_none_without_and_all_with_a_narrow_posterior(digits):
    vae = _vae(stirred=0.0)
    vae.posterior_layer.base._loc.set_weights([np.zeros((16, D)), np.zeros(D)])
    vae.posterior_layer.base._raw_scale.set_weights([np.zeros((16, D)), np.zeros(D)])
    scalars, _ = measure(vae, tf.constant(digits), tf.constant([3, 0]))
    np.testing.assert_allclose(scalars["mutual_information"], 0.0, atol=1e-4)
    vae = _vae(stirred=1.0)
    vae.posterior_layer.base._raw_scale.set_weights([np.zeros((16, D)), np.full(D, -8.0)])
    scalars, _ = measure(vae, tf.constant(digits), tf.constant([3, 0]))
    np.testing.assert_allclose(scalars["mutual_information"], np.log(32), rtol=1e-3)


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
