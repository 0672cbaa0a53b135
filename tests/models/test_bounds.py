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
EPS = float(np.finfo(np.float32).eps)


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


def _sizes(vae, x):
    """What is added up in log p(x, z) - log q(z|x), and in its gradient by z, at most.

    Every number is taken without its sign, and every difference as a sum: float32 rounds it before
    it is squared or divided by a standard deviation.
    """
    draw = vae.draw(x, 100, seed=5)
    kernel, bias = (np.abs(w) for w in vae.decoder.layers[0].get_weights())
    z, pixels = np.abs(draw.z), np.abs(x.reshape(-1, PIXELS))
    away = (pixels + z @ kernel + bias) / 0.5
    inverse = np.abs(np.linalg.inv(draw.distribution.distribution.scale_tril))
    noise = np.einsum("bij,sbj->sbi", inverse, z + np.abs(draw.distribution.distribution.loc))
    value = (away**2).sum(axis=-1) + (z**2).sum(axis=-1) + (noise**2).sum(axis=-1)
    slope = (away / 0.5) @ kernel.T + z + np.einsum("bij,sbi->sbj", inverse, noise)
    return value.max(), slope.max()


def test_elbo_is_the_evidence_where_the_posterior_is_exact(linear_gaussian):
    vae, x, evidence = linear_gaussian
    # For every single sample, as log p(x, z) - log q(z|x) = log p(x) whatever z. Sums over D and
    # PIXELS, in the encoder, the decoder and the densities.
    elbo = vae.elbo_terms(x, 20, seed=1).elbo
    rounding = 2 * (D + PIXELS) * EPS * _sizes(vae, x)[0]
    np.testing.assert_allclose(elbo, [evidence] * 20, rtol=0, atol=rounding)


def test_where_the_posterior_is_exact_the_stl_gradient_has_no_variance(linear_gaussian):
    vae, x, _ = linear_gaussian
    weights = [w.value for w in vae.posterior_layer.trainable_weights]
    # The slope by z, by the noise and the features that z was made of: normal draws, and pixels.
    rounding = 2 * (D + PIXELS) * EPS * _sizes(vae, x)[1] * 4 * np.max(np.abs(x))
    for gradient, silent in (("total", False), ("stl", True)):
        vae.objective = models.Objective(gradient=gradient)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(vae.example_terms(x, training=True)[0])
        largest = max(np.max(np.abs(g)) for g in tape.gradient(loss, weights))
        assert (largest < rounding) == silent, (gradient, largest)


def test_kl_agrees_with_the_closed_form(make_vae, stir, digits):
    vae = stir(make_vae("none", "none"))
    terms = vae.elbo_terms(digits[:3], 20_000, seed=3)
    kl = tfd.kl_divergence(vae.posterior(digits[:3]).distribution, vae.prior().distribution)
    error = tf.math.reduce_std(terms.kl, axis=0) / np.sqrt(20_000)
    assert np.all(np.abs(tf.reduce_mean(terms.kl, axis=0) - kl) < 4 * error)
    draw = vae.draw(digits[:3], 2, 1)
    by_dimension = vae.terms_of(draw, digits[:3], 1, per_dimension=True)
    # (z - loc) / scale and z, each squared, and the logarithm of the scale; added up over D = 4.
    normal = draw.distribution.distribution.distribution
    away = (np.abs(draw.z) + np.abs(normal.loc)) / normal.scale
    size = np.sum(away**2 + draw.z**2 + np.abs(np.log(normal.scale)) + 2, axis=-1)
    total = tf.reduce_sum(by_dimension.kl_per_dimension, axis=-1)
    np.testing.assert_array_less(np.abs(total - by_dimension.kl), 4 * EPS * size)


def test_the_importance_weighted_bound_rises_with_the_samples(make_vae, stir, digits):
    vae, x = stir(make_vae("planar", "none")), digits[:8]
    log_weights = vae.elbo_terms(x, 4096, seed=1).elbo
    bounds, errors = [], []
    for samples in (1, 4, 32, 512):
        groups = models.objective.importance_bound(tf.reshape(log_weights, [samples, -1, 8]))
        bounds.append(float(tf.reduce_mean(groups)))
        errors.append(np.mean(np.var(groups, axis=0) / len(groups) / 8) ** 0.5)
    assert bounds == sorted(bounds)
    assert bounds[-1] - bounds[0] > 4 * (errors[-1] + errors[0])


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
    # Two layers of 4 dimensions, there and back, round the slope 16 times, or the z0 that it is of.
    scale = posterior.distribution.distribution.scale
    size = np.max(np.abs(slope)) + np.max(np.abs(draw.z0) / tf.square(scale))
    np.testing.assert_allclose(gradients[0], slope, rtol=0, atol=16 * EPS * size)
    assert all(gradient is None for gradient in gradients[1:])


def _mean_gradient(vae, x, rounds):
    """Of the posterior's weights, over many draws, and its standard error."""
    weights = [w.value for w in vae.posterior_layer.trainable_weights]

    def draw(_):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(vae.example_terms(x, training=True)[0])
        return tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(loss, weights)], axis=0)

    draw_all = tf.function(lambda: tf.map_fn(draw, tf.range(rounds), fn_output_signature=x.dtype))
    draws = draw_all().numpy().astype(np.float64)
    return draws.mean(axis=0), draws.std(axis=0) / np.sqrt(rounds)


_IWAE = {"num_samples": 2, "bound": "iwae"}
_DREG = {"num_samples": 2, "bound": "dreg"}


@pytest.mark.parametrize(
    ("flow", "usual", "other"),
    [
        ("planar:1", {"num_samples": 4}, {"num_samples": 4, "gradient": "stl"}),
        # One dimension's KL is 2.9, the other's 14.9, and their noise 0.5: never near the minimum.
        ("none", {"free_bits": 8.0}, {"free_bits": 8.0, "gradient": "stl"}),
        *(("planar:1", {**_IWAE, "beta": c}, {**_DREG, "beta": c}) for c in (0.0, 0.4, 1.0, 2.0)),
    ],
    ids=["stl", "free_bits", *(f"dreg-{c}" for c in (0.0, 0.4, 1.0, 2.0))],
)
def test_other_estimators_have_the_same_expectation(flow, usual, other, make_vae, stir, digits):
    vae = stir(make_vae(flow, "none", latent_size=2), scale=0.5)
    x = tf.repeat(digits[:4], 16, axis=0)  # 16 draws at once: a program of fewer rounds
    results = []
    for arguments in (usual, other):
        vae.objective = models.Objective(**arguments)
        results.append(_mean_gradient(vae, x, 125))
    (mean, error), (other_mean, other_error) = results
    both = np.sqrt(error**2 + other_error**2)
    rounding = 64 * EPS * np.max(np.abs(mean))  # where an estimator has no variance
    # About 100 weights: 5 standard errors, of 125 means, happen by chance once in 5,000 times.
    assert np.all(np.abs(mean - other_mean) < 5 * both + rounding)
    assert np.max(np.abs(mean) / (both + rounding)) > 10  # and there is something to compare


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
    # Four steps, of which the last has the weight 3e-6; sums over 256 images.
    rounding = 256 * EPS * (abs(row["log_likelihood"]) + abs(row["kl"]))
    assert abs(row["loss"] + row["log_likelihood"]) < 3e-6 * abs(row["kl"]) + rounding
    row = vae.evaluate(digits, batch_size=64, verbose=0, return_dict=True)
    rounding = 256 * EPS * (abs(row["log_likelihood"]) + abs(row["kl"]))
    assert abs(row["loss"] + row["elbo"]) < rounding < abs(row["kl"])
    assert set(row) == {"loss", "elbo", "kl", "log_likelihood"}


@pytest.mark.parametrize("gradient", ["total", "stl"])
@pytest.mark.parametrize("minimum", [{"free_bits": 50.0}, {"min_information": 200.0}])
def test_a_kl_below_the_minimum_gives_no_gradient(minimum, gradient, make_vae, stir, digits):
    objective = models.Objective(num_samples=2, gradient=gradient, **minimum)
    vae, x = stir(make_vae("none", "none", objective=objective)), tf.constant(digits[:8])
    kernel, *_ = vae.decoder.trainable_weights
    kernel.assign(tf.zeros_like(kernel))  # the likelihood does not depend on z: only the KL does
    for draw in range(3):
        vae.seed_generator.state.assign([draw, 0])
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(vae.example_terms(x, training=True)[0])
        for found in tape.gradient(loss, [w.value for w in vae.posterior_layer.trainable_weights]):
            assert np.all(found.numpy() == 0)


def test_the_gradient_of_dreg_follows_the_warm_up(make_vae, stir, digits):
    vae, x = stir(make_vae("none", "none")), tf.constant(digits[:4])
    vae.compile(optimizer=keras.optimizers.SGD(0.0), jit_compile=False)
    vae.optimizer.iterations.assign(4)
    weights, found = [w.value for w in vae.posterior_layer.trainable_weights], []
    for arguments in ({"beta": 0.4}, {"warmup": "linear", "warmup_steps": 10}):
        vae.objective = models.Objective(num_samples=3, bound="dreg", **arguments)
        vae.seed_generator.state.assign([1, 0])
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(vae.example_terms(x, training=True)[0])
        gradients = tape.gradient(loss, weights)
        found.append(np.concatenate([np.ravel(gradient) for gradient in gradients]))
    # 0.4 and 4 / 10 may round to neighbours; log-weights are large, and go through exp.
    terms = vae.elbo_terms(x, 100, seed=1)
    size = np.max(np.abs(terms.log_likelihood) + np.abs(terms.kl))
    rounding = 8 * EPS * size * np.max(np.abs(found[0]))
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=rounding)


def test_free_bits_refuse_a_kl_that_is_no_sum_over_dimensions(make_vae):
    with pytest.raises(ValueError, match=r"use min_information.*Received: free_bits=0\.5"):
        make_vae("planar", "none", objective=models.Objective(free_bits=0.5))
