"""Noise from a seed: the same numbers eagerly, in a graph, under XLA and on any devices."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.training import replicas


def as_seed(seed: TensorLike | None) -> tf.Tensor:
    """A stateless seed, int32 `[2]`, from an int, an integer scalar or such a seed.

    None gives a fresh one, as in TFP.
    """
    if seed is None:
        return tfp.random.sanitize_seed(None)
    seed = tf.convert_to_tensor(seed, dtype_hint=tf.int32)
    return tf.stack([tf.cast(seed, tf.int32), 0]) if seed.shape.rank == 0 else seed


class Noise:
    """Draws from a stateless seed.

    Under a `tf.distribute` strategy each example gets the noise that it has on one device: every
    replica draws the noise of the global batch and keeps the rows of its own examples. On TPUs,
    where a program must know all shapes, each replica draws noise of its own.

    Args:
      seed: An int, an integer scalar, a stateless seed `[2]`, or None for a fresh one.
      examples: How many examples have noise of their own: the batch size, or 1 for noise that all
        examples share, so that an example's does not depend on the others; None for the batch size.
    """

    def __init__(self, seed: TensorLike | None, examples: TensorLike | None = None) -> None:
        self.seed, self._examples = as_seed(seed), examples

    def stream(self, number: int) -> Noise:
        """Noise that is independent of this one, and of the streams of other numbers."""
        return Noise(tf.random.fold_in(self.seed, number, alg="philox"), self._examples)

    def normal(
        self,
        shape: Sequence[TensorLike],
        batch_axis: int | None = None,
        dtype: tf.DType = tf.float32,
    ) -> tf.Tensor:
        """Independent draws from N(0, 1), by Box and Muller's transform of random bits.

            n_1, n_2 = sqrt(-2 ln u_1) (cos 2 pi u_2, sin 2 pi u_2)

        `tf.random.stateless_normal` draws different numbers in a graph and under XLA from one seed,
        whatever the algorithm; the bits of Philox are the same in both.

        Args:
          shape: Of the result.
          batch_axis: The axis of the examples, or None where there is none.
          dtype: Of the result.
        """

        def draw(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            count = tf.reduce_prod(shape)
            bits = _bits([2, (count + 1) // 2], seed, tf.uint32)
            uniform = (tf.cast(bits, dtype) + 0.5) * 2.0**-32  # in (0, 1]: the logarithm is finite
            radius, angle = tf.sqrt(-2.0 * tf.math.log(uniform[0])), 2 * math.pi * uniform[1]
            normal = tf.concat([radius * tf.cos(angle), radius * tf.sin(angle)], axis=0)
            return tf.reshape(normal[:count], shape)

        return self._own_rows(draw, shape, batch_axis)

    def uniform(self, shape: Sequence[TensorLike], batch_axis: int | None = None) -> tf.Tensor:
        """Independent draws from U[0, 1), multiples of 2^-24, in float32; arguments as `normal`."""

        def draw(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            # From bits, which XLA draws alike; its floating-point draws differ from TensorFlow's.
            bits = _bits(shape, seed, tf.int32)
            return tf.cast(tf.bitwise.bitwise_and(bits, 0xFFFFFF), tf.float32) * 2.0**-24

        return self._own_rows(draw, shape, batch_axis)

    def _own_rows(
        self,
        draw: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
        shape: Sequence[TensorLike],
        batch_axis: int | None,
    ) -> tf.Tensor:
        """Draws the noise of the global batch and returns the rows of this replica's examples."""
        if self._examples is not None and batch_axis is not None:
            own = [self._examples if i == batch_axis else size for i, size in enumerate(shape)]
            return tf.broadcast_to(draw(tf.stack(own), self.seed), tf.stack(shape))
        share = None if batch_axis is None else replicas.share_of(shape[batch_axis])
        if share is None or batch_axis is None:
            return draw(tf.stack(shape), self.seed)
        if replicas.shapes_are_fixed():
            return draw(tf.stack(shape), tf.random.fold_in(self.seed, replicas.own_index()))
        whole = [share.total if i == batch_axis else size for i, size in enumerate(shape)]
        return share.rows(draw(tf.stack(whole), self.seed), batch_axis)


def as_noise(seed: TensorLike | Noise | None) -> Noise:
    """Noise as it is, or from a seed as `Noise` takes it."""
    return seed if isinstance(seed, Noise) else Noise(seed)


def _bits(shape: TensorLike, seed: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.random.stateless_uniform(
        shape, seed, minval=None, maxval=None, dtype=dtype, alg="philox"
    )
