"""FlowVAEs whose decoder takes the class or the context: p(x|z, y)."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_flowvae as fv

EPS = float(np.finfo(np.float32).eps)
# Some eight layers, each with sums of at most 64 products and 20 functions, of numbers up to 100:
# log-densities of 64 pixels.
CLOSE = {"rtol": 0, "atol": 8 * (64 + 20) * 100 * EPS}
X = np.random.default_rng(0).integers(0, 2, [5, 8, 8, 1]).astype(np.float32)
CONTEXT = np.random.default_rng(1).normal(size=[5, 2]).astype(np.float32)
LABELS = np.array([2, 0, -1, 1, 1])


def test_the_bound_is_the_density_of_the_class(three_gaussians):
    shifts = 2.0 * np.random.default_rng(3).normal(size=[3, 6])
    known = type(three_gaussians)(shifts)
    labels = np.array([0, 1, 2, -1, 2])
    x = known.images(np.maximum(labels, 0))
    wanted = [
        known.log_prob(x[i : i + 1], known.means[y], shifts[y])
        if y >= 0
        else known.log_prob(x[i : i + 1], 0.0)
        for i, y in enumerate(labels)
    ]
    # Some 60 roundings of terms of the size of the squares in the densities at x.
    z = np.abs(x).max() * np.abs(known.w).sum() / known.noise**2
    size = 60 * EPS * (z**2 + (np.abs(x).max() / known.noise) ** 2 * 6)
    found = known.model.elbo_terms(x, 4, seed=1, label=labels).elbo
    for draw in found.numpy():  # with the exact posterior every draw gives log p(x|y)
        np.testing.assert_allclose(draw, wanted, rtol=0, atol=size)
    nll = known.model.nll(x, 10, seed=0, label=labels)
    np.testing.assert_allclose(nll, -np.array(wanted), rtol=0, atol=size)
    # Without noise a sample is the mean of its class, decoded with it.
    images = known.model.sample(3, seed=0, temperature=0.0, label=[0, 1, 2]).numpy().reshape(3, 6)
    means = known.means[:, np.newaxis] * known.w + known.b + shifts
    np.testing.assert_allclose(images, means, rtol=0, atol=4 * EPS * np.abs(means).max())


def test_z_is_decoded_with_the_label_of_its_row(make_vae, stir):
    vae = stir(make_vae("iaf", "realnvp", num_classes=3, conditional_decoder=True, seed=0))
    z = vae.encode(X, seed=1, label=LABELS)
    one_hot = np.array([np.eye(3)[y] if y >= 0 else np.zeros(3) for y in LABELS], np.float32)
    wanted = vae.likelihood.mean(vae.decoder(np.concatenate([z, one_hot], axis=1)))
    np.testing.assert_array_equal(vae.decode(z, LABELS), wanted)
    np.testing.assert_array_equal(vae.reconstruct(X, seed=1, label=LABELS), wanted)
    both = vae.decode(tf.stack([z, z]), LABELS)
    np.testing.assert_allclose(both, np.stack([wanted, wanted]), rtol=0, atol=16 * EPS)
    np.testing.assert_array_equal(vae.decode(z), vae.decode(z, [-1] * 5))
    np.testing.assert_allclose(
        vae.decode(z[0], 2), vae.decode(z[:1], [2])[0], rtol=0, atol=16 * EPS
    )
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(vae.elbo(X, 2, seed=0, label=[1] * 5))
    kernel = next(weight for weight in vae.decoder.trainable_weights if weight.shape[0] == 7)
    gradient = np.asarray(tape.gradient(loss, kernel.value))
    assert np.any(gradient[5] != 0.0)  # the row of class 1
    np.testing.assert_array_equal(gradient[[4, 6]], 0.0)


@pytest.mark.parametrize("condition", [{"num_classes": 3}, {"context_size": 2}])
def test_it_trains_and_exports(condition, make_vae, tmp_path):
    vae = make_vae("iaf", "mixture+realnvp", conditional_decoder=True, seed=0, **condition)
    vae.compile(keras.optimizers.Adam(1e-2))
    x = np.tile(X, [8, 1, 1, 1])
    y, name = (LABELS, "label") if "num_classes" in condition else (CONTEXT, "context")
    logs = vae.fit(x, np.concatenate([y] * 8), batch_size=20, epochs=5, verbose=0).history
    assert logs["loss"][-1] < logs["loss"][0]
    fv.export(vae, tmp_path)
    again = fv.load(tmp_path)
    assert again.conditional_decoder
    given = {name: y}
    np.testing.assert_array_equal(again.elbo(X, seed=1, **given), vae.elbo(X, seed=1, **given))
    served, z = tf.saved_model.load(str(tmp_path)), vae.encode(X, 1, **given)
    # `sample` takes one label or several contexts, and `interpolate` no label.
    one, between = (2, {}) if name == "label" else (y, given)
    pairs = [
        (served.decode(z, y)["images"], vae.decode(z, **given)),
        (served.elbo(X, y, 1)["elbo"], vae.elbo(X, 1, 1, **given)),
        (served.reconstruct(X, y, 1)["images"], vae.reconstruct(X, 1, **given)),
        (served.sample(2, one, 1)["images"], vae.sample(2, 1, **{name: one})),
        (served.log_prob(X, y, 7, 1)["log_prob"], -vae.nll(X, 7, 5, 1, **given)),
        (
            served.interpolate(X, X[::-1], *between.values(), 3)["images"],
            vae.interpolate(X, X[::-1], 3, **between),
        ),
    ]
    for got, wanted in pairs:
        np.testing.assert_allclose(got, wanted, **CLOSE)


def test_what_cannot_be(make_vae):
    with pytest.raises(ValueError, match="conditional_decoder needs classes or a context"):
        make_vae(conditional_decoder=True)
    decoder = keras.Sequential([keras.Input([4]), keras.layers.Dense(64)])
    with pytest.raises(ValueError, match=r"decoder must take inputs of shape \[B, 7\]"):
        make_vae(conditional_decoder=True, num_classes=3, decoder=decoder)
    assert "conditional_decoder" not in make_vae().get_config()
