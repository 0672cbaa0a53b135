"""The free energy (-ELBO) of a set of images, and the terms of the ELBO."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tfp_flowvae.data import evaluation_batches, steps_per_epoch
from tfp_flowvae.models import FlowVAE
from tfp_flowvae.training.strategy import shared_batches

EVALUATION_BATCH = 1000
# Attributes of `ElboTerms`.
TERMS = ("log_likelihood", "kl", "log_prior", "log_posterior", "log_base", "log_det")


def free_energy(
    model: FlowVAE,
    images: np.ndarray,
    levels: int | None,
    seed: int,
    labels: np.ndarray | None = None,
) -> dict[str, float]:
    """Returns the mean free energy (-ELBO, one sample per image) and its two terms.

    The same calls of the exported model's `elbo` as in `elbo_term_means` give the same number.

    Args:
      model: The model.
      images: As for `elbo_term_means`.
      levels: As for `elbo_term_means`.
      seed: As for `elbo_term_means`.
      labels: As for `elbo_term_means`.

    Returns:
      `free_energy`, `log_likelihood` (E_q log p(x|z)) and `kl` (E_q log q(z|x) - log p(z)), in nats
      per image, with free_energy = kl - log_likelihood.

    Example:
      >>> vae = fv.FlowVAE(image_shape=(4, 4, 1), latent_size=2)
      >>> terms = free_energy(vae, np.zeros([3, 4, 4, 1], "float32"), levels=None, seed=0)
      >>> bool(np.isclose(terms["free_energy"], terms["kl"] - terms["log_likelihood"]))
      True
    """
    means = elbo_term_means(model, images, levels, seed, labels)
    log_likelihood, kl = means["log_likelihood"], means["kl"]
    return {"free_energy": kl - log_likelihood, "log_likelihood": log_likelihood, "kl": kl}


def elbo_term_means(
    model: FlowVAE,
    images: np.ndarray,
    levels: int | None,
    seed: int,
    labels: np.ndarray | None = None,
) -> dict[str, float]:
    """Returns the mean of each term of the ELBO, with one sample per image.

    The images are taken in order, 1000 at a time. Batch i, counted from 0, is drawn with the seed
    `seed + i`. Under a `tf.distribute` strategy each replica takes its share of each batch, so that
    each image counts once. All workers must call this function, and all of them get the same
    numbers.

    Args:
      model: The model.
      images: `[N, H, W, C]`, already binarised if the model needs it.
      levels: The number of grey levels of uint8 images; None for float images in [0, 1].
      seed: The seed of the posterior samples.
      labels: The label of each image, int32 `[N]`, for the bound of log p(x|y); or None.

    Returns:
      The means of the attributes `TERMS` of `ElboTerms`, in nats per image.
    """
    strategy = model.distribute_strategy

    def sums_of(batch: Any, batch_seed: tf.Tensor) -> tf.Tensor:
        x, y = (batch, None) if labels is None else batch
        terms = model.elbo_terms(x, seed=batch_seed, label=y)
        parts = tf.stack([getattr(terms, name)[0] for name in TERMS])
        return tf.reduce_sum(tf.cast(parts, tf.float64), axis=1)

    # The argument is the iterator and not a batch, so that workers with unequal shares trace alike.
    @tf.function(reduce_retracing=True, autograph=False)
    def sums_of_next(batches: Iterator[Any], batch_seed: tf.Tensor) -> tf.Tensor:
        sums = strategy.run(sums_of, args=(next(batches), batch_seed))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, sums, axis=None)

    dataset = evaluation_batches(images, EVALUATION_BATCH, levels=levels, labels=labels)
    batches = iter(shared_batches(strategy, dataset))
    totals = np.zeros(len(TERMS))
    for i in range(steps_per_epoch(len(images), EVALUATION_BATCH)):
        totals += sums_of_next(batches, tf.constant(seed + i, tf.int32)).numpy()
    return dict(zip(TERMS, (totals / len(images)).tolist(), strict=True))
