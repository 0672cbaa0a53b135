"""A replica's share of a batch; what steps make of it: tests/training/test_strategy.py."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfp_flowvae.likelihoods import Gaussian
from tfp_flowvae.models import replicas


def test_rows_of_a_share():
    share = replicas.Share(*map(tf.constant, (2, 3, 7)))
    rows = tf.reshape(tf.range(1.0, 7.0), [3, 2])
    padded = share.pad(rows)
    assert padded.shape == (7, 2)
    np.testing.assert_array_equal(padded[2:5], rows)
    assert float(tf.reduce_sum(padded)) == 21
    np.testing.assert_array_equal(share.rows(padded, axis=0), rows)
    np.testing.assert_array_equal(share.rows(tf.range(7)[tf.newaxis], axis=1), [[2, 3, 4]])


def test_an_empty_share_has_a_mean_and_a_gradient():
    with tf.GradientTape() as tape:
        factor = tf.constant(2.0)
        tape.watch(factor)
        mean = replicas.mean(factor * tf.zeros([0, 3]))
    np.testing.assert_array_equal(mean, np.zeros(3))
    assert float(tape.gradient(mean, factor)) == 0


def test_on_one_device_nothing_changes():
    values, gradients = tf.constant([[1.0], [2.0], [6.0]]), [tf.ones([2]), None]
    images, likelihood = tf.ones([3, 2, 2, 1]), Gaussian(levels=17)

    def found():
        assert replicas.share_of(tf.constant(3)) is None
        assert replicas.summed(gradients)[1] is None
        return [
            replicas.mean(values),
            replicas.batch_mean(values),
            replicas.scaled(values),
            replicas.unscaled(values),
            replicas.summed(gradients)[0],
            replicas.own_rows(lambda size, seed: tf.range(size) + seed[0], 3, [5, 0], axis=0),
            replicas.prepare(likelihood, images, [5, 0]),
        ]

    prepared = likelihood.prepare(images, [5, 0])
    wanted = [[3.0], [3.0], values, values, [1.0, 1.0], [5, 6, 7], prepared]
    for run in (lambda f: f(), tf.distribute.MirroredStrategy(["CPU:0"]).run):
        for value, expected in zip(run(found), wanted, strict=True):
            np.testing.assert_array_equal(value, expected)
