"""Fixed points of triangular maps, with two derivatives by the implicit function theorem.

Let F(y) be a map of vectors of D entries in which, in some order, entry d of F depends on earlier
entries of y alone. Its Jacobian J is strictly triangular, so J^D = 0, and y <- F(y) has found its
one fixed point y* after at most D passes, from any start: pass d makes the d-th entry exact. For
the parameters p of F,

    dy* = (I - J)^-1 dF/dp dp,

and the gradient's system, (I - J^T) a = b, is the fixed point of a triangular map again.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

_SECOND_ORDER_ONLY = (
    "the fixed point of an autoregressive flow can be differentiated twice; for derivatives of a "
    "higher order use tfb.MaskedAutoregressiveFlow."
)
_ZERO = tf.UnconnectedGradients.ZERO

Map = Callable[[tf.Tensor], tf.Tensor]


def iterate(
    apply: Map, start: tf.Tensor, max_passes: int | tf.Tensor, tolerance: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies a map until no entry changes by more than `tolerance`; not differentiable.

    Args:
      apply: The map, from `[..., D]` to the same shape or, from `start`, one it broadcasts to.
      start: `[..., D]`.
      max_passes: The most applications, at least 1.
      tolerance: In the units of the entries. A NaN is never settled.

    Returns:
      The last value and the number of passes, an int32 scalar.
    """
    # The first pass outside the loop: it creates what a conditioner creates when first called, and
    # gives the batch shape that the loop keeps.
    first = tf.stop_gradient(apply(tf.stop_gradient(start)))

    def body(passes: tf.Tensor, value: tf.Tensor, _: tf.Tensor) -> tuple:
        following = tf.ensure_shape(apply(value), first.shape)
        settled = tf.reduce_all(tf.abs(following - value) <= tolerance)
        return passes + 1, following, tf.logical_not(settled)

    passes, value, _ = tf.while_loop(
        lambda passes, _, moving: moving & (passes < max_passes),
        body,
        (tf.constant(1), first, tf.constant(True)),
        maximum_iterations=max_passes,
    )
    return tf.stop_gradient(value), passes


def attach_gradient(
    apply: Map, solution: tf.Tensor, max_passes: int | tf.Tensor, exact: bool = False
) -> tf.Tensor:
    """The fixed point with its first and second derivatives, by two more passes at y*.

    Let L = (I - J)^-1 at y*, a constant. From a constant start, y_0 = y*, each step of

        y_{n+1} = y_n + L (F(y_n) - y_n)

    adds nothing to the value and makes the derivatives right to one order more. Those of F in
    everything that it closes over, variables and tensors alike, are left to plain differentiation;
    custom gradients only put L in. In a first derivative the second step's share is the whole, and
    what reaches the first one is 0, for which L^T costs nothing.

    Args:
      apply: F.
      solution: y*, `[..., D]`; its own derivatives are not used.
      max_passes: D.
      exact: Whether y* is the fixed point up to rounding and of the shape of F(y*). Both passes
        then serve the derivatives alone, as else the second does, and in a graph that takes none
        they are pruned.

    Returns:
      F(y*), or y* if that is exact, `[..., D]`. To differentiate it three times raises a
      `LookupError`.
    """
    solution = tf.stop_gradient(solution)
    once = apply(solution)
    point = solution if exact else tf.stop_gradient(once)
    adjoint = _AdjointSystem(apply, point, once, max_passes)

    @tf.custom_gradient
    def first(once: tf.Tensor) -> tuple:
        return tf.identity(point), lambda upstream: adjoint.solve(upstream)[0]

    @tf.custom_gradient
    def second(start: tf.Tensor, following: tf.Tensor) -> tuple:
        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            # I - L^T = -J^T L^T. This way, and at the same point, it is the same arithmetic as that
            # of the derivative of `following` in `start`: the two cancel to the last bit.
            moved, pulled = adjoint.solve(upstream)
            return -pulled, moved

        return tf.identity(point), grad

    start = first(once)
    return second(start, apply(start))


class _AdjointSystem:
    """The system a = b + J^T a at one point, whose solution L^T b is differentiable once in b."""

    def __init__(
        self, apply: Map, point: tf.Tensor, source: tf.Tensor, max_passes: int | tf.Tensor
    ) -> None:
        self._apply = apply
        self._point = point
        self._source = source
        self._max_passes = max_passes

    def solve(self, right: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns a and J^T a."""
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(self._point)
            value = self._apply(self._point)

        def pull(a: tf.Tensor) -> tf.Tensor:
            return tape.gradient(value, self._point, a, _ZERO)

        @tf.custom_gradient
        def solve(right: tf.Tensor) -> tuple:
            solution = _sum_series(pull, right, self._max_passes)

            def grad(upstream: tf.Tensor, upstream_pulled: tf.Tensor) -> tf.Tensor:
                # L u + L J v with v for J^T a, where L J = L - I.
                return self._solve_transposed(upstream + upstream_pulled) - upstream_pulled

            return (solution, pull(solution)), grad

        return solve(right)

    def _solve_transposed(self, right: tf.Tensor) -> tf.Tensor:
        """L b, where J t is the derivative along t of J^T a, which is linear in a."""
        anywhere = tf.zeros_like(right)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as outer:
            outer.watch(anywhere)
            with tf.GradientTape(watch_accessed_variables=False) as inner:
                inner.watch(self._point)
                value = self._apply(self._point)
            pulled = inner.gradient(value, self._point, anywhere, _ZERO)

        def push(t: tf.Tensor) -> tf.Tensor:
            return outer.gradient(pulled, anywhere, t, _ZERO)

        solution = _sum_series(push, right, self._max_passes)
        # A third derivative would be wrong, since the point is a constant here: the barrier raises
        # an error for it, in the parameters as in the upstream gradient.
        always = tf.ones_like(solution, tf.bool)
        sources = tf.where(always, right, self._source)
        barrier = tf.raw_ops.PreventGradient(input=sources, message=_SECOND_ORDER_ONLY)
        return tf.where(always, solution, barrier)


def _sum_series(multiply: Map, right: tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
    """b + J b + J^2 b + ..., of which D terms are not 0; stops when the sum no longer changes."""

    def body(terms: tf.Tensor, total: tf.Tensor, _: tf.Tensor) -> tuple:
        following = tf.ensure_shape(right + multiply(total), right.shape)
        return terms + 1, following, tf.reduce_any(following != total)

    _, total, _ = tf.while_loop(
        lambda terms, _, moving: moving & (terms < size),
        body,
        (tf.constant(1), right, tf.reduce_any(right != 0.0)),
        maximum_iterations=size,
    )
    return tf.stop_gradient(total)
