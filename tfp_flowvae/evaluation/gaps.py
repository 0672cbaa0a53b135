"""The two gaps between the ELBO and log p(x), by optimising q for each image."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfp_flowvae.models import FlowVAE
from tfp_flowvae.models.importance import make_estimator
from tfp_flowvae.training.xla import xla_suits

_BATCH = 50
_RATE = 1e-2
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


class Gaps(NamedTuple):
    """The gaps of each image, `[N]`, in nats (Cremer et al. 2018).

        log p(x) - ELBO(q) = (log p(x) - ELBO(q*)) + (ELBO(q*) - ELBO(q))

    Attributes:
      approximation: log p(x) - ELBO(q*): the family does not contain p(z|x).
      amortization: ELBO(q*) - ELBO(q): the encoder does not find the best member q*.
      log_marginal: log p(x), importance-weighted with q* as the proposal.

    Example:
      >>> gaps = Gaps(np.array([1.0]), np.array([4.0]), log_marginal=np.array([-80.0]))
      >>> gaps.log_marginal - gaps.approximation - gaps.amortization  # the ELBO
      array([-85.])
    """

    approximation: np.ndarray
    amortization: np.ndarray
    log_marginal: np.ndarray


def posterior_gaps(
    model: FlowVAE,
    x: np.ndarray,
    steps: int = 1000,
    draws: int = 8,
    samples: int = 2000,
    seed: int = 0,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Gaps:
    """Returns the approximation and the amortisation gap of each image.

    The family is what the posterior layer makes of any features: q(z|h) for h in R^F. The best
    member q* is found for each image by itself, by Adam on h from the encoder's features on, with
    the decoder and the prior fixed (Cremer et al. 2018, https://arxiv.org/abs/1801.03558, section
    5.1). Both ELBOs are means over `samples` draws with the same noise.

    Args:
      model: The model.
      x: Images `[N, H, W, C]`.
      steps: The number of steps of Adam.
      draws: The number of draws of each step.
      samples: The number of draws of the ELBOs, and of log p(x).
      seed: The seed of all draws.
      progress: A function that wraps the iterable of the batches' first places, such as `tqdm`.

    Example:
      >>> vae = fv.FlowVAE(image_shape=(4, 4, 1), latent_size=2)
      >>> x = np.zeros([3, 4, 4, 1], "float32")
      >>> gaps = posterior_gaps(vae, x, steps=10, draws=2, samples=50)
      >>> gaps.approximation.shape, gaps.amortization.shape
      ((3,), (3,))
    """
    compiled = xla_suits(model)

    def log_weights(inputs: tuple[tf.Tensor, tf.Tensor], count: int, key: tf.Tensor) -> tf.Tensor:
        features, images = inputs
        draw = model.posterior_layer.draw(count, features, key)
        return model.terms_of(draw, images, key).elbo

    def loss(features: tf.Tensor, images: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        return -tf.reduce_sum(log_weights((features, images), draws, key)) / draws

    minimise = _minimiser(loss, steps, compiled)
    estimate = make_estimator(log_weights, samples, compiled)
    first, last = [], []
    for place in progress(range(0, len(x), _BATCH)):
        images = tf.constant(x[place : place + _BATCH])
        start = tf.cast(model.features(images), tf.float32)
        key = tf.constant([seed, place], tf.int32)
        best = minimise(start, images, tf.random.fold_in(key, 0))
        key = tf.random.fold_in(key, 1)
        first.append(estimate((start, images), key).numpy().astype(np.float64))
        last.append(estimate((best, images), key).numpy().astype(np.float64))
    amortised, optimal = (np.concatenate(parts, axis=1) for parts in (first, last))
    log_marginal = -optimal[0]
    return Gaps(log_marginal - optimal[1], optimal[1] - amortised[1], log_marginal)


def _minimiser(
    loss: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor], steps: int, jit_compile: bool
) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns a program that runs Adam, whose rate falls along a cosine.

    Keras's optimizers own their variables and run one step to a program; here the state is local.

    Args:
      loss: From a point, what is fixed and a stateless seed `[2]` to a scalar.
      steps: The number of steps.
      jit_compile: Whether to use XLA.

    Returns:
      A function from the first point, what is fixed and a stateless seed `[2]` to the last point.
    """

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run(x: tf.Tensor, fixed: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        def step(i: tf.Tensor, x: tf.Tensor, m: tf.Tensor, v: tf.Tensor) -> tuple[tf.Tensor, ...]:
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = loss(x, fixed, tf.random.fold_in(seed, i))
            gradient = tape.gradient(value, x)
            m = _BETA_1 * m + (1.0 - _BETA_1) * gradient
            v = _BETA_2 * v + (1.0 - _BETA_2) * tf.square(gradient)
            done = tf.cast(i, x.dtype)
            rate = _RATE * 0.5 * (1.0 + tf.cos(np.pi * done / steps))
            unbiased = m / (1.0 - _BETA_1 ** (done + 1.0))
            scale = tf.sqrt(v / (1.0 - _BETA_2 ** (done + 1.0))) + _EPSILON
            return i + 1, x - rate * unbiased / scale, m, v

        zeros = tf.zeros_like(x)
        state = (tf.constant(0), x, zeros, zeros)
        return tf.while_loop(lambda i, *_: i < steps, step, state, maximum_iterations=steps)[1]

    return run
