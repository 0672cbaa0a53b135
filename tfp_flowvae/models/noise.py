"""The noise that a reparameterised draw starts from: the same everywhere for the same seed."""

from __future__ import annotations

import math

import tensorflow as tf


def standard_normal(shape: tf.Tensor, seed: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Independent draws from N(0, 1), by Box and Muller's transform of random bits.

        n_1, n_2 = sqrt(-2 ln u_1) (cos 2 pi u_2, sin 2 pi u_2)

    `tf.random.stateless_normal` draws differently in a graph and under XLA from one seed, whatever
    the algorithm; the bits of Philox are the same in both.

    Args:
      shape: Of the result.
      seed: Stateless, `[2]`.
      dtype: Of the result.
    """
    count = tf.reduce_prod(shape)
    bits = tf.random.stateless_uniform(
        [2, (count + 1) // 2], seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    uniform = (tf.cast(bits, dtype) + 0.5) * 2.0**-32  # in (0, 1]: its logarithm is finite
    radius, angle = tf.sqrt(-2.0 * tf.math.log(uniform[0])), 2 * math.pi * uniform[1]
    normal = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=0)
    return tf.reshape(normal[:count], shape)


def kept_entries(shape: tf.Tensor, rate: float, seed: tf.Tensor) -> tf.Tensor:
    """Dropout's factors: 0 with probability `rate`, otherwise 1 / (1 - rate); mean 1.

    Args:
      shape: Of the result.
      rate: In [0, 1), exact to 2^-32.
      seed: Stateless, `[2]`; it gives the same factors eagerly, in a graph and under XLA.
    """
    bits = tf.random.stateless_uniform(
        shape, seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox"
    )
    kept = bits >= tf.constant(round(rate * 2**32), tf.uint32)
    return tf.cast(kept, tf.float32) / (1.0 - rate)
