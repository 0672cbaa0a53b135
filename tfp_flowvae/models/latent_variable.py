"""What a model with a latent variable answers: its distributions, its bound, its images."""

from __future__ import annotations

from typing import NamedTuple

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.bijectors import forward_and_log_det
from tfp_flowvae.models import replicas
from tfp_flowvae.models.adopted import AdoptedPrior
from tfp_flowvae.likelihoods import Likelihood
from tfp_flowvae.models.objective import ElboTerms, Objective, importance_bound
from tfp_flowvae.models.posterior import FlowPosterior
from tfp_flowvae.models.prior import FlowPrior


class PosteriorDraw(NamedTuple):
    """Draws z = f_x(z0) from q(z|x), and their log-densities in nats.

    Attributes:
      posterior: q(z|x), batch `[B]`.
      z0: From the base, `[S, B, D]`.
      z: `[S, B, D]`.
      log_base: log q0(z0|x), `[S, B]`.
      log_det: log |det dz/dz0|, `[S, B]`.
      log_posterior: log q(z|x) = log_base - log_det, `[S, B]`.
    """

    posterior: tfd.TransformedDistribution
    z0: tf.Tensor
    z: tf.Tensor
    log_base: tf.Tensor
    log_det: tf.Tensor
    log_posterior: tf.Tensor


class LatentVariableModel(keras.Model):
    """A Keras model of images x with a latent vector z; `FlowVAE` builds and trains it."""

    encoder: keras.layers.Layer
    decoder: keras.layers.Layer
    posterior_layer: FlowPosterior
    prior_layer: FlowPrior | AdoptedPrior
    likelihood: Likelihood
    objective: Objective
    event_size: int
    image_shape: tuple[int, ...]
    seed_generator: keras.random.SeedGenerator

    def posterior(self, x: TensorLike) -> tfd.TransformedDistribution:
        """q(z|x) with batch shape `[B]` and event shape `[D]`, for images `[B, H, W, C]`."""
        return self.posterior_layer.distribution(self.encoder(self._images(x)))

    def prior(self) -> tfd.TransformedDistribution:
        """p(z) with batch shape `[]` and event shape `[D]`; its variables are the live weights."""
        return self.prior_layer.distribution()

    def elbo_terms(
        self, x: TensorLike, num_samples: int = 1, seed: TensorLike | None = None
    ) -> ElboTerms:
        """The terms of the evidence lower bound, each `[S, B]`, in nats.

        z and log q(z|x) come from one pass through the flow, and log p(z) from one through the
        prior's: every conditioner runs once.

        Args:
          x: Images `[B, H, W, C]`.
          num_samples: S, how many z to draw for each image.
          seed: An int, an integer scalar or a stateless seed `[2]`; None draws a fresh one.
        """
        seed = self._stateless(seed)
        return self.terms_of(self.draw(x, num_samples, seed), x, seed)

    def draw(
        self, x: TensorLike, num_samples: int = 1, seed: TensorLike | None = None
    ) -> PosteriorDraw:
        """S draws from q(z|x) for each image `[B, H, W, C]`, from one pass through the flow."""
        posterior = self.posterior(x)
        z0, log_base = self.posterior_layer.draw_base(
            posterior.distribution, num_samples, self._stateless(seed)
        )
        z, log_det = forward_and_log_det(posterior.bijector, z0)
        log_det = tf.broadcast_to(log_det, tf.shape(log_base))
        return PosteriorDraw(posterior, z0, z, log_base, log_det, log_base - log_det)

    def terms_of(
        self,
        draw: PosteriorDraw,
        x: TensorLike,
        seed: TensorLike | None = None,
        per_dimension: bool = False,
    ) -> ElboTerms:
        """The terms of the bound at draws from q(z|x).

        Args:
          draw: What `draw` gave, or the same values with other gradients.
          x: The images, `[B, H, W, C]`.
          seed: Of a likelihood's dequantisation, if it has one.
          per_dimension: Whether to give the KL of each dimension, which there is where posterior
            and prior factorise.
        """
        kl_per_dimension = None
        if per_dimension:
            base = draw.posterior.distribution.distribution
            kl_per_dimension = base.log_prob(draw.z0) - tfd.Normal(0.0, 1.0).log_prob(draw.z)
        seen = replicas.prepare(self.likelihood, self._images(x), self._stateless(seed))
        return ElboTerms(
            log_likelihood=self.likelihood.log_prob(self._decode_parameters(draw.z), seen),
            log_prior=self.prior_layer(draw.z),
            log_posterior=draw.log_posterior,
            log_base=draw.log_base,
            log_det=draw.log_det,
            kl_per_dimension=kl_per_dimension,
        )

    def elbo(
        self, x: TensorLike, num_samples: int = 1, seed: TensorLike | None = None
    ) -> tf.Tensor:
        """The evidence lower bound of each image, `[B]`, in nats: the mean over S samples."""
        return tf.reduce_mean(self.elbo_terms(x, num_samples, seed).elbo, axis=0)

    def log_marginal(
        self, x: TensorLike, num_samples: int = 500, seed: TensorLike | None = None
    ) -> tf.Tensor:
        """The importance-weighted estimate of log p(x), `[B]`, in nats.

        log 1/S sum_s p(x, z_s) / q(z_s|x), a lower bound that tightens as S grows (Burda et al.
        2016, https://arxiv.org/abs/1509.00519). All S samples are held at once.
        """
        return importance_bound(self.elbo_terms(x, num_samples, seed).elbo)

    def sample(self, n: TensorLike, seed: TensorLike | None = None) -> tf.Tensor:
        """Mean images `[n, H, W, C]` in [0, 1] of n draws from the prior."""
        return self.decode(self.prior().sample(n, seed=self._stateless(seed)))

    def encode(self, x: TensorLike, seed: TensorLike | None = None) -> tf.Tensor:
        """One draw from q(z|x) for each image `[B, H, W, C]`; `[B, D]`."""
        posterior = self.posterior(x)
        # In a graph `posterior.sample` cannot take a batch of size 0.
        z0, _ = self.posterior_layer.draw_base(posterior.distribution, 1, self._stateless(seed))
        return posterior.bijector.forward(z0[0])

    def decode(self, z: TensorLike) -> tf.Tensor:
        """The mean image p(x|z) `[..., H, W, C]`, in [0, 1], of latent vectors `[..., D]`."""
        z = tf.cast(tf.convert_to_tensor(z, dtype_hint=tf.float32), tf.float32)
        if z.shape.rank == 0 or z.shape[-1] not in (None, self.event_size):
            raise ValueError(
                f"z must have shape [..., {self.event_size}]. Received: z.shape={tuple(z.shape)}."
            )
        return self.likelihood.mean(self._decode_parameters(z))

    def reconstruct(self, x: TensorLike, seed: TensorLike | None = None) -> tf.Tensor:
        """Mean images `[B, H, W, C]` of one posterior draw for each image."""
        return self.decode(self.encode(x, seed))

    def _images(self, x: TensorLike) -> tf.Tensor:
        x = tf.cast(tf.convert_to_tensor(x, dtype_hint=tf.float32), tf.float32)
        if not x.shape.is_compatible_with([None, *self.image_shape]):
            wanted = ", ".join(map(str, self.image_shape))
            raise ValueError(f"Images must be [B, {wanted}]. Received: x.shape={tuple(x.shape)}.")
        return x

    def _decode_parameters(self, z: tf.Tensor) -> tf.Tensor:
        """The decoder over any leading dimensions: nets built for `[B, D]` refuse `[S, B, D]`.

        In float32 from here on, whatever the precision policy.
        """
        leading = tf.shape(z)[:-1]
        output = tf.cast(self.decoder(tf.reshape(z, [-1, self.event_size])), tf.float32)
        return tf.reshape(output, tf.concat([leading, output.shape[1:]], axis=0))

    def _stateless(self, seed: TensorLike | None) -> tf.Tensor:
        """TFP's stateless seed, int32 `[2]`, from an int, a scalar, such a seed, or None."""
        if seed is None:
            return tf.cast(self.seed_generator.next(), tf.int32)
        seed = tf.convert_to_tensor(seed, dtype_hint=tf.int32)
        if seed.shape.rank == 0:
            return tf.stack([tf.cast(seed, tf.int32), 0])
        return seed
