"""Training by Keras's own `fit`."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae import models
from tfp_flowvae.errors import UserError
from tfp_flowvae.training.callbacks import GradientNorm

NAMES = ["elbo", "kl", "log_likelihood", "loss"]
EPS = float(np.finfo(np.float32).eps)


def _fit(vae, x, epochs=4, compile_with=None, **arguments):
    vae.compile(keras.optimizers.Adam(3e-3), **{"jit_compile": False, **(compile_with or {})})
    return vae.fit(x, batch_size=64, epochs=epochs, verbose=0, shuffle=False, **arguments).history


def _noise(vae, x):
    """The standard error of the mean loss of images x, in nats, from the draws of z alone."""
    variance = np.var(vae.elbo_terms(x, 16, seed=0).elbo, axis=0)
    return np.sqrt(np.mean(variance) / len(x))


def _assert_lower(loss, vae, x):
    """The loss has fallen by more than 5 standard errors of a difference."""
    assert loss[0] - loss[-1] > 5 * np.sqrt(2) * _noise(vae, x)


def _assert_equal_means(first, second, size):
    """Means over at most 256 images, of numbers of this size, that differ by rounding alone."""
    np.testing.assert_allclose(first, second, rtol=0, atol=256 * EPS * np.max(size))


@pytest.mark.parametrize(("flow", "prior"), [("planar", "maf"), ("householder", "realnvp")])
def test_fit_lowers_the_loss_and_reports_it(flow, prior, make_vae, digits):
    vae = make_vae(flow, prior)
    history = _fit(vae, digits, compile_with={"jit_compile": False}, validation_data=(digits[:64],))
    expected = [*NAMES, *(f"val_{name}" for name in NAMES)]
    assert sorted(history) == sorted(expected)
    for prefix, x in (("", digits), ("val_", digits[:64])):
        loss, elbo, log_likelihood, kl = (
            np.array(history[prefix + name]) for name in ("loss", "elbo", "log_likelihood", "kl")
        )
        _assert_lower(loss, vae, x)
        size = np.abs(log_likelihood) + np.abs(kl)
        _assert_equal_means(loss, -elbo, size)
        _assert_equal_means(elbo, log_likelihood - kl, size)
    evaluated = vae.evaluate(digits[:64], verbose=0, return_dict=True)
    assert sorted(evaluated) == NAMES
    noise = 5 * np.sqrt(2) * _noise(vae, digits[:64])
    assert abs(evaluated["loss"] - history["val_loss"][-1]) < noise


def test_reports_the_gradients_norm_and_how_often_it_was_clipped(make_vae, digits):
    vae, x = make_vae("none", "none", seed=1), digits[:64]
    weights = [w.value for w in vae.trainable_weights]
    vae.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    vae.seed_generator.state.assign([1, 2])
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(vae.example_terms(x, training=True)[0])
    norm = float(tf.linalg.global_norm(tape.gradient(loss, weights)))
    for limit, clipped in ((0.5 * norm, [1.0]), (2 * norm, [0.0]), (None, None)):
        vae.compile(keras.optimizers.SGD(0.0, global_clipnorm=limit), run_eagerly=True)
        vae.seed_generator.state.assign([1, 2])
        watch = {"shuffle": False, "verbose": 0, "callbacks": [GradientNorm()]}
        history = vae.fit(x, batch_size=64, **watch).history
        # The same gradient; the metric multiplies and divides it by a weight.
        assert history["gradient_norm"] == [pytest.approx(norm, rel=4 * EPS)]
        assert history.get("clipped") == clipped
        assert vae.gradient_observers == ()


def test_refuses_images_that_the_likelihood_does_not_take(make_vae, digits):
    vae = make_vae("none", "none")
    vae.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    with pytest.raises(UserError, match=r"\[0, 1\].*255"):
        vae.fit(digits * 255, batch_size=64, verbose=0)


def test_compiled_training(make_vae, digits):
    vae = make_vae("iaf:1,hidden=8")
    loss = _fit(vae, digits, compile_with={"jit_compile": True})["loss"]
    _assert_lower(loss, vae, digits)


@pytest.mark.slow
def test_every_posterior_with_every_prior_trains_compiled(flow, prior, make_vae, digits):
    vae = make_vae(flow, prior)
    vae.adapt(digits)
    before = [weight.numpy() for weight in vae.prior_layer.trainable_weights]
    loss = _fit(vae, digits, compile_with={"jit_compile": True})["loss"]
    assert np.all(np.isfinite(loss))
    _assert_lower(loss, vae, digits)
    for old, weight in zip(before, vae.prior_layer.trainable_weights, strict=True):
        assert prior == "householder" or np.any(old != weight.numpy()), weight.path


def test_the_seed_decides_the_run(make_vae, digits):
    histories = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(0)
        vae = make_vae(seed=seed)
        # Eagerly: three traces would take seconds each.
        histories.append(_fit(vae, digits[:64], 2, compile_with={"run_eagerly": True}))
    assert histories[0] == histories[1]
    assert histories[0]["loss"] != histories[2]["loss"]


def test_beta_and_samples_change_the_loss_but_not_the_metrics(make_vae, digits):
    vae = make_vae("planar", objective=models.Objective(num_samples=3, beta=0.25))
    vae.compile(jit_compile=False)
    results = vae.evaluate(digits[:64], verbose=0, return_dict=True)
    assert {term.shape for term in vae(digits[:5]).values()} == {(3, 5)}
    size = abs(results["log_likelihood"]) + abs(results["kl"])
    _assert_equal_means(results["loss"], -results["log_likelihood"] + 0.25 * results["kl"], size)
    _assert_equal_means(results["elbo"], results["log_likelihood"] - results["kl"], size)


def test_sample_weights_and_added_losses_count(make_vae, digits):
    vae, x = make_vae(seed=1), digits[:4]
    vae.compile(run_eagerly=True)
    weights = np.float32([0.0, 1.0, 2.0, 0.5])

    def evaluate(**how):
        vae.seed_generator.state.assign([1, 2])
        return vae.evaluate(x, batch_size=4, verbose=0, return_dict=True, **how)["loss"]

    vae.seed_generator.state.assign([1, 2])
    each = vae.example_terms(x)[0].numpy()
    _assert_equal_means(evaluate(), each.mean(), np.abs(each))
    weighted = evaluate(sample_weight=weights)
    _assert_equal_means(weighted, np.mean(each * weights), np.abs(each * weights))
    kernel = next(w for w in vae.encoder.weights if w.path.endswith("kernel"))
    kernel.regularizer = keras.regularizers.L2(0.1)
    added = evaluate() - each.mean()
    wanted = 0.1 * np.sum(np.square(kernel.numpy()))
    rounding = kernel.numpy().size * EPS * (wanted + abs(each.mean()))  # a sum over the kernel
    np.testing.assert_allclose(added, wanted, rtol=0, atol=rounding)


def test_trains_under_mixed_precision(mixed_bfloat16, make_vae, digits):
    vae = make_vae("iaf", "realnvp")
    history = _fit(vae, digits)
    assert np.all(np.isfinite(history["loss"]))
    _assert_lower(history["loss"], vae, digits)
    assert {w.dtype for w in vae.trainable_weights} == {"float32"}


class _Flagged(keras.layers.Layer):
    """Notes whether it was called in training."""

    flags: list

    def call(self, x, training=False):
        self.flags.append(bool(training))
        return x


def test_the_users_own_keras_nets_train_unchanged(make_vae, digits):
    image = keras.Input((8, 8, 1))
    h = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(image)
    h = keras.layers.BatchNormalization()(h)
    flagged = _Flagged()
    flagged.flags = []
    h = keras.layers.Dropout(0.1)(flagged(keras.layers.Flatten()(h)))
    encoder = keras.Model(image, keras.layers.Dense(16)(h))
    decoder = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(16 * 4, activation="relu"),
            keras.layers.Reshape((4, 4, 4)),
            keras.layers.Conv2DTranspose(1, 3, strides=2, padding="same"),
        ]
    )
    vae = make_vae(encoder=encoder, decoder=decoder)
    assert vae.image_shape == (8, 8, 1)
    flagged.flags.clear()
    loss = _fit(vae, digits)["loss"]
    assert set(flagged.flags) == {True}
    _assert_lower(loss, vae, digits)
    statistics = [w for w in encoder.weights if "moving_mean" in w.path]
    assert np.any(statistics[0].numpy() != 0)
    flagged.flags.clear()
    vae.evaluate(digits[:64], verbose=0)
    assert set(flagged.flags) == {False}
    assert vae.elbo_terms(digits[:3], num_samples=2).elbo.shape == (2, 3)
