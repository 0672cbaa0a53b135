"""Monotone rational-quadratic splines on an interval, and the identity outside.

Durkan et al. (2019): a monotone map of [-B, B] onto itself in K bins, on each of which, between the
knots (x_k, y_k) and (x_k + w, y_k + h) with slopes d0 and d1 and with s = h / w, the fraction
xi = (x - x_k) / w of the width is mapped to the fraction eta = (y - y_k) / h of the height by

    eta = xi (s xi + d0 xi') / Q,      Q = s (xi^2 + xi'^2) + (d0 + d1) xi xi',      xi' = 1 - xi,
    dy/dx = s^2 (d1 xi^2 + 2 s xi xi' + d0 xi'^2) / Q^2,

and the identity outside. These are equations 4 and 5 with Q written as a sum of positive terms. For
the inverse, r = xi / xi' is the positive root of

    eta' s r^2 + (eta' d0 - eta d1) r - eta s = 0,      eta' = 1 - eta,

whose discriminant, (eta' d0 - eta d1)^2 + 4 s^2 eta eta', is a sum of positive terms as well. That
of the paper's equation 6 is not: near a knot whose slope is small against s it is the small
difference of large numbers, in float32 at times negative, and the root NaN.

References:
  Conor Durkan, Artur Bekasov, Iain Murray, and George Papamakarios. Neural Spline Flows. NeurIPS
  2019. https://arxiv.org/abs/1906.04032
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import bijectors as tfb

from tfp_flowvae.bijectors.internal import numerics

_TRAINED_BINS = 8
_LEAST, _STEEPEST = 0.1, 10.0  # the defaults of `spline_from_raw`


class RationalQuadraticSpline(tfb.RationalQuadraticSpline):
    """`tfb.RationalQuadraticSpline`, to the accuracy that its dtype allows, with finite gradients.

    The same constructor and, in exact arithmetic, the same map. The formulas at the head of this
    module replace TFP's, whose inverse can be NaN in float32; the log-det of the inverse is taken
    at y itself, not at an x that has been rounded; and points outside the interval are replaced
    before they meet a formula, so that gradients are finite however far out they lie.

    `tfp.experimental.util.make_trainable` makes splines of 8 bins on an interval of length 2.

    Example:
      >>> spline = RationalQuadraticSpline(
      ...     bin_widths=[1.0, 1.0], bin_heights=[0.5, 1.5], knot_slopes=[1.0], range_min=-1.0
      ... )
      >>> spline.forward(0.0)  # the knot between the bins
      <tf.Tensor: shape=(), dtype=float32, numpy=-0.5>
    """

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        def slopes() -> tfb.Bijector:
            return tfb.Sigmoid(*(tf.constant(v, dtype) for v in (1.0 / _STEEPEST, _STEEPEST)))

        return {
            "bin_widths": _trained(_TRAINED_BINS, _BinSizes),
            "bin_heights": _trained(_TRAINED_BINS, _BinSizes),
            "knot_slopes": _trained(_TRAINED_BINS - 1, slopes),
            "range_min": tfp.util.ParameterProperties(is_preferred=False),
        }

    def _forward(self, x: tf.Tensor) -> tf.Tensor:
        d = self._bin(x, inverse=False)
        xi, rest = d.below / d.width, d.above / d.width
        slope = d.height / d.width
        eta = xi * (slope * xi + d.left * rest) / _quotient(d, slope, xi, rest)
        return tf.where(d.inside, d.y + d.height * eta, x)

    def _inverse(self, y: tf.Tensor) -> tf.Tensor:
        d = self._bin(y, inverse=True)
        return tf.where(d.inside, d.x + d.width * _inverse_fractions(d)[0], y)

    def _forward_log_det_jacobian(self, x: tf.Tensor) -> tf.Tensor:
        d = self._bin(x, inverse=False)
        return _log_slope(d, d.below / d.width, d.above / d.width)

    def _inverse_log_det_jacobian(self, y: tf.Tensor) -> tf.Tensor:
        d = self._bin(y, inverse=True)
        return -_log_slope(d, *_inverse_fractions(d))

    def _bin(self, point: tf.Tensor, inverse: bool) -> _Bin:
        """Looks up the bin of every point, an x or, for the inverse, a y."""
        low = tf.convert_to_tensor(self.range_min)[..., tf.newaxis]
        widths = tf.convert_to_tensor(self.bin_widths)
        heights = tf.convert_to_tensor(self.bin_heights)
        # One top for both axes: two, rounded apart, would leave a gap between spline and tail.
        top = low + tf.reduce_sum(widths, axis=-1, keepdims=True)
        x_knots = low + tf.cumsum(widths, axis=-1)[..., :-1]
        y_knots = low + tf.cumsum(heights, axis=-1)[..., :-1]
        slopes = tf.convert_to_tensor(self.knot_slopes) + tf.zeros_like(x_knots)
        bottom, ceiling = low[..., 0], top[..., 0]
        inside = (point > bottom) & (point < ceiling)
        safe = tf.where(inside, point, 0.5 * (bottom + ceiling))
        searched = y_knots if inverse else x_knots
        index = tf.reduce_sum(tf.cast(safe[..., tf.newaxis] >= searched, tf.int32), axis=-1)
        # A product with 0 and 1, not a gather, whose gradient would be a scatter.
        chosen = tf.one_hot(index, tf.shape(widths)[-1], dtype=safe.dtype)
        x, x_end = _ends(x_knots, low, top, chosen)
        y, y_end = _ends(y_knots, low, top, chosen)
        left, right = _ends(slopes, tf.ones_like(low), tf.ones_like(low), chosen)
        start, end = (y, y_end) if inverse else (x, x_end)
        return _Bin(inside, x, y, x_end - x, y_end - y, left, right, safe - start, end - safe)


class _Bin(NamedTuple):
    """The bin of every point, `[...]` each, and the distances of the point to the bin's ends."""

    inside: tf.Tensor
    x: tf.Tensor
    y: tf.Tensor
    width: tf.Tensor
    height: tf.Tensor
    left: tf.Tensor
    right: tf.Tensor
    below: tf.Tensor
    above: tf.Tensor


def _ends(
    inner: tf.Tensor, first: tf.Tensor, last: tf.Tensor, chosen: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The values at the chosen bin's two ends, given those at the inner and the two outer knots."""
    pad = tf.zeros_like(tf.reduce_sum(inner, axis=-1, keepdims=True))
    lower = tf.concat([first + pad, inner + tf.zeros_like(first)], axis=-1)
    upper = tf.concat([inner + tf.zeros_like(last), last + pad], axis=-1)
    return tf.reduce_sum(chosen * lower, axis=-1), tf.reduce_sum(chosen * upper, axis=-1)


def _quotient(d: _Bin, slope: tf.Tensor, xi: tf.Tensor, rest: tf.Tensor) -> tf.Tensor:
    return slope * (xi * xi + rest * rest) + (d.left + d.right) * xi * rest


def _log_slope(d: _Bin, xi: tf.Tensor, rest: tf.Tensor) -> tf.Tensor:
    """log dy/dx, 0 outside the interval."""
    slope = d.height / d.width
    steep = d.right * xi * xi + 2.0 * slope * xi * rest + d.left * rest * rest
    quotient = _quotient(d, slope, xi, rest)
    log_slope = 2.0 * tf.math.log(slope / quotient) + tf.math.log(steep)
    return tf.where(d.inside, log_slope, tf.zeros_like(log_slope))


def _inverse_fractions(d: _Bin) -> tuple[tf.Tensor, tf.Tensor]:
    """The fractions xi and 1 - xi of the width, from the distances to the ends of the height."""
    slope = d.height / d.width
    eta, rest = d.below / d.height, d.above / d.height
    b = rest * d.left - eta * d.right
    discriminant = b * b + 4.0 * slope * slope * eta * rest
    root = tf.sqrt(tf.maximum(discriminant, numerics.tiny(b.dtype)))
    # Of the two forms of the root this one has no cancellation. Not |b|: its gradient at 0 is 0.
    is_positive = b >= 0.0
    total = root + tf.where(is_positive, b, -b)
    above = tf.where(is_positive, 2.0 * slope * eta, total)
    below = tf.where(is_positive, total, 2.0 * slope * rest)
    return above / (above + below), below / (above + below)


class _BinSizes(tfb.Bijector):
    """From K numbers to K sizes whose sum is 2, by a softmax; no size is below a tenth of the mean.

    Adding a constant to the numbers changes nothing: `inverse` returns those of one such constant.
    """

    def __init__(self) -> None:
        super().__init__(forward_min_event_ndims=1, parameters={}, name="bin_sizes")

    def _forward(self, x: tf.Tensor) -> tf.Tensor:
        return 2.0 * (_LEAST / x.shape[-1] + (1.0 - _LEAST) * tf.nn.softmax(x, axis=-1))

    def _inverse(self, y: tf.Tensor) -> tf.Tensor:
        return tf.math.log(0.5 * y - _LEAST / y.shape[-1])


def _trained(count: int, constrain: Callable[[], tfb.Bijector]) -> tfp.util.ParameterProperties:
    """The properties of a parameter with `count` numbers for each entry of a point."""
    return tfp.util.ParameterProperties(
        event_ndims=1,
        shape_fn=lambda shape: tf.concat([shape, [count]], axis=0),
        default_constraining_bijector_fn=constrain,
    )
