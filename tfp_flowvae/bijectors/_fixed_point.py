"""Fixed points of triangular maps, with derivatives by the implicit function theorem.

Let F(y) be a map of vectors of D entries in which, in some order, entry d of F depends on earlier
entries of y alone. Its Jacobian J is strictly triangular, so J^D = 0, and y <- F(y) has found its
one fixed point y* after at most D passes, from whatever start: pass d settles the d-th entry. For
the parameters p of F,

    dy* = (I - J)^-1 dF/dp dp,

and the gradient's system, (I - J^T) a = b, is the fixed point of a triangular map again.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

_FIRST_ORDER_ONLY = (
    "the fixed point of an autoregressive flow can be differentiated once; for derivatives of a "
    "higher order use tfb.MaskedAutoregressiveFlow."
)

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
    """One more pass at y*, whose derivatives are those of the fixed point itself.

    Plain differentiation of this pass at a constant y* gives dF/dp dp for everything that F closes
    over, variables and tensors alike; the custom gradient only puts (I - J)^-1 in front: from the
    gradient b in y it makes the solution a of a = b + J^T a, by products with J^T alone.

    Args:
      apply: F.
      solution: y*, `[..., D]`; its own derivatives are not used.
      max_passes: D.
      exact: Whether y* is the fixed point up to rounding and of the shape of F(y*). The pass then
        serves its derivatives alone, and in a graph that takes none it is pruned.

    Returns:
      F(y*), or y* if that is exact, `[..., D]`. To differentiate it twice raises a `LookupError`.
    """
    point = tf.stop_gradient(solution)

    @tf.custom_gradient
    def attached(once: tf.Tensor) -> tuple:
        def grad(upstream: tf.Tensor) -> tf.Tensor:
            solution = _solve_adjoint(apply, point, upstream, max_passes)
            # A second derivative would be wrong, since it takes this point for a constant. Whatever
            # it comes by, the parameters or the upstream gradient, it meets the barrier.
            always = tf.ones_like(solution, tf.bool)
            sources = tf.where(always, upstream, once)
            barrier = tf.raw_ops.PreventGradient(input=sources, message=_FIRST_ORDER_ONLY)
            return tf.where(always, solution, barrier)

        return tf.identity(point if exact else once), grad

    return attached(apply(point))


def _solve_adjoint(
    apply: Map, point: tf.Tensor, right: tf.Tensor, max_passes: int | tf.Tensor
) -> tf.Tensor:
    """a = b + J^T b + (J^T)^2 b + ..., a series that ends after D terms."""
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(point)
        value = apply(point)

    def step(solution: tf.Tensor) -> tf.Tensor:
        return right + tape.gradient(value, point, solution, tf.UnconnectedGradients.ZERO)

    return iterate(step, right, max_passes - 1, 0.0)[0]
