"""The bound against what is known exactly, and its gradient estimators against each other."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae import likelihoods, models
from tfp_flowvae.models.gradients import frozen_log_prob

tfd = tfp.distributions

D, IMAGE = 2, (2, 2, 1)
PIXELS = 4


@dataclass(frozen=True)
class UnitGaussian(likelihoods.Likelihood):
    """x ~ N(output, 0.5^2): with a linear decoder p(x) is a normal."""

    def distribution(self, output):
        return tfd.Independent(tfd.Normal(output, 0.5), 3)

    def mean(self, output):
        return output


@pytest.fixture
def linear_gaussian():
    """A FlowVAE with linear maps, and the true posterior's mean map, covariance and log p(x)."""
    encoder = keras.Sequential([keras.layers.Input(IMAGE), keras.layers.Flatten()])
    decoder = keras.Sequential(
        [keras.layers.Input((D,)), keras.layers.Dense(PIXELS), keras.layers.Reshape(IMAGE)]
    )
    vae = models.FlowVAE(
        image_shape=IMAGE,
        latent_size=D,
        encoder=encoder,
        posterior="tril",
        decoder=decoder,
        likelihood=UnitGaussian(),
    )
    posterior = vae.posterior_layer.base
    rng = np.random.default_rng(0)
    matrix, offset = rng.normal(size=(PIXELS, D)), rng.normal(size=PIXELS)
    decoder.layers[0].set_weights([matrix.T, offset])
    precision = np.eye(D) + matrix.T @ matrix / 0.25
    covariance = np.linalg.inv(precision)
    gain = covariance @ matrix.T / 0.25  # E[z|x] = gain (x - offset)
    posterior._loc.set_weights([gain.T, -gain @ offset])
    scale = np.linalg.cholesky(covariance)
    unit = np.log(np.expm1(1.0))
    posterior._raw_scale.set_weights(
        [np.zeros((PIXELS, D)), np.log(np.expm1(np.diag(scale))) - unit]
    )
    posterior._below.set_weights([np.zeros((PIXELS, 1)), scale[1:, 0]])
    evidence = tfd.MultivariateNormalTriL(
        offset, np.linalg.cholesky(matrix @ matrix.T + 0.25 * np.eye(PIXELS))
    )
    x = rng.normal(size=(5, PIXELS)) + offset
    return vae, x.reshape(5, *IMAGE).astype(np.float32), evidence.log_prob(x).numpy()


def test_elbo_is_the_evidence_where_the_posterior_is_exact(linear_gaussian):
    vae, x, evidence = linear_gaussian
    # For every single sample, as log p(x, z) - log q(z|x) = log p(x) whatever z.
    np.testing.assert_allclose(vae.elbo_terms(x, 20, seed=1).elbo, [evidence] * 20, atol=2e-4)


def test_where_the_posterior_is_exact_the_stl_gradient_has_no_variance(linear_gaussian):
    vae, x, _ = linear_gaussian
    weights = [w.value for w in vae.posterior_layer.trainable_weights]
    for gradient, silent in (("total", False), ("stl", True)):
        vae.objective = models.Objective(gradient=gradient)
        with tf.GradientTape() as tape:
            loss = vae.compute_loss(x, y_pred=vae(x, training=True))
        largest = max(np.max(np.abs(g)) for g in tape.gradient(loss, weights))
        assert (largest < 1e-3) == silent, (gradient, largest)


def test_kl_agrees_with_the_closed_form(make_vae, stir, digits):
    vae = stir(make_vae("none", "none"))
    terms = vae.elbo_terms(digits[:3], 20_000, seed=3)
    kl = tfd.kl_divergence(vae.posterior(digits[:3]).distribution, vae.prior().distribution)
    error = tf.math.reduce_std(terms.kl, axis=0) / np.sqrt(20_000)
    assert np.all(np.abs(tf.reduce_mean(terms.kl, axis=0) - kl) < 4 * error)
    by_dimension = vae.terms_of(vae.draw(digits[:3], 2, 1), digits[:3], 1, per_dimension=True)
    np.testing.assert_allclose(
        tf.reduce_sum(by_dimension.kl_per_dimension, -1), by_dimension.kl, rtol=1e-4, atol=1e-4
    )


def test_the_importance_weighted_bound_rises_with_the_samples(make_vae, stir, digits):
    vae, x = stir(make_vae("planar", "none")), digits[:8]
    log_weights = vae.elbo_terms(x, 4096, seed=1).elbo
    bounds = []
    for samples in (1, 4, 32, 512):
        groups = tf.reshape(log_weights, [samples, -1, 8])
        bounds.append(float(tf.reduce_mean(models.objective.importance_bound(groups))))
    assert bounds == sorted(bounds)
    assert bounds[-1] - bounds[0] > 0.05


@pytest.mark.parametrize("flow", ["none", "planar", "iaf", "realnvp"])
def test_frozen_density_has_its_value_and_the_gradient_by_z_alone(flow, make_vae, stir, digits):
    vae = stir(make_vae(flow, "none"))
    x = digits[:4]
    draw = vae.draw(x, 3, seed=1)
    posterior, fixed = vae.posterior(x), tf.identity(draw.z)
    with tf.GradientTape() as tape:
        tape.watch(fixed)
        log_prob = posterior.log_prob(fixed)
    slope = tape.gradient(log_prob, fixed)
    z = tf.Variable(draw.z)
    with tf.GradientTape() as tape:
        frozen = frozen_log_prob(posterior, tf.convert_to_tensor(z), draw.log_prob)
    np.testing.assert_array_equal(frozen, draw.log_prob)
    variables = [z, *(w.value for w in vae.posterior_layer.trainable_weights)]
    gradients = tape.gradient(frozen, variables)
    np.testing.assert_allclose(gradients[0], slope, rtol=1e-3, atol=1e-4)
    assert all(gradient is None for gradient in gradients[1:])


def _mean_gradient(vae, x, rounds):
    """Of the posterior's weights, over many draws, and its standard error."""
    weights = [w.value for w in vae.posterior_layer.trainable_weights]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = vae.compute_loss(x, y_pred=vae(x, training=True))
        return tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(loss, weights)], axis=0)

    draws = np.stack([step() for _ in range(rounds)])
    return draws.mean(axis=0), draws.std(axis=0) / np.sqrt(rounds)


@pytest.mark.parametrize(
    ("usual", "other"),
    [
        ({"num_samples": 4}, {"num_samples": 4, "gradient": "stl"}),
        ({"num_samples": 4, "bound": "iwae"}, {"num_samples": 4, "bound": "dreg"}),
    ],
    ids=["stl", "dreg"],
)
def test_other_estimators_have_the_same_expectation(usual, other, make_vae, stir, digits):
    vae, x = stir(make_vae("planar:1", "none", latent_size=2), scale=0.5), tf.constant(digits[:4])
    results = []
    for arguments in (usual, other):
        vae.objective = models.Objective(**arguments)
        results.append(_mean_gradient(vae, x, 600))
    (mean, error), (other_mean, other_error) = results
    deviation = (mean - other_mean) / np.sqrt(error**2 + other_error**2 + 1e-12)
    # Standard normals if the expectations agree; one estimator's factor of two would show.
    assert np.sqrt(np.mean(deviation**2)) < 1.5
    assert np.linalg.norm(mean) > 10 * np.linalg.norm(error) / np.sqrt(10)


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_samples": 2, "bound": "dreg", "warmup": "linear", "warmup_steps": 3},
        {"gradient": "stl", "min_information": 3.0},
        pytest.param({"free_bits": 0.5}, marks=pytest.mark.slow),
        pytest.param({"warmup": "cyclic", "warmup_steps": 2, "cycles": 2}, marks=pytest.mark.slow),
    ],
    ids=["dreg", "stl", "free_bits", "cyclic"],
)
def test_every_objective_trains_compiled(arguments, make_vae, digits):
    vae = make_vae("none", "none", objective=models.Objective(**arguments), seed=1)
    vae.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=True)
    history = vae.fit(digits, batch_size=64, epochs=3, verbose=0).history
    assert history["elbo"][-1] > history["elbo"][0]


def test_warm_up_holds_in_fit_and_not_in_evaluate(make_vae, digits):
    objective = models.Objective(warmup="linear", warmup_steps=1_000_000)
    vae = make_vae("none", "none", objective=objective, seed=1)
    vae.compile(optimizer=keras.optimizers.SGD(0.0), jit_compile=False)
    row = {k: v[0] for k, v in vae.fit(digits, batch_size=64, verbose=0).history.items()}
    np.testing.assert_allclose(row["loss"], -row["log_likelihood"], rtol=1e-3)
    row = vae.evaluate(digits, batch_size=64, verbose=0, return_dict=True)
    np.testing.assert_allclose(row["loss"], -row["elbo"], rtol=1e-5)
    assert set(row) == {"loss", "elbo", "kl", "log_likelihood"}


def test_free_bits_refuse_a_kl_that_is_no_sum_over_dimensions(make_vae):
    with pytest.raises(ValueError, match=r"use min_information.*Received: free_bits=0\.5"):
        make_vae("planar", "none", objective=models.Objective(free_bits=0.5))
