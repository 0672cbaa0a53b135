"""A replica's share of a batch; what steps make of it: tests/training/test_strategy.py."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tfp_flowvae.training import replicas
from tfp_flowvae.training.noise import Noise


def test_rows_of_a_share():
    share = replicas.Share(*map(tf.constant, (2, 3, 7)))
    whole = tf.reshape(tf.range(14.0), [7, 2])
    np.testing.assert_array_equal(share.rows(whole, axis=0), whole[2:5])
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
    adam = keras.optimizers.Adam(global_clipnorm=0.1)

    def found():
        assert replicas.share_of(tf.constant(3)) is None
        assert replicas.summed(gradients)[1] is None
        return [
            replicas.mean(values),
            replicas.batch_mean(values),
            replicas.summed(gradients)[0],
            replicas.shared_out(gradients, adam)[0],  # the optimizer clips it itself
            replicas.weighted(tf.constant(2.0), tf.constant(3)),
            Noise(5).normal([2, 3], batch_axis=1),
        ]

    noise = Noise([5, 0]).normal([2, 3])
    wanted = [[3.0], [3.0], [1.0, 1.0], [1.0, 1.0], 2.0, noise]
    for run in (lambda f: f(), tf.distribute.MirroredStrategy(["CPU:0"]).run):
        for value, expected in zip(run(found), wanted, strict=True):
            np.testing.assert_array_equal(value, expected)
