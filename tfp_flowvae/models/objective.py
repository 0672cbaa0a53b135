"""The evidence lower bound: the only place where its terms become a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import keras
import tensorflow as tf

from tfp_flowvae._configurable import Configurable
from tfp_flowvae._typing import TensorLike
from tfp_flowvae.models.names import BOUNDS, GRADIENTS, WARMUPS, objective_conflict
from tfp_flowvae.training.replicas import batch_mean


class ElboTerms(NamedTuple):
    """The terms of the evidence lower bound, each `[S, B]`, in nats.

    Attributes:
      log_likelihood: log p(x|z).
      log_prior: log p(z).
      log_posterior: log q(z|x) = log_base - log_det.
      log_base: log q0(z0|x), the base density before the flow.
      log_det: log |det dz/dz0| of the flow.
      kl_per_dimension: The part of `kl` of each dimension, `[S, B, D]`; None if it was not
        requested.

    Example:
      >>> vae = fv.FlowVAE(image_shape=(4, 4, 1), latent_size=2, posterior="planar:2")
      >>> terms = vae.elbo_terms(tf.zeros([3, 4, 4, 1]), num_samples=5)
      >>> terms.elbo.shape
      TensorShape([5, 3])
      >>> list(terms.named())
      ['log_likelihood', 'log_prior', 'log_posterior', 'log_base', 'log_det']
    """

    log_likelihood: tf.Tensor
    log_prior: tf.Tensor
    log_posterior: tf.Tensor
    log_base: tf.Tensor
    log_det: tf.Tensor
    kl_per_dimension: tf.Tensor | None = None

    @property
    def kl(self) -> tf.Tensor:
        """log q(z|x) - log p(z), whose mean over samples is KL(q(z|x) || p(z)); `[S, B]`."""
        return self.log_posterior - self.log_prior

    @property
    def elbo(self) -> tf.Tensor:
        """log p(x|z) + log p(z) - log q(z|x), whose mean over samples bounds log p(x); `[S, B]`."""
        return self.log_likelihood - self.kl

    def named(self) -> dict[str, tf.Tensor]:
        """Returns the terms by name, without those that are None."""
        return {name: term for name, term in self._asdict().items() if term is not None}


def importance_bound(log_weights: tf.Tensor) -> tf.Tensor:
    """Returns log 1/S sum_s exp(log_weights_s), `[...]`; Burda et al. (2016), equation 8."""
    samples = tf.cast(tf.shape(log_weights)[0], log_weights.dtype)
    return tf.reduce_logsumexp(log_weights, axis=0) - tf.math.log(samples)


@keras.saving.register_keras_serializable(package="tfp_flowvae")
@dataclass(frozen=True)
class Objective(Configurable):
    """The loss of a flow VAE: minus a lower bound of log p(x), in nats per image.

    With w_s = p(x|z_s) (p(z_s) / q(z_s|x))^c, c = beta b, z_s ~ q(z|x), the bounds are

        elbo:  E[mean_s log w_s]
        iwae:  E[log mean_s w_s]       Burda et al. (2016), https://arxiv.org/abs/1509.00519
        dreg:  the value of iwae, with the doubly reparameterised gradient for the posterior
               (Tucker et al. 2019, https://arxiv.org/abs/1810.04152), see `path_factors`

    b is the warm-up. With `linear` (Sonderby et al. 2016), it rises from 0 to 1 in the first
    `warmup_steps` steps of the optimizer and stays at 1. With `cyclic` (Fu et al. 2019), it rises
    `cycles` times; after each rise but the last one it stays at 1 for `warmup_steps` steps and
    returns to 0. The last rise ends after (2 cycles - 1) warmup_steps. Evaluation uses b = 1.

    A minimum of information keeps the posterior from collapsing onto the prior: if the mean KL of
    the batch is below the minimum, the loss has the minimum in its place, which has no gradient
    (Kingma et al. 2016, section 6, equation 14).

    Example:
      >>> Objective(bound="dreg", num_samples=8).num_samples
      8

    Attributes:
      num_samples: S, the number of posterior samples of each image in a step.
      beta: The weight of the KL term in the loss (Higgins et al. 2017); metrics use beta = b = 1.
      bound: `elbo`, `iwae` or `dreg`.
      gradient: `total`, or `stl`: the gradient of log q(z|x) through z alone, which has no variance
        if q is exact ("sticking the landing", Roeder et al. 2017). It costs one more pass through
        the posterior's flow, for its density. It is for `elbo` only: it is biased for `iwae`, for
        which there is `dreg`.
      warmup: `none`, `linear` or `cyclic`.
      warmup_steps: The number of steps of a rise.
      cycles: The number of rises of a `cyclic` warm-up.
      free_bits: The minimum of the KL of each latent dimension, in nats. It needs a KL that is a
        sum over dimensions: a posterior with a diagonal base and no flow, and a standard normal
        prior.
      min_information: The minimum of the whole KL, in nats (lambda), for any posterior and prior.

    Raises:
      ValueError: If a value is not allowed, or two do not go together.
    """

    num_samples: int = 1
    beta: float = 1.0
    bound: str = "elbo"
    gradient: str = "total"
    warmup: str = "none"
    warmup_steps: int = 0
    cycles: int = 4
    free_bits: float = 0.0
    min_information: float = 0.0

    def __post_init__(self) -> None:
        for name, words in (("bound", BOUNDS), ("gradient", GRADIENTS), ("warmup", WARMUPS)):
            if getattr(self, name) not in words:
                raise ValueError(
                    f"{name} must be one of {', '.join(words)}. Received: {getattr(self, name)!r}."
                )
        for name, least in (
            ("num_samples", 1),
            ("cycles", 1),
            ("beta", 0),
            ("free_bits", 0),
            ("min_information", 0),
            ("warmup_steps", 0),
        ):
            if not getattr(self, name) >= least:
                raise ValueError(
                    f"{name} must be at least {least}. Received: {getattr(self, name)}."
                )
        if (self.warmup == "none") != (self.warmup_steps == 0):
            raise ValueError(
                "warmup_steps must be above 0 with a warmup, and 0 without. "
                f"Received: warmup={self.warmup!r}, warmup_steps={self.warmup_steps}."
            )
        complaint = objective_conflict(
            self.bound, self.gradient, self.num_samples, self.free_bits, self.min_information
        )
        if complaint:
            raise ValueError(complaint)

    def kl_weight(self, step: TensorLike | None = None) -> tf.Tensor | float:
        """Returns beta b, the weight of the KL at a step of the optimizer; beta for None."""
        if step is None or self.warmup == "none":
            return self.beta
        step, length = tf.cast(step, tf.float32), float(self.warmup_steps)
        if self.warmup == "cyclic":
            within = tf.math.floormod(step, 2 * length)
            step = tf.where(step < 2 * length * self.cycles, within, length)
        return self.beta * tf.minimum(step / length, 1.0)

    def log_weights(self, terms: ElboTerms, step: TensorLike | None = None) -> tf.Tensor:
        """Returns log w of each sample, `[S, B]`, in nats."""
        return terms.log_likelihood - self.kl_weight(step) * terms.kl

    def path_factors(self, terms: ElboTerms, step: TensorLike | None = None) -> tf.Tensor:
        """Returns the constants that `dreg` multiplies the bound's gradient by z_s with, `[S, B]`.

        With phi the posterior's parameters, z_s = z(e_s, phi) and v_s = w_s / sum_r w_r, the
        gradient of the bound log 1/S sum_s w_s is

            sum_s v_s (d log w_s / dz_s  dz_s / dphi - c d log q(z_s|x) / dphi),

        where the second derivative holds z_s fixed. For any function f of z_s,

            E[f d log q(z_s|x) / dphi] = E[df / dz_s  dz_s / dphi]

        (Tucker et al. 2019). With f = v_s and dv_s / dz_s = (v_s - v_s^2) d log w_s / dz_s the
        gradient has the expectation of

            sum_s ((1 - c) v_s + c v_s^2) d log w_s / dz_s  dz_s / dphi,

        which for c = 1 is their equation 8. If log q(z_s|x) has a gradient through z_s alone,
        automatic differentiation gives v_s d log w_s / dz_s, and the result of this method is the
        missing factor, (1 - c) + c v_s.
        """
        shares = tf.nn.softmax(self.log_weights(terms, step), axis=0)
        weight = self.kl_weight(step)
        return tf.stop_gradient(1.0 - weight + weight * shares)

    def loss(self, terms: ElboTerms, step: TensorLike | None = None) -> tf.Tensor:
        """Returns the loss of each image, `[B]`, in nats.

        Args:
          terms: The terms of the batch.
          step: The step of the optimizer, for the warm-up; None for a warm-up that is over.
        """
        if self.bound != "elbo":
            return -importance_bound(self.log_weights(terms, step))
        kl = tf.reduce_mean(terms.kl, axis=0)
        if self.free_bits:
            if terms.kl_per_dimension is None:
                raise ValueError(
                    "free_bits needs kl_per_dimension in the terms. Received: None there."
                )
            by_dimension = tf.reduce_mean(terms.kl_per_dimension, axis=0)
            kl = tf.reduce_sum(_at_least(self.free_bits, by_dimension), axis=-1)
        elif self.min_information:
            kl = _at_least(self.min_information, kl)
        return self.kl_weight(step) * kl - tf.reduce_mean(terms.log_likelihood, axis=0)


def _at_least(least: float, kl: tf.Tensor) -> tf.Tensor:
    """Returns `kl` `[B, ...]`, or the constant `least` where the mean over the batch is lower."""
    return tf.where(batch_mean(kl) < least, least, kl)
