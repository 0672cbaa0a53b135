"""A step on the replicas of a `tf.distribute` strategy, equal to the step of one device.

R replicas share a global batch of B examples. Replica r has the rows s_r .. s_r + n_r - 1,
sum_r n_r = B, in the order of the replicas, perhaps in unequal shares, as in the last batch of an
epoch. With the loss L = 1/B sum_i l_i,

    grad L = sum_r n_r/B grad mean_{i in r} l_i

On one device, and outside `Strategy.run`, there are no shares, and nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf


class Share(NamedTuple):
    """The rows of a global batch that a replica has; int32 scalars.

    Attributes:
      start: The first one.
      size: n, how many; possibly 0.
      total: B, the rows of the global batch.
    """

    start: tf.Tensor
    size: tf.Tensor
    total: tf.Tensor

    def rows(self, x: tf.Tensor, axis: int) -> tf.Tensor:
        """This replica's rows of a tensor that has B of them along `axis`."""
        index = [slice(None)] * axis + [slice(self.start, self.start + self.size)]
        return x[tuple(index)]

    def fraction(self, dtype: tf.DType) -> tf.Tensor:
        """n / B."""
        return tf.cast(self.size, dtype) / tf.cast(self.total, dtype)


def share_of(size: tf.Tensor) -> Share | None:
    """The share of the replica that calls, which has `size` examples; None on one device.

    All replicas must call it: their sizes are summed over them.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    replicas, me = context.num_replicas_in_sync, context.replica_id_in_sync_group
    # In float32, which every kind of device can sum; exact below 2^24 examples.
    mine = tf.one_hot(me, replicas) * tf.cast(size, tf.float32)
    sizes = tf.cast(context.all_reduce(tf.distribute.ReduceOp.SUM, mine), tf.int32)
    start = tf.reduce_sum(tf.where(tf.range(replicas) < me, sizes, 0))
    return Share(start, tf.cast(size, tf.int32), tf.reduce_sum(sizes))


def mean(values: tf.Tensor) -> tf.Tensor:
    """The mean over axis 0 of this replica's values `[n, ...]`; 0 for n = 0."""
    count = tf.cast(tf.shape(values)[0], values.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(values, axis=0), count)


def batch_mean(values: tf.Tensor) -> tf.Tensor:
    """The mean over axis 0 of the global batch, of which `values` `[n, ...]` are a share.

    It is the same on all replicas, for what depends on the batch through a function that is not
    linear. Its gradient is that of `mean`.
    """
    share = share_of(tf.shape(values)[0])
    local = mean(values)
    if share is None:
        return local
    context = tf.distribute.get_replica_context()
    part = tf.stop_gradient(local * share.fraction(values.dtype))
    whole = context.all_reduce(tf.distribute.ReduceOp.SUM, part)
    return local + tf.stop_gradient(whole - local)


def weighted(loss: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """A replica's mean loss times n / B, so that the sum over the replicas is L.

    Args:
      loss: Scalar.
      size: n.
    """
    share = share_of(size)
    if share is None:
        return loss
    return loss * share.fraction(loss.dtype)


def summed(gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """The gradients of the global batch, from those of this replica's part of the loss."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return list(gradients)
    present = [gradient for gradient in gradients if gradient is not None]
    sums = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, present))
    return [None if gradient is None else next(sums) for gradient in gradients]


def shared_out(gradients: Sequence[tf.Tensor | None], optimizer: Any) -> list[tf.Tensor | None]:
    """The gradients of the global batch as an optimizer of Keras takes them on a replica.

    Keras 3 clips on each replica and then sums over the replicas. Clipped here, by the optimizer's
    own limits, and divided by R, the gradients are too small to be clipped there, and their sum is
    the clipped gradient of the global batch.

    Args:
      gradients: What `summed` gave.
      optimizer: Of Keras.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas == 1:
        return list(gradients)
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    present = [gradient for gradient in gradients if gradient is not None]
    if inner.clipnorm is not None:
        present = [tf.clip_by_norm(gradient, inner.clipnorm) for gradient in present]
    elif inner.global_clipnorm is not None:
        present, _ = tf.clip_by_global_norm(present, inner.global_clipnorm)
    elif inner.clipvalue is not None:
        limit = inner.clipvalue
        present = [tf.clip_by_value(gradient, -limit, limit) for gradient in present]
    parts = iter([gradient / tf.cast(replicas, gradient.dtype) for gradient in present])
    return [None if gradient is None else next(parts) for gradient in gradients]


def values_on_replicas(
    strategy: tf.distribute.Strategy, variables: Sequence[keras.Variable]
) -> list[np.ndarray]:
    """Returns the value of each variable on every replica, `[R, ...]`.

    A metric has a part of its sum on each replica. Read as usual, it is the sum of these parts; if
    that sum is restored and shared out, later steps add to other numbers, and round differently.

    Args:
      strategy: The strategy in which the variables were created.
      variables: Variables of metrics, or others. All workers of a cluster must call this function.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return [keras.ops.convert_to_numpy(variable)[np.newaxis] for variable in variables]

    def on_replica() -> list[tf.Tensor]:
        context = tf.distribute.get_replica_context()
        place = [[context.replica_id_in_sync_group]]
        own = [tf.convert_to_tensor(variable.value) for variable in variables]
        # All but one term of each sum are 0, so that the sums are exact.
        rows = [tf.scatter_nd(place, x[tf.newaxis], [replicas, *x.shape]) for x in own]
        return context.all_reduce(tf.distribute.ReduceOp.SUM, rows)

    program = tf.function(lambda: strategy.run(on_replica), autograph=False)
    return [strategy.experimental_local_results(value)[0].numpy() for value in program()]


def assign_on_replicas(
    strategy: tf.distribute.Strategy,
    variables: Sequence[keras.Variable],
    values: Sequence[np.ndarray],
) -> None:
    """Assigns what `values_on_replicas` returned.

    If the number of replicas is another now, the first one gets the sum and the others get 0.
    """
    replicas = strategy.num_replicas_in_sync
    if any(len(value) != replicas for value in values):
        sums = [value.sum(axis=0, dtype=value.dtype) for value in values]
        values = [np.stack([x, *[np.zeros_like(x)] * (replicas - 1)]) for x in sums]
    if replicas == 1:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value[0])
        return

    def on_replica() -> None:
        me = tf.distribute.get_replica_context().replica_id_in_sync_group
        for variable, value in zip(variables, values, strict=True):
            variable.assign(tf.constant(value)[me])

    tf.function(lambda: strategy.run(on_replica), autograph=False)()


def shapes_are_fixed() -> bool:
    """Whether a program must know the global batch when it is compiled: on TPUs."""
    return isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)


def own_index() -> tf.Tensor:
    """The number of this replica."""
    return tf.distribute.get_replica_context().replica_id_in_sync_group
