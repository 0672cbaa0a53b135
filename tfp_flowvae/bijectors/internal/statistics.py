"""Means and standard deviations of a batch, over all replicas of a `tf.distribute` strategy."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfp_flowvae.bijectors.internal import numerics


def log_statistics(x: tf.Tensor, axes: Sequence[int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the mean and the log standard deviation of `x` over `axes` and all replicas.

    Args:
      x: Points, of any shape.
      axes: What to average over.

    Returns:
      Two tensors of the shape of `x` with 1 for each of `axes`. Where all numbers are equal to
      rounding the logarithm is 0.
    """
    count = _over_replicas(tf.cast(tf.size(x), x.dtype))

    def average(values: tf.Tensor) -> tf.Tensor:
        total = _over_replicas(tf.reduce_sum(values, axis=axes, keepdims=True))
        return total * (tf.cast(tf.size(total), x.dtype) / count)

    mean = average(x)
    mean += average(x - mean)  # a long sum's rounding error is not that of a short one
    std = tf.sqrt(average(tf.square(x - mean)))
    is_constant = std <= 8.0 * numerics.epsilon(x.dtype) * tf.abs(mean)
    return mean, tf.math.log(tf.where(is_constant, tf.ones_like(std), std))


def _over_replicas(value: tf.Tensor) -> tf.Tensor:
    """The sum over the replicas of the strategy in force, if this is the context of one."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)
