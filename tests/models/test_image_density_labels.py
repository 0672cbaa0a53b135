"""Densities of images with classes: P(x|y), its draws, training, files, exports and refusals."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

import tfp_flowvae as fv
from tfp_flowvae.bijectors import inverse_and_log_det
from tfp_flowvae.errors import UserError

EPS = float(np.finfo(np.float32).eps)
SPEC, SHAPE = "glow:levels=1,steps=2,width=8", (2, 2, 1)
LABELS = np.array([1, 0, -1])
X = np.array([[0, 2, 1, 0], [1, 1, 2, 2], [2, 0, 0, 1]], np.float32).reshape(3, *SHAPE)


def make(flow=SPEC, shape=SHAPE, levels=3, num_classes=2, **how):
    keras.utils.set_random_seed(0)
    return fv.FlowDensity(
        flow, event_shape=shape, levels=levels, num_classes=num_classes, seed=0, **how
    )


def stripes(count, seed=0):
    """Images 4 x 4 with 9 levels, whose upper (class 0) or lower half is bright."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    x = rng.integers(0, 3, [count, 4, 4, 1])
    x[labels == 0, :2] += 6
    x[labels == 1, 2:] += 6
    return x.astype(np.uint8), labels


def moved(density, stir):
    """Random numbers in all weights, those of the base far larger than those of the flow."""
    stir(density, scale=0.03)
    stir(density.layer.base, scale=1.0)
    return density


def parameters(density, labels):
    """The mean and the scale of the base for each label, float64 `[B, D]`."""
    one_hot = np.array([np.eye(2)[y] if y >= 0 else np.zeros(2) for y in labels])
    base = density.layer.base
    loc, raw = (
        one_hot @ np.asarray(dense.kernel, np.float64) + np.asarray(dense.bias, np.float64)
        for dense in (base._loc, base._raw_scale)
    )
    return loc, np.logaddexp(0.0, raw + np.log(np.e - 1.0))


@pytest.mark.parametrize("flow", [SPEC, "realnvp-image:levels=1,steps=1,width=8"])
def test_the_base_alone_depends_on_the_class(flow, stir):
    density, plain = moved(make(flow), stir), make(flow, num_classes=None)
    for mine, theirs in zip(density.layer.flow.weights, plain.layer.flow.weights, strict=True):
        theirs.assign(mine)
    noisy = tf.reshape(X + np.float32(0.4), [3, 4])
    z0, log_det = inverse_and_log_det(plain.distribution().bijector, noisy)
    loc, scale = parameters(density, LABELS)
    wanted = stats.norm.logpdf(z0, loc, scale).sum(axis=1) + log_det.numpy()
    found = density.layer.log_prob(noisy, density.condition(LABELS, None, 3))
    # Four numbers, each with some 20 roundings of squares of this size; the log-det is the same.
    size = np.max(((z0 - loc) / scale) ** 2) + np.abs(log_det).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=80 * EPS * size)


def test_log_prob_bounds_the_integral_over_the_cell(stir):
    density = moved(make(dequantize="variational"), stir)
    # Gauss and Legendre's rule with 10 nodes in each of 4 dimensions.
    nodes, weights = np.polynomial.legendre.leggauss(10)
    grid = np.array(list(itertools.product((nodes + 1) / 2, repeat=4)), np.float32)
    weight = np.prod(list(itertools.product(weights / 2, repeat=4)), axis=1)
    cell = np.array(
        [
            np.exp(density.distribution(label=y).log_prob(x.ravel() + grid).numpy()).astype(float)
            @ weight
            for x, y in zip(X, LABELS, strict=True)
        ]
    )
    log_weights = density.log_weights(X, 4000, 1, LABELS).numpy().astype(np.float64)
    mean, error = (f(np.exp(log_weights), axis=0) for f in (np.mean, np.std))
    assert np.all(np.abs(mean - cell) < 5 * error / np.sqrt(4000))
    many = density.log_prob(X, num_samples=4000, seed=1, label=LABELS)
    # A mean of 4000 weights of one size, and each a sum of some 100 terms of at most 10.
    np.testing.assert_allclose(many, np.log(mean), rtol=0, atol=(4000 + 1000) * EPS)
    nll = density.nll(X, 4000, batch_size=3, seed=2, label=LABELS)
    assert np.all(np.abs(np.exp(-nll) - cell) < 5 * error / np.sqrt(4000))


@pytest.mark.parametrize("label", [0, 1, None])
def test_all_images_together_have_at_most_probability_1(label, stir):
    density = moved(make(levels=2), stir)
    every = np.array(list(itertools.product((0, 1), repeat=4)), np.float32).reshape(-1, *SHAPE)
    weights = np.exp(density.log_weights(every, 2000, 0, label).numpy().astype(np.float64))
    error = np.sqrt(np.sum(weights.var(axis=0)) / 2000)
    # The rest are points beside the pixels' range, which the map from real numbers leaves open.
    assert 0.5 < weights.mean(axis=0).sum() < 1.0 + 5 * error


def test_classes_start_alike():
    density = make()
    known = density.log_prob(X, seed=1, label=LABELS)
    np.testing.assert_array_equal(known, density.log_prob(X, seed=1))
    np.testing.assert_array_equal(
        density.sample(3, seed=1, label=LABELS), density.sample(3, seed=1)
    )


@pytest.mark.parametrize("flow", [SPEC, "maf:1,hidden=8"])
def test_draws_and_codes_are_of_the_class(flow, stir):
    density = stir(make(flow), scale=0.3)
    cold = density.sample(3, seed=0, temperature=0.0, label=LABELS)
    loc, _ = parameters(density, LABELS)
    np.testing.assert_array_equal(cold, density.decode(loc.astype("f4"), LABELS))
    for label, same in ((1, [1, 1, 1]), (None, [-1, -1, -1])):
        for call in (
            lambda y: density.sample(3, seed=1, label=y),
            lambda y: density.log_prob(X, seed=1, label=y),
            lambda y: density.encode(X, seed=1, label=y),
            lambda y: density.nll(X, 3, seed=1, label=y),
            lambda y: density.sample_and_log_prob(3, seed=1, label=y)[1],
        ):
            np.testing.assert_array_equal(call(label), call(same))
    z = density.encode(X, seed=3, label=LABELS)
    np.testing.assert_array_equal(density.decode(z, LABELS), X)


def test_training_tells_classes_apart_with_a_third_of_the_labels_missing():
    x, labels = stripes(600)
    given = np.where(np.arange(600) % 3, labels, -1)
    density = make(shape=(4, 4, 1), levels=9, label_dropout=0.2)
    density.compile(keras.optimizers.Adam(5e-3))
    logs = density.fit(x, given, batch_size=50, epochs=6, validation_split=0.2, verbose=0).history
    assert logs["val_bits_per_dim"][-1] < logs["val_bits_per_dim"][0]
    x, labels = stripes(200, seed=1)
    known, unknown, wrong = (
        density.nll(x, 1, seed=0, label=label) for label in (labels, None, 1 - labels)
    )
    for other in (unknown, wrong):
        gain = other - known
        assert gain.mean() > 5 * gain.std() / np.sqrt(200)
    images = density.sample(200, seed=0, label=labels).numpy()
    bright = images[:, :2].mean(axis=(1, 2, 3)) > images[:, 2:].mean(axis=(1, 2, 3))
    assert np.mean(bright == (labels == 0)) > 0.5 + 5 * np.sqrt(0.25 / 200)  # more than by chance
    pairs = tf.data.Dataset.from_tensor_slices((x, labels)).batch(50)
    density.fit(pairs, shuffle=False, verbose=0)
    assert np.isfinite(density.evaluate(pairs, verbose=0)).all()


def test_files_and_exports_take_labels(stir, tmp_path):
    density = moved(make(shape=(4, 4, 1), levels=9, label_dropout=0.2), stir)
    x, _ = stripes(3)
    density.adapt(x)
    fv.export(density, tmp_path)
    again = fv.load(tmp_path)
    assert (again.num_classes, again.label_dropout) == (2, 0.2)
    np.testing.assert_array_equal(
        again.log_prob(x, seed=1, label=LABELS), density.log_prob(x, seed=1, label=LABELS)
    )
    assert "Labels are int32, 0 to 1, or -1" in (tmp_path / "README.md").read_text("utf-8")
    served, given = tf.saved_model.load(str(tmp_path)), tf.cast(x, tf.float32)
    # Sums of some hundred terms for each of 16 pixels, each of a size of about 10.
    close = {"rtol": 0, "atol": 16 * 100 * 10 * EPS}
    bound = served.log_prob(given, LABELS, 3, 1)["log_prob_bound"]
    wanted = -density.nll(x, num_samples=3, batch_size=3, seed=1, label=LABELS)
    np.testing.assert_allclose(bound, wanted, **close)
    drawn = served.sample_at_temperature(4, 1, 1, 0.5)["images"]
    assert np.mean(drawn == density.sample(4, seed=1, temperature=0.5, label=1)) > 0.98
    z = served.encode(given, LABELS, 2)["z"]
    np.testing.assert_allclose(z, density.encode(x, 2, LABELS), **close)
    assert np.mean(served.decode(z, LABELS)["images"] == x) > 0.98
    with pytest.raises(tf.errors.InvalidArgumentError, match="Labels must be 0 to 1, or -1"):
        served.sample(2, 2, 0)
    assert not {"num_classes", "label_dropout"} & set(make(num_classes=None).get_config())


def test_mistakes_get_one_sentence():
    density, plain = make(), make(num_classes=None)
    x = np.tile(X.astype(np.uint8), [10, 1, 1, 1])
    y = np.arange(30) % 2
    density.compile("adam")
    plain.compile("adam")
    for labels, message in (
        (None, "give fit the labels"),
        (y[:20], "20 labels for 30 examples"),
        (y + 1, "Labels must be 0 to 1, or -1 .* Received: 2"),
    ):
        with pytest.raises(UserError, match=message):
            density.fit(x, labels, verbose=0)
    with pytest.raises(UserError, match="takes no context: give its constructor num_classes"):
        plain.fit(x, y, verbose=0)
    for call in (
        lambda: density.log_prob(x, label=y[:20]),
        lambda: density.encode(x, label=y[:20]),
        lambda: density.nll(x, label=y[:20]),
    ):
        with pytest.raises(UserError, match="20 labels for 30 examples"):
            call()
    with pytest.raises(UserError, match="This model has no classes"):
        plain.nll(x, label=y)
