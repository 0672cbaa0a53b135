"""A bijector from the real line onto an interval, for each column of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import bijectors as tfb

from tfp_flowvae import _compat
from tfp_flowvae._typing import TensorLike

_SMALLEST = float(np.finfo(np.float32).tiny)


class IntoBounds(tfb.Bijector):
    """Maps each column of u `[..., D]` into its interval (low, high), increasingly.

        x = low + w sigmoid(u)        both bounds, w = high - low
        x = low + w softplus(u)       a lower bound alone
        x = high - w softplus(-u)     an upper bound alone
        x = u                         neither

    With s = softplus the log-det of a column is log w, less s(-u) where there is a lower bound,
    less s(u) where there is an upper one. x is always strictly inside its bounds, as far as
    float32 can say so. A point outside has an inverse log-det of -inf, and so a density of 0.

    Args:
      low: float32 `[D]`, -inf for none.
      high: float32 `[D]`, +inf for none.
      width: w, positive, `[D]`; 1 in a column without bounds.
      name: Of the bijector.
    """

    def __init__(
        self, low: np.ndarray, high: np.ndarray, width: TensorLike, name: str = "into_bounds"
    ) -> None:
        parameters = dict(locals())
        with tf.name_scope(name) as name:
            self._low, self._high = low, high
            self._width = _compat.as_parameter(width, tf.float32, "width")
            self._has_low, self._has_high = np.isfinite(low), np.isfinite(high)
            super().__init__(
                forward_min_event_ndims=0, dtype=tf.float32, parameters=parameters, name=name
            )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        return {"width": tfp.util.ParameterProperties()}

    def _forward(self, u: tf.Tensor) -> tf.Tensor:
        low, high = _or_zero(self._low), _or_zero(self._high)
        width = tf.convert_to_tensor(self._width)
        # From the nearer bound: near 1, sigmoid(u) has lost the digits that 1 - sigmoid(u) has.
        from_low, from_high = low + width * tf.sigmoid(u), high - width * tf.sigmoid(-u)
        both = tf.where(u < 0, from_low, from_high)
        above, below = low + width * tf.math.softplus(u), high - width * tf.math.softplus(-u)
        x = self._choose(both, above, below, u)
        return tf.clip_by_value(x, _next(self._low, np.inf), _next(self._high, -np.inf))

    def _inverse(self, x: tf.Tensor) -> tf.Tensor:
        width = tf.convert_to_tensor(self._width)
        # 1 where there is no bound: the branch that is not taken must have a finite gradient, too.
        a = tf.where(self._has_low, (x - _or_zero(self._low)) / width, 1.0)
        b = tf.where(self._has_high, (_or_zero(self._high) - x) / width, 1.0)
        a, b = tf.maximum(a, _SMALLEST), tf.maximum(b, _SMALLEST)
        above, below = tfp.math.softplus_inverse(a), -tfp.math.softplus_inverse(b)
        return self._choose(tf.math.log(a) - tf.math.log(b), above, below, x)

    def _forward_log_det_jacobian(self, u: tf.Tensor) -> tf.Tensor:
        s_minus, s_plus = tf.math.softplus(-u), tf.math.softplus(u)
        log_width = tf.math.log(tf.convert_to_tensor(self._width))
        return (
            log_width
            - tf.where(self._has_low, s_minus, 0.0)
            - tf.where(self._has_high, s_plus, 0.0)
        )

    def _inverse_log_det_jacobian(self, x: tf.Tensor) -> tf.Tensor:
        outside = (x <= self._low) | (x >= self._high)
        log_det = self._forward_log_det_jacobian(self._inverse(x))
        return tf.where(outside, -np.inf, -log_det)

    def _choose(
        self, both: tf.Tensor, above: tf.Tensor, below: tf.Tensor, free: tf.Tensor
    ) -> tf.Tensor:
        one = tf.where(self._has_low, above, tf.where(self._has_high, below, free))
        return tf.where(self._has_low & self._has_high, both, one)


def _or_zero(bound: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(bound), bound, np.float32(0))


def _next(bound: np.ndarray, towards: float) -> np.ndarray:
    """The next float32 after a bound; denormal numbers, which XLA takes for 0, are left out."""
    after = np.nextafter(bound, np.float32(towards), dtype=np.float32)
    return np.where(bound == 0, np.sign(towards) * np.float32(_SMALLEST), after).astype(np.float32)
