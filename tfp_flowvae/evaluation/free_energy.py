"""The free energy of a set of images."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfp_flowvae.data import to_unit
from tfp_flowvae.models import FlowVAE

EVALUATION_BATCH = 1000


def free_energy(
    model: FlowVAE, images: np.ndarray, levels: int | None, seed: int
) -> dict[str, float]:
    """The mean free energy (-ELBO, one sample an image) and its two terms, in nats per image.

    Images are taken in their order, 1000 at a time, and batch i (from 0) draws with the seed
    `seed + i`: the same calls of the exported model's `elbo` give the same number.

    Args:
      model: The model.
      images: `[N, H, W, C]`, binarised already if they are to be.
      levels: Number of grey levels of uint8 images; None for float images in [0, 1].
      seed: Of the posterior samples.

    Returns:
      `free_energy`, `log_likelihood` (E_q log p(x|z)) and `kl` (E_q log q(z|x) - log p(z)), with
      free_energy = kl - log_likelihood.
    """

    @tf.function(reduce_retracing=True, autograph=False)
    def terms_of(x: tf.Tensor, batch_seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        terms = model.elbo_terms(x, seed=batch_seed)
        return terms.log_likelihood[0], terms.kl[0]

    likelihoods, kls = [], []
    for i, start in enumerate(range(0, len(images), EVALUATION_BATCH)):
        x = to_unit(images[start : start + EVALUATION_BATCH], levels)
        likelihood, kl = terms_of(tf.constant(x), tf.constant(seed + i, tf.int32))
        likelihoods.append(likelihood.numpy())
        kls.append(kl.numpy())
    log_likelihood = float(np.mean(np.concatenate(likelihoods), dtype=np.float64))
    kl_mean = float(np.mean(np.concatenate(kls), dtype=np.float64))
    return {
        "free_energy": kl_mean - log_likelihood,
        "log_likelihood": log_likelihood,
        "kl": kl_mean,
    }
