"""What the variants of the Sylvester flow share, all but Q; `sylvester.py` has the mathematics."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfp_flowvae.bijectors import _numerics, _triangular
from tfp_flowvae.bijectors._activations import (
    ACTIVATIONS,
    Activation,
    log_derivative,
)
from tfp_flowvae.bijectors._linear import multiply
from tfp_flowvae.bijectors._parametric import ActivatedBijector


class Frame(NamedTuple):
    """The map Q: `project` takes `[..., D]` to Q^T x, `lift` takes `[..., M]` to Q x."""

    project: Callable[[tf.Tensor], tf.Tensor]
    lift: Callable[[tf.Tensor], tf.Tensor]


class System(NamedTuple):
    """What acts in M dimensions: R, R~ of `[..., M, M]`, b, s and log s of `[..., M]`."""

    r: tf.Tensor
    r_tilde: tf.Tensor
    b: tf.Tensor
    slope: tf.Tensor
    log_slope: tf.Tensor


class SylvesterBase(ActivatedBijector):
    """What the variants share: all but Q."""

    _r: tf.Tensor | tf.Variable
    _r_tilde: tf.Tensor | tf.Variable
    _b: tf.Tensor | tf.Variable

    @property
    def r(self) -> tf.Tensor | tf.Variable:
        """The raw R, as it was given."""
        return self._r

    @property
    def r_tilde(self) -> tf.Tensor | tf.Variable:
        """The raw R~, as it was given."""
        return self._r_tilde

    @property
    def b(self) -> tf.Tensor | tf.Variable:
        """The offset, as it was given."""
        return self._b

    def constrained_r(self) -> tf.Tensor:
        """Returns R, the upper triangular matrix that acts, `[..., M, M]`."""
        return self._system().r

    def constrained_r_tilde(self) -> tf.Tensor:
        """Returns R~, the upper triangular matrix that acts, `[..., M, M]`."""
        return self._system().r_tilde

    @abc.abstractmethod
    def _frame(self) -> Frame:
        """Makes Q."""

    def _system(self) -> System:
        r, r_tilde, b = (tf.convert_to_tensor(p) for p in (self.r, self.r_tilde, self.b))
        diagonal = _numerics.unit_softplus(tf.linalg.diag_part(r_tilde))[0]
        r_tilde = _numerics.with_diagonal(tf.linalg.band_part(r_tilde, 0, -1), diagonal)
        raw = tf.linalg.diag_part(r)
        product = raw * diagonal
        slope, log_slope, ratio = _numerics.unit_softplus(product)
        # m(a) / r~ in two ways: without division near a = 0, without cancellation away from it.
        is_near = tf.abs(product) < 1.0
        divisor = tf.where(is_near, tf.ones_like(product), diagonal)
        outer = tf.where(is_near, raw * (1.0 + ratio), (slope - 1.0) / divisor)
        r = tf.linalg.band_part(r, 0, -1) + tf.zeros_like(product)[..., tf.newaxis]
        return System(_numerics.with_diagonal(r, outer), r_tilde, b, slope, log_slope)

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = self._checked(x)
        frame, system = self._frame(), self._system()
        t = multiply(system.r_tilde, frame.project(x)) + system.b
        y = x + frame.lift(multiply(system.r, self._h().value(t)))
        return y, self._log_det(t, system)

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        y = self._checked(y)
        frame, system = self._frame(), self._system()
        target = frame.project(y)
        v, t = _triangular.implicit_solution(self._h(), *system[:4], target)
        x = y + frame.lift(v - target)
        # Where f expands, that cancels, and x keeps an error that f would multiply. Q^T x = v says
        # it better. The correction is 0 but for rounding: so is its derivative.
        x += tf.stop_gradient(frame.lift(v - frame.project(x)))
        return x, -self._log_det(t, system)

    def _log_det(self, t: tf.Tensor, system: System) -> tf.Tensor:
        terms = log_derivative(self._h(), t, system.slope, system.log_slope)
        return tf.reduce_sum(terms, axis=-1)

    def _h(self) -> Activation:
        return ACTIVATIONS[self.activation]
