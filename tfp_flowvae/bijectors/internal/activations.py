"""The smooth saturating functions h of a planar flow, with what their inverse problem needs.

Each h is odd, increases strictly from -1 to 1, and has its steepest slope h'(0) = 1, so that
1 + k h'(t) > 0 for every t exactly when k > -1.
"""

from __future__ import annotations

import abc
import math

import tensorflow as tf

from tfp_flowvae.bijectors.internal import numerics


class Activation(abc.ABC):
    """An odd sigmoidal h with h'(0) = 1 its steepest slope; every method acts elementwise."""

    @abc.abstractmethod
    def value(self, t: tf.Tensor) -> tf.Tensor:
        """h(t)."""

    @abc.abstractmethod
    def slopes(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """h'(t) and 1 - h'(t), neither by subtraction from 1."""

    @abc.abstractmethod
    def gap(self, t: tf.Tensor) -> tf.Tensor:
        """t - h(t) without cancellation; not meant to be differentiated."""

    @abc.abstractmethod
    def scaled_inverse(self, target: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        """The t > 0 with scale * h(t) = target, for 0 <= target < scale."""

    @abc.abstractmethod
    def tail(self, scale: tf.Tensor) -> tf.Tensor:
        """A t >= 1 with scale * (1 - h(t)) <= t, for scale > 1."""


class Tanh(Activation):
    """h(t) = tanh(t), h'(t) = 1 - tanh(t)^2."""

    def value(self, t: tf.Tensor) -> tf.Tensor:
        return tf.tanh(t)

    def slopes(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return 4.0 * tf.sigmoid(2.0 * t) * tf.sigmoid(-2.0 * t), tf.square(tf.tanh(t))

    def gap(self, t: tf.Tensor) -> tf.Tensor:
        # t - tanh(t) = (t cosh(t) - sinh(t)) / cosh(t), and the numerator's series,
        # sum_k 2k / (2k+1)! t^(2k+1), has positive terms only.
        near = tf.clip_by_value(t, -1.0, 1.0)
        square = tf.square(near)
        series = tf.zeros_like(t)
        for k in range(9, 0, -1):
            series = series * square + 2.0 * k / math.factorial(2 * k + 1)
        return tf.where(tf.abs(t) < 1.0, near * square * series / tf.cosh(near), t - tf.tanh(t))

    def scaled_inverse(self, target: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        return 0.5 * tf.math.log1p(2.0 * target / (scale - target))

    def tail(self, scale: tf.Tensor) -> tf.Tensor:
        return tf.maximum(0.5 * tf.math.log(2.0 * scale), 1.0)


class Isru(Activation):
    """h(t) = t / sqrt(1 + t^2), the inverse square root unit, h'(t) = (1 + t^2)^(-3/2).

    Its tails are algebraic, not exponential, and it needs no transcendental function.
    """

    _SATURATED = 2.0**30  # h is 1 there to float64's last place, and t^2 far from float32's end

    def value(self, t: tf.Tensor) -> tf.Tensor:
        t = self._clip(t)
        return t / self._root(t)

    def slopes(self, t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        t = self._clip(t)
        root = self._root(t)
        cube = root * tf.square(root)
        return 1.0 / cube, tf.square(t) / (root + 1.0) * (tf.square(root) + root + 1.0) / cube

    def gap(self, t: tf.Tensor) -> tf.Tensor:
        near = tf.clip_by_value(t, -1.0, 1.0)
        root = self._root(near)
        return tf.where(
            tf.abs(t) < 1.0, near * tf.square(near) / (root * (root + 1.0)), t - self.value(t)
        )

    def scaled_inverse(self, target: tf.Tensor, scale: tf.Tensor) -> tf.Tensor:
        return target / tf.sqrt(scale - target) / tf.sqrt(scale + target)

    def tail(self, scale: tf.Tensor) -> tf.Tensor:
        return tf.maximum(tf.pow(0.5 * scale, 1.0 / 3.0), 1.0)

    def _clip(self, t: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(t, -self._SATURATED, self._SATURATED)

    @staticmethod
    def _root(t: tf.Tensor) -> tf.Tensor:
        return tf.sqrt(1.0 + tf.square(t))


ACTIVATIONS: dict[str, Activation] = {"tanh": Tanh(), "isru": Isru()}


def log_derivative(
    h: Activation, t: tf.Tensor, slope: tf.Tensor, log_slope: tf.Tensor
) -> tf.Tensor:
    """log(s h'(t) + 1 - h'(t)), also where s and 1 - h'(t) both underflow."""
    steep, flat = h.slopes(t)
    total = slope * steep + flat
    tiny = numerics.tiny(t.dtype)
    return tf.where(total < tiny, tf.minimum(log_slope, 0.0), tf.math.log(tf.maximum(total, tiny)))
