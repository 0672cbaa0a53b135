"""Paths between two points in the space of a distribution's base."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.distributions.flow_distribution import FlowDistribution
from tfp_flowvae.distributions.normal import Normal


def interpolate(
    distribution: FlowDistribution,
    first: TensorLike,
    second: TensorLike,
    steps: TensorLike,
    context: tf.Tensor | None = None,
) -> tf.Tensor:
    """Points on a path from z1 to z2 that is simple in the space of the base.

        e1 = g^-1(z1), e2 = g^-1(z2), z(t) = g(e(t)), t from 0 to 1

    g is the flow. For the standard normal base e(t) is an arc: the direction of e(t) turns at
    constant speed from that of e1 to that of e2, and the norm changes linearly (White 2016,
    https://arxiv.org/abs/1609.04468). In many dimensions a straight line would pass nearer to the
    origin than draws do. For other bases e(t) = (1 - t) e1 + t e2.

    Args:
      distribution: A flow over a base.
      first: z1, `[B, D]`.
      second: z2, `[B, D]`.
      steps: The number of points on each path, both ends included; for 1 the first end.
      context: `[B, F]` or `[1, F]`, or None; with one, e(t) is straight for every base.

    Returns:
      z(t), `[steps, B, D]`.

    Example:
      >>> vae = fv.FlowVAE(image_shape=(4, 4, 1), latent_size=2, prior="realnvp:2")
      >>> z1, z2 = vae.encode(tf.zeros([3, 4, 4, 1])), vae.encode(tf.ones([3, 4, 4, 1]))
      >>> z = interpolate(vae.prior_layer, z1, z2, steps=8)
      >>> vae.decode(z).shape
      TensorShape([8, 3, 4, 4, 1])
    """
    ends = tf.stack([tf.cast(first, tf.float32), tf.cast(second, tf.float32)])
    bijector = distribution.distribution(context).bijector
    first, second = tf.unstack(bijector.inverse(ends))
    standard = isinstance(distribution.base, Normal) and context is None
    return bijector.forward(base_path(first, second, steps, standard))


def base_path(
    first: TensorLike, second: TensorLike, steps: TensorLike, standard: bool
) -> tf.Tensor:
    """The points e(t) of `interpolate` between e1 and e2, `[steps, B, D]`.

    Args:
      first: e1, `[B, D]`.
      second: e2, `[B, D]`.
      steps: The number of points.
      standard: Whether the base is the standard normal, and the path an arc.
    """
    first, second = (tf.convert_to_tensor(end) for end in (first, second))
    last = tf.cast(tf.maximum(steps - 1, 1), tf.float32)
    t = (tf.cast(tf.range(steps), tf.float32) / last)[:, tf.newaxis, tf.newaxis]
    on_arc = standard and first.shape[-1] > 1
    return _arc(first, second, t) if on_arc else (1.0 - t) * first + t * second


def _arc(first: tf.Tensor, second: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
    """e(t) as in `interpolate`, `[steps, B, D]`, of e1 and e2 `[B, D]` and t `[steps, 1, 1]`."""
    tiny = np.finfo(np.float32).tiny
    norms = [tf.norm(end, axis=-1, keepdims=True) for end in (first, second)]
    one, two = first / tf.maximum(norms[0], tiny), second / tf.maximum(norms[1], tiny)
    # Kahan's formula: the arc cosine of the inner product would lose half the digits at 0 and pi.
    angle = 2.0 * tf.atan2(
        tf.norm(one - two, axis=-1, keepdims=True), tf.norm(one + two, axis=-1, keepdims=True)
    )
    direction = _share(1.0 - t, angle) * one + _share(t, angle) * two
    return direction * ((1.0 - t) * norms[0] + t * norms[1])


def _share(t: tf.Tensor, angle: tf.Tensor) -> tf.Tensor:
    """sin(t angle) / sin(angle), which tends to t as the angle tends to 0."""
    sine = tf.sin(angle)
    parallel = sine < 1e-6  # or opposite, where every arc is as short as every other
    return tf.where(parallel, t, tf.sin(t * angle) / tf.where(parallel, 1.0, sine))
