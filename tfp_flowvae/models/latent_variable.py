"""A latent variable model with an approximate posterior: its densities, draws and bounds."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfp_flowvae._typing import TensorLike
from tfp_flowvae.distributions.flow_distribution import Draw, FlowDistribution
from tfp_flowvae.distributions.interpolation import interpolate
from tfp_flowvae.errors import UserError
from tfp_flowvae.likelihoods.base import Likelihood
from tfp_flowvae.models.conditional import ConditionalModel
from tfp_flowvae.models.importance import estimates_of
from tfp_flowvae.models.objective import ElboTerms
from tfp_flowvae.models.parts import batch_of
from tfp_flowvae.training.noise import Noise

_PIXEL_STREAM = 0x91C5  # the stream of the noise of drawn pixels


class LatentVariableModel(ConditionalModel):
    """p(x, z) = p(z) p(x|z), and an approximation q(z|x) of the posterior.

    With classes y, p(x, z|y) = p(z|y) p(x|z) and q(z|x, y); with a conditional decoder it is
    p(x|z, y). Every method of images or of z then takes a `label`: an integer, or an integer for
    each of them. A label of -1, or None for all, means that the class is not known: p(x) is the
    model's density of such an image, a density of its own and not sum_y p(y) p(x|y). With a context
    in place of classes, y is a vector, and these methods take `context`, `[B, C]`, a vector for
    each image; it cannot be left out.

    A subclass makes the parts and says how they are trained.

    Attributes:
      image_shape: `(H, W, C)`.
      latent_size: D, the size of z.
      encoder: From images `[B, H, W, C]` to features `[B, F]`.
      posterior_layer: q(z|x), given the features.
      prior_layer: p(z).
      decoder: From latent vectors `[B, D]` to the likelihood's parameters `[B, H, W, P]`.
      conditional_decoder: Whether the decoder takes the condition after z, `[B, D + K]`.
      likelihood: p(x|z).
    """

    image_shape: tuple[int, ...]
    latent_size: int
    encoder: keras.layers.Layer
    posterior_layer: FlowDistribution
    prior_layer: FlowDistribution
    decoder: keras.layers.Layer
    likelihood: Likelihood
    conditional_decoder: bool

    def features(
        self,
        x: TensorLike,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> tf.Tensor:
        """The context of the posterior: the encoder's features `[B, F]`, and the condition."""
        x = self._images(x)
        features = self.encoder(x)
        condition = self.condition(label, context, tf.shape(x)[0])
        if condition is None:
            return features
        if not condition.shape[:-1].is_compatible_with(x.shape[:1]):
            raise UserError(
                f"There must be one context for each image, [B, {self.context_size}]. Received: "
                f"shape {tuple(condition.shape)} for {x.shape[0]} images."
            )
        return tf.concat([features, tf.cast(condition, features.dtype)], axis=-1)

    def posterior(
        self,
        x: TensorLike,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> tfd.TransformedDistribution:
        """q(z|x) with batch shape `[B]` and event shape `[D]`, for images `[B, H, W, C]`."""
        return self.posterior_layer.distribution(self.features(x, label, context))

    def prior(
        self, label: TensorLike | None = None, context: TensorLike | None = None
    ) -> tfd.TransformedDistribution:
        """p(z) with batch shape `[]` and event shape `[D]`; its variables are the live weights.

        Args:
          label: With classes, B labels give p(z|y) with batch shape `[B]`; an integer, or None for
            an unknown class, has B = 1.
          context: `[B, C]`, which gives a batch shape of `[B]`; or None.
        """
        count = 1 if label is None else tf.size(label)
        return self.prior_layer.distribution(self.condition(label, context, count))

    def log_prior(
        self,
        z: TensorLike,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> tf.Tensor:
        """log p(z), or log p(z|y), of z `[..., B, D]`; `[..., B]`, in nats."""
        z = tf.convert_to_tensor(z, dtype_hint=tf.float32)
        return self.prior_layer.log_prob(z, self.condition_of_rows(label, context, z))

    def draw_prior(
        self,
        n: TensorLike,
        seed: TensorLike | None = None,
        temperature: TensorLike | None = None,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> tf.Tensor:
        """n draws from p(z), or one from p(z|y) for each of n labels, `[n, D]`; see `sample`."""
        seed, condition = self.stateless_seed(seed), self.condition(label, context, n)
        if self.num_classes is None:
            return self.prior_layer.sample(n, condition, seed, temperature)
        return self.prior_layer.sample(1, condition, seed, temperature)[0]

    def draw(
        self,
        x: TensorLike,
        num_samples: int = 1,
        seed: TensorLike | None = None,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> Draw:
        """S draws from q(z|x) for each image `[B, H, W, C]`, and the terms of their densities."""
        features = self.features(x, label, context)
        return self.posterior_layer.draw(num_samples, features, self.stateless_seed(seed))

    def elbo_terms(
        self,
        x: TensorLike,
        num_samples: int = 1,
        seed: TensorLike | None = None,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> ElboTerms:
        """The terms of the evidence lower bound, each `[S, B]`, in nats.

        Args:
          x: Images `[B, H, W, C]`.
          num_samples: S, how many z to draw for each image.
          seed: An int, an integer scalar or a stateless seed `[2]`; None draws a fresh one.
          label: The label, or the labels `[B]`, of a model with classes.
          context: The context `[B, C]` of a model with a context.
        """
        seed = self.stateless_seed(seed)
        draw = self.draw(x, num_samples, seed, label, context)
        return self.terms_of(draw, x, seed, label=label, context=context)

    def terms_of(
        self,
        draw: Draw,
        x: TensorLike,
        seed: TensorLike | Noise | None = None,
        per_dimension: bool = False,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> ElboTerms:
        """The terms of the bound at draws from q(z|x).

        Args:
          draw: The result of `draw`, or the same values with other gradients.
          x: The images, `[B, H, W, C]`.
          seed: Of a likelihood's dequantisation, if it has one; or the `Noise` itself.
          per_dimension: Whether to give the KL of each dimension, where posterior and prior
            factorise.
          label: The label, or the labels `[B]`, of a model with classes.
          context: The context `[B, C]` of a model with a context.
        """
        kl_per_dimension = None
        if per_dimension:
            base = draw.distribution.distribution.distribution
            kl_per_dimension = base.log_prob(draw.z0) - tfd.Normal(0.0, 1.0).log_prob(draw.z)
        noise = seed if isinstance(seed, Noise) else Noise(self.stateless_seed(seed))
        seen = self.likelihood.prepare(self._images(x), noise)
        parameters = self._decode_parameters(draw.z, label, context)
        return ElboTerms(
            log_likelihood=self.likelihood.log_prob(parameters, seen),
            log_prior=self.log_prior(draw.z, label, context),
            log_posterior=draw.log_prob,
            log_base=draw.log_base,
            log_det=draw.log_det,
            kl_per_dimension=kl_per_dimension,
        )

    def elbo(
        self,
        x: TensorLike,
        num_samples: int = 1,
        seed: TensorLike | None = None,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> tf.Tensor:
        """The evidence lower bound of each image, `[B]`, in nats: the mean over S samples.

        With a label or a context it bounds log p(x|y), otherwise log p(x).
        """
        terms = self.elbo_terms(x, num_samples, seed, label, context)
        return tf.reduce_mean(terms.elbo, axis=0)

    def nll(
        self,
        x: TensorLike,
        num_samples: int = 5000,
        batch_size: int | None = None,
        seed: int | None = None,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> np.ndarray:
        """The importance-weighted estimate of -log p(x) of each image, `[N]`, in nats.

        -log 1/S sum_s p(x, z_s) / q(z_s|x), z_s ~ q(z|x), an upper bound that tightens as S grows
        (Burda et al. 2016, https://arxiv.org/abs/1509.00519, equation 8). Memory grows with neither
        N nor S.

        Args:
          x: Images `[N, H, W, C]`.
          num_samples: S.
          batch_size: How many images to take at once; 100 by default.
          seed: Of the samples; None draws a fresh one.
          label: The label, or the labels `[N]`: the result is then -log p(x|y).
          context: The contexts `[N, C]`, likewise.

        Raises:
          ValueError: If `num_samples` or `batch_size` is below 1.
        """
        images = self._images(x).numpy()
        return estimates_of(
            self, images, num_samples, batch_size, seed, label=label, context=context
        ).nll

    def sample(
        self,
        n: TensorLike,
        seed: TensorLike | None = None,
        temperature: TensorLike | None = None,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> tf.Tensor:
        """Mean images `[n, H, W, C]` in [0, 1] of n draws from the prior.

        Args:
          n: The number of images.
          seed: An int, an integer scalar or a stateless seed `[2]`; None draws a fresh one.
          temperature: T, which scales the draws of the prior's base about their mean, before the
            prior's flow: below 1 images are more typical and less varied. See
            `FlowDistribution.sample`. None for 1, the prior itself.
          label: The label of all images, or the label of each, `[n]`.
          context: `[B, C]`: the result are n images for each, `[n, B, H, W, C]`.

        Raises:
          UserError: If there is a temperature and the prior's base is a distribution without a
            mean.
        """
        z = self.draw_prior(n, seed, temperature, label, context)
        return self.decode(z, label, context)

    def draw_images(
        self,
        n: int,
        seed: TensorLike | None = None,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> tf.Tensor:
        """n images drawn from p(x), `[n, H, W, C]`: z from the prior, then x from p(x|z).

        They are comparable with data: binary for a Bernoulli likelihood, where `sample` gives the
        probability of each pixel. Both take the same z for the same n and seed.
        """
        seed = self.stateless_seed(seed)
        z = self.draw_prior(n, seed, label=label, context=context)
        pixels = Noise(seed).stream(_PIXEL_STREAM).seed
        return self.likelihood.sample(self._decode_parameters(z, label, context), pixels)

    def encode(
        self,
        x: TensorLike,
        seed: TensorLike | None = None,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> tf.Tensor:
        """One draw from q(z|x) for each image `[B, H, W, C]`; `[B, D]`."""
        features = self.features(x, label, context)
        return self.posterior_layer.sample(1, features, self.stateless_seed(seed))[0]

    def decode(
        self,
        z: TensorLike,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> tf.Tensor:
        """The mean image of p(x|z) `[..., H, W, C]`, in [0, 1], of latent vectors `[..., D]`.

        A label and a context play a part only with a conditional decoder, with z `[..., B, D]`.
        """
        z = tf.cast(tf.convert_to_tensor(z, dtype_hint=tf.float32), tf.float32)
        if z.shape.rank == 0 or z.shape[-1] not in (None, self.latent_size):
            raise ValueError(
                f"z must have shape [..., {self.latent_size}]. Received: z.shape={tuple(z.shape)}."
            )
        return self.likelihood.mean(self._decode_parameters(z, label, context))

    def reconstruct(
        self,
        x: TensorLike,
        seed: TensorLike | None = None,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> tf.Tensor:
        """Mean images `[B, H, W, C]` of one posterior draw for each image."""
        return self.decode(self.encode(x, seed, label, context), label, context)

    def interpolate(
        self,
        x1: TensorLike,
        x2: TensorLike,
        steps: TensorLike,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> tf.Tensor:
        """Mean images along the paths from x1 to x2, `[steps, B, H, W, C]`.

        Each end is the z of the mean of the posterior's base. The path between them is simple in
        the space of the prior's base: see `tfp_flowvae.distributions.interpolate`.

        Args:
          x1: Images `[B, H, W, C]`.
          x2: Images `[B, H, W, C]`.
          steps: The number of images on each path, with both ends.
          label: The label of each pair, or of all.
          context: The context of each pair, `[B, C]`.
        """
        first, second = (
            self.posterior_layer.sample(1, self.features(x, label, context), 0, temperature=0.0)[0]
            for x in (x1, x2)
        )
        return self.decode(self.path(first, second, steps, label, context), label, context)

    def path(
        self,
        first: TensorLike,
        second: TensorLike,
        steps: TensorLike,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> tf.Tensor:
        """The points of `interpolate` between z1 and z2 `[B, D]`, `[steps, B, D]`."""
        condition = self.condition(label, context, tf.shape(first)[0])
        return interpolate(self.prior_layer, first, second, steps, condition)

    def _images(self, x: TensorLike) -> tf.Tensor:
        x = tf.cast(tf.convert_to_tensor(x, dtype_hint=tf.float32), tf.float32)
        if not x.shape.is_compatible_with([None, *self.image_shape]):
            raise ValueError(
                f"Images must be {batch_of(self.image_shape)}. Received: x.shape={tuple(x.shape)}."
            )
        return x

    def _decode_parameters(
        self,
        z: tf.Tensor,
        label: TensorLike | None = None,
        context: TensorLike | None = None,
    ) -> tf.Tensor:
        """The decoder over any leading dimensions: nets built for `[B, D]` refuse `[S, B, D]`.

        In float32 from here on, whatever the precision policy.
        """
        leading, code = tf.shape(z)[:-1], tf.reshape(z, [-1, self.latent_size])
        if self.conditional_decoder:
            rows = z if z.shape.rank > 1 else code
            condition = self.condition_of_rows(label, context, rows)
            shape = tf.concat([tf.shape(rows)[:-1], [self.condition_size]], axis=0)
            condition = tf.reshape(tf.broadcast_to(condition, shape), [-1, self.condition_size])
            code = tf.concat([code, condition], axis=-1)
        output = tf.cast(self.decoder(code), tf.float32)
        return tf.reshape(output, tf.concat([leading, output.shape[1:]], axis=0))
