"""The triangular system behind a Sylvester flow's inverse.

With R and R~ upper triangular, `[M, M]`, the inverse of a Sylvester flow is the solution v of

    v + R h(R~ v + b) = c .

Its last equation holds v_M alone, the one before it v_{M-1} and v_M, and so on: back-substitution,
in which each equation is one scalar root. With t = R~ v + b and what is known moved to the right,

    v_i + r_i h(t_i) = c',        t_i = r~_i v_i + b',

where r_i and r~_i are diagonal elements. Times r~_i, with the slope s_i = 1 + r_i r~_i > 0 that is
carried and never computed as that sum, this is the equation of `root.py`,

    s_i h(t_i) + (t_i - h(t_i)) = r~_i c' + b' .

The derivatives come from the implicit function theorem for the system as a whole: its Jacobian

    J = I + R diag(h'(t)) R~

is upper triangular with the diagonal s h' + (1 - h'), and one triangular solve gives the gradients
in c, b, R and R~.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tfp_flowvae.bijectors.internal import numerics, root
from tfp_flowvae.bijectors.internal.activations import Activation
from tfp_flowvae.bijectors.internal.linear import multiply, solve_triangular


class System(NamedTuple):
    """The coefficients: R and R~ of `[..., M, M]`, b and s = 1 + r_i r~_i > 0 of `[..., M]`.

    R and R~ are upper triangular, and the diagonal of R~ is positive.
    """

    r: tf.Tensor
    r_tilde: tf.Tensor
    b: tf.Tensor
    slope: tf.Tensor


def implicit_solution(
    activation: Activation, system: System, target: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Solves v + R h(R~ v + b) = c, with derivatives of every order in R, R~, b and c.

    Args:
      activation: The function h.
      system: R, R~, b and s.
      target: c, `[..., M]`.

    Returns:
      The pair of v and t = R~ v + b, of the shape that all arguments broadcast to, `[..., M]`.
    """
    constant = System(*(tf.stop_gradient(part) for part in system))
    v, t = _substitute(activation, constant, tf.stop_gradient(target))
    v, t = tf.stop_gradient(v), tf.stop_gradient(t)
    v = _attach_gradient(activation, v, t)(*system, target)
    return v, _with_value(multiply(system.r_tilde, v) + system.b, t)


def _with_value(x: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """The derivatives of `x`, but `value`, which is the same with less rounding."""
    return x + tf.stop_gradient(value - x)


def _attach_gradient(
    activation: Activation, v: tf.Tensor, t: tf.Tensor
) -> Callable[..., tf.Tensor]:
    """Returns `v` as a function of `(*system, target)`, with its derivatives."""

    @tf.custom_gradient
    def attached(*arguments: tf.Tensor) -> tuple:
        r, r_tilde, b, slope, target = arguments

        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            solution = attached(*arguments)
            inner = _with_value(multiply(r_tilde, solution) + b, t)
            steep, flat = activation.slopes(inner)
            jacobian = tf.matmul(r * steep[..., tf.newaxis, :], r_tilde)
            diagonal = tf.maximum(slope * steep + flat, numerics.tiny(inner.dtype))
            jacobian = numerics.with_diagonal(jacobian, diagonal)
            weights = solve_triangular(jacobian, upstream, lower=False, adjoint=True)
            here = (r, r_tilde, b, target)
            with tf.GradientTape() as tape:
                tape.watch(here)
                # The solution is a fixed point of this; J is what its dependence on v adds.
                moved = target - multiply(r, activation.value(multiply(r_tilde, solution) + b))
            zero = tf.UnconnectedGradients.ZERO
            d_r, d_tilde, d_b, d_target = tape.gradient(moved, here, weights, zero)
            return d_r, d_tilde, d_b, tf.zeros_like(slope), d_target

        return tf.identity(v), grad

    return attached


def _substitute(
    activation: Activation, system: System, target: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns v and t alone, from the last coordinate to the first; not differentiable."""
    r, r_tilde, b, slope = system
    diagonal, diagonal_tilde = tf.linalg.diag_part(r), tf.linalg.diag_part(r_tilde)
    strict = numerics.with_diagonal(r, tf.zeros_like(diagonal))
    strict_tilde = numerics.with_diagonal(r_tilde, tf.zeros_like(diagonal_tilde))
    zeros = tf.zeros_like(target + b + slope + diagonal_tilde)
    size = tf.shape(target)[-1] if target.shape[-1] is None else target.shape[-1]

    def body(i: tf.Tensor, v: tf.Tensor, t: tf.Tensor, h: tf.Tensor) -> tuple:
        # Row i of a strict upper triangle reads the entries after i alone, which are known by now.
        rest = tf.gather(target, i, axis=-1) - _row_times(strict, i, h)
        offset = tf.gather(b, i, axis=-1) + _row_times(strict_tilde, i, v)
        outer, inner, s = (tf.gather(d, i, axis=-1) for d in (diagonal, diagonal_tilde, slope))
        here = root.solve(activation, s + tf.zeros_like(rest), inner * rest + offset)
        shift = outer * activation.value(here)
        # Two ways to the same number; each is rounded like the larger of the two it subtracts.
        is_expanding = inner * tf.maximum(tf.abs(rest), tf.abs(shift)) > tf.maximum(
            tf.abs(here), tf.abs(offset)
        )
        value = tf.where(is_expanding, (here - offset) / inner, rest - shift)
        is_here = tf.equal(tf.range(size), i)
        new = (value, here, activation.value(here))
        updated = (
            tf.where(is_here, part[..., tf.newaxis], old)
            for part, old in zip(new, (v, t, h), strict=True)
        )
        return i - 1, *updated

    _, v, t, _ = tf.while_loop(
        lambda i, *_: i >= 0, body, (size - 1, zeros, zeros, zeros), maximum_iterations=size
    )
    return v, t


def _row_times(matrix: tf.Tensor, i: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.gather(matrix, i, axis=-2) * x, axis=-1)
