"""The aggregated posterior q(z) = mean_n q(z|x_n), and the two parts of the KL term."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfp_flowvae.models import FlowVAE

# Densities that are held at once.
_PAIRS = 1 << 16


class Aggregated(NamedTuple):
    """The two parts of the mean KL(q(z|x) || p(z)), after Hoffman & Johnson (2016).

    Attributes:
      mutual_information: I(x; z) under q, nats, at most log N.
      kl: KL(q(z) || p(z)), nats.
      log_images: log N, the largest value that the mutual information can have.

    Example:
      >>> found = Aggregated(mutual_information=2.0, kl=0.5, log_images=np.log(1000))
      >>> found.mutual_information + found.kl  # the mean KL from the posteriors to the prior
      2.5
    """

    mutual_information: float
    kl: float
    log_images: float


def aggregated_posterior(
    model: FlowVAE,
    x: np.ndarray,
    seed: int,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Aggregated:
    """Estimates both parts of the KL, with one draw for each of N images.

    With z_n ~ q(z|x_n) and q(z) the mixture of the N posteriors,

        I(x; z) = mean_n log q(z_n|x_n) - log q(z_n)
        KL(q(z) || p(z)) = mean_n log q(z_n) - log p(z_n)

    It takes N^2 densities of the posterior. For an IAF each is an exact sweep over the dimensions.

    Args:
      model: The model.
      x: Images `[N, H, W, C]`.
      seed: The seed of the draws.
      progress: A function that wraps the iterable of the batches' first places, such as `tqdm`.

    Example:
      >>> vae = fv.FlowVAE(image_shape=(4, 4, 1), latent_size=2)
      >>> found = aggregated_posterior(vae, np.zeros([8, 4, 4, 1], "float32"), seed=0)
      >>> round(abs(found.mutual_information), 3)  # all images are the same
      0.0
    """
    draw = model.draw(x, 1, seed)
    z, own = draw.z[0], draw.log_prob[0].numpy().astype(np.float64)
    features = model.features(x)
    count = len(x)

    @tf.function(autograph=False, reduce_retracing=True)
    def log_mixture(rows: tf.Tensor) -> tf.Tensor:
        everyone = tf.tile(rows[:, tf.newaxis], [1, count, 1])
        log_densities = model.posterior_layer.log_prob(everyone, features)
        return tf.reduce_logsumexp(log_densities, axis=1) - np.float32(np.log(count))

    step = max(1, _PAIRS // count)
    starts = progress(range(0, count, step))
    parts = [log_mixture(z[start : start + step]).numpy() for start in starts]
    aggregated = np.concatenate(parts).astype(np.float64)
    log_prior = model.log_prior(z).numpy().astype(np.float64)
    return Aggregated(
        mutual_information=float(np.mean(own - aggregated)),
        kl=float(np.mean(aggregated - log_prior)),
        log_images=float(np.log(count)),
    )
