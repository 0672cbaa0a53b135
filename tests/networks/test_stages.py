from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate, stats

from tfp_flowvae.networks.initial import MEAN_SQUARES, SIGMOID_MEAN_SQUARE, Tiled
from tfp_flowvae.networks.registry import make_decoder, make_encoder
from tfp_flowvae.networks.stages import Enlarge, Linear, ResidualBlock, Style, Unit

DEEP = (96,) * 6


def _weights(layer):
    layer.build()
    rng = np.random.default_rng(0)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.weights])
    return {w.path.split("/", 1)[1]: w.numpy() for w in layer.weights}


def _sigmoid(a):
    return 1.0 / (1.0 + np.exp(-a))


def test_a_gated_unit_computes_what_its_docstring_says(roundings, one_eps, assert_within):
    style = Style("tanh", "none", None, gated=True)
    unit = Unit(Linear((3,), (8,), 1.0, name="linear"), style)
    w = _weights(unit)
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    both = x @ w["linear/dense/kernel"] + w["linear/dense/bias"]
    wanted = np.tanh(both[:, :4]) * _sigmoid(both[:, 4:])
    assert_within(unit(x), wanted, one_eps(unit, x, unit), roundings(unit))


def test_a_norm_acts_on_the_value_and_not_on_the_gate(roundings, one_eps, assert_within):
    style = Style("linear", "layer", None, gated=True)
    unit = Unit(Linear((3,), (8,), 1.0, None, name="linear"), style)
    w = _weights(unit)
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    value, gate = np.split(x @ w["linear/dense/kernel"], 2, axis=1)
    value = (value - value.mean(1, keepdims=True)) / np.sqrt(value.var(1, keepdims=True) + 1e-3)
    wanted = (value * w["norm/gamma"] + w["norm/beta"]) * _sigmoid(gate + w["gate_bias"])
    assert_within(unit(x), wanted, one_eps(unit, x, unit), roundings(unit))


def test_a_residual_block_computes_what_its_docstring_says(roundings, one_eps, assert_within):
    first, second = Linear((3,), (4,), 1.0, name="b"), Linear((4,), (4,), 1.0, name="c")
    shortcut = Linear((3,), (4,), 1.0, None, name="a")
    block = ResidualBlock(first, second, shortcut, Style("tanh", "none", None))
    w = _weights(block)
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    h = np.tanh(x) @ w["b/dense/kernel"] + w["b/dense/bias"]
    wanted = x @ w["a/dense/kernel"] + np.tanh(h) @ w["c/dense/kernel"] + w["c/dense/bias"]
    assert_within(block(x), wanted, one_eps(block, x, block), roundings(block))


def test_enlarge_repeats_pixels_and_crops():
    x = tf.reshape(tf.range(6.0), [1, 2, 3, 1])
    y = Enlarge((2, 3, 1), (3, 3, 1))(x)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 1, 2], [0, 1, 2], [3, 4, 5]])


def test_layer_norm_of_a_map_takes_its_moments_over_the_image(rounding):
    norm = Style("elu", "layer", None).normalisation((4, 5, 3))
    x = tf.random.normal([2, 4, 5, 3]) * 3.0 + 2.0
    y = norm(x)
    tolerance = rounding(2 * 4 * 5 * 3, x)  # two sums over the image
    variance = np.var(x, axis=(1, 2, 3))
    np.testing.assert_allclose(tf.reduce_mean(y, axis=[1, 2, 3]), [0, 0], **tolerance)
    wanted = variance / (variance + norm.epsilon)
    np.testing.assert_allclose(np.var(y, axis=(1, 2, 3)), wanted, **tolerance)
    assert np.abs(np.mean(y, axis=-1)).max() > 0.1


def test_tiled_repeats_its_values():
    np.testing.assert_array_equal(Tiled((1.0, 2.0))((6,)), [1, 2, 1, 2, 1, 2])
    np.testing.assert_array_equal(Tiled()((3,)), [0, 0, 0])


@pytest.mark.parametrize("name", [*MEAN_SQUARES, "sigmoid"])
def test_mean_squares_are_the_integrals_they_stand_for(name):
    function = keras.activations.get(name)
    at = np.linspace(-12.0, 12.0, 200_001)
    values = function(tf.constant(at)).numpy() ** 2 * stats.norm.pdf(at)
    expected = {**MEAN_SQUARES, "sigmoid": SIGMOID_MEAN_SQUARE}[name]
    # The constants have six decimals; the grid, 1.2e-4 apart, errs by h^2 / 12 at a kink.
    np.testing.assert_allclose(integrate.trapezoid(values, at), expected, rtol=0, atol=0.51e-6)


@pytest.mark.parametrize("kind", ["mlp", "gated-mlp", "residual-mlp"])
@pytest.mark.parametrize("activation", MEAN_SQUARES)
def test_the_signal_keeps_its_size_through_a_deep_net(kind, activation):
    decoder = make_decoder(kind, (4, 4, 1), 64, hidden=DEEP, activation=activation)
    _hold_steady(decoder, tf.random.normal([256, 64]))


@pytest.mark.parametrize(
    ("kind", "activation"),
    [("gated-conv", "linear"), ("gated-conv", "elu"), ("resnet", "elu"), ("resnet", "silu")],
)
def test_the_signal_keeps_its_size_through_convolutions(kind, activation):
    options = {"channels": (48,) * 4, "activation": activation}
    encoder = make_encoder(kind, (7, 13, 3), hidden=(32,), **options)
    _hold_steady(encoder, tf.random.normal([32, 7, 13, 3]))
    decoder = make_decoder(kind, (7, 13, 3), 16, **options)
    _hold_steady(decoder, tf.random.normal([32, 16]))


def _hold_steady(network, x):
    """The mean squares of like stages, units or blocks, are as near as their widths allow.

    The mean square of n units, each of another kernel, has a variance of at most 1 / (2 n) of its
    square at each stage: units see the same inputs, whose mean is at most half of their size.
    """
    network.build()
    sizes = {Unit: [], ResidualBlock: []}
    for stage in network._stages:
        x = stage(x)
        sizes.setdefault(type(stage), []).append(np.mean(np.square(x)))
    like = max(sizes[Unit], sizes[ResidualBlock], key=len)
    assert len(like) >= 4
    units = min(stage.out_shape[-1] for stage in network._stages if type(stage) in sizes)
    assert np.log(max(like) / min(like)) < 5 * np.sqrt(len(like) / (2 * units)), like
