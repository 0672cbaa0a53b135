"""The evidence lower bound: the only place where its terms become a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import keras
import tensorflow as tf

from tfp_flowvae.models.configurable import Configurable


class ElboTerms(NamedTuple):
    """What the evidence lower bound is made of; each `[S, B]`, in nats.

    Attributes:
      log_likelihood: log p(x|z).
      log_prior: log p(z).
      log_posterior: log q(z|x) = log_base - log_det.
      log_base: log q0(z0|x), the base density before the flow.
      log_det: log |det dz/dz0| of the flow.
    """

    log_likelihood: tf.Tensor
    log_prior: tf.Tensor
    log_posterior: tf.Tensor
    log_base: tf.Tensor
    log_det: tf.Tensor

    @property
    def kl(self) -> tf.Tensor:
        """log q(z|x) - log p(z), whose mean over samples is KL(q(z|x) || p(z)); `[S, B]`."""
        return self.log_posterior - self.log_prior

    @property
    def elbo(self) -> tf.Tensor:
        """log p(x|z) + log p(z) - log q(z|x), whose mean over samples bounds log p(x); `[S, B]`."""
        return self.log_likelihood - self.kl


@keras.saving.register_keras_serializable(package="tfp_flowvae")
@dataclass(frozen=True)
class Objective(Configurable):
    """The loss of a flow VAE: minus the evidence lower bound.

    loss = -E_q[log p(x|z) - beta (log q(z|x) - log p(z))]    (Higgins et al. 2017 for beta != 1)

    Attributes:
      num_samples: S, how many posterior samples each step draws for each image.
      beta: Weight of the KL term in the loss; the metrics are always those of beta = 1.
    """

    num_samples: int = 1
    beta: float = 1.0

    def __post_init__(self) -> None:
        if self.num_samples < 1 or self.beta < 0:
            raise ValueError(
                "num_samples must be at least 1 and beta at least 0. "
                f"Received: num_samples={self.num_samples}, beta={self.beta}."
            )

    def loss(self, terms: ElboTerms) -> tf.Tensor:
        """The loss of each image, `[B]`, in nats."""
        return -tf.reduce_mean(terms.log_likelihood - self.beta * terms.kl, axis=0)
