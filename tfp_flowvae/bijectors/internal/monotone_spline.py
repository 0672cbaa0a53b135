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

Derivatives are right where some knots are 1e-20 apart and others 1, in float32 too, but for those
that are too large themselves: s, d0 and d1 come from logarithms of widths and heights, whose
derivatives divide by a small number once and not by its square. So do those of the quotients.

References:
  J. A. Gregory and R. Delbourgo. Piecewise Rational Quadratic Interpolation to Monotonic Data. IMA
  Journal of Numerical Analysis 2(2), 1982.
"""

from __future__ import annotations

import tensorflow as tf

from tfp_flowvae.bijectors.internal.numerics import quotient


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
        log_widths, log_heights = tf.math.log(widths), tf.math.log(heights)
        log_secants = log_heights - log_widths
        self._inputs, self._outputs = inputs, outputs
        self._outer = tuple((widths[..., i], heights[..., i]) for i in (0, -1))
        columns = [
            inputs[..., :-1],
            inputs[..., 1:],
            outputs[..., :-1],
            outputs[..., 1:],
            log_secants,
            *_end_slopes(log_heights, log_secants),
        ]
        self._table = tf.stack(columns, axis=-1)

    def forward(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns S(z) and log S'(z), both `[...]`."""
        inner = tf.minimum(tf.maximum(z, self._inputs[..., 0]), self._inputs[..., -1])
        left, right, low, high, log_secant, d0, d1 = self._bin(inner, self._inputs)
        t, rest = (quotient(part, right - left) for part in (inner - left, right - inner))
        q = _denominator(t, rest, d0, d1)
        up, down = t * (t + d0 * rest) / q, rest * (rest + d1 * t) / q
        # Measured from the nearer end, a small distance keeps its precision.
        value = tf.where(t < 0.5, low + (high - low) * up, high - (high - low) * down)
        width, height = self._outer_bin(z, self._inputs)
        value += quotient(z - inner, width) * height
        return value, log_secant + _log_relative_slope(t, rest, d0, d1)

    def inverse(self, s: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the z with S(z) = s, and log dz/ds there, both `[...]`."""
        inner = tf.minimum(tf.maximum(s, self._outputs[..., 0]), self._outputs[..., -1])
        left, right, low, high, log_secant, d0, d1 = self._bin(inner, self._outputs)
        up, down = (quotient(part, high - low) for part in (inner - low, high - inner))
        middle = d0 * down - d1 * up
        size = tf.abs(middle) + _root(middle, up, down)
        root = tf.where(middle >= 0.0, size, quotient(4.0 * up * down, size))
        total = 2.0 * up + root
        t, rest = quotient(2.0 * up, total), quotient(root, total)
        value = tf.where(t < 0.5, left + (right - left) * t, right - (right - left) * rest)
        width, height = self._outer_bin(s, self._outputs)
        value += quotient(s - inner, height) * width
        return value, -log_secant - _log_relative_slope(t, rest, d0, d1)

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

    def _outer_bin(self, point: tf.Tensor, edges: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Width and height of the first bin or the last, whichever the point is beyond."""
        width, height = (
            tf.where(point < edges[..., 0], *sizes) for sizes in zip(*self._outer, strict=True)
        )
        return width, height


def _end_slopes(log_heights: tf.Tensor, log_secants: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """d0 and d1 of each of the N - 1 bins: slopes over the secant, 1 at the two outer knots."""
    before, after = log_heights[..., :-1], log_heights[..., 1:]
    both = _log_sum(before, after)
    ratio = log_secants[..., 1:] - log_secants[..., :-1]
    d0 = tf.exp(both - _log_sum(after + ratio, before))
    d1 = tf.exp(both - _log_sum(after, before - ratio))
    one = tf.ones_like(log_heights[..., :1])
    return tf.concat([one, d0], axis=-1), tf.concat([d1, one], axis=-1)


def _log_sum(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """log(e^a + e^b)."""
    return tf.reduce_logsumexp(tf.stack([a, b], axis=-1), axis=-1)


def _root(middle: tf.Tensor, up: tf.Tensor, down: tf.Tensor) -> tf.Tensor:
    """sqrt(m^2 + 4 e e'), which is never 0: at the ends m is d0 or -d1."""
    # By its own size: of small numbers the squares underflow.
    unit = tf.stop_gradient(1.0 / (tf.abs(middle) + tf.sqrt(up * down)))
    square = tf.square(middle * unit) + 4.0 * (up * unit) * (down * unit)
    return tf.sqrt(square) / unit


def _denominator(t: tf.Tensor, rest: tf.Tensor, d0: tf.Tensor, d1: tf.Tensor) -> tf.Tensor:
    return tf.square(t) + tf.square(rest) + (d0 + d1) * t * rest


def _log_relative_slope(t: tf.Tensor, rest: tf.Tensor, d0: tf.Tensor, d1: tf.Tensor) -> tf.Tensor:
    """log(S' / s)."""
    numerator = d1 * tf.square(t) + 2.0 * t * rest + d0 * tf.square(rest)
    return tf.math.log(numerator) - 2.0 * tf.math.log(_denominator(t, rest, d0, d1))
