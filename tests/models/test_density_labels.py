"""Densities of vectors with classes: p(x|y), its draws, training, files, exports and refusals."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from scipy.integrate import trapezoid

import tfp_flowvae as fv
from tfp_flowvae.errors import UserError

EPS = float(np.finfo(np.float32).eps)
LABELS = np.array([0, 2, -1, 1, 2, -1])
ROWS = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
ONE_HOT = np.array([np.eye(3)[y] if y >= 0 else np.zeros(3) for y in LABELS], np.float32)


def make(flow="realnvp:2,hidden=8", size=2, **how):
    return fv.FlowDensity(flow, **{"event_size": size, "num_classes": 3, "seed": 0, **how})


def moons(count, seed=0):
    """Points of three classes that lie apart in the first column."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    x = np.stack([3.0 * labels + rng.normal(size=count), rng.normal(size=count)], axis=1)
    return x.astype(np.float32), labels


def test_without_a_flow_each_class_is_the_normal_of_its_own_parameters(stir):
    density = stir(make("none"), scale=1.0)
    density.adapt(10.0 + 3.0 * ROWS)
    base = density.layer.base
    kernel, bias, raw_kernel, raw_bias = (
        np.asarray(weight, np.float64)
        for dense in (base._loc, base._raw_scale)
        for weight in (dense.kernel, dense.bias)
    )
    mean, scale = (
        np.asarray(density._units._statistics[name], np.float64) for name in ("mean", "scale")
    )
    loc = ONE_HOT @ kernel + bias
    width = np.logaddexp(0.0, ONE_HOT @ raw_kernel + raw_bias + np.log(np.e - 1.0))
    wanted = stats.norm.logpdf(ROWS, mean + scale * loc, scale * width).sum(axis=1)
    # Two columns of some 20 roundings each, of squares of this size.
    size = 1.0 + np.max(((ROWS - mean - scale * loc) / (scale * width)) ** 2)
    found = density.log_prob(ROWS, label=LABELS)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=40 * EPS * size)
    means = density.sample(6, seed=1, temperature=0.0, label=LABELS)
    np.testing.assert_allclose(
        means, mean + scale * loc, rtol=0, atol=16 * EPS * np.abs(mean).max()
    )


@pytest.mark.parametrize("label", [0, 2, -1, None])
def test_integrates_to_one(label, stir):
    density = stir(make("spline-maf:2,hidden=8", size=1))
    x = np.linspace(-40.0, 40.0, 16_001, dtype=np.float32)[:, np.newaxis]
    log_prob = density.log_prob(x, label=label).numpy().astype(np.float64)
    rough, fine = (trapezoid(np.exp(log_prob[::k]), x[::k, 0]) for k in (2, 1))
    # The error of the trapezoidal rule falls by four from grid to grid; and two layers, 32
    # roundings of the terms of log p, which are of the size of log p and 10.
    rounding = 32 * EPS * trapezoid(np.exp(log_prob) * (10 + np.abs(log_prob)), x[:, 0])
    assert abs(fine - 1.0) < abs(fine - rough) + rounding


def test_a_label_is_a_one_hot_context(stir):
    density = stir(make("realnvp:2,hidden=8", base="mixture:3"))
    other = fv.FlowDensity("realnvp:2,hidden=8", event_size=2, context_size=3, base="mixture:3")
    for mine, theirs in zip(density.layer.weights, other.layer.weights, strict=True):
        theirs.assign(mine)
    np.testing.assert_array_equal(
        density.log_prob(ROWS, label=LABELS), other.log_prob(ROWS, ONE_HOT)
    )
    x = np.stack([ROWS, 2.0 * ROWS])
    np.testing.assert_array_equal(density.log_prob(x, label=LABELS), other.log_prob(x, ONE_HOT))
    p = density.distribution(label=LABELS)
    assert p.batch_shape == [6]
    # Some eight layers, each of sums of at most 16 products and 20 functions.
    size = 288 * EPS * np.abs(p.log_prob(ROWS)).max()
    np.testing.assert_allclose(p.log_prob(ROWS), other.log_prob(ROWS, ONE_HOT), rtol=0, atol=size)
    for label in (1, -1, None):
        same = [-1 if label is None else label] * 6
        np.testing.assert_array_equal(
            density.log_prob(ROWS, label=label), density.log_prob(ROWS, label=same)
        )
        np.testing.assert_array_equal(
            density.sample(6, seed=1, label=label), density.sample(6, seed=1, label=same)
        )
        assert density.distribution(label=label).batch_shape == [1]


def test_draws_have_the_density_of_their_label(stir):
    density = stir(make(base="mixture:3"))
    labels = np.repeat([0, 1, 2, -1], 500)
    x, log_prob = density.sample_and_log_prob(2000, seed=2, label=labels)
    # Two roundings for each of some 300 operations, whose results are below 10.
    np.testing.assert_allclose(
        log_prob, density.log_prob(x, label=labels), rtol=0, atol=600 * EPS * 10
    )
    np.testing.assert_array_equal(x, density.sample(2000, seed=2, label=labels))
    # E_p[q / p] = 1 for a density q that p covers: here that of the class which comes next.
    p = density.log_prob(x, label=labels).numpy().astype(np.float64)
    q = density.log_prob(x, label=np.repeat([1, 2, -1, 0], 500)).numpy().astype(np.float64)
    ratio = np.exp(q - p).reshape(4, 500)
    error = ratio.std(axis=1) / np.sqrt(500)
    assert np.all(np.abs(ratio.mean(axis=1) - 1.0) < 5 * error)
    assert np.all(error > 0.0)


def test_classes_start_alike_and_only_their_own_images_move_them():
    density = make("none")
    alike = [density.log_prob(ROWS, label=label).numpy() for label in (0, 1, 2, None)]
    for other in alike[1:]:
        np.testing.assert_array_equal(alike[0], other)
    with tf.GradientTape() as tape:
        loss = -tf.reduce_sum(density.log_prob(ROWS[:3], label=[1, 1, -1]))
    by_class, shared = tape.gradient(
        loss, [density.layer.base._loc.kernel, density.layer.base._loc.bias]
    )
    # -d log N(x; m, 1) / dm = m - x: the class has two rows, what all share has three.
    np.testing.assert_array_equal(by_class[0], 0.0)
    np.testing.assert_array_equal(by_class[2], 0.0)
    np.testing.assert_allclose(
        by_class[1], -ROWS[:2].sum(axis=0), rtol=0, atol=8 * EPS * np.abs(ROWS).max()
    )
    np.testing.assert_allclose(
        shared, -ROWS[:3].sum(axis=0), rtol=0, atol=8 * EPS * np.abs(ROWS).max()
    )


def test_training_with_a_third_of_the_labels_missing():
    x, labels = moons(1200)
    given = np.where(np.arange(1200) % 3, labels, -1)
    density = make("realnvp:2,hidden=16", label_dropout=0.2)
    density.compile(keras.optimizers.Adam(1e-2))
    history = density.fit(
        x, given, batch_size=100, epochs=10, validation_split=0.1, verbose=0
    ).history
    assert history["val_loss"][-1] < history["val_loss"][0]
    # Data that training has not seen: given the class they are N(3 y, 1) N(0, 1).
    x, labels = moons(400, seed=1)
    known, unknown = (density.log_prob(x, label=label).numpy() for label in (labels, None))
    gain = known - unknown
    assert gain.mean() > 5 * gain.std() / np.sqrt(400)
    pairs = tf.data.Dataset.from_tensor_slices((x, labels)).batch(100)
    by_pairs = density.evaluate(pairs, verbose=0, return_dict=True)
    # Means of 400 log-densities, of at most this size, whose order of summation may differ.
    bound = 400 * EPS * float(np.abs(known).max())
    assert by_pairs["log_likelihood"] == pytest.approx(known.mean(), abs=bound)
    assert density.evaluate(x, labels, verbose=0, return_dict=True)["loss"] == pytest.approx(
        by_pairs["loss"], abs=bound
    )
    density.fit(pairs, shuffle=False, verbose=0)


def test_only_training_hides_labels(stir):
    density = stir(make("none", label_dropout=0.999), scale=1.0)
    seen, _ = density.example_terms(ROWS, np.zeros(6, int), training=True)
    np.testing.assert_array_equal(seen, -density.log_prob(ROWS))
    whole, _ = density.example_terms(ROWS, np.zeros(6, int))
    np.testing.assert_array_equal(whole, -density.log_prob(ROWS, label=0))


def test_files_and_clones_keep_the_classes(stir, tmp_path):
    density = stir(make("lu+realnvp:1,hidden=8", bounds=(-9.0, None), label_dropout=0.2))
    density.adapt(ROWS)
    density.save(tmp_path / "model.keras")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(density)))
    again = keras.saving.load_model(tmp_path / "model.keras")
    rebuilt = keras.saving.deserialize_keras_object(config)
    for copy in (again, rebuilt, keras.models.clone_model(density)):
        copy.set_weights(density.get_weights())
        assert (copy.num_classes, copy.label_dropout, copy.context_size) == (3, 0.2, None)
        np.testing.assert_array_equal(
            copy.log_prob(ROWS, label=LABELS), density.log_prob(ROWS, label=LABELS)
        )
        np.testing.assert_array_equal(
            copy.sample(3, seed=1, label=2), density.sample(3, seed=1, label=2)
        )
    plain = fv.FlowDensity("lu", event_size=2).get_config()
    assert not {"num_classes", "label_dropout"} & set(plain)


def test_the_export_takes_labels(stir, tmp_path):
    density = stir(make("realnvp:1,hidden=8"))
    density.adapt(ROWS)
    fv.export(density, tmp_path)
    assert fv.load(tmp_path).num_classes == 3
    assert "Labels are int32, 0 to 2, or -1" in (tmp_path / "README.md").read_text("utf-8")
    served = tf.saved_model.load(str(tmp_path))
    size = 288 * EPS * 10  # as above, of numbers below 10
    found = served.log_prob(ROWS, LABELS)["log_prob"]
    np.testing.assert_allclose(found, density.log_prob(ROWS, label=LABELS), rtol=0, atol=size)
    for temperature in (1.0, 0.5):
        drawn = served.sample_at_temperature(4, 2, 1, temperature)["x"]
        wanted = density.sample(4, seed=1, temperature=temperature, label=2)
        np.testing.assert_allclose(drawn, wanted, rtol=0, atol=size)
    rows = served.sample_rows([4, 4], [2, -1], [1, 1])["x"]
    np.testing.assert_allclose(rows[1], served.sample(4, -1, 1)["x"], rtol=0, atol=size)
    for call in (lambda: served.sample(2, 3, 0), lambda: served.log_prob(ROWS, LABELS - 1)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="Labels must be 0 to 2, or -1"):
            call()


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([0, 1, 2], "one label for each example. Received: 3 labels for 2 examples"),
        (3, "Labels must be 0 to 2, or -1 .* Received: 3"),
        ([0.0, 1.0], "integers of shape .N.. Received: float32 of shape .2,."),
    ],
)
def test_labels_that_cannot_be(label, message):
    density = make()
    for call in (
        lambda: density.log_prob(ROWS[:2], label=label),
        lambda: density.sample(2, label=label),
        lambda: density.sample_and_log_prob(2, label=label),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_a_context_and_a_label_are_not_taken_for_each_other():
    density, plain = make(), fv.FlowDensity("lu", event_size=2)
    given = fv.FlowDensity("lu", event_size=2, context_size=3)
    for call in (density.log_prob, lambda x, y: density.sample(6, y)):
        with pytest.raises(UserError, match="has 3 classes: give it a label in place of a context"):
            call(ROWS, ONE_HOT)
    for other in (plain, given):
        with pytest.raises(UserError, match="This model has no classes: give its constructor"):
            other.log_prob(ROWS, label=1)
    with pytest.raises(UserError, match=r"has classes or a context.*num_classes=3, context_size=2"):
        make(context_size=2)
    for options, message in (
        ({"num_classes": 0}, "num_classes must be at least 1"),
        ({"label_dropout": 1.0}, "label_dropout must be at least 0 and below 1"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**options)


def test_labels_of_fit_are_checked():
    x, y = moons(60)
    density, plain = make(), fv.FlowDensity("lu", event_size=2)
    for model in (density, plain):
        model.compile("adam", run_eagerly=True)
    for labels, message in (
        (None, "give fit the labels"),
        (y[:30], "30 labels for 60 examples"),
        (y + 1, "Labels must be 0 to 2"),
        (keras.utils.to_categorical(y, 3), "labels integers of shape .N."),
    ):
        with pytest.raises(UserError, match=message):
            density.fit(x, labels, verbose=0)
    with pytest.raises(UserError, match="give fit the labels"):
        density.fit(tf.data.Dataset.from_tensors(x), shuffle=False, verbose=0)
    with pytest.raises(UserError, match="takes no context"):
        plain.fit(x, y, verbose=0)
