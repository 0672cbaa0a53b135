"""The base classes of the Sylvester flows; `sylvester.py` has the mathematics."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors.householder import HouseholderFlow
from tfp_flowvae.bijectors.internal import numerics, validate
from tfp_flowvae.bijectors.internal.activations import Activation, log_derivative
from tfp_flowvae.bijectors.internal.linear import multiply
from tfp_flowvae.bijectors.internal.orthonormal import orthonormal_columns
from tfp_flowvae.bijectors.internal.parametric import ActivatedBijector, parameter
from tfp_flowvae.bijectors.internal.triangular import System, implicit_solution


class Frame(NamedTuple):
    """The map Q: `project` takes `[..., D]` to Q^T x, `lift` takes `[..., M]` to Q x."""

    project: Callable[[tf.Tensor], tf.Tensor]
    lift: Callable[[tf.Tensor], tf.Tensor]


class SylvesterBase(ActivatedBijector):
    """A Sylvester step or, in a stack, K of them; a subclass adds Q."""

    r = parameter("r", "The raw R, as it was given.")
    r_tilde = parameter("r_tilde", "The raw R~, as it was given.")
    b = parameter("b", "The offset, as it was given.")

    @abc.abstractmethod
    def _frames(self) -> tf.Tensor | None:
        """The tensor that Q is made of: in a stack `[..., K, M, N]`, for some M and N."""

    @abc.abstractmethod
    def _frame_of(self, part: Any) -> Frame:
        """Q of one step, from its part of `_frames`."""

    def constrained_r(self) -> tf.Tensor:
        """Returns R, the upper triangular matrix that acts, `[..., M, M]`."""
        return self._system()[0].r

    def constrained_r_tilde(self) -> tf.Tensor:
        """Returns R~, the upper triangular matrix that acts, `[..., M, M]`."""
        return self._system()[0].r_tilde

    def _system(self) -> tuple[System, tf.Tensor]:
        """What acts in M dimensions: R, R~, b and s, and log s, `[..., M]`."""
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
        return System(numerics.with_diagonal(r, outer), r_tilde, b, slope), log_slope

    def _forward_and_log_det(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._run_steps(_forward_step, x)

    def _inverse_and_log_det(self, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return self._run_steps(_inverse_step, y, reverse=True)

    def _run_steps(
        self, step: Callable[..., tuple], x: tf.Tensor, reverse: bool = False
    ) -> tuple[tf.Tensor, tf.Tensor]:
        h = self._h()

        def one(x: tf.Tensor, hint: None, part: Any, *system: tf.Tensor) -> tuple:
            *coefficients, log_slope = system
            value, t = step(h, self._frame_of(part), System(*coefficients), x)
            terms = log_derivative(h, t, coefficients[-1], log_slope)
            return value, tf.reduce_sum(terms, axis=-1), None

        system, log_slope = self._system()
        parameters = (self._frames(), *system, log_slope)
        value, log_det = self._run(one, x, parameters, (2, 2, 2, 1, 1, 1), reverse=reverse)
        return value, -log_det if reverse else log_det


class OrthogonalBase(SylvesterBase):
    """A step or a stack whose Q spans the columns of `eye + q`."""

    q = parameter("q", "The raw Q, as it was given.")

    def __init__(
        self,
        q: TensorLike,
        r: TensorLike,
        r_tilde: TensorLike,
        b: TensorLike,
        activation: str = "tanh",
        validate_args: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(dict(locals()))

    def _keep_others(self, arguments: Mapping[str, Any]) -> None:
        super()._keep_others(arguments)
        if self.q.shape.rank is None:
            return
        rows, columns = self.q.shape[-2:].as_list()
        if rows is not None and columns is not None and columns > rows:
            raise ValueError(
                f"{type(self).__name__} takes q [..., D, M] with M <= D. Received: D={rows}, "
                f"M={columns}."
            )

    @classmethod
    def _parameter_properties(cls, dtype: Any) -> dict[str, Any]:
        # A bijector's input tells D but not M: `make_trainable` makes M = D, unless its
        # `initial_parameters` is a function, which may return any M.
        square = {name: letters.replace("M", "D") for name, letters in cls._AXES.items()}
        return validate.parameter_properties(square)

    def orthonormal_q(self) -> tf.Tensor:
        """Returns Q, the matrix that acts, `[..., D, M]`, with orthonormal columns."""
        raw = tf.convert_to_tensor(self.q)
        shape = tf.shape(raw)
        return orthonormal_columns(tf.eye(shape[-2], shape[-1], dtype=raw.dtype) + raw)

    def _frames(self) -> tf.Tensor:
        return self.orthonormal_q()

    def _frame_of(self, part: tf.Tensor) -> Frame:
        return Frame(lambda x: multiply(part, x, adjoint=True), lambda x: multiply(part, x))


class HouseholderBase(SylvesterBase):
    """A step or a stack whose Q is a product of reflections."""

    v = parameter("v", "The normals of the mirrors, as they were given.")

    def __init__(
        self,
        v: TensorLike,
        r: TensorLike,
        r_tilde: TensorLike,
        b: TensorLike,
        activation: str = "tanh",
        validate_args: bool = False,
        name: str | None = None,
    ) -> None:
        super().__init__(dict(locals()))

    def _frames(self) -> tf.Tensor:
        return tf.convert_to_tensor(self.v)

    def _frame_of(self, part: tf.Tensor) -> Frame:
        q = HouseholderFlow(part)
        return Frame(lambda x: q.inverse_and_log_det(x)[0], lambda x: q.forward_and_log_det(x)[0])


def _forward_step(
    h: Activation, frame: Frame, system: System, x: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """f(x), `[..., D]`, and t."""
    t = multiply(system.r_tilde, frame.project(x)) + system.b
    return x + frame.lift(multiply(system.r, h.value(t))), t


def _inverse_step(
    h: Activation, frame: Frame, system: System, y: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The x with f(x) = y, `[..., D]`, and t."""
    target = frame.project(y)
    v, t = implicit_solution(h, system, target)
    x = y + frame.lift(v - target)
    # Where f expands, that sum cancels and leaves x with an error along Q that f would multiply;
    # v has the smaller one. The correction is 0 but for rounding: so is its derivative.
    return x + tf.stop_gradient(frame.lift(v - frame.project(x))), t
