"""The scalar equation behind a planar flow's inverse.

With k = w.u > -1 the slope at the steepest point is s = 1 + k, and the inverse of one planar step
is the root t of

    t + k h(t) = s h(t) + (t - h(t)) = c .

The right-hand form has no cancellation: both terms have the sign of t and grow with t, whatever
s > 0. Evaluated so, t comes out with a relative error of a few eps even where s underflows.
"""

from __future__ import annotations

import tensorflow as tf

from tfp_flowvae.bijectors.internal import numerics
from tfp_flowvae.bijectors.internal.activations import Activation

# More than any s and c in the tests need by a factor of two; a bisection alone would need as many.
_MAX_ITERATIONS = {tf.float32: 60, tf.float64: 120}


def implicit_root(
    activation: Activation, slope: tf.Tensor, target: tf.Tensor, root: tf.Tensor | None = None
) -> tf.Tensor:
    """Solves s h(t) + (t - h(t)) = c for t, with derivatives by the implicit function theorem.

        dt/dc = 1 / (s h'(t) + 1 - h'(t)),      dt/ds = -h(t) dt/dc .

    Derivatives of every order are right: the backward pass is written in terms of t itself.

    Args:
      activation: The function h.
      slope: s > 0, broadcasting against `target`.
      target: c.
      root: t where it is known already and only its derivatives are wanted.

    Returns:
      The root t, of the shape of `target`.
    """
    slope = tf.broadcast_to(slope, tf.shape(target))
    if root is None:
        root = solve(activation, tf.stop_gradient(slope), tf.stop_gradient(target))
    return attach_gradient(activation, root, slope, target)


def attach_gradient(
    activation: Activation, root: tf.Tensor, slope: tf.Tensor, target: tf.Tensor
) -> tf.Tensor:
    """Returns `root` with its derivatives in `slope` and `target`; all have one shape."""
    root = tf.stop_gradient(root)

    @tf.custom_gradient
    def attached(slope: tf.Tensor, target: tf.Tensor) -> tuple:
        def grad(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            t = attached(slope, target)
            steep, flat = activation.slopes(t)
            total = tf.maximum(slope * steep + flat, numerics.tiny(t.dtype))
            d_target = upstream / total
            return -activation.value(t) * d_target, d_target

        return tf.identity(root), grad

    return attached(slope, target)


def solve(activation: Activation, slope: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """The root alone, by Newton's method inside a shrinking bracket; not differentiable."""
    size = tf.abs(target)
    low, high = _bracket(activation, slope, size)
    tolerance = numerics.epsilon(target.dtype)

    def running(_: tf.Tensor, __: tf.Tensor, ___: tf.Tensor, done: tf.Tensor) -> tf.Tensor:
        return tf.logical_not(tf.reduce_all(done))

    def step(t: tf.Tensor, low: tf.Tensor, high: tf.Tensor, _: tf.Tensor) -> tuple:
        excess = slope * activation.value(t) + activation.gap(t) - size
        low = tf.where(excess < 0.0, t, low)
        high = tf.where(excess < 0.0, high, t)
        steep, flat = activation.slopes(t)
        newton = t - excess / (slope * steep + flat)
        inside = (newton >= low) & (newton <= high)  # false for NaN, from 0/0 too
        following = tf.where(inside, newton, 0.5 * (low + high))
        # Newton's error is squared each time: after a step this small the next changes nothing.
        moved = tf.abs(following - t) > tolerance ** (2.0 / 3.0) * following
        return following, low, high, ~(moved & (tf.abs(excess) > 2.0 * tolerance * size))

    done = tf.zeros_like(size, dtype=tf.bool)
    t = tf.while_loop(
        running, step, (high, low, high, done), maximum_iterations=_MAX_ITERATIONS[target.dtype]
    )[0]
    return tf.where(tf.math.is_finite(target), tf.sign(target) * t, target)


def _bracket(
    activation: Activation, slope: tf.Tensor, size: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Bounds on the root for c = size >= 0; the upper one is a good start for Newton's method.

    On t >= 0 the left side lies between t and s t. For s <= 1 it is convex, and Newton's method
    descends from any upper bound; for s > 1 it is concave, and one step leads below the root.
    """
    one = tf.ones_like(size)
    # s <= 1: sides (1 - s) (t - h) <= c, where t - h >= t^3 / 4.2 for t <= 1, and s t <= c.
    rest = tf.maximum(one - slope, numerics.tiny(size.dtype))
    cubic = tf.pow(4.2 * tf.minimum(size / rest, one), 1.0 / 3.0)
    ratio = size / tf.maximum(slope, numerics.tiny(size.dtype))
    gentle = tf.where(size < 0.238 * rest, tf.minimum(cubic, ratio), size + rest)
    # s > 1: beyond the tail's beginning, h is 1 and the left side t + s - 1.
    drift = tf.maximum(size - (slope - one), 0.0)
    steep = tf.minimum(size, drift + activation.tail(tf.maximum(slope, one)))
    below = size < slope
    bound = activation.scaled_inverse(tf.where(below, size, 0.0 * one), tf.where(below, slope, one))
    steep = tf.where(below, tf.minimum(steep, bound), steep)
    is_steep = slope > one
    low = tf.where(is_steep, tf.maximum(size / tf.maximum(slope, one), drift), size)
    high = tf.where(is_steep, steep, gentle)
    # Rounding may put a bound on the wrong side of the root by a few eps.
    margin = 8.0 * numerics.epsilon(size.dtype)
    return low * (1.0 - margin), high * (1.0 + margin)
