"""The export of a model with classes takes labels, and is the model."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_flowvae as fv
from tfp_flowvae.models.endpoints import SERVING_SEED

D, IMAGE = 4, (5, 3, 1)
EPS = float(np.finfo(np.float32).eps)
# Some eight layers one after the other, each with sums of at most 16 products and 20 functions.
ROUNDINGS = 8 * (16 + 20)
LABELS = np.array([2, -1, 0])


@pytest.fixture(scope="module")
def vae(stir):
    keras.utils.set_random_seed(0)
    model = fv.FlowVAE(
        image_shape=IMAGE,
        latent_size=D,
        encoder="mlp:16",
        posterior="iaf:1,hidden=8",
        prior="mixture:3+realnvp:1,hidden=8",
        decoder="mlp:16",
        num_classes=3,
        seed=0,
    )
    return stir(model)


@pytest.fixture(scope="module")
def served(vae, tmp_path_factory):
    path = tmp_path_factory.mktemp("served")
    fv.export(vae, path)
    assert "Labels are int32, 0 to 2, or -1" in (path / "README.md").read_text("utf-8")
    return tf.saved_model.load(str(path))


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(1).integers(0, 2, size=(3, *IMAGE)).astype(np.float32)


def test_every_function_is_that_of_the_model(vae, served, x, one_eps, assert_within):
    z = vae.encode(x, 1, LABELS)
    pairs = [
        (served.encode(x, LABELS, 1)["z"], lambda x: vae.encode(x, 1, LABELS)),
        (served.reconstruct(x, LABELS, 1)["images"], lambda x: vae.reconstruct(x, 1, LABELS)),
        (served.elbo(x, LABELS, 1)["elbo"], lambda x: vae.elbo(x, 1, 1, LABELS)),
        (
            served.log_prob(x, LABELS, 7, 1)["log_prob"],
            lambda x: -vae.nll(x, 7, 3, 1, LABELS).astype(np.float32),
        ),
        (served.sample(6, 2, 1)["images"], lambda x: vae.sample(6, 1, label=2)),
        (
            served.sample_at_temperature(6, 1, 1, 0.5)["images"],
            lambda x: vae.sample(6, 1, 0.5, label=1),
        ),
        (served.log_prior(z, LABELS)["log_prior"], lambda x: vae.log_prior(z, LABELS)),
        (
            served.log_posterior(z, x, LABELS)["log_posterior"],
            lambda x: vae.posterior_layer.log_prob(z, vae.features(x, LABELS)),
        ),
        (
            served.sample_posterior(x, LABELS, 4, 1)["z"],
            lambda x: vae.posterior_layer.sample(4, vae.features(x, LABELS), 1),
        ),
        (served.interpolate(x, x[::-1], 3)["images"], lambda x: vae.interpolate(x, x[::-1], 3)),
    ]
    for got, function in pairs:
        assert_within(got, function(x), one_eps(function, x, vae), ROUNDINGS)


def test_rows_have_labels_of_their_own(served, x):
    counts, labels, seeds = np.array([2, 3]), np.array([1, -1]), np.array([5, 6])
    images = served.sample_rows(counts, labels, seeds)["images"].numpy()
    for i in range(2):
        one = served.sample(counts[i], labels[i], seeds[i])["images"].numpy()
        scale = ROUNDINGS * EPS * np.abs(one).max()
        np.testing.assert_allclose(images[i, : counts[i]], one, rtol=0, atol=scale)
    elbo = served.elbo_rows(x, LABELS, np.array([1, 2, 3]))["elbo"].numpy()
    for i in range(3):
        one = served.elbo(x[i : i + 1], LABELS[i : i + 1], i + 1)["elbo"].numpy()
        np.testing.assert_allclose(elbo[i : i + 1], one, rtol=ROUNDINGS * EPS)


def test_serving_takes_labels(served, x, predict):
    answer = predict(served, inputs={"x": x.tolist(), "label": LABELS.tolist()})["outputs"]
    wanted = served.sample_posterior(x[:1], LABELS[:1], 1, SERVING_SEED)["z"].numpy()[0]
    np.testing.assert_allclose(
        np.array(answer["z"])[:1], wanted, atol=ROUNDINGS * EPS * np.abs(wanted).max()
    )


@pytest.mark.parametrize("label", [3, -2])
def test_a_label_out_of_range_stops_the_function(label, served, x):
    with pytest.raises(tf.errors.InvalidArgumentError, match="Labels must be 0 to 2, or -1"):
        served.sample(2, label, 0)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Labels must be 0 to 2, or -1"):
        served.elbo(x, [0, label, 1], 0)
