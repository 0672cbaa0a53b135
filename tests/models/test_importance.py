"""The importance-weighted negative log-likelihood."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tfp_flowvae import models
from tfp_flowvae.models.importance import SAMPLES, importance_estimates
from tfp_flowvae.models.objective import importance_bound

IMAGE, D = (8, 8, 1), 2


@pytest.fixture(scope="module")
def vae():
    keras.utils.set_random_seed(0)
    vae = models.FlowVAE(
        image_shape=IMAGE,
        latent_size=D,
        encoder="mlp:16",
        posterior="planar:2",
        decoder="mlp:16",
    )
    rng = np.random.default_rng(0)
    for weight in vae.trainable_weights:
        weight.assign_add((0.1 * rng.normal(size=weight.shape)).astype(np.float32))
    vae.posterior_layer.base._raw_scale.bias.assign([1.0, 1.0])
    return vae


@pytest.fixture(scope="module")
def digits():
    return (load_digits().images[:130, :, :, None] >= 8).astype(np.float32)


@pytest.mark.parametrize("samples", [2 * SAMPLES + 7, SAMPLES, 3])
def test_is_the_bound_of_all_samples_at_once(samples, vae, digits):

    def nll(images):
        return importance_estimates(
            lambda x, s, seed: vae.elbo_terms(x, s, seed).elbo,
            images,
            samples,
            seed=1,
            jit_compile=False,
        ).nll

    found = nll(digits)
    assert found.shape == (130,)
    assert found.dtype == np.float64
    whole = -importance_bound(vae.elbo_terms(digits, samples, seed=5).elbo).numpy()
    # Other draws of the same estimator: equal in the mean, up to its spread.
    error = 5 * np.std(found - whole) / np.sqrt(130)
    assert abs(np.mean(found - whole)) < error
    np.testing.assert_array_equal(found[:100], nll(digits[:100]))


def test_comes_to_the_integral_over_a_grid(vae, digits):
    x = digits[:4]
    fine, coarse = (_integral(vae, x, points) for points in (161, 81))
    found = vae.nll(x, 20_000, batch_size=4, seed=1)
    # Five standard errors of log mean(weights), from other weights, and the error of the grid.
    log_weights = vae.elbo_terms(x, 20_000, seed=2).elbo.numpy().astype(np.float64)
    weights = np.exp(log_weights - log_weights.max(axis=0))
    error = 5 * weights.std(axis=0) / weights.mean(axis=0) / np.sqrt(20_000)
    np.testing.assert_array_less(np.abs(found + fine), error + np.abs(fine - coarse))


def _integral(vae, x, points):
    """log p(x) `[B]` by the trapezoidal rule on a grid over the latent square [-8, 8]^2."""
    axis = np.linspace(-8, 8, points)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 1, 2).astype(np.float32)
    log_joint = vae.likelihood.log_prob(vae._decode_parameters(grid), x) + vae.prior_layer(grid)
    log_joint = np.asarray(log_joint, np.float64)
    top = np.max(log_joint, axis=0)
    return top + np.log(np.sum(np.exp(log_joint - top), axis=0)) + 2 * np.log(axis[1] - axis[0])


def test_refuses_no_samples_and_takes_no_images(vae, digits):
    for wrong in ({"num_samples": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match="Received: 0"):
            vae.nll(digits, **wrong)
    assert vae.nll(digits[:0], 3, seed=1).shape == (0,)
