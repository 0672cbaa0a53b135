"""The importance-weighted negative log-likelihood."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from tfp_flowvae import models, networks
from tfp_flowvae.evaluation.importance import SAMPLES, negative_log_likelihood
from tfp_flowvae.flows import make_flow

IMAGE, D = (8, 8, 1), 2


@pytest.fixture(scope="module")
def vae():
    keras.utils.set_random_seed(0)
    vae = models.FlowVAE(
        networks.MLPEncoder(IMAGE, hidden=(16,)),
        models.FlowPosterior(make_flow("planar:2", D, 16)),
        models.make_prior("none", D),
        networks.MLPDecoder(IMAGE, D, hidden=(16,)),
    )
    rng = np.random.default_rng(0)
    for weight in vae.trainable_weights:
        weight.assign_add((0.1 * rng.normal(size=weight.shape)).astype(np.float32))
    vae.posterior_layer._raw_scale.bias.assign([1.0, 1.0])
    return vae


@pytest.fixture(scope="module")
def digits():
    return (load_digits().images[:130, :, :, None] >= 8).astype(np.uint8)


@pytest.mark.parametrize("samples", [2 * SAMPLES + 7, SAMPLES, 3])
def test_is_the_bound_of_all_samples_at_once(samples, vae, digits):
    found = negative_log_likelihood(vae, digits, 2, samples, seed=1, jit_compile=False)
    assert found.shape == (130,)
    assert found.dtype == np.float64
    whole = -vae.log_marginal(digits.astype(np.float32), samples, seed=5).numpy()
    # Other draws of the same estimator: equal in the mean, up to its spread.
    error = 5 * np.std(found - whole) / np.sqrt(130)
    assert abs(np.mean(found - whole)) < error
    again = negative_log_likelihood(vae, digits[:100], 2, samples, seed=1, jit_compile=False)
    np.testing.assert_array_equal(found[:100], again)


def test_comes_to_the_integral_over_a_grid(vae, digits):
    x = digits[:4].astype(np.float32)
    fine, coarse = (_integral(vae, x, points) for points in (161, 81))
    found = negative_log_likelihood(vae, digits[:4], 2, 20_000, seed=1)
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
    with pytest.raises(ValueError, match="Received: 0"):
        negative_log_likelihood(vae, digits, 2, 0, seed=1)
    assert negative_log_likelihood(vae, digits[:0], 2, 3, seed=1).shape == (0,)
