"""The importance-weighted negative log-likelihood of a set of images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfp_flowvae.data import to_unit
from tfp_flowvae.models import FlowVAE
from tfp_flowvae.training.xla import xla_suits

# Images and samples held at once: 5,000 decoded images, whatever the number of samples.
IMAGES, SAMPLES = 100, 50


def negative_log_likelihood(
    model: FlowVAE,
    images: np.ndarray,
    levels: int | None,
    num_samples: int,
    seed: int,
    *,
    jit_compile: bool | None = None,
) -> np.ndarray:
    """-log 1/S sum_s p(x, z_s) / q(z_s|x) of each image, z_s ~ q(z|x): an upper bound of -log p(x).

    Burda et al. (2016), https://arxiv.org/abs/1509.00519, equation 8. One compiled program serves
    all the images and adds up the samples as it goes: memory does not grow with either number.

    Args:
      model: The model.
      images: `[N, H, W, C]`, binarised already if they are to be.
      levels: Number of grey levels of uint8 images; None for float images in [0, 1].
      num_samples: S.
      seed: Of the samples. Image i depends on it and on i // 100 alone.
      jit_compile: Whether to use XLA; None: where it suits the model.

    Returns:
      float64 `[N]`, in nats.

    Raises:
      ValueError: If there is not at least one sample.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1. Received: {num_samples}.")
    jit_compile = xla_suits(model) if jit_compile is None else jit_compile
    program = _program(model, num_samples, jit_compile)
    found = []
    for i, start in enumerate(range(0, len(images), IMAGES)):
        x = to_unit(images[start : start + IMAGES], levels)
        # The last images are filled up: another shape would be another program.
        padding = [(0, IMAGES - len(x)), *[(0, 0)] * (x.ndim - 1)]
        log_marginal = program(tf.constant(np.pad(x, padding)), tf.constant([seed, i], tf.int32))
        found.append(-log_marginal.numpy()[: len(x)].astype(np.float64))
    return np.concatenate(found) if found else np.zeros(0)


def _program(
    model: FlowVAE, num_samples: int, jit_compile: bool
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """From images `[100, H, W, C]` and a seed `[2]` to their log-marginals `[100]`."""
    whole, rest = divmod(num_samples, SAMPLES)

    def log_sum(x: tf.Tensor, samples: int, seed: tf.Tensor) -> tf.Tensor:
        return tf.reduce_logsumexp(model.elbo_terms(x, samples, seed=seed).elbo, axis=0)

    def add(i: tf.Tensor, total: tf.Tensor, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        more = log_sum(x, SAMPLES, tf.random.fold_in(seed, i))
        return tf.reduce_logsumexp(tf.stack([total, more]), axis=0)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def program(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        total = tf.fill([IMAGES], -np.inf)
        if rest:
            total = log_sum(x, rest, tf.random.fold_in(seed, whole))
        if whole:
            _, total = tf.while_loop(
                lambda i, total: i < whole,
                lambda i, total: (i + 1, add(i, total, x, seed)),
                (tf.constant(0), total),
                maximum_iterations=whole,
            )
        return total - np.float32(np.log(num_samples))

    return program
