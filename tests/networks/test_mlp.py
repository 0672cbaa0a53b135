from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.networks import MLP, GatedMLPEncoder, MLPDecoder, MLPEncoder

BFLOAT16_EPS = 2.0**-7


def _stir(layer):
    layer.build()
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(size=w.shape) * 0.5 for w in layer.weights])
    return layer


def test_mlp_computes_what_its_docstring_says(roundings, one_eps, assert_within):
    mlp = _stir(MLP(2, (3, 4), output_size=(2, 2), context_size=5, activation="tanh"))
    w = {weight.path.partition("/")[2]: weight.numpy() for weight in mlp.weights}
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 2)).astype(np.float32)
    context = rng.normal(size=(6, 5)).astype(np.float32)
    h = np.tanh(x @ w["hidden_0/kernel"] + w["hidden_0/bias"] + context @ w["context/kernel"])
    h = np.tanh(h @ w["hidden_1/kernel"] + w["hidden_1/bias"])
    out = (h @ w["output/kernel"] + w["output/bias"]).reshape(6, 2, 2)
    unit = one_eps(lambda inputs: mlp(*inputs), (x, context), mlp)
    assert_within(mlp(x, context), out, unit, roundings(mlp))


def test_mlp_without_an_output_puts_out_its_last_hidden_layer():
    mlp = _stir(MLP(2, (3, 4), activation="relu"))
    y = mlp(tf.random.normal([50, 2])).numpy()
    assert y.shape == (50, 4)
    assert y.min() == 0 < y.max()


def test_mlp_output_starts_at_zero():
    mlp = MLP(2, (3,), output_size=(4, 2), context_size=5)
    np.testing.assert_array_equal(mlp(tf.ones([6, 2]), tf.ones([6, 5])), np.zeros((6, 4, 2)))


@pytest.mark.parametrize("leading", [(0,), (4,), (2, 4)])
def test_mlp_leading_dimensions_and_a_context_that_broadcasts(
    leading, roundings, one_eps, assert_within
):
    mlp = _stir(MLP(2, (8,), output_size=(3,), context_size=5))
    x, context = tf.random.normal([*leading, 2]), tf.random.normal([leading[-1], 5])
    full = tf.broadcast_to(context, [*leading, 5])
    wanted = mlp(tf.reshape(x, [-1, 2]), tf.reshape(full, [-1, 5]))
    out = mlp(x, context)
    assert out.shape == (*leading, 3)
    unit = one_eps(lambda inputs: mlp(*inputs), (x, context), mlp)
    assert_within(tf.reshape(out, [-1, 3]), wanted, unit, roundings(mlp))


def test_mlp_refuses_no_layers_and_a_wrong_context():
    for hidden in ((), (3, 0)):
        with pytest.raises(ValueError, match=r"hidden must name at least one layer.*Received"):
            MLP(2, hidden)
    with pytest.raises(ValueError, match=r"built for no context\. Received: context=<tf"):
        MLP(2, (3,))(tf.zeros([1, 2]), tf.zeros([1, 5]))
    with pytest.raises(ValueError, match=r"built for a context\. Received: context=None"):
        MLP(2, (3,), context_size=5)(tf.zeros([1, 2]))


@pytest.mark.parametrize("make", [MLPEncoder, GatedMLPEncoder])
def test_dense_encoder_flattens_the_image_row_by_row(make):
    encoder = make((2, 3, 2), hidden=(1,), activation="linear")
    encoder.build()
    kernel = np.zeros(encoder.weights[0].shape)
    kernel[:, 0] = np.arange(12)
    encoder.set_weights([kernel, np.zeros(kernel.shape[1])])
    images = np.eye(12, dtype=np.float32).reshape(12, 2, 3, 2)
    gate = 0.5 if make is GatedMLPEncoder else 1.0
    np.testing.assert_array_equal(encoder(images)[:, 0], gate * np.arange(12))


def test_decoder_puts_the_parameters_of_a_pixel_beside_each_other():
    decoder = MLPDecoder((3, 5, 2), event_size=4, output_channels=6, hidden=(6,))
    assert decoder(tf.random.normal([7, 4])).shape == (7, 3, 5, 6)
    bias = next(w for w in decoder.weights if w.path.endswith("pixels/dense/bias"))
    bias.assign(1e6 * tf.range(90.0))
    pixels = decoder(tf.zeros([1, 4]))[0]
    np.testing.assert_array_equal(pixels, 1e6 * np.arange(90.0).reshape(3, 5, 6))


def test_a_decoder_without_hidden_layers_is_linear(rounding):
    decoder = MLPDecoder((3, 5, 1), event_size=2, hidden=())
    a, b = tf.random.normal([1, 2]), tf.random.normal([1, 2])
    # The sums a + b and the outputs', and each output's of two products.
    tolerance = rounding(4, np.abs(decoder(a)) + np.abs(decoder(b)))
    np.testing.assert_allclose(decoder(a + b), decoder(a) + decoder(b), **tolerance)


def test_config_round_trip_gives_the_same_network():
    layer = _stir(MLP(4, (8, 6), (2, 2), context_size=3, activation="silu"))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    again.build()
    again.set_weights(layer.get_weights())
    inputs = [tf.random.normal([5, 4]), tf.random.normal([5, 3])]
    np.testing.assert_array_equal(again(*inputs), layer(*inputs))


@pytest.mark.parametrize("image_shape", [(8, 8), (8, 8, 1, 1)])
def test_refuses_what_is_no_image_shape(image_shape):
    for build in (MLPEncoder, lambda shape: MLPDecoder(shape, event_size=2)):
        with pytest.raises(ValueError, match=r"\(height, width, channels\).*Received: \("):
            build(image_shape)


def test_under_mixed_precision_weights_are_float32_and_live(mixed_bfloat16):
    decoder = MLPDecoder((3, 5, 1), event_size=2, hidden=(8,))
    z = tf.random.normal([4, 2])
    first = decoder(z)
    assert first.dtype == tf.bfloat16
    assert {w.dtype for w in decoder.weights} == {"float32"}
    bias = next(w for w in decoder.weights if w.path.endswith("pixels/dense/bias"))
    bias.assign(bias + 1.0)
    moved = tf.cast(decoder(z), tf.float32) - tf.cast(first, tf.float32)
    # Both outputs are rounded, after a sum of eight products and after the bias.
    tolerance = 2 * 9 * BFLOAT16_EPS * (1.0 + np.abs(tf.cast(first, tf.float32)).max())
    np.testing.assert_allclose(moved, np.ones((4, 3, 5, 1)), rtol=0, atol=tolerance)
