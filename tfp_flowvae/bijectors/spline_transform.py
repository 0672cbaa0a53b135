"""Splines from unconstrained numbers, with bounded slopes: for couplings and autoregressions.

`spline_from_raw` keeps the slopes in bounds, which Durkan et al. (2019) do not. There, widths and
heights are two independent softmaxes: large numbers make a bin 1000 times as high as wide, a stack
of ten such maps can multiply an error by 1e30, and float32 and float64 alike lose the point on its
way there and back. Here, with S = `max_slope` and with c(a) = a tanh(raw / a), which is raw near 0
and lies between -a and a,

    w_k = (2 B / K) (m + (1 - m) K softmax(raw)_k),                             widths
    s_k = exp(c(log(S) / 2)) / sum_j (w_j / 2 B) exp(c(log(S) / 2)),            h_k = s_k w_k,
    d_k = sqrt(s_k s_(k+1)) exp(c(log 2)),                                      slopes at knots

so that s_k lies between 1 / S and S. Against the s of its bin a slope at an inner knot is between
1 / (2 sqrt(S)) and 2 sqrt(S), and one at the ends of the interval, which is 1, between 1 / S and S.
On a bin whose end slopes are between s / D and D s, dy/dx is at least s / D, and at most the larger
of the two or 2 s. Therefore, for S >= 4 and every raw number,

    1 / S^2 <= dy/dx <= 2 S,               for S = 10 between 1 / 100 and 20.

`spline.py` has the mathematics of the spline itself.

References:
  Conor Durkan, Artur Bekasov, Iain Murray, and George Papamakarios. Neural Spline Flows. NeurIPS
  2019. https://arxiv.org/abs/1906.04032
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.spline import RationalQuadraticSpline


def spline_from_raw(
    raw: TensorLike,
    bound: float = 4.0,
    min_bin_width: float = 0.1,
    max_slope: float = 10.0,
    name: str = "rational_quadratic_spline",
) -> RationalQuadraticSpline:
    """The spline on [-bound, bound] that unconstrained numbers stand for; zeros are the identity.

    With K bins, the first K of the numbers are for the widths, K for the slopes of the bins, and
    K - 1 for the slopes at the inner knots, as at the head of this module.

    For every `raw`, `inverse(forward(x))` is x to 8 eps B (1 + 1 / slope), in float32 with the
    default `max_slope` to 1e-4 B, and with the defaults the log-det is right to 300 K (K + 8) eps.
    In a stack the inverse of each layer divides the error of the layers after it by its own slope
    and adds its own. Conditioners amplify errors by how fast their output changes with their input,
    which is not bounded here: ten couplings bring all points back in float32 while raw numbers are
    of size 1, and lose some when they are of size 10.

    Example:
      >>> spline = spline_from_raw(tf.random.normal([2, 23]))  # 8 bins, for two numbers
      >>> spline.forward([5.0, -5.0])  # outside of [-4, 4]
      <tf.Tensor: shape=(2,), dtype=float32, numpy=array([ 5., -5.], dtype=float32)>

    Args:
      raw: `[..., 3 K - 1]`: an elementwise bijector for points `[...]`. Float32 or float64.
      bound: B > 0. Outside [-B, B] the spline is the identity.
      min_bin_width: m, the least width of a bin, as a fraction of the mean width, between 0 and 1.
      max_slope: S, the largest height of a bin over its width, and the inverse of the smallest;
        above 1.
      name: The name of the bijector.

    Returns:
      The bijector.

    Raises:
      TypeError: If `raw` is not float32 or float64.
      ValueError: If the last dimension of `raw` is not 3 K - 1 for a K of 1 or more, or another
        argument is out of its range.
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
    _check_settings(bins, bound, min_bin_width, max_slope)
    widths, secants, slopes = tf.split(raw, [bins, bins, bins - 1], axis=-1)
    widths = min_bin_width / bins + (1.0 - min_bin_width) * tf.nn.softmax(widths, axis=-1)
    heights = widths * tf.exp(_clip(secants, 0.5 * math.log(max_slope)))
    heights /= tf.reduce_sum(heights, axis=-1, keepdims=True)
    secants = heights / widths
    means = tf.sqrt(secants[..., :-1] * secants[..., 1:])
    return RationalQuadraticSpline(
        bin_widths=2.0 * bound * widths,
        bin_heights=2.0 * bound * heights,
        knot_slopes=means * tf.exp(_clip(slopes, math.log(2.0))),
        range_min=tf.constant(-bound, raw.dtype),
        name=name,
    )


def _clip(raw: tf.Tensor, limit: float) -> tf.Tensor:
    return limit * tf.tanh(raw / limit)


class SplineTransform(tf.Module):
    """A network's output as a spline, for use as `bijector_fn` in couplings and autoregressions.

        flow = Coupling(half_mask(D), bijector_fn=SplineTransform(network, bins=8))
        flow = ParallelMaskedAutoregressiveFlow(bijector_fn=SplineTransform(network, bins=8))

    As in the paper, points are expected on the scale of `bound`: points outside are not moved.
    With a conditioner that `SolvesInOrder` an autoregressive flow is solved in one sweep.

    Example:
      >>> network = lambda kept, units: tf.random.normal([units, 23])
      >>> flow = Coupling(half_mask(4), bijector_fn=SplineTransform(network))
      >>> y, log_det = flow.forward_and_log_det(tf.random.normal([10, 4]))

    Args:
      conditioner: To raw parameters `[..., M, 3 K - 1]` or `[..., M (3 K - 1)]` for M points: from
        y, `[..., D]`, with M = D or, in a coupling, from the kept entries and M. Zeros are the
        identity.
      bins: K, at least 1.
      bound: B > 0.
      min_bin_width: As for `spline_from_raw`.
      max_slope: As for `spline_from_raw`.
      name: Of the module.

    Raises:
      ValueError: If a size is out of its range or the conditioner's output does not fit.
    """

    def __init__(
        self,
        conditioner: Callable[..., tf.Tensor],
        bins: int = 8,
        bound: float = 4.0,
        min_bin_width: float = 0.1,
        max_slope: float = 10.0,
        name: str = "spline_transform",
    ) -> None:
        super().__init__(name=name)
        _check_settings(bins, bound, min_bin_width, max_slope)
        self._conditioner = conditioner
        self._bins = bins
        self._settings = (bound, min_bin_width, max_slope)

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


def _check_settings(bins: int, bound: float, min_bin_width: float, max_slope: float) -> None:
    if bins < 1 or not 0.0 < bound < math.inf:
        raise ValueError(
            "A spline takes at least 1 bin and a positive, finite bound. "
            f"Received: {bins=}, {bound=}."
        )
    if not (0.0 < min_bin_width < 1.0 and 1.0 < max_slope < math.inf):
        raise ValueError(
            "A spline takes 0 < min_bin_width < 1 and a finite max_slope above 1. "
            f"Received: {min_bin_width=}, {max_slope=}."
        )
