from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.models import ElboTerms, Objective

EPS = float(np.finfo(np.float32).eps)


def _terms():
    rng = np.random.default_rng(0)
    log_likelihood, log_prior, log_base, log_det = (
        tf.constant(rng.normal(size=(3, 5)), tf.float32) for _ in range(4)
    )
    return ElboTerms(log_likelihood, log_prior, log_base - log_det, log_base, log_det)


def _rounding(terms, weight=1.0):
    """How far off float32 may put a loss of these terms.

    A loss is two differences, a product and a mean over 3 samples: fewer than 8 roundings, each of
    a number no larger than the terms taken together.
    """
    kl = np.abs(terms.log_posterior) + np.abs(terms.log_prior)
    return 8 * EPS * np.max(np.abs(terms.log_likelihood) + weight * kl)


def test_elbo_and_kl_are_what_the_terms_say():
    terms = _terms()
    kl = terms.log_posterior - terms.log_prior
    np.testing.assert_array_equal(terms.kl, kl)
    np.testing.assert_array_equal(terms.elbo, terms.log_likelihood - kl)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0, 4.0])
def test_loss_weights_the_kl_by_beta_and_averages_the_samples(beta):
    terms = _terms()
    loss = Objective(num_samples=3, beta=beta).loss(terms)
    wanted = np.mean(-terms.log_likelihood.numpy() + beta * terms.kl.numpy(), axis=0)
    assert loss.shape == (5,)
    np.testing.assert_allclose(loss, wanted, rtol=0, atol=_rounding(terms, beta))


def test_with_beta_one_the_loss_is_minus_the_elbo():
    terms = _terms()
    wanted = -np.mean(terms.elbo, axis=0)
    np.testing.assert_allclose(Objective().loss(terms), wanted, rtol=0, atol=_rounding(terms))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_samples": 0}, r"num_samples must be at least 1\. Received: 0"),
        ({"beta": -0.1}, r"beta must be at least 0\. Received: -0\.1"),
        ({"beta": float("nan")}, r"beta must be at least 0\. Received: nan"),
        ({"bound": "elob"}, r"one of elbo, iwae, dreg\. Received: 'elob'"),
        ({"bound": "iwae"}, r"at least 2 samples\. Received: 1\."),
        ({"warmup": "linear"}, r"Received: warmup='linear', warmup_steps=0"),
        ({"warmup_steps": 3}, r"Received: warmup='none', warmup_steps=3"),
        ({"free_bits": 0.1, "min_information": 2.0}, r"not both\. Received: 0\.1 and 2\."),
        ({"bound": "iwae", "num_samples": 2, "free_bits": 0.1}, "Received: the bound 'iwae'"),
        ({"bound": "iwae", "num_samples": 2, "gradient": "stl"}, "biased.* use the bound 'dreg'"),
        ({"bound": "dreg", "num_samples": 2, "gradient": "stl"}, "Received: 'stl'"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        Objective(**arguments)


def test_linear_warmup_rises_once_and_stays():
    objective = Objective(beta=2.0, warmup="linear", warmup_steps=10)
    weights = [float(objective.kl_weight(step)) for step in (0, 5, 10, 11, 10_000)]
    assert weights == [0.0, 1.0, 2.0, 2.0, 2.0]
    assert objective.kl_weight() == 2.0  # evaluation is at its end


def test_cyclic_warmup_rises_as_often_as_told():
    objective = Objective(warmup="cyclic", warmup_steps=10, cycles=2)
    weights = [float(objective.kl_weight(step)) for step in (0, 5, 10, 19, 20, 25, 39, 40, 45, 999)]
    assert weights == [0.0, 0.5, 1.0, 1.0, 0.0, 0.5, 1.0, 1.0, 1.0, 1.0]


def test_importance_weighted_loss_is_minus_the_log_of_the_mean_weight():
    terms = _terms()
    loss = Objective(num_samples=3, bound="iwae").loss(terms)
    weights = np.exp(terms.elbo.numpy().astype(np.float64))
    # Weights are off by their logarithms' rounding; their sum, and its logarithm, by a few eps.
    rounding = _rounding(terms) + 8 * EPS
    np.testing.assert_allclose(loss, -np.log(weights.mean(axis=0)), rtol=0, atol=rounding)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0, 2.0])
def test_the_path_factors_of_dreg(beta):
    terms = _terms()
    factors = Objective(num_samples=3, bound="dreg", beta=beta).path_factors(terms)
    log_weights = terms.log_likelihood.numpy() - beta * terms.kl.numpy().astype(np.float64)
    weights = np.exp(log_weights)
    shares = weights / weights.sum(axis=0)
    wanted = (1 - beta) + beta * shares
    # A share has a relative error of twice its weights'; the rest are roundings of 1 + 2 beta.
    rounding = beta * 2 * _rounding(terms, beta) + 8 * EPS * (1 + 2 * beta)
    np.testing.assert_allclose(factors, wanted, rtol=0, atol=rounding)


def _gradient_by_kl(objective, terms):
    with tf.GradientTape() as tape:
        tape.watch(terms.log_posterior)
        loss = tf.reduce_mean(objective.loss(terms))
    return tape.gradient(loss, terms.log_posterior), loss


def test_a_kl_below_the_minimum_of_information_counts_as_it_and_gives_no_gradient():
    terms = _terms()
    terms = terms._replace(log_posterior=terms.log_posterior + 2.0)
    mean_kl = float(tf.reduce_mean(terms.kl))
    plain_gradient, plain = _gradient_by_kl(Objective(num_samples=3), terms)
    for surplus, active in ((-0.1, False), (0.3, True)):
        objective = Objective(num_samples=3, min_information=mean_kl + surplus)
        gradient, loss = _gradient_by_kl(objective, terms)
        missing = max(objective.min_information - mean_kl, 0.0)
        assert (missing > 0) == active
        np.testing.assert_allclose(loss, plain + missing, rtol=0, atol=_rounding(terms))
        np.testing.assert_array_equal(gradient, 0 * gradient if active else plain_gradient)


def _terms_by_dimension():
    rng = np.random.default_rng(1)
    by_dimension = rng.normal(size=(3, 5, 4)).astype(np.float32) + np.float32([0, 1, 2, 3])
    terms, kl = _terms(), tf.constant(by_dimension.sum(axis=-1))
    return terms._replace(
        log_posterior=terms.log_prior + kl, kl_per_dimension=tf.constant(by_dimension)
    )


def test_free_bits_hold_for_each_dimension_alone():
    terms, objective = _terms_by_dimension(), Objective(num_samples=3, free_bits=1.5)
    means = terms.kl_per_dimension.numpy().mean(axis=(0, 1))
    with tf.GradientTape() as tape:
        tape.watch(terms.kl_per_dimension)
        loss = tf.reduce_mean(objective.loss(terms))
    wanted = np.maximum(means, 1.5).sum() - np.mean(terms.log_likelihood)
    # Means over 15 numbers and a sum over 4, beside what `_rounding` counts.
    size = np.sum(np.abs(terms.kl_per_dimension), axis=-1).max()
    rounding = _rounding(terms) + (15 + 4) * EPS * size
    np.testing.assert_allclose(loss, wanted, rtol=0, atol=rounding)
    below = means < 1.5
    assert list(below) == [True, True, False, False]
    gradient = tape.gradient(loss, terms.kl_per_dimension).numpy()
    assert np.all(gradient[..., below] == 0)
    np.testing.assert_allclose(gradient[..., ~below], 1 / 15, rtol=4 * EPS)


def test_a_kl_that_is_no_number_is_not_taken_for_one_below_the_minimum():
    terms = _terms()
    terms = terms._replace(log_posterior=terms.log_posterior * np.nan)
    assert np.all(np.isnan(Objective(min_information=1.0).loss(terms)))


def test_serialises():
    objective = Objective(num_samples=3, beta=0.5)
    config = keras.saving.serialize_keras_object(objective)
    assert keras.saving.deserialize_keras_object(config) == objective
