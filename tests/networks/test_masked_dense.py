from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.networks import MaskedDense

BFLOAT16_EPS = 2.0**-7
MASK = np.array([[1, 0, 1], [0, 0, 1]])


def test_computes_the_masked_product(rounding):
    layer = MaskedDense(MASK, "tanh")
    x = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    layer(x)
    kernel, bias = np.full((2, 3), 2.0), np.array([0.1, -0.2, 0.3])
    layer.set_weights([kernel, bias])
    inside = x @ (kernel * MASK) + bias
    # Two products, the bias and tanh, whose slope is at most 1.
    np.testing.assert_allclose(layer(x), np.tanh(inside), **rounding(4, np.float32(inside)))


def test_masked_entries_get_no_gradient_and_the_others_do():
    layer = MaskedDense(MASK)
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(layer(tf.ones([3, 2])) * [1.0, 2.0, 3.0])
    gradient = tape.gradient(y, layer.kernel.value)
    np.testing.assert_array_equal(gradient.numpy() != 0, MASK == 1)


def test_starts_with_unit_variance_whatever_a_unit_sees(spread):
    size = 400
    mask = np.ones((size, size))
    mask[:, : size // 2] = np.arange(size)[:, None] < 20  # half of the units see 20 inputs
    layer = MaskedDense(mask)
    x = np.random.default_rng(1).normal(size=(200, size)).astype(np.float32)
    squares = np.square(layer(x).numpy())
    for inputs, units in ((20, squares[:, : size // 2]), (size, squares[:, size // 2 :])):
        error = spread(inputs, units=size // 2, examples=200)
        np.testing.assert_allclose(units.mean(), 1.0, rtol=0, atol=error)


def test_a_kernel_of_zeros_starts_as_its_bias():
    layer = MaskedDense(np.ones((2, 3)), kernel_initializer="zeros")
    np.testing.assert_array_equal(layer(tf.random.normal([5, 2])), np.zeros((5, 3)))
    layer.bias.assign([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(layer(tf.random.normal([1, 2])), [[1.0, 2.0, 3.0]])


@pytest.mark.parametrize("leading", [(0,), (3,), (3, 1, 2)])
def test_any_leading_dimensions(leading, rounding):
    layer = MaskedDense(MASK, "elu")
    x = tf.random.normal([*leading, 2])
    y = layer(x)
    assert y.shape == (*leading, 3) == layer.compute_output_shape(x.shape)
    flat = layer(tf.reshape(x, [-1, 2]))
    # Sums of two products and a bias, whose terms the kernel, below 2, makes of x.
    tolerance = rounding(2 * 3, 2 * x)
    np.testing.assert_allclose(tf.reshape(y, [-1, 3]), flat, **tolerance)


def test_config_round_trip_gives_the_same_layer():
    layer = MaskedDense(MASK, "tanh", kernel_initializer="zeros", name="masked")
    x = tf.random.normal([4, 2])
    layer(x)
    layer.set_weights([np.full((2, 3), 0.7), np.array([0.1, 0.2, 0.3])])
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    again(x)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(x), layer(x))


@pytest.mark.parametrize(
    "mask", [np.ones(3), np.ones((2, 2, 2)), [[0.5, 1.0]], [[2, 1]], [[-1, 0]]]
)
def test_refuses_what_is_no_binary_matrix(mask):
    shape = str(np.shape(mask)).replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=rf"matrix .* of 0 and 1\. Received: .*{shape}"):
        MaskedDense(mask)


def test_refuses_an_input_of_another_size():
    with pytest.raises(ValueError, match=r"last dimension must be 2.*Received: \(4, 3\)"):
        MaskedDense(MASK)(tf.zeros([4, 3]))


@pytest.mark.parametrize("shape", [(4, 3), (2,)])
def test_once_built_refuses_an_input_of_another_size_or_of_rank_one(shape):
    layer = MaskedDense(MASK)
    layer(tf.zeros([4, 2]))
    with pytest.raises(ValueError, match="incompatible with the layer"):
        layer(tf.zeros(shape))


def test_under_mixed_precision_weights_are_float32_and_live(mixed_bfloat16):
    layer = MaskedDense(MASK)
    x = tf.ones([2, 2])
    first = layer(x)
    assert first.dtype == tf.bfloat16
    assert {w.dtype for w in layer.weights} == {"float32"}
    layer.bias.assign(layer.bias + 1.0)
    difference = tf.cast(layer(x), tf.float32) - tf.cast(first, tf.float32)
    # Both outputs are rounded, after a sum of two products and a bias: three times.
    tolerance = 2 * 3 * BFLOAT16_EPS * (1.0 + np.abs(tf.cast(first, tf.float32)).max())
    np.testing.assert_allclose(difference, np.ones((2, 3)), rtol=0, atol=tolerance)
