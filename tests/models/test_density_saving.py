"""FlowDensity to disk and back: `.keras` files, weights, and the SavedModel."""

from __future__ import annotations

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_probability import bijectors as tfb

import tfp_flowvae as fv

CASES = {
    "plain": {"flow": "maf:2,hidden=8"},
    "bounded": {"flow": "lu+spline:1,hidden=8", "bounds": ([0, None], [1.0, np.inf])},
    "context": {"flow": "realnvp:1,hidden=8", "context_size": 3, "base": "mixture:3"},
}
ROWS = np.random.default_rng(0).uniform(size=(40, 2)).astype(np.float32)
CONTEXT = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)


def _given(case):
    return (CONTEXT,) if "context_size" in CASES[case] else ()


@pytest.fixture
def made(stir):
    """A function from a case's name to a density that has learned its units."""

    def make(case):
        density = fv.FlowDensity(event_size=2, seed=3, **CASES[case])
        density.adapt(ROWS, *_given(case))
        return stir(density)

    return make


def _numbers(density, case):
    given = _given(case)
    return [density.log_prob(ROWS, *given), density.sample(2, *given, seed=1)]


@pytest.mark.parametrize("case", CASES)
def test_keras_file_gives_the_same_numbers_back(case, made, tmp_path):
    density = made(case)
    density.compile("adam")
    density.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    for mine, theirs in zip(_numbers(again, case), _numbers(density, case), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    # What has been learned is not learned again.
    before = [weight.numpy() for weight in again.non_trainable_weights]
    again.prepare_fit({"x": 0.5 * ROWS, "y": (*_given(case), None)[0]})
    for weight, old in zip(again.non_trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)


def test_config_round_trip(made):
    density = made("bounded")
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(density)))
    again = keras.saving.deserialize_keras_object(config)
    again.set_weights(density.get_weights())
    for mine, theirs in zip(_numbers(again, "bounded"), _numbers(density, "bounded"), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    clone = keras.models.clone_model(density)
    assert len(clone.weights) == len(density.weights)
    assert clone.seed == 3


def test_a_fresh_process_needs_the_bare_import_alone(made, tmp_path):
    density = made("plain")
    density.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", ROWS)
    script = (
        "import sys, numpy as np, tfp_flowvae, keras\n"
        "folder = sys.argv[1]\n"
        "density = keras.saving.load_model(folder + '/model.keras')\n"
        "np.save(folder + '/log_prob.npy', density.log_prob(np.load(folder + '/x.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "log_prob.npy"), density.log_prob(ROWS))


@pytest.mark.parametrize("case", ["bounded", "context"])
def test_the_export_runs_in_plain_tensorflow(case, made, tmp_path):
    density, given = made(case), _given(case)
    fv.export(density, tmp_path / "out")
    exported = tf.saved_model.load(tmp_path / "out")
    # A program of another shape may add in another order: 32 eps of the size of the numbers.
    rounding = 32 * float(np.finfo(np.float32).eps)
    log_prob = exported.log_prob(ROWS, *given)["log_prob"]
    np.testing.assert_allclose(log_prob, density.log_prob(ROWS, *given), rtol=0, atol=10 * rounding)
    x = exported.sample(2, *given, 1)["x"]
    np.testing.assert_allclose(x, density.sample(2, *given, seed=1), rtol=0, atol=10 * rounding)
    assert exported.sample(0, *given, 1)["x"].shape[0] == 0
    assert exported.log_prob(ROWS[:0], *(part[:0] for part in given))["log_prob"].shape == (0,)
    names = {"sample", "sample_at_temperature", "sample_rows", "sample_at_temperature_rows"}
    assert set(exported.signatures) == {*names, "log_prob", "serving_default"}
    tensors = dict(zip(("x", "context"), map(tf.constant, (ROWS, *given)), strict=False))
    by_default = exported.signatures["serving_default"](**tensors)["log_prob"]
    np.testing.assert_array_equal(by_default, log_prob)
    cold = exported.sample(2, *given, 1, 0.5)["x"]
    warm = density.sample(2, *given, seed=1, temperature=0.5)
    np.testing.assert_allclose(cold, warm, rtol=0, atol=10 * rounding)
    contexts = [part[:3] for part in given]
    rows = exported.sample_rows([2, 1, 0], *contexts, [1, 2, 3])["x"]
    assert rows.shape == (3, 2, 2)
    row = exported.sample(2, *(part[:1] for part in given), 1)["x"]
    np.testing.assert_allclose(rows[0], tf.reshape(row, [2, 2]), rtol=0, atol=10 * rounding)
    again = fv.load(tmp_path / "out")
    np.testing.assert_array_equal(again.log_prob(ROWS, *given), density.log_prob(ROWS, *given))


def test_a_bijector_of_ones_own_comes_back(tmp_path):
    def make():
        return tfb.Scale(tf.Variable([1.0, 1.0], name="scale"))

    density = fv.FlowDensity(make(), event_size=2)
    density.trainable_weights[0].assign([2.0, 3.0])
    density.save(tmp_path / "model.keras")
    again = fv.load(tmp_path / "model.keras", flow=make)
    np.testing.assert_array_equal(again.log_prob(ROWS), density.log_prob(ROWS))
