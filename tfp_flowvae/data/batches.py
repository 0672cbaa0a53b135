"""Batches for training and evaluation, gathered from images that stay as and where they are.

Images in memory are one tensor from which a batch's rows are gathered. Images in a file (an
`np.memmap`, as `stream_images` gives) stay there: the rows are read when their batch is made, some
batches ahead of training. The batches are the same.

Every batch is a function of (seed, epoch, step) alone: the shuffle and, under dynamic binarisation,
the draws come from TensorFlow's stateless generators, so a run that starts again at step `k` of
epoch `e` sees, bit for bit, what the uninterrupted run saw there. The algorithm (Philox) is pinned,
because the default may differ from device to device.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from tfp_flowvae.data.binarize import binarize_fixed, check_binarization
from tfp_flowvae.data.disk import row_reader
from tfp_flowvae.data.images import require_image_array

# First elements of the seeds of the two independent streams of random numbers.
_SHUFFLE, _BINARIZE = 0, 1
# As many batches are made ahead as fit, but at least 2 and, since training takes no more at a time,
# at most 50.
_PREFETCHED_BYTES, _FEWEST_PREFETCHED, _MOST_PREFETCHED = 1 << 24, 2, 50
# What is read from a file at a time, and by how many threads, which may wait for the disk.
_READ_BYTES, _READERS = 1 << 22, 4

_Rows: TypeAlias = Callable[[Any, Any], tf.Tensor]
_Finished: TypeAlias = Callable[[Any, Any], tf.Tensor]


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """The number of batches that show every image once, the last one perhaps smaller."""
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
) -> tf.data.Dataset:
    """An endless stream of shuffled batches; `steps_per_epoch` of them are one epoch.

    Within an epoch every image appears exactly once; where `batch_size` does not divide the
    number of images, the epoch's last batch is smaller. The order never depends on threads.

    Args:
        images: `[N, H, W, C]`, uint8 levels, or float32 intensities where `levels` is None. Kept
            as they are: no float32 copy of uint8 images is made, nor, of an `np.memmap`, any.
        levels: The number of grey levels, or None.
        batch_size: Images in a batch, B.
        seed: The run's seed: it decides the order and the dynamic draws. The fixed draw of
            `static` does not depend on it.
        binarization: One of `BINARIZATIONS`. A `dynamic` draw compares 16 random bits with the
            intensity, which is exact for black and white and else off by less than 2^-16.
        start_epoch: The epoch (from 0) with which the stream begins.
        start_step: The step (from 0) of that epoch with which it begins.

    Returns:
        A `tf.data.Dataset` of `[B, H, W, C]`, of infinite cardinality: float32 in [0, 1] or, where
        the images are binary, uint8 zeros and ones, a quarter of the bytes to move.

    Raises:
        UserError: If `binarization` is unknown.
        ValueError: If there are no images, or sizes are not positive.

    Example:
        >>> batches = training_batches(
        ...     splits.train, levels=splits.levels, batch_size=100, seed=0, binarization="dynamic"
        ... )
        >>> model.fit(batches, steps_per_epoch=steps_per_epoch(len(splits.train), 100))
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
    stream_of = _streams(images, batch_size)

    def epoch_batches(epoch: Any) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(
            tf.range(size), seed=_fold([seed, _SHUFFLE], epoch), alg="philox"
        )

        def finished(chosen: Any, index: Any) -> Any:
            if dynamic:
                draw_seed = _fold(_fold([seed, _BINARIZE], epoch), index)
                return _bernoulli(chosen, levels, draw_seed)
            return _unit(chosen, levels)

        first = tf.where(epoch == start_epoch, tf.constant(start_step, tf.int64), 0)
        return stream_of(lambda start, stop: order[start:stop], finished, first, steps)

    batches = tf.data.Dataset.range(start_epoch, np.iinfo(np.int64).max).flat_map(epoch_batches)
    batches = batches.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return _ahead(batches, images, batch_size)


def evaluation_batches(
    images: np.ndarray, batch_size: int, *, levels: int | None = None
) -> tf.data.Dataset:
    """All images once, in order.

    Args:
        images: `[N, H, W, C]`, uint8 levels, or float32 intensities where `levels` is None;
            binarised beforehand by `binarize_fixed` if at all.
        batch_size: Images in a batch, B; the last one may be smaller.
        levels: The number of grey levels, or None.

    Returns:
        A `tf.data.Dataset` of `[B, H, W, C]` with `steps_per_epoch(N, B)` elements: float32 in
        [0, 1] or, where the images are binary, uint8 zeros and ones.

    Raises:
        ValueError: If there are no images, or `batch_size` is not positive.
    """
    _check_sizes(images, levels, batch_size)
    size, steps = len(images), steps_per_epoch(len(images), batch_size)
    batches = _streams(images, batch_size)(
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


def _streams(images: np.ndarray, batch_size: int) -> Callable[..., tf.data.Dataset]:
    """A function that makes streams of batches.

    Its arguments: which images (a function from `start` and `stop` to the indices of the images at
    those places of the order), what becomes of them (a function of the images `[B, H, W, C]` and
    the number of their batch), the first batch and how many there are.
    """
    if isinstance(images, np.memmap):
        return functools.partial(_from_file, images, batch_size)
    with tf.device("CPU:0"):  # A tensor that functions capture, not a constant inside a graph.
        resident = tf.convert_to_tensor(images)

    def from_memory(rows: _Rows, finished: _Finished, first: Any, steps: int) -> tf.data.Dataset:
        def batch(index: Any) -> Any:
            start = index * batch_size
            return finished(tf.gather(resident, rows(start, start + batch_size)), index)

        return tf.data.Dataset.range(first, steps).map(batch)

    return from_memory


def _from_file(
    images: np.memmap,
    batch_size: int,
    rows: _Rows,
    finished: _Finished,
    first: Any,
    steps: int,
) -> tf.data.Dataset:
    """A stream that reads the images of some batches at a time: each call of Python costs."""
    shape, dtype, rows_of = images.shape[1:], images.dtype, row_reader(images)
    count = _READ_BYTES // max(1, batch_size * math.prod(shape) * dtype.itemsize)
    count = min(max(count, 1), _MOST_PREFETCHED)

    def read(places: np.ndarray) -> np.ndarray:
        order = np.argsort(places)  # A disk with a head to move reads faster in the file's order.
        chosen = np.empty((len(places), *shape), dtype)
        chosen[order] = rows_of(places[order])
        return chosen

    def block(index: Any) -> Any:
        places = rows(index * batch_size, (index + count) * batch_size)
        return index, tf.numpy_function(read, [places], dtype, stateful=False)

    def batches(index: Any, chosen: Any) -> tf.data.Dataset:
        chosen = tf.ensure_shape(chosen, [None, *shape])

        def batch(number: Any) -> Any:
            start = (number - index) * batch_size
            return finished(chosen[start : start + batch_size], number)

        return tf.data.Dataset.range(index, tf.minimum(index + count, steps)).map(batch)

    blocks = tf.data.Dataset.range(first, steps, count)
    return blocks.map(block, num_parallel_calls=_READERS, deterministic=True).flat_map(batches)


def _ahead(batches: tf.data.Dataset, images: np.ndarray, batch_size: int) -> tf.data.Dataset:
    """The stream, made ahead of its use."""
    size = min(batch_size, len(images)) * math.prod(images.shape[1:]) * 4
    count = min(max(_PREFETCHED_BYTES // max(1, size), _FEWEST_PREFETCHED), _MOST_PREFETCHED)
    return batches.prefetch(count).with_options(_options(images))


def _fold(seed: Any, number: Any) -> tf.Tensor:
    """A new seed from a seed `[2]` and a number."""
    return tf.random.fold_in(tf.cast(seed, tf.int64), number, alg="philox")


def _unit(images: tf.Tensor, levels: int | None) -> tf.Tensor:
    """Intensities in [0, 1], equal to `images.to_unit` bit for bit; two levels are such already."""
    if levels in (None, 2):
        return images
    return tf.cast(images, tf.float32) / float(levels - 1)


def _bernoulli(images: tf.Tensor, levels: int | None, seed: tf.Tensor) -> tf.Tensor:
    """One draw per pixel, 1 with the pixel's intensity as probability.

    Four 16-bit uniforms are cut from each 64-bit word: the generator is what takes the time.
    """
    size = tf.size(images)
    words = tf.random.stateless_uniform(
        [(size + 3) // 4], seed, minval=None, maxval=None, dtype=tf.int64, alg="philox"
    )
    uniform = tf.reshape(tf.reshape(tf.bitcast(words, tf.uint16), [-1])[:size], tf.shape(images))
    # u / 2^16 < v / (levels - 1), with the division on the side of the constants.
    scale = (1 if levels is None else levels - 1) * 2.0**-16
    return tf.cast(tf.cast(uniform, tf.float32) * scale < tf.cast(images, tf.float32), tf.uint8)


def _options(images: np.ndarray) -> tf.data.Options:
    """Determinism, and for images in memory one thread: the cores belong to the training step.

    On MNIST in batches of 100 this halves the processor time a batch takes (0.1 ms, 0.4 ms with
    dynamic binarisation), and more threads would not be faster.
    """
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    # Rewriting the graph copies the images into it for a moment, and gains nothing here.
    options.experimental_optimization.apply_default_optimizations = False
    options.threading.private_threadpool_size = _READERS if isinstance(images, np.memmap) else 1
    options.threading.max_intra_op_parallelism = 1
    # Under a strategy every worker makes the same stream and takes its share of each batch.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options
