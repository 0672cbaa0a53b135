"""Gradient estimators of the bound that are not what automatic differentiation gives."""

from __future__ import annotations

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae.bijectors import inverse_and_log_det


def frozen_log_prob(
    posterior: tfd.TransformedDistribution, z: tf.Tensor, log_prob: tf.Tensor
) -> tf.Tensor:
    """log q(z|x) whose gradient goes through z alone, the parameters of q held fixed.

    The path derivative of Roeder, Wu & Duvenaud (2017), https://arxiv.org/abs/1703.09194: the score
    d log q / dphi that is left out has mean zero, and what remains has no variance where q is
    exact. d log q / dz is taken from the flow's inverse, and put in as a constant.

    Args:
      posterior: q(z|x), batch `[B]`.
      z: `[S, B, D]`, drawn from it.
      log_prob: The value, `[S, B]`, as the forward pass had it.
    """
    fixed = tf.stop_gradient(z)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(fixed)
        noise, log_det = inverse_and_log_det(posterior.bijector, fixed)
        value = posterior.distribution.log_prob(noise) + log_det
    slope = tf.stop_gradient(tape.gradient(value, fixed))
    return tf.stop_gradient(log_prob) + tf.reduce_sum(slope * (z - fixed), axis=-1)


def with_frozen_base(posterior: tfd.TransformedDistribution) -> tfd.TransformedDistribution:
    """q(z|x) whose log-density has a gradient through z alone, for a posterior that factorises.

    Without a flow the parameters of the base, a normal with independent dimensions, are all there
    are; they become constants. What `frozen_log_prob` is in sum, this one's is for each dimension.
    """
    normal = posterior.distribution.distribution
    loc, scale = tf.stop_gradient(normal.loc), tf.stop_gradient(normal.scale)
    base = tfd.Independent(tfd.Normal(loc, scale), reinterpreted_batch_ndims=1)
    return tfd.TransformedDistribution(base, posterior.bijector)


class ScaledGradient:
    """Passes z on, and multiplies the gradient that comes back by factors that z itself decides.

    The gradient functions run after the forward pass, when `factors` has been set.

    Attributes:
      factors: `[S, B]`; set before anything is differentiated.
    """

    factors: tf.Tensor

    def __call__(self, z: tf.Tensor) -> tf.Tensor:
        """z `[S, B, D]`, as it is."""

        @tf.custom_gradient
        def identity(z: tf.Tensor) -> tuple[tf.Tensor, object]:
            return tf.identity(z), lambda upstream: upstream * self.factors[..., tf.newaxis]

        return identity(z)
