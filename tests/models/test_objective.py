from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.models import ElboTerms, Objective


def _terms():
    rng = np.random.default_rng(0)
    log_likelihood, log_prior, log_base, log_det = (
        tf.constant(rng.normal(size=(3, 5)), tf.float32) for _ in range(4)
    )
    return ElboTerms(log_likelihood, log_prior, log_base - log_det, log_base, log_det)


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
    np.testing.assert_allclose(loss, wanted, rtol=1e-5, atol=1e-6)


def test_with_beta_one_the_loss_is_minus_the_elbo():
    terms = _terms()
    np.testing.assert_allclose(Objective().loss(terms), -np.mean(terms.elbo, axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "received"),
    [({"num_samples": 0}, "num_samples=0, beta=1.0"), ({"beta": -0.1}, "num_samples=1, beta=-0.1")],
)
def test_refuses_no_samples_and_a_negative_beta(arguments, received):
    with pytest.raises(ValueError, match=f"Received: {received}"):
        Objective(**arguments)


def test_serialises():
    objective = Objective(num_samples=3, beta=0.5)
    config = keras.saving.serialize_keras_object(objective)
    assert keras.saving.deserialize_keras_object(config) == objective
