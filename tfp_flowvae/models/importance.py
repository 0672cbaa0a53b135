"""The importance-weighted negative log-likelihood of a set of images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfp_flowvae.training.noise import as_seed

LogWeights = Callable[[tf.Tensor, int, tf.Tensor], tf.Tensor]

# Images and samples held at once: 5,000 decoded images, whatever the number of samples.
IMAGES, SAMPLES = 100, 50


def importance_nll(
    log_weights: LogWeights,
    images: np.ndarray,
    num_samples: int,
    batch_size: int | None = None,
    seed: int | None = None,
    *,
    jit_compile: bool,
) -> np.ndarray:
    """-log 1/S sum_s w_s of each image, for images in memory or mapped from a file.

    Burda et al. (2016), https://arxiv.org/abs/1509.00519, equation 8. One compiled program serves
    all batches and adds up the samples as it goes.

    Args:
      log_weights: From images `[B, H, W, C]`, a number of samples S and a stateless seed `[2]` to
        log w_s = log p(x, z_s) - log q(z_s|x), `[S, B]`.
      images: `[N, H, W, C]` in [0, 1].
      num_samples: S.
      batch_size: B; 100 by default.
      seed: Of the samples. Image i depends on it and on i // B alone.
      jit_compile: Whether to use XLA.

    Returns:
      float64 `[N]`, in nats.

    Raises:
      ValueError: If a number is below 1.
    """
    batch_size = IMAGES if batch_size is None else batch_size
    for name, number in (("num_samples", num_samples), ("batch_size", batch_size)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1. Received: {number}.")
    first = int(as_seed(seed)[0])
    program = _program(log_weights, batch_size, num_samples, jit_compile)
    found = []
    for i, start in enumerate(range(0, len(images), batch_size)):
        x = np.asarray(images[start : start + batch_size], np.float32)
        # The last batch is filled up: another shape would be another program.
        padding = [(0, batch_size - len(x)), *[(0, 0)] * (x.ndim - 1)]
        log_marginal = program(tf.constant(np.pad(x, padding)), tf.constant([first, i], tf.int32))
        found.append(-log_marginal.numpy()[: len(x)].astype(np.float64))
    return np.concatenate(found) if found else np.zeros(0)


def _program(
    log_weights: LogWeights, batch_size: int, num_samples: int, jit_compile: bool
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """From images `[B, H, W, C]` and a seed `[2]` to their log-marginals `[B]`."""
    whole, rest = divmod(num_samples, SAMPLES)

    def log_sum(x: tf.Tensor, samples: int, seed: tf.Tensor) -> tf.Tensor:
        return tf.reduce_logsumexp(log_weights(x, samples, seed), axis=0)

    def add(i: tf.Tensor, total: tf.Tensor, x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        more = log_sum(x, SAMPLES, tf.random.fold_in(seed, i))
        return tf.reduce_logsumexp(tf.stack([total, more]), axis=0)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def program(x: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        total = tf.fill([batch_size], -np.inf)
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
