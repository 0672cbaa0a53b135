"""What one replica of a `tf.distribute` strategy knows of the batch that it has a share of.

A step on R replicas is the step of one device at the same global batch of B images. Replica r has
the rows s_r .. s_r + n_r - 1, sum_r n_r = B, in the order of the replicas, perhaps unequal, as in
the last batch of an epoch. With the loss L = 1/B sum_i l_i,

    grad L = sum_r n_r/B grad mean_{i in r} l_i                  `Share.weight` = R n_r / B

and image i gets the noise that it has on one device: every replica draws the noise of the whole
batch from the one seed, and keeps its rows.

On one device, and outside `Strategy.run`, there are no shares and nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from tfp_flowvae.likelihoods import Likelihood


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

    @property
    def weight(self) -> tf.Tensor:
        """R n / B: how much more this replica's mean counts than that of an equal share."""
        replicas = tf.cast(_replicas(), tf.float32)
        return replicas * tf.cast(self.size, tf.float32) / tf.cast(self.total, tf.float32)

    def pad(self, rows: tf.Tensor) -> tf.Tensor:
        """`[B, ...]`: these rows `[n, ...]` in their place, and 0 everywhere else."""
        after = self.total - self.start - self.size
        paddings = [[self.start, after], *[[0, 0]] * (rows.shape.rank - 1)]
        return tf.pad(rows, paddings)

    def rows(self, x: tf.Tensor, axis: int) -> tf.Tensor:
        """This replica's rows of what has B of them along `axis`."""
        index = [slice(None)] * axis + [slice(self.start, self.start + self.size)]
        return x[tuple(index)]


def share_of(size: tf.Tensor) -> Share | None:
    """The share of the replica that calls, which has `size` images; None where there is but one.

    All replicas must call it: their sizes are summed up over them.
    """
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    replicas, me = context.num_replicas_in_sync, context.replica_id_in_sync_group
    # In float32, which every kind of device can sum up; exact below 2^24 images.
    mine = tf.one_hot(me, replicas) * tf.cast(size, tf.float32)
    sizes = tf.cast(context.all_reduce(tf.distribute.ReduceOp.SUM, mine), tf.int32)
    start = tf.reduce_sum(tf.where(tf.range(replicas) < me, sizes, 0))
    return Share(start, tf.cast(size, tf.int32), tf.reduce_sum(sizes))


def own_rows(
    draw: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], size: tf.Tensor, seed: tf.Tensor, axis: int
) -> tf.Tensor:
    """The noise of this replica's images, as they have it on one device.

    Args:
      draw: From a number of images and a stateless seed `[2]` to noise with as many rows.
      size: n, the images of this replica.
      seed: The same on every replica.
      axis: Of `draw`'s result, along which there are the images.
    """
    share = share_of(size)
    if share is None:
        return draw(size, seed)
    if _shapes_are_fixed():
        return draw(size, _own_seed(seed))
    return share.rows(draw(share.total, seed), axis)


def prepare(likelihood: Likelihood, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """`likelihood.prepare` of this replica's images `[n, H, W, C]`: see `own_rows`."""
    share = None if type(likelihood).prepare is Likelihood.prepare else share_of(tf.shape(x)[0])
    if share is None:
        return likelihood.prepare(x, seed)
    if _shapes_are_fixed():
        return likelihood.prepare(x, _own_seed(seed))
    return share.rows(likelihood.prepare(share.pad(x), seed), axis=0)


def mean(values: tf.Tensor) -> tf.Tensor:
    """The mean over axis 0 of this replica's values `[n, ...]`; 0 for n = 0.

    Taken once for each replica and weighted by `Share.weight`, it has the gradient of the mean over
    the global batch.
    """
    count = tf.cast(tf.shape(values)[0], values.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(values, axis=0), count)


def batch_mean(values: tf.Tensor) -> tf.Tensor:
    """The mean over axis 0 of the global batch, of which `values` `[n, ...]` are a share.

    The same on all replicas, for what depends on the batch through a function that is not linear.
    Its gradient is that of `mean`.
    """
    share = share_of(tf.shape(values)[0])
    local = mean(values)
    if share is None:
        return local
    fraction = tf.cast(share.size, values.dtype) / tf.cast(share.total, values.dtype)
    context = tf.distribute.get_replica_context()
    whole = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.stop_gradient(local * fraction))
    return local + tf.stop_gradient(whole - local)


def scaled(loss: tf.Tensor) -> tf.Tensor:
    """A replica's mean loss over the number of replicas, as Keras takes losses; `unscaled` back."""
    return loss / tf.cast(_replicas(), loss.dtype)


def unscaled(loss: tf.Tensor) -> tf.Tensor:
    """A replica's mean loss, from what `scaled` made of it."""
    return loss * tf.cast(_replicas(), loss.dtype)


def summed(gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """The gradients of the global batch, from those of this replica's part of the loss."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return list(gradients)
    present = [gradient for gradient in gradients if gradient is not None]
    sums = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, present))
    return [None if gradient is None else next(sums) for gradient in gradients]


def _replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync


def _shapes_are_fixed() -> bool:
    """Whether the program must know the global batch when it is compiled: on TPUs.

    There each replica draws noise of its own, and agrees with one device on average only.
    """
    return isinstance(tf.distribute.get_strategy(), tf.distribute.TPUStrategy)


def _own_seed(seed: tf.Tensor) -> tf.Tensor:
    me = tf.distribute.get_replica_context().replica_id_in_sync_group
    return tf.random.fold_in(seed, me)
