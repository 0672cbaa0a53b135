"""Rational-quadratic splines as transformers of coupling and autoregressive flows.

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
from typing import NamedTuple

import tensorflow as tf
from tensorflow_probability import bijectors as tfb

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors import _numerics


class RationalQuadraticSpline(tfb.RationalQuadraticSpline):
    """`tfb.RationalQuadraticSpline`, to the accuracy that its dtype allows, with finite gradients.

    The same constructor and, in exact arithmetic, the same map. The formulas at the head of this
    module replace TFP's, whose inverse can be NaN in float32; the log-det of the inverse is taken
    at y itself, not at an x that has been rounded; and points outside the interval are replaced
    before they meet a formula, so that gradients are finite however far out they lie.
    """

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


def spline_from_raw(
    raw: TensorLike,
    bound: float = 4.0,
    min_bin_size: float = 1e-3,
    min_slope: float = 1e-3,
    name: str = "rational_quadratic_spline",
) -> RationalQuadraticSpline:
    """The spline on [-bound, bound] that unconstrained numbers stand for; zeros are the identity.

    With K bins, the first K of the numbers are for the widths, K for the heights, by a softmax, and
    K - 1 for the slopes at the inner knots, by a shifted softplus.

    Args:
      raw: `[..., 3 K - 1]`: an elementwise bijector for points `[...]`. Float32 or float64.
      bound: B > 0. Outside [-B, B] the spline is the identity.
      min_bin_size: The least width and height of a bin, as a fraction of 2 B, less than 1 / K.
      min_slope: The least slope at a knot, less than 1.
      name: The name of the bijector.

    Returns:
      The bijector.

    Raises:
      TypeError: If `raw` is not float32 or float64.
      ValueError: If the last dimension of `raw` is not 3 K - 1 for a K of 1 or more, or a bound or
        a minimum is out of its range.
    """
    raw = tf.convert_to_tensor(raw)
    if raw.dtype not in (tf.float32, tf.float64):
        raise TypeError(
            f"A spline takes raw parameters of float32 or float64. Received: {raw.dtype.name}."
        )
    size = raw.shape[-1] if raw.shape.rank else None
    if size is None or size < 2 or size % 3 != 2:
        raise ValueError(
            "A spline with K bins takes raw parameters whose last dimension is known and 3 K - 1. "
            f"Received: raw.shape={raw.shape}."
        )
    bins = (size + 1) // 3
    _check_sizes(bins, bound, min_bin_size, min_slope)
    widths, heights, slopes = tf.split(raw, [bins, bins, bins - 1], axis=-1)
    at_zero = tf.constant(1.0 - min_slope, raw.dtype)
    return RationalQuadraticSpline(
        bin_widths=_bin_sizes(widths, bound, min_bin_size),
        bin_heights=_bin_sizes(heights, bound, min_bin_size),
        knot_slopes=min_slope + _numerics.shifted_softplus(slopes, at_zero)[0],
        range_min=tf.constant(-bound, raw.dtype),
        name=name,
    )


class SplineTransform(tf.Module):
    """A network's output as a spline, for use as `bijector_fn` in couplings and autoregressions.

        flow = Coupling(half_mask(D), bijector_fn=SplineTransform(network, bins=8))
        flow = ParallelMaskedAutoregressiveFlow(bijector_fn=SplineTransform(network, bins=8))

    As in the paper, points are expected on the scale of `bound`: what lies outside is left alone.
    With a conditioner that `SolvesInOrder` an autoregressive flow is solved in one sweep.

    Args:
      conditioner: To raw parameters `[..., M, 3 K - 1]` or `[..., M (3 K - 1)]` for M points: from
        y, `[..., D]`, with M = D or, in a coupling, from the kept entries and M. Zeros are the
        identity.
      bins: K, at least 1.
      bound: B > 0.
      min_bin_size: The least width and height of a bin, as a fraction of 2 B, less than 1 / K.
      min_slope: The least slope at a knot, less than 1.
      name: Of the module.

    Raises:
      ValueError: If a size is out of its range or the conditioner's output does not fit.
    """

    def __init__(
        self,
        conditioner: Callable[..., tf.Tensor],
        bins: int = 8,
        bound: float = 4.0,
        min_bin_size: float = 1e-3,
        min_slope: float = 1e-3,
        name: str = "spline_transform",
    ) -> None:
        super().__init__(name=name)
        _check_sizes(bins, bound, min_bin_size, min_slope)
        self._conditioner = conditioner
        self._bins = bins
        self._settings = (bound, min_bin_size, min_slope)

    @property
    def num_parameters(self) -> int:
        """How many raw parameters each point takes, 3 K - 1."""
        return 3 * self._bins - 1

    def __call__(self, y: tf.Tensor, *units: int) -> RationalQuadraticSpline:
        """Returns the spline for `(y)` or, in a coupling, `(kept, units)`."""
        return self._spline(self._conditioner(y, *units), units[0] if units else y.shape[-1])

    @property
    def solve_in_order(self) -> Callable[..., tf.Tensor]:
        """That of `SolvesInOrder`; there is none (`AttributeError`) if the conditioner has none."""
        solve = self._conditioner.solve_in_order  # type: ignore[attr-defined]
        return lambda x, transform: solve(
            x, lambda out, entry: transform(self._spline(out, 1), entry)
        )

    def _spline(self, raw: TensorLike, points: int | None) -> RationalQuadraticSpline:
        raw = tf.convert_to_tensor(raw)
        wanted = (points, self.num_parameters)
        if tuple(raw.shape[-2:]) != wanted:
            if points is None or raw.shape[-1] != points * self.num_parameters:
                raise ValueError(
                    f"SplineTransform with {self._bins} bins takes a conditioner whose output ends "
                    f"in the dimensions {wanted} or their product. Received: shape {raw.shape}."
                )
            raw = tf.reshape(raw, tf.concat([tf.shape(raw)[:-1], wanted], axis=0))
        return spline_from_raw(raw, *self._settings)


def _check_sizes(bins: int, bound: float, min_bin_size: float, min_slope: float) -> None:
    if bins < 1 or not 0.0 < bound < float("inf"):
        raise ValueError(
            "A spline takes at least 1 bin and a positive, finite bound. "
            f"Received: {bins=}, {bound=}."
        )
    if not (0.0 < min_bin_size < 1.0 / bins and 0.0 < min_slope < 1.0):
        raise ValueError(
            f"A spline of {bins} bins takes 0 < min_bin_size < 1/{bins} and 0 < min_slope < 1. "
            f"Received: {min_bin_size=}, {min_slope=}."
        )


def _bin_sizes(raw: tf.Tensor, bound: float, min_bin_size: float) -> tf.Tensor:
    free = 1.0 - raw.shape[-1] * min_bin_size
    return 2.0 * bound * (min_bin_size + free * tf.nn.softmax(raw, axis=-1))


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
    root = tf.sqrt(tf.maximum(discriminant, _numerics.tiny(b.dtype)))
    # Of the root's two forms the one in which nothing cancels. Not |b|: at 0 its gradient is 0.
    is_positive = b >= 0.0
    total = root + tf.where(is_positive, b, -b)
    above = tf.where(is_positive, 2.0 * slope * eta, total)
    below = tf.where(is_positive, total, 2.0 * slope * rest)
    return above / (above + below), below / (above + below)
