from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfp_flowvae.networks.convolution import Convolution, map_sizes


def test_on_mnist_the_sizes_are_those_of_the_paper():
    assert [height for height, _ in map_sizes((28, 28), 5)] == [28, 28, 14, 14, 7, 7]


@pytest.mark.parametrize(
    ("size", "layers", "wanted"),
    [
        ((32, 32), 5, (8, 8)),
        ((64, 64), 5, (8, 8)),
        ((64, 64), 2, (16, 16)),
        ((7, 13), 3, (4, 7)),
        ((3, 40), 3, (3, 5)),
        ((8, 8), 4, (8, 8)),
        ((1, 1), 2, (1, 1)),
        ((28, 28), 0, (28, 28)),
    ],
)
def test_maps_shrink_to_at_most_8_and_an_axis_of_4_or_less_stays(size, layers, wanted):
    sizes = map_sizes(size, layers)
    assert len(sizes) == layers + 1
    assert sizes[0] == size
    assert sizes[-1] == wanted
    for before, after in itertools.pairwise(sizes):
        assert all(b in (a, -(-a // 2)) for a, b in zip(before, after, strict=True))


CHANGES = [
    ((6, 7), (6, 7)),
    ((7, 9), (4, 5)),
    ((7, 3), (4, 3)),
    ((4, 5), (7, 9)),
    ((4, 3), (8, 3)),
    ((1, 2), (1, 2)),
    ((1, 1), (1, 1)),
]


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_convolution_gives_the_size_asked_for_and_unit_variance(before, after, spread):
    layer = Convolution((*before, 16), (*after, 64), kernel_size=5, scale=1.0)
    y = layer(tf.random.normal([64, *before, 16]))
    assert y.shape == (64, *after, 64)
    # Pixels at the border see fewer inputs than those in the middle; the average is what counts.
    # The pixels of an image are taken for one example, as what they see overlaps.
    n = layer.trainable_variables[0].shape.num_elements() // 64
    np.testing.assert_allclose(np.mean(y**2), 1.0, rtol=0, atol=spread(n, units=64, examples=64))


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_every_weight_of_a_kernel_is_used(before, after):
    layer = Convolution((*before, 2), (*after, 2), kernel_size=5, scale=1.0)
    x = tf.random.normal([4, *before, 2])
    layer.build()
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(layer(x) ** 2)
    kernel = layer.trainable_variables[0].value
    assert np.all(np.abs(tape.gradient(y, kernel)) > 0)
