"""What the variants of the Sylvester flow share, all but Q; `sylvester.py` has the mathematics."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from tfp_flowvae.bijectors.householder import HouseholderFlow
from tfp_flowvae.bijectors.internal import numerics, triangular, validate
from tfp_flowvae.bijectors.internal.activations import (
    Activation,
    log_derivative,
)
from tfp_flowvae.bijectors.internal.linear import multiply
from tfp_flowvae.bijectors.internal.orthonormal import orthonormal_columns
from tfp_flowvae.bijectors.internal.parametric import ActivatedBijector


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

    def _system(self) -> System:
        r, r_tilde, b = (tf.convert_to_tensor(p) for p in (self.r, self.r_tilde, self.b))
        diagonal = numerics.unit_softplus(tf.linalg.diag_part(r_tilde))[0]
        r_tilde = numerics.with_diagonal(tf.linalg.band_part(r_tilde, 0, -1), diagonal)
        raw = tf.linalg.diag_part(r)
        product = raw * diagonal
        slope, log_slope, ratio = numerics.unit_softplus(product)
        # m(a) / r~ in two ways: without division near a = 0, without cancellation away from it.
        is_near = tf.abs(product) < 1.0
        divisor = tf.where(is_near, tf.ones_like(product), diagonal)
        outer = tf.where(is_near, raw * (1.0 + ratio), (slope - 1.0) / divisor)
        r = tf.linalg.band_part(r, 0, -1) + tf.zeros_like(product)[..., tf.newaxis]
        return System(numerics.with_diagonal(r, outer), r_tilde, b, slope, log_slope)


class FramedSylvester(SylvesterBase):
    """Those whose Q is made of one array of two axes, for a single step or for each of K."""

    @abc.abstractmethod
    def _frames(self) -> tf.Tensor:
        """What Q is made of: of a step, or stacked along an axis before the last two."""

    @abc.abstractmethod
    def _frame_of(self, part: tf.Tensor) -> Frame:
        """Makes Q of one step."""


class SpanningColumns(FramedSylvester):
    """Those whose Q spans the columns of `eye + q`."""

    _q: tf.Tensor | tf.Variable

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        # A bijector's input tells D but not M: `make_trainable` makes M = D, unless its
        # `initial_parameters` is a function, which may return any M.
        square = {name: letters.replace("M", "D") for name, letters in cls._AXES.items()}
        return validate.parameter_properties(square)

    @property
    def q(self) -> tf.Tensor | tf.Variable:
        """The raw Q, as it was given."""
        return self._q

    def orthonormal_q(self) -> tf.Tensor:
        """Returns Q, the matrix that acts, `[..., D, M]`, with orthonormal columns."""
        raw = tf.convert_to_tensor(self.q)
        shape = tf.shape(raw)
        return orthonormal_columns(tf.eye(shape[-2], shape[-1], dtype=raw.dtype) + raw)

    def _frames(self) -> tf.Tensor:
        return self.orthonormal_q()

    def _frame_of(self, part: tf.Tensor) -> Frame:
        adjoint = tf.linalg.matrix_transpose(part)
        return Frame(lambda x: multiply(adjoint, x), lambda x: multiply(part, x))

    def _keep_others(self, parameters: Mapping[str, Any]) -> None:
        super()._keep_others(parameters)
        if self._q.shape.rank is None:
            return
        rows, columns = self._q.shape[-2:].as_list()
        if rows is not None and columns is not None and columns > rows:
            raise ValueError(
                f"{type(self).__name__} takes q [..., D, M] with M <= D. Received: D={rows}, "
                f"M={columns}."
            )


class Mirrors(FramedSylvester):
    """Those whose Q is a product of reflections."""

    _v: tf.Tensor | tf.Variable

    @property
    def v(self) -> tf.Tensor | tf.Variable:
        """The normals of the mirrors, as they were given."""
        return self._v

    def _frames(self) -> tf.Tensor:
        return tf.convert_to_tensor(self.v)

    def _frame_of(self, part: tf.Tensor) -> Frame:
        q = HouseholderFlow(part)
        return Frame(lambda x: q.inverse_and_log_det(x)[0], lambda x: q.forward_and_log_det(x)[0])


class SylvesterStep(SylvesterBase):
    """A single step."""

    @abc.abstractmethod
    def _frame(self) -> Frame:
        """Makes Q."""

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return forward_step(self._h(), self._frame(), self._system(), self._checked(x))

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return inverse_step(self._h(), self._frame(), self._system(), self._checked(y))


def forward_step(
    h: Activation, frame: Frame, system: System, x: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """f(x), `[..., D]`, and its log-det, `[...]`."""
    t = multiply(system.r_tilde, frame.project(x)) + system.b
    y = x + frame.lift(multiply(system.r, h.value(t)))
    return y, _log_det(h, t, system)


def inverse_step(
    h: Activation, frame: Frame, system: System, y: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The x with f(x) = y, `[..., D]`, and the inverse's log-det, `[...]`."""
    target = frame.project(y)
    v, t = triangular.implicit_solution(h, *system[:4], target)
    x = y + frame.lift(v - target)
    # Where f expands, that cancels, and x keeps an error that f would multiply. Q^T x = v says
    # it better. The correction is 0 but for rounding: so is its derivative.
    x += tf.stop_gradient(frame.lift(v - frame.project(x)))
    return x, -_log_det(h, t, system)


def _log_det(h: Activation, t: tf.Tensor, system: System) -> tf.Tensor:
    terms = log_derivative(h, t, system.slope, system.log_slope)
    return tf.reduce_sum(terms, axis=-1)
