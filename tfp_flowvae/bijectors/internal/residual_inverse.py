"""The inverse of x + g(x) by Banach's iteration, with derivatives by implicit differentiation.

For a contraction g of constant c < 1 the iteration x <- y - g(x) started at y has, after n steps,
an error of at most c^n ||g(y)|| / (1 - c). So

    N = ceil(log(eps (1 - c)) / log(c))

steps reduce it to eps ||g(y)|| for every g. The iteration stops earlier if a step has moved no
point by more than rounding, eps of its size: then x is within c / (1 - c) eps of the solution,
less than the error that the rounding of y alone may cause. The linear equations of the backward
pass, (I + J^T) w = v, are of the same form and are solved in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfp_flowvae.bijectors.internal import numerics
from tfp_flowvae.bijectors.internal.residual_net import ResidualNet

_ZERO = tf.UnconnectedGradients.ZERO


def iteration_bound(contraction: float, dtype: tf.DType) -> int:
    """The N above: no iteration takes more steps."""
    target = numerics.epsilon(dtype) * (1.0 - contraction)
    return math.ceil(math.log(target) / math.log(contraction))


def invert(net: ResidualNet, y: tf.Tensor, contraction: float) -> tf.Tensor:
    """Solves x + g(x) = y, with derivatives in y and in the weights of g.

        dy -> (I + J)^-1 dy,      dg -> -(I + J)^-1 dg,      J = dg/dx .

    Derivatives of every order are right: the backward pass is written in terms of x itself.

    Args:
      net: g, a contraction.
      y: `[..., D]`, of the batch shape of the result.
      contraction: A bound below 1 on the Lipschitz constant of g.

    Returns:
      x, `[..., D]`.
    """
    frozen = net.with_weights([tf.stop_gradient(weight) for weight in net.weights])
    start = tf.stop_gradient(y)
    root = _iterate(lambda x: start - frozen.value(x), start, contraction)

    @tf.custom_gradient
    def attached(y: tf.Tensor, *weights: tf.Tensor) -> tuple:
        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            x, inner = attached(y, *weights), net.with_weights(weights)
            d_y = _solve_linear(inner, x, upstream, contraction, transpose=True)
            with tf.GradientTape() as tape:
                tape.watch(weights)
                value = inner.value(x)
            return (d_y, *tape.gradient(value, weights, -d_y, _ZERO))

        return tf.identity(root), grad

    return attached(y, *net.weights)


def _solve_linear(
    net: ResidualNet, x: tf.Tensor, v: tf.Tensor, contraction: float, transpose: bool
) -> tf.Tensor:
    """Solves (I + J) w = v, or (I + J^T) w = v, with J the Jacobian of g at x, differentiably."""

    def multiplier(x: tf.Tensor, weights: Sequence[tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
        inner = net.with_weights(weights)
        slopes = inner.linearize(x)[1]
        apply = inner.pull if transpose else inner.push
        return lambda w: apply(slopes, w[..., tf.newaxis, :])[..., 0, :]

    @tf.custom_gradient
    def solve(x: tf.Tensor, v: tf.Tensor, *weights: tf.Tensor) -> tuple:
        multiply = multiplier(x, weights)

        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, ...]:
            w = solve(x, v, *weights)
            inner = net.with_weights(weights)
            d_v = _solve_linear(inner, x, upstream, contraction, not transpose)
            with tf.GradientTape() as tape:
                tape.watch((x, weights))
                product = multiplier(x, weights)(w)
            d_x, d_weights = tape.gradient(product, (x, weights), -d_v, _ZERO)
            return (d_x, d_v, *d_weights)

        return _iterate(lambda w: v - multiply(w), v, contraction), grad

    return solve(x, v, *net.weights)


def _iterate(
    step: Callable[[tf.Tensor], tf.Tensor], start: tf.Tensor, contraction: float
) -> tf.Tensor:
    """Iterates x <- step(x) from `start`, `[..., D]`, until it converges; not differentiable."""
    eps = numerics.epsilon(start.dtype)
    start_size = tf.reduce_max(tf.abs(start), axis=-1)

    def body(x: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        following = step(x)
        moved = tf.reduce_max(tf.abs(following - x), axis=-1)
        size = tf.reduce_max(tf.abs(following), axis=-1) + start_size
        return following, tf.reduce_any(moved > eps * size)  # false for NaN

    return tf.while_loop(
        lambda _, moving: moving,
        body,
        (start, tf.constant(True)),
        maximum_iterations=iteration_bound(contraction, start.dtype),
    )[0]
