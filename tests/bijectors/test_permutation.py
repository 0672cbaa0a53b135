"""Constructors of permutations against the orders that they promise."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from numpy.testing import assert_allclose, assert_array_equal

from tfp_flowvae import bijectors as fvb

tfb = tfp.bijectors

MAKERS = {
    "reverse": lambda: fvb.reverse_permutation(6),
    "random": lambda: fvb.random_permutation(6, seed=3),
    "alternating": lambda: fvb.alternating_permutation(6),
    "checkerboard": lambda: fvb.checkerboard_permutation(3, 2),
}


@pytest.mark.parametrize("name", MAKERS)
def test_both_ways_with_log_det_zero(name):
    permute = MAKERS[name]()
    assert type(permute) is tfb.Permute
    x = tf.constant(np.random.default_rng(0).standard_normal([4, 6]))
    y, log_det = fvb.forward_and_log_det(permute, x)
    assert_array_equal(np.sort(y), np.sort(x))
    back, inverse_log_det = fvb.inverse_and_log_det(permute, tf.constant(y.numpy()))
    assert_array_equal(back, x)
    assert y.dtype == log_det.dtype == tf.float64
    assert_array_equal(np.broadcast_to(log_det, 4), np.zeros(4))
    assert_array_equal(np.broadcast_to(inverse_log_det, 4), np.zeros(4))


def test_orders():
    x = tf.range(5.0)
    assert_array_equal(fvb.reverse_permutation(5).forward(x), [4, 3, 2, 1, 0])
    assert_array_equal(fvb.alternating_permutation(5).forward(x), [0, 2, 4, 1, 3])
    assert_array_equal(fvb.reverse_permutation(1).forward([7.0]), [7.0])


def test_checkerboard_takes_pixels_whole_and_white_first():
    row, column, channel = np.indices([3, 4, 2])
    colour = ((row + column) % 2).ravel()
    permutation = np.asarray(fvb.checkerboard_permutation(3, 4, channels=2).permutation)
    assert_array_equal(colour[permutation], np.repeat([0, 1], 12))
    assert_array_equal(channel.ravel()[permutation], np.tile([0, 1], 12))
    assert np.all(np.diff(permutation[:12]) > 0)


def test_a_seed_gives_the_same_order_again_and_another_seed_another():
    first, again, other = (
        np.asarray(fvb.random_permutation(50, seed).permutation) for seed in (1, 1, 2)
    )
    assert_array_equal(first, again)
    assert np.any(first != other)


def test_joint_evaluation_in_a_chain_under_xla(rounding):
    scale = tfb.Scale(tf.constant([1.0, 2.0, 3.0]))
    chain = tfb.Chain([fvb.reverse_permutation(3), scale, fvb.alternating_permutation(3)])
    evaluate = tf.function(lambda x: fvb.inverse_and_log_det(chain, x), jit_compile=True)
    x, log_det = evaluate(tf.constant([[9.0, 4.0, 1.0]]))
    wanted, wanted_log_det = np.float32([[1.0, 3.0, 2.0]]), np.float32([-np.log(6.0)])
    assert_allclose(x, wanted, **rounding(2, wanted))  # by the reciprocal, perhaps
    assert_allclose(log_det, wanted_log_det, **rounding(3, wanted_log_det))  # a sum of three


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: fvb.reverse_permutation(0), ValueError, r"Received: event_size=0\."),
        (lambda: fvb.alternating_permutation(2.5), TypeError, r"Received: event_size=2\.5\."),
        (lambda: fvb.random_permutation(3, seed=-1), ValueError, r"Received: seed=-1\."),
        (lambda: fvb.random_permutation(3, seed=None), TypeError, r"Received: seed=None\."),
        (lambda: fvb.checkerboard_permutation(2, 0), ValueError, r"Received: width=0\."),
    ],
)
def test_errors_name_what_was_received(make, kind, message):
    with pytest.raises(kind, match=message):
        make()
