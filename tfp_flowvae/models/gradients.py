"""Gradient estimators of the bound that are not what automatic differentiation gives."""

from __future__ import annotations

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae.bijectors import inverse_and_log_det
from tfp_flowvae.distributions import Draw
from tfp_flowvae.models.objective import Objective


def frozen_log_prob(
    posterior: tfd.TransformedDistribution, z: tf.Tensor, log_prob: tf.Tensor
) -> tf.Tensor:
    """log q(z|x) whose gradient goes through z alone, the parameters of q held fixed.

    The path derivative of Roeder, Wu & Duvenaud (2017), https://arxiv.org/abs/1703.09194: the score
    d log q / dphi that is left out has mean zero, and what remains has no variance where q is
    exact. d log q / dz comes from the flow's inverse, as a constant.

    Args:
      posterior: q(z|x), batch `[B]`.
      z: `[S, B, D]`, drawn from it.
      log_prob: log q(z|x) of the forward pass, `[S, B]`.
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

    Without a flow the posterior has no parameters but those of its base, a normal with independent
    dimensions; they become constants. It does for each dimension what `frozen_log_prob` does for
    their sum.
    """
    normal = posterior.distribution.distribution
    loc, scale = tf.stop_gradient(normal.loc), tf.stop_gradient(normal.scale)
    base = tfd.Independent(tfd.Normal(loc, scale), reinterpreted_batch_ndims=1)
    return tfd.TransformedDistribution(base, posterior.bijector)


class ScaledGradient:
    """The identity of z, whose gradient is multiplied by factors that are set later.

    The factors depend on z. Gradient functions run after the forward pass, when they are known.

    Attributes:
      factors: `[S, B]`; set before anything is differentiated.
    """

    factors: tf.Tensor

    def __call__(self, z: tf.Tensor) -> tf.Tensor:
        """Returns z `[S, B, D]`."""

        @tf.custom_gradient
        def identity(z: tf.Tensor) -> tuple[tf.Tensor, object]:
            return tf.identity(z), lambda upstream: upstream * self.factors[..., tf.newaxis]

        return identity(z)


def for_training(draw: Draw, objective: Objective) -> tuple[Draw, ScaledGradient | None]:
    """The same draw with the gradients of the objective's estimator.

    Returns:
      The draw, and for `dreg` the object whose `factors` have yet to be set.
    """
    scaled = ScaledGradient() if objective.bound == "dreg" else None
    if scaled is not None:
        draw = draw._replace(z=scaled(draw.z))
    if scaled is not None or objective.gradient == "stl":
        frozen = frozen_log_prob(draw.distribution, draw.z, draw.log_prob)
        draw = draw._replace(log_prob=frozen)
        if objective.free_bits:
            draw = draw._replace(distribution=with_frozen_base(draw.distribution))
    return draw, scaled
