"""Batches for training and evaluation, from images in memory or on disk.

Images in memory become one tensor. Images in a file (an `np.memmap`, as `stream_images` returns)
stay there and are read a few batches ahead of training. The batches are the same.

Every batch is a function of (seed, epoch, step) alone: the shuffle and the draws of dynamic
binarisation come from TensorFlow's stateless generators, so a run that is resumed at step `k` of
epoch `e` sees the batches of the uninterrupted run, bit for bit. The algorithm of the generators is
always Philox, because TensorFlow's default depends on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from tfp_flowvae.data.binarize import binarize_fixed, check_binarization
from tfp_flowvae.data.images import require_image_array

# The shuffle and the draws take independent random numbers, from seeds that end with these.
_SHUFFLE, _BINARIZE = 0, 1
# As many batches are made ahead as fit in this many bytes, but at least 2 and at most 50: training
# does not take more at a time.
_PREFETCHED_BYTES, _FEWEST_PREFETCHED, _MOST_PREFETCHED = 1 << 24, 2, 50
# How many bytes are read at a time, and how many threads read a file, since they wait for the disk.
_READ_BYTES, _READERS = 1 << 22, 4

_Order: TypeAlias = Callable[[Any, Any], tf.Tensor]
_Finish: TypeAlias = Callable[[Any, Any], tf.Tensor]


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Returns the number of batches in an epoch, of which the last may be smaller.

    Example:
      >>> steps_per_epoch(250, 100)  # batches of 100, 100 and 50
      3
    """
    return -(-num_images // batch_size)


def training_batches(
    images: np.ndarray,
    *,
    levels: int | None,
    batch_size: int,
    seed: int,
    binarization: str,
    start_epoch: int = 0,
    start_step: int = 0,
    labels: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Returns an endless stream of shuffled batches; `steps_per_epoch` of them are one epoch.

    Every image appears exactly once in an epoch. If `batch_size` does not divide the number of
    images, the epoch's last batch is smaller. The order does not depend on threads.

    Args:
      images: `[N, H, W, C]`, uint8 levels, or float32 intensities if `levels` is None. uint8 images
        are never copied to float32 as a whole, and an `np.memmap` is not copied at all.
      levels: The number of grey levels, or None.
      batch_size: Images in a batch, B.
      seed: The run's seed, for the order and the draws of `dynamic`. The one draw of `static` does
        not depend on it.
      binarization: One of `BINARIZATIONS`. A `dynamic` draw compares 16 random bits with the
        intensity: its probability is exact for black and white and within 2^-16 for grey.
      start_epoch: The epoch, counted from 0, with which the stream begins.
      start_step: The step of that epoch, counted from 0, with which the stream begins.
      labels: int32 `[N]`, or None.

    Returns:
      A `tf.data.Dataset` of `[B, H, W, C]`, of infinite cardinality: float32 in [0, 1], or uint8
      zeros and ones if the images are binary, which is a quarter of the bytes. With labels, of
      pairs of such images and their labels `[B]`.

    Raises:
      UserError: If `binarization` is unknown.
      ValueError: If there are no images, or a size or a start is out of range.

    Example:
      >>> splits = load_images("digits")
      >>> batches = training_batches(
      ...     splits.train, levels=splits.levels, batch_size=100, seed=0, binarization="dynamic"
      ... )
      >>> steps_per_epoch(len(splits.train), 100)
      13
    """
    check_binarization(binarization)
    _check_sizes(images, levels, batch_size)
    if start_epoch < 0:
        raise ValueError(f"start_epoch must not be negative. Received: {start_epoch}.")
    if not 0 <= start_step < steps_per_epoch(len(images), batch_size):
        raise ValueError(
            "start_step must be at least 0 and below "
            f"{steps_per_epoch(len(images), batch_size)}, the steps of an epoch. "
            f"Received: {start_step}."
        )
    if binarization in ("static", "threshold"):
        images, levels = binarize_fixed(images, levels, binarization, "train")
    dynamic = binarization == "dynamic"
    size, steps = len(images), steps_per_epoch(len(images), batch_size)
    stream = _streams(images, batch_size, labels)

    def epoch_batches(epoch: Any) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(size), seed=_fold([seed, _SHUFFLE], epoch), alg="philox"
        )

        def finish(chosen: Any, index: Any) -> Any:
            if dynamic:
                draw_seed = _fold(_fold([seed, _BINARIZE], epoch), index)
                return _bernoulli(chosen, levels, draw_seed)
            return _unit(chosen, levels)

        first = tf.where(epoch == start_epoch, tf.constant(start_step, tf.int64), 0)
        return stream(lambda start, stop: order[start:stop], finish, first, steps)

    batches = tf.data.Dataset.range(start_epoch, np.iinfo(np.int64).max).flat_map(epoch_batches)
    batches = batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return _ahead(batches, images, batch_size)


def evaluation_batches(
    images: np.ndarray,
    batch_size: int,
    *,
    levels: int | None = None,
    labels: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Returns batches of all images, once and in order.

    Args:
      images: `[N, H, W, C]`, uint8 levels, or float32 intensities if `levels` is None. To evaluate
        on binary images, give the result of `binarize_fixed`.
      batch_size: Images in a batch, B; the last batch may be smaller.
      levels: The number of grey levels, or None.
      labels: int32 `[N]`, or None.

    Returns:
      A `tf.data.Dataset` of `[B, H, W, C]` with `steps_per_epoch(N, B)` elements: float32 in
      [0, 1], or uint8 zeros and ones if the images are binary. With labels, of pairs of such images
      and their labels `[B]`.

    Raises:
      ValueError: If there are no images, or `batch_size` is not positive.

    Example:
      >>> images = np.arange(5 * 2 * 2).reshape(5, 2, 2, 1).astype(np.uint8)
      >>> batches = evaluation_batches(images, batch_size=2, levels=256)
      >>> [batch.shape[0] for batch in batches]
      [2, 2, 1]
    """
    _check_sizes(images, levels, batch_size)
    size, steps = len(images), steps_per_epoch(len(images), batch_size)
    batches = _streams(images, batch_size, labels)(
        lambda start, stop: tf.range(start, tf.minimum(stop, size)),
        lambda chosen, _: _unit(chosen, levels),
        0,
        steps,
    )
    batches = batches.apply(tf.data.experimental.assert_cardinality(steps))
    return _ahead(batches, images, batch_size)


def _check_sizes(images: np.ndarray, levels: int | None, batch_size: int) -> None:
    require_image_array(images, levels)
    if not len(images):
        raise ValueError(f"There must be at least one image. Received: shape {images.shape}.")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1. Received: {batch_size}.")


def _streams(
    images: np.ndarray, batch_size: int, labels: np.ndarray | None
) -> Callable[..., tf.data.Dataset]:
    """Returns a function that makes streams of batches, and can be called within tf.data.

    The stream reads the images of a block of batches at a time. The function's arguments are:
      order: Returns the indices of the images at the places `start` to `stop - 1`.
      finish: Makes a batch from its images `[B, H, W, C]` and its number.
      first: The number of the first batch.
      steps: The number after that of the last batch.
    """
    read, on_disk = _reader(images), isinstance(images, np.memmap)
    read_labels = None if labels is None else _reader(labels)
    count = _READ_BYTES // max(1, batch_size * images[0].nbytes)
    count = min(max(count, 1), _MOST_PREFETCHED)
    parallel = {"num_parallel_calls": _READERS, "deterministic": True} if on_disk else {}

    def stream(order: _Order, finish: _Finish, first: Any, steps: int) -> tf.data.Dataset:
        def block(index: Any) -> Any:
            places = order(index * batch_size, (index + count) * batch_size)
            if read_labels is None:
                return index, read(places)
            return index, read(places), read_labels(places)

        def batches(index: Any, chosen: Any, *labels: Any) -> tf.data.Dataset:
            def batch(number: Any) -> Any:
                start = (number - index) * batch_size
                part = slice(start, start + batch_size)
                finished = finish(chosen[part], number)
                return (finished, labels[0][part]) if labels else finished

            return tf.data.Dataset.range(index, tf.minimum(index + count, steps)).map(batch)

        return tf.data.Dataset.range(first, steps, count).map(block, **parallel).flat_map(batches)

    return stream


def _reader(images: np.ndarray) -> Callable[[Any], tf.Tensor]:
    """Returns a function from the indices `[n]` of images to the images `[n, H, W, C]`."""
    if not isinstance(images, np.memmap):
        with tf.device("CPU:0"):  # A tensor that functions capture, not a constant in a graph.
            resident = tf.convert_to_tensor(images)
        return lambda indices: tf.gather(resident, indices)
    mapped, shape, dtype = images.view(np.ndarray), images.shape[1:], images.dtype

    def rows(indices: np.ndarray) -> np.ndarray:
        order = np.argsort(indices)  # A disk with a moving head reads faster in the file's order.
        chosen = np.empty((len(indices), *shape), dtype)
        chosen[order] = mapped.take(indices[order], axis=0)
        return chosen

    def read(indices: Any) -> tf.Tensor:
        chosen = tf.numpy_function(rows, [indices], dtype, stateful=False)
        return tf.ensure_shape(chosen, [None, *shape])

    return read


def _fold(seed: Any, number: Any) -> tf.Tensor:
    """A new seed from a seed `[2]` and a number."""
    return tf.random.fold_in(tf.cast(seed, tf.int64), number, alg="philox")


def _unit(images: tf.Tensor, levels: int | None) -> tf.Tensor:
    """Intensities in [0, 1], bit for bit those of `to_unit`; images of two levels stay uint8."""
    if levels in (None, 2):
        return images
    return tf.cast(images, tf.float32) / float(levels - 1)


def _bernoulli(images: tf.Tensor, levels: int | None, seed: tf.Tensor) -> tf.Tensor:
    """One draw per pixel, 1 with the pixel's intensity as probability.

    Each 64-bit word gives four 16-bit uniforms, because the generator takes most of the time.
    """
    size = tf.size(images)
    words = tf.random.stateless_uniform(
        [(size + 3) // 4], seed, minval=None, maxval=None, dtype=tf.int64, alg="philox"
    )
    uniform = tf.reshape(tf.reshape(tf.bitcast(words, tf.uint16), [-1])[:size], tf.shape(images))
    # u / 2^16 < v / (levels - 1), multiplied by levels - 1.
    scale = (1 if levels is None else levels - 1) * 2.0**-16
    return tf.cast(tf.cast(uniform, tf.float32) * scale < tf.cast(images, tf.float32), tf.uint8)


def _ahead(batches: tf.data.Dataset, images: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """Returns the stream, in its order, with batches that are made ahead of their use.

    Images in memory get one thread, because training needs the cores. On MNIST in batches of 100,
    this halves the processor time per batch (to 0.1 ms, or 0.4 ms with dynamic binarisation), and
    more threads are not faster.
    """
    size = min(batch_size, len(images)) * images[0].size * 4
    count = min(max(_PREFETCHED_BYTES // max(1, size), _FEWEST_PREFETCHED), _MOST_PREFETCHED)
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    # Optimising the graph would copy the images into it for a moment, and is not faster here.
    options.experimental_optimization.apply_default_optimizations = False
    options.threading.private_threadpool_size = _READERS if isinstance(images, np.memmap) else 1
    options.threading.max_intra_op_parallelism = 1
    # With a strategy, every worker makes the same stream and takes its share of each batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return batches.prefetch(count).with_options(options)
