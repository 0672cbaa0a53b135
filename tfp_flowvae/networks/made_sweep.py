"""The fixed point of an autoregressive flow around a MADE, in one sweep over its degrees.

An autoregressive flow needs, on its slow side, the y `[D]` that solves y_d = g(x_d; c(y)_d) for all
d, where the network's output c(y)_d depends on y_1, ..., y_{d-1} alone. Calling the network D times
finds it, but each call determines one entry and recomputes all others. In a MADE a hidden unit of
degree m depends on y_1, ..., y_m alone: once these are known its value is final, and is added to
the layers above once. So, for m = 0, ..., D - 1,

    for each hidden layer l from below:   h = activation(a_l of the units of degree m)
                                          a_{l+1} += (their rows of kernel l+1)^T h
    y_{m+1} = g(x_{m+1}; the entry's rows of the output),

with a_1 of those units taken from the y known so far. Each weight is used once: together the D
steps are the work of one call of the network, and y is exact up to rounding.

Two things make the steps cheap. The hidden degrees are sorted, so the units of a degree are rows
next to one another, and everything is stored with the units first and the points last. And no mask
is needed: the entries of y that are not known yet are 0, and what a unit adds to sums that have
been used already is never read again.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

Transform = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class SweepNetwork(NamedTuple):
    """The weights of a network of L >= 0 hidden layers on D entries, as the sweep uses them.

    Attributes:
      kernels: L + 1 of them, `[fan_in, units]`, the output's `[units, D P]` last.
      biases: As many, `[units]`.
      degrees: Of each hidden layer's units, ascending, in 0..D-1.
      activation: The hidden layers', elementwise.
      order: The entries 0, ..., D-1 in the order in which they are solved, `[D]`.
    """

    kernels: Sequence[tf.Tensor]
    biases: Sequence[tf.Tensor]
    degrees: Sequence[np.ndarray]
    activation: Callable[[tf.Tensor], tf.Tensor]
    order: np.ndarray


class _Blocks(NamedTuple):
    """Where the rows of each step lie: `size` rows from `starts[step]`, those `inside` of it."""

    starts: np.ndarray
    size: int
    inside: np.ndarray | None  # [D, size], or None where every block has `size` rows

    def rows(self, matrix: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        start = tf.gather(tf.constant(self.starts, tf.int32), step)
        return tf.slice(matrix, [start, 0], [self.size, tf.shape(matrix)[1]])

    def keep(self, values: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """The values, with zero for rows outside the block: all blocks are read in one size."""
        if self.inside is None:
            return values
        inside = tf.gather(tf.constant(self.inside), step)[:, tf.newaxis]
        return tf.where(inside, values, tf.zeros_like(values))


def sweep(
    network: SweepNetwork,
    x: tf.Tensor,
    transform: Transform,
    added: Sequence[tf.Tensor | None] = (),
) -> tf.Tensor:
    """Solves y_d = transform(c(y)_d, x_d) for all d; not differentiable.

    Args:
      network: The weights of c.
      x: `[..., D]`.
      transform: From parameters `[N, 1, P]` and entries `[N, 1]` to entries `[N, 1]`, elementwise;
        the leading dimensions arrive as one.
      added: What a context adds to each layer's sums, `[..., units]`, or None for nothing, L + 1
        of them; left out for none at all. All have the same leading dimensions, which broadcast
        against those of x.

    Returns:
      y, `[..., D]`, without a gradient.
    """
    event_size = x.shape[-1]
    static, leading = x.shape[:-1], tf.shape(x)[:-1]
    added = added or [None] * len(network.biases)
    for more in [value for value in added if value is not None][:1]:
        static = tf.broadcast_static_shape(static, more.shape[:-1])
        leading = tf.broadcast_dynamic_shape(leading, tf.shape(more)[:-1])

    def as_columns(value: tf.Tensor) -> tf.Tensor:
        size = value.shape[-1]
        full = tf.broadcast_to(tf.stop_gradient(value), tf.concat([leading, [size]], axis=0))
        return tf.transpose(tf.reshape(full, [-1, size]))

    columns = as_columns(x)
    biases = [
        bias[:, tf.newaxis] if more is None else bias[:, tf.newaxis] + as_columns(more)
        for bias, more in zip(network.biases, added, strict=True)
    ]
    settled = _sweep_columns(network, biases, columns, transform)
    y = tf.reshape(tf.transpose(settled), tf.concat([leading, [event_size]], axis=0))
    return tf.stop_gradient(tf.ensure_shape(y, static.concatenate(event_size)))


def _sweep_columns(
    network: SweepNetwork, biases: Sequence[tf.Tensor], x: tf.Tensor, transform: Transform
) -> tf.Tensor:
    """The sweep for x `[D, N]` and biases `[units, N]` or `[units, 1]`."""
    event_size, points = x.shape[0], tf.shape(x)[1]
    kernels = [tf.stop_gradient(kernel) for kernel in network.kernels]
    biases = [tf.stop_gradient(bias) for bias in biases]
    into_first = tf.transpose(kernels[0])
    params = kernels[-1].shape[1] // event_size
    blocks = [_blocks_of_degrees(degrees, event_size) for degrees in network.degrees]
    blocks.append(_Blocks(network.order * params, params, None))

    def step(degree: tf.Tensor, y: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
        first = blocks[0]
        values = tf.matmul(first.rows(into_first, degree), y) + first.rows(biases[0], degree)
        totals = []
        layers = zip(itertools.pairwise(blocks), kernels[1:], sums, strict=True)
        for (block, following), kernel, total in layers:
            final = block.keep(network.activation(values), degree)
            totals.append(total + tf.matmul(block.rows(kernel, degree), final, transpose_a=True))
            values = following.rows(totals[-1], degree)
        entry = tf.gather(tf.constant(network.order, tf.int32), degree)
        moved = transform(tf.transpose(values)[:, tf.newaxis], tf.gather(x, entry)[:, tf.newaxis])
        here = tf.range(event_size)[:, tf.newaxis] == entry
        return (degree + 1, tf.where(here, tf.reshape(moved, [1, points]), y), *totals)

    start = [tf.zeros_like(x), *(bias + tf.zeros([1, points], x.dtype) for bias in biases[1:])]
    # The number of points may be known to one operation and not to the next.
    shapes = [tf.TensorShape([value.shape[0], None]) for value in start]
    state: Any = tf.while_loop(
        lambda degree, *_: degree < event_size,
        step,
        (tf.constant(0), *start),
        shape_invariants=(tf.TensorShape([]), *shapes),
        maximum_iterations=event_size,
    )
    return state[1]


def _blocks_of_degrees(degrees: np.ndarray, event_size: int) -> _Blocks:
    """The rows of the units of degree 0, ..., D - 1, all read in the size of the largest block."""
    steps = np.arange(event_size)
    begin, end = (np.searchsorted(degrees, steps, side=side) for side in ("left", "right"))
    size = int((end - begin).max())
    starts = np.minimum(begin, len(degrees) - size)
    read = starts[:, np.newaxis] + np.arange(size)
    inside = (begin[:, np.newaxis] <= read) & (read < end[:, np.newaxis])
    return _Blocks(starts, size, None if inside.all() else inside)
