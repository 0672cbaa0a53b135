"""Densities of images: the bound, fitting, samples, files and refusals."""

from __future__ import annotations

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_flowvae as fv
from tfp_flowvae.errors import UserError
from tfp_flowvae.models import ImageDensity
from tfp_flowvae.training.noise import Noise

KINDS = ("uniform", "variational")
SPEC = "glow:levels=1,steps=2,width=8"
EPS = np.finfo(np.float32).eps


def images(count=60, shape=(4, 4, 1), levels=17, seed=0):
    rng = np.random.default_rng(seed)
    centre = (levels - 1) * rng.uniform(size=[count, 1, 1, 1])
    return np.clip(np.rint(centre + rng.normal(size=[count, *shape])), 0, levels - 1).astype(
        "uint8"
    )


def make(dequantize="uniform", flow=SPEC, shape=(4, 4, 1), levels=17, adapted=True):
    keras.utils.set_random_seed(0)
    density = fv.FlowDensity(flow, event_shape=shape, levels=levels, dequantize=dequantize, seed=0)
    if adapted:
        density.adapt(images(shape=shape, levels=levels))
    return density


def test_an_event_shape_makes_an_image_density():
    density = make()
    assert type(density) is ImageDensity
    assert density.event_size == 16
    assert type(fv.FlowDensity("lu", event_size=2)) is fv.FlowDensity


@pytest.mark.parametrize("dequantize", KINDS)
def test_log_prob_bounds_the_integral_over_the_cell(dequantize, stir):
    shape, levels = (2, 2, 1), 3
    density = stir(make(dequantize, shape=shape, levels=levels), scale=0.03)
    x = np.array([[0, 2, 1, 0], [1, 1, 2, 2]], np.float32).reshape(2, *shape)
    # Gauss and Legendre's rule with 10 nodes in each of 4 dimensions.
    nodes, weights = np.polynomial.legendre.leggauss(10)
    grid = np.array(list(itertools.product((nodes + 1) / 2, repeat=4)), np.float32)
    weight = np.prod(list(itertools.product(weights / 2, repeat=4)), axis=1)
    points = x.reshape(2, 1, 4) + grid
    cell = np.exp(density.distribution().log_prob(points).numpy().astype(np.float64)) @ weight

    log_weights = density.log_weights(x, 4000, 1).numpy().astype(np.float64)
    mean, error = (f(np.exp(log_weights), axis=0) for f in (np.mean, np.std))
    assert np.all(np.abs(mean - cell) < 5 * error / np.sqrt(4000))
    bound, error = log_weights.mean(axis=0), log_weights.std(axis=0) / np.sqrt(4000)
    assert np.all(bound < np.log(cell) + 5 * error)
    assert np.all(bound < np.log(cell))  # by far more than the rounding
    many = density.log_prob(x, num_samples=4000, seed=1)
    np.testing.assert_allclose(many, np.log(np.exp(log_weights).mean(axis=0)), rtol=1e-5)


def test_all_images_together_have_at_most_probability_1(stir):
    density = stir(make(shape=(2, 2, 1), levels=2))
    every = np.array(list(itertools.product((0, 1), repeat=4)), np.float32).reshape(-1, 2, 2, 1)
    weights = np.exp(density.log_weights(every, 2000, 0).numpy().astype(np.float64))
    error = np.sqrt(np.sum(weights.var(axis=0)) / 2000)
    assert 0.5 < weights.mean(axis=0).sum() < 1.0 + 5 * error


def test_variational_noise_starts_uniform_and_has_a_density(stir):
    x = tf.constant(images(5), tf.float32)
    uniform, _ = make().dequantize.draw(x, 3, Noise(4))
    layer = make("variational").dequantize
    u, log_q = layer.draw(x, 3, Noise(4))
    # A sigmoid of a logit: a few roundings of numbers up to 1. Its density is a sum of 16.
    np.testing.assert_allclose(u, uniform, atol=16 * EPS)
    np.testing.assert_array_equal(log_q, 0.0)

    stir(layer, scale=0.03)
    u, log_q = layer.draw(tf.repeat(x[:1], 20_000, axis=0), 1, Noise(0))
    assert np.min(u) >= 0.0
    assert np.max(u) <= 1.0
    # E_q[1 / q] is the volume of the cube, 1.
    inverse = np.exp(-log_q.numpy().astype(np.float64))
    assert abs(inverse.mean() - 1.0) < 5 * inverse.std() / np.sqrt(inverse.size)
    assert np.std(log_q) > 0.0


@pytest.mark.parametrize("dequantize", KINDS)
def test_fit_lowers_bits_per_dim(dequantize):
    x = images(300)
    density = make(dequantize, adapted=False)
    density.compile(keras.optimizers.Adam(5e-3))
    logs = density.fit(x, batch_size=50, epochs=6, validation_split=0.2, verbose=0).history
    assert logs["bits_per_dim"][-1] < logs["bits_per_dim"][0]
    assert logs["val_bits_per_dim"][-1] < logs["val_bits_per_dim"][0]
    wanted = np.array(logs["loss"]) / (16 * math.log(2.0))
    np.testing.assert_allclose(logs["bits_per_dim"], wanted, rtol=50 * EPS)
    log_probs = density.log_prob(x, seed=1).numpy()
    np.testing.assert_allclose(
        density.bits_per_dim(-log_probs.mean()), logs["bits_per_dim"][-1], rtol=0.1
    )


def test_the_first_fit_sets_act_norms_and_later_ones_do_not():
    density = make(adapted=False)
    density.compile(keras.optimizers.SGD(0.0))
    data = tf.data.Dataset.from_tensor_slices(images(60)).batch(60)
    density.fit(data, verbose=0)
    before = [weight.numpy() for weight in density.weights]
    assert any("log_scale" in w.path and np.any(w.numpy()) for w in density.weights)
    density.fit(images(60, seed=1), batch_size=60, verbose=0)
    for old, weight in zip(before, density.weights, strict=True):
        if "seed_generator" not in weight.path:
            np.testing.assert_array_equal(weight, old)


def test_samples_are_whole_numbers_in_range_and_depend_on_the_seed():
    density = make()
    x = density.sample(50, seed=0)
    assert x.dtype == tf.int32
    assert x.shape == (50, 4, 4, 1)
    assert np.min(x) >= 0
    assert np.max(x) <= 16
    np.testing.assert_array_equal(x, density.sample(50, seed=0))
    assert np.any(x != density.sample(50, seed=1))
    cold = density.sample(5, seed=0, temperature=0.0)
    np.testing.assert_array_equal(cold, tf.repeat(cold[:1], 5, axis=0))
    drawn, bound = density.sample_and_log_prob(50, seed=0)
    np.testing.assert_array_equal(drawn, x)
    assert bound.shape == (50,)


@pytest.mark.parametrize("flow", [SPEC, "realnvp-image:levels=2,steps=1,width=8", "lu"])
def test_decode_undoes_encode(flow):
    density, x = make(flow=flow), images(20)
    z = density.encode(x, seed=3)
    assert z.shape == (20, 16)
    # Noise close to the border of a cell may cross it by rounding: at most a few of 320 pixels.
    assert np.mean(density.decode(z) == x) > 0.99


@pytest.mark.parametrize("dequantize", KINDS)
def test_keras_file_and_export_are_the_model(dequantize, stir, tmp_path):
    density, x = stir(make(dequantize), scale=0.03), images(6)
    density.compile("adam")
    fv.export(density, tmp_path / "out")
    again = fv.load(tmp_path / "out")
    assert type(again) is ImageDensity
    np.testing.assert_array_equal(again.log_prob(x, seed=1), density.log_prob(x, seed=1))
    np.testing.assert_array_equal(again.sample(4, seed=1), density.sample(4, seed=1))
    before = [weight.numpy() for weight in again.non_trainable_weights]
    again.prepare_fit({"x": images(60, seed=5)})
    for weight, old in zip(again.non_trainable_weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)

    served = tf.saved_model.load(tmp_path / "out")
    given = tf.cast(x, tf.float32)
    bound = served.log_prob(given, 3, 1)["log_prob_bound"]
    wanted = -density.nll(x, num_samples=3, batch_size=6, seed=1)
    # A sum of some hundred terms for each of 16 pixels, each of a size of about 10.
    np.testing.assert_allclose(bound, wanted, rtol=0, atol=16 * 100 * 10 * EPS)
    for temperature in (1.0, 0.5):
        drawn = served.sample_at_temperature(4, 1, temperature)["images"]
        assert np.mean(drawn == density.sample(4, seed=1, temperature=temperature)) > 0.98
    z = served.encode(given, 2)["z"]
    np.testing.assert_allclose(z, density.encode(x, seed=2), rtol=0, atol=1600 * EPS)
    assert np.mean(served.decode(z)["images"] == x) > 0.98
    assert "normal+glow" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (images(40)[..., 0], r"Images must be \[N, 4, 4, 1\]"),
        (images(40, levels=40), "whole numbers from 0 to 16, .* values from"),
        (images(40) - np.float32(1), "Received: values from -1"),
        (images(40) / np.float32(16), "multiply images in .0, 1. by 16 and round them"),
        (images(40) > 3, "Received: dtype bool"),
        (np.full([40, 4, 4, 1], np.nan), "Received: values from nan"),
    ],
)
def test_pixels_that_are_no_whole_numbers_in_range_are_refused(x, words):
    density = make()
    density.compile("adam")
    with pytest.raises(UserError, match=words):
        density.fit(x, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"flow": "glow:levels=3"}, "pad the images to 8 x 8 with numpy.pad, or take levels=2"),
        ({"flow": "glwo"}, "Unknown image flow 'glwo'.*Did you mean 'glow'"),
        ({"flow": "glow:depth=3"}, "has no option 'depth'"),
        ({"flow": "iaf"}, "use 'maf'"),
        ({"event_shape": (4, 4)}, r"event_shape must be \(H, W, C\)"),
        ({"levels": 1}, "from 2 to 65536"),
        ({"dequantize": "none"}, "dequantize must be uniform or variational"),
    ],
)
def test_arguments_that_are_not_allowed_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        fv.FlowDensity(**{"flow": SPEC, "event_shape": (4, 4, 1), **arguments})


def test_convolutions_stay_out_of_xla_on_processors():
    density = make()
    density.compile("adam")
    if not tf.config.list_logical_devices("GPU"):
        assert density.jit_compile is False
