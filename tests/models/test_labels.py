"""Models with classes: their densities, draws, training and errors."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_flowvae as fv
from tfp_flowvae.errors import UserError
from tfp_flowvae.models.labels import with_unknown
from tfp_flowvae.training.noise import Noise

EPS = float(np.finfo(np.float32).eps)


@pytest.fixture(scope="module")
def known(three_gaussians):
    return three_gaussians


def rounding(known, x):
    """Some 60 roundings of terms of the size of the squares in the densities at x."""
    z = np.abs(x).max() * np.abs(known.w).sum() / known.noise**2
    return 60 * EPS * (z**2 + (np.abs(x).max() / known.noise) ** 2 * 6)


def test_the_bound_is_the_density_of_the_class(known):
    labels = np.array([0, 1, 2, -1, 2, -1])
    x = known.images(np.maximum(labels, 0))
    wanted = [
        known.log_prob(x[i : i + 1], m)
        for i, m in enumerate([*known.means, 0.0, known.means[2], 0.0])
    ]
    found = known.model.elbo_terms(x, 4, seed=1, label=labels).elbo
    for draw in found.numpy():  # with the exact posterior every draw gives log p(x|y)
        np.testing.assert_allclose(draw, wanted, rtol=0, atol=rounding(known, x))
    np.testing.assert_allclose(
        known.model.nll(x, 10, seed=0, label=labels),
        -np.array(wanted),
        rtol=0,
        atol=rounding(known, x),
    )


def test_one_label_stands_for_all_images_and_none_for_an_unknown_class(known):
    x = known.images([1, 1, 1])
    for label, same in ((1, [1, 1, 1]), (None, [-1, -1, -1])):
        np.testing.assert_array_equal(
            known.model.elbo(x, seed=1, label=label),
            known.model.elbo(x, seed=1, label=same),
        )
        np.testing.assert_array_equal(
            known.model.nll(x, 7, seed=1, label=same),
            known.model.nll(x, 7, seed=1, label=label),
        )


def test_each_class_has_a_prior_of_its_own(known):
    prior = known.model.prior([0, 1, 2, -1])
    assert prior.batch_shape == [4]
    np.testing.assert_allclose(prior.distribution.mean()[:, 0], [*known.means, 0.0], rtol=2 * EPS)
    assert known.model.prior(2).batch_shape == [1]
    # Without noise a sample is the mean of its class, decoded.
    labels = [2, 0, -1]
    images = known.model.sample(3, seed=0, temperature=0.0, label=labels).numpy().reshape(3, 6)
    wanted = np.array([known.means[2], known.means[0], 0.0])[:, np.newaxis] * known.w + known.b
    np.testing.assert_allclose(images, wanted, atol=4 * EPS * np.abs(wanted).max())
    drawn = known.model.draw_prior(4000, seed=0, label=2).numpy()
    assert abs(drawn.mean() - known.means[2]) < 4 * known.spread / np.sqrt(4000)  # standard errors
    np.testing.assert_array_equal(
        known.model.sample(5, seed=3, label=1),
        known.model.sample(5, seed=3, label=[1] * 5),
    )


def test_the_posterior_has_the_label(known):
    x = known.images([0, 0])
    means = known.model.posterior(x, [0, 2]).distribution.mean().numpy()[:, 0]
    variance = 1.0 / (known.spread**-2 + np.sum(known.w**2) / known.noise**2)
    flat = x.reshape(2, 6).astype(np.float64)
    from_image = variance * (flat - known.b) @ known.w[0] / known.noise**2
    wanted = from_image + variance * known.means[[0, 2]] / known.spread**2
    np.testing.assert_allclose(means, wanted, rtol=0, atol=rounding(known, x) * known.noise)
    encoded = known.model.encode(x, seed=2, label=[0, 2])
    again = known.model.posterior_layer.sample(1, known.model.features(x, [0, 2]), 2)[0]
    np.testing.assert_array_equal(encoded, again)
    np.testing.assert_array_equal(
        known.model.reconstruct(x, seed=2, label=[0, 2]),
        known.model.decode(encoded),
    )


def test_a_mixture_of_posteriors_has_weights_for_each_class(make_vae, digits):
    vae = make_vae("none", "vamp", num_classes=2)
    labels = np.arange(len(digits)) % 2
    vae.adapt(digits, labels)
    base = vae.prior_layer.base
    logits = np.asarray(base._logits, np.float64) + np.asarray(base._logits_kernel, np.float64)
    parts = vae.posterior(base.pseudo_inputs).distribution
    z = vae.draw_prior(5, seed=0, label=[0, 1, 0, 1, 1]).numpy()
    for i, y in enumerate([0, 1, 0, 1, 1]):
        weights = np.exp(logits[y]) / np.exp(logits[y]).sum()
        densities = np.exp(parts.log_prob(z[i]).numpy().astype(np.float64))
        found = vae.log_prior(z[i : i + 1], [y]).numpy()[0]
        # Four dimensions and three components, of squares of this size.
        size = 1.0 + np.abs(parts.log_prob(z[i])).max()
        assert abs(found - np.log(weights @ densities)) < 50 * EPS * size
    # The components that start at images of a class have its weight.
    starts = np.asarray(base._raw_images)
    own = [labels[np.flatnonzero((digits == image).all(axis=(1, 2, 3)))[0]] for image in starts]
    np.testing.assert_array_equal(base._logits_kernel, 4.0 * (np.array([[0], [1]]) == own))


def test_training_with_a_third_of_the_labels_missing(make_vae, digits):
    x = digits[:240]
    labels = (x.mean(axis=(1, 2, 3)) > np.median(x.mean(axis=(1, 2, 3)))).astype(int)
    given = np.where(np.arange(240) % 3, labels, -1)
    vae = make_vae("iaf", "realnvp", num_classes=2, seed=1)
    vae.compile(keras.optimizers.Adam(3e-3))
    history = vae.fit(
        x, given, batch_size=40, epochs=8, validation_data=(x[:40], given[:40]), verbose=0
    ).history
    assert history["loss"][-1] < history["loss"][0] - 3.0
    assert np.isfinite(history["val_elbo"]).all()
    # The data set of pairs is the same data.
    pairs = tf.data.Dataset.from_tensor_slices((x, given)).batch(40)
    assert vae.evaluate(pairs, verbose=0) == pytest.approx(
        vae.evaluate(x, given, batch_size=40, verbose=0),
        rel=0.05,  # other noise, of 240 images
    )
    assert vae.predict(pairs, verbose=0).shape == x.shape


def test_training_hides_the_share_of_the_labels_that_it_says(make_vae, digits):
    share, labels = 0.3, tf.ones([4000], tf.int32)
    seen = with_unknown(labels, share, Noise(3)).numpy()
    assert set(np.unique(seen)) == {-1, 1}
    assert abs(np.mean(seen == -1) - share) < 4 * np.sqrt(share * (1 - share) / 4000)
    # Only in training: with all labels hidden, training would not see them.
    vae = make_vae(num_classes=2, label_dropout=0.999, seed=0)
    vae.prior_layer.base._loc.kernel.assign_add(tf.ones([2, 4]))
    x, y = digits[:50], tf.ones([50], tf.int32)

    def log_prior(training, label):
        vae.seed_generator.state.assign([3, 0])
        return vae(x, training=training, label=label)["log_prior"].numpy()

    unknown = tf.fill([50], -1)
    np.testing.assert_array_equal(log_prior(True, y), log_prior(True, unknown))
    assert np.all(log_prior(False, y) != log_prior(False, unknown))


@pytest.mark.parametrize("prior", ["none", "vamp", "mixture+realnvp"])
def test_files_and_clones_keep_the_classes(prior, make_vae, stir, digits, tmp_path):
    vae = stir(make_vae("iaf", prior, num_classes=3, label_dropout=0.2, seed=1))
    vae.save(tmp_path / "model.keras")
    for again in (keras.saving.load_model(tmp_path / "model.keras"), keras.models.clone_model(vae)):
        again.set_weights(vae.get_weights())
        assert (again.num_classes, again.label_dropout) == (3, 0.2)
        np.testing.assert_array_equal(
            again.elbo(digits[:3], seed=1, label=[0, 2, -1]),
            vae.elbo(digits[:3], seed=1, label=[0, 2, -1]),
        )
        np.testing.assert_array_equal(
            again.sample(2, seed=1, label=2), vae.sample(2, seed=1, label=2)
        )


def test_the_config_of_a_model_without_classes_is_as_it_was(make_vae):
    assert not {"num_classes", "label_dropout"} & set(make_vae().get_config())


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([0, 1, 2], "one label for each example. Received: 3 labels for 2 examples"),
        (3, "Labels must be 0 to 2, or -1 .* Received: 3"),
        ([0, -2], "Received: -2"),
        ([0.0, 1.0], "integers of shape .N.. Received: float32 of shape .2,."),
        ([[0], [1]], r"Received: int32 of shape \(2, 1\)"),
    ],
)
def test_labels_that_cannot_be(label, message, known):
    x = known.images([0, 1])
    for call in (
        lambda: known.model.elbo(x, label=label),
        lambda: known.model.nll(x, 2, label=label),
        lambda: known.model.sample(2, label=label),
        lambda: known.model.encode(x, label=label),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_labels_of_fit_are_checked(make_vae, digits):
    x, y = digits[:40], np.zeros(40, int)
    with_classes, without = make_vae(num_classes=2), make_vae()
    for vae in (with_classes, without):
        vae.compile("adam", run_eagerly=True)
    for labels, message in (
        (None, "give fit the labels"),
        (y[:30], "30 labels for 40 examples"),
        (y + 2, "Labels must be 0 to 1"),
    ):
        with pytest.raises(UserError, match=message):
            with_classes.fit(x, labels, verbose=0)
    with pytest.raises(UserError, match=r"has no classes.*num_classes"):
        without.fit(x, y, verbose=0)
    pairs = tf.data.Dataset.from_tensor_slices((x, y)).batch(40)
    with pytest.raises(UserError, match=r"has no classes.*num_classes"):
        without.fit(pairs, shuffle=False, verbose=0)
    with pytest.raises(UserError, match="give fit the labels"):
        with_classes.fit(tf.data.Dataset.from_tensors(x), shuffle=False, verbose=0)
    with pytest.raises(UserError, match=r"no classes.*or leave the label out"):
        without.sample(3, label=1)
    with pytest.raises(UserError, match="no classes"):
        without.elbo(x, label=y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"num_classes": 2, "label_dropout": 1.0}, "label_dropout must be at least 0 and below 1"),
        (
            {"num_classes": 2, "objective": fv.Objective(free_bits=0.1)},
            "free_bits needs a KL that is a sum",
        ),
    ],
)
def test_options_that_cannot_be(options, message, make_vae):
    with pytest.raises(ValueError, match=message):
        make_vae(**options)
