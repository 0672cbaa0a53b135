"""A strictly increasing rational-quadratic interpolant of any knots, with straight tails.

Between two knots (a, A) and (b, B), with the secant s = (B - A) / (b - a), slopes d0 s and d1 s at
the two ends, and t = (z - a) / (b - a), t' = 1 - t (Gregory & Delbourgo 1982),

    e = (S - A) / (B - A) = (t^2 + d0 t t') / q,       q = t^2 + t'^2 + (d0 + d1) t t',
    S' = s (d1 t^2 + 2 t t' + d0 t'^2) / q^2 .

The inverse is the root of a quadratic. With e' = 1 - e, m = d0 e' - d1 e and

    r = m + sqrt(m^2 + 4 e e'),           t = 2 e / (2 e + r),       t' = r / (2 e + r),

every sum is one of terms that are not negative (r = 4 e e' / (sqrt(...) - m) where m < 0), so that
t and t', and with them S', have a relative error of a few eps.

The slope at an inner knot is that of the parabola through it and its neighbours, drawn as z over S:
1 / slope is the mean of the two 1 / secants, each weighted with the other's height. It is positive
for any knots, and second-order accurate.

References:
  J. A. Gregory and R. Delbourgo. Piecewise Rational Quadratic Interpolation to Monotonic Data. IMA
  Journal of Numerical Analysis 2(2), 1982.
"""

from __future__ import annotations

import tensorflow as tf


class MonotoneSpline:
    """S through the points (`inputs`, `outputs`), linear beyond the first and the last.

    Args:
      inputs: `[..., N]`, strictly increasing, N at least 2.
      outputs: `[..., N]`, strictly increasing.
    """

    def __init__(self, inputs: tf.Tensor, outputs: tf.Tensor) -> None:
        inputs, outputs = inputs + tf.zeros_like(outputs), outputs + tf.zeros_like(inputs)
        widths = inputs[..., 1:] - inputs[..., :-1]
        heights = outputs[..., 1:] - outputs[..., :-1]
        secants = heights / widths
        slopes = _knot_slopes(heights, secants)
        self._inputs, self._outputs = inputs, outputs
        self._slopes = slopes
        columns = [
            inputs[..., :-1],
            inputs[..., 1:],
            outputs[..., :-1],
            outputs[..., 1:],
            secants,
            slopes[..., :-1] / secants,
            slopes[..., 1:] / secants,
        ]
        self._table = tf.stack(columns, axis=-1)

    def forward(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns S(z) and log S'(z), both `[...]`."""
        inner = tf.minimum(tf.maximum(z, self._inputs[..., 0]), self._inputs[..., -1])
        left, right, low, high, secant, d0, d1 = self._bin(inner, self._inputs)
        width = right - left
        t, rest = (inner - left) / width, (right - inner) / width
        q = _denominator(t, rest, d0, d1)
        up, down = t * (t + d0 * rest) / q, rest * (rest + d1 * t) / q
        # From the nearer end: then what is small keeps its own precision.
        value = tf.where(t < 0.5, low + (high - low) * up, high - (high - low) * down)
        return value + (z - inner) * self._tail(z, self._inputs), _log_slope(
            t, rest, secant, d0, d1
        )

    def inverse(self, s: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the z with S(z) = s, and log dz/ds there, both `[...]`."""
        inner = tf.minimum(tf.maximum(s, self._outputs[..., 0]), self._outputs[..., -1])
        left, right, low, high, secant, d0, d1 = self._bin(inner, self._outputs)
        height = high - low
        up, down = (inner - low) / height, (high - inner) / height
        middle = d0 * down - d1 * up
        # Where m = 0 = e e' no root is: at the ends m is d0 or -d1.
        size = tf.abs(middle) + tf.sqrt(tf.square(middle) + 4.0 * up * down)
        root = tf.where(middle >= 0.0, size, 4.0 * up * down / size)
        total = 2.0 * up + root
        t, rest = 2.0 * up / total, root / total
        value = tf.where(t < 0.5, left + (right - left) * t, right - (right - left) * rest)
        value += (s - inner) / self._tail(s, self._outputs)
        return value, -_log_slope(t, rest, secant, d0, d1)

    def _bin(self, point: tf.Tensor, edges: tf.Tensor) -> list[tf.Tensor]:
        """The row of the table for the bin that each point is in."""
        inner_edges = edges[..., 1:-1]
        passed = tf.cast(point[..., tf.newaxis] >= inner_edges, tf.int32)
        index = tf.reduce_sum(passed, axis=-1)
        # Offsets into the flattened table spare a copy of the table for every point.
        shape = tf.shape(self._table)
        offsets = tf.reshape(tf.range(tf.reduce_prod(shape[:-2])), shape[:-2]) * shape[-2]
        rows = tf.gather(tf.reshape(self._table, [-1, 7]), index + offsets)
        return tf.unstack(rows, axis=-1)

    def _tail(self, point: tf.Tensor, edges: tf.Tensor) -> tf.Tensor:
        return tf.where(point < edges[..., 0], self._slopes[..., 0], self._slopes[..., -1])


def _knot_slopes(heights: tf.Tensor, secants: tf.Tensor) -> tf.Tensor:
    """Slopes at N knots from N - 1 bins; the outer ones are those of their bins."""
    before, after = heights[..., :-1], heights[..., 1:]
    share = after / (before + after)
    inner = 1.0 / (share / secants[..., :-1] + (1.0 - share) / secants[..., 1:])
    return tf.concat([secants[..., :1], inner, secants[..., -1:]], axis=-1)


def _denominator(t: tf.Tensor, rest: tf.Tensor, d0: tf.Tensor, d1: tf.Tensor) -> tf.Tensor:
    return tf.square(t) + tf.square(rest) + (d0 + d1) * t * rest


def _log_slope(
    t: tf.Tensor, rest: tf.Tensor, secant: tf.Tensor, d0: tf.Tensor, d1: tf.Tensor
) -> tf.Tensor:
    numerator = d1 * tf.square(t) + 2.0 * t * rest + d0 * tf.square(rest)
    log_q = tf.math.log(_denominator(t, rest, d0, d1))
    return tf.math.log(secant) + tf.math.log(numerator) - 2.0 * log_q
