"""FlowVAEs with a context: a vector for each image in place of a class."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_flowvae as fv
from tfp_flowvae.errors import UserError

EPS = float(np.finfo(np.float32).eps)
X = np.random.default_rng(0).integers(0, 2, [5, 8, 8, 1]).astype(np.float32)
CONTEXT = (50.0 + 20.0 * np.random.default_rng(1).normal(size=[5, 3])).astype(np.float32)


@pytest.fixture
def vae(make_vae, stir):
    model = make_vae("iaf", "mixture+realnvp", context_size=3, seed=0)
    model.adapt(X, context=CONTEXT)
    return stir(model)


def test_a_one_hot_context_is_a_class(make_vae, stir):
    by_label = stir(make_vae("iaf", "realnvp", num_classes=3, seed=0))
    by_vector = make_vae("iaf", "realnvp", context_size=3, seed=0)
    parts = ("encoder", "posterior_layer", "prior_layer", "decoder")
    for part in parts:
        getattr(by_vector, part).set_weights(getattr(by_label, part).get_weights())
    label = np.array([2, 0, -1, 1, 1])
    one_hot = np.array([np.eye(3)[y] if y >= 0 else np.zeros(3) for y in label], np.float32)
    for call in (
        lambda vae, **y: vae.elbo(X, 3, seed=1, **y),
        lambda vae, **y: vae.nll(X, 7, seed=1, **y),
        lambda vae, **y: vae.encode(X, seed=1, **y),
        lambda vae, **y: vae.reconstruct(X, seed=1, **y),
        lambda vae, **y: vae.log_prior(np.ones([2, 5, 4], "f4"), **y),
        lambda vae, **y: vae.interpolate(X, X[::-1], 3, **y),
        lambda vae, **y: vae.posterior(X, **y).log_prob(np.ones([5, 4], "f4")),
    ):
        np.testing.assert_array_equal(call(by_vector, context=one_hot), call(by_label, label=label))
    # One draw for each label, and n for each context.
    np.testing.assert_array_equal(
        by_vector.sample(1, seed=1, context=one_hot)[0], by_label.sample(5, seed=1, label=label)
    )
    assert by_vector.sample(4, context=one_hot).shape == (4, 5, 8, 8, 1)
    assert by_vector.draw_images(4, context=one_hot).shape == (4, 5, 8, 8, 1)
    assert by_vector.prior(context=one_hot).batch_shape == [5]


def test_the_columns_of_the_context_are_standardised(vae):
    mean, scale = CONTEXT.mean(axis=0, dtype=float), CONTEXT.std(axis=0, dtype=float)
    wanted = (CONTEXT - mean) / scale
    # The mean and the scale are rounded, and so is the difference of numbers below 100.
    size = EPS * 100 / scale.min()
    np.testing.assert_allclose(vae.condition(None, CONTEXT, 5), wanted, rtol=0, atol=4 * size)


def test_fit_learns_what_the_context_tells(make_vae):
    # The context is how bright the image is, in some unit.
    rng = np.random.default_rng(0)
    share = rng.uniform(0.1, 0.9, [400, 1])
    x = (rng.uniform(size=[400, 64]) < share).astype(np.float32).reshape(-1, 8, 8, 1)
    context = np.concatenate([1000.0 * share, rng.normal(size=[400, 1])], axis=1)
    vae = make_vae("iaf", "realnvp", context_size=2, seed=1)
    vae.compile(keras.optimizers.Adam(1e-2))
    logs = vae.fit(x, context, batch_size=40, epochs=8, validation_split=0.1, verbose=0).history
    assert logs["val_elbo"][-1] > logs["val_elbo"][0]
    # From the training part alone; the sums are of numbers up to 1000.
    mean = vae.context_units._statistics["mean"].numpy()
    np.testing.assert_allclose(mean, context[:360].mean(axis=0), rtol=0, atol=1000 * EPS)
    images = vae.sample(100, seed=0, context=[[200.0, 0.0], [800.0, 0.0]]).numpy()
    assert images[:, 0].mean() < images[:, 1].mean() - 0.2
    before = mean.copy()
    pairs = tf.data.Dataset.from_tensor_slices((x, 2.0 * context)).batch(40)
    vae.fit(pairs, shuffle=False, verbose=0)  # what has been learned is not learned again
    np.testing.assert_array_equal(vae.context_units._statistics["mean"], before)
    assert vae.predict(pairs, verbose=0).shape == x.shape
    fresh = make_vae(context_size=2)
    fresh.compile("adam")
    fresh.fit(pairs, shuffle=False, verbose=0)
    twice = fresh.context_units._statistics["mean"].numpy()
    np.testing.assert_allclose(twice, 2 * context.mean(axis=0), rtol=0, atol=2000 * EPS)


def test_files_and_exports_keep_the_context(vae, tmp_path):
    fv.export(vae, tmp_path)
    again = fv.load(tmp_path)
    assert again.context_size == 3
    np.testing.assert_array_equal(
        again.elbo(X, seed=1, context=CONTEXT), vae.elbo(X, seed=1, context=CONTEXT)
    )
    assert "| context y | 3 columns" in (tmp_path / "README.md").read_text("utf-8")
    served = tf.saved_model.load(str(tmp_path))
    # Some eight layers, each with sums of at most 64 products and 20 functions, of numbers up to
    # 100: log-densities of 64 pixels.
    close = {"rtol": 0, "atol": 8 * (64 + 20) * 100 * EPS}
    pairs = [
        (served.elbo(X, CONTEXT, 1)["elbo"], vae.elbo(X, 1, 1, context=CONTEXT)),
        (served.log_prob(X, CONTEXT, 7, 1)["log_prob"], -vae.nll(X, 7, 5, 1, context=CONTEXT)),
        (served.encode(X, CONTEXT, 1)["z"], vae.encode(X, 1, context=CONTEXT)),
        (served.sample(2, CONTEXT, 1)["images"], vae.sample(2, 1, context=CONTEXT)),
        (
            served.interpolate(X, X[::-1], CONTEXT, 3)["images"],
            vae.interpolate(X, X[::-1], 3, context=CONTEXT),
        ),
    ]
    for got, wanted in pairs:
        np.testing.assert_allclose(got, wanted, **close)
    rows = served.sample_rows([2, 1], CONTEXT[:2], [1, 1])["images"]
    one = served.sample(2, CONTEXT[:1], 1)["images"]
    np.testing.assert_allclose(rows[0], one[:, 0], **close)


def test_mistakes_get_one_sentence(vae, make_vae):
    vae.compile("adam")
    plain, classes = make_vae(), make_vae(num_classes=2)
    for call, message in (
        (lambda: vae.elbo(X), r"The context must have shape \[B, 3\]. Received: None"),
        (lambda: vae.sample(2), r"The context must have shape \[B, 3\]"),
        (lambda: vae.fit(X, verbose=0), r"The context must have shape \[B, 3\]"),
        (lambda: vae.elbo(X, context=CONTEXT[:, :2]), r"Received: context.shape=\(5, 2\)"),
        (lambda: vae.elbo(X, context=CONTEXT[:4]), r"one context for each image.*\(4, 3\) for 5"),
        (lambda: vae.elbo(X, context=CONTEXT[0]), r"one context for each image"),
        (lambda: vae.elbo(X, label=1), "no classes"),
        (lambda: plain.elbo(X, context=CONTEXT), "takes no context: give its constructor"),
        (lambda: classes.elbo(X, context=CONTEXT), "has 2 classes: give it a label"),
        (lambda: make_vae(num_classes=2, context_size=3), "has classes or a context"),
        (lambda: vae.adapt(X, context=0 * CONTEXT), "Column 0 of context is constant"),
    ):
        with pytest.raises(UserError, match=message):
            call()
